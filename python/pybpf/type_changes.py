# SPDX-License-Identifier: BSD-2-Clause
"""What became different between two versions of a type, field by field."""

from __future__ import annotations

from pybpf.btf import DataSec
from pybpf.errors import LayoutError
from pybpf.layout_check import spell
from pybpf.shape import join, leaves

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.btf import Type


def changes(old: Type, new: Type) -> str:
    """A table of the fields that are elsewhere, or of another type, or in one only; "" for none.

    Types that cannot be looked at field by field are the same where their sizes are.
    """
    try:
        before, after = _fields(old), _fields(new)
    except LayoutError:
        return "" if old.size == new.size else f"{old} has {old.size} bytes, {new} has {new.size}"
    rows = [
        (path, before.get(path, "-"), after.get(path, "-"))
        for path in before | after
        if before.get(path) != after.get(path)
    ]
    if not rows and old.size != new.size:
        rows = [("(size)", str(old.size), str(new.size))]
    return _table([("field", "old", "new"), *rows]) if rows else ""


def _fields(whole: Type) -> dict[str, str]:
    """Each scalar's path, and what it is and where; of a section, those of its variables."""
    if not isinstance(whole, DataSec):
        return _fields_at(0, "", whole)
    fields: dict[str, str] = {}
    for each in whole.variables:
        fields |= _fields_at(8 * each.offset, each.name, each.type)
    return fields


def _fields_at(bit: int, name: str, whole: Type) -> dict[str, str]:
    return {
        join(name, leaf.path): f"{spell(leaf)} at {_place(bit + leaf.bit)}"
        for leaf in leaves(whole)
    }


def _place(bit: int) -> str:
    return f"{bit // 8}:{bit % 8}" if bit % 8 else str(bit // 8)


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join(lines)
