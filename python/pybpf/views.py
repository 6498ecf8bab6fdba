# SPDX-License-Identifier: BSD-2-Clause
"""Structs and arrays among an object's variables, read and written where they are.

A view knows where its bytes are and of what type, and holds none of them: each access asks the
section, which borrows the object.  So a view can outlive load(), and after close() it can be asked
but answers with ClosedError; a ctypes object over memory that libbpf unmaps would crash.
"""

from __future__ import annotations

import sys
from _collections_abc import Sequence  # collections.abc imports all of collections
from operator import eq, index

from pybpf.btf import Enum, Int
from pybpf.errors import ClosedError, Error, LayoutError, NotFoundError
from pybpf.layout import Array, _ArrayCodec, _BitSlot, _CompositeCodec, _IntCodec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Literal, NoReturn, TypeAlias

    from pybpf.layout import Struct, _Codec, _Slot
    from pybpf.variables import Section

    Format: TypeAlias = Literal["b", "B", "h", "H", "i", "I", "q", "Q"]

# of memoryview.cast, by size and whether signed
_FORMATS: dict[tuple[int, bool], Format] = {
    (1, False): "B",
    (1, True): "b",
    (2, False): "H",
    (2, True): "h",
    (4, False): "I",
    (4, True): "i",
    (8, False): "Q",
    (8, True): "q",
}
_AGGREGATES = (_CompositeCodec, _ArrayCodec)


class _View:
    """Some bytes of a section and what they mean."""

    __slots__ = ("_codec", "_offset", "_section")
    _codec: _Codec
    _offset: int
    _section: Section

    def __init__(self, section: Section, codec: _Codec, offset: int) -> None:
        for name, value in (("_section", section), ("_codec", codec), ("_offset", offset)):
            object.__setattr__(self, name, value)

    def _read(self) -> bytes:
        return self._section._read(self._offset, self._codec.size)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__} cannot be copied or pickled; its .copy() can")

    def __repr__(self) -> str:
        kind = type(self).__name__
        try:
            return f"<{kind} {self.copy()!r}>"
        except Error:
            return f"<{kind} {self._codec.type}, closed>"

    def copy(self) -> Any:
        return self._codec.unpack(self._read(), 0)

    # what changes by itself has no hash
    __hash__ = None  # type: ignore[assignment]


class StructView(_View):
    """A struct or union among an object's variables, in place.

    Members are attributes, those of anonymous members included; a struct or array within is a view
    again.  Setting a member checks what it can hold and writes no byte beside it; of a bitfield,
    the bytes that hold it are read and written, which is no single step for programs that write to
    them at the same time.  Members named like a method of the view (asdict, copy) are items:
    ``view["copy"]``.

    Equal to a dict, a Struct or another view with the same values.  AttributeError with the nearest
    name for an unknown member, OverflowError and LayoutError for a value that does not fit,
    StateError for writing .rodata after load(), ClosedError after close().
    """

    __slots__ = ()
    _codec: _CompositeCodec

    def copy(self) -> Struct:
        """The values as they are now, as a Struct of its own."""
        value: Struct = super().copy()
        return value

    def asdict(self) -> dict[str, Any]:
        """The members by name as plain values, with dicts for structs and lists for arrays."""
        return self._codec.plain(self._read(), 0)

    def __getitem__(self, name: str) -> Any:
        """The member of that name; NotFoundError, a KeyError, where there is none."""
        return self._get(self._named(name))

    def __setitem__(self, name: str, value: Any) -> None:
        self._set(self._named(name), value)

    def _named(self, name: str) -> _Slot:
        slots = self._codec.slots
        if name not in slots:
            raise NotFoundError(f"member of {self._codec.type}", name, slots)
        return slots[name]

    __iter__ = None  # or Python would try the members 0, 1, 2 ...

    def __getattr__(self, name: str) -> Any:
        slot = self._codec.slots.get(name)
        if slot is None:
            raise AttributeError(self._codec.unknown_member(name))
        return self._get(slot)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN_NAMES:
            raise AttributeError(f"StructView.{name} is no member; for one, use view[{name!r}]")
        slot = self._codec.slots.get(name)
        if slot is None:
            raise AttributeError(self._codec.unknown_member(name))
        self._set(slot, value)

    def _get(self, slot: _Slot) -> Any:
        offset = self._offset + slot.offset
        if isinstance(slot, _BitSlot):
            return slot.plain(self._section._read(offset, slot.size), -slot.offset)
        return value_at(self._section, slot.codec, offset)

    def _set(self, slot: _Slot, value: Any) -> None:
        offset = self._offset + slot.offset
        try:
            if isinstance(slot, _BitSlot):
                self._section._modify(
                    offset, slot.size, lambda old: slot.merged(old, _detached(value))
                )
            else:
                self._section._write(offset, packed(slot.codec, value))
        except (OverflowError, LayoutError) as error:
            raise told(error, f"{self._codec.type} member {slot.name!r}") from None

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._codec.slots})

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StructView) and other._codec is self._codec:
            return self.asdict() == other.asdict()
        if isinstance(other, self._codec.ctype):
            return bool(self.copy() == other)
        return self.asdict() == other if isinstance(other, dict) else NotImplemented


