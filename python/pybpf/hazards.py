# SPDX-License-Identifier: BSD-2-Clause
"""What in an object's maps is known to go wrong: keys of hashes whose bytes include padding.

The kernel compares all bytes of a key.  C leaves padding as it happens to be, so that a program may
store under one key and never find it again.
"""

from __future__ import annotations

import sys

from pybpf._native import ffi, lib
from pybpf.errors import Error, LayoutWarning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pybpf.btf import Type
    from pybpf.object import Object
    from pybpf.object_map import ObjectMap
    from pybpf.shape import Hole

# of MapType, without the enum's import: HASH, PERCPU_HASH, LRU_HASH, LRU_PERCPU_HASH, HASH_OF_MAPS,
# SOCKHASH
_HASHES = (1, 5, 9, 10, 13, 18)
# of Kind, likewise
_ARRAY = 3
_COMPOSITES = (4, 5)
_MODIFIERS = (8, 9, 10, 11, 18)
_CHAIN_LIMIT = 64
_SHOWN_HOLES = 3


class PaddedKey:
    """A hash of an object whose keys have padding."""

    __slots__ = ("holes", "map", "type")

    def __init__(self, map: ObjectMap, type: Type, holes: list[Hole]) -> None:
        self.map = map
        self.type = type
        self.holes = holes

    def __str__(self) -> str:
        from pybpf.shape import amount

        shown = self.holes[:_SHOWN_HOLES]
        where = ", ".join(f"{amount(h.bits)} at {h.offset} after {h.after!r}" for h in shown)
        if len(self.holes) > len(shown):
            where += f", and {len(self.holes) - len(shown)} more"
        written = {f"`{h.fix}` after {h.member!r} in {h.owner}": None for h in shown if h.fix}
        fixes = f"write {' and '.join(written)}, or " if written else ""
        return (
            f"map {self.map.name!r}: its key, {self.type}, has padding: {where}. The kernel "
            "compares padding and C leaves it as it was, so that a stored key may not be found "
            f"again: {fixes}zero each key first: `__builtin_memset(&key, 0, sizeof(key))`"
        )


def padded_keys(obj: Object) -> list[PaddedKey]:
    """The hashes of an object whose keys have padding; needs the object's BTF.

    Reads Python's BTF only where a key is a struct at all.
    """
    return [
        PaddedKey(hash_map, key_type, found)
        for hash_map, type_id in _struct_keys(obj)
        if (key_type := _type(obj, type_id)) is not None and (found := _holes(key_type))
    ]


def _struct_keys(obj: Object) -> Iterator[tuple[ObjectMap, int]]:
    with obj._handle.borrow() as pointer:
        types = lib.bpf_object__btf(pointer)
        for each in obj.maps.values():
            type_id = lib.bpf_map__btf_key_type_id(each._pointer)
            if type_id and lib.bpf_map__type(each._pointer) in _HASHES and _holds(types, type_id):
                yield each, type_id


def _holds(types: Any, type_id: int) -> bool:
    """Whether the type is a struct or a union, or an array of them; asks libbpf's own BTF."""
    for _ in range(_CHAIN_LIMIT):
        found = lib.btf__type_by_id(types, type_id)
        if found == ffi.NULL:
            break
        kind = found.info >> 24 & 31
        if kind in _MODIFIERS:
            type_id = found.type
        elif kind == _ARRAY:
            type_id = ffi.cast("uint32_t *", found + 1)[0]  # struct btf_array: the element's type
        else:
            return kind in _COMPOSITES
    return False


def _type(obj: Object, type_id: int) -> Type | None:
    try:
        types = obj.btf
        return None if types is None else types[type_id]
    except Error:  # what libbpf has opened, a second reading need not refuse
        return None


def _holes(key_type: Type) -> list[Hole]:
    from pybpf.shape import holes

    try:
        return holes(key_type)
    except Error:
        return []


def warn_of_padded_keys(obj: Object) -> None:
    """One LayoutWarning for each, at the line outside this package that opens the object."""
    for key in padded_keys(obj):
        import warnings

        warnings.warn(f"object {obj.name!r}, {key}", LayoutWarning, stacklevel=outside())


def outside() -> int:
    """The stack level, as the caller counts, of the first function that is not of this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and (frame.f_globals["__name__"] + ".").startswith("pybpf."):
        level, frame = level + 1, frame.f_back
    return level
