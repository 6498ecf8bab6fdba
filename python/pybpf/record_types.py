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


class RecordType:
    """Records as the bytes that they are; subclasses make more of them."""

    #: A class of ctypes structs of ``size`` bytes, where records are such; C makes their instances.
    structs: type[Any] | None = None
    size = 0
    #: Whether records stay bytes.
    is_raw = True

    def decode(self, data: bytes) -> Any:
        """The value of a record; LayoutError where it is shorter than its type."""
        return data

    def encode(self, value: Any) -> bytes:
        """The bytes of what decode() gave."""
        return bytes(value)

    def dtype(self) -> numpy.dtype[Any]:
        """Of arrays of records; LayoutError where those have no single one."""
        raise LayoutError(f"{self} have no dtype: name their type, or read them one by one")

    def first_number(self) -> _Number:
        """What a table tells records of several types apart by."""
        raise LayoutError(f"{self} do not begin with a number, by which a table could choose")

    def __str__(self) -> str:
        return "untyped records"


class _Number:
    """An integer at the start of records."""

    def __init__(self, size: int, order: str, signed: bool, names: Mapping[str, int]) -> None:
        self.size = size
        self.order: Any = order
        self.signed = signed
        self.names = names

    def read(self, data: bytes) -> int:
        return int.from_bytes(data[: self.size], self.order, signed=self.signed)

    @property
    def place(self) -> tuple[int, str]:
        return self.size, self.order


class _Btf(RecordType):
    """Records of a BTF type.  Bytes behind a struct stay with it: bytes() of it has all."""

    is_raw = False

    def __init__(self, btf_type: Type) -> None:
        self.type = btf_type
        self._is_struct = isinstance(btf_type.resolve(), Composite)
        ctype = layout.ctype(btf_type)  # which says what has no values
        self.size = ctypes.sizeof(ctype)
        self.structs = ctype if self._is_struct else None

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
        names = inner.values if isinstance(inner, Enum) else {}
        return _Number(inner.size, inner.btf.byteorder, inner.is_signed, names)

    def __str__(self) -> str:
        return f"records of {self.type}"


class _Ctypes(RecordType):
    """Records of a user's ctypes class; bytes behind it stay with it."""

    is_raw = False

    def __init__(self, ctype: type[Any]) -> None:
        self._ctype = ctype
        self._dtype: numpy.dtype[Any] | None = None
        self.size = ctypes.sizeof(ctype)
        if issubclass(ctype, ctypes.Structure | ctypes.Union):
            self.structs = ctype

    def decode(self, data: bytes) -> Any:
        if len(data) < self.size:
            raise LayoutError(
                f"{self._ctype.__name__} takes {self.size} bytes, {len(data)} are given"
            )
        value = self._ctype()
        if len(data) > self.size:
            ctypes.resize(value, len(data))
        ctypes.memmove(ctypes.addressof(value), data, len(data))
        return value if self.structs is not None else getattr(value, "value", value)

    def encode(self, value: Any) -> bytes:
        return bytes(value if isinstance(value, self._ctype) else self._ctype(value))

    def dtype(self) -> numpy.dtype[Any]:
        if self._dtype is None:  # which takes long to make
            import numpy

            self._dtype = numpy.dtype(self._ctype)
        return self._dtype

    def first_number(self) -> _Number:
        inner: Any = self._ctype
        order = sys.byteorder
        while hasattr(inner, "_fields_") and inner._fields_:
            if hasattr(inner, "_swappedbytes_"):
                order = "big" if sys.byteorder == "little" else "little"
            inner = inner._fields_[0][1]
        if not isinstance(getattr(inner, "_type_", None), str):
            return super().first_number()
        return _Number(ctypes.sizeof(inner), order, inner(-1).value < 0, {})

    def __str__(self) -> str:
        return f"records of {self._ctype.__name__}"


class _Dtype(RecordType):
    """Records of a numpy dtype, as scalars of it; bytes behind it are left out."""

    is_raw = False

    def __init__(self, dtype: numpy.dtype[Any]) -> None:
        self._dtype = dtype
        self.size = dtype.itemsize

    def decode(self, data: bytes) -> Any:
        import numpy

        if len(data) < self.size:
            raise LayoutError(f"{self._dtype} takes {self.size} bytes, {len(data)} are given")
        return numpy.frombuffer(data, self._dtype, 1)[0]

    def dtype(self) -> numpy.dtype[Any]:
        return self._dtype

    def first_number(self) -> _Number:
        inner: Any = self._dtype
        while inner.names:
            inner = inner.fields[inner.names[0]][0]
        if inner.kind not in "iu":
            return super().first_number()
        order = {"<": "little", ">": "big"}.get(inner.byteorder, sys.byteorder)
        return _Number(inner.itemsize, order, inner.kind == "i", {})

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

    def __init__(self, types: Mapping[Any, RecordType]) -> None:
        if not types:
            raise LayoutError("a table of record types is empty")
        numbers = {key: record_type.first_number() for key, record_type in types.items()}
        self._number = next(iter(numbers.values()))
        for key, number in numbers.items():
            if number.place != self._number.place:
                raise LayoutError(
                    f"{types[key]} begin with a number of {number.size} bytes, others with one of "
                    f"{self._number.size}: a function of the bytes may choose instead of a table"
                )
        self._types = {_value_of(key, number): types[key] for key, number in numbers.items()}

    def decode(self, data: bytes) -> Any:
        found = self._types.get(self._number.read(data))
        return data if found is None else found.decode(data)

    def __str__(self) -> str:
        return "records of several types"


def _value_of(key: Any, number: _Number) -> int:
    """The number under which a table has a type: itself, or an enumerator's name."""
    if isinstance(key, str):
        if key not in number.names:
            raise NotFoundError("enumerator", key, number.names)
        return number.names[key]
    if not isinstance(key, int):
        raise LayoutError(f"a table of record types has numbers as keys, not {key!r}")
    return key


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
        return _Table({key: resolve(each, types) for key, each in given.items()})
    if isinstance(given, type) and hasattr(given, "from_buffer_copy"):
        return _Ctypes(given)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(given, numpy.dtype):
        return _Dtype(given)
    if callable(given):
        return _chosen(given, types)
    raise LayoutError(f"{given!r} is no type of records")


def _chosen(choose: Callable[[bytes], Any], types: Callable[[], Btf | None]) -> RecordType:
    known: dict[Any, RecordType] = {}

    def resolved(answer: Any) -> RecordType:
        found = known.get(answer)
        if found is None:
            found = known[answer] = resolve(answer, types)
        return found

    return _Chosen(choose, resolved)
