# SPDX-License-Identifier: BSD-2-Clause
"""Classes and formats of the user's own beside BTF: accepted, refused, and how to mend them."""

from __future__ import annotations

import ctypes as c
import dataclasses
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from btf_sources import compile_bpf
from pybpf.btf import Btf, Composite
from pybpf.errors import LayoutError
from pybpf.layout import ctype, decode, encode
from pybpf.layout_check import format_of

KERNEL = Path("/sys/kernel/btf/vmlinux")

SOURCE = """
typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef int __s32;
typedef __u32 __be32;
enum color { RED, GREEN };
enum signed_color { MINUS = -1 };
struct point { __u8 x; __u32 y; } point;
struct wrapped { struct point point; __u16 z; } wrapped;
struct event {
    __u8 kind; __u32 pid; __s32 code; __be32 address; char comm[16]; struct point points[2];
    __u32 low : 3, high : 5; __u8 mac[6]; void *pointer; _Bool flag; enum color color;
    enum signed_color minus; unsigned __int128 huge; float half; __u64 numbers[2][2];
} event;
struct ip { __u32 version; union { __be32 v4; __u8 v6[16]; }; } ip;
struct packed { __u8 a; __u64 b; __u16 c; } __attribute__((packed)) packed;
struct plain { __u64 a; __u32 b; __s32 c; char d[4]; __u8 e; } plain;
struct mixed { __u32 a; __be32 b; } mixed;
"""

BTF = Btf(compile_bpf(SOURCE).btf)


class Point(c.Structure):
    _fields_ = [("x", c.c_uint8), ("y", c.c_uint32)]


FIELDS: list[Any] = [
    ("kind", c.c_uint8),
    ("pid", c.c_uint32),
    ("code", c.c_int32),
    ("address", c.c_uint32.__ctype_be__),
    ("comm", c.c_char * 16),
    ("points", Point * 2),
    ("low", c.c_uint8, 3),
    ("high", c.c_uint8, 5),
    ("mac", c.c_uint8 * 6),
    ("pointer", c.c_void_p),
    ("flag", c.c_bool),
    ("color", c.c_int),
    ("minus", c.c_int),
    ("huge", c.c_uint64 * 2),
    ("half", c.c_float),
    ("numbers", c.c_uint64 * 2 * 2),
    ("_tail", c.c_uint8 * 8),
]


def structure(*fields: Any, packed: bool = False) -> type[c.Structure]:
    namespace: dict[str, Any] = {"_fields_": list(fields)}
    if packed:
        namespace |= {"_pack_": 1, "_layout_": "ms"}
    return type(c.Structure)("User", (c.Structure,), namespace)


def refusal(key: str, user: Any) -> str:
    with pytest.raises(LayoutError) as refused:
        BTF[key].check_layout(user)
    return str(refused.value)


def fix(key: str, user: Any) -> str:
    return refusal(key, user).rpartition("\nfix: ")[2]


def changed(**changes: Any) -> type[c.Structure]:
    """FIELDS with other types by name."""
    fields = ((name, changes.get(name, kind)) for name, *kind in FIELDS)
    return structure(*((name, *(k if type(k) in (list, tuple) else [k])) for name, k in fields))


# ---- ctypes


@pytest.mark.parametrize(
    ("key", "user"),
    [
        ("struct event", structure(*FIELDS)),
        # other names, other ways to say the same
        ("struct event", structure(*((f"my_{name}", *kind) for name, *kind in FIELDS))),
        ("struct event", changed(mac=c.c_char * 6, color=c.c_uint32, flag=c.c_uint8)),
        ("struct event", changed(comm=c.c_uint8 * 16, pointer=c.c_uint64, points=c.c_uint8 * 16)),
        ("struct event", changed(numbers=c.c_uint64 * 4, _tail=c.c_uint64)),
        ("struct point", structure(("x", c.c_uint8), ("pad", c.c_uint8 * 3), ("y", c.c_uint32))),
        ("struct wrapped", structure(("x", c.c_uint8), ("y", c.c_uint32), ("z", c.c_uint16))),
        ("struct wrapped", structure(("point", Point), ("z", c.c_uint16), ("_pad", c.c_uint8 * 2))),
        ("struct ip", structure(("version", c.c_uint32), ("v6", c.c_uint8 * 16))),
        (
            "struct packed",
            structure(("a", c.c_uint8), ("b", c.c_uint64), ("c", c.c_uint16), packed=True),
        ),
        ("__u32", c.c_uint32),
        ("__be32", c.c_uint32.__ctype_be__),
    ],
)
def test_ctypes_classes_that_are_laid_out_so(key: str, user: Any) -> None:
    BTF[key].check_layout(user)


