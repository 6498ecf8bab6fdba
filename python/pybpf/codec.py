# SPDX-License-Identifier: BSD-2-Clause
"""Keys and values of maps between bytes and Python.

What has a BTF type comes as that: ints, text, Struct.  Untyped keys and values of 1, 2, 4 or 8
bytes are ints, others bytes.  Bytes of the right length are accepted for any.
"""

from __future__ import annotations

import sys
from operator import index

from pybpf import _native, layout
from pybpf._native import lib
from pybpf.btf import Array, Int
from pybpf.constants import MapType
from pybpf.errors import LayoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf.btf import Type
    from pybpf.map import Map

_INT_SIZES = (1, 2, 4, 8)
_PER_CPU = frozenset(
    {
        MapType.PERCPU_HASH,
        MapType.PERCPU_ARRAY,
        MapType.LRU_PERCPU_HASH,
        MapType.PERCPU_CGROUP_STORAGE,
    }
)
_HOLD_FDS = frozenset(
    {
        MapType.PROG_ARRAY,
        MapType.PERF_EVENT_ARRAY,
        MapType.CGROUP_ARRAY,
        MapType.ARRAY_OF_MAPS,
        MapType.HASH_OF_MAPS,
        MapType.SOCKMAP,
        MapType.SOCKHASH,
        MapType.XSKMAP,
        MapType.REUSEPORT_SOCKARRAY,
    }
)
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
    }
)


class Codec:
    """One key or value of ``size`` bytes between bytes and Python, by its BTF type where known."""

    __slots__ = ("_holds_fds", "_is_text", "_type", "size", "what")

    def __init__(
        self, what: str, size: int, btf_type: Type | None = None, holds_fds: bool = False
    ) -> None:
        self.what = what
        self.size = size
        self._holds_fds = holds_fds
        self._type = btf_type if btf_type is not None and _has_size(btf_type, size) else None
        self._is_text = self._type is not None and _is_char_array(self._type.resolve())

    def encode(self, value: Any) -> bytes:
        """``value`` as ``size`` bytes; LayoutError or OverflowError where it does not fit."""
        if isinstance(value, (bytes, bytearray, memoryview)):
            data = bytes(value)
            if len(data) != self.size:
                raise LayoutError(f"a {self.what} takes {self.size} bytes, not {len(data)}")
            return data
        if self._holds_fds and hasattr(value, "fileno"):
            value = value.fileno()
        if self._type is not None:
            return layout.encode(self._type, value)
        try:
            number = index(value)
        except TypeError:
            raise LayoutError(
                f"a {self.what} takes an int or {self.size} bytes, not {value!r}"
            ) from None
        try:
            # without a type, both -1 and 2**32 - 1 are taken for four bytes of ones
            return number.to_bytes(self.size, sys.byteorder, signed=number < 0)
        except OverflowError:
            raise OverflowError(
                f"{number} does not fit the {self.size} bytes of a {self.what}"
            ) from None

    def decode(self, data: bytes) -> Any:
        if self._is_text:
            return _text(data)
        if self._type is not None:
            return layout.decode(self._type, data)
        return int.from_bytes(data, sys.byteorder) if self.size in _INT_SIZES else data


def _is_char_array(resolved: Type) -> bool:
    if not isinstance(resolved, Array):
        return False
    element = resolved.type.resolve()
    return isinstance(element, Int) and element.name == "char"


def _text(data: bytes) -> str | bytes:
    """What a char array says; all its bytes where text would not give the same bytes again."""
    text = data.rstrip(b"\0")
    try:
        return data if b"\0" in text else text.decode()
    except UnicodeDecodeError:
        return data


def _has_size(btf_type: Type, size: int) -> bool:
    """Whether values of that type are as long as the map says; void and functions have no size."""
    try:
        return btf_type.resolve().size == size
    except LayoutError:
        return False


class PerCpuCodec:
    """A value that exists once per possible CPU: a list, each slot rounded up to 8 bytes."""

    __slots__ = ("_count", "_one", "_stride", "size", "what")

    def __init__(self, one: Codec, cpus: int) -> None:
        self._one = one
        self._count = cpus
        self._stride = (one.size + 7) // 8 * 8
        self.size = self._stride * cpus
        self.what = one.what

    def encode(self, values: Any) -> bytes:
        if not isinstance(values, (list, tuple)) or len(values) != self._count:
            raise LayoutError(
                f"a {self.what} takes a list of {self._count} values, one per possible CPU"
            )
        return b"".join(self._one.encode(value).ljust(self._stride, b"\0") for value in values)

    def decode(self, data: bytes) -> list[Any]:
        starts = range(0, self.size, self._stride)
        return [self._one.decode(data[start : start + self._one.size]) for start in starts]


def possible_cpus() -> int:
    """How many CPUs this machine may ever have: how many values a per-CPU element holds."""
    return _native.check(lib.libbpf_num_possible_cpus(), "count", "possible CPUs")


class NoKey:
    """The key of maps that have none (queues, stacks, bloom filters): None, in C NULL."""

    __slots__ = ("what",)
    size = 0

    def __init__(self, what: str) -> None:
        self.what = what

    def encode(self, key: Any) -> Any:
        if key is not None:
            raise LayoutError(f"there is no {self.what}; use None")
        return _native.NULL

    def decode(self, data: bytes) -> None:
        return None


class Codecs:
    """How one map's keys and values look, found out once per map."""

    __slots__ = ("is_array", "key", "value")

    key: Codec | NoKey
    value: Codec | PerCpuCodec

    def __init__(self, map: Map, key_type: Type | None, value_type: Type | None) -> None:
        what = f"key of map {map.name!r}"
        holds_fds = map.type in _HOLD_FDS
        value = Codec(f"value of map {map.name!r}", map.value_size, value_type, holds_fds)
        self.key = Codec(what, map.key_size, key_type) if map.key_size else NoKey(what)
        self.value = PerCpuCodec(value, possible_cpus()) if map.type in _PER_CPU else value
        self.is_array = map.type in _ARRAYS
