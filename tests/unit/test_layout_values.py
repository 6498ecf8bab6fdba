# SPDX-License-Identifier: BSD-2-Clause
"""What Python values mean as members: text, enumerators, addresses, elements behind a struct."""

from __future__ import annotations

import copy
import enum
import json
import math
import pickle
import random
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import pytest
from btf_sources import compile_bpf, info, raw_btf
from pybpf.btf import Btf, Composite, Enum, Kind
from pybpf.errors import LayoutError
from pybpf.layout import Chars, ctype, decode, encode, plain

KERNEL = Path("/sys/kernel/btf/vmlinux")

SOURCE = """
typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef int __s32;
typedef __u32 __be32;
typedef __u16 __be16;
enum color { RED, GREEN = 5, BLUE = -3 };
enum wide { LOW = -2, HIGH = 0x7fffffffffffffff };
enum huge { NOTHING, TOP = 0xffffffffffffffff };
struct in_addr { __be32 s_addr; };
struct in6_addr { union { __u8 u6_addr8[16]; __be16 u6_addr16[8]; __be32 u6_addr32[4]; } in6_u; };

struct event {
    __u64 time; __u32 pid; enum color color; char comm[16]; char pair[2][4]; __u8 mac[6];
    signed char small[4]; unsigned char raw[4]; enum wide wide; enum color e : 4;
} event;
struct places {
    __be32 be; __u8 four[4]; unsigned char also_four[4]; struct in_addr in4;
    __u8 sixteen[16]; __be32 words[4]; struct in6_addr in6; __be16 halves[8];
    __u32 plain; __u32 plains[4]; __s32 number; char text[4]; _Bool flags[4]; __be16 port;
} places;
struct tail { __u32 length; __u16 kind; char text[]; } tail;
struct points { __u32 count; struct point { __u8 x; __u32 y; } points[]; } points;
struct numbers { __u8 count; struct { struct {} none; __u16 numbers[]; }; } numbers;
struct middle { __u32 a; __u32 marker[0]; __u32 b; } middle;
struct holder { struct tail inner; __u32 after; } holder;
struct reals { float half; double whole; _Bool flag; __u8 last; } reals;
enum huge huge;
"""


@pytest.fixture(scope="module", params=["little", "big"])
def btf(request: pytest.FixtureRequest) -> Btf:
    return Btf(compile_bpf(SOURCE, request.param).btf)


# ---- text


def test_members_of_char_are_bytes_with_text(btf: Btf) -> None:
    event = ctype(btf["struct event"])(comm="bash", pair=["ab", b"c\0d"])
    assert isinstance(event.comm, Chars)
    assert (event.comm, event.comm.text) == (b"bash", "bash")
    assert [type(each) for each in event.pair] == [Chars, Chars]
    assert list(event.pair) == [b"ab", b"c\0d"]
    assert event.pair[1].text == "c"
    assert json.loads(json.dumps(event.asdict()))["pair"] == ["ab", "c"]
    event.comm = b"a\0b\0\0"
    assert event.comm == b"a\0b"
    event.comm = event.comm
    assert bytes(event)[16:32] == b"a\0b".ljust(16, b"\0")
    assert encode(btf["struct event"], event) == bytes(event)
    event.comm = b"\xff" * 16
    assert event.comm.text == "\ufffd" * 16


def test_unsigned_and_signed_char_are_numbers(btf: Btf) -> None:
    event = ctype(btf["struct event"])(small=[-1, 2, 3, 4], raw=[255, 0, 0, 1])
    assert (list(event.small), list(event.raw)) == ([-1, 2, 3, 4], [255, 0, 0, 1])


def test_text_in_a_view_is_read_where_it_is(btf: Btf) -> None:
    memory = bytearray(btf["struct event"].size)
    event = ctype(btf["struct event"]).from_buffer(memory)
    memory[16:20] = b"live"
    assert event.comm == b"live"


# ---- enums


