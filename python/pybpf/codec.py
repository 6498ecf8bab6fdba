# SPDX-License-Identifier: BSD-2-Clause
"""Keys and values of maps between bytes and Python.

What has a BTF type comes as that: ints, Chars, Struct, lists.  Untyped keys and values of 1, 2, 4
or 8 bytes are ints, others bytes.  Bytes of the right length are accepted for any.  What only some
types of maps have, such as prefixes, descriptors and values per CPU, is here as well.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from operator import index

from pybpf import _native, layout, map_kinds
from pybpf._native import lib
from pybpf.btf import Composite, Kind
from pybpf.constants import MapFlags, MapType
from pybpf.errors import LayoutError, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, NoReturn, TypeAlias

    from pybpf.btf import Member, Type

    Buffer: TypeAlias = bytes | bytearray | memoryview
    Side: TypeAlias = tuple[int, tuple[tuple[int, int, bool, bool], ...], type | None, bool]
    """What Elements._accelerate() wants to know of a key or value."""

#: ``struct`` formats of integers by size
LETTERS = {1: "B", 2: "H", 4: "I", 8: "Q"}
NATIVE = "<" if sys.byteorder == "little" else ">"


class Codec:
    """One key or value of ``size`` bytes between bytes and Python, by its BTF type where known."""

    #: Whether its type or size tells all of it; subclasses with ways of their own say no.
    plain = True

    def __init__(self, what: str, size: int, btf_type: Type | None = None) -> None:
        self.what = what
        self.size = size
        self.type = btf_type if btf_type is not None and _fits(btf_type, size) else None
        self.letter = self._integer_letter() if self.plain else ""

    def _integer_letter(self) -> str:
        """The ``struct`` format of one, where it is an integer in the machine's byte order."""
        if self.type is None:
            return LETTERS.get(self.size, "")
        numbers = layout.numbers(self.type)
        if isinstance(self.type.resolve(), Composite) or len(numbers) != 1 or numbers[0][3]:
            return ""
        letter = LETTERS[self.size]
        return letter.lower() if numbers[0][2] else letter

    def encode(self, value: Any) -> bytes:
        """``value`` as ``size`` bytes; LayoutError or OverflowError where it does not fit."""
        if self.type is None:
            return self._encode_untyped(value)
        try:
            return layout.encode(self.type, value)
        except (LayoutError, OverflowError) as error:
            raise type(error)(f"{self.what}: {error}") from None

    def _encode_untyped(self, value: Any) -> bytes:
        if isinstance(value, (bytes, bytearray, memoryview)):
            data = bytes(value)
            if len(data) != self.size:
                raise LayoutError(f"a {self.what} takes {self.size} bytes, not {len(data)}")
            return data
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

    def decode(self, data: Buffer) -> Any:
        """What ``size`` bytes say."""
        if self.type is not None:
            return layout.decode(self.type, data)
        return int.from_bytes(data, sys.byteorder) if self.size in LETTERS else bytes(data)

    def encode_many(self, values: Sequence[Any]) -> bytes:
        """The bytes of all ``values``, one after the other."""
        if self.letter:
            try:
                return array(self.letter, values).tobytes()
            except (OverflowError, TypeError):
                pass  # encode() says which one does not fit, and takes other kinds than ints
        return b"".join(map(self.encode, values))

    def decode_many(self, data: Buffer, count: int) -> Sequence[Any]:
        """What ``count`` times ``size`` bytes say."""
        if self.letter:
            return struct.unpack_from(f"{NATIVE}{count}{self.letter}", data)
        if self.plain and self.type is not None and isinstance(self.type.resolve(), Composite):
            # each has bytes of its own: who keeps one must not keep them all
            copied, step = layout.ctype(self.type).from_buffer_copy, self.size
            return [copied(data, at) for at in range(0, count * step, step)]
        size = self.size
        return [self.decode(data[at : at + size]) for at in range(0, count * size, size)]

    def iterate_many(self, data: memoryview, count: int) -> Iterable[Any]:
        """What decode_many() gives, one by one: half the time where each is soon dropped."""
        if self.letter:
            numbers: Any = data[: count * self.size]
            return numbers.cast(self.letter)  # type: ignore[no-any-return]
        return self.decode_many(data, count)

    def side(self) -> Side:
        """How C may handle it (Elements._accelerate()): not at all without numbers or class."""
        if not self.plain:
            return self.size, (), None, False
        if self.type is None:
            return self.size, ((0, self.size, False, False),) if self.letter else (), None, False
        numbers = layout.numbers(self.type)
        if isinstance(self.type.resolve(), Composite):
            return self.size, numbers, layout.ctype(self.type), layout.has_padding(self.type)
        return self.size, numbers, None, False


