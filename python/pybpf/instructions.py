# SPDX-License-Identifier: BSD-2-Clause
"""BPF instructions as text, spelled as the verifier spells them in its logs.  Pure: bytes in."""

from __future__ import annotations

import struct
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_SIZE = 8
# classes: the lowest three bits of the opcode
_LD, _LDX, _ST, _STX, _ALU, _JMP, _JMP32, _ALU64 = range(8)
_SIZES = {0x00: "32", 0x08: "16", 0x10: "8", 0x18: "64"}
# modes of loads and stores
_IMM, _ABS, _IND, _MEM, _MEMSX, _ATOMIC = 0x00, 0x20, 0x40, 0x60, 0x80, 0xC0
_FROM_REGISTER = 0x08
_ARITHMETIC = {
    0x00: "+=",
    0x10: "-=",
    0x20: "*=",
    0x30: "/=",
    0x40: "|=",
    0x50: "&=",
    0x60: "<<=",
    0x70: ">>=",
    0x90: "%=",
    0xA0: "^=",
    0xB0: "=",
    0xC0: "s>>=",
}
_NEG, _END, _DIV, _MOD, _MOV = 0x80, 0xD0, 0x30, 0x90, 0xB0
_COMPARISONS = {
    0x10: "==",
    0x20: ">",
    0x30: ">=",
    0x40: "&",
    0x50: "!=",
    0x60: "s>",
    0x70: "s>=",
    0xA0: "<",
    0xB0: "<=",
    0xC0: "s<",
    0xD0: "s<=",
}
_JA, _CALL, _EXIT, _JCOND = 0x00, 0x80, 0x90, 0xE0
_FETCH = 0x01
_ATOMIC_OPERATIONS = {0x00: "add", 0x40: "or", 0x50: "and", 0xA0: "xor"}
_XCHG, _CMPXCHG, _LOAD_ACQUIRE, _STORE_RELEASE = 0xE1, 0xF1, 0x100, 0x110
# what the source register of a 64-bit load, or of a call, stands for
_MAP_FD, _MAP_VALUE, _BTF_ID, _FUNC, _MAP_INDEX, _MAP_INDEX_VALUE = 1, 2, 3, 4, 5, 6
HELPER, _SUBPROGRAM, KFUNC = 0, 1, 2


class Instruction(NamedTuple):
    """One instruction, of 8 bytes, or of 16 where it loads 64 bits (``is_wide``).

    ``pc`` counts in units of 8 bytes, as the verifier and jumps do.
    """

    pc: int
    opcode: int
    dst: int
    src: int
    offset: int
    imm: int
    is_wide: bool

    @property
    def kind(self) -> int:
        """The class: BPF_LD (0), LDX, ST, STX, ALU, JMP, JMP32, ALU64 (7)."""
        return self.opcode & 7

    @property
    def is_kernel_call(self) -> bool:
        """Whether it calls a function of the kernel: a helper or a kfunc."""
        return self.opcode == _JMP | _CALL and self.src in (HELPER, KFUNC)


def parse(code: bytes, byteorder: str = "little") -> Iterator[Instruction]:
    """The instructions of a program; the second half of a wide one belongs to the first."""
    order = "<" if byteorder == "little" else ">"
    position = 0
    while position + _SIZE <= len(code):
        opcode, registers, offset, imm = struct.unpack_from(f"{order}BBhi", code, position)
        dst, src = registers & 15, registers >> 4
        if order == ">":
            dst, src = src, dst
        pc = position // _SIZE
        is_wide = opcode == 0x18 and position + 2 * _SIZE <= len(code)
        if is_wide:
            high = struct.unpack_from(f"{order}4xi", code, position + _SIZE)[0]
            imm = (imm & 0xFFFFFFFF) | (high & 0xFFFFFFFF) << 32
        yield Instruction(pc, opcode, dst, src, offset, imm, is_wide)
        position += 2 * _SIZE if is_wide else _SIZE


def text(instruction: Instruction, functions: Mapping[tuple[int, int], str] | None = None) -> str:
    """It as the verifier writes it: "r1 = *(u64 *)(r0 +0)".

    ``functions`` are the names of what is called, by the call's source register (HELPER, or KFUNC)
    and number.
    """
    if instruction.kind in (_JMP, _JMP32):
        return _jump(instruction, functions or {})
    return (
        _SPELLINGS[instruction.kind](instruction)
        or f"(unknown instruction {instruction.opcode:02x})"
    )


# ---- arithmetic ----------------------------------------------------------------------------------


def _alu(i: Instruction) -> str:
    letter = "r" if i.kind == _ALU64 else "w"
    operation, dst = i.opcode & 0xF0, f"{letter}{i.dst}"
    if operation == _NEG:
        return f"{dst} = -{dst}"
    if operation == _END:
        return _swap(i)
    sign = "s" if i.offset == 1 and operation in (_DIV, _MOD) else ""
    if operation not in _ARITHMETIC:
        return ""
    word = sign + _ARITHMETIC[operation]
    if not i.opcode & _FROM_REGISTER:
        return f"{dst} {word} {i.imm}"
    cast = f"(s{i.offset})" if operation == _MOV and i.offset in (8, 16, 32) else ""
    if operation == _MOV and i.offset == 1:
        return f"{dst} = addr_space_cast({dst[0]}{i.src}, {i.imm >> 16}, {i.imm & 0xFFFF})"
    return f"{dst} {word} {cast}{letter}{i.src}"


