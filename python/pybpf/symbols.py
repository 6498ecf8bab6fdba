# SPDX-License-Identifier: BSD-2-Clause
"""Names for the addresses of stack traces: the kernel's symbols and, through ELF, a process's.

    for frame in symbols.resolve(symbols.decode_addresses(value), pid):
        print(frame)  # do_sys_openat2+0x5a, malloc+0x12 (libc.so.6), 0x7f01234 [unknown]

Names are those of the symbol tables: C++ and Rust names stay mangled, and an inlined function goes
by the name of the function that it is part of.
"""

from __future__ import annotations

import os
import stat
import struct
import time
from array import array
from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import NamedTuple

from pybpf._native import ffi, lib
from pybpf.errors import LayoutError, PrivilegeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, BinaryIO

__all__ = [
    "BuildIdEntry",
    "Frame",
    "KernelSymbols",
    "UserSymbols",
    "decode_addresses",
    "decode_build_ids",
    "kernel_symbols",
    "resolve",
]

_KERNEL_HALF = 1 << 63  # x86-64 and arm64 have the kernel in the upper half of all addresses


class Frame(NamedTuple):
    """One address of a stack and what lies there.

    ``symbol`` is the function, ``offset`` the bytes from its start, ``module`` whose it is:
    "vmlinux", a kernel module, "bpf" for BPF programs, or the path of a process's file as that
    process sees it.  What is not known is None.  An address in a file but in no symbol of it has
    as ``offset`` the file's own address, which is what addr2line wants.
    """

    address: int
    symbol: str | None = None
    offset: int | None = None
    module: str | None = None

    def __str__(self) -> str:
        if self.symbol is None:
            return f"{self.address:#x} [unknown]{self._place()}"
        name = f"{self.symbol}+{self.offset:#x}"
        if self.address < _KERNEL_HALF:
            return f"{name} ({self._short_module()})"
        return name if self.module == "vmlinux" else f"{name} [{self.module}]"

    def _place(self) -> str:
        if self.module is None:
            return ""
        offset = "" if self.offset is None else f"+{self.offset:#x}"
        return f" ({self._short_module()}{offset})"

    def _short_module(self) -> str:
        return (self.module or "").rpartition("/")[2]


def resolve(addresses: Iterable[int], pid: int | None = None) -> list[Frame]:
    """The frames of a stack, innermost first, as a map of type STACK_TRACE holds it.

    Kernel addresses get the kernel's names, and others those of process ``pid`` as it is now;
    without ``pid`` they stay numbers.  What cannot be named stays a number: kernel addresses where
    the kernel hides its own (``kernel_symbols().reason``), and those of a process that has ended.
    To name many stacks of a process, or of one that may end before, make a UserSymbols of it.

    All but the first address are return addresses, so the byte before counts: where a function
    ends in a call that never returns, the caller is named and not what lies behind it.  Addresses
    that are no stack are resolved one by one.

    ``pid`` is a number of this process's pid namespace.  If the kernel gave it to another process
    since the stack was taken, the names are of that one's files.

    PrivilegeError: this process may not look into ``pid``.  ValueError: no process has such a pid.
    """
    addresses = list(addresses)
    kernel = iter(kernel_symbols().resolve(_kernel_part(addresses)))
    user_part = [address for address in addresses if address < _KERNEL_HALF]
    user = _user_frames(user_part, pid)
    return [next(user if address < _KERNEL_HALF else kernel) for address in addresses]


def _kernel_part(addresses: Iterable[int]) -> list[int]:
    return [address for address in addresses if address >= _KERNEL_HALF]


def _user_frames(addresses: list[int], pid: int | None) -> Iterator[Frame]:
    if pid is None or not addresses:
        return map(Frame, addresses)
    return iter(UserSymbols(pid).resolve(addresses))


