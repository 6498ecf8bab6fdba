# SPDX-License-Identifier: BSD-2-Clause
"""Scalars and holes of types, against what layout.py makes of the same BTF."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from btf_sources import compile_bpf, info, raw_btf
from pybpf import layout, shape
from pybpf.btf import Btf, Composite, Kind
from pybpf.errors import LayoutError, ObjectFormatError

KERNEL = Path("/sys/kernel/btf/vmlinux")

SOURCE = """
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
struct full { u32 a, b; u64 c; } full;
struct padded { u8 a; u32 b; u16 c; } padded;
struct nested { u8 kind; struct padded pairs[2]; union { u8 one; u32 four; }; } nested;
struct bits { u32 a : 3; u32 : 4; u32 b : 6; u8 c; u64 d : 40; } bits;
union loose { u8 byte; char text[11]; u32 word; } loose;
union split { struct { u8 x; u32 y; } one; struct { u16 p; u32 q; } two; } split;
struct aligned { u8 a; } __attribute__((aligned(16))) aligned;
struct packed { u8 a; u64 b; } __attribute__((packed)) packed;
struct grid { struct { u8 x; u16 y; } cells[2][3]; } grid;
struct flexible { u64 a; u8 b; u8 more[]; } flexible;
typedef const struct padded key_t;
key_t key;
"""


@pytest.fixture(scope="module", params=["little", "big"])
def btf(request: pytest.FixtureRequest) -> Btf:
    return Btf(compile_bpf(SOURCE, request.param).btf)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("struct full", []),
        ("struct packed", []),
        ("struct padded", [(1, 3, "a", "__u8 a_pad[3];"), (10, 2, "c", "__u8 c_pad[2];")]),
        ("key_t", [(1, 3, "a", "__u8 a_pad[3];"), (10, 2, "c", "__u8 c_pad[2];")]),
        (
            "struct nested",
            [
                (1, 3, "kind", "__u8 kind_pad[3];"),
                (5, 3, "pairs[0].a", "__u8 a_pad[3];"),
                (14, 2, "pairs[0].c", "__u8 c_pad[2];"),
                (17, 3, "pairs[1].a", "__u8 a_pad[3];"),
                (26, 2, "pairs[1].c", "__u8 c_pad[2];"),
            ],
        ),
        (
            "struct bits",
            [
                (0, 1, "a", "__u32 a_pad : 4;"),
                (1, 1, "b", "__u32 b_pad : 3;"),
            ],
        ),
        ("union loose", [(11, 1, "text", "")]),
        ("union split", [(2, 2, "two.p", "__u8 p_pad[2];")]),
        ("struct aligned", [(1, 15, "a", "__u8 a_pad[15];")]),
        ("struct flexible", [(9, 7, "b", "__u8 b_pad[7];")]),
        (
            "struct grid",
            [
                (4 * number + 1, 1, f"cells[{number // 3}][{number % 3}].x", "__u8 x_pad;")
                for number in range(6)
            ],
        ),
    ],
)
def test_holes(btf: Btf, key: str, expected: list[tuple[int, int, str, str]]) -> None:
    found = layout.holes(btf[key])
    assert [(hole.offset, hole.size, hole.after, hole.fix) for hole in found] == expected


def test_a_struct_filled_as_its_fixes_say_has_no_holes(btf: Btf) -> None:
    """Compile what the fixes say."""
    code = "struct padded { u8 a; u32 b; u16 c; }"
    for hole in layout.holes(btf["struct padded"]):
        code = code.replace(f" {hole.after};", f" {hole.after}; {hole.fix}")
    types = "typedef unsigned char __u8, u8; typedef unsigned short u16; typedef unsigned int u32;"
    filled = Btf(compile_bpf(f"{types}\n{code} filled;").btf)["struct padded"]
    assert layout.holes(filled) == []
    assert filled.size == btf["struct padded"].size


def test_leaves(btf: Btf) -> None:
    found = shape.leaves(btf["struct nested"])
    assert [(leaf.path, leaf.bit, leaf.width, leaf.length) for leaf in found] == [
        ("kind", 0, 8, 1),
        ("pairs[0].a", 32, 8, 1),
        ("pairs[0].b", 64, 32, 1),
        ("pairs[0].c", 96, 16, 1),
        ("pairs[1].a", 128, 8, 1),
        ("pairs[1].b", 160, 32, 1),
        ("pairs[1].c", 192, 16, 1),
        ("one", 224, 8, 1),
        ("four", 224, 32, 1),
    ]


def test_holes_leaves_and_definitions_of_every_struct_of_the_kernel() -> None:
    if not KERNEL.exists():
        pytest.skip("this kernel has no BTF")
    checked = 0
    for composite in Btf(KERNEL.read_bytes()):
        if isinstance(composite, Composite):
            try:
                leaves = shape.leaves(composite)
            except LayoutError:
                assert composite.size > 100_000
                continue
            used = 0
            for leaf in leaves:
                used |= ((1 << leaf.end - leaf.bit) - 1) << leaf.bit
            unused = 0
            for hole in shape.holes(composite):
                assert hole.offset * 8 <= hole.bit < hole.bit + hole.bits
                assert hole.bit + hole.bits <= 8 * (hole.offset + hole.size)
                unused |= ((1 << hole.bits) - 1) << hole.bit
            whole = (1 << 8 * composite.size) - 1
            assert used == whole ^ unused, composite
            assert used == layout._codec(composite).mask, composite
            assert shape.definition(composite).endswith(f"/* size {composite.size} */")
            checked += 1
    assert checked > 5000


@pytest.mark.parametrize(
    "types",
    [
        # a struct within itself; a billion structs with a hole; structs that double
        [(1, info(Kind.STRUCT, 1), 4, 1, 1, 0)],
        [
            (1, info(Kind.ARRAY), 0, 2, 3, 1 << 30),
            (1, info(Kind.STRUCT, 1), 4, 1, 3, 8),
            (1, info(Kind.INT), 1, 8),
        ],
        [
            *((1, info(Kind.STRUCT, 2), 4, 1, n + 2, 0, 1, n + 2, 0) for n in range(40)),
            (1, info(Kind.STRUCT), 0),
        ],
    ],
)
def test_damaged_types_end(types: list[tuple[int, ...]]) -> None:
    damaged = Btf(raw_btf(types, b"\0x\0"))[1]
    with pytest.raises(LayoutError, match=r"nested more than 64 deep|more than 100000 members"):
        shape.holes(damaged)


def test_arrays_without_end_of_nothing() -> None:
    types = [(1, info(Kind.ARRAY), 0, 2, 2, 1 << 31), (1, info(Kind.STRUCT), 0)]
    nothing = Btf(raw_btf(types, b"\0x\0"))[1]
    assert shape.holes(nothing) == shape.leaves(nothing) == []


def test_flipped_bytes_raise_nothing_else() -> None:
    data = compile_bpf(SOURCE).btf
    chance = random.Random(3)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[chance.randrange(24, len(data))] = chance.randrange(256)
        try:
            btf = Btf(bytes(damaged))
            types = list(btf)
        except ObjectFormatError:
            continue
        for each in types:
            for look in (shape.holes, shape.leaves):
                try:
                    look(each)
                except (ObjectFormatError, LayoutError):
                    pass
