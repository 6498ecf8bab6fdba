# SPDX-License-Identifier: BSD-2-Clause
"""The functions of Go programs, which know their names also when they are stripped.

Go's runtime has a table of them in the section .gopclntab.  Its layout changed with the releases of
Go that the first number in it stands for.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from pybpf.elf_symbols import name_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_SECTIONS = (".gopclntab", ".data.rel.ro.gopclntab")
_GO_1_2, _GO_1_16, _GO_1_18, _GO_1_20 = 0xFFFFFFFB, 0xFFFFFFFA, 0xFFFFFFF0, 0xFFFFFFF1
_HEADER = 8  # bytes: the number, two of nothing, the size of an instruction and that of a pointer
_POINTER_SIZE = 7


def functions(elf: Any) -> Iterator[tuple[str, int]]:
    """(name, address) of each; none where it is no Go program, or not certain where they are."""
    for name in _SECTIONS:
        section = elf.get_section_by_name(name)
        if section is not None:
            table = section.data()
            layout = _layout(table, _text(elf), "<" if elf.little_endian else ">")
            if layout is not None:
                yield from _read(table, layout)


def _text(elf: Any) -> int | None:
    """Where Go's code begins in a program that is all Go's: C's linker puts more before it."""
    if elf.get_section_by_name(".init") is not None:
        return None
    text = elf.get_section_by_name(".text")
    return None if text is None else int(text["sh_addr"])


class _Layout(NamedTuple):
    """Where a table has what: ``order`` is struct's sign of the byte order, ``word`` of a pointer.

    All addresses are relative to ``base``, the names' to ``names``, all others to ``places``.
    """

    order: str
    word: str
    functions: int
    base: int | None
    names: int
    places: int
    first: int


def _layout(table: bytes, text: int | None, order: str) -> _Layout | None:
    (number,) = struct.unpack_from(order + "I", table)
    word = "I" if table[_POINTER_SIZE] == 4 else "Q"
    header = struct.unpack_from(f"{order}8{word}", table, _HEADER)
    if number in (_GO_1_18, _GO_1_20):
        count, _, start, names, *_, places = header
        # no start: Go 1.26 has none, and relocated programs get theirs when they are loaded
        return _Layout(order, "I", count, start or text, names, places, places)
    if number == _GO_1_16:
        count, _, names, _, _, _, places, _ = header
        return _Layout(order, word, count, 0, names, places, places)
    if number == _GO_1_2:
        return _Layout(order, word, header[0], 0, 0, 0, _HEADER + table[_POINTER_SIZE])
    return None


def _read(table: bytes, layout: _Layout) -> Iterator[tuple[str, int]]:
    if layout.base is None:
        return
    pairs = struct.Struct(f"{layout.order}2{layout.word}")
    info = struct.Struct(f"{layout.order}{layout.word}i")  # of a function: its address, its name
    end = layout.first + layout.functions * pairs.size
    for address, place in pairs.iter_unpack(table[layout.first : end]):
        _, name = info.unpack_from(table, layout.places + place)
        yield name_at(table, layout.names + name), layout.base + address
