# SPDX-License-Identifier: BSD-2-Clause
"""One map's elements as bytes: what the kernel is asked, and what its refusals mean."""

from __future__ import annotations

import errno as _errno

from pybpf import _native, codec, map_kinds
from pybpf._native import ffi, lib
from pybpf.constants import MapType
from pybpf.errors import ENOTSUPP, ClosedError, KernelError, MapFullError
from pybpf.kernel import explained

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf.btf import Type
    from pybpf.map import Map


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
        self.value = codec.value_codec(self.type, self.name, map.value_size, value, map.flags)
        self._closed = False
        self.handle = _native.shared_fd(fd)

    @property
    def is_array(self) -> bool:
        """Whether every index up to ``max_entries`` is a key, always."""
        return self.type in map_kinds.ARRAYS

    @property
    def has_slots(self) -> bool:
        """Whether it is an array whose entries may be empty, and can be deleted."""
        return self.is_array and self.type not in map_kinds.WHOLE_ARRAYS

    @property
    def has_batches(self) -> bool:
        """Whether the kernel may read many entries at once, each key exactly once."""
        return self.can_pop_batches or self.type in map_kinds.BATCHED_ARRAYS

    @property
    def can_pop_batches(self) -> bool:
        """Whether the kernel may remove many entries at once while reading them."""
        return self.type in map_kinds.BATCHED_HASHES

    def accelerate(self, elements: Any) -> None:
        """Let C answer for ``elements`` (of Elements) what it can.

        Only where the kernel does not sleep: what holds descriptors waits for others to go.
        """
        if not self.has_batches or self.type in map_kinds.PER_CPU | {MapType.HASH_OF_MAPS}:
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

    def _ask(self, command: int, raw_key: Any, value: Any, flags: int = 0) -> int:
        return int(lib.pybpf_map_element(self.handle, command, raw_key, value, flags))

    def lookup(self, raw_key: Any, flags: int = 0) -> bytes | None:
        """The value's bytes, None where there is no such key."""
        value = ffi.new("char[]", max(self.value.size, 1))
        code = self._ask(lib.BPF_MAP_LOOKUP_ELEM, raw_key, value, flags)
        if code == -_errno.ENOENT:
            return None
        self.check(code, "look up in")
        return bytes(ffi.buffer(value, self.value.size))

    def contains(self, raw_value: bytes) -> bool:
        """Whether a bloom filter may hold that value."""
        value = ffi.from_buffer(bytearray(raw_value))
        code = self._ask(lib.BPF_MAP_LOOKUP_ELEM, ffi.NULL, value)
        if code == -_errno.ENOENT:
            return False
        self.check(code, "look up in")
        return True

    def update(self, raw_key: Any, raw_value: bytes, flags: int = 0) -> bool:
        """Store; whether the key was there, where ``flags`` want that it is."""
        code = self._ask(lib.BPF_MAP_UPDATE_ELEM, raw_key, raw_value, flags)
        if code == -_errno.ENOENT:
            return False
        self.check(code, "update")
        return True

    def push(self, raw_value: bytes, flags: int) -> None:
        """Store where there are no keys."""
        self.check(self._ask(lib.BPF_MAP_UPDATE_ELEM, ffi.NULL, raw_value, flags), "push to")

    def delete(self, raw_key: Any) -> bool:
        """Whether there was such a key."""
        if self.type in map_kinds.DELETES_NOTHING and self.lookup(raw_key) is None:
            return False
        code = self._ask(lib.BPF_MAP_DELETE_ELEM, raw_key, ffi.NULL)
        if map_kinds.says_absent(self.type, -code):
            return False
        self.check(code, "delete from")
        return True

    def pop(self, raw_key: Any) -> bytes | None:
        """Remove an entry and return its value's bytes, None where there is none.

        Of several that pop a key at once, one gets the value.
        """
        value = ffi.new("char[]", max(self.value.size, 1))
        code = self._ask(lib.BPF_MAP_LOOKUP_AND_DELETE_ELEM, raw_key, value)
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

    def refusal(self, operation: str, errno: int = ENOTSUPP) -> Exception:
        """The error of a refused operation; unless told, because there is no such operation."""
        if errno == lib.PYBPF_CLOSED:
            return ClosedError(f"map {self.name!r} is closed")
        target = f"map {self.name!r}"
        if errno in (_errno.E2BIG, _errno.ENOSPC) and operation in ("update", "push to"):
            hint = map_kinds.full(self.type, self.max_entries)
            return MapFullError(operation, target, errno, hint=hint)
        if map_kinds.never(self.type, operation, errno):
            return map_kinds.not_supported(self.type, self.name, operation)

        def why(errno: int) -> str:
            return map_kinds.hint(self.type, operation, errno)

        return explained(KernelError, why)(operation, target, errno, "", "")

    def require(self, operation: str) -> None:
        """NotSupportedError where only other kinds of maps have ``operation``."""
        if not map_kinds.has(self.type, operation):
            raise self.refusal(operation)

    def close(self) -> None:
        """Give the descriptor back, at the latest when calls that use it have returned."""
        self._closed = True
        lib.pybpf_fd_close(self.handle)
