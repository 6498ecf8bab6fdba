# SPDX-License-Identifier: BSD-2-Clause
"""Turn BTF types into ctypes classes and their bytes into Python values and back.

ctypes has layout rules of its own, which are those of the host's compiler and not always of the
program's.  Here they have no say: every class is packed, the gaps between members are fields of
their own, and bitfields and 128-bit integers are properties, so that each size and offset is the
one that BTF states.  Values are checked where ctypes would cut them off.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from operator import index

from pybpf.btf import Array as ArrayType
from pybpf.btf import Composite, Enum, Float, Int, Kind, Member, Modifier, Pointer, Type
from pybpf.errors import LayoutError, NotFoundError
from pybpf.shape import DEPTH_LIMIT, ORDERED_TYPEDEFS, definition, holes, leaves

__all__ = ["Array", "Chars", "Struct", "ctype", "decode", "encode", "holes", "plain"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, TypeAlias

    from pybpf.shape import ByteOrder

    Buffer: TypeAlias = bytes | bytearray | memoryview
    _AnyClass: TypeAlias = type[Any]  # where "type" is a BTF type
    _StructBase = ctypes.Structure
    _ArrayBase = ctypes.Array[Any]
else:
    _StructBase = _ArrayBase = object

_INTEGERS = {
    (1, False): ctypes.c_uint8,
    (1, True): ctypes.c_int8,
    (2, False): ctypes.c_uint16,
    (2, True): ctypes.c_int16,
    (4, False): ctypes.c_uint32,
    (4, True): ctypes.c_int32,
    (8, False): ctypes.c_uint64,
    (8, True): ctypes.c_int64,
}
_LARGEST_INTEGER = 16
_ArrayMeta: Any = type(ctypes.Array)
_LETTERS = {1: "bB", 2: "hH", 4: "iI", 8: "qQ"}  # of struct formats: signed, unsigned
_FLOATS = {4: (ctypes.c_float, "f"), 8: (ctypes.c_double, "d")}

# Structs that are an address in network order, and how long one is.
_ADDRESSES = {"in_addr": 4, "in6_addr": 16}


def ctype(btf_type: Type) -> type[Any]:
    """The ctypes class whose size and offsets are those of ``btf_type``; always the same one.

    Structs and unions give a subclass of :class:`Struct`, arrays one of :class:`Array` or, of
    ``char``, a ``c_char`` array; pointers and enums are integers, a ``long double`` is bytes.  A
    flexible array takes no room.  Raises LayoutError for what has no values of its own (void,
    functions, sections, types only declared) and for BTF that contradicts itself.
    """
    return _codec(btf_type).ctype


def is_flexible(btf_type: Type) -> bool:
    """Whether it ends with a flexible array, whose elements are all that follows."""
    return _codec(btf_type).is_flexible


def decode(btf_type: Type, data: Buffer) -> int | float | bytes | Struct | list[Any]:
    """The value of ``btf_type`` that the first bytes of ``data`` hold.

    An int, bool or float; a :class:`Struct` with a copy of the bytes; a list for an array;
    :class:`Chars` for an array of ``char``; bytes for a float of neither 4 nor 8 bytes.  Where a
    struct ends with a flexible array, all that follows in ``data`` are its elements.  Raises
    LayoutError when ``data`` is too short.
    """
    codec, more = _filled(btf_type, data)
    value: int | float | bytes | Struct | list[Any]
    value = codec.unpack_all(data) if more and codec.is_flexible else codec.unpack(data, 0)
    return value


def decode_whole(btf_type: Type, data: Buffer) -> Any:
    """What decode() gives, but a struct keeps all of ``data``: bytes() of it has the rest."""
    codec = _codec(btf_type)
    if isinstance(codec, _CompositeCodec) and len(data) > codec.size:
        return codec.unpack_all(data)
    return decode(btf_type, data)


def plain(btf_type: Type, data: bytes) -> Any:
    """What decode() gives, but dicts for structs and str for text, as Struct.asdict() does.

    Raises LayoutError when ``data`` is too short.
    """
    codec, more = _filled(btf_type, data)
    return codec.plain_all(data) if more and codec.is_flexible else codec.plain(data, 0)


def _filled(btf_type: Type, data: Buffer) -> tuple[_Codec, int]:
    """What reads the type, and how many bytes follow it; LayoutError where they are too few."""
    codec = _codec(btf_type)
    more = len(data) - codec.size
    if more < 0:
        raise LayoutError(f"{btf_type} takes {codec.size} bytes, {len(data)} are given")
    return codec, more


def encode(btf_type: Type, value: Any) -> bytes:
    """The bytes of ``value`` as a ``btf_type``.

    Takes what :func:`decode` returns; for a struct also a dict, which leaves at zero what it does
    not name, a tuple with a value for every member, in order, and an instance of a dataclass or of
    a ctypes class, which is checked by :func:`~pybpf.layout_check.check_layout` when it is first
    seen; for an array any list or tuple of its length; for ``char`` arrays str or bytes that fit,
    filled up with NUL; for an enum the name of an enumerator.  An ``ipaddress`` object is taken
    where its bytes are in network order: ``__be32``, ``__u8[4]``, ``struct in_addr``, and of 16
    bytes ``__u8[16]``, ``__be32[4]``, ``struct in6_addr``.  Padding is zero, except that bytes of
    exactly the right length are taken as they are.

    Raises OverflowError for a number out of range, LayoutError for anything else that does not fit.
    """
    return _codec(btf_type).pack(value)


class Chars(bytes):
    """What a ``char`` array holds: its bytes less the NULs at the end, those between included.

    Encoding it again gives the same memory.  ``str(value)`` is that of bytes; see ``text``.
    """

    __slots__ = ()

    @property
    def text(self) -> str:
        """The text up to the first NUL, with U+FFFD for what is not UTF-8."""
        return self.partition(b"\0")[0].decode(errors="replace")


class Struct(_StructBase):
    """Base of the classes of structs and unions.

    Members are attributes, those of anonymous members included; a nested struct or an array is a
    view of the same bytes, ``char[N]`` gives :class:`Chars`, and a flexible array a list of the
    elements that :func:`decode` found behind the struct.  Keywords set members, the rest is zero;
    assigning accepts what :func:`encode` does and refuses what does not fit.

    Two are equal when they are of the same type, be it out of two BTFs, and all bits but padding
    are the same.
    ``bytes(value)`` is the memory as it is.  copy.copy() and copy.deepcopy() copy that memory; to
    pickle one, take ``asdict()``.
    """

    __slots__ = ()
    _codec_: _CompositeCodec

    def __init__(self, /, **members: Any) -> None:
        """Raises LayoutError for an unknown name or unfit value, OverflowError out of range."""
        if members:
            self._codec_.fill(self, members)

    def __setattr__(self, name: str, value: Any) -> None:
        slot = self._codec_.slots.get(name)
        if slot is None:
            raise AttributeError(self._codec_.unknown_member(name))
        self._codec_.set(self, slot, value)

    def __repr__(self) -> str:
        return self._codec_.shown(self)

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) and not (
            isinstance(other, Struct) and self._codec_.is_like(other._codec_)
        ):
            return NotImplemented
        mine, others = bytes(self), bytes(other)
        return mine == others or self._codec_.cleaned(mine) == self._codec_.cleaned(others)

    def __hash__(self) -> int:
        """By value, so that structs can be keys of a dict; do not change one that is."""
        return hash(self._codec_.cleaned(bytes(self)))

    def __copy__(self) -> Struct:
        copied: Struct = self._codec_.unpack_all(bytes(self))
        return copied

    def __deepcopy__(self, memo: object) -> Struct:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            f"{self._codec_.type} cannot be pickled: its class is made from BTF, which the reader "
            "of the pickle may not have; pickle value.asdict() or bytes(value)"
        )

    def asdict(self) -> dict[str, Any]:
        """The members by name as plain values: ints, str for ``char`` arrays, dicts and lists."""
        return self._codec_.plain_all(bytes(self))


def _documentation(struct_class: type[Struct]) -> str:
    """``__doc__`` of a struct's class: its definition, written when somebody reads it."""
    return definition(struct_class._codec_.type)


