# SPDX-License-Identifier: BSD-2-Clause
"""What may stand for the type of records, what becomes of them then, and what is refused."""

from __future__ import annotations

import ctypes
import struct

import pybpf
import pytest
from ring_programs import Rings, event

pytestmark = [pytest.mark.native, pytest.mark.requires("bpf_loop")]

u16, u32, u64 = ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64

STARTED = struct.pack("<II16s", 1, 77, b"true")
STOPPED = struct.pack("<Ii", 2, -9)
OTHER = struct.pack("<Ii", 3, 0)


class Started(ctypes.Structure):
    _fields_ = [("kind", u32), ("pid", u32), ("comm", ctypes.c_char * 16)]


class Numbers(ctypes.Structure):
    _fields_ = [("first", u32), ("second", u32)]


class BigNumbers(ctypes.BigEndianStructure):
    _fields_ = [("first", u32), ("second", u32)]


class BigField(ctypes.Structure):
    _fields_ = [("first", u32.__ctype_be__), ("second", u32)]


class Derived(Numbers):
    _fields_ = [("third", u16)]


class Either(ctypes.Union):
    _fields_ = [("number", u32), ("bytes", ctypes.c_ubyte * 8)]


class Needy(ctypes.Structure):
    _fields_ = [("first", u32)]

    def __init__(self, needed):
        pass


class Bits(ctypes.Structure):
    _fields_ = [("first", u32, 3), ("second", u32, 29)]


class Text(ctypes.Structure):
    _fields_ = [("first", ctypes.c_char)]


class Float(ctypes.Structure):
    _fields_ = [("first", ctypes.c_float)]


class Pointer(ctypes.Structure):
    _fields_ = [("first", u32), ("text", ctypes.c_char_p * 2)]


class Nothing(ctypes.Structure):
    pass


@pytest.fixture
def loaded(bpf_object):
    with pybpf.load(bpf_object("rings")) as obj:
        yield obj


@pytest.fixture
def decode(loaded):
    """decode(TYPE, RECORDS): what a reader of that type makes of them."""
    rings = Rings(loaded)

    def decoded(type, *records):
        with loaded.events("untyped", type=type, timeout=0) as reader:
            for record in records:
                rings.send_bytes(record)
            return list(reader)

    return decoded


# ---- single types --------------------------------------------------------------------------------


def test_a_name_and_the_type_itself(decode, loaded):
    for type in ("struct started", loaded.btf["struct started"]):
        (record,) = decode(type, STARTED)
        assert (record.kind, record.pid, record.comm) == (1, 77, b"true")
    assert decode("__u32", b"\1\0\0\0", b"\2\0\0\0more") == [1, 2]


def test_a_struct_class(decode):
    (record,) = decode(Started, STARTED)
    assert type(record) is Started
    assert (record.kind, record.pid, record.comm) == (1, 77, b"true")
    exact, longer = decode(Numbers, bytes(8), bytes(8) + b"tail")
    assert type(exact) is type(longer) is Numbers
    assert (bytes(exact), bytes(longer)) == (bytes(8), bytes(8) + b"tail")


def test_other_classes_of_ctypes(decode):
    (big,) = decode(BigNumbers, struct.pack(">II", 5, 6))
    assert (big.first, big.second) == (5, 6)
    (either,) = decode(Either, b"\7\0\0\0abcd")
    assert (either.number, bytes(either.bytes)) == (7, b"\7\0\0\0abcd")
    assert decode(u16, b"\1\2", b"\3\4\5") == [0x201, 0x403]
    assert decode(u16.__ctype_be__, b"\1\2") == [0x102]
    assert decode(ctypes.c_char, b"x") == [b"x"]
    (array,) = decode(u16 * 3, b"\1\0\2\0\3\0")
    assert list(array) == [1, 2, 3]
    (text,) = decode(ctypes.c_char * 4, b"a\0bc")
    assert text.raw == b"a\0bc"  # and not what is before the NUL
    (empty,) = decode(Nothing, b"all")
    assert bytes(empty) == b"all"


def test_no_init_is_called(decode):
    exact, longer = decode(Needy, b"\1\0\0\0", b"\2\0\0\0\0")
    assert (exact.first, longer.first) == (1, 2)


def test_bytes(decode):
    for type in (None, bytes):
        assert decode(type, b"", b"\0", b"two") == [b"", b"\0", b"two"]


def test_bytes_in_place_of_the_declared_type(loaded):
    with loaded.events("events", type=bytes) as reader:
        Rings(loaded).emit(1)
        assert reader.read() == event(0)


