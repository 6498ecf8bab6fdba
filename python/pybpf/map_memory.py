# SPDX-License-Identifier: BSD-2-Clause
"""The live memory of maps that can be mapped: arrays with BPF_F_MMAPABLE, and arenas."""

from __future__ import annotations

import errno
import mmap
import weakref

from pybpf import _native
from pybpf._native import ffi, lib
from pybpf.codec import Codec
from pybpf.constants import MapFlags, MapType
from pybpf.errors import KernelError, NotSupportedError
from pybpf.kernel import explained

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf._handles import Borrow
    from pybpf.map import Map


def view(map: Map) -> memoryview:
    """Map.memory(): items where values are integers, else bytes."""
    data = raw(map)
    value = None if map.type == MapType.ARENA else map._elements().value
    letter = value.letter if isinstance(value, Codec) else ""
    if not letter:
        return data
    each = stride(map.value_size) // map.value_size
    return data.cast(letter)[::each]  # type: ignore[call-overload,no-any-return]


def stride(value_size: int) -> int:
    """The distance between values in an array's memory."""
    return (value_size + 7) // 8 * 8


def raw(map: Map) -> memoryview:
    """The memory as bytes."""
    if map.type == MapType.ARENA:
        return _arena(map)
    if map.type != MapType.ARRAY or not map.flags & MapFlags.MMAPABLE:
        raise _unmappable(
            map, "only arrays created with the flag BPF_F_MMAPABLE, and arenas, can be mapped"
        )
    return _mapped(map, map.max_entries * stride(map.value_size))


def _mapped(map: Map, size: int) -> memoryview:
    """A mapping of its own, which lasts as long as the view."""
    with map._borrow_fd() as fd:
        try:
            memory = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        except PermissionError:  # frozen
            try:
                memory = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
            except OSError:
                raise _unmappable(
                    map, "only maps that this process may both read and write can be mapped"
                ) from None
        except OSError as error:
            raise _refused(map, error.errno) from None
    return memoryview(memory)


def _unmappable(map: Map, hint: str) -> NotSupportedError:
    number = errno.EOPNOTSUPP
    return NotSupportedError("map the memory of", f"map {map.name!r}", number, hint=hint)


def _refused(map: Map, number: int | None, hint: str = "") -> KernelError:
    refuse = explained(KernelError, lambda number: hint)
    return refuse("map the memory of", f"map {map.name!r}", number or 0, "", "")


def _arena(map: Map) -> memoryview:
    size = map.max_entries * mmap.PAGESIZE
    lent = map._lend_arena()
    if lent is None:
        return memoryview(_own_arena(map, size))
    start, borrow, owner = lent
    memory = ffi.buffer(ffi.cast("char *", start), size)
    # with its owner as an argument, that lives as long as the memory
    end = weakref.finalize(memory, _end_borrow, borrow, owner)
    end.atexit = False
    return memoryview(memory)


def _own_arena(map: Map, size: int) -> Any:
    """The mapping of an arena that no object of this process has mapped: one for all views.

    An arena has one address for ever, that of its first mapping.
    """
    if map._memory is None:
        with map._borrow_fd() as fd:
            address = _native.info(fd, "struct bpf_map_info").map_extra
            start = lib.pybpf_arena_map(fd, size, address)
            number = ffi.errno
        if start == ffi.NULL:
            hint = (
                "an arena keeps the address of its first mapping: use the Map that has mapped it, "
                "or give it an address of its own (map_extra), which other processes can share"
            )
            raise _refused(map, number, hint)
        mapped = ffi.gc(ffi.cast("char *", start), lambda start: lib.pybpf_arena_unmap(start, size))
        map._memory = ffi.buffer(mapped, size)
    return map._memory


def _end_borrow(borrow: Borrow, owner: object) -> None:
    borrow.__exit__()