def _fits(btf_type: Type, size: int) -> bool:
    """Whether values of that type are as long as the map says; void and functions have no size."""
    try:
        return btf_type.resolve().size == size and bool(layout.ctype(btf_type))
    except LayoutError:
        return False


class ArrayKey(Codec):
    """A key that is an array: tuples of its elements, for keys are hashable."""

    plain = False

    def decode(self, data: Buffer) -> Any:
        return _as_tuples(super().decode(data))


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


class Key(Codec):
    """A key, which the kernel compares with padding and all.

    A struct that came from the kernel goes back as it came, so that it finds its entry again even
    where a program left chance in its padding; what is made in Python has zeros there.
    """

    def encode(self, value: Any) -> bytes:
        if self.type is not None and type(value) is layout.ctype(self.type):
            return bytes(value)
        return super().encode(value)


class NoKey(Codec):
    """The key of queues and stacks, which have none: None, in C NULL."""

    plain = False

    def encode(self, value: Any) -> Any:
        if value is not None:
            raise LayoutError(f"there is no {self.what}; use None, or push(), peek() and pop()")
        return _native.NULL


class NoElements(NoKey):
    """The key of what has nothing under any key (rings, bloom filters, arenas): no use of it."""

    def __init__(self, map_type: MapType, name: str) -> None:
        super().__init__(f"key of map {name!r}", 0)
        self._map = map_type, name

    def encode(self, value: Any) -> NoReturn:
        raise map_kinds.not_supported(*self._map, "use elements of")


class PrefixKey(Codec):
    """The key of an LPM trie over addresses of 4 or 16 bytes: ``ipaddress`` networks.

    Also accepted: an address (as its /32 or /128), text such as "10.0.0.0/8", and what the key's
    type takes.
    """

    plain = False

    _LENGTH = 4  # struct bpf_lpm_trie_key: __u32 prefixlen, and the data

    @classmethod
    def suits(cls, size: int, btf_type: Type | None) -> bool:
        """Whether such keys hold addresses: one thing as long as an address, as far as is known."""
        if size - cls._LENGTH not in (4, 16):
            return False
        key = btf_type.resolve() if btf_type is not None else None
        return not isinstance(key, Composite) or _is_one_thing(key.members[1:])

    def encode(self, value: Any) -> bytes:
        import ipaddress

        if isinstance(value, str):
            try:
                value = ipaddress.ip_network(value)
            except ValueError as error:
                raise LayoutError(f"a {self.what} takes a network: {error}") from None
        if isinstance(value, (ipaddress.IPv4Interface, ipaddress.IPv6Interface)):
            raise LayoutError(f"a {self.what} takes a network: give {value!r}.network or .ip")
        if isinstance(value, (ipaddress.IPv4Address, ipaddress.IPv6Address)):
            value = ipaddress.ip_network(value)
        if not isinstance(value, (ipaddress.IPv4Network, ipaddress.IPv6Network)):
            return super().encode(value)
        data = value.network_address.packed
        if len(data) != self.size - self._LENGTH:
            raise LayoutError(
                f"a {self.what} takes networks of {8 * (self.size - self._LENGTH)} bits, "
                f"not {value}"
            )
        return value.prefixlen.to_bytes(self._LENGTH, sys.byteorder) + data

    def decode(self, data: Buffer) -> Any:
        import ipaddress

        length = int.from_bytes(data[: self._LENGTH], sys.byteorder)
        # bits beyond the prefix mean nothing to the kernel, which keeps them as they were given
        return ipaddress.ip_network((bytes(data[self._LENGTH :]), length), strict=False)


def _is_one_thing(members: tuple[Member, ...]) -> bool:
    """Whether that is one number or array, also as ``struct in6_addr`` wraps it."""
    if len(members) != 1:
        return False
    inner = members[0].type.resolve()
    if not isinstance(inner, Composite):
        return not members[0].bitfield_size
    return inner.kind is Kind.UNION or _is_one_thing(inner.members)


class _WithDescriptor(bytes):
    """The bytes of a descriptor that stays open as long as they live: until the call is over."""

    fd: int

    def __del__(self) -> None:
        os.close(self.fd)


class _Joined(bytes):
    """The bytes of several, which live as long."""

    parts: list[bytes]


