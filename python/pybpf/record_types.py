# SPDX-License-Identifier: BSD-2-Clause
"""What the records of a stream are in Python: from the type that a user names to values.

A type is the name of a BTF type or one itself, a ctypes class, a numpy dtype, a function that is
given a record's bytes and chooses one of these, or a table that chooses by the record's first
number; bytes where there is none.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping

from pybpf import layout
from pybpf.btf import Array, Composite, Enum, Int, Type
from pybpf.errors import LayoutError, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    import numpy

    from pybpf.btf import Btf

    RecordTypeArgument: TypeAlias = (
        "str | Type | type[Any] | numpy.dtype[Any] | Callable[[bytes], Any] | Mapping[Any, Any]"
    )
    """What may be given for a record's type; None is bytes."""


_Simple: Any = ctypes.c_int.__mro__[1]  # of c_int and its like, which have a value each
_INTEGERS = tuple("bBhHiIlLqQ")
_ADDRESSES = tuple("OzZ")  # py_object, c_char_p, c_wchar_p
_FOLLOWING = (ctypes._Pointer, ctypes.CFUNCTYPE(None).__mro__[1])


class RecordType:
    """Records as the bytes that they are; subclasses make more of them."""

    #: A class of ctypes structs of ``size`` bytes, where records are such; C makes their instances.
    structs: type[Any] | None = None
    size = 0
    #: Whether records stay bytes.
    is_raw = True
    #: Whether bytes behind the size are elements, be they ever so few.
    is_open = False

    def decode(self, data: bytes) -> Any:
        """The value of a record; LayoutError where it is shorter than its type."""
        return data

    def encode(self, value: Any) -> bytes:
        """The bytes of what decode() gave."""
        return bytes(value)

    def dtype(self) -> numpy.dtype[Any]:
        """Of arrays of records; LayoutError where those have no single one."""
        raise LayoutError(f"{self} have no dtype: name their type, or read them one by one")

    def require_like(self, declared: Type) -> None:
        """LayoutError where this is a class of the declared type's size, but laid out otherwise."""

    def first_number(self) -> _Number:
        """What a table tells records of several types apart by."""
        raise LayoutError(f"{self} do not begin with a number, by which a table could choose")

    def __str__(self) -> str:
        return "untyped records"


class _Number:
    """An integer at the start of records."""

    def __init__(
        self, size: int, order: str, signed: bool, names: Mapping[str, int] | None = None
    ) -> None:
        self.size = size
        self.order: Any = order
        self.signed = signed
        self.names = names  # where it is of an enum

    def encode(self, number: int) -> bytes:
        return number.to_bytes(self.size, self.order, signed=self.signed)

    def __str__(self) -> str:
        return f"a number of {self.size} bytes, {self.order}-endian"


class _Btf(RecordType):
    """Records of a BTF type.  Bytes behind a struct stay with it: bytes() of it has all."""

    is_raw = False

    def __init__(self, btf_type: Type) -> None:
        self.type = btf_type
        self._is_struct = isinstance(btf_type.resolve(), Composite)
        ctype = layout.ctype(btf_type)  # which says what has no values
        self.size = ctypes.sizeof(ctype)
        self.structs = ctype if self._is_struct else None
        self.is_open = layout.is_flexible(btf_type)

    def decode(self, data: bytes) -> Any:
        return layout.decode_whole(self.type, data)

    def encode(self, value: Any) -> bytes:
        return bytes(value) if self._is_struct else layout.encode(self.type, value)

    def dtype(self) -> numpy.dtype[Any]:
        return self.type.dtype

    def first_number(self) -> _Number:
        inner: Any = self.type.resolve()
        member = None
        while isinstance(inner, Composite | Array):
            member = inner.members[0] if isinstance(inner, Composite) and inner.members else None
            inner = (inner.type if isinstance(inner, Array) else member and member.type) or Type
            inner = inner.resolve() if isinstance(inner, Type) else None
        if not isinstance(inner, Int | Enum) or (member is not None and member.bitfield_size):
            return super().first_number()
        names = inner.values if isinstance(inner, Enum) else None
        return _Number(inner.size, inner.btf.byteorder, inner.is_signed, names)

    def __str__(self) -> str:
        return f"records of {self.type}"


