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
from pybpf.errors import LayoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, TypeAlias

    ByteOrder: TypeAlias = Literal["little", "big"]
    Buffer: TypeAlias = bytes | bytearray | memoryview
    _AnyClass: TypeAlias = type[Any]  # where "type" is a BTF type
    _StructBase = ctypes.Structure
    _ArrayBase = ctypes.Array[Any]
else:
    _StructBase = _ArrayBase = object

# C nests no deeper in practice; only damaged BTF does, which may even contain itself.
_DEPTH_LIMIT = 64

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
_FLOATS = {4: (ctypes.c_float, "f"), 8: (ctypes.c_double, "d")}

# Integers whose byte order is their own, whatever the machine's.
_ORDERED_TYPEDEFS: dict[str, ByteOrder] = {
    "__be16": "big",
    "__be32": "big",
    "__be64": "big",
    "__le16": "little",
    "__le32": "little",
    "__le64": "little",
}


def ctype(btf_type: Type) -> type[Any]:
    """The ctypes class whose size and offsets are those of ``btf_type``; always the same one.

    Structs and unions give a subclass of :class:`Struct`, arrays one of :class:`Array` or, of
    ``char``, a ``c_char`` array; pointers and enums are integers.  Raises LayoutError for what has
    no values of its own (void, functions, sections, types only declared) and for BTF that
    contradicts itself.
    """
    return _codec(btf_type).ctype


def decode(btf_type: Type, data: Buffer) -> int | float | str | bytes | Struct | list[Any]:
    """The value of ``btf_type`` that the first bytes of ``data`` hold.

    An int, bool or float; a :class:`Struct` with a copy of the bytes; a list for an array; for an
    array of ``char`` a str, up to the first NUL and with U+FFFD for what is not UTF-8; bytes for a
    float of neither 4 nor 8 bytes.  Raises LayoutError when ``data`` is too short.
    """
    codec = _codec(btf_type)
    if len(data) < codec.size:
        raise LayoutError(f"{btf_type} takes {codec.size} bytes, {len(data)} are given")
    value: int | float | str | bytes | Struct | list[Any] = codec.unpack(data, 0)
    return value


def encode(btf_type: Type, value: Any) -> bytes:
    """The bytes of ``value`` as a ``btf_type``.

    Takes what :func:`decode` returns; for a struct also a dict, which leaves at zero what it does
    not name, or a tuple with a value for every member, in order; for an array any list or tuple of
    its length; for ``char`` arrays str or bytes that fit, filled up with NUL.  Padding is zero,
    except that bytes of exactly the right length are taken as they are.

    Raises OverflowError for a number out of range, LayoutError for anything else that does not fit.
    """
    return _codec(btf_type).pack(value)


class Struct(_StructBase):
    """Base of the classes of structs and unions.

    Members are attributes, those of anonymous members included; a nested struct or an array is a
    view of the same bytes, ``char[N]`` is bytes up to the first NUL.  Keywords set members, the
    rest is zero; assigning accepts what :func:`encode` does and refuses what does not fit.
    Two are equal when they are of the same class and all members are equal, whatever the padding.
    ``bytes(value)`` is the memory as it is.
    """

    __slots__ = ()
    _codec_: _CompositeCodec

    def __init__(self, /, **members: Any) -> None:
        """Raises LayoutError for an unknown name or unfit value, OverflowError out of range."""
        super().__init__()
        codec = self._codec_
        for name, value in members.items():
            slot = codec.slots.get(name)
            if slot is None:
                raise LayoutError(codec.unknown_member(name))
            slot.store(self, value)

    def __setattr__(self, name: str, value: Any) -> None:
        slot = self._codec_.slots.get(name)
        if slot is None:
            raise AttributeError(self._codec_.unknown_member(name))
        slot.store(self, value)

    def __repr__(self) -> str:
        members = (f"{name}={getattr(self, name)!r}" for name in self._codec_.slots)
        return f"{type(self).__name__}({', '.join(members)})"

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        mine, others = bytes(self), bytes(other)
        return mine == others or self._codec_.plain(mine, 0) == self._codec_.plain(others, 0)

    def __hash__(self) -> int:
        """By value, so that structs can be keys of a dict; do not change one that is."""
        return hash(_frozen(self._codec_.plain(bytes(self), 0)))

    def asdict(self) -> dict[str, Any]:
        """The members by name as plain values: ints, str for ``char`` arrays, dicts and lists."""
        return self._codec_.plain(bytes(self), 0)


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple(map(_frozen, value.values()))
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


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
        return repr(list(self))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Array):
            other = other._codec_.plain(bytes(other), 0)
        if isinstance(other, list | tuple):
            return self._codec_.plain(bytes(self), 0) == list(other)
        return NotImplemented