def _swap(i: Instruction) -> str:
    if i.kind == _ALU64:
        return f"r{i.dst} = bswap{i.imm} r{i.dst}"
    order = "be" if i.opcode & _FROM_REGISTER else "le"
    return f"r{i.dst} = {order}{i.imm} r{i.dst}"


# ---- memory --------------------------------------------------------------------------------------


def _place(i: Instruction, register: int, sign: str = "u") -> str:
    return f"*({sign}{_SIZES[i.opcode & 0x18]} *)(r{register} {i.offset:+d})"


def _load(i: Instruction) -> str:
    mode = i.opcode & 0xE0
    if mode not in (_MEM, _MEMSX):
        return ""
    return f"r{i.dst} = {_place(i, i.src, 's' if mode == _MEMSX else 'u')}"


def _store_number(i: Instruction) -> str:
    return f"{_place(i, i.dst)} = {i.imm}" if i.opcode & 0xE0 == _MEM else ""


def _store(i: Instruction) -> str:
    mode = i.opcode & 0xE0
    if mode == _MEM:
        return f"{_place(i, i.dst)} = r{i.src}"
    return _atomic(i) if mode == _ATOMIC else ""


def _atomic(i: Instruction) -> str:
    width = _SIZES[i.opcode & 0x18]
    atomic = "atomic64" if width == "64" else "atomic"
    pointer = f"(u{width} *)(r{i.dst} {i.offset:+d})"
    operation = _ATOMIC_OPERATIONS.get(i.imm & ~_FETCH)
    if i.imm == _XCHG:
        return f"r{i.src} = {atomic}_xchg({pointer}, r{i.src})"
    if i.imm == _CMPXCHG:
        return f"r0 = {atomic}_cmpxchg({pointer}, r0, r{i.src})"
    if i.imm == _LOAD_ACQUIRE:
        return f"r{i.dst} = load_acquire((u{width} *)(r{i.src} {i.offset:+d}))"
    if i.imm == _STORE_RELEASE:
        return f"store_release({pointer}, r{i.src})"
    if operation is None:
        return ""
    if i.imm & _FETCH:
        return f"r{i.src} = {atomic}_fetch_{operation}({pointer}, r{i.src})"
    return f"lock *{pointer} {_ARITHMETIC[i.imm]} r{i.src}"


def _load_number(i: Instruction) -> str:
    mode = i.opcode & 0xE0
    if mode == _ABS:
        return f"r0 = *(u{_SIZES[i.opcode & 0x18]} *)skb[{i.imm}]"
    if mode == _IND:
        return f"r0 = *(u{_SIZES[i.opcode & 0x18]} *)skb[r{i.src} + {i.imm}]"
    if not i.is_wide:
        return ""
    low, high = i.imm & 0xFFFFFFFF, i.imm >> 32
    meaning = {
        _MAP_FD: f"map[id:{low}]",
        _MAP_VALUE: f"map[id:{low}][0]+{high}",
        _BTF_ID: f"type[id:{low}] of btf {high}",
        _FUNC: f"func[pc{_signed(low):+d}]",
        _MAP_INDEX: f"map[{low}]",
        _MAP_INDEX_VALUE: f"map[{low}][0]+{high}",
    }
    return f"r{i.dst} = {meaning.get(i.src, hex(i.imm))}"


def _signed(number: int) -> int:
    return number - (1 << 32) if number >> 31 else number


# ---- jumps ---------------------------------------------------------------------------------------


def _jump(i: Instruction, functions: Mapping[tuple[int, int], str]) -> str:
    operation, letter = i.opcode & 0xF0, "r" if i.kind == _JMP else "w"
    if operation == _CALL:
        return _call(i, functions)
    if operation == _EXIT:
        return "exit"
    if operation == _JA:
        return f"goto pc{i.offset:+d}" if i.kind == _JMP else f"gotol pc{i.imm:+d}"
    if operation == _JCOND:
        return f"may_goto pc{i.offset:+d}"
    if operation not in _COMPARISONS:
        return f"(unknown instruction {i.opcode:02x})"
    right = f"{letter}{i.src}" if i.opcode & _FROM_REGISTER else hex(i.imm & 0xFFFFFFFF)
    return f"if {letter}{i.dst} {_COMPARISONS[operation]} {right} goto pc{i.offset:+d}"


def _call(i: Instruction, functions: Mapping[tuple[int, int], str]) -> str:
    if i.src == _SUBPROGRAM:
        return f"call pc{i.imm:+d}"
    unnamed = "kfunc" if i.src == KFUNC else "helper"
    return f"call {functions.get((i.src, i.imm), unnamed)}#{i.imm}"


_SPELLINGS: dict[int, Callable[[Instruction], str]] = {
    _LD: _load_number,
    _LDX: _load,
    _ST: _store_number,
    _STX: _store,
    _ALU: _alu,
    _ALU64: _alu,
}
