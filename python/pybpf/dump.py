# SPDX-License-Identifier: BSD-2-Clause
"""What the kernel made of a program: its instructions after the verifier, and machine code."""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass

from pybpf import _native, instructions
from pybpf._native import ffi
from pybpf.btf import Btf
from pybpf.symbols import kernel_symbols

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf.instructions import Instruction


@dataclass(frozen=True)
class SourceLine:
    """A line of the program's C, where it was compiled with -g; counted from 1."""

    file: str
    number: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.text.strip()} @ {self.file.rpartition('/')[2]}:{self.number}"


@dataclass(frozen=True)
class XlatedInstruction:
    """One instruction as the kernel runs it, and the line that it begins, if it begins one.

    ``function`` is the subprogram that begins here.
    """

    instruction: Instruction
    text: str
    line: SourceLine | None
    function: str | None


@dataclass(frozen=True)
class JitedFunction:
    """The machine's code of one function of a program.

    ``address`` is where the kernel has it; ``lines`` are (offset in ``code``, line) pairs.
    """

    name: str
    address: int
    code: bytes
    lines: tuple[tuple[int, SourceLine], ...]


def xlated(fd: int) -> list[XlatedInstruction]:
    """A program's instructions, as Program.xlated() tells."""
    raw = _Raw(fd)
    lines, functions = raw.lines_by_index(), raw.functions_by_index()
    code = list(instructions.parse(raw.xlated, sys.byteorder))
    called = _called(code)
    return [
        XlatedInstruction(
            each, instructions.text(each, called), lines.get(each.pc), functions.get(each.pc)
        )
        for each in code
    ]


def jited(fd: int) -> list[JitedFunction]:
    """A program's machine code, as Program.jited() tells."""
    raw = _Raw(fd)
    names = list(raw.functions_by_index().values())
    found, start = [], 0
    for number, (address, length) in enumerate(zip(raw.addresses, raw.lengths, strict=True)):
        code = raw.jited[start : start + length]
        name = names[number] if number < len(names) else raw.name
        found.append(JitedFunction(name, address, code, raw.jited_lines(address, length)))
        start += length
    return found


def _called(code: list[Instruction]) -> dict[tuple[int, int], str]:
    """The names of the kernel's functions that are called, by how the calls say so.

    The verifier makes a distance of each helper's number: from a function that stands for all.
    """
    calls = {(each.src, each.imm) for each in code if each.is_kernel_call}
    base = _call_base() if calls else None
    if base is None:
        return {}
    frames = kernel_symbols().resolve(base + distance for _, distance in calls)
    pairs = zip(calls, frames, strict=True)
    return {call: frame.symbol for call, frame in pairs if frame.symbol and not frame.offset}


def _call_base() -> int | None:
    """The address of __bpf_call_base; None where it may not be seen."""
    with open("/proc/kallsyms", encoding="ascii") as symbols:
        for line in symbols:
            if line.rstrip("\n").endswith(" __bpf_call_base"):
                return int(line.split()[0], 16) or None
    return None


# what bpf_prog_info points to: the address's field, the count's, and the size of one
_PARTS = (
    ("xlated_prog_insns", "xlated_prog_len", None),
    ("jited_prog_insns", "jited_prog_len", None),
    ("jited_ksyms", "nr_jited_ksyms", None),
    ("jited_func_lens", "nr_jited_func_lens", None),
    ("func_info", "nr_func_info", "func_info_rec_size"),
    ("line_info", "nr_line_info", "line_info_rec_size"),
    ("jited_line_info", "nr_jited_line_info", "jited_line_info_rec_size"),
)
_ELEMENTS = {"xlated_prog_insns": 1, "jited_prog_insns": 1, "jited_ksyms": 8, "jited_func_lens": 4}


class _Raw:
    """``struct bpf_prog_info`` with all that it points to, as far as this process may see it."""

    def __init__(self, fd: int) -> None:
        info = _native.info(fd, "struct bpf_prog_info")
        memory: dict[str, Any] = {}
        request = {}
        for address, count, size in _PARTS:
            if size is not None:
                request[size] = getattr(info, size)
            element = _ELEMENTS.get(address) or request[str(size)]
            memory[address] = ffi.new("char[]", getattr(info, count) * element)
            request[count] = getattr(info, count)
            request[address] = int(ffi.cast("uintptr_t", memory[address])) if request[count] else 0
        self._info = _native.info(fd, "struct bpf_prog_info", **request)
        self._memory = memory
        self.name = _native.text(self._info.name)
        self.xlated = self._bytes("xlated_prog_insns")
        self.jited = self._bytes("jited_prog_insns")
        self.addresses = [each for (each,) in self._records("jited_ksyms", "=Q", 8)]
        self.lengths = [each for (each,) in self._records("jited_func_lens", "=I", 4)]
        self._btf = Btf.from_id(self._info.btf_id) if self._info.btf_id else None

    def _bytes(self, field: str) -> bytes:
        """What the kernel filled in; nothing where it took the address away."""
        return bytes(ffi.buffer(self._memory[field])) if getattr(self._info, field) else b""

    def _records(self, field: str, format: str, size: int) -> list[tuple[Any, ...]]:
        """The start of each record."""
        data = self._bytes(field)
        return [struct.unpack_from(format, data, at) for at in range(0, len(data), size)]

    def functions_by_index(self) -> dict[int, str]:
        """The subprograms' names by their first instruction."""
        if self._btf is None:
            return {}
        records = self._records("func_info", "=II", self._info.func_info_rec_size)
        return {index: self._btf[type_id].name for index, type_id in records}

    def _lines(self) -> list[tuple[int, SourceLine]]:
        """Each line, and the first of its instructions."""
        if self._btf is None:
            return []
        found = []
        for record in self._records("line_info", "=IIII", self._info.line_info_rec_size):
            index, file, text, place = record
            line = SourceLine(
                self._btf.string(file), place >> 10, place & 1023, self._btf.string(text)
            )
            found.append((index, line))
        return found

    def lines_by_index(self) -> dict[int, SourceLine]:
        return dict(self._lines())

    def jited_lines(self, start: int, length: int) -> tuple[tuple[int, SourceLine], ...]:
        """The lines of the function whose code is there, with their offsets in it."""
        size = self._info.jited_line_info_rec_size
        addresses = (
            [each for (each,) in self._records("jited_line_info", "=Q", size)] if size else []
        )
        pairs = zip(addresses, self._lines(), strict=False)  # both from the program's first line on
        return tuple(
            (address - start, line)
            for address, (_, line) in pairs
            if start <= address < start + length
        )
