# SPDX-License-Identifier: BSD-2-Clause
"""Random C types: drawn by hypothesis, spelled in C, with values in Python and in C.

A value is what pybpf decodes it to: an int, bool or float, str or bytes for an array of ``char``, a
list for other arrays, a dict for a struct or union, whose anonymous members' members are its own.
A dict leaves at zero what it does not name.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from textwrap import indent
from typing import Any, TypeAlias

from hypothesis import strategies as st

PRELUDE = """
#define PACKED __attribute__((packed))
#define ALIGNED(bytes) __attribute__((aligned(bytes)))
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define LITTLE(bits, value) (value)
#define BIG(bits, value) __builtin_bswap##bits(value)
#else
#define LITTLE(bits, value) __builtin_bswap##bits(value)
#define BIG(bits, value) (value)
#endif
typedef unsigned char u8;
typedef unsigned long long u64;
typedef const volatile unsigned int u32;
typedef unsigned short __be16;
typedef unsigned int __be32, __le32;
typedef unsigned long long __be64;
typedef unsigned __int128 u128;
typedef void *pointer;
typedef struct opaque *opaque;
typedef int (*const function)(struct opaque *, ...);
enum plain { PLAIN = 9 };
enum negative { NEGATIVE = -3, POSITIVE = 7 };
enum wide { WIDE = 0xffffffffffffffff };
enum wide_negative { WIDE_NEGATIVE = -2, WIDE_POSITIVE = 1LL << 40 };
enum PACKED byte { BYTE = 200 };
enum PACKED negative_byte { NEGATIVE_BYTE = -100 };
enum PACKED negative_word { NEGATIVE_WORD = -300 };
"""


@dataclass(frozen=True)
class Scalar:
    """An integer, ``_Bool``, enum, pointer or, by ``is_float``, a floating-point number."""

    c: str
    bits: int
    signed: bool = False
    is_float: bool = False
    in_order: str = (
        ""  # the macro that orders the bytes of a literal, if the type has its own order
    )
    in_bitfields: bool = True

    def range(self, bits: int | None) -> tuple[int, int]:
        """The lowest and the highest value of all bits or of a bitfield of ``bits``."""
        bits = bits or self.bits
        return (-1 << bits - 1, (1 << bits - 1) - 1) if self.signed else (0, (1 << bits) - 1)


@dataclass(frozen=True)
class Array:
    element: Type
    length: int | None  # None: flexible


@dataclass(frozen=True)
class Member:
    """``bits`` is the width of a bitfield; what has no ``name`` is padding or anonymous."""

    type: Type
    name: str
    bits: int | None
    attributes: str


@dataclass(frozen=True)
class Composite:
    keyword: str
    members: tuple[Member, ...]
    attributes: str


Type: TypeAlias = Scalar | Array | Composite

CHAR = Scalar("char", 8, signed=True)
BOOL = Scalar("_Bool", 1)
LONG_DOUBLE = Scalar("long double", 64, is_float=True, in_bitfields=False)
SCALARS = [
    Scalar("int", 32, signed=True),
    Scalar("u8", 8),
    Scalar("unsigned short", 16),
    Scalar("u32", 32),
    Scalar("u64", 64),
    BOOL,
    CHAR,
    Scalar("signed char", 8, signed=True),
    Scalar("short", 16, signed=True),
    Scalar("long", 64, signed=True),
    Scalar("__int128", 128, signed=True),
    Scalar("u128", 128),
    Scalar("enum plain", 32),
    Scalar("enum negative", 32, signed=True),
    Scalar("enum wide", 64),
    Scalar("enum wide_negative", 64, signed=True),
    Scalar("enum byte", 8),
    Scalar("enum negative_byte", 8, signed=True),
    Scalar("enum negative_word", 16, signed=True),
    Scalar("pointer", 64, in_bitfields=False),
    Scalar("opaque", 64, in_bitfields=False),
    Scalar("function", 64, in_bitfields=False),
    Scalar("float", 32, is_float=True, in_bitfields=False),
    Scalar("double", 64, is_float=True, in_bitfields=False),
    LONG_DOUBLE,
    Scalar("__be16", 16, in_order="BIG", in_bitfields=False),
    Scalar("__be32", 32, in_order="BIG", in_bitfields=False),
    Scalar("__be64", 64, in_order="BIG", in_bitfields=False),
    Scalar("__le32", 32, in_order="LITTLE", in_bitfields=False),
]

_scalars = st.sampled_from(SCALARS)
_bases = st.sampled_from([scalar for scalar in SCALARS if scalar.in_bitfields])
_lengths = st.sampled_from([2, 1, 3, 9, 0])
_few = st.sampled_from([2, 1, 0])
_alignments = [f"ALIGNED({number})" for number in (2, 4, 8, 16, 32)]
# Most have none: one attribute in a struct of six members changes enough.
_member_attributes = st.sampled_from(["", "", "", "", "", "", "PACKED", *_alignments])
_struct_attributes = st.sampled_from(
    ["", "", "", "PACKED", *_alignments, "PACKED " + _alignments[1]]
)


_MEMBER_KINDS = ["plain"] * 5 + ["bitfield"] * 5 + ["anonymous"] * 2 + ["padding"]


@st.composite
def _types(draw: st.DrawFn, depth: int, prefix: str) -> Type:
    """A type of up to ``depth`` structs within each other; their members' names start so."""
    made: Type = draw(_scalars)
    lengths = _lengths
    if depth and draw(st.integers(0, 3)) == 3:
        made = draw(composites(depth - 1, prefix + "_"))
        lengths = _few  # all elements are looked at one by one
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2, 3]))):
        made = Array(made, draw(lengths))
    return made


