# SPDX-License-Identifier: BSD-2-Clause
"""Layouts against the bytes that clang itself emits, against the kernel's BTF, and misuse."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from btf_sources import compile_bpf, info, raw_btf
from pybpf.btf import Btf, Composite, Enum, Float, Int, Kind, Member, Var
from pybpf.errors import LayoutError, ObjectFormatError
from pybpf.layout import Chars, Struct, ctype, decode, encode

KERNEL = Path("/sys/kernel/btf/vmlinux")

SOURCE = """
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef u16 __be16;
typedef u32 __be32;
typedef u64 __be64;
typedef u32 __le32;
enum color { RED, GREEN = 5, BLUE = -3 };
enum wide { LOW = -2, HIGH = 0x7fffffffffffffff };
enum small { TINY = 200 } __attribute__((packed));

int number = -5;
const volatile u64 big = 0xfedcba9876543210;
_Bool yes = 1;
double real = 1.5;
float half = 0.5f;
char text[8] = "bash";
u8 mac[6] = {1, 2, 3, 4, 5, 255};
enum color color = BLUE;
enum wide wide = LOW;
enum small small = TINY;
void *pointer = (void *)0x123456789;
__int128 huge = -7;
unsigned __int128 huges[2] = {1, (unsigned __int128)3 << 100};
char names[2][4] = {"ab", "cdef"};
short grid[2][3] = {{1, 2, 3}, {-4, 5, 6}};

struct padded { u8 a; u32 b; u16 c; } padded = {1, 2, 3};
struct packed { u8 a; u32 b; struct padded c; u16 d; } __attribute__((packed))
    packed = {1, 2, {3, 4, 5}, 6};
struct aligned { u8 a __attribute__((aligned(16))); u8 b; } __attribute__((aligned(64)))
    aligned = {1, 2};
struct network { __be16 port; __be32 address; __be64 id; __le32 little; __be16 ports[2]; }
    network = {0x1122, 0x11223344, 0x1122334455667788, 5, {1, 2}};
struct bits {
    u32 a : 3; u32 : 4; int b : 6; u64 c : 40; _Bool d : 1; enum color e : 4;
    u8 f; u16 g : 9, h : 7;
} bits = {5, -17, 0xabcdef0123, 1, BLUE, 77, 300, 99};
struct packed_bits { u8 a : 3; u64 b : 61; u32 c : 11; u8 d; } __attribute__((packed))
    packed_bits = {5, 0x1234567890abcdef, 1029, 9};
