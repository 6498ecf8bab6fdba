# SPDX-License-Identifier: BSD-2-Clause
"""What ELF files tell of their code: where its segments go, and the symbols that name it.

pyelftools reads headers and notes; the symbol tables, which are long, are decoded here.
"""

from __future__ import annotations

import os
import struct
from array import array
from bisect import bisect_right
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, BinaryIO

# ---- symbol tables -------------------------------------------------------------------------------


Symbol = tuple[int, int, int, int]
"""Start, rank, name as offset in the string table, end.

Sorted, the one to prefer comes first among those that start at the same address.  Plain tuples are
much faster to make and sort than named ones.
"""

_GLOBAL, _WEAK, _LOCAL = range(3)  # ranks of symbols with a size ...
_UNSIZED = 3  # ... to which this is added for those that tell none
# by st_info's binding; 10 is GNU's "unique" global
_RANKS = (_LOCAL, _GLOBAL, _WEAK, *[_LOCAL] * 7, _GLOBAL, *[_LOCAL] * 5)
_LONGEST_NAME = 1 << 14


class SymbolTable:
    """Symbols by address; ``strings`` holds their names, each ended by a NUL."""

    def __init__(self, symbols: list[Symbol], strings: bytes) -> None:
        self._strings = strings
        self._starts = array("Q")
        self._ends = array("Q")
        self._names = array("Q")
        self._around: dict[int, int] = {}  # the symbol that a nested one lies in, by index
        self._add(sorted(symbols))

    @property
    def size(self) -> int:
        """About how many bytes of memory it takes."""
        return len(self._strings) + 24 * len(self._starts) + 100 * len(self._around)

    def _add(self, symbols: list[Symbol]) -> None:
        last_start = -1
        open_symbols: list[int] = []  # those that begin before here and may end behind
        for start, rank, name, end in symbols:
            if start == last_start:
                if rank <= _WEAK and self._is_plainer(name):
                    self._names[-1] = name
                continue
            last_start = start
            while open_symbols and self._ends[open_symbols[-1]] <= start:
                open_symbols.pop()
            if open_symbols:
                if rank >= _UNSIZED:
                    continue  # a label within a function
                self._around[len(self._starts)] = open_symbols[-1]
            if rank < _UNSIZED:
                open_symbols.append(len(self._starts))
            self._starts.append(start)
            self._ends.append(end)
            self._names.append(name)

    def _is_plainer(self, name: int) -> bool:
        """Whether that name is better known (poll) than the one added last (__poll)."""
        return self._underscores(name) < self._underscores(self._names[-1])

    def _underscores(self, name: int) -> int:
        head = self._strings[name : name + 8]
        return len(head) - len(head.lstrip(b"_"))

    def find(self, address: int) -> tuple[int, str] | None:
        """The start and the name of the symbol that ``address`` lies in."""
        index: int | None = bisect_right(self._starts, address) - 1
        if index == -1:
            return None
        while index is not None and address >= self._ends[index]:
            index = self._around.get(index)
        if index is None:
            return None
        return self._starts[index], name_at(self._strings, self._names[index])


# ---- ELF -----------------------------------------------------------------------------------------

DEBUG_FILES = "/usr/lib/debug/.build-id"
MAX_TABLE = 1 << 28  # bytes; whoever can start a process decides what its file says
_SYMBOL_64 = "IBBHQQ"  # st_name, st_info, st_other, st_shndx, st_value, st_size
_SYMBOL_32 = "IIIBBH"  # st_name, st_value, st_size, st_info, st_other, st_shndx
_CODE_TYPES = frozenset((0, 2, 10))  # STT_NOTYPE, STT_FUNC, STT_GNU_IFUNC
_SHF_EXECINSTR = 4
_PF_X = 1
_DOLLAR = ord("$")  # begins arm64's and RISC-V's marks of where code and data alternate


class Segment(NamedTuple):
    """A part of the file, and the file's own address of it."""

    offset: int
    size: int
    address: int


def code_segments(elf: Any) -> list[Segment]:
    """Those that hold code."""
    return [
        Segment(segment["p_offset"], segment["p_filesz"], segment["p_vaddr"])
        for segment in elf.iter_segments("PT_LOAD")
        if segment["p_flags"] & _PF_X
    ]


def offset_at(segments: list[Segment], address: int) -> int | None:
    """Where in the file that address of its own is."""
    for segment in segments:
        if segment.address <= address < segment.address + segment.size:
            return segment.offset + address - segment.address
    return None


class Image:
    """The code of an ELF file: where its segments go, and its symbols."""

    def __init__(self, segments: list[Segment], symbols: SymbolTable) -> None:
        self._segments = segments
        self.symbols = symbols
        self.size = symbols.size

    def address_at(self, offset: int) -> int | None:
        """The file's own address of the code at that offset in the file."""
        for start, size, address in self._segments:
            if start <= offset < start + size:
                return address + offset - start
        return None


def read_image(file: BinaryIO) -> Image | None:
    """The code and symbols of an ELF file, None where it is none or damaged."""
    from elftools.elf.elffile import ELFFile

    try:
        elf = ELFFile(file)
        return Image(code_segments(elf), _read_symbols(elf))
    except Exception:  # the bytes may be any, and so is what they make pyelftools raise
        return None