class _StructMeta(type(ctypes.Structure)):  # type: ignore[misc]
    __doc__ = property(_documentation)


class _UnionMeta(type(ctypes.Union)):  # type: ignore[misc]
    __doc__ = property(_documentation)


class Array(_ArrayBase):
    """Base of the classes of arrays: a fixed-length sequence that checks what is assigned."""

    __slots__ = ()
    _codec_: _ArrayCodec

    def __setitem__(self, where: Any, value: Any) -> None:
        """Raises IndexError, and what :func:`encode` raises."""
        if isinstance(where, slice):
            positions = range(*where.indices(len(self)))
            if len(positions) != len(value):
                raise LayoutError(f"{len(value)} values for {len(positions)} elements")
            for position, element in zip(positions, value, strict=True):
                self[position] = element
            return
        # A range knows negative positions and raises IndexError.
        position = range(len(self))[index(where)]
        element = self._codec_.element
        packed = element.pack(value)
        ctypes.memmove(ctypes.addressof(self) + position * element.size, packed, element.size)

    def __repr__(self) -> str:
        return self._codec_.shown(self)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            f"{self._codec_.type} cannot be pickled: its class is made from BTF, which the reader "
            "of the pickle may not have; pickle list(value) or bytes(value)"
        )

    def __copy__(self) -> Array:
        copied: Array = self._codec_.ctype.from_buffer_copy(self)
        return copied

    def __deepcopy__(self, memo: object) -> Array:
        return self.__copy__()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Array):
            other = other._codec_.plain(bytes(other), 0)
        if isinstance(other, list | tuple):
            return self._codec_.plain(bytes(self), 0) == list(other)
        return NotImplemented


class _DecodedArray(Array):
    """An array of what ctypes does not have, or gives otherwise: wide integers, text."""

    __slots__ = ()

    def __getitem__(self, where: Any) -> Any:
        return self._codec_.unpack(bytes(self), 0)[where]