@st.composite
def _members(draw: st.DrawFn, depth: int, name: str) -> Member:
    kind = draw(st.sampled_from(_MEMBER_KINDS))
    attributes = draw(_member_attributes)
    if kind in ("bitfield", "padding"):
        base = draw(_bases)
        bits = draw(st.integers(0 if kind == "padding" else 1, base.bits))
        return Member(base, name if kind == "bitfield" else "", bits, attributes)
    if kind == "anonymous" and depth:
        return Member(draw(composites(depth - 1, name + "_")), "", None, "")
    return Member(draw(_types(depth, name)), name, None, attributes)


@st.composite
def composites(draw: st.DrawFn, depth: int = 2, prefix: str = "m") -> Composite:
    """A struct or union whose members hold up to ``depth`` others within each other."""
    keyword = draw(st.sampled_from(["struct", "struct", "struct", "union"]))
    count = draw(st.integers(0, 7))
    members = [draw(_members(depth, f"{prefix}{number}")) for number in range(count)]
    may_be_flexible = keyword == "struct" and prefix == "m" and any(m.name for m in members)
    if may_be_flexible and draw(st.integers(0, 7)) == 7:
        flexible = Array(draw(_types(0, "")), None)
        members.append(Member(flexible, f"{prefix}{count}", None, ""))
    return Composite(keyword, tuple(members), draw(_struct_attributes))


# ---- in C ----------------------------------------------------------------------------------------


def definition(composite: Composite, tag: str = "") -> str:
    """``composite`` as C defines it, without the semicolon."""
    members = "".join(f"{_declaration(member)};\n" for member in composite.members)
    head = f"{composite.keyword} {tag}".rstrip()
    return f"{head} {{\n{indent(members, '    ')}}} {composite.attributes}".rstrip()


def _declaration(member: Member) -> str:
    base, suffix = member.type, ""
    while isinstance(base, Array):
        suffix += f"[{'' if base.length is None else base.length}]"
        base = base.element
    if member.bits is not None:
        suffix = f" : {member.bits}"
    spelled = base.c if isinstance(base, Scalar) else definition(base)
    return f"{spelled} {member.name}{suffix} {member.attributes}".rstrip()


def initialiser(type: Type, value: Any) -> str:
    """``value`` as a C constant of ``type``."""
    if isinstance(type, Scalar):
        return _literal(type, value)
    if isinstance(type, Array):
        elements = value.encode() if isinstance(value, str) else value
        return "{" + ", ".join(initialiser(type.element, element) for element in elements) + "}"
    types = {member.name: member.type for member in named_members(type)}
    return "{" + ", ".join(f".{n} = {initialiser(types[n], v)}" for n, v in value.items()) + "}"