class _WideIntArray(Array):
    """An array of integers that ctypes does not have."""

    __slots__ = ()

    def __getitem__(self, where: Any) -> Any:
        return self._codec_.plain(bytes(self), 0)[where]


class _Codec:
    """How one type is kept in memory.

    ``unpack`` reads a value as :func:`decode` returns it, ``plain`` the same with dicts for
    structs; both rely on ``data`` being long enough.
    """

    __slots__ = ("ctype", "size", "type")

    def __init__(self, type: Type, ctype: _AnyClass) -> None:
        self.type = type
        self.size = type.size
        self.ctype = ctype

    def unpack(self, data: Buffer, offset: int) -> Any:
        return bytes(data[offset : offset + self.size])

    def plain(self, data: Buffer, offset: int) -> Any:
        return self.unpack(data, offset)

    def pack(self, value: Any) -> bytes:
        if isinstance(value, bytes | bytearray | memoryview):
            data = bytes(value)
            if len(data) != self.size:
                raise LayoutError(f"{self.type} takes {self.size} bytes, {len(data)} are given")
            return data
        if isinstance(value, self.ctype):
            used = int.from_bytes(bytes(value), "little") & self.mask
            return used.to_bytes(self.size, "little")
        return self.pack_value(value)

    def pack_value(self, value: Any) -> bytes:
        """The bytes of a value that is neither bytes nor a ctypes instance."""
        raise self.refused(value, f"{self.size} bytes")

    @property
    def mask(self) -> int:
        """The bytes as a little-endian number, with ones where they are not padding."""
        return (1 << 8 * self.size) - 1

    def refused(self, value: Any, wanted: str) -> LayoutError:
        return LayoutError(f"{self.type} takes {wanted}, not {type(value).__name__} {value!r}")


class _IntCodec(_Codec):
    """An integer, enum, pointer or bool, or the bits of one in a bitfield."""

    __slots__ = ("bits", "convert", "high", "is_wide", "low", "order", "signed")

    def __init__(self, type: Type, order: ByteOrder, bits: int = 0) -> None:
        """``bits`` is the width of a bitfield, 0 for a whole integer."""
        if not 1 <= type.size <= _LARGEST_INTEGER:
            raise LayoutError(f"{type} is an integer of {type.size} bytes")
        self.order = order
        self.bits = bits
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
            raise self.refused(value, "an int") from None
        if not self.low <= number <= self.high:
            what = f"{self.bits} bits of {self.type}" if self.bits else str(self.type)
            raise OverflowError(f"{number} does not fit {what}, {self.low} to {self.high}")
        return number


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

    __slots__ = ()

    def unpack(self, data: Buffer, offset: int) -> str:
        text = bytes(data[offset : offset + self.size])
        return text.partition(b"\0")[0].decode(errors="replace")

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