@pytest.mark.parametrize(
    ("key", "user", "remedy"),
    [
        (
            "struct point",
            structure(("x", c.c_uint8), ("y", c.c_uint32), packed=True),
            "insert 3 bytes of padding after 'x': ('_pad', c_uint8 * 3)",
        ),
        (
            "struct packed",
            structure(("a", c.c_uint8), ("b", c.c_uint64), ("c", c.c_uint16)),
            "there are 7 bytes too many in front of 'b': set _pack_ = 1 (and, for Python 3.14, "
            "_layout_ = 'ms') and write padding out where it is meant, or remove a member",
        ),
        ("struct event", changed(code=c.c_uint32), "make 'code' c_int32"),
        ("struct event", changed(pid=c.c_int32), "make 'pid' c_uint32"),
        ("struct event", changed(address=c.c_uint32), "make 'address' c_uint32.__ctype_be__"),
        ("struct event", changed(half=c.c_uint32), "make 'half' c_float"),
        ("struct event", changed(comm=c.c_char * 12), "make 'comm' c_char * 16"),
        ("struct event", changed(minus=c.c_uint32), "make 'minus' c_int32"),
        ("struct point", structure(("x", c.c_uint8)), "add ('y', c_uint32) after 'x'"),
        ("struct point", structure(("y", c.c_uint32), ("x", c.c_uint8)), None),
        (
            "struct wrapped",
            structure(("p", c.c_uint8 * 8), ("z", c.c_uint16), packed=True),
            "add 2 bytes of padding at the end: ('_pad', c_uint8 * 2)",
        ),
        (
            "struct point",
            structure(("x", c.c_uint8), ("y", c.c_uint32), ("z", c.c_uint32)),
            "remove 'z': struct point has nothing like it there",
        ),
        ("struct event", structure(*FIELDS[:6], ("low", c.c_uint32, 4), *FIELDS[7:]), None),
        (
            "struct event",
            changed(low=(c.c_uint32, 3), high=(c.c_uint32, 5)),
            "there are 3 bytes too many in front of 'mac': give bitfields before it a smaller "
            "type, c_uint8",
        ),
        ("__u32", c.c_int32, "use c_uint32"),
    ],
)
def test_ctypes_classes_that_are_not(key: str, user: Any, remedy: str | None) -> None:
    found = fix(key, user)
    assert remedy is None or found == remedy


def test_the_table_shows_both_sides_offset_by_offset() -> None:
    user = structure(("x", c.c_uint8), ("y", c.c_uint32), packed=True)
    assert refusal("struct point", user).splitlines() == [
        "class User (5 bytes) is not laid out as struct point (8 bytes):",
        "",
        "  offset  size  struct point   size  class User",
        "       0     1  __u8 x            1  x: c_uint8",
        ">      1     3  -- padding --     4  y: c_uint32",
        ">      4     4  __u32 y",
        ">      5                             end",
        "       8        end",
        "",
        "fix: insert 3 bytes of padding after 'x': ('_pad', c_uint8 * 3)",
    ]


def test_what_the_fixes_say_mends() -> None:
    """Do what each fix says until none is left, from a packed class on."""
    fields = FIELDS[:-1]
    user = structure(*fields, packed=True)
    for _ in range(10):
        try:
            BTF["struct event"].check_layout(user)
            break
        except LayoutError as error:
            text = str(error).rpartition("\nfix: ")[2]
            found = re.search(r"c_uint8 \* (\d+)", text)
            assert found, text
            pad = (f"_pad{len(fields)}", c.c_uint8 * int(found[1]))
            after = re.search(r"after '(\w+)", text)
            names = [name for name, *_ in fields]
            fields.insert(names.index(after[1]) + 1 if after else len(fields), pad)
            user = structure(*fields, packed=True)
    BTF["struct event"].check_layout(user)
    assert c.sizeof(user) == BTF["struct event"].size