def test_a_dtype(decode):
    np = pytest.importorskip("numpy")
    dtype = np.dtype([("a", "<u2"), ("b", ">u2")])
    one, other = decode(dtype, b"\1\0\0\2", b"\3\0\0\4more")
    assert (one["a"], one["b"], other["a"], other["b"]) == (1, 2, 3, 4)
    assert decode(np.dtype("<i4"), b"\xff\xff\xff\xff") == [-1]
    assert decode(np.uint16, b"\1\2") == [0x201]
    (array,) = decode(np.dtype("(2,)u1"), b"\1\2")
    assert array.tolist() == [1, 2]


@pytest.mark.parametrize("type", ["struct stopped", "__u64", Numbers, u64, lambda data: Numbers])
def test_a_short_record_is_an_error(decode, type):
    with pytest.raises(pybpf.LayoutError, match=r"'untyped'.* 8 bytes, 7 are given") as caught:
        decode(type, bytes(7))
    assert caught.value.record == bytes(7)


def test_a_short_record_of_a_dtype_is_an_error(decode):
    np = pytest.importorskip("numpy")
    with pytest.raises(pybpf.LayoutError, match="8 bytes, 7 are given"):
        decode(np.dtype("u8"), bytes(7))


# ---- a class beside the declared type ------------------------------------------------------------


class Swapped(ctypes.Structure):
    _fields_ = [("inverted", u64), ("sequence", u64)]


class Same(ctypes.Structure):
    _fields_ = [("number", u64), ("its_inverse", u64)]


class Longer(ctypes.Structure):
    _fields_ = [("sequence", u64), ("inverted", u64), ("more", u64)]


def test_a_class_of_the_declared_size_must_be_laid_out_like_it(loaded):
    with pytest.raises(pybpf.LayoutError, match="struct event"):
        loaded.events("events", type=Swapped)
    with loaded.events("events", type=Same) as reader:
        Rings(loaded).emit(1, 5)
        assert reader.read().number == 5
    for type in (Longer, lambda data: Swapped, loaded.btf["struct event"].ctype):
        loaded.events("events", type=type).close()
    loaded.events("untyped", type=Swapped).close()  # which declares none


# ---- functions -----------------------------------------------------------------------------------


def test_a_function_may_give_any_type(decode):
    def choose(data):
        return {1: "struct started", 2: Numbers, 3: None}.get(data[0], {9: "struct stopped"})

    started, numbers, raw, unknown = decode(choose, STARTED, STOPPED, OTHER, b"\4more")
    assert (started.pid, numbers.first, raw, unknown) == (77, 2, OTHER, b"\4more")


@pytest.mark.parametrize(
    ("answer", "error", "match"),
    [
        (5, pybpf.LayoutError, "'untyped': 5 is no type of records"),
        ([], TypeError, "unhashable"),
        ("struct startd", pybpf.NotFoundError, "struct started"),
    ],
)
def test_what_a_function_gives_may_be_no_type(decode, answer, error, match):
    with pytest.raises(error, match=match):
        decode(lambda data: answer, STARTED)