class DescriptorCodec(Codec):
    """A key or value that names something of the kernel's by a descriptor.

    Accepted: whatever has a fileno() (Map, Program, socket, file), the number itself and, where
    ``open_it`` tells how to open one, what that takes.  What the kernel gives back is its own
    number of the thing, not a descriptor.
    """

    plain = False

    def __init__(
        self,
        what: str,
        size: int,
        btf_type: Type | None,
        open_it: Callable[[Any], int | None] = lambda value: None,
    ) -> None:
        super().__init__(what, size, btf_type)
        self._open = open_it

    def encode(self, value: Any) -> bytes:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return super().encode(value)
        if hasattr(value, "fileno"):
            return super().encode(value.fileno())
        fd = self._open(value)
        if fd is None:
            if not hasattr(value, "__index__"):
                raise LayoutError(f"a {self.what} takes what has a fileno(), not {value!r}")
            return super().encode(value)
        try:
            held = _WithDescriptor(super().encode(fd))
        except BaseException:
            os.close(fd)
            raise
        held.fd = fd
        return held

    def encode_many(self, values: Sequence[Any]) -> bytes:
        parts = list(map(self.encode, values))
        joined = _Joined(b"".join(parts))
        joined.parts = parts
        return joined


def open_path(value: Any) -> int | None:
    """A descriptor of the file or folder that a path names; None for what is no path.

    One that only names it: opening a pipe would wait, and opening a device do something.
    """
    if isinstance(value, (str, os.PathLike)):
        return os.open(value, os.O_PATH | os.O_CLOEXEC)
    return None


def open_process(value: Any) -> int | None:
    """A pidfd of a process by its number; None for what is no int."""
    return os.pidfd_open(value) if isinstance(value, int) else None


class CgroupKey(Codec):
    """The key of a cgroup storage: a cgroup by its folder or id, and an attach type in long keys.

    The keys of 16 bytes are struct bpf_cgroup_storage_key, for which (cgroup, attach type) stands.
    """

    plain = False

    _PAIR = struct.Struct("=QI4x")

    @property
    def _is_untyped_pair(self) -> bool:
        return self.type is None and self.size == self._PAIR.size

    def encode(self, value: Any) -> bytes:
        if isinstance(value, tuple) and value:
            value = (_cgroup_id(value[0]), *value[1:])
            if self._is_untyped_pair:
                return _packed(self._PAIR, self.what, *value)
        elif self._is_untyped_pair and not isinstance(value, (bytes, bytearray, memoryview)):
            raise LayoutError(f"a {self.what} takes (cgroup, attach type), not {value!r}")
        return super().encode(_cgroup_id(value))

    def decode(self, data: Buffer) -> Any:
        return self._PAIR.unpack(data) if self._is_untyped_pair else super().decode(data)


def _cgroup_id(value: Any) -> Any:
    """The id of the cgroup whose folder that is; anything else as it is."""
    if isinstance(value, (str, os.PathLike)):
        return os.stat(value).st_ino  # which is the id in a cgroup2 file system
    return value


def _packed(format: struct.Struct, what: str, *values: Any) -> bytes:
    try:
        return format.pack(*values)
    except struct.error as error:
        wrong = OverflowError if all(isinstance(value, int) for value in values) else LayoutError
        raise wrong(f"{values!r} is no {what}: {error}") from None


class RedirectValue(Codec):
    """The value of a devmap or cpumap: a number, and a program where there is room for one.

    The number is a cpumap's queue size or a devmap's interface, which may be given by its name.
    A program is read as its id.
    """

    plain = False

    _FORMAT = struct.Struct("=II")  # struct bpf_devmap_val, struct bpf_cpumap_val

    def encode(self, value: Any) -> bytes:
        program: Any = 0  # which is no descriptor here: the kernel takes only more for one
        if isinstance(value, tuple) and len(value) == 2 and self.size == self._FORMAT.size:
            value, program = value
            if hasattr(program, "fileno"):
                program = program.fileno()
        if isinstance(value, str):
            value = _interface(value)
        if self.size != self._FORMAT.size or not isinstance(value, int):
            return super().encode(value)
        return _packed(self._FORMAT, self.what, value, program)

    def decode(self, data: Buffer) -> Any:
        if self.type is not None or self.size != self._FORMAT.size:
            return super().decode(data)
        return self._FORMAT.unpack(data)


def _interface(name: str) -> int:
    import socket

    try:
        return socket.if_nametoindex(name)
    except OSError:
        known = [known for _, known in socket.if_nameindex()]
        raise NotFoundError("network interface", name, known) from None


class PerCpu(list):  # type: ignore[type-arg]  # of whatever the map's values are
    """The values of one element of a per-CPU map, one for each possible CPU, in order."""

    def sum(self) -> Any:
        """All of them added up; of structs, a struct of the sums of each member.

        OverflowError where a struct's member cannot hold its sum, TypeError where there is nothing
        to add, as in text.
        """
        return self._combined(sum)

    def max(self) -> Any:
        """The greatest of them; of structs, a struct of the greatest of each member."""
        return self._combined(max)

    def _combined(self, function: Callable[[Sequence[Any]], Any]) -> Any:
        if not isinstance(self[0], layout.Struct):
            return _by_member(function, self)
        return type(self[0])(**_by_member(function, [value.asdict() for value in self]))

    def merge(self, function: Callable[[Any, Any], Any]) -> Any:
        """``function(function(first, second), third)`` and so on."""
        import functools

        return functools.reduce(function, self)