def test_members_that_change_places_are_seen_by_their_names() -> None:
    user = structure(
        ("a", c.c_uint64),
        ("c", c.c_int32),
        ("b", c.c_uint32),
        ("d", c.c_char * 4),
        ("e", c.c_uint8),
    )
    assert "> " in refusal("struct plain", user)
    BTF["struct mixed"].check_layout(
        structure(("other", c.c_uint32), ("name", c.c_uint32.__ctype_be__))
    )
    fields = [("b", c.c_uint32), ("a", c.c_uint32.__ctype_be__)]
    refusal("struct mixed", structure(*fields))


def test_big_endian_structures() -> None:
    btf = Btf(compile_bpf(SOURCE, "big").btf)

    fields: list[Any] = [("a", c.c_uint64), ("b", c.c_uint32), ("c", c.c_int32)]
    fields += [("d", c.c_char * 4), ("e", c.c_uint8)]

    class Big(c.BigEndianStructure):
        _fields_ = fields

    btf["struct plain"].check_layout(Big)
    with pytest.raises(LayoutError, match=r"make 'a' c_uint64\.__ctype_be__"):
        btf["struct plain"].check_layout(structure(*fields))
    with pytest.raises(LayoutError, match=r"make 'a' c_uint64$"):
        BTF["struct plain"].check_layout(Big)

    class BigBits(c.BigEndianStructure):
        _fields_ = [("low", c.c_uint32, 3), ("high", c.c_uint32, 5)]

    other = Btf(compile_bpf("struct bits { unsigned low : 3, high : 5; } bits;", "big").btf)
    other["struct bits"].check_layout(BigBits)


def test_a_bitfield_that_ctypes_loses_is_named() -> None:
    user = structure(("low", c.c_uint64, 52), ("high", c.c_uint8, 1))
    value = user()
    value.high = 1
    loses_it = not any(bytes(value))  # as up to Python 3.13
    told = "ctypes keeps nothing of bitfield 'high'" in refusal("struct plain", user)
    assert told == loses_it


def test_unions_and_what_is_no_layout() -> None:
    class Address(c.Union):
        _fields_ = [("v4", c.c_uint32.__ctype_be__), ("v6", c.c_uint8 * 16)]

    class Ip(c.Structure):
        _anonymous_ = ("address",)
        _fields_ = [("version", c.c_uint32), ("address", Address)]

    BTF["struct ip"].check_layout(Ip)
    assert "neither a ctypes class nor a dataclass" in refusal("struct ip", int)
    assert "a class or a struct format is needed" in refusal("struct ip", 5)


# ---- formats


@pytest.mark.parametrize(
    ("key", "user"),
    [
        ("struct point", "<B3xI"),
        ("struct point", "BI"),
        ("struct point", "=B3sI"),
        ("struct point", struct.Struct("<B3xI")),
        ("struct plain", "<QIi4sB3x"),
        ("struct plain", "<Q I i 4s B 3x"),
        ("struct plain", "<QIi4sB3s"),
        ("struct packed", "<BQH"),
        ("struct wrapped", "<8sH2x"),
        ("struct ip", "<I16s"),
        ("__u32", "I"),
    ],
)
def test_formats_that_are_laid_out_so(key: str, user: Any) -> None:
    BTF[key].check_layout(user)


@pytest.mark.parametrize(
    ("key", "user", "remedy"),
    [
        ("struct point", "<BI", "use '<B3xI'"),
        ("struct point", "<B3xi", "use '<B3xI'"),
        ("struct point", ">B3xI", "use '<B3xI'"),
        ("struct packed", "BQH", "use '<BQH'"),
        ("struct plain", "<QIi4sB", "use '<QIi4sB3x'"),
        ("struct plain", "<QII4sB3x", "use '<QIi4sB3x'"),
        ("struct plain", "<QIi5s3x", "use '<QIi4sB3x'"),
        ("struct plain", "<QIi4s4x", "use '<QIi4sB3x'"),
    ],
)
def test_formats_that_are_not(key: str, user: str, remedy: str) -> None:
    assert fix(key, user) == remedy
    BTF[key].check_layout(remedy.split("'")[1])