class _ArrayCodec(_Codec):
    __slots__ = ("element", "nelems")

    def __init__(self, type: ArrayType, element: _Codec) -> None:
        self.element = element
        self.nelems = type.nelems
        base = _WideIntArray if isinstance(element, _IntCodec) and element.is_wide else Array
        namespace = {
            "__module__": __name__,
            "_type_": element.ctype,
            "_length_": type.nelems,
            "_codec_": self,
        }
        super().__init__(type, _new_class(str(type), (base, ctypes.Array), namespace))

    def unpack(self, data: Buffer, offset: int) -> list[Any]:
        unpack, size = self.element.unpack, self.element.size
        return [unpack(data, offset + size * number) for number in range(self.nelems)]

    def plain(self, data: Buffer, offset: int) -> list[Any]:
        plain, size = self.element.plain, self.element.size
        return [plain(data, offset + size * number) for number in range(self.nelems)]

    def pack_value(self, value: Any) -> bytes:
        if not isinstance(value, list | tuple | ctypes.Array):
            raise self.refused(value, "a list")
        if len(value) != self.nelems:
            raise LayoutError(f"{self.type} takes {self.nelems} elements, {len(value)} are given")
        return b"".join(map(self.element.pack, value))

    @property
    def mask(self) -> int:
        one = self.element.mask.to_bytes(self.element.size, "little")
        return int.from_bytes(one * self.nelems, "little")


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

    def __get__(self, owner: Struct | None, owner_class: type[Any]) -> Any:
        return self if owner is None else self.plain(bytes(owner), 0)

    def moved(self, by: int) -> _Slot:
        """The same for the struct around the anonymous one that has this member."""
        return _Slot(self.name, self.codec, self.offset + by)

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

    def store(self, owner: Struct, value: Any) -> None:
        number = self.codec.checked(value) & self.ones
        order, address = self.codec.order, ctypes.addressof(owner) + self.offset
        old = int.from_bytes(ctypes.string_at(address, self.size), order)
        new = old & ~(self.ones << self.shift) | number << self.shift
        ctypes.memmove(address, new.to_bytes(self.size, order), self.size)

    @property
    def mask(self) -> int:
        ones = (self.ones << self.shift).to_bytes(self.size, self.codec.order)
        return int.from_bytes(ones, "little") << 8 * self.offset