struct anonymous {
    u8 kind;
    union {
        struct { u16 x; u8 y : 3, z : 5; };
        u32 word;
        struct { u8 p; union { u64 deep; u32 halves[2]; }; } named;
    };
    int last;
} anonymous = {1, {{0x1234, 5, 17}}, -9};
union number_union { u8 byte; u32 word; char text[11]; } number_union = {.text = "0123456789"};
struct empty {};
struct with_empty { struct empty none; u8 a; } with_empty = {{}, 3};
struct flexible { u32 length; u8 data[]; } flexible = {7};
struct nested {
    struct padded pairs[2];
    char name[8];
    struct nested *next;
    int (*call)(void);
    __int128 huge;
    double real;
    _Bool flag;
} nested = {{{1, 2, 3}, {4, 5, 6}}, "inner", (void *)16, 0, -1, 2.5, 1};
struct opaque;
struct opaque *opaque;
void function(void) {}
"""

VALUES: dict[str, Any] = {
    "number": -5,
    "big": 0xFEDCBA9876543210,
    "yes": True,
    "real": 1.5,
    "half": 0.5,
    "text": b"bash",
    "mac": [1, 2, 3, 4, 5, 255],
    "color": -3,
    "wide": -2,
    "small": 200,
    "pointer": 0x123456789,
    "huge": -7,
    "huges": [1, 3 << 100],
    "names": [b"ab", b"cdef"],
    "grid": [[1, 2, 3], [-4, 5, 6]],
    "padded": {"a": 1, "b": 2, "c": 3},
    "packed": {"a": 1, "b": 2, "c": {"a": 3, "b": 4, "c": 5}, "d": 6},
    "aligned": {"a": 1, "b": 2},
    "bits": {"a": 5, "b": -17, "c": 0xABCDEF0123, "d": True, "e": -3, "f": 77, "g": 300, "h": 99},
    "packed_bits": {"a": 5, "b": 0x1234567890ABCDEF, "c": 1029, "d": 9},
    "with_empty": {"none": {}, "a": 3},
    "flexible": {"length": 7, "data": []},
    "nested": {
        "pairs": [{"a": 1, "b": 2, "c": 3}, {"a": 4, "b": 5, "c": 6}],
        "name": "inner",
        "next": 16,
        "call": 0,
        "huge": -1,
        "real": 2.5,
        "flag": True,
    },
}


class Sample:
    """The compiled source: the type and the bytes of each of its variables."""

    def __init__(self, byteorder: str) -> None:
        self.compiled = compile_bpf(SOURCE, byteorder)
        self.btf = Btf(self.compiled.btf)

    def type(self, variable: str) -> Any:
        var = self.btf.find(variable, Kind.VAR)
        assert isinstance(var, Var)
        return var.type

    def decoded(self, variable: str) -> Any:
        return decode(self.type(variable), self.compiled.variables[variable])


@pytest.fixture(scope="module", params=["little", "big"])
def sample(request: pytest.FixtureRequest) -> Sample:
    return Sample(request.param)


@pytest.mark.parametrize("variable", VALUES)
def test_values_are_those_that_the_compiler_wrote(sample: Sample, variable: str) -> None:
    btf_type, data, expected = (
        sample.type(variable),
        sample.compiled.variables[variable],
        VALUES[variable],
    )
    value = decode(btf_type, memoryview(data))
    plain = value.asdict() if isinstance(value, Struct) else value
    assert plain == expected
    assert isinstance(plain, type(expected))
    assert encode(btf_type, expected) == data
    assert encode(btf_type, value) == data
    assert encode(btf_type, data) == data
    assert ctypes.sizeof(ctype(btf_type)) == len(data) == btf_type.size


def test_byte_order_of_typedefs(sample: Sample) -> None:
    network = sample.decoded("network")
    data = bytes(network)
    # The compiler wrote the members in the program's order, the typedefs say how to read them.
    assert network.port == int.from_bytes(data[:2], "big")
    assert network.little == int.from_bytes(data[16:20], "little")
    made = ctype(sample.type("network"))(port=1, address=2, id=3, little=4, ports=[5, 6])
    assert bytes(made) == bytes.fromhex(
        "0001 0000 00000002 0000000000000003 04000000 0005 0006".replace(" ", "")
    )
    assert made.asdict() == {"port": 1, "address": 2, "id": 3, "little": 4, "ports": [5, 6]}
    assert (made.port, made.little, list(made.ports)) == (1, 4, [5, 6])


def test_anonymous_members_are_the_struct_s_own(sample: Sample) -> None:
    value = sample.decoded("anonymous")
    assert (value.kind, value.x, value.y, value.z, value.last) == (1, 0x1234, 5, 17, -9)
    value.z, value.x = 3, 0x4321
    assert (value.kind, value.x, value.y, value.z, value.last) == (1, 0x4321, 5, 3, -9)
    assert value.word.to_bytes(4, sample.btf.byteorder)[:2] == value.x.to_bytes(
        2, sample.btf.byteorder
    )
    value.named.deep = 5 << 32 | 6
    assert sorted(value.named.halves) == [5, 6]
    assert ctype(sample.type("anonymous"))(kind=1, x=2, z=31).z == 31


def test_union(sample: Sample) -> None:
    union_type = sample.type("number_union")
    value = sample.decoded("number_union")
    assert value.text == b"0123456789"
    assert value.byte == ord("0")
    assert value.asdict()["text"] == "0123456789"
    assert encode(union_type, {"text": "0123456789"}) == bytes(value)
    assert encode(union_type, (7,)) == b"\7" + bytes(11)
    with pytest.raises(LayoutError, match=r"takes 1 values \(byte\), 2 are given"):
        encode(union_type, (7, 8))


def test_construction_refuses_what_does_not_fit(sample: Sample) -> None:
    padded = ctype(sample.type("padded"))
    bits = ctype(sample.type("bits"))
    assert padded(a=1) == padded(a=1, b=0, c=0)
    with pytest.raises(
        LayoutError, match="struct nested has no member 'nmae'; did you mean 'name'"
    ):
        ctype(sample.type("nested"))(nmae="x")
    with pytest.raises(LayoutError, match="it has a, b, c"):
        padded(unlike=1)
    with pytest.raises(OverflowError, match="256 does not fit unsigned char, 0 to 255"):
        padded(a=256)
    with pytest.raises(OverflowError, match="-1 does not fit"):
        padded(b=-1)
    with pytest.raises(OverflowError, match="32 does not fit 6 bits of int, -32 to 31"):
        bits(b=32)
    with pytest.raises(OverflowError):
        bits(d=2)
    with pytest.raises(LayoutError, match=r"unsigned int takes an int, not float 1\.5"):
        padded(b=1.5)


def test_assignment_refuses_what_does_not_fit(sample: Sample) -> None:
    value = sample.decoded("nested")
    for name, bad, error in [
        ("pairs", [{"a": 1}], LayoutError),
        ("pairs", 3, LayoutError),
        ("name", "longer than 8", LayoutError),
        ("name", 5, LayoutError),
        ("next", 1 << 64, OverflowError),
        ("huge", 1 << 127, OverflowError),
        ("real", "1", LayoutError),
        ("flag", 2, OverflowError),
        ("nmae", "x", AttributeError),
    ]:
        with pytest.raises(error):
            setattr(value, name, bad)
    assert value.asdict() == VALUES["nested"]


def test_assignment(sample: Sample) -> None:
    value = sample.decoded("nested")
    value.pairs[1].b = 9
    value.pairs[0] = {"a": 7}
    value.name = "ab"
    value.huge = -(1 << 127)
    assert bytes(value)[24:32] == b"ab" + bytes(6)
    assert value.asdict() == VALUES["nested"] | {
        "pairs": [{"a": 7, "b": 0, "c": 0}, {"a": 4, "b": 9, "c": 6}],
        "name": "ab",
        "huge": -(1 << 127),
    }


def test_a_view_writes_to_its_memory_and_not_beside_the_member(sample: Sample) -> None:
    memory = bytearray(b"\xff" * 16)
    value = ctype(sample.type("padded")).from_buffer(memory)
    value.b = 0
    assert memory == b"\xff" * 4 + bytes(4) + b"\xff" * 8


def test_arrays(sample: Sample) -> None:
    grid = ctype(sample.type("grid"))()
    grid[1][-1] = -4
    grid[0][0:2] = [1, 2]
    assert grid == [[1, 2, 0], [0, 0, -4]]
    assert grid == type(grid)((1, 2, 0), (0, 0, -4))
    assert grid != [[1, 2, 0], [0, 0, 4]]
    assert repr(grid) == "[[1, 2, 0], [0, 0, -4]]"
    with pytest.raises(OverflowError):
        grid[0][0] = 1 << 15
    with pytest.raises(IndexError):
        grid[2] = [1, 2, 3]
    with pytest.raises(LayoutError, match="1 values for 2 elements"):
        grid[0][0:2] = [1]
    with pytest.raises(LayoutError, match="takes 3 elements, 2 are given"):
        grid[0] = [1, 2]
    huges = ctype(sample.type("huges"))(5, 6)
    huges[1] = 1 << 127
    assert list(huges) == [5, 1 << 127]


def test_repr_shows_members(sample: Sample) -> None:
    assert repr(sample.decoded("packed")) == "packed(a=1, b=2, c=padded(a=3, b=4, c=5), d=6)"
    assert "name=b'inner'" in repr(sample.decoded("nested"))
    assert "pairs=[padded(a=1, b=2, c=3), padded(" in repr(sample.decoded("nested"))


def test_padding_is_zero_unless_bytes_are_given(sample: Sample) -> None:
    padded = sample.type("padded")
    dirty = b"\xff" * 12
    value = decode(padded, dirty)
    clean = encode(padded, {"a": 255, "b": 0xFFFFFFFF, "c": 0xFFFF})
    assert clean != dirty
    assert encode(padded, value) == encode(padded, (255, 0xFFFFFFFF, 0xFFFF)) == clean
    assert encode(padded, dirty) == bytes(value) == dirty  # type: ignore[arg-type]
    assert value == decode(padded, clean)
    assert value != decode(padded, bytes(12))
    nested = decode(sample.type("nested"), b"\xff" * sample.type("nested").size)
    nested_clean = encode(sample.type("nested"), nested)
    assert nested_clean[:24] == clean * 2
    bits = decode(sample.type("bits"), b"\xff" * sample.type("bits").size)
    assert encode(sample.type("bits"), bits) != bytes(bits)  # type: ignore[arg-type]


def test_one_class_per_type(sample: Sample) -> None:
    padded = sample.btf["struct padded"]
    assert ctype(padded) is ctype(sample.type("padded")) is ctype(padded)
    assert type(sample.decoded("nested").pairs[0]) is ctype(padded)
    assert issubclass(ctype(padded), Struct)
    assert len({ctype(padded)(), ctype(padded)()}) == 1


def test_text(sample: Sample) -> None:
    text = sample.type("text")
    value = decode(text, b"a\xff\0bage\0more")
    assert isinstance(value, Chars)
    assert (value, value.text) == (b"a\xff\0bage", "a\ufffd")
    assert encode(text, value) == b"a\xff\0bage\0"
    assert encode(text, "12345678") == b"12345678"
    assert encode(text, b"") == bytes(8)
    with pytest.raises(LayoutError, match=r"char\[8\] takes 8 bytes, 9 are given"):
        encode(text, "123456789")


def test_wrong_sizes_name_both(sample: Sample) -> None:
    with pytest.raises(LayoutError, match="struct padded takes 12 bytes, 11 are given"):
        decode(sample.type("padded"), bytes(11))
    with pytest.raises(LayoutError, match="struct padded takes 12 bytes, 13 are given"):
        encode(sample.type("padded"), bytes(13))
    with pytest.raises(LayoutError, match=r"takes 3 values \(a, b, c\), 2 are given"):
        encode(sample.type("padded"), (1, 2))
    with pytest.raises(LayoutError, match="takes a dict, a tuple or its own class padded, not"):
        encode(sample.type("padded"), [1, 2, 3])


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (0, "no value"),
        ("struct opaque", "not defined"),
        ("function", "FUNC"),
        ("number", "variable"),
        (".data", "section"),
    ],
)
def test_what_has_no_layout_says_why(sample: Sample, key: int | str, why: str) -> None:
    with pytest.raises(LayoutError, match=why):
        ctype(sample.btf[key])


def test_floats_that_ctypes_lacks_are_bytes() -> None:
    btf = Btf(raw_btf([(1, info(Kind.FLOAT), 2)], b"\0half\0"))
    assert isinstance(btf[1], Float)
    assert decode(btf[1], b"ab") == encode(btf[1], b"ab") == b"ab"
    with pytest.raises(LayoutError, match="half takes 2 bytes, not float"):
        encode(btf[1], 1.5)


@pytest.mark.parametrize(
    ("types", "why"),
    [
        ([(1, info(Kind.STRUCT, 1), 4, 1, 1, 0)], "nested more than 64 deep"),
        ([(1, info(Kind.STRUCT, 1), 4, 1, 2, 8), (0, info(Kind.INT), 4, 32)], "beyond the 4 bytes"),
        ([(1, info(Kind.STRUCT, 1), 8, 1, 2, 3), (0, info(Kind.INT), 4, 32)], "at bit 3"),
        (
            [(1, info(Kind.STRUCT, 2), 8, 1, 2, 0, 1, 2, 16), (0, info(Kind.INT), 4, 32)],
            "within another",
        ),
        (
            [(1, info(Kind.STRUCT, 1, True), 8, 1, 2, 3 << 24), (0, info(Kind.PTR), 0)],
            r"bitfield of void \*",
        ),
        ([(1, info(Kind.INT), 1 << 20, 8)], "1048576 bytes"),
        ([(1, info(Kind.ARRAY), 0, 2, 2, 0xFFFFFFFF), (1, info(Kind.STRUCT), 0xFFFFFFFF)], "takes"),
    ],
)
def test_contradictions_are_refused(types: list[tuple[int, ...]], why: str) -> None:
    with pytest.raises(LayoutError, match=why):
        ctype(Btf(raw_btf(types, b"\0x\0"))[1])


def test_flipped_bytes_raise_nothing_else() -> None:
    data = compile_bpf(SOURCE).btf
    chance = random.Random(2)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[chance.randrange(24, len(data))] = chance.randrange(256)
        try:
            btf = Btf(bytes(damaged))
            count = len(btf)
        except ObjectFormatError:
            continue
        for type_id in range(count):
            try:
                ctype(btf[type_id])
            except (ObjectFormatError, LayoutError):
                pass


def test_every_struct_of_the_kernel() -> None:
    if not KERNEL.exists():
        pytest.skip("this kernel has no BTF")
    checked = 0
    for composite in Btf(KERNEL.read_bytes()):
        if isinstance(composite, Composite):
            check_layout(composite)
            checked += 1
    assert checked > 5000


def check_layout(composite: Composite) -> None:
    """Compare each offset with BTF's, and for bitfields the very bits that an assignment sets."""
    cls = ctype(composite)
    assert ctypes.sizeof(cls) == composite.size, composite
    value = cls()
    byteorder = composite.btf.byteorder
    for member, offset in named_members(composite):
        if not member.bitfield_size:
            field = getattr(cls, member.name)
            assert field.offset * 8 == offset, (composite, member)
            assert field.size == member.type.size, (composite, member)
            continue
        integer = member.type.resolve()
        ones = (1 << member.bitfield_size) - 1
        highest = -1 if isinstance(integer, Int | Enum) and integer.is_signed else ones
        above = 8 * composite.size - offset - member.bitfield_size
        setattr(value, member.name, highest)
        assert int.from_bytes(bytes(value), byteorder) == ones << (
            offset if byteorder == "little" else above
        ), (composite, member)
        assert getattr(value, member.name) == highest
        setattr(value, member.name, 0)


def named_members(composite: Composite, start: int = 0) -> Iterator[tuple[Member, int]]:
    """The members, those of anonymous members included, and the bit at which each starts."""
    for member in composite.members:
        inner = member.type.resolve()
        if member.name:
            yield member, start + member.bit_offset
        elif isinstance(inner, Composite):
            yield from named_members(inner, start + member.bit_offset)
