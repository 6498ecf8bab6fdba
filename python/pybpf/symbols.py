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
from pybpf.elf_symbols import MAX_TABLE, Image, Symbol, SymbolTable, files, identity, read_image
from pybpf.errors import LayoutError, PrivilegeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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


# ---- a process -----------------------------------------------------------------------------------

MAX_PID = 1 << 22  # <linux/threads.h>: PID_MAX_LIMIT
DELETED = " (deleted)"
_VDSO = "[vdso]"


class Mapping(NamedTuple):
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
        if not 0 < pid <= MAX_PID:
            raise ValueError(f"no process can have the pid {pid}: they are 1 to {MAX_PID}")
        self._pid = pid
        self._maps = b""
        self._mapped: tuple[list[int], list[Mapping]] = [], []  # their starts, for bisect
        self._images: dict[Mapping, Image | None] = {}
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
            mappings = list(code_mappings(maps))
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

    def _mapping_of(self, address: int) -> Mapping | None:
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
        module = mapping.path.removesuffix(DELETED)
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

    def _image(self, mapping: Mapping) -> Image | None:
        images = self._images
        if mapping not in images:
            images[mapping] = self._find_image(mapping)
        return images[mapping]

    def _find_image(self, mapping: Mapping) -> Image | None:
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

    def _places(self, mapping: Mapping) -> Iterator[str]:
        """Where the mapped file may be found, the surest first."""
        if not self._has_ended():
            yield f"/proc/{self._pid}/map_files/{mapping.start:x}-{mapping.end:x}"
            if not mapping.path.endswith(DELETED):
                yield f"/proc/{self._pid}/root{mapping.path}"
        if _is_at(mapping.path, mapping):
            yield mapping.path

    def _vdso(self, mapping: Mapping) -> Image | None:
        import io

        try:
            with open(f"/proc/{self._pid}/mem", "rb", buffering=0) as memory:
                memory.seek(mapping.start)
                content = memory.read(mapping.end - mapping.start)
        except OSError:
            return None
        image: Image | None = files.get((_VDSO, content), lambda: read_image(io.BytesIO(content)))
        return image

    # code that a JIT compiler made

    def _jit_frame(self, address: int, lookup: int, mapping: Mapping) -> Frame:
        symbols = self._perf_map()
        found = symbols.find(lookup) if symbols else None
        if found is None:
            return Frame(address, module=mapping.path.removesuffix(DELETED) or None)
        start, symbol = found
        return Frame(address, symbol, address - start, self._perf_map_name)

    def _perf_map(self) -> SymbolTable | None:
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
            symbols: SymbolTable | None = files.get(identity(status), lambda: _read_perf_map(path))
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


def code_mappings(maps: bytes) -> Iterator[Mapping]:
    """The lines of /proc/PID/maps that are executable, which are in the order of addresses."""
    for line in maps.splitlines():
        fields = line.split(None, 5)
        if fields[1][2:3] == b"x":
            start, _, end = fields[0].partition(b"-")
            major, _, minor = fields[3].partition(b":")
            path = fields[5].replace(b"\\012", b"\n") if len(fields) > 5 else b""
            yield Mapping(
                int(start, 16),
                int(end, 16),
                int(fields[2], 16),
                os.makedev(int(major, 16), int(minor, 16)),
                int(fields[4]),
                os.fsdecode(path),
            )


def _is_at(path: str, mapping: Mapping) -> bool:
    """Whether that path, in this process's own mount namespace, is the mapped file."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == (mapping.device, mapping.inode)


def _cached_image(path: str, status: os.stat_result) -> Image | None:
    def read() -> Image | None:
        with open(path, "rb") as file:
            return read_image(file)

    image: Image | None = files.get(identity(status), read)
    return image


def _perf_map_name(pid: int) -> str:
    """Its path as the process itself sees it, with the number it has in its own pid namespace."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        numbers = next(line for line in status if line.startswith("NSpid:"))
    return f"/tmp/perf-{numbers.split()[-1]}.map"


def _read_perf_map(path: str) -> SymbolTable:
    """Lines of start, size (both hexadecimal) and name; later ones replace earlier ones."""
    symbols: list[Symbol] = []
    strings = bytearray()
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        lines = file.read(MAX_TABLE).splitlines()
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
    return SymbolTable(symbols, bytes(strings))