class _CompositeCodec(_Codec):
    """A struct or union: ``slots`` are the members by name, those of anonymous members included.

    ``declared`` has one slot for each member, an anonymous struct or union being one.
    """

    __slots__ = ("_mask", "declared", "slots")

    def __init__(self, type: Composite, depth: int) -> None:
        self.slots: dict[str, _Slot] = {}
        self.declared: list[_Slot] = []
        self._mask: int | None = None
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
        super().__init__(type, self._class())

    def _slot(self, member: Member, depth: int) -> _Slot:
        slot: _Slot
        order = self.type.btf.byteorder
        if member.bitfield_size:
            integer = member.type.resolve()
            if not isinstance(integer, Int | Enum):
                raise self._contradiction(member.name, f"is a bitfield of {integer}")
            codec = _IntCodec(integer, order, member.bitfield_size)
            slot = _BitSlot(member.name, codec, member.bit_offset)
        elif member.bit_offset % 8:
            raise self._contradiction(member.name, f"starts at bit {member.bit_offset}")
        else:
            slot = _Slot(member.name, _codec(member.type, depth + 1), member.bit_offset // 8)
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
                name = f"<anonymous {len(anonymous)}>"
                anonymous.append(name)
            if slot.offset < end or (is_union and slot.offset):
                raise self._contradiction(name, f"starts at {slot.offset}, within another one")
            if slot.offset > end:
                fields.append((f"<gap at {end}>", ctypes.c_uint8 * (slot.offset - end)))
            fields.append((name, slot.codec.ctype))
            if not is_union:
                end = slot.offset + slot.size
        if self.type.size > end:
            fields.append((f"<gap at {end}>", ctypes.c_uint8 * (self.type.size - end)))
        properties = {name: slot for name, slot in self.slots.items() if not slot.is_field}
        namespace = {
            **properties,
            "__module__": __name__,
            "_pack_": 1,
            "_layout_": "ms",  # what _pack_ means; Python 3.14 wants it said
            "_anonymous_": anonymous,
            "_fields_": fields,
            "_codec_": self,
        }
        bases = (Struct, ctypes.Union if is_union else ctypes.Structure)
        return _new_class(self.type.name or self.type.kind.name.lower(), bases, namespace)

    def unpack(self, data: Buffer, offset: int) -> Any:
        return self.ctype.from_buffer_copy(data, offset)

    def plain(self, data: Buffer, offset: int) -> dict[str, Any]:
        return {name: slot.plain(data, offset) for name, slot in self.slots.items()}

    def pack_value(self, value: Any) -> bytes:
        if isinstance(value, dict):
            return bytes(self.ctype(**value))
        if not isinstance(value, tuple):
            raise self.refused(value, f"a dict, a tuple or its own class {self.ctype.__name__}")
        # As in C, a list of values initialises the first member of a union.
        slots = self.declared[:1] if self.type.kind is Kind.UNION else self.declared
        if len(value) != len(slots):
            names = ", ".join(slot.name or "anonymous" for slot in slots)
            raise LayoutError(
                f"{self.type} takes {len(slots)} values ({names}), {len(value)} are given"
            )
        struct = self.ctype()
        for slot, element in zip(slots, value, strict=True):
            slot.store(struct, element)
        return bytes(struct)

    @property
    def mask(self) -> int:
        if self._mask is None:
            mask = 0
            for slot in self.declared:
                mask |= slot.mask
            self._mask = mask
        return self._mask

    def unknown_member(self, name: str) -> str:
        """What to say about a ``name`` that is not a member's."""
        import difflib

        close = difflib.get_close_matches(name, self.slots, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(self.slots)}"
        return f"{self.type} has no member {name!r}; {hint}"


def _ordered(ctype: type[Any], order: ByteOrder) -> type[Any]:
    """The ctypes class like ``ctype``, in that byte order."""
    ordered: type[Any] = getattr(ctype, "__ctype_le__" if order == "little" else "__ctype_be__")
    return ordered


def _new_class(name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> type[Any]:
    """A class whose metaclass is that of the ctypes class in ``bases``."""
    return type(bases[-1])(name, bases, namespace)


def _codec(btf_type: Type, depth: int = 0) -> _Codec:
    """The codec of ``btf_type``, within ``depth`` others that are being made."""
    layouts = btf_type.btf.layouts
    codec: Any = layouts.get(btf_type.id)
    if codec is None:
        # Should two threads get here at once, both go on with the class of the first.
        codec = layouts.setdefault(btf_type.id, _new_codec(btf_type, depth))
    return codec  # type: ignore[no-any-return]  # btf cannot name what this module keeps there


def _new_codec(btf_type: Type, depth: int) -> _Codec:
    if depth > _DEPTH_LIMIT:
        raise LayoutError(f"{btf_type} is nested more than {_DEPTH_LIMIT} deep")
    if btf_type.size > sys.maxsize:
        raise LayoutError(f"{btf_type} takes {btf_type.size} bytes")
    order: ByteOrder = btf_type.btf.byteorder
    if isinstance(btf_type, Modifier):
        integer = btf_type.resolve()
        if btf_type.name in _ORDERED_TYPEDEFS and isinstance(integer, Int):
            return _IntCodec(integer, _ORDERED_TYPEDEFS[btf_type.name])
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
            return _TextCodec(btf_type, ctypes.c_char * btf_type.size)
        return _ArrayCodec(btf_type, _codec(btf_type.type, depth + 1))
    if isinstance(btf_type, Composite):
        return _CompositeCodec(btf_type, depth)
    raise LayoutError(f"{btf_type} is a section; its variables have a layout each")


def has_padding(btf_type: Type) -> bool:
    """Whether there are bits in it that belong to no member."""
    codec = _codec(btf_type)
    return codec.mask != (1 << 8 * codec.size) - 1


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
    return tuple((at, codec.size, codec.signed, codec.high == 1) for at, codec in codecs)


def _is_plain_number(slot: _Slot) -> bool:
    codec = slot.codec
    if not isinstance(codec, _IntCodec) or codec.bits or codec.is_wide:
        return False
    return codec.order == sys.byteorder and (codec.high != 1 or codec.size == 1)