class _Ctypes(RecordType):
    """Records of a user's ctypes class; bytes behind it stay with it."""

    is_raw = False

    def __init__(self, ctype: type[Any]) -> None:
        try:
            self.size = ctypes.sizeof(ctype)
        except TypeError:  # a base of such classes
            raise LayoutError(f"{ctype!r} is no type of records: it has no size") from None
        _refuse_addresses(ctype)
        self._ctype = ctype
        self._new: Any = ctype.__new__  # as in C, without __init__
        self._dtype: numpy.dtype[Any] | None = None
        if issubclass(ctype, ctypes.Structure | ctypes.Union):
            self.structs = ctype
            self.is_open = any(
                ctypes.sizeof(field[1]) == 0 for field in getattr(ctype, "_fields_", ())[-1:]
            )

    def decode(self, data: bytes) -> Any:
        if len(data) < self.size:
            raise LayoutError(
                f"{self._ctype.__name__} takes {self.size} bytes, {len(data)} are given"
            )
        value: Any = self._new(self._ctype)
        if len(data) > self.size:
            ctypes.resize(value, len(data))
        ctypes.memmove(ctypes.addressof(value), data, len(data))
        return value.value if issubclass(self._ctype, _Simple) else value

    def encode(self, value: Any) -> bytes:
        return bytes(value if isinstance(value, self._ctype) else self._ctype(value))

    def require_like(self, declared: Type) -> None:
        if self.structs is not None and self.size == declared.size:
            declared.check_layout(self._ctype)

    def dtype(self) -> numpy.dtype[Any]:
        if self._dtype is None:  # which takes long to make
            import numpy

            try:
                self._dtype = numpy.dtype(self._ctype)
            except (TypeError, ValueError, NotImplementedError) as error:
                raise LayoutError(
                    f"numpy has no dtype of {self._ctype.__name__}: {error}"
                ) from None
        return self._dtype

    def first_number(self) -> _Number:
        inner: Any = self._ctype
        while hasattr(inner, "_fields_"):
            # the fields of a base come first
            own = [each.__dict__.get("_fields_") for each in inner.__mro__]
            _, inner, *bits = next((fields[0] for fields in own[::-1] if fields), ("", None))
            if bits:
                return super().first_number()
        if getattr(inner, "_type_", None) not in _INTEGERS:
            return super().first_number()
        big = getattr(inner, "__ctype_be__", None)
        order = "big" if inner is big else "little"
        return _Number(ctypes.sizeof(inner), order, inner(-1).value < 0)

    def __str__(self) -> str:
        return f"records of {self._ctype.__name__}"


class _Dtype(RecordType):
    """Records of a numpy dtype, as scalars of it; bytes behind it are left out."""

    is_raw = False

    def __init__(self, dtype: numpy.dtype[Any]) -> None:
        if dtype.hasobject or not dtype.itemsize:
            raise LayoutError(f"{dtype!r} is no type of records: their bytes are no such values")
        self._dtype = dtype
        self.size = dtype.itemsize

    def decode(self, data: bytes) -> Any:
        import numpy

        if len(data) < self.size:
            raise LayoutError(f"{self._dtype} takes {self.size} bytes, {len(data)} are given")
        return numpy.frombuffer(data, self._dtype, 1)[0]

    def encode(self, value: Any) -> bytes:
        return bytes(value.tobytes())

    def dtype(self) -> numpy.dtype[Any]:
        return self._dtype

    def first_number(self) -> _Number:
        inner: Any = self._dtype
        while inner.names:
            inner, offset, *_ = min(inner.fields.values(), key=_offset)
            if offset:
                return super().first_number()
        if inner.kind not in "iu":
            return super().first_number()
        order = {"<": "little", ">": "big"}.get(inner.byteorder, sys.byteorder)
        return _Number(inner.itemsize, order, inner.kind == "i")

    def __str__(self) -> str:
        return f"records of {self._dtype}"


class _Chosen(RecordType):
    """Records whose type a function chooses, from their bytes."""

    is_raw = False

    def __init__(
        self, choose: Callable[[bytes], Any], resolve: Callable[[Any], RecordType]
    ) -> None:
        self._choose = choose
        self._resolve = resolve

    def decode(self, data: bytes) -> Any:
        return self._resolve(self._choose(data)).decode(data)

    def __str__(self) -> str:
        return "records of several types"