class _Codec:
    """How one type is kept in memory.

    ``unpack`` reads a value as :func:`decode` returns it, ``plain`` the same with dicts for
    structs and str for text; both rely on ``data`` being long enough.
    """

    __slots__ = ("ctype", "size", "type")
    #: Whether elements may follow the value.
    is_flexible = False

    def __init__(self, type: Type, ctype: _AnyClass) -> None:
        self.type = type
        self.size = type.size
        self.ctype = ctype

    def unpack(self, data: Buffer, offset: int) -> Any:
        return bytes(data[offset : offset + self.size])

    def unpack_all(self, data: Buffer) -> Any:
        """The value with what follows it in ``data``."""
        return self.unpack(data, 0)

    def plain(self, data: Buffer, offset: int) -> Any:
        return self.unpack(data, offset)

    def plain_all(self, data: bytes) -> Any:
        """What plain() gives, with what follows it in ``data``."""
        return self.plain(data, 0)

    def pack(self, value: Any) -> bytes:
        if isinstance(value, bytes | bytearray | memoryview):
            return self._whole(bytes(value))
        if isinstance(value, self.ctype):
            return self.cleaned(self._whole(bytes(value)))
        return self.pack_value(value)

    def _whole(self, data: bytes) -> bytes:
        if len(data) != self.size:
            raise LayoutError(f"{self.type} takes {self.size} bytes, {len(data)} are given")
        return data

    def pack_value(self, value: Any) -> bytes:
        """The bytes of a value that is neither bytes nor an instance of the ctypes class."""
        raise self.refused(value, f"{self.size} bytes")

    def pack_address(self, value: Any) -> bytes | None:
        """An ``ipaddress`` object's bytes, for places in network order; None for other values."""
        packed = getattr(value, "packed", None)
        if not isinstance(packed, bytes):
            return None
        if len(packed) != self.size:
            version = {4: "IPv4", 16: "IPv6"}.get(self.size, "other")
            raise self.refused(value, f"an {version} address of {self.size} bytes")
        return packed

    def cleaned(self, data: bytes) -> bytes:
        """``data`` with its padding zeroed; what follows the value stays."""
        longer = self.mask | -1 << 8 * self.size
        return (int.from_bytes(data, "little") & longer).to_bytes(len(data), "little")

    @property
    def mask(self) -> int:
        """The bytes as a little-endian number, with ones where they are not padding."""
        return (1 << 8 * self.size) - 1

    @property
    def has_padding(self) -> bool:
        """Whether there are bits in it that belong to no member."""
        return self.mask != (1 << 8 * self.size) - 1

    def shown(self, value: Any) -> str:
        """``value`` as the repr of a struct shows it."""
        return repr(value)

    def refused(self, value: Any, wanted: str) -> LayoutError:
        return LayoutError(f"{self.type} takes {wanted}, not {type(value).__name__} {value!r}")


class _IntCodec(_Codec):
    """An integer, enum, pointer or bool, or the bits of one in a bitfield."""

    __slots__ = (
        "_enumerators",
        "bits",
        "convert",
        "high",
        "is_ordered",
        "is_wide",
        "low",
        "order",
        "signed",
    )

    def __init__(
        self, type: Type, order: ByteOrder, bits: int = 0, is_ordered: bool = False
    ) -> None:
        """``bits`` is the width of a bitfield, 0 for a whole integer.

        ``is_ordered`` says that the byte order is the integer's own, not the machine's.
        """
        if not 1 <= type.size <= _LARGEST_INTEGER:
            raise LayoutError(f"{type} is an integer of {type.size} bytes")
        self.order = order
        self.bits = bits
        self.is_ordered = is_ordered
        self._enumerators: dict[str, int] | None = None
        is_bool = isinstance(type, Int) and type.is_bool
        self.convert = bool if is_bool else int
        self.signed = isinstance(type, Int | Enum) and type.is_signed and not is_bool
        width = 1 if is_bool else bits or 8 * type.size
        self.low = -1 << width - 1 if self.signed else 0
        self.high = (1 << width - self.signed) - 1
        native = _INTEGERS.get((type.size, self.signed))
        #: Whether ctypes has no integer of this size.
        self.is_wide = native is None
        ctype: _AnyClass = _ordered(native, order) if native else ctypes.c_uint8 * type.size
        if is_bool and type.size == 1:
            ctype = ctypes.c_bool
        super().__init__(type, ctype)

    def unpack(self, data: Buffer, offset: int) -> int:
        raw = data[offset : offset + self.size]
        return self.convert(int.from_bytes(raw, self.order, signed=self.signed))

    def pack_value(self, value: Any) -> bytes:
        return self.checked(value).to_bytes(self.size, self.order, signed=self.signed)

    def checked(self, value: Any) -> int:
        """``value`` as an int that fits."""
        try:
            number = index(value)
        except TypeError:
            number = self._number_of(value)
        if not self.low <= number <= self.high:
            what = f"{self.bits} bits of {self.type}" if self.bits else str(self.type)
            raise OverflowError(f"{number} does not fit {what}, {self.low} to {self.high}")
        return number

    def is_plain(self, order: ByteOrder) -> bool:
        """Whether it is one of struct's integers in that byte order."""
        return self.convert is int and not self.is_wide and self.order == order

    def _number_of(self, value: Any) -> int:
        """The number that something else than an int stands for."""
        if isinstance(value, str) and isinstance(self.type, Enum):
            if value not in self.enumerators:
                missing = NotFoundError(f"enumerator of {self.type}", value, self.enumerators)
                raise LayoutError(str(missing))
            return self.enumerators[value]
        if self.is_ordered and self.order == "big":
            packed = self.pack_address(value)
            if packed is not None:
                return int.from_bytes(packed, "big")
        elif hasattr(value, "packed"):
            raise LayoutError(
                f"{self.type} is in the machine's byte order, {value!r} in the network's: give "
                "int(address) where the program swaps the bytes (bpf_ntohl), otherwise "
                "address.packed, and declare it __be32"
            )
        raise self.refused(
            value, "an int or an enumerator's name" if self.enumerators else "an int"
        )

    @property
    def enumerators(self) -> dict[str, int]:
        """The numbers by name, where the type is an enum that has any."""
        if self._enumerators is None:
            self._enumerators = self.type.values if isinstance(self.type, Enum) else {}
        return self._enumerators

    def shown(self, value: Any) -> str:
        for name, number in self.enumerators.items():
            if number == value:
                return name
        return repr(value)


