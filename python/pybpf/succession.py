# SPDX-License-Identifier: BSD-2-Clause
"""Which maps of a running object its successor takes over, and what is to become of the others."""

from __future__ import annotations

from dataclasses import dataclass

from pybpf.errors import LayoutError, NotFoundError
from pybpf.map import Map
from pybpf.type_changes import changes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    from pybpf.object import Object
    from pybpf.object_map import ObjectMap

    Migration: TypeAlias = Callable[[Map, Map], object]

_KIND = ("type", "key_size", "value_size")
# of MapType: the kernel fills what these hold, for one object
_STRUCT_OPS = 26
_CONSTANT = (".rodata", ".kconfig")


@dataclass(frozen=True)
class Succession:
    """Maps by name, and what becomes of each.

    ``kept`` are the same maps in both objects.  ``migrated`` are maps of another layout, whose
    content a function takes over, ``fresh`` begin empty or as declared, and ``left`` end with the
    old object.
    """

    kept: tuple[str, ...]
    migrated: tuple[str, ...]
    fresh: tuple[str, ...]
    left: tuple[str, ...]


def arrange(
    old: Mapping[str, Map], new: Object, migrations: Mapping[str, Migration | None]
) -> Succession:
    """Have ``new``, which is open, use the maps of ``old`` that are as it declares them.

    ``migrations`` has, for maps that are not, a function of the old and the new map, or None to
    begin anew.  LayoutError with all that differs where one is neither; NotFoundError where a
    migration is for no map of both.
    """
    common = {name: each for name, each in new.maps.items() if name in old and _succeeds(each)}
    for name in migrations:
        if name not in common:
            raise NotFoundError("map of both objects", name, list(common))
    found = {name: difference(old[name], each) for name, each in common.items()}
    refused = {name: text for name, text in found.items() if text and name not in migrations}
    if refused:
        raise _unlike(refused)
    kept = [name for name in common if not found[name] and name not in migrations]
    for name in kept:
        common[name].reuse(old[name])
    return Succession(
        kept=tuple(kept),
        migrated=tuple(name for name, function in migrations.items() if function),
        fresh=tuple(
            name
            for name, each in new.maps.items()
            if each.autocreate and name not in kept and not migrations.get(name)
        ),
        left=tuple(name for name in old if name not in new.maps),
    )


def migrate(
    old: Mapping[str, Map], new: Object, migrations: Mapping[str, Migration | None]
) -> None:
    """Call each migration with its two maps, now that ``new`` is loaded."""
    for name, function in migrations.items():
        if function is not None:
            function(old[name], new.maps[name])


def difference(old: Map, new: ObjectMap) -> str:
    """What makes the old map another one than the new object wants; "" where nothing does."""
    parts = []
    for what, before, after in zip(("key", "value"), old._types(), new._types(), strict=True):
        if before is not None and after is not None and (changed := changes(before, after)):
            parts.append(f"its {what}:\n{changed}")
    return "\n".join(parts) or new.differences(old, _KIND)


def _succeeds(each: ObjectMap) -> bool:
    """Whether a map could be an older object's: constants and struct_ops belong to their own."""
    constant = each.is_internal and each.name.endswith(_CONSTANT)
    return each.autocreate and not constant and each.type != _STRUCT_OPS


def _unlike(refused: Mapping[str, str]) -> LayoutError:
    tables = [
        f"map {name!r} is not what it was:\n" + "\n".join(f"  {line}" for line in text.splitlines())
        for name, text in refused.items()
    ]
    hint = "hint: give maps={name: function(old, new)} to take its content over, or None to drop it"
    return LayoutError("\n".join([*tables, hint]))
