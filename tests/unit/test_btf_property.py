# SPDX-License-Identifier: BSD-2-Clause
"""Random BTF, also such as no compiler writes, is read and written as a small model of it says.

The model is arithmetic: memory is one number, in the byte order of the BTF, of which each member
has some bits.  Bitfields may start at any bit, as members whose offset tells their size and as
integers of few bits (BTF before 2018); integers may have 3 or 12 bytes, floats 2 or 10.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

import pytest
from btf_sources import info, raw_btf
from hypothesis import given, settings
from hypothesis import strategies as st
from pybpf.btf import Btf, Kind
from pybpf.errors import LayoutError
from pybpf.layout import Chars, Struct, decode, encode

Order = Literal["little", "big"]

properties = settings(
    max_examples=100 * int(os.environ.get("PYBPF_EXAMPLES", 5)),
    derandomize=True,
    database=None,
    deadline=None,
)


class Writer:
    """The words of types and their names."""

    def __init__(self) -> None:
        self.types: list[tuple[int, ...]] = []
        self.strings = b"\0"

    def name(self, text: str) -> int:
        self.strings += text.encode() + b"\0"
        return len(self.strings) - len(text) - 1

    def add(self, *words: int) -> int:
        """The id of a new type."""
        self.types.append(words)
        return len(self.types)


@dataclass(frozen=True)
class Integer:
    """An integer, bool, enum or pointer."""

    kind: Kind
    size: int
    signed: bool
    is_bool: bool = False

    def write(self, writer: Writer, bits: int | None = None, first_bit: int = 0) -> int:
        """``bits`` from ``first_bit`` on are those of an old bitfield."""
        if self.kind is Kind.PTR:
            return writer.add(0, info(Kind.PTR), 0)
        if self.kind is not Kind.INT:
            return writer.add(writer.name("e"), info(self.kind, 0, self.signed), self.size)
        encoding = self.signed | 4 * self.is_bool
        shape = encoding << 24 | first_bit << 16 | (bits or 8 * self.size)
        return writer.add(writer.name("int"), info(Kind.INT), self.size, shape)

    def range(self, bits: int | None) -> tuple[int, int]:
        width = 1 if self.is_bool else bits or 8 * self.size
        return (-1 << width - 1 if self.signed else 0), (1 << width - self.signed) - 1

    def value(self, random: Random, bits: int | None = None) -> int:
        low, high = self.range(bits)
        value = random.choice([low, high, random.randint(low, high)])
        return bool(value) if self.is_bool else value

    def number(self, value: int, order: Order, bits: int | None = None) -> int:
        return value & self.mask(order, bits)

    def mask(self, order: Order, bits: int | None = None) -> int:
        return (1 << (bits or 8 * self.size)) - 1


@dataclass(frozen=True)
class Real:
    """A float; those of neither 4 nor 8 bytes have bytes as values."""

    size: int

    def write(self, writer: Writer) -> int:
        return writer.add(writer.name("float"), info(Kind.FLOAT), self.size)

    def value(self, random: Random) -> float | bytes:
        if self.size in (4, 8):
            return random.choice([-1.5, 0.0, random.randrange(1 << 20) / 16])
        return random.randbytes(self.size)

    def number(self, value: Any, order: Order) -> int:
        if isinstance(value, bytes):
            return int.from_bytes(value, order)
        return int.from_bytes(struct.pack({4: "<f", 8: "<d"}[self.size], value), "little")

    def mask(self, order: Order) -> int:
        return (1 << 8 * self.size) - 1


@dataclass(frozen=True)
class Text:
    """An array of ``char``."""

    size: int

    def write(self, writer: Writer) -> int:
        char = writer.add(writer.name("char"), info(Kind.INT), 1, 1 << 24 | 8)
        return writer.add(0, info(Kind.ARRAY), 0, char, char, self.size)

    def value(self, random: Random) -> Chars:
        return Chars(bytes(random.choices(b"abc", k=random.randint(0, self.size))))

    def number(self, value: Chars, order: Order) -> int:
        return int.from_bytes(value.ljust(self.size, b"\0"), order)

    def mask(self, order: Order) -> int:
        return (1 << 8 * self.size) - 1


@dataclass(frozen=True)
class Array:
    element: Any
    nelems: int

    @property
    def size(self) -> int:
        return self.element.size * self.nelems

    def write(self, writer: Writer) -> int:
        element = self.element.write(writer)
        return writer.add(0, info(Kind.ARRAY), 0, element, element, self.nelems)

    def value(self, random: Random) -> list[Any]:
        return [self.element.value(random) for _ in range(self.nelems)]

    def number(self, value: list[Any], order: Order) -> int:
        return self._joined([self.element.number(part, order) for part in value], order)

    def mask(self, order: Order) -> int:
        return self._joined([self.element.mask(order)] * self.nelems, order)

    def _joined(self, numbers: list[int], order: Order) -> int:
        if order == "big":
            numbers = numbers[::-1]
        return sum(number << 8 * self.element.size * n for n, number in enumerate(numbers))


@dataclass(frozen=True)
class Member:
    """``bits`` is the width of a bitfield; ``inner`` how many bits of an old one its type skips."""

    name: str
    type: Any
    bit_offset: int
    bits: int | None
    inner: int = 0

    @property
    def width(self) -> int:
        return self.bits or 8 * self.type.size

    @property
    def options(self) -> dict[str, int]:
        return {} if self.bits is None else {"bits": self.bits}


@dataclass(frozen=True)
class Record:
    """A struct or union; ``is_flagged`` if the offsets of its members tell the widths too."""

    kind: Kind
    is_flagged: bool
    members: tuple[Member, ...]
    size: int

    def write(self, writer: Writer) -> int:
        words: list[int] = []
        for member in self.members:
            offset, options = member.bit_offset, {}
            if self.is_flagged:
                offset |= (member.bits or 0) << 24
            elif member.bits is not None:
                offset -= member.inner
                options = {"bits": member.bits, "first_bit": member.inner}
            words += [writer.name(member.name), member.type.write(writer, **options), offset]
        vlen = len(self.members)
        name = writer.name("record")
        return writer.add(name, info(self.kind, vlen, self.is_flagged), self.size, *words)

    def value(self, random: Random) -> dict[str, Any]:
        members = self.members
        if self.kind is Kind.UNION and members:
            members = (random.choice(members),)
        return {m.name: m.type.value(random, **m.options) for m in members}

    def number(self, value: dict[str, Any], order: Order) -> int:
        number = 0
        for m in self.members:
            if m.name in value:
                part: int = m.type.number(value[m.name], order, **m.options)
                number |= part << self._shift(m, order)
        return number

    def mask(self, order: Order) -> int:
        mask = 0
        for m in self.members:
            mask |= m.type.mask(order, **m.options) << self._shift(m, order)
        return mask

    def _shift(self, member: Member, order: Order) -> int:
        if order == "little":
            return member.bit_offset
        return 8 * self.size - member.bit_offset - member.width


_sizes = st.sampled_from([1, 2, 4, 8, 16, 3, 12])
_integers = st.one_of(
    st.builds(Integer, st.just(Kind.INT), _sizes, st.booleans()),
    st.builds(Integer, st.just(Kind.ENUM), st.sampled_from([4, 1, 2]), st.booleans()),
    st.just(Integer(Kind.INT, 1, signed=False, is_bool=True)),
    st.builds(Integer, st.just(Kind.ENUM64), st.just(8), st.booleans()),
)
# The type of an old bitfield is an integer.
_bases = st.builds(Integer, st.just(Kind.INT), _sizes, st.booleans())
_types = st.deferred(
    lambda: st.one_of(
        _integers,
        st.just(Integer(Kind.PTR, 8, signed=False)),
        st.builds(Real, st.sampled_from([4, 8, 2, 10, 16])),
        st.builds(Text, st.integers(0, 9)),
        st.builds(Array, _types, st.integers(0, 3)),
        records(),
    )
)


@st.composite
def records(draw: st.DrawFn) -> Record:
    kind = draw(st.sampled_from([Kind.STRUCT, Kind.STRUCT, Kind.UNION]))
    is_flagged = draw(st.booleans())
    members: list[Member] = []
    end = 0  # in bits
    for number in range(draw(st.integers(0, 5))):
        start = 0 if kind is Kind.UNION else end
        if draw(st.booleans()):
            base = draw(_integers if is_flagged else _bases)
            width = 1 if base.is_bool else 8 * base.size
            # without the flag one of all bits is no bitfield
            bits = draw(st.integers(1, width if is_flagged else width - 1))
            start += draw(st.integers(0, 9))
            inner = 0 if is_flagged else draw(st.integers(0, min(start, width - bits)))
            members.append(Member(f"m{number}", base, start, bits, inner))
        else:
            gap = 0 if kind is Kind.UNION else draw(st.integers(0, 3))
            start = (start + 7) // 8 * 8 + 8 * gap
            members.append(Member(f"m{number}", draw(_types), start, None))
        end = max(end, start + members[-1].width)
    return Record(kind, is_flagged, tuple(members), (end + 7) // 8 + draw(st.integers(0, 4)))


@properties
@given(_types, st.sampled_from(["little", "big"]), st.integers(0, 1 << 32))
def test_values_are_those_of_the_model(type: Any, order: Order, seed: int) -> None:
    writer, random = Writer(), Random(seed)
    type_id = type.write(writer)
    btf_type = Btf(raw_btf(writer.types, writer.strings, order))[type_id]
    assert btf_type.size == type.size

    value = type.value(random)
    memory = type.number(value, order).to_bytes(type.size, order)
    assert encode(btf_type, value) == memory
    read = decode(btf_type, memory)
    assert_holds(read, value)
    assert encode(btf_type, read) == memory

    garbage = random.randbytes(type.size)
    if isinstance(type, Record):
        used = int.from_bytes(garbage, order) & type.mask(order)
        assert encode(btf_type, decode(btf_type, garbage)) == used.to_bytes(type.size, order)
        check_refusals(btf_type, type)
    for wrong in (garbage + b"x", garbage[:-1]):
        if len(wrong) != type.size and not isinstance(type, Text):
            with pytest.raises(LayoutError):
                encode(btf_type, wrong)
    if garbage:
        with pytest.raises(LayoutError):
            decode(btf_type, garbage[:-1])


def check_refusals(btf_type: Any, record: Record) -> None:
    for member in record.members:
        if isinstance(member.type, Integer):
            low, high = member.type.range(member.bits)
            for value in (low - 1, high + 1):
                with pytest.raises(OverflowError):
                    encode(btf_type, {member.name: value})
            for value in (low, high):
                read = decode(btf_type, encode(btf_type, {member.name: value}))
                assert read.asdict()[member.name] == value


def assert_holds(found: Any, value: Any) -> None:
    """``found`` may have more members of unions than ``value``."""
    if isinstance(found, Struct):
        found = found.asdict()
    if isinstance(value, dict):
        for name, part in value.items():
            assert_holds(found[name], part)
    elif isinstance(value, list):
        for element, part in zip(found, value, strict=True):
            assert_holds(element, part)
    else:
        if isinstance(found, str):  # as asdict() has it
            found = Chars(found.encode())
        assert type(found) is type(value)
        assert found == value
