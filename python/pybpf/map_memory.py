# SPDX-License-Identifier: BSD-2-Clause
"""The live memory of maps that can be mapped: arrays with BPF_F_MMAPABLE, and arenas."""

from __future__ import annotations

import errno
import mmap
import weakref

from pybpf._native import ffi
from pybpf.codec import Codec
from pybpf.constants import MapFlags, MapType
from pybpf.errors import KernelError, NotSupportedError
from pybpf.kernel import explained

TYPE_CHECKING = False
if TYPE_CHECKING:
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
        hint = "only arrays created with the flag BPF_F_MMAPABLE, and arenas, can be mapped"
        raise NotSupportedError(
            "map the memory of", f"map {map.name!r}", errno.EOPNOTSUPP, hint=hint
        )
    return _mapped(map, map.max_entries * stride(map.value_size))


def _mapped(map: Map, size: int) -> memoryview:
    """A mapping of its own, which lasts as long as the view."""
    with map._borrow_fd() as fd:
        try:
            memory = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        except PermissionError:  # frozen, or read-only for user space
            try:
                memory = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
            except OSError as error:
                raise _refused(map, error) from None
        except OSError as error:
            raise _refused(map, error) from None
    return memoryview(memory)


def _refused(map: Map, error: OSError) -> KernelError:
    refuse = explained(KernelError)
    return refuse("map the memory of", f"map {map.name!r}", error.errno or 0, "", "")


def _arena(map: Map) -> memoryview:
    size = map.max_entries * mmap.PAGESIZE
    lent = map._lend_arena()
    if lent is None:
        return _mapped(map, size)
    start, borrow, owner = lent
    memory = ffi.buffer(ffi.cast("char *", start), size)
    # with its owner as an argument, that lives as long as the memory
    end = weakref.finalize(memory, _end_borrow, borrow, owner)
    end.atexit = False
    return memoryview(memory)


def _end_borrow(borrow: Borrow, owner: object) -> None:
    borrow.__exit__()