_OWN_NAMES = frozenset(dir(StructView))


class ArrayView(_View, Sequence["Any"]):
    """An array among an object's variables, in place: a sequence whose length is fixed.

    Elements that are structs or arrays are views again; so are those of a slice, which is a list.
    Iterating over numbers reads all of them at once.  Assigning to an element or a slice checks
    what it can hold and writes no byte beside it.

    Equal to a list, a tuple or another view with equal elements.  IndexError, OverflowError and
    LayoutError for what does not fit, StateError for writing .rodata after load(), ClosedError
    after close().
    """

    __slots__ = ()
    _codec: _ArrayCodec

    def copy(self) -> list[Any]:
        """The elements as they are now, with a Struct of its own for each struct."""
        elements: list[Any] = super().copy()
        return elements

    def __len__(self) -> int:
        return self._codec.nelems

    def __getitem__(self, where: Any) -> Any:
        if isinstance(where, slice):
            return self._elements(range(self._codec.nelems)[where])
        element = self._codec.element
        return value_at(self._section, element, self._place(where))

    def __setitem__(self, where: Any, value: Any) -> None:
        if isinstance(where, slice):
            self._assign_slice(range(self._codec.nelems)[where], list(value))
            return
        self._section._write(self._place(where), self._packed(where, value))

    def _assign_slice(self, positions: range, values: list[Any]) -> None:
        if len(values) != len(positions):
            raise LayoutError(f"{len(values)} values for {len(positions)} elements")
        data = list(map(self._packed, positions, values))
        for position, one in zip(positions, data, strict=True):
            self._section._write(self._place(position), one)

    def _packed(self, position: int, value: Any) -> bytes:
        try:
            return packed(self._codec.element, value)
        except (OverflowError, LayoutError) as error:
            raise told(error, f"{self._codec.type} element {position}") from None

    def _place(self, position: Any) -> int:
        """The offset of an element within the section."""
        count = self._codec.nelems
        number = index(position)
        if not -count <= number < count:
            raise IndexError(f"{self._codec.type} has no element {number}")
        return self._offset + number % count * self._codec.element.size

    def _elements(self, positions: range) -> list[Any]:
        element, size = self._codec.element, self._codec.element.size
        if not positions or isinstance(element, _AGGREGATES):
            return [self[position] for position in positions]
        first, last = sorted((positions[0], positions[-1]))
        data = self._section._read(self._offset + first * size, (last + 1 - first) * size)
        letter = number_format(element)
        if letter:
            values = memoryview(data).cast(letter).tolist()
            return [values[position - first] for position in positions]
        return [element.unpack(data, (position - first) * size) for position in positions]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._elements(range(self._codec.nelems)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, list | tuple | ArrayView | Array):
            return NotImplemented
        return len(self) == len(other) and all(map(eq, self, other))


def value_at(section: Section, codec: _Codec, offset: int) -> Any:
    """What is at that offset of the section: a view of structs and arrays, the value of others."""
    if not isinstance(codec, _AGGREGATES):
        return codec.unpack(section._read(offset, codec.size), 0)
    if section._owner.closed:
        raise ClosedError(f"object {section._owner.name!r} is closed")
    view = StructView if isinstance(codec, _CompositeCodec) else ArrayView
    return view(section, codec, offset)


def packed(codec: _Codec, value: Any) -> bytes:
    """The bytes of ``value``, which may be a view or hold views."""
    return codec.pack(_detached(value))


def told(error: OverflowError | LayoutError, what: str) -> OverflowError | LayoutError:
    """The error of a value that does not fit, with ``what`` it is for."""
    return type(error)(f"{what}: {error}")


def _detached(value: Any) -> Any:
    """``value`` as codecs take it: copies for views."""
    if isinstance(value, _View):
        return value.copy()
    if isinstance(value, list):
        return list(map(_detached, value))
    if isinstance(value, tuple):
        return tuple(map(_detached, value))
    if isinstance(value, dict):
        return {name: _detached(member) for name, member in value.items()}
    return value


def number_format(codec: _Codec) -> Format | None:
    """The memoryview format of a plain number in the machine's own byte order, None for others."""
    if not isinstance(codec, _IntCodec) or codec.order != sys.byteorder:
        return None
    if isinstance(codec.type, Enum) or (isinstance(codec.type, Int) and codec.type.is_bool):
        return None
    return _FORMATS.get((codec.size, codec.signed))
