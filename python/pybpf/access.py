# SPDX-License-Identifier: BSD-2-Clause
"""One map's elements as bytes: what the kernel is asked, and what its refusals mean."""

from __future__ import annotations

import errno as _errno

from pybpf import _native, codec
from pybpf._native import ffi, lib
from pybpf.constants import MapType
from pybpf.errors import ENOTSUPP, ClosedError, KernelError, MapFullError, NotSupportedError
from pybpf.kernel import explained

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf.btf import Type
    from pybpf.map import Map

_ARRAYS = frozenset(
    {
        MapType.ARRAY,
        MapType.PERCPU_ARRAY,
        MapType.PROG_ARRAY,
        MapType.PERF_EVENT_ARRAY,
        MapType.CGROUP_ARRAY,
        MapType.ARRAY_OF_MAPS,
        MapType.DEVMAP,
        MapType.CPUMAP,
        MapType.XSKMAP,
        MapType.SOCKMAP,
        MapType.REUSEPORT_SOCKARRAY,
        MapType.STRUCT_OPS,
        MapType.INSN_ARRAY,
    }
)
# Where a batch holds each key once: it goes bucket by bucket, each under its lock.
_BATCHED_HASHES = frozenset(
    {
        MapType.HASH,
        MapType.LRU_HASH,
        MapType.PERCPU_HASH,
        MapType.LRU_PERCPU_HASH,
        MapType.HASH_OF_MAPS,
    }
)
_BATCHED_ARRAYS = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})
_RINGS = frozenset({MapType.RINGBUF, MapType.USER_RINGBUF})
_STORAGES = frozenset(
    {
        MapType.SK_STORAGE,
        MapType.INODE_STORAGE,
        MapType.TASK_STORAGE,
        MapType.CGRP_STORAGE,
    }
)