def test_enumerators_are_taken_by_name_and_shown(btf: Btf) -> None:
    cls = ctype(btf["struct event"])
    event = cls(color="BLUE", wide="HIGH", e="GREEN")
    assert (event.color, event.wide, event.e) == (-3, 0x7FFFFFFFFFFFFFFF, 5)
    assert type(event.color) is int
    shown = repr(event)
    assert "color=BLUE" in shown
    assert "wide=HIGH" in shown
    assert "e=GREEN" in shown
    event.color = 4
    assert "color=4" in repr(event)
    event.color = "RED"
    assert event.color == 0
    with pytest.raises(LayoutError, match=r"no enumerator of enum color named 'GREN'.*'GREEN'"):
        event.color = "GREN"
    with pytest.raises(LayoutError, match="takes an int or an enumerator's name, not float"):
        event.color = 1.5
    assert encode(btf["enum color"], "BLUE") == encode(btf["enum color"], -3)


def test_a_users_own_enum_is_a_number(btf: Btf) -> None:
    class Color(enum.IntEnum):
        GREEN = 5

    assert ctype(btf["struct event"])(color=Color.GREEN).color == 5


def test_enums_as_python_classes(btf: Btf) -> None:
    color: Any = btf["enum color"]
    assert issubclass(color.enum, enum.IntEnum)
    assert color.enum is color.enum
    assert (color.enum.BLUE, color.enum(5), color.enum["RED"]) == (-3, color.enum.GREEN, 0)
    assert color.enum.__name__ == "color"
    assert color.enum(99) == 99
    assert type(color.enum(99)) is int
    assert ctype(btf["struct event"])(color=color.enum.BLUE).color == -3
    wide: Any = btf["enum wide"]
    assert [member.value for member in wide.enum] == [-2, 0x7FFFFFFFFFFFFFFF]
    huge: Any = btf["enum huge"]
    assert huge.enum.TOP == 0xFFFFFFFFFFFFFFFF


def test_enumerators_that_python_reserves_have_no_member() -> None:
    words = [(1, info(Kind.ENUM, 6), 4, 3, 1, 7, 2, 13, 3, 20, 4, 25, 5, 31, 6)]
    odd: Any = Btf(raw_btf(words, b"\0x\0mro\0_sun_\0__du__\0None\0value\0name\0"))[1]
    assert list(odd.values) == ["mro", "_sun_", "__du__", "None", "value", "name"]
    assert {name: int(each) for name, each in odd.enum.__members__.items()} == {
        "None": 4,
        "value": 5,
        "name": 6,
    }
    assert odd.enum(1) == 1


def test_every_enum_of_the_kernel() -> None:
    if not KERNEL.exists():
        pytest.skip("this kernel has no BTF")
    checked = 0
    for each in Btf(KERNEL.read_bytes()):
        if isinstance(each, Enum):
            members = each.enum.__members__
            assert {name: int(members[name]) for name in each.values} == each.values
            checked += 1
    assert checked > 1000


# ---- addresses

V4, V6 = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")


@pytest.mark.parametrize("name", ["be", "four", "also_four", "in4"])
def test_ipv4_addresses_where_four_bytes_are_in_network_order(btf: Btf, name: str) -> None:
    value = ctype(btf["struct places"])(**{name: V4})
    assert V4.packed in bytes(value)
    member = next(each for each in btf["struct places"].members if each.name == name)  # type: ignore[attr-defined]
    assert encode(member.type, V4) == V4.packed
    with pytest.raises(LayoutError, match="takes an IPv4 address of 4 bytes, not IPv6Address"):
        encode(member.type, V6)


@pytest.mark.parametrize("name", ["sixteen", "words", "in6", "halves"])
def test_ipv6_addresses_where_sixteen_bytes_are_in_network_order(btf: Btf, name: str) -> None:
    member = next(each for each in btf["struct places"].members if each.name == name)  # type: ignore[attr-defined]
    assert encode(member.type, V6) == V6.packed
    assert bytes(ctype(btf["struct places"])(**{name: V6})).count(V6.packed) == 1
    with pytest.raises(LayoutError, match="takes an IPv6 address of 16 bytes, not IPv4Address"):
        encode(member.type, V4)


def test_addresses_come_back_as_they_went_in(btf: Btf) -> None:
    value = ctype(btf["struct places"])(be=V4, in4=V4, sixteen=V6, in6=V6)
    assert ip_address(value.be) == V4
    assert ip_address(bytes(value.in4)) == V4
    assert ip_address(bytes(value.sixteen)) == ip_address(bytes(value.in6)) == V6