class _FloatCodec(_Codec):
    __slots__ = ("format",)

    def __init__(self, type: Type, order: ByteOrder) -> None:
        ctype, letter = _FLOATS[type.size]
        self.format = struct.Struct(("<" if order == "little" else ">") + letter)
        super().__init__(type, _ordered(ctype, order))

    def unpack(self, data: Buffer, offset: int) -> float:
        value: float = self.format.unpack_from(data, offset)[0]
        return value

    def pack_value(self, value: Any) -> bytes:
        try:
            return self.format.pack(value)
        except struct.error:
            raise self.refused(value, "a number") from None


class _TextCodec(_Codec):
    """An array of ``char``."""

    __slots__ = ("read",)

    def __init__(self, type: Type) -> None:
        super().__init__(type, ctypes.c_char * type.size)
        self.read = struct.Struct(f"{type.size}s").unpack_from

    def unpack(self, data: Any, offset: int) -> Chars:
        return Chars(self.read(data, offset)[0].rstrip(b"\0"))

    def plain(self, data: Any, offset: int) -> str:
        return self.unpack(data, offset).text

    def pack(self, value: Any) -> bytes:
        if isinstance(value, str):
            value = value.encode()
        elif isinstance(value, self.ctype):
            value = bytes(value)
        elif not isinstance(value, bytes | bytearray | memoryview):
            raise self.refused(value, "str or bytes")
        data = bytes(value)
        if len(data) > self.size:
            raise LayoutError(f"{self.type} takes {self.size} bytes, {len(data)} are given")
        return data.ljust(self.size, b"\0")

    def unpack_from(self, data: bytes, offset: int) -> Chars:
        """All that follows, as what a flexible array holds."""
        return Chars(data[offset:].rstrip(b"\0"))

    def plain_from(self, data: bytes, offset: int) -> str:
        return self.unpack_from(data, offset).text


class _ArrayCodec(_Codec):
    __slots__ = ("element", "nelems")

    def __init__(self, type: ArrayType, element: _Codec) -> None:
        self.element = element
        self.nelems = type.nelems
        is_wide = isinstance(element, _IntCodec) and element.is_wide
        base = _DecodedArray if is_wide or isinstance(element, _TextCodec) else Array
        namespace = {
            "__module__": __name__,
            "_type_": element.ctype,
            "_length_": type.nelems,
            "_codec_": self,
        }
        super().__init__(type, _ArrayMeta(str(type), (base, ctypes.Array), namespace))

    def unpack(self, data: Buffer, offset: int) -> list[Any]:
        unpack, size = self.element.unpack, self.element.size
        return [unpack(data, offset + size * number) for number in range(self.nelems)]

    def plain(self, data: Buffer, offset: int) -> list[Any]:
        plain, size = self.element.plain, self.element.size
        return [plain(data, offset + size * number) for number in range(self.nelems)]

    def unpack_from(self, data: bytes, offset: int) -> list[Any]:
        """As many elements as follow, which is what a flexible array holds."""
        unpack, size = self.element.unpack, self.element.size
        return [unpack(data, start) for start in self._starts(data, offset, size)]

    def plain_from(self, data: bytes, offset: int) -> list[Any]:
        plain, size = self.element.plain, self.element.size
        return [plain(data, start) for start in self._starts(data, offset, size)]

    def _starts(self, data: bytes, offset: int, size: int) -> range:
        return range(offset, len(data) - size + 1, size) if size else range(0)

    def pack_value(self, value: Any) -> bytes:
        if not isinstance(value, list | tuple | ctypes.Array):
            packed = self.pack_address(value) if self._is_address else None
            if packed is None:
                raise self.refused(value, "a list")
            return packed
        if len(value) != self.nelems:
            raise LayoutError(f"{self.type} takes {self.nelems} elements, {len(value)} are given")
        return b"".join(map(self.element.pack, value))

    @property
    def _is_address(self) -> bool:
        """Whether these are bytes in network order, as many as an address has."""
        inner: _Codec = self
        while isinstance(inner, _ArrayCodec):
            inner = inner.element
        if self.size not in _ADDRESSES.values() or not isinstance(inner, _IntCodec):
            return False
        is_byte = inner.size == 1 and not inner.signed and inner.convert is int
        return is_byte or (inner.is_ordered and inner.order == "big")

    @property
    def mask(self) -> int:
        one = self.element.mask.to_bytes(self.element.size, "little")
        return int.from_bytes(one * self.nelems, "little")

    def shown(self, value: Any) -> str:
        return f"[{', '.join(map(self.element.shown, value))}]"