class RawTable(NamedTuple):
    """A symbol table as it is in the file."""

    type: str
    entries: bytes
    strings: bytes
    code_ends: dict[int, int]  # index of each section that holds code -> its end


def _read_symbols(elf: Any) -> SymbolTable:
    """The functions in .dynsym and in .symtab, if need be that of the debug file.

    .dynsym comes first in files, and so wins where both name a place: it has memcpy, and .symtab
    memcpy@@GLIBC_2.14.
    """
    symbols: list[Symbol] = []
    strings = b""
    for table in symbol_tables(elf):
        symbols += _decode_symbols(table, elf.elfclass, elf.little_endian, len(strings))
        strings += table.strings
    return SymbolTable(symbols, strings)


def symbol_tables(elf: Any) -> list[RawTable]:
    """Its own, and those of the debug file where .symtab was stripped."""
    tables = list(_raw_tables(elf))
    if all(table.type != "SHT_SYMTAB" for table in tables):
        tables += _debug_tables(elf)
    return tables


def _raw_tables(elf: Any) -> Iterator[RawTable]:
    sections = list(elf.iter_sections())
    code_ends = {
        index: section["sh_addr"] + section["sh_size"]
        for index, section in enumerate(sections)
        if section["sh_flags"] & _SHF_EXECINSTR
    }
    for section in sections:
        if section["sh_type"] in ("SHT_SYMTAB", "SHT_DYNSYM"):
            strings = _section_bytes(elf, sections[section["sh_link"]])
            entries = _section_bytes(elf, section)
            yield RawTable(section["sh_type"], entries, strings, code_ends)


def _section_bytes(elf: Any, section: Any) -> bytes:
    if section["sh_size"] > MAX_TABLE:
        raise ValueError(f"a table of {section['sh_size']} bytes")
    elf.stream.seek(section["sh_offset"])
    return bytes(elf.stream.read(section["sh_size"]))


def _debug_tables(elf: Any) -> list[RawTable]:
    """The tables of the file that has what was stripped from this one."""
    from elftools.elf.elffile import ELFFile

    build_id = next(
        (
            note["n_desc"]
            for segment in elf.iter_segments("PT_NOTE")
            for note in segment.iter_notes()
            if note["n_type"] == "NT_GNU_BUILD_ID"
        ),
        "",
    )
    try:
        with open(f"{DEBUG_FILES}/{build_id[:2]}/{build_id[2:]}.debug", "rb") as file:
            return list(_raw_tables(ELFFile(file)))
    except OSError:
        return []


def table_entries(table: RawTable, bits: int, little: bool) -> Iterator[tuple[int, ...]]:
    """st_name, st_info, st_other, st_shndx, st_value and st_size of each symbol.

    All in one go: as pyelftools' objects they take twenty times as long.
    """
    layout = struct.Struct(("<" if little else ">") + (_SYMBOL_64 if bits == 64 else _SYMBOL_32))
    whole = len(table.entries) // layout.size * layout.size
    entries: Iterator[tuple[int, ...]] = layout.iter_unpack(table.entries[:whole])
    if bits == 32:
        entries = ((entry[0], *entry[3:], *entry[1:3]) for entry in entries)
    return entries


def name_at(strings: bytes, place: int) -> str:
    """The name that begins there in a string table."""
    end = strings.find(b"\0", place, place + _LONGEST_NAME)
    text = strings[place : end if end >= 0 else place + _LONGEST_NAME]
    return text.decode("utf-8", "replace")


def _decode_symbols(table: RawTable, bits: int, little: bool, shift: int) -> list[Symbol]:
    """The symbols of code; ``shift`` is where the names begin in the joined string tables."""
    strings, code_ends = table.strings, table.code_ends
    return [
        (
            start,
            _RANKS[info >> 4] + (0 if size else _UNSIZED),
            name + shift,
            start + size if size else code_ends[section],
        )
        for name, info, _, section, start, size in table_entries(table, bits, little)
        if section in code_ends
        and info & 15 in _CODE_TYPES
        and (info & 15 or strings[name] != _DOLLAR)
        and strings[name]
    ]


# ---- what was read of files ----------------------------------------------------------------------

CACHE_BYTES = 64 << 20

Identity = tuple[object, ...]
"""What tells a file with its content from others: device, inode, size, time of the last change."""


class Cache:
    """What was read of files; beyond a size, what was not asked for the longest is dropped.

    It has no lock, which a signal handler or a forked child could find taken: each step on the
    dict is atomic, and the worst of a race is that a file is read twice.
    """

    def __init__(self) -> None:
        self._entries: dict[Identity, Any] = {}

    def get(self, identity: Identity, read: Callable[[], Any]) -> Any:
        """What ``read`` returned for that identity; it needs a ``size`` in bytes unless None."""
        entry = self._entries.pop(identity, self)
        if entry is not self:
            self._entries[identity] = entry  # now the last that would be dropped
            return entry
        self._entries[identity] = entry = read()
        self._shrink()
        return entry

    def _shrink(self) -> None:
        entries = list(self._entries.items())
        total = sum(_cost(entry) for _, entry in entries)
        for identity, entry in entries[:-1]:
            if total <= CACHE_BYTES:
                return
            self._entries.pop(identity, None)
            total -= _cost(entry)


def _cost(entry: Any) -> int:
    return 1000 + (0 if entry is None else entry.size)


files = Cache()


def identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