def test_what_a_function_raises_comes_out(loaded):
    rings = Rings(loaded)
    with loaded.events("untyped", type=lambda data: [None, bytes][1 // data[0]]) as reader:
        for record in (b"\1", b"\0", b"\1"):
            rings.send_bytes(record)
        assert reader.read_batch() == [b"\1"]
        with pytest.raises(ZeroDivisionError):
            reader.read_nowait()
        assert reader.read_batch() == [b"\1"]


# ---- tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "table",
    [
        {1: "struct started", 2: "struct stopped"},
        {"STARTED": "struct started", "STOPPED": "struct stopped"},
        {1: Started, "STOPPED": "struct stopped"},
        {"STARTED": Started, "STOPPED": "struct stopped"},  # of which one has no enum
    ],
    ids=["numbers", "names", "mixed", "names of the object's"],
)
def test_a_table_chooses_by_the_first_number(decode, table):
    started, stopped, other, short, empty = decode(table, STARTED, STOPPED, OTHER, b"\1", b"")
    assert (started.pid, stopped.status) == (77, -9)
    assert (other, short, empty) == (OTHER, b"\1", b"")  # as they are


def test_a_table_by_big_endian_numbers(decode):
    for type in (BigNumbers, BigField):
        big, little = decode({1: type}, struct.pack(">II", 1, 2), struct.pack("<II", 1, 2))
        assert big.first == 1
        assert little == struct.pack("<II", 1, 2)


def test_a_table_by_the_first_field_of_a_base(decode):
    (record,) = decode({0x10001: Derived}, struct.pack("<IIH2x", 0x10001, 2, 3))
    assert record.third == 3


def test_a_table_by_a_dtypes_first_bytes(decode):
    np = pytest.importorskip("numpy")
    swapped = np.dtype({"names": ["b", "a"], "formats": ["u1", "<u4"], "offsets": [4, 0]})
    (record,) = decode({0x10001: swapped}, struct.pack("<IB3x", 0x10001, 7))
    assert record["b"] == 7


def test_a_table_with_negative_numbers(decode):
    class Signed(ctypes.Structure):
        _fields_ = [("first", ctypes.c_int32)]

    assert [each.first for each in decode({-1: Signed}, b"\xff\xff\xff\xff")] == [-1]


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ({}, "empty"),
        ({1: "struct started", "STARTED": "struct stopped"}, "'STARTED' stands twice"),
        ({1: "struct started", 2: "struct named_otherwise"}, "named_otherwise begin with .* of 2 "),
        ({1: Numbers, 2: BigNumbers}, "BigNumbers begin with .* big-endian.*little-endian"),
        ({1 << 32: "struct started"}, "no record begins with 4294967296"),
        ({-1: "struct started"}, "no record begins with -1"),
        ({None: "struct started"}, "not None"),
        ({1.0: "struct started"}, "not 1.0"),
        ({1: None}, "untyped records do not begin with a number"),
        ({1: {2: "struct started"}}, "several types do not begin with a number"),
        ({1: Bits}, "Bits do not begin with a number"),
        ({1: Text}, "Text do not begin with a number"),
        ({1: Float}, "Float do not begin with a number"),
        ({1: Nothing}, "Nothing do not begin with a number"),
    ],
)
def test_tables_that_cannot_choose(loaded, table, match):
    with pytest.raises(pybpf.LayoutError, match=match):
        loaded.events("untyped", type=table)


def test_a_table_with_an_unknown_enumerator(loaded):
    for type in ("struct started", Started):
        with pytest.raises(pybpf.NotFoundError, match="did you mean 'STARTED'"):
            loaded.events("untyped", type={"STARTE": type})
    # which the object has, but not the enum that the records begin with
    with pytest.raises(pybpf.NotFoundError, match="'UNTYPED'; there are: STARTED, STOPPED"):
        loaded.events("untyped", type={"UNTYPED": "struct started"})


# ---- nonsense ------------------------------------------------------------------------------------


NONSENSE = [5, 1.5, [], (1, 2), object(), int, dict, object, b"struct event"]
ABSTRACT = [ctypes.Structure, ctypes.Union, ctypes.Array]


@pytest.mark.parametrize("type", NONSENSE + ABSTRACT)
def test_what_is_no_type(loaded, type):
    with pytest.raises(pybpf.LayoutError, match="is no type of records"):
        loaded.events("untyped", type=type)


@pytest.mark.parametrize("type", ["struct nothing", "", "void", "struct Started"])
def test_names_of_no_type(loaded, type):
    with pytest.raises(pybpf.NotFoundError, match="no type named"):
        loaded.events("untyped", type=type)


@pytest.mark.parametrize(
    "type",
    [
        ctypes.c_char_p,
        ctypes.py_object,
        ctypes.c_wchar_p * 2,
        Pointer,
        ctypes.POINTER(u32),
        ctypes.CFUNCTYPE(u32) * 2,
    ],
)
def test_classes_that_would_follow_addresses(loaded, type):
    with pytest.raises(pybpf.LayoutError, match="address in this process"):
        loaded.events("untyped", type=type)


@pytest.mark.parametrize("dtype", ["O", "V0", [("a", "O"), ("b", "u4")]])
def test_dtypes_that_are_no_bytes(loaded, dtype):
    np = pytest.importorskip("numpy")
    with pytest.raises(pybpf.LayoutError, match="is no type of records"):
        loaded.events("untyped", type=np.dtype(dtype))


def test_a_class_that_numpy_does_not_know(loaded):
    pytest.importorskip("numpy")
    with loaded.events("untyped", type=Bits) as reader:
        Rings(loaded).send_bytes(bytes(4))
        with pytest.raises(pybpf.LayoutError, match="numpy has no dtype"):
            reader.read_numpy()
        assert len(reader.read_batch()) == 1