class _Slot:
    """A member and where it is, in bytes; a descriptor where ctypes has no field for it."""

    __slots__ = ("codec", "name", "offset", "size")

    def __init__(self, name: str, codec: _Codec, offset: int) -> None:
        self.name = name
        self.codec = codec
        self.offset = offset
        self.size = codec.size

    @property
    def is_field(self) -> bool:
        """Whether ctypes can read it."""
        return not (isinstance(self.codec, _IntCodec) and self.codec.is_wide)

    def bind(self, owner_class: _AnyClass) -> None:
        """Take from the new class what ctypes made for this member."""

    def __get__(self, owner: Struct | None, owner_class: type[Any]) -> Any:
        return self if owner is None else self.plain(bytes(owner), 0)

    def moved(self, by: int) -> _Slot:
        """The same for the struct around the anonymous one that has this member."""
        return type(self)(self.name, self.codec, self.offset + by)

    def plain(self, data: Buffer, start: int) -> Any:
        """The value of the member of the struct that begins at ``start``."""
        return self.codec.plain(data, start + self.offset)

    def store(self, owner: Struct, value: Any) -> None:
        """Set the member, and no byte beside it: others may write there at the same time."""
        packed = self.codec.pack(value)
        ctypes.memmove(ctypes.addressof(owner) + self.offset, packed, self.size)

    @property
    def mask(self) -> int:
        """The mask of the struct as far as this member goes."""
        return self.codec.mask << 8 * self.offset


class _IntSlot(_Slot):
    """A whole integer that ctypes has: what fits is stored by ctypes, in one write."""

    __slots__ = ("high", "low", "set")
    codec: _IntCodec

    def bind(self, owner_class: _AnyClass) -> None:
        self.low, self.high = self.codec.low, self.codec.high
        self.set = owner_class.__dict__[self.name].__set__

    def store(self, owner: Struct, value: Any) -> None:
        if isinstance(value, int) and self.low <= value <= self.high:
            self.set(owner, value)
        else:
            super().store(owner, value)


class _TextSlot(_Slot):
    """An array of ``char``, which ctypes would cut at the first NUL."""

    __slots__ = ()
    codec: _TextCodec

    @property
    def is_field(self) -> bool:
        return False

    def __get__(self, owner: Struct | None, owner_class: type[Any]) -> Any:
        return self if owner is None else self.codec.unpack(owner, self.offset)


class _FlexibleSlot(_Slot):
    """An array without a length: it has elements where bytes follow the struct."""

    __slots__ = ()
    codec: _ArrayCodec | _TextCodec

    @property
    def is_field(self) -> bool:
        return False

    def __get__(self, owner: Struct | None, owner_class: type[Any]) -> Any:
        if owner is None:
            return self
        data = bytes(owner)
        if len(data) > owner_class._codec_.size and self.follows(owner_class._codec_):
            return self.codec.unpack_from(data, self.offset)
        return self.codec.unpack(b"", 0)

    def follows(self, composite: _CompositeCodec) -> bool:
        """Whether no member of the struct is behind it."""
        return self.offset >= composite.end