@pytest.mark.parametrize("name", ["plain", "number", "plains", "text", "flags", "port"])
def test_addresses_are_refused_elsewhere(btf: Btf, name: str) -> None:
    value = ctype(btf["struct places"])()
    with pytest.raises(LayoutError):
        setattr(value, name, V6 if name == "plains" else V4)
    assert not any(bytes(value))


def test_a_plain_integer_tells_what_an_address_may_mean(btf: Btf) -> None:
    with pytest.raises(LayoutError, match=r"machine's byte order.*int\(address\).*__be32"):
        ctype(btf["struct places"])(plain=V4)


def test_plain_values_are_those_of_decoded_ones(btf: Btf) -> None:
    event = btf["struct event"]
    data = random.Random(1).randbytes(event.size)
    decoded: Any = decode(event, data)
    assert plain(event, data) == plain(event, data + b"more") == decoded.asdict()
    assert plain(btf["__s32"], b"\xff" * 4) == -1
    with pytest.raises(LayoutError, match=f"takes {event.size} bytes, {event.size - 1} are given"):
        plain(event, data[1:])


# ---- flexible arrays


def test_elements_behind_a_struct(btf: Btf) -> None:
    order = btf.byteorder
    head = (5).to_bytes(4, order) + bytes(4)
    # the elements begin where the array does, which is within the padding at the end
    tail: Any = decode(btf["struct tail"], head[:6] + b"hello\0\0")
    assert isinstance(tail.text, Chars)
    assert (tail.length, tail.text) == (5, b"hello")
    assert tail.asdict() == {"length": 5, "kind": 0, "text": "hello"}
    assert repr(tail) == "tail(length=5, kind=0, text=b'hello')"
    assert bytes(tail) == head[:6] + b"hello\0\0"
    assert copy.copy(tail) == tail != decode(btf["struct tail"], head[:6] + b"hell\0\0\0")
    with pytest.raises(LayoutError, match="takes 8 bytes, 13 are given"):
        encode(btf["struct tail"], tail)
    short: Any = decode(btf["struct tail"], head)
    assert (short.text, ctype(btf["struct tail"])().text) == (b"", b"")
    assert encode(btf["struct tail"], short) == head


def test_structs_behind_a_struct(btf: Btf) -> None:
    one, two = (encode(btf["struct point"], each) for each in ((1, 2), (3, 4)))
    points: Any = decode(btf["struct points"], bytes(4) + one + two + b"\xff")
    assert [(each.x, each.y) for each in points.points] == [(1, 2), (3, 4)]
    assert points.asdict()["points"] == [{"x": 1, "y": 2}, {"x": 3, "y": 4}]
    assert plain(btf["struct points"], bytes(points)) == points.asdict()
    with pytest.raises(LayoutError, match="takes 0 elements, 1 are given"):
        ctype(btf["struct points"])(points=[(1, 2)])
    numbers: Any = decode(btf["struct numbers"], bytes(2) + (7).to_bytes(2, btf.byteorder))
    assert numbers.numbers == [7]


def test_no_elements_where_another_member_follows(btf: Btf) -> None:
    middle: Any = decode(btf["struct middle"], bytes(12))
    assert middle.marker == []
    assert len(bytes(middle)) == 8
    holder: Any = decode(btf["struct holder"], b"\xff" * 20)
    assert holder.inner.text == b""
    assert len(bytes(holder)) == 12


# ---- the whole struct


def test_copies_are_of_their_own_and_pickles_refused(btf: Btf) -> None:
    event = ctype(btf["struct event"])(pid=1, mac=[1, 2, 3, 4, 5, 6])
    for copied in (copy.copy(event), copy.deepcopy([event])[0]):
        assert copied == event
        copied.mac[0] = 9
        assert event.mac[0] == 1
    assert copy.copy(event.mac) == event.mac
    with pytest.raises(TypeError, match=r"struct event cannot be pickled.*asdict\(\)"):
        pickle.dumps(event)
    with pytest.raises(TypeError, match=r"cannot be pickled.*list\(value\)"):
        pickle.dumps(event.mac)
    assert pickle.loads(pickle.dumps(event.comm)) == b""