class Access:
    """The elements of a map, by a descriptor of its own.

    The copy of the descriptor ends with close(), at the latest when calls that use it have
    returned; afterwards everything is a ClosedError.
    """

    def __init__(self, map: Map, fd: int, key: Type | None, value: Type | None) -> None:
        self.name = map.name
        self.type = map.type
        self.max_entries = map.max_entries
        self.key_size = map.key_size
        self.key = codec.key_codec(self.type, self.name, map.key_size, key)
        self.value = codec.value_codec(self.type, self.name, map.value_size, value)
        self._closed = False
        self.handle = _native.shared_fd(fd)

    @property
    def is_array(self) -> bool:
        """Whether every index up to ``max_entries`` is a key, always."""
        return self.type in _ARRAYS

    @property
    def has_batches(self) -> bool:
        """Whether the kernel may read many entries at once, each key exactly once."""
        return self.type in _BATCHED_HASHES or self.type in _BATCHED_ARRAYS

    @property
    def can_pop_batches(self) -> bool:
        """Whether the kernel may remove many entries at once while reading them."""
        return self.type in _BATCHED_HASHES

    def accelerate(self, elements: Any) -> None:
        """Let C answer for ``elements`` (of Elements) what it can.

        Only where the kernel does not sleep: what holds descriptors waits for others to go.
        """
        if self.type not in _BATCHED_HASHES | _BATCHED_ARRAYS or self.type in (
            *codec.PER_CPU,
            MapType.HASH_OF_MAPS,
        ):
            return
        import ctypes

        address = int(ffi.cast("uintptr_t", self.handle))
        elements._accelerate(
            self.handle, address, self.key.side(), self.value.side(), ctypes.addressof
        )

    def require_open(self) -> None:
        """ClosedError after close(), whatever else may be wrong."""
        if self._closed:
            raise ClosedError(f"map {self.name!r} is closed")

    # -- one element --

    def lookup(self, raw_key: Any, flags: int = 0) -> bytes | None:
        """The value's bytes, None where there is no such key."""
        value = ffi.new("char[]", max(self.value.size, 1))
        code = lib.pybpf_map_lookup(self.handle, raw_key, value, flags)
        if code == -_errno.ENOENT:
            return None
        self.check(code, "look up in")
        return bytes(ffi.buffer(value, self.value.size))

    def contains(self, raw_value: bytes) -> bool:
        """Whether a bloom filter may hold that value."""
        value = ffi.from_buffer(bytearray(raw_value))
        code = lib.pybpf_map_lookup(self.handle, ffi.NULL, value, 0)
        if code == -_errno.ENOENT:
            return False
        self.check(code, "look up in")
        return True

    def update(self, raw_key: Any, raw_value: bytes, flags: int = 0) -> bool:
        """Store; whether the key was there, where ``flags`` want that it is."""
        code = lib.pybpf_map_update(self.handle, raw_key, raw_value, flags)
        if code == -_errno.ENOENT:
            return False
        self.check(code, "update")
        return True

    def delete(self, raw_key: Any) -> bool:
        """Whether there was such a key."""
        code = lib.pybpf_map_delete(self.handle, raw_key)
        if code == -_errno.ENOENT:
            return False
        self.check(code, "delete from")
        return True

    def pop(self, raw_key: Any) -> bytes | None:
        """Remove an entry and return its value's bytes, None where there is none.

        Of several that pop a key at once, one gets the value.
        """
        value = ffi.new("char[]", max(self.value.size, 1))
        code = lib.pybpf_map_pop(self.handle, raw_key, value)
        if code in (-_errno.EINVAL, -ENOTSUPP, -_errno.EOPNOTSUPP) and self.key_size:
            # hashes pop since Linux 5.14, others never
            raw_value = self.lookup(raw_key)
            return raw_value if raw_value is not None and self.delete(raw_key) else None
        if code == -_errno.ENOENT:
            return None
        self.check(code, "pop from")
        return bytes(ffi.buffer(value, self.value.size))

    # -- what a refusal means --

    def check(self, code: int, operation: str) -> None:
        """Raise what a negative ``code`` says about ``operation``."""
        if code < 0:
            raise self.refusal(operation, -code)

    def refusal(self, operation: str, errno: int) -> Exception:
        """The error of a refused operation."""
        if errno == lib.PYBPF_CLOSED:
            return ClosedError(f"map {self.name!r} is closed")
        target = f"map {self.name!r}"
        if errno in (_errno.E2BIG, _errno.ENOSPC) and operation in ("update", "push to"):
            hint = f"it holds max_entries={self.max_entries} entries already"
            return MapFullError(operation, target, errno, hint=hint)
        if self._never(operation, errno):
            return NotSupportedError(operation, target, _errno.EOPNOTSUPP, hint=self._instead())
        error = explained(KernelError, self._hint)
        return error(operation, target, errno, "", "")

    def _never(self, operation: str, errno: int) -> bool:
        """Whether maps of this type have no such operation at all."""
        if errno in (ENOTSUPP, _errno.EOPNOTSUPP) or self.type in _RINGS:
            return True
        deletes = operation in ("delete from", "pop from")
        return errno == _errno.EINVAL and deletes and self.is_array

    def _instead(self) -> str:
        kind = self.type.name
        if self.type in _RINGS:
            return f"a {kind} holds records, not entries; read them with Object.events()"
        if self.type in (MapType.QUEUE, MapType.STACK):
            return f"a {kind} has push(), peek() and pop() only"
        if self.type == MapType.BLOOM_FILTER:
            return "a bloom filter has push(value) and `value in map` only"
        if self.type in _STORAGES:
            return f"the entries of {kind} belong to kernel objects and cannot be listed"
        if self.type == MapType.ARENA:
            return "an arena is memory: see Map.memory()"
        if self.is_array:
            return "an array always has all its entries; store zero instead"
        return f"maps of type {kind} have no such operation"

    def _hint(self, errno: int) -> str:
        hints = {
            _errno.EEXIST: "the key is there already, and NOEXIST was asked for",
            _errno.EINVAL: f"a map of type {self.type.name} does not take this key, value or flag",
            _errno.EPERM: "the map is frozen, or read-only for this process",
        }
        if self.type in _STORAGES:
            hints[_errno.EBADF] = "the key is no descriptor of what the map stores for"
        if errno == _errno.ENOSPC and self.type in (MapType.SOCKMAP, MapType.SOCKHASH):
            return "sockets are read as cookies, which need values of 8 bytes"
        return hints.get(errno, "")

    def close(self) -> None:
        """Give the descriptor back, at the latest when calls that use it have returned."""
        self._closed = True
        lib.pybpf_fd_close(self.handle)