def _by_member(function: Callable[[Sequence[Any]], Any], values: Sequence[Any]) -> Any:
    """``function`` of the numbers that have the same place in each of ``values``."""
    first = values[0]
    if isinstance(first, dict):
        return {name: _by_member(function, [value[name] for value in values]) for name in first}
    if isinstance(first, list):
        return [_by_member(function, elements) for elements in zip(*values, strict=True)]
    return function(values)


class PerCpuCodec(Codec):
    """A value that exists once per possible CPU, each rounded up to 8 bytes."""

    plain = False

    def __init__(self, one: Codec, cpus: int) -> None:
        self.one = one
        self.cpus = cpus
        self.stride = (one.size + 7) // 8 * 8
        super().__init__(one.what, self.stride * cpus)

    def encode(self, value: Any) -> bytes:
        """A list has a value for each CPU; anything else is the value of every CPU."""
        if isinstance(value, (bytes, bytearray, memoryview)) and len(value) == self.size:
            return bytes(value)
        if not isinstance(value, list):
            return self.encode_one(value) * self.cpus
        if len(value) != self.cpus:
            raise LayoutError(
                f"a {self.what} takes a list of {self.cpus} values, one per possible CPU, or one "
                f"value for all; not a list of {len(value)}"
            )
        return b"".join(map(self.encode_one, value))

    def encode_one(self, value: Any) -> bytes:
        """The value of one CPU, with what rounds it up."""
        return self.one.encode(value).ljust(self.stride, b"\0")

    def decode(self, data: Buffer) -> PerCpu:
        starts = range(0, self.size, self.stride)
        return PerCpu(self.one.decode(data[start : start + self.one.size]) for start in starts)


class StackCodec(Codec):
    """The value of a stack trace map, the innermost first: addresses, or places in files.

    Those are what the flag STACK_BUILD_ID has programs store: build ids with offsets.
    """

    plain = False

    def __init__(self, what: str, size: int, has_build_ids: bool) -> None:
        super().__init__(what, size)
        self._has_build_ids = has_build_ids

    def decode(self, data: Buffer) -> Any:
        from pybpf import symbols

        decode = symbols.decode_build_ids if self._has_build_ids else symbols.decode_addresses
        return decode(bytes(data))


def possible_cpus() -> int:
    """How many CPUs this machine may ever have: how many values a per-CPU element holds."""
    return _native.check(lib.libbpf_num_possible_cpus(), "count", "possible CPUs")


_DESCRIPTOR_KEYS = {
    MapType.SK_STORAGE: lambda value: None,
    MapType.INODE_STORAGE: open_path,
    MapType.CGRP_STORAGE: open_path,
    MapType.TASK_STORAGE: open_process,
}


def key_codec(map_type: MapType, name: str, size: int, btf_type: Type | None) -> Codec:
    """How the keys of such a map look in Python."""
    what = f"key of map {name!r}"
    if map_type in map_kinds.NO_ELEMENTS:
        return NoElements(map_type, name)
    if not size:
        return NoKey(what, 0)
    if map_type in _DESCRIPTOR_KEYS:
        return DescriptorCodec(what, size, btf_type, _DESCRIPTOR_KEYS[map_type])
    if map_type in map_kinds.CGROUP_STORAGES:
        return CgroupKey(what, size, btf_type)
    if map_type == MapType.LPM_TRIE and PrefixKey.suits(size, btf_type):
        return PrefixKey(what, size, btf_type)
    if btf_type is not None and btf_type.resolve().kind is Kind.ARRAY:
        return ArrayKey(what, size, btf_type)
    return Key(what, size, btf_type)


def value_codec(
    map_type: MapType, name: str, size: int, btf_type: Type | None, flags: MapFlags
) -> Codec:
    """How the values of such a map look in Python."""
    what = f"value of map {name!r}"
    if map_type in map_kinds.PER_CPU:
        return PerCpuCodec(Codec(what, size, btf_type), possible_cpus())
    if map_type in map_kinds.DESCRIPTOR_VALUES:
        opener = open_path if map_type == MapType.CGROUP_ARRAY else lambda value: None
        return DescriptorCodec(what, size, btf_type, opener)
    if map_type in (MapType.DEVMAP, MapType.DEVMAP_HASH, MapType.CPUMAP):
        return RedirectValue(what, size, btf_type)
    if map_type == MapType.STACK_TRACE and size % 8 == 0:
        return StackCodec(what, size, bool(flags & MapFlags.STACK_BUILD_ID))
    return Codec(what, size, btf_type)