def _literal(type: Scalar, value: Any) -> str:
    if type.is_float:
        if value != value:
            suffix, digits = ("f", 0x7FFFFF) if type.bits == 32 else ("", 0xFFFFFFFFFFFFF)
            return f'-__builtin_nan{suffix}("{digits:#x}")'
        return "__builtin_inf()" if value == float("inf") else value.hex()
    low, high = value & (1 << 64) - 1, value >> 64 & (1 << 64) - 1
    if type.bits > 64:
        return f"((u128)0x{high:x}ULL << 64 | 0x{low:x}ULL)"
    number = f"0x{low:x}ULL"
    if type.in_order:
        number = f"{type.in_order}({type.bits}, {number})"
    return f"({type.c}){number}"


# ---- members and values --------------------------------------------------------------------------


def named_members(composite: Composite) -> Iterator[Member]:
    """The members that have a name, those of anonymous members in place of these."""
    for member in composite.members:
        if member.name:
            yield member
        elif isinstance(member.type, Composite):
            yield from named_members(member.type)


def random_value(type: Type, random: Random, bits: int | None = None) -> Any:
    """A value of ``type``; of each union only one member has one."""
    if isinstance(type, Scalar):
        if type.is_float:
            return random.choice([0.0, -1.5, 1e10, float("inf"), random.randrange(1 << 20) / 8])
        low, high = type.range(bits)
        number = random.choice([low, high, random.randint(low, high)])
        return bool(number) if type is BOOL else number
    if isinstance(type, Array):
        length = type.length or 0
        if type.element is CHAR:
            return "".join(random.choices("abc xyz", k=random.randint(0, length)))
        return [random_value(type.element, random) for _ in range(length)]
    value: dict[str, Any] = {}
    members = [member for member in type.members if _holds_names(member)]
    if type.keyword == "union" and members:
        members = [random.choice(members)]
    for member in members:
        if member.name:
            value[member.name] = random_value(member.type, random, member.bits)
        else:
            value |= random_value(member.type, random)
    return value


def _holds_names(member: Member) -> bool:
    return bool(member.name) or isinstance(member.type, Composite)


def lone_members(composite: Composite) -> Iterator[dict[str, Any]]:
    """For each member, nested ones too, a value with all its bits set and nothing else."""
    return _each_member(composite, _ones)


def refused_values(composite: Composite) -> Iterator[dict[str, Any]]:
    """Values of which one member, nested ones too, does not fit."""
    return _each_member(composite, _refused)


Leaf: TypeAlias = Callable[[Type, "int | None"], "list[Any]"]


def _each_member(composite: Composite, leaf: Leaf) -> Iterator[dict[str, Any]]:
    for member in named_members(composite):
        for value in _each_leaf(member.type, member.bits, leaf):
            yield {member.name: value}


def _each_leaf(type: Type, bits: int | None, leaf: Leaf) -> Iterator[Any]:
    if isinstance(type, Composite):
        yield from _each_member(type, leaf)
    elif isinstance(type, Array) and not _is_of_scalars(type):
        length = type.length or 0
        for here in range(length):
            for value in _each_leaf(type.element, None, leaf):
                yield [value if n == here else _zero(type.element) for n in range(length)]
    else:
        yield from leaf(type, bits)


def _is_of_scalars(type: Type) -> bool:
    return isinstance(type, Scalar) or (isinstance(type, Array) and _is_of_scalars(type.element))


def _zero(type: Type) -> Any:
    if isinstance(type, Array):
        return "" if type.element is CHAR else [_zero(type.element)] * (type.length or 0)
    return {} if isinstance(type, Composite) else 0


def _ones(type: Type, bits: int | None) -> list[Any]:
    if isinstance(type, Array):
        length = type.length or 0
        if type.element is CHAR:
            return [b"\xff" * length]
        return [_ones(type.element, None) * length]
    assert isinstance(type, Scalar)
    if type.is_float:
        return [*struct.unpack("f" if type.bits == 32 else "d", b"\xff" * (type.bits // 8))]
    if type is BOOL:
        return [True]
    return [-1 if type.signed else type.range(bits)[1]]


def _refused(type: Type, bits: int | None) -> list[Any]:
    if isinstance(type, Array):
        length = type.length or 0
        if type.element is CHAR:
            return ["x" * (length + 1), b"x" * (length + 1), 0]
        zeros = [_zero(type.element)] * (length + 1)
        inner = _refused(type.element, None) if length else []
        return [zeros, 0, *([*zeros[2:], value] for value in inner)]
    assert isinstance(type, Scalar)
    if type.is_float:
        return [10**400, "1.5", None]
    low, high = type.range(bits)
    return [low - 1, high + 1, 1 << 200, 1.5, None]