def _lookups(addresses: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Each address with the one to look up: of a return address, a byte of the call before it."""
    return ((address, address - (place > 0)) for place, address in enumerate(addresses))


# ---- values of maps ------------------------------------------------------------------------------


def decode_addresses(data: bytes) -> list[int]:
    """The addresses in a value of a STACK_TRACE map, or in what bpf_get_stack() wrote.

    They are 64-bit numbers of this machine's byte order, innermost first; a 0 ends them.
    LayoutError where the length is no multiple of 8.
    """
    if len(data) % 8:
        raise LayoutError(f"a stack is made of 8-byte addresses, but these are {len(data)} bytes")
    addresses = array("Q", data).tolist()
    return addresses[: addresses.index(0)] if 0 in addresses else addresses


class BuildIdEntry(NamedTuple):
    """An address of a stack as a place in a file, which needs no process to be named later.

    ``build_id`` is 40 hexadecimal digits (shorter ids end in zeros), ``address`` then the offset in
    the file with that id.  Where the kernel could not tell the file, ``build_id`` is None, and
    ``address`` is what it is elsewhere: an address of the process or the kernel.
    """

    build_id: str | None
    address: int


# struct bpf_stack_build_id: status, build_id, offset or ip
_BUILD_ID_ENTRY = struct.Struct("=i20sQ")
_EMPTY, _VALID = 0, 1  # enum bpf_stack_build_id_status; 2 is an ip


def decode_build_ids(data: bytes) -> list[BuildIdEntry]:
    """The entries in a value of a STACK_TRACE map that was made with BPF_F_STACK_BUILD_ID.

    The same goes for bpf_get_stack() with BPF_F_USER_BUILD_ID.  LayoutError where the length is no
    multiple of 32, the size of a ``struct bpf_stack_build_id``.
    """
    if len(data) % _BUILD_ID_ENTRY.size:
        raise LayoutError(
            f"a stack of build ids is made of {_BUILD_ID_ENTRY.size}-byte entries "
            f"(struct bpf_stack_build_id), but these are {len(data)} bytes"
        )
    entries = []
    for status, build_id, address in _BUILD_ID_ENTRY.iter_unpack(data):
        if status == _EMPTY:
            break
        entries.append(BuildIdEntry(build_id.hex() if status == _VALID else None, address))
    return entries


# ---- the kernel ----------------------------------------------------------------------------------

_ADDRESS_DIGITS = 16
_TYPE_COLUMN = _ADDRESS_DIGITS + len(" ")
_NAME_COLUMN = _TYPE_COLUMN + len("t ")
_BRACKET = ord("]")  # the last of a line that names a module: ADDRESS t NAME<tab>[MODULE]
_TEXT_TYPES = b"tTwW"
_BATCH = 1 << 16  # bytes of /proc/kallsyms at a time, so few that memory is reused
_MODULES_REACH = 1 << 20  # bytes; no function of a module and hardly a BPF program is longer
_MAX_AGE = 5.0  # seconds; reading takes 0.1, so this costs a busy profiler 2 % of a processor


class _Listing:
    """Lines of /proc/kallsyms by address.

    Arrays of numbers and one text: as a list of objects they would take five times the memory.
    """

    def __init__(self) -> None:
        self.starts = array("Q")
        self._name_ends = array("I", [0])
        self._names = bytearray()

    def add(self, lines: list[bytes]) -> None:
        """Append lines, which are in the order of their addresses."""
        self.starts.extend([int(line[:_ADDRESS_DIGITS], 16) for line in lines])
        names = [line[_NAME_COLUMN:] for line in lines]
        ends = accumulate(map(len, names), initial=self._name_ends.pop())
        self._name_ends.extend(ends)
        self._names += b"".join(names)

    def find(self, address: int) -> tuple[int, str] | None:
        """The nearest symbol at or below: its start, and its name with the module if it has one."""
        after = bisect_right(self.starts, address)
        if after == 0:
            return None
        # of several names, the first is the one that the kernel itself would print
        index = bisect_left(self.starts, self.starts[after - 1])
        name = self._names[self._name_ends[index] : self._name_ends[index + 1]]
        return self.starts[index], name.decode("utf-8", "replace").rstrip("\n")

    def start_of(self, name: str) -> int | None:
        """Where the symbol of that name starts."""
        place = self._names.find(f"\n{name}\n".encode())
        return None if place < 0 else self.starts[bisect_right(self._name_ends, place)]


class KernelSymbols:
    """The kernel's functions, those of its modules, and BPF programs, from /proc/kallsyms.

    Read at the first use, which takes some 0.1 s, and then kept.  ``path`` may be a saved listing.
    """

    def __init__(self, path: str = "/proc/kallsyms") -> None:
        self._path = path
        self._read_at: float | None = None
        self._newest_program = 0
        self._reason = ""
        self._core = _Listing()
        self._core_range = range(0)
        self._modules = _Listing()

    @property
    def available(self) -> bool:
        """Whether there are names; ``reason`` tells why not."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Why there are no names, and what to do about it; "" where there are."""
        self._read_once()
        return self._reason

    def resolve(self, addresses: Iterable[int]) -> list[Frame]:
        """The frames of a stack, innermost first; see resolve() for what that means.

        BPF programs and modules come and go.  So for an address outside the kernel's own text, the
        listing is read again where a BPF program was loaded since, and where it is older than five
        seconds.  Without CAP_SYS_ADMIN, nothing tells of new programs and only the age counts.
        """
        addresses = list(addresses)
        if not addresses:
            return []
        self._read_once()
        core = self._core_range
        if not all(address in core for address in addresses) and self._is_stale():
            self.refresh()
        return [self._frame(address, lookup) for address, lookup in _lookups(addresses)]

    def refresh(self) -> None:
        """Read the listing again."""
        newest_program = _newest_program(self._newest_program)
        core, modules = _Listing(), _Listing()
        reason = ""
        try:
            _read_kallsyms(self._path, core, modules)
        except OSError as error:
            reason = f"{self._path} cannot be read: {error.strerror}"
        if not reason and not any(core.starts):
            reason = _hidden_addresses(self._path)
        if reason:
            core, modules = _Listing(), _Listing()
        self._core, self._modules, self._reason = core, modules, reason
        self._core_range = _text_of(core)
        self._newest_program, self._read_at = newest_program, time.monotonic()

    def _read_once(self) -> None:
        if self._read_at is None:
            self.refresh()

    def _is_stale(self) -> bool:
        if self._reason or self._read_at is None:
            return False
        return (
            _newest_program(self._newest_program) != self._newest_program
            or time.monotonic() - self._read_at > _MAX_AGE
        )

    def _frame(self, address: int, lookup: int) -> Frame:
        in_core = lookup in self._core_range
        found = (self._core if in_core else self._modules).find(lookup)
        # the listing has no sizes, so what lies far behind the last of the modules is nobody's
        if found is None or (not in_core and lookup - found[0] >= _MODULES_REACH):
            return Frame(address)
        start, name = found
        symbol, _, module = name.partition("\t")
        return Frame(address, symbol, address - start, module.strip("[]") or "vmlinux")


def _read_kallsyms(path: str, core: _Listing, modules: _Listing) -> None:
    of_modules = []
    with open(path, "rb") as listing:
        while lines := listing.readlines(_BATCH):
            text = [line for line in lines if line[_TYPE_COLUMN] in _TEXT_TYPES]
            core.add([line for line in text if line[-2] != _BRACKET])
            of_modules += [line for line in text if line[-2] == _BRACKET]
    of_modules.sort(key=lambda line: line[:_ADDRESS_DIGITS])
    modules.add(of_modules)


def _text_of(core: _Listing) -> range:
    """Where the kernel's own functions are, but for those that were freed after booting."""
    if not core.starts:
        return range(0)
    return range(core.starts[0], core.start_of("_etext") or core.starts[-1] + 1)


def _hidden_addresses(path: str) -> str:
    try:
        with open("/proc/sys/kernel/kptr_restrict", encoding="ascii") as setting:
            restrict = setting.read().strip()
    except OSError:
        restrict = "unknown"
    return (
        f"{path} shows no addresses (kernel.kptr_restrict is {restrict}): "
        "run with CAP_SYSLOG and kernel.kptr_restrict below 2"
    )


def _newest_program(last: int) -> int:
    """The id of the BPF program loaded last, of those with ids above ``last``; else ``last``."""
    id = ffi.new("uint32_t *", last)
    while lib.bpf_prog_get_next_id(id[0], id) == 0:
        pass
    return int(id[0])


_kernel = KernelSymbols()


def kernel_symbols() -> KernelSymbols:
    """The running kernel's symbols, one for the whole process."""
    return _kernel


# ---- symbol tables -------------------------------------------------------------------------------


_Symbol = tuple[int, int, int, int]
"""Start, rank, name as offset in the string table, end.

Sorted, the one to prefer comes first among those that start at the same address.  Plain tuples are
much faster to make and sort than named ones.
"""

_GLOBAL, _WEAK, _LOCAL = range(3)  # ranks of symbols with a size ...
_UNSIZED = 3  # ... to which this is added for those that tell none
# by st_info's binding; 10 is GNU's "unique" global
_RANKS = (_LOCAL, _GLOBAL, _WEAK, *[_LOCAL] * 7, _GLOBAL, *[_LOCAL] * 5)
_LONGEST_NAME = 1 << 14


class _SymbolTable:
    """Symbols by address; ``strings`` holds their names, each ended by a NUL."""

    def __init__(self, symbols: list[_Symbol], strings: bytes) -> None:
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

    def _add(self, symbols: list[_Symbol]) -> None:
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
        name = self._names[index]
        end = self._strings.find(b"\0", name, name + _LONGEST_NAME)
        text = self._strings[name : end if end >= 0 else name + _LONGEST_NAME]
        return self._starts[index], text.decode("utf-8", "replace")


# ---- ELF -----------------------------------------------------------------------------------------

_DEBUG_FILES = "/usr/lib/debug/.build-id"
_MAX_TABLE = 1 << 28  # bytes; whoever can start a process decides what its file says
_SYMBOL_64 = "IBBHQQ"  # st_name, st_info, st_other, st_shndx, st_value, st_size
_SYMBOL_32 = "IIIBBH"  # st_name, st_value, st_size, st_info, st_other, st_shndx
_CODE_TYPES = frozenset((0, 2, 10))  # STT_NOTYPE, STT_FUNC, STT_GNU_IFUNC
_SHF_EXECINSTR = 4
_PF_X = 1
_DOLLAR = ord("$")  # begins arm64's and RISC-V's marks of where code and data alternate


class _Image:
    """The code of an ELF file: where its segments go, and its symbols."""

    def __init__(self, segments: list[tuple[int, int, int]], symbols: _SymbolTable) -> None:
        self._segments = segments  # (offset in the file, size there, address)
        self.symbols = symbols
        self.size = symbols.size

    def address_at(self, offset: int) -> int | None:
        """The file's own address of the code at that offset in the file."""
        for start, size, address in self._segments:
            if start <= offset < start + size:
                return address + offset - start
        return None


def _read_image(file: BinaryIO) -> _Image | None:
    """The code and symbols of an ELF file, None where it is none or damaged."""
    from elftools.elf.elffile import ELFFile

    try:
        elf = ELFFile(file)
        segments = [
            (segment["p_offset"], segment["p_filesz"], segment["p_vaddr"])
            for segment in elf.iter_segments("PT_LOAD")
            if segment["p_flags"] & _PF_X
        ]
        return _Image(segments, _read_symbols(elf))
    except Exception:  # the bytes may be any, and so is what they make pyelftools raise
        return None


class _RawTable(NamedTuple):
    """A symbol table as it is in the file."""

    type: str
    entries: bytes
    strings: bytes
    code_ends: dict[int, int]  # index of each section that holds code -> its end


def _read_symbols(elf: Any) -> _SymbolTable:
    """The functions in .dynsym and in .symtab, if need be that of the debug file.

    .dynsym comes first in files, and so wins where both name a place: it has memcpy, and .symtab
    memcpy@@GLIBC_2.14.
    """
    tables = list(_raw_tables(elf))
    if all(table.type != "SHT_SYMTAB" for table in tables):
        tables += _debug_tables(elf)
    symbols: list[_Symbol] = []
    strings = b""
    for table in tables:
        symbols += _decode_symbols(table, elf.elfclass, elf.little_endian, len(strings))
        strings += table.strings
    return _SymbolTable(symbols, strings)


def _raw_tables(elf: Any) -> Iterator[_RawTable]:
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
            yield _RawTable(section["sh_type"], entries, strings, code_ends)


def _section_bytes(elf: Any, section: Any) -> bytes:
    if section["sh_size"] > _MAX_TABLE:
        raise ValueError(f"a table of {section['sh_size']} bytes")
    elf.stream.seek(section["sh_offset"])
    return bytes(elf.stream.read(section["sh_size"]))


def _debug_tables(elf: Any) -> list[_RawTable]:
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
        with open(f"{_DEBUG_FILES}/{build_id[:2]}/{build_id[2:]}.debug", "rb") as file:
            return list(_raw_tables(ELFFile(file)))
    except OSError:
        return []


def _decode_symbols(table: _RawTable, bits: int, little: bool, shift: int) -> list[_Symbol]:
    """The symbols of code; ``shift`` is where the names begin in the joined string tables.

    All entries in one go: as pyelftools' objects they take twenty times as long.
    """
    layout = struct.Struct(("<" if little else ">") + (_SYMBOL_64 if bits == 64 else _SYMBOL_32))
    whole = len(table.entries) // layout.size * layout.size
    entries = layout.iter_unpack(table.entries[:whole])
    if bits == 32:
        entries = ((entry[0], *entry[3:], *entry[1:3]) for entry in entries)
    strings, code_ends = table.strings, table.code_ends
    return [
        (
            start,
            _RANKS[info >> 4] + (0 if size else _UNSIZED),
            name + shift,
            start + size if size else code_ends[section],
        )
        for name, info, _, section, start, size in entries
        if section in code_ends
        and info & 15 in _CODE_TYPES
        and (info & 15 or strings[name] != _DOLLAR)
        and strings[name]
    ]


# ---- what was read of files ----------------------------------------------------------------------

_CACHE_BYTES = 64 << 20

_Identity = tuple[object, ...]
"""What tells a file with its content from others: device, inode, size, time of the last change."""


class _Cache:
    """What was read of files; beyond a size, what was not asked for the longest is dropped.

    It has no lock, which a signal handler or a forked child could find taken: each step on the
    dict is atomic, and the worst of a race is that a file is read twice.
    """

    def __init__(self) -> None:
        self._entries: dict[_Identity, Any] = {}

    def get(self, identity: _Identity, read: Callable[[], Any]) -> Any:
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
            if total <= _CACHE_BYTES:
                return
            self._entries.pop(identity, None)
            total -= _cost(entry)


def _cost(entry: Any) -> int:
    return 1000 + (0 if entry is None else entry.size)


_files = _Cache()


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


# ---- a process -----------------------------------------------------------------------------------

_MAX_PID = 1 << 22  # <linux/threads.h>: PID_MAX_LIMIT
_DELETED = " (deleted)"
_VDSO = "[vdso]"


class _Mapping(NamedTuple):
    """A line of /proc/PID/maps; ``path`` is that of a file, a name in brackets, or ""."""

    start: int
    end: int
    offset: int
    device: int
    inode: int
    path: str


class UserSymbols:
    """The functions of a process: its files' symbols through ELF, the vDSO, and what a JIT tells.

    Made while the process lives, it names addresses after the process has ended too, from files
    that still are at their paths.  It holds no descriptor and needs no closing.

    Symbols are those of .symtab, else of a debug file with the same build id below
    /usr/lib/debug, and of .dynsym; of files in containers and deleted files too.  JIT compilers
    that write /tmp/perf-PID.map (Java, Node.js, Python's perf support) have their code named.

    Needs the right to look into the process (the same user, or CAP_SYS_PTRACE; PrivilegeError), and
    CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE for deleted files.
    """

    def __init__(self, pid: int) -> None:
        if not 0 < pid <= _MAX_PID:
            raise ValueError(f"no process can have the pid {pid}: they are 1 to {_MAX_PID}")
        self._pid = pid
        self._maps = b""
        self._mapped: tuple[list[int], list[_Mapping]] = [], []  # their starts, for bisect
        self._images: dict[_Mapping, _Image | None] = {}
        self._perf_map_name = ""
        self._started = _start_time(pid)
        self.refresh()

    @property
    def pid(self) -> int:
        """The number of the process in this process's pid namespace."""
        return self._pid

    @property
    def available(self) -> bool:
        """Whether there were mappings to find names in; ``reason`` tells why not."""
        return bool(self._maps)

    @property
    def reason(self) -> str:
        """Why there are no names; "" where there are."""
        if self._maps:
            return ""
        return (
            f"process {self._pid} has no memory to look into: there is none of that number here, "
            "it has ended, or it is a kernel thread"
        )

    def refresh(self) -> None:
        """Read the mappings again, as is needed after execve(); those of an ended process stay."""
        maps = self._read_maps()
        if maps and maps != self._maps:
            mappings = list(_code_mappings(maps))
            self._maps, self._images = maps, {}
            # in one step, because another thread may be resolving
            self._mapped = [mapping.start for mapping in mappings], mappings

    def resolve(self, addresses: Iterable[int]) -> list[Frame]:
        """The frames of a stack, innermost first; see resolve() for what that means.

        An address in no known mapping has the mappings read again: the process may have loaded a
        library since.
        """
        lookups = list(_lookups(list(addresses)))
        if any(self._mapping_of(lookup) is None for _, lookup in lookups):
            self.refresh()
        return [self._frame(address, lookup) for address, lookup in lookups]

    def _read_maps(self) -> bytes:
        if self._has_ended():
            return b""
        try:
            with open(f"/proc/{self._pid}/maps", "rb") as maps:
                return maps.read()
        except (FileNotFoundError, ProcessLookupError):
            return b""
        except PermissionError as error:
            raise PrivilegeError(
                "read the mappings of",
                f"process {self._pid}",
                error.errno or 0,
                hint="it takes the same user as the process, or CAP_SYS_PTRACE",
            ) from None

    def _has_ended(self) -> bool:
        return _start_time(self._pid) != self._started

    def _mapping_of(self, address: int) -> _Mapping | None:
        starts, mappings = self._mapped
        index = bisect_right(starts, address) - 1
        return mappings[index] if index >= 0 and address < mappings[index].end else None

    def _frame(self, address: int, lookup: int) -> Frame:
        mapping = self._mapping_of(lookup)
        if mapping is None:
            return Frame(address)
        image = self._image(mapping)
        if image is None:
            return self._jit_frame(address, lookup, mapping)
        module = mapping.path.removesuffix(_DELETED)
        place = image.address_at(lookup - mapping.start + mapping.offset)
        if place is None:
            return Frame(address, module=module)
        found = image.symbols.find(place)
        within = place + address - lookup
        if found is None:
            return Frame(address, None, within, module)
        start, symbol = found
        return Frame(address, symbol, within - start, module)

    # files

    def _image(self, mapping: _Mapping) -> _Image | None:
        images = self._images
        if mapping not in images:
            images[mapping] = self._find_image(mapping)
        return images[mapping]

    def _find_image(self, mapping: _Mapping) -> _Image | None:
        if mapping.path == _VDSO:
            return self._vdso(mapping)
        if mapping.inode == 0:
            return None
        for path in self._places(mapping):
            try:
                status = os.stat(path)
                if stat.S_ISREG(status.st_mode):  # to open a device may have effects
                    return _cached_image(path, status)
            except OSError:
                continue
        return None

    def _places(self, mapping: _Mapping) -> Iterator[str]:
        """Where the mapped file may be found, the surest first."""
        if not self._has_ended():
            yield f"/proc/{self._pid}/map_files/{mapping.start:x}-{mapping.end:x}"
            if not mapping.path.endswith(_DELETED):
                yield f"/proc/{self._pid}/root{mapping.path}"
        if _is_at(mapping.path, mapping):
            yield mapping.path

    def _vdso(self, mapping: _Mapping) -> _Image | None:
        import io

        try:
            with open(f"/proc/{self._pid}/mem", "rb", buffering=0) as memory:
                memory.seek(mapping.start)
                content = memory.read(mapping.end - mapping.start)
        except OSError:
            return None
        image: _Image | None = _files.get(
            (_VDSO, content), lambda: _read_image(io.BytesIO(content))
        )
        return image

    # code that a JIT compiler made

    def _jit_frame(self, address: int, lookup: int, mapping: _Mapping) -> Frame:
        symbols = self._perf_map()
        found = symbols.find(lookup) if symbols else None
        if found is None:
            return Frame(address, module=mapping.path.removesuffix(_DELETED) or None)
        start, symbol = found
        return Frame(address, symbol, address - start, self._perf_map_name)

    def _perf_map(self) -> _SymbolTable | None:
        """The file in which JIT compilers tell perf their functions, as it is now."""
        if self._has_ended():
            return None
        try:
            self._perf_map_name = self._perf_map_name or _perf_map_name(self._pid)
            path = f"/proc/{self._pid}/root{self._perf_map_name}"
            status = os.lstat(path)
            owners = (0, os.stat(f"/proc/{self._pid}").st_uid)
            # anybody may write to /tmp
            if not stat.S_ISREG(status.st_mode) or status.st_uid not in owners:
                return None
            symbols: _SymbolTable | None = _files.get(
                _identity(status), lambda: _read_perf_map(path)
            )
            return symbols
        except OSError:
            return None


def _start_time(pid: int) -> bytes | None:
    """When the process began, which tells it from another one with its number; None for none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19]
    except OSError:
        return None


def _code_mappings(maps: bytes) -> Iterator[_Mapping]:
    """The lines of /proc/PID/maps that are executable, which are in the order of addresses."""
    for line in maps.splitlines():
        fields = line.split(None, 5)
        if fields[1][2:3] == b"x":
            start, _, end = fields[0].partition(b"-")
            major, _, minor = fields[3].partition(b":")
            path = fields[5].replace(b"\\012", b"\n") if len(fields) > 5 else b""
            yield _Mapping(
                int(start, 16),
                int(end, 16),
                int(fields[2], 16),
                os.makedev(int(major, 16), int(minor, 16)),
                int(fields[4]),
                os.fsdecode(path),
            )


def _is_at(path: str, mapping: _Mapping) -> bool:
    """Whether that path, in this process's own mount namespace, is the mapped file."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == (mapping.device, mapping.inode)


def _cached_image(path: str, status: os.stat_result) -> _Image | None:
    def read() -> _Image | None:
        with open(path, "rb") as file:
            return _read_image(file)

    image: _Image | None = _files.get(_identity(status), read)
    return image


def _perf_map_name(pid: int) -> str:
    """Its path as the process itself sees it, with the number it has in its own pid namespace."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        numbers = next(line for line in status if line.startswith("NSpid:"))
    return f"/tmp/perf-{numbers.split()[-1]}.map"


def _read_perf_map(path: str) -> _SymbolTable:
    """Lines of start, size (both hexadecimal) and name; later ones replace earlier ones."""
    symbols: list[_Symbol] = []
    strings = bytearray()
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        lines = file.read(_MAX_TABLE).splitlines()
    for line in lines:
        fields = line.split(None, 2)
        try:
            start, size = int(fields[0], 16), int(fields[1], 16)
            name = fields[2]
        except (IndexError, ValueError):  # a line that is being written, or none of the format
            continue
        if 0 <= start < start + size < 1 << 64:
            symbols.append((start, -len(symbols), len(strings), start + size))
            strings += name + b"\0"
    return _SymbolTable(symbols, bytes(strings))