def test_the_documentation_is_the_definition(btf: Btf) -> None:
    text = ctype(btf["struct point"]).__doc__
    assert text is not None
    assert [line.split() for line in text.splitlines()] == [
        ["struct", "point", "{"],
        ["__u8", "x;", "/*", "at", "0,", "1", "byte", "*/"],
        ["/*", "3", "bytes", "of", "padding", "*/"],
        ["__u32", "y;", "/*", "at", "4,", "4", "bytes", "*/"],
        ["};", "/*", "size", "8", "*/"],
    ]
    whole = ctype(btf["struct event"]).__doc__
    assert whole is not None
    assert "char comm[16];" in whole
    assert "enum color e : 4;" in whole


def test_a_struct_packed_as_a_whole_is_the_one_packed_member_by_member(btf: Btf) -> None:
    chance = random.Random(7)
    for key in ("struct event", "struct reals", "struct places", "struct point", "struct middle"):
        composite = btf[key]
        assert isinstance(composite, Composite)
        for _ in range(50):
            plain = _plain(decode(composite, chance.randbytes(composite.size)))
            one_by_one = ctype(composite)()
            for name, value in plain.items():
                setattr(one_by_one, name, value)
            expected = encode(composite, one_by_one)
            assert encode(composite, plain) == expected
            assert encode(composite, tuple(plain.values())) == expected
            assert bytes(ctype(composite)(**plain)) == expected


def _plain(value: Any) -> dict[str, Any]:
    """The members as decode() gives them, without the numbers that are not equal to themselves."""
    members = {name: getattr(value, name) for name in value.asdict()}
    nan = [n for n, each in members.items() if isinstance(each, float) and math.isnan(each)]
    return members | dict.fromkeys(nan, 0.5)


@pytest.mark.parametrize(
    ("bad", "error", "why"),
    [
        ((1, 2, 3), LayoutError, "takes 2 values"),
        ((1,), LayoutError, "takes 2 values"),
        ((256, 0), OverflowError, "256 does not fit"),
        ((-1, 0), OverflowError, "-1 does not fit"),
        (("1", 0), LayoutError, "takes an int, not str"),
        ((1.0, 0), LayoutError, "takes an int, not float"),
        ((None, 0), LayoutError, "takes an int, not NoneType"),
        ({"x": 1, "z": 2}, LayoutError, "no member 'z'"),
        ({"x": 1, "y": 1 << 32}, OverflowError, "4294967296 does not fit"),
        ({1: 2}, LayoutError, "no member 1"),
    ],
)
def test_what_does_not_fit_is_explained(
    btf: Btf, bad: Any, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        encode(btf["struct point"], bad)


def test_what_does_not_fit_a_bool_or_text_is_explained(btf: Btf) -> None:
    with pytest.raises(OverflowError, match="2 does not fit _Bool"):
        encode(btf["struct reals"], (0.5, 1, 2, 3))
    with pytest.raises(LayoutError, match=r"char\[16\] takes 16 bytes, 17 are given"):
        ctype(btf["struct event"])(comm="x" * 17)


@pytest.mark.parametrize(
    ("struct", "bad", "why"),
    [
        ("event", {"pid": 1 << 32}, "struct event member 'pid': 4294967296 does not fit"),
        ("event", {"e": 9}, "struct event member 'e': 9 does not fit 4 bits of enum color"),
        ("event", {"comm": 5}, r"struct event member 'comm': char\[16\] takes str or bytes"),
        ("reals", (0.5, 1, 2, 3), "struct reals member 'flag': 2 does not fit"),
        ("holder", {"inner": {"kind": -1}}, "member 'inner': struct tail member 'kind': -1 does"),
        ("numbers", (1, {"none": 3}), "struct numbers anonymous member: struct {...} member 'no"),
    ],
)
def test_the_member_that_does_not_fit_is_named(btf: Btf, struct: str, bad: Any, why: str) -> None:
    with pytest.raises((LayoutError, OverflowError), match=why):
        encode(btf[f"struct {struct}"], bad)


def test_the_member_that_is_assigned_what_does_not_fit_is_named(btf: Btf) -> None:
    event = ctype(btf["struct event"])()
    with pytest.raises(OverflowError, match="struct event member 'time': -1 does not fit"):
        event.time = -1
    with pytest.raises(OverflowError, match="struct event member 'color'"):
        ctype(btf["struct event"])(color=1 << 31)
