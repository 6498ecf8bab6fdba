# SPDX-License-Identifier: BSD-2-Clause
"""Instructions as text."""

from __future__ import annotations

import struct

import pytest
from pybpf import instructions

# as the verifier of Linux 6.18 spells them: opcode, dst, src, offset, imm
SPELLED = {
    (0x07, 1, 0, 0, -8): "r1 += -8",
    (0x0F, 1, 2, 0, 0): "r1 += r2",
    (0x1C, 1, 2, 0, 0): "w1 -= w2",
    (0x3F, 1, 2, 1, 0): "r1 s/= r2",
    (0x97, 1, 0, 0, 7): "r1 %= 7",
    (0x87, 3, 0, 0, 0): "r3 = -r3",
    (0x84, 3, 0, 0, 0): "w3 = -w3",
    (0xBF, 1, 2, 8, 0): "r1 = (s8)r2",
    (0xDC, 1, 0, 0, 16): "r1 = be16 r1",
    (0xD4, 1, 0, 0, 32): "r1 = le32 r1",
    (0xD7, 1, 0, 0, 64): "r1 = bswap64 r1",
    (0x61, 1, 10, -4, 0): "r1 = *(u32 *)(r10 -4)",
    (0x91, 1, 2, 8, 0): "r1 = *(s8 *)(r2 +8)",
    (0x7A, 10, 0, -8, 5): "*(u64 *)(r10 -8) = 5",
    (0x73, 1, 2, 0, 0): "*(u8 *)(r1 +0) = r2",
    (0xDB, 1, 2, 0, 0x00): "lock *(u64 *)(r1 +0) += r2",
    (0xC3, 1, 2, 0, 0x41): "r2 = atomic_fetch_or((u32 *)(r1 +0), r2)",
    (0xDB, 1, 2, 0, 0xE1): "r2 = atomic64_xchg((u64 *)(r1 +0), r2)",
    (0xDB, 1, 2, 0, 0xF1): "r0 = atomic64_cmpxchg((u64 *)(r1 +0), r0, r2)",
    (0x28, 0, 0, 0, 12): "r0 = *(u16 *)skb[12]",
    (0x50, 0, 6, 0, 0): "r0 = *(u8 *)skb[r6 + 0]",
    (0x05, 0, 0, 3, 0): "goto pc+3",
    (0x06, 0, 0, 0, -3): "gotol pc-3",
    (0xE5, 0, 0, 4, 0): "may_goto pc+4",
    (0x15, 1, 0, 5, -1): "if r1 == 0xffffffff goto pc+5",
    (0x6E, 1, 2, -1, 0): "if w1 s> w2 goto pc-1",
    (0x95, 0, 0, 0, 0): "exit",
    (0x85, 0, 1, 0, 7): "call pc+7",
    (0x85, 0, 0, 0, 1): "call bpf_map_lookup_elem#1",
    (0x85, 0, 0, 0, 2): "call helper#2",
    (0x85, 0, 2, 0, 99): "call bpf_some_kfunc#99",
    (0xFF, 0, 0, 0, 0): "(unknown instruction ff)",
}
FUNCTIONS = {
    (instructions.HELPER, 1): "bpf_map_lookup_elem",
    (instructions.KFUNC, 99): "bpf_some_kfunc",
}


def code(opcode, dst, src, offset, imm):
    return struct.pack("<BBhi", opcode, dst | src << 4, offset, imm)


@pytest.mark.parametrize(("fields", "spelled"), SPELLED.items(), ids=SPELLED.values())
def test_spelled_as_the_verifier_does(fields, spelled):
    (found,) = instructions.parse(code(*fields))
    assert instructions.text(found, FUNCTIONS) == spelled


def test_wide_instructions_take_two_places():
    wide = code(0x18, 1, 0, 0, -1) + code(0, 0, 0, 0, 2)
    first, second = instructions.parse(wide + code(0x95, 0, 0, 0, 0))
    assert instructions.text(first) == "r1 = 0x2ffffffff"
    assert (first.pc, second.pc) == (0, 2)


def test_maps_are_told_by_id():
    wide = code(0x18, 1, 1, 0, 7) + code(0, 0, 0, 0, 0)
    value = code(0x18, 2, 2, 0, 7) + code(0, 0, 0, 0, 16)
    texts = [instructions.text(each) for each in instructions.parse(wide + value)]
    assert texts == ["r1 = map[id:7]", "r2 = map[id:7][0]+16"]


def test_big_endian_programs_have_registers_the_other_way_around():
    (found,) = instructions.parse(struct.pack(">BBhi", 0xBF, 1 << 4 | 2, 0, 0), "big")
    assert instructions.text(found) == "r1 = r2"


def test_what_is_cut_off_is_left_out():
    assert len(list(instructions.parse(code(0x95, 0, 0, 0, 0) + b"\x95\0"))) == 1