def test_formats_that_cannot_be() -> None:
    assert "two byte orders" in fix("struct mixed", "<II")
    assert "'y' is no struct format" in refusal("struct point", "y")
    assert format_of(BTF["struct mixed"]) is None


# ---- dataclasses


@dataclasses.dataclass
class DataPoint:
    x: int
    y: int


@dataclasses.dataclass
class Wrapped:
    point: DataPoint
    z: c.c_uint16


def test_dataclasses_have_the_members_in_order() -> None:
    BTF["struct point"].check_layout(DataPoint)
    BTF["struct wrapped"].check_layout(Wrapped)

    @dataclasses.dataclass
    class Swapped:
        y: int
        x: int

    text = refusal("struct point", Swapped)
    assert "dataclass Swapped has not the members of struct point" in text
    assert text.endswith("fix: the members are, in this order: x, y")

    @dataclasses.dataclass
    class Other:
        x: int
        why: int

    assert fix("struct point", Other) == "remove or rename 'why'; the members are x, y"


def test_of_a_union_a_dataclass_has_what_it_likes() -> None:
    for names in (["version", "v4"], ["version", "v6"], ["version"]):
        BTF["struct ip"].check_layout(dataclasses.make_dataclass("Ip", names))
    refusal("struct ip", dataclasses.make_dataclass("Ip", ["v4"]))


def test_annotations_that_are_ctypes_classes_are_checked() -> None:
    wrong = dataclasses.make_dataclass("Wrong", [("x", c.c_uint8), ("y", c.c_int32)])
    text = refusal("struct point", wrong)
    assert text.startswith("Wrong.y: class c_int (4 bytes) is not laid out as __u32")


# ---- as values


def test_values_of_the_users_classes_are_taken() -> None:
    point = BTF["struct point"]
    expected = encode(point, (1, 2))
    assert encode(point, DataPoint(1, 2)) == expected
    assert encode(point, Point(1, 2)) == expected
    dirty = Point.from_buffer_copy(b"\xff" * 8)
    dirty.x, dirty.y = 1, 2
    assert encode(point, dirty) == expected
    nested = encode(BTF["struct wrapped"], {"point": DataPoint(1, 2), "z": 3})
    assert nested == encode(BTF["struct wrapped"], ((1, 2), 3))
    assert encode(BTF["struct wrapped"], Wrapped(DataPoint(1, 2), 3)) == nested  # type: ignore[arg-type]
    event = ctype(BTF["struct event"])(points=[Point(1, 2), DataPoint(3, 4)])
    assert [(each.x, each.y) for each in event.points] == [(1, 2), (3, 4)]
    with pytest.raises(OverflowError):
        encode(point, DataPoint(256, 2))


def test_values_of_classes_that_differ_show_both_layouts() -> None:
    packed = structure(("x", c.c_uint8), ("y", c.c_uint32), packed=True)
    for _ in range(2):
        with pytest.raises(LayoutError, match="insert 3 bytes of padding after 'x'"):
            encode(BTF["struct point"], packed(1, 2))
    with pytest.raises(LayoutError, match="in this order: x, y"):
        encode(BTF["struct point"], dataclasses.make_dataclass("P", ["y", "x"])(1, 2))


def test_a_struct_of_another_object_is_taken_where_it_is_the_same() -> None:
    other = Btf(compile_bpf(SOURCE + "int more;").btf)
    value = decode(other["struct event"], bytes(range(1, 1 + other["struct event"].size)))
    assert encode(BTF["struct event"], value) == encode(other["struct event"], value)
    with pytest.raises(LayoutError, match="class struct plain of other BTF"):
        encode(BTF["struct event"], ctype(other["struct plain"])())


def test_every_struct_of_the_kernel_is_laid_out_as_itself() -> None:
    if not KERNEL.exists():
        pytest.skip("this kernel has no BTF")
    checked = formats = 0
    for composite in Btf(KERNEL.read_bytes()):
        if isinstance(composite, Composite) and composite.id % 7 == 0 and composite.size < 4096:
            composite.check_layout(ctype(composite))
            text = format_of(composite)
            if text is not None:
                composite.check_layout(text)
                assert struct.calcsize(text) == composite.size
                formats += 1
            checked += 1
    assert checked > 1000
    assert formats > 500