class _Table(RecordType):
    """Records whose first number tells their type; bytes where the table does not have it."""

    is_raw = False

    def __init__(self, table: Mapping[Any, RecordType], types: Callable[[], Btf | None]) -> None:
        if not table:
            raise LayoutError("a table of record types is empty")
        number = next(iter(table.values())).first_number()
        self._size = number.size
        self._types: dict[bytes, RecordType] = {}
        for key, each in table.items():
            own = each.first_number()
            if (own.size, own.order) != (number.size, number.order):
                raise LayoutError(
                    f"{each} begin with {own}, others of the table with {number}: "
                    "a function of the bytes may choose instead of a table"
                )
            start = _start_of(key, own, types)
            if start in self._types:
                raise LayoutError(f"{key!r} stands twice in a table of record types")
            self._types[start] = each

    def decode(self, data: bytes) -> Any:
        found = self._types.get(data[: self._size])
        return data if found is None else found.decode(data)

    def __str__(self) -> str:
        return "records of several types"


def _start_of(key: Any, number: _Number, types: Callable[[], Btf | None]) -> bytes:
    """What the records begin with that a table has under a number, or an enumerator's name."""
    if isinstance(key, str):
        names = _enumerators(key, types()) if number.names is None else number.names
        if key not in names:
            raise NotFoundError("enumerator", key, names)
        key = names[key]
    if not isinstance(key, int):
        raise LayoutError(f"a table of record types has numbers as keys, not {key!r}")
    try:
        return number.encode(key)
    except OverflowError:
        raise LayoutError(f"no record begins with {key}: that is {number}") from None


def _enumerators(wanted: str, btf: Btf | None) -> dict[str, int]:
    """Those of all enums; LayoutError where several have the ``wanted`` one, and not as one number.

    An object's BTF has the enums of its variables, maps and relocations, so not every one in its C.
    """
    if btf is None:
        raise NotFoundError("enumerator (there is no BTF to look it up in)", wanted)
    found: dict[str, int] = {}
    for each in btf:
        if isinstance(each, Enum):
            values = each.values
            if wanted in values and found.get(wanted, values[wanted]) != values[wanted]:
                raise LayoutError(
                    f"enumerator {wanted!r} is {found[wanted]} and, in {each}, {values[wanted]}: "
                    "give the number"
                )
            found |= values
    return found


def _offset(field: Any) -> int:
    return int(field[1])


def _refuse_addresses(ctype: Any) -> None:
    """LayoutError where ctypes would follow an address in a record: it is none of this process."""
    if hasattr(ctype, "_fields_"):
        for each in ctype.__mro__:
            for field in each.__dict__.get("_fields_", ()):
                _refuse_addresses(field[1])
    elif hasattr(ctype, "_length_"):
        _refuse_addresses(ctype._type_)
    elif issubclass(ctype, _FOLLOWING) or getattr(ctype, "_type_", None) in _ADDRESSES:
        raise LayoutError(
            f"a record has no {ctype.__name__}, which would be an address in this process: "
            "ctypes.c_void_p takes the number as it is"
        )


def resolve(given: Any, types: Callable[[], Btf | None]) -> RecordType:
    """What stands for a record's type as such; names are looked up in what ``types()`` gives.

    NotFoundError for an unknown name, LayoutError for what is no type of records.
    """
    if given is None or given is bytes:
        return RecordType()
    if isinstance(given, RecordType):
        return given
    if isinstance(given, str):
        btf = types()
        if btf is None:
            raise NotFoundError("type (there is no BTF to look it up in)", given)
        return _Btf(btf[given])
    if isinstance(given, Type):
        return _Btf(given)
    if isinstance(given, Mapping):
        return _Table({key: resolve(each, types) for key, each in given.items()}, types)
    if isinstance(given, type) and hasattr(given, "from_buffer_copy"):
        return _Ctypes(given)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(given, numpy.dtype):
        return _Dtype(given)
    if numpy is not None and isinstance(given, type) and issubclass(given, numpy.generic):
        return _Dtype(numpy.dtype(given))
    if callable(given) and not isinstance(given, type):
        return _chosen(given, types)
    raise LayoutError(f"{given!r} is no type of records")


def _chosen(choose: Callable[[bytes], Any], types: Callable[[], Btf | None]) -> RecordType:
    known: dict[Any, RecordType] = {}

    def resolved(answer: Any) -> RecordType:
        if isinstance(answer, Mapping):  # which is no key
            return resolve(answer, types)
        found = known.get(answer)
        if found is None:
            found = known[answer] = resolve(answer, types)
        return found

    return _Chosen(choose, resolved)