class _BitSlot(_Slot):
    """A bitfield: ``size`` bytes from ``offset`` hold it, ``shift`` bits below its own."""

    __slots__ = ("bit_offset", "ones", "shift")
    codec: _IntCodec

    def __init__(self, name: str, codec: _IntCodec, bit_offset: int) -> None:
        super().__init__(name, codec, bit_offset // 8)
        self.bit_offset = bit_offset
        first = bit_offset % 8
        self.size = (first + codec.bits + 7) // 8
        self.shift = first if codec.order == "little" else 8 * self.size - first - codec.bits
        self.ones = (1 << codec.bits) - 1

    @property
    def is_field(self) -> bool:
        return False

    def moved(self, by: int) -> _BitSlot:
        return _BitSlot(self.name, self.codec, self.bit_offset + 8 * by)

    def plain(self, data: Buffer, start: int) -> int:
        first = start + self.offset
        number = int.from_bytes(data[first : first + self.size], self.codec.order)
        number = number >> self.shift & self.ones
        if number > self.codec.high and self.codec.signed:
            number -= self.ones + 1
        return self.codec.convert(number)

    def merged(self, old: bytes, value: Any) -> bytes:
        """The ``old`` bytes that hold the bitfield, with ``value`` in it."""
        number = self.codec.checked(value) & self.ones
        rest = int.from_bytes(old, self.codec.order) & ~(self.ones << self.shift)
        return (rest | number << self.shift).to_bytes(self.size, self.codec.order)

    def store(self, owner: Struct, value: Any) -> None:
        address = ctypes.addressof(owner) + self.offset
        packed = self.merged(ctypes.string_at(address, self.size), value)
        ctypes.memmove(address, packed, self.size)

    @property
    def mask(self) -> int:
        ones = (self.ones << self.shift).to_bytes(self.size, self.codec.order)
        return int.from_bytes(ones, "little") << 8 * self.offset


class _CompositeCodec(_Codec):
    """A struct or union: ``slots`` are the members by name, those of anonymous members included.

    ``declared`` has one slot for each member, an anonymous struct or union being one.
    """

    __slots__ = (
        "_alike",
        "_checked",
        "_flat",
        "_has_padding",
        "_mask",
        "declared",
        "end",
        "is_flexible",
        "slots",
    )
    type: Composite

    def __init__(self, type: Composite, depth: int) -> None:
        self.slots: dict[str, _Slot] = {}
        self.declared: list[_Slot] = []
        self._mask: int | None = None
        self._has_padding: bool | None = None
        self._alike: dict[_CompositeCodec, bool] = {}
        self._checked: set[_AnyClass] = set()
        self._flat: _Flat | bool | None = True  # which is: not asked for yet
        self.type = type
        for member in type.members:
            slot = self._slot(member, depth)
            if member.name:
                self.slots.setdefault(member.name, slot)
            elif isinstance(slot.codec, _CompositeCodec):
                for inner in slot.codec.slots.values():
                    self.slots.setdefault(inner.name, inner.moved(slot.offset))
            else:
                continue  # padding that the program spells as an unnamed bitfield
            self.declared.append(slot)
        #: Where the last member that takes room ends.
        self.end = max((slot.offset + slot.size for slot in self.slots.values()), default=0)
        self.is_flexible = any(self._flexible())
        super().__init__(type, self._class())
        for slot in self.slots.values():
            slot.bind(self.ctype)

    def _slot(self, member: Member, depth: int) -> _Slot:
        slot: _Slot
        order = self.type.btf.byteorder
        if member.bitfield_size:
            integer = member.type.resolve()
            if not isinstance(integer, Int | Enum):
                raise self._contradiction(member.name, f"is a bitfield of {integer}")
            bits = _IntCodec(integer, order, member.bitfield_size)
            slot = _BitSlot(member.name, bits, member.bit_offset)
        elif member.bit_offset % 8:
            raise self._contradiction(member.name, f"starts at bit {member.bit_offset}")
        else:
            codec = _codec(member.type, depth + 1)
            slot = _slot_class(codec)(member.name, codec, member.bit_offset // 8)
        if slot.offset + slot.size > self.type.size:
            raise self._contradiction(member.name, f"ends beyond the {self.type.size} bytes")
        return slot

    def _contradiction(self, name: str, what: str) -> LayoutError:
        return LayoutError(f"{self.type}: member {name!r} {what}")

    def _class(self) -> _AnyClass:
        """The ctypes class.  Hidden members have names that no C program can use."""
        is_union = self.type.kind is Kind.UNION
        fields: list[tuple[str, _AnyClass]] = []
        anonymous: list[str] = []
        end = 0
        for slot in self.declared:
            if not slot.is_field:
                continue
            name = slot.name
            if not name:
                name = f"_<anonymous {len(anonymous)}>"
                anonymous.append(name)
            if slot.offset < end or (is_union and slot.offset):
                raise self._contradiction(name, f"starts at {slot.offset}, within another one")
            if slot.offset > end:
                fields.append((f"_<gap at {end}>", ctypes.c_uint8 * (slot.offset - end)))
            fields.append((name, slot.codec.ctype))
            if not is_union:
                end = slot.offset + slot.size
        if self.type.size > end:
            fields.append((f"_<gap at {end}>", ctypes.c_uint8 * (self.type.size - end)))
        properties = {name: slot for name, slot in self.slots.items() if not slot.is_field}
        namespace = {
            **properties,
            "__slots__": (),
            "__module__": __name__,
            "_pack_": 1,
            "_layout_": "ms",  # what _pack_ means; Python 3.14 wants it said
            "_anonymous_": anonymous,
            "_fields_": fields,
            "_codec_": self,
        }
        name = self.type.name or self.type.kind.name.lower()
        if is_union:
            return _UnionMeta(name, (Struct, ctypes.Union), namespace)
        return _StructMeta(name, (Struct, ctypes.Structure), namespace)

    def _flexible(self) -> Iterator[_FlexibleSlot]:
        """The arrays whose elements follow the struct."""
        for slot in self.slots.values():
            if isinstance(slot, _FlexibleSlot) and slot.follows(self):
                yield slot

    @property
    def flat(self) -> _Flat | None:
        """The struct as one format; None where members overlap, or bits are members."""
        if self._flat is True:
            self._flat = _Flat(self) if _Flat.describes(self) else None
        return self._flat  # type: ignore[return-value]  # True has just been replaced

    def unpack(self, data: Buffer, offset: int) -> Any:
        return self.ctype.from_buffer_copy(data, offset)

    def unpack_all(self, data: Buffer) -> Any:
        value = self.ctype()
        if len(data) > self.size:
            ctypes.resize(value, len(data))
        ctypes.memmove(ctypes.addressof(value), bytes(data), len(data))
        return value

    def plain(self, data: Buffer, offset: int) -> dict[str, Any]:
        flat = self.flat
        if flat is not None:
            return flat.plain(data, offset)
        return {name: slot.plain(data, offset) for name, slot in self.slots.items()}

    def plain_all(self, data: bytes) -> dict[str, Any]:
        """The members with the elements that follow in ``data``."""
        members = self.plain(data, 0)
        if len(data) > self.size:
            for slot in self._flexible():
                members[slot.name] = slot.codec.plain_from(data, slot.offset)
        return members

    def shown(self, value: Any) -> str:
        members = (
            f"{name}={slot.codec.shown(getattr(value, name))}" for name, slot in self.slots.items()
        )
        return f"{type(value).__name__}({', '.join(members)})"

    def fill(self, struct: Struct, members: dict[str, Any]) -> None:
        """Set members by name."""
        packed = None if self.flat is None else self.flat.pack_names(members)
        if packed is None:
            self._fill_each(struct, members)
        else:
            ctypes.memmove(ctypes.addressof(struct), packed, self.size)

    def _fill_each(self, struct: Struct, members: dict[str, Any]) -> None:
        for name, value in members.items():
            slot = self.slots.get(name)
            if slot is None:
                raise LayoutError(self.unknown_member(name))
            self.set(struct, slot, value)

    def set(self, struct: Struct, slot: _Slot, value: Any) -> None:
        """Set that member; an error says which one it is."""
        try:
            slot.store(struct, value)
        except (LayoutError, OverflowError) as error:
            member = f"member {slot.name!r}" if slot.name else "anonymous member"
            raise type(error)(f"{self.type} {member}: {error}") from None

    def pack_value(self, value: Any) -> bytes:
        if isinstance(value, dict):
            return self._pack_names(value)
        if isinstance(value, tuple):
            return self._pack_each(value)
        if isinstance(value, ctypes.Structure | ctypes.Union):
            self._check(type(value))
            return self.cleaned(self._whole(bytes(value)))
        fields = getattr(type(value), "__dataclass_fields__", None)
        if fields is not None:
            self._check(type(value))
            return self._pack_names({name: getattr(value, name) for name in fields})
        if _ADDRESSES.get(self.type.name) == self.size:
            packed = self.pack_address(value)
            if packed is not None:
                return packed
        raise self.refused(value, f"a dict, a tuple or its own class {self.ctype.__name__}")

    def is_like(self, other: _CompositeCodec) -> bool:
        """Whether it is the same type, out of another BTF perhaps; compares each pair once."""
        known = self._alike.get(other)
        if known is None:
            known = self._alike[other] = self._definition() == other._definition()
        return known

    def _definition(self) -> tuple[Any, ...]:
        parts = [leaf._replace(type=str(leaf.type)) for leaf in leaves(self.type)]  # type: ignore[arg-type]
        return self.type.name, self.type.kind, self.type.size, parts

    def _check(self, user_class: _AnyClass) -> None:
        """Refuse a class of the user's that is laid out otherwise; looks once at each."""
        if user_class not in self._checked:
            from pybpf.layout_check import check_layout

            check_layout(self.type, user_class)
            self._checked.add(user_class)

    def _pack_names(self, members: dict[str, Any]) -> bytes:
        packed = None if self.flat is None else self.flat.pack_names(members)
        if packed is None:
            struct = self.ctype()
            self._fill_each(struct, members)
            packed = bytes(struct)
        return packed

    def _pack_each(self, values: tuple[Any, ...]) -> bytes:
        packed = None if self.flat is None else self.flat.pack(values)
        if packed is not None:
            return packed
        # As in C, a list of values initialises the first member of a union.
        slots = self.declared[:1] if self.type.kind is Kind.UNION else self.declared
        if len(values) != len(slots):
            names = ", ".join(slot.name or "anonymous" for slot in slots)
            raise LayoutError(
                f"{self.type} takes {len(slots)} values ({names}), {len(values)} are given"
            )
        struct = self.ctype()
        for slot, value in zip(slots, values, strict=True):
            self.set(struct, slot, value)
        return bytes(struct)

    @property
    def mask(self) -> int:
        if self._mask is None:
            mask = 0
            for slot in self.declared:
                mask |= slot.mask
            self._mask = mask
        return self._mask

    @property
    def has_padding(self) -> bool:
        if self._has_padding is None:
            self._has_padding = super().has_padding
        return self._has_padding

    def cleaned(self, data: bytes) -> bytes:
        return super().cleaned(data) if self.has_padding else data

    def unknown_member(self, name: object) -> str:
        """What to say about a ``name`` that is not a member's."""
        import difflib

        close = difflib.get_close_matches(str(name), self.slots, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(self.slots)}"
        return f"{self.type} has no member {name!r}; {hint}"


class _Flat:
    """A struct whose members follow one another, packed and unpacked as a whole.

    Integers in the BTF's byte order are the format's own, other members are bytes in it that pass
    through their codecs.
    """

    __slots__ = ("coded", "format", "names", "zeros")

    def __init__(self, composite: _CompositeCodec) -> None:
        self.names = list(composite.slots)
        self.zeros: dict[str, Any] = {}
        #: Position and codec of the members that are bytes.
        self.coded: list[tuple[int, _Codec]] = []
        order = composite.type.btf.byteorder
        text, end = "<" if order == "little" else ">", 0
        for position, (name, slot) in enumerate(composite.slots.items()):
            codec = slot.codec
            text += f"{slot.offset - end}x"
            if isinstance(codec, _IntCodec) and codec.is_plain(order):
                text += _LETTERS[codec.size][not codec.signed]
                self.zeros[name] = 0
            else:
                text += f"{codec.size}s"
                self.zeros[name] = bytes(codec.size)
                self.coded.append((position, codec))
            end = slot.offset + slot.size
        self.format = struct.Struct(f"{text}{composite.size - end}x")

    @staticmethod
    def describes(composite: _CompositeCodec) -> bool:
        end = 0
        for slot in composite.slots.values():
            if slot.offset < end or isinstance(slot, _BitSlot):
                return False
            end = slot.offset + slot.size
        return len(composite.slots) == len(composite.declared)

    def pack(self, values: Sequence[Any]) -> bytes | None:
        """One value for each member; None where one does not fit, which the member can explain."""
        try:
            if self.coded and len(values) == len(self.names):
                values = list(values)
                for position, codec in self.coded:
                    values[position] = codec.pack(values[position])
            return self.format.pack(*values)
        except (struct.error, LayoutError, OverflowError):
            return None

    def pack_names(self, members: dict[str, Any]) -> bytes | None:
        """Some members by name, the others zero; None where a name or a value does not fit."""
        merged = self.zeros | members
        return self.pack([*merged.values()]) if len(merged) == len(self.zeros) else None

    def plain(self, data: Buffer, offset: int) -> dict[str, Any]:
        values = self.format.unpack_from(data, offset)
        if self.coded:
            converted = list(values)
            for position, codec in self.coded:
                converted[position] = codec.plain(values[position], 0)
            return dict(zip(self.names, converted, strict=True))
        return dict(zip(self.names, values, strict=True))


def _slot_class(codec: _Codec) -> type[_Slot]:
    if isinstance(codec, _IntCodec) and not codec.is_wide:
        return _IntSlot
    if isinstance(codec, _TextCodec):
        return _TextSlot if codec.size else _FlexibleSlot
    return _FlexibleSlot if isinstance(codec, _ArrayCodec) and not codec.nelems else _Slot


def _ordered(ctype: type[Any], order: ByteOrder) -> type[Any]:
    """The ctypes class like ``ctype``, in that byte order."""
    ordered: type[Any] = getattr(ctype, "__ctype_le__" if order == "little" else "__ctype_be__")
    return ordered


def _codec(btf_type: Type, depth: int = 0) -> _Codec:
    """The codec of ``btf_type``, within ``depth`` others that are being made."""
    layouts = btf_type.btf.layouts
    codec: Any = layouts.get(btf_type.id)
    if codec is None:
        # Should two threads get here at once, both go on with the class of the first.
        codec = layouts.setdefault(btf_type.id, _new_codec(btf_type, depth))
    return codec  # type: ignore[no-any-return]  # btf cannot name what this module keeps there


def _new_codec(btf_type: Type, depth: int) -> _Codec:
    if depth > DEPTH_LIMIT:
        raise LayoutError(f"{btf_type} is nested more than {DEPTH_LIMIT} deep")
    if btf_type.size > sys.maxsize:
        raise LayoutError(f"{btf_type} takes {btf_type.size} bytes")
    order: ByteOrder = btf_type.btf.byteorder
    if isinstance(btf_type, Modifier):
        integer = btf_type.resolve()
        if btf_type.name in ORDERED_TYPEDEFS and isinstance(integer, Int):
            return _IntCodec(integer, ORDERED_TYPEDEFS[btf_type.name], is_ordered=True)
        return _codec(btf_type.target, depth + 1)
    if isinstance(btf_type, Int | Enum | Pointer):
        return _IntCodec(btf_type, order)
    if isinstance(btf_type, Float):
        if btf_type.size in _FLOATS:
            return _FloatCodec(btf_type, order)
        return _Codec(btf_type, ctypes.c_uint8 * btf_type.size)
    if isinstance(btf_type, ArrayType):
        element = btf_type.type.resolve()
        if isinstance(element, Int) and element.name == "char":
            return _TextCodec(btf_type)
        return _ArrayCodec(btf_type, _codec(btf_type.type, depth + 1))
    if isinstance(btf_type, Composite):
        return _CompositeCodec(btf_type, depth)
    raise LayoutError(f"{btf_type} is a section; its variables have a layout each")


def member_bits(btf_type: Type) -> bytes:
    """Its bytes, with ones in what belongs to a member and zeros in padding."""
    codec = _codec(btf_type)
    return codec.mask.to_bytes(codec.size, "little")


def has_padding(btf_type: Type) -> bool:
    """Whether there are bits in it that belong to no member."""
    return _codec(btf_type).has_padding


def numbers(btf_type: Type) -> tuple[tuple[int, int, bool, bool], ...]:
    """The integers that make up the type, as (offset, size, is it signed, is it a bool).

    None unless they are all there is: integers of up to 8 bytes in the machine's byte order, one or
    the members of a struct.
    """
    codec = _codec(btf_type)
    slots = codec.declared if isinstance(codec, _CompositeCodec) else [_Slot("", codec, 0)]
    if isinstance(codec, _CompositeCodec) and codec.type.kind is Kind.UNION:
        return ()
    if not all(map(_is_plain_number, slots)):
        return ()
    codecs = [(slot.offset, slot.codec) for slot in slots if isinstance(slot.codec, _IntCodec)]
    return tuple((at, codec.size, codec.signed, codec.convert is bool) for at, codec in codecs)


def _is_plain_number(slot: _Slot) -> bool:
    codec = slot.codec
    if not isinstance(codec, _IntCodec) or codec.bits:
        return False
    return codec.is_plain(sys.byteorder) or (codec.convert is bool and codec.size == 1)
