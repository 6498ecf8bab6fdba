# SPDX-License-Identifier: BSD-2-Clause
"""Which maps of a running object its successor takes over, and what is to become of the others."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from pybpf.btf import DataSec
from pybpf.errors import LayoutError, NotFoundError
from pybpf.map import Map
from pybpf.type_changes import changes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import TypeAlias, TypeVar

    from pybpf.object_map import ObjectMap

    M = TypeVar("M", bound=Map)

    Migration: TypeAlias = Callable[[Map, Map], object]

# of MapType: the kernel fills what these hold, for one object
_STRUCT_OPS = 26
_CONSTANT = (".rodata", ".kconfig")


@dataclass(frozen=True)
class Succession:
    """Maps by name, those of variables by section (".bss"), and what becomes of each.

    ``kept`` are the same maps in both objects.  ``migrated`` are of another layout, and a function
    takes their content over, or pybpf the variables of the same name and type; ``fresh`` begin
    empty or as declared, and ``left`` end with the old object.
    """

    kept: tuple[str, ...]
    migrated: tuple[str, ...]
    fresh: tuple[str, ...]
    left: tuple[str, ...]


def by_name(maps: Iterable[M]) -> dict[str, M]:
    """Maps by what an older and a newer object call them."""
    return {common_name(each.name): each for each in maps}


def common_name(name: str) -> str:
    """A map's own name, or the section of variables ("agent.bss" -> ".bss")."""
    return name[max(name.find("."), 0) :]


def arrange(
    old: Mapping[str, Map], new: Mapping[str, ObjectMap], migrations: Mapping[str, Migration | None]
) -> Succession:
    """Have ``new``, of an object that is open, be the maps of ``old`` that are as declared there.

    ``migrations`` has, for maps that are not, a function of the old and the new map, or None to
    begin anew.  LayoutError with all that differs where one is neither; NotFoundError where a
    migration is for no map of both.
    """
    common = {name: each for name, each in new.items() if name in old and _succeeds(each)}
    for name in migrations:
        if name not in common:
            raise NotFoundError("map of both objects", name, list(common))
    found = {name: difference(old[name], each) for name, each in common.items()}
    refused = {
        name: text
        for name, text in found.items()
        if text and name not in migrations and not common[name].is_internal
    }
    if refused:
        raise _unlike(refused)
    kept = [name for name in common if not found[name] and name not in migrations]
    for name in kept:
        common[name].reuse(old[name])
    sections = [name for name, each in common.items() if each.is_internal and found[name]]
    migrated = [name for name in common if migrations.get(name, name in sections)]
    created = [name for name, each in new.items() if each.autocreate and name not in kept]
    return Succession(
        kept=tuple(kept),
        migrated=tuple(migrated),
        fresh=tuple(name for name in created if name not in migrated),
        left=tuple(name for name in old if name not in new),
    )


def migrate(
    old: Mapping[str, Map],
    new: Mapping[str, Map],
    names: Sequence[str],
    migrations: Mapping[str, Migration | None],
) -> None:
    """Take over the content of the maps so called, now that the new ones are there."""
    for name in names:
        function = migrations.get(name) or copy_variables
        function(old[name], new[name])


def copy_variables(old: Map, new: Map) -> None:
    """Take over the variables of the same name and type, of a section that changed otherwise.

    What programs change in them from here on until they are replaced stays behind.
    """
    before, after = old._types()[1], new._types()[1]
    if not isinstance(before, DataSec) or not isinstance(after, DataSec):
        return
    known = {each.name: each for each in before.variables}
    source, image = _image(old), bytearray(_image(new))
    for each in after.variables:
        was = known.get(each.name)
        if was is not None and was.size == each.size and not changes(was.type, each.type):
            image[each.offset : each.offset + each.size] = source[was.offset :][: was.size]
    new[0] = bytes(image)


def _image(section: Map) -> bytes:
    """The memory of a section of variables."""
    value = section[0]
    return value if isinstance(value, bytes) else value.to_bytes(section.value_size, sys.byteorder)


def difference(old: Map, new: ObjectMap) -> str:
    """What makes the old map another one than the new object wants; "" where nothing does."""
    parts = []
    for what, before, after in zip(("key", "value"), old._types(), new._types(), strict=True):
        if before is not None and after is not None and (changed := changes(before, after)):
            parts.append(f"its {what}:\n{changed}")
    return "\n".join(parts) or new.differences(old, new.kind_fields)


def _succeeds(each: ObjectMap) -> bool:
    """Whether a map could be an older object's: constants and struct_ops belong to their own."""
    constant = each.is_internal and common_name(each.name).startswith(_CONSTANT)
    return each.autocreate and not constant and each.type != _STRUCT_OPS


def _unlike(refused: Mapping[str, str]) -> LayoutError:
    tables = [
        f"map {name!r} is not what it was:\n" + "\n".join(f"  {line}" for line in text.splitlines())
        for name, text in refused.items()
    ]
    hint = "hint: give maps={name: function(old, new)} to take its content over, or None to drop it"
    return LayoutError("\n".join([*tables, hint]))
