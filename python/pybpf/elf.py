# SPDX-License-Identifier: BSD-2-Clause
"""ELF: the sections and the license of a BPF object, and the check before libbpf gets it.

libbpf trusts much of what an object says and crashes, or never returns, when it lies (see
docs/libbpf-crashes.md). `check_object` refuses such objects, and files that are no BPF objects
at all. Everything else it leaves to libbpf, whose checks are not repeated here: where this
module returns early on odd data, libbpf is known to refuse or ignore it by itself.

It also finds single sections in ELF files of other machines, as a kernel is, without reading the
rest of them.

Process start is measured, so this module imports nothing but os and struct.
"""

from __future__ import annotations

import os
import struct

from pybpf.errors import ObjectFormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    Data: TypeAlias = "bytes | FileData"

__all__ = ["FileData", "Section", "check_object", "contents", "license", "sections"]

EM_NONE, EM_BPF = 0, 247
ET_REL = 1
SHT_PROGBITS, SHT_SYMTAB, SHT_NOBITS, SHT_REL = 1, 2, 8, 9
SHT_LLVM_ADDRSIG = 0x6FFF4C03
SHN_XINDEX = 0xFFFF
SHF_EXECINSTR = 4
STT_OBJECT, STT_FUNC = 1, 2
STB_GLOBAL, STB_WEAK = 1, 2
LD_IMM64 = 0x18  # opcode of the only instruction that takes two slots

# libbpf recurses from function to function; the kernel takes 256 in one program
MAX_FUNCTIONS = 32768

MAP_TYPE_STRUCT_OPS = 26

# sections that libbpf does not read, whatever is in them
UNREAD = (".debug_", ".rel.debug_", ".rel.BTF")

MACHINES = {
    2: "SPARC",
    3: "i386",
    8: "MIPS",
    20: "PowerPC",
    21: "PowerPC64",
    22: "s390x",
    40: "ARM",
    62: "x86-64",
    183: "AArch64",
    243: "RISC-V",
    258: "LoongArch",
}
FILE_TYPES = {1: "relocatable object", 2: "executable", 3: "shared object", 4: "core dump"}

(INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST) = range(1, 11)
(RESTRICT, FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64) = range(11, 20)

# BTF kind -> what follows the three words of each type: a fixed number of words, the words per
# item (a member, a parameter, ...), and where in the item its name and its type id are.
ITEMS: dict[int, tuple[int, int, int | None, int | None]] = {
    INT: (1, 0, None, None),
    ARRAY: (3, 0, None, None),
    STRUCT: (0, 3, 0, 1),
    UNION: (0, 3, 0, 1),
    ENUM: (0, 2, 0, None),
    FUNC_PROTO: (0, 2, 0, 1),
    VAR: (1, 0, None, None),
    DATASEC: (0, 3, None, 0),
    DECL_TAG: (1, 0, None, None),
    ENUM64: (0, 3, 0, None),
    **dict.fromkeys(
        (PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG),
        (0, 0, None, None),
    ),
}
MODIFIERS = frozenset((TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG))
# kinds whose third word is a type id, not a size
REFERENCES = MODIFIERS | {PTR, FUNC, FUNC_PROTO, VAR, DECL_TAG}
SIZED = frozenset((INT, STRUCT, UNION, ENUM, DATASEC, FLOAT, ENUM64))

STRUCT_OPS = frozenset((".struct_ops", ".struct_ops.link", "?.struct_ops", "?.struct_ops.link"))


class Section:
    """A section header. `name` is decoded; the other fields have the values of the file."""

    __slots__ = ("flags", "info", "link", "name", "offset", "size", "type")

    def __init__(self, name: str, header: tuple[int, ...]) -> None:
        self.name = name
        _, self.type, self.flags, _, self.offset, self.size, self.link, self.info = header[:8]

    def __repr__(self) -> str:
        return f"<Section {self.name!r} type={self.type} offset={self.offset} size={self.size}>"

    def contents(self, data: Data) -> bytes:
        """Return the bytes of the section in `data`; none for one like .bss."""
        if self.type == SHT_NOBITS:
            return b""
        return data[self.offset : self.offset + self.size]


class FileData:
    """An open file as if it were bytes: a slice reads just that part of it."""

    __slots__ = ("_fd", "_size")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._size = os.fstat(fd).st_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        return b"".join(self._read(start, stop))

    def _read(self, start: int, stop: int) -> Iterator[bytes]:
        while start < stop:
            piece = os.pread(self._fd, stop - start, start)  # sysfs gives a page at a time
            if not piece:
                raise _Malformed("the file became shorter while it was read", offset=start)
            yield piece
            start += len(piece)


class _Malformed(Exception):
    """What is wrong and where; `check_object` adds the path."""

    def __init__(self, message: str, section: str | None = None, offset: int | None = None) -> None:
        super().__init__(message)
        self.section = section
        self.offset = offset


def check_object(data: bytes, path: str | None = None, *, foreign: bool = False) -> None:
    """Refuse what is not a BPF object, what is cut off, and what would crash libbpf.

    An object of the other byte order is refused unless `foreign` is true: it can be looked at,
    but not be loaded on this machine. `path` is only mentioned in errors. Raises
    ObjectFormatError, with section and offset where one is to blame.
    """
    try:
        order = _check_header(data, foreign)
        table = _section_table(data, order)
        _check_bounds(data, table[1:])
        symtab = next((section for section in table[1:] if section.type == SHT_SYMTAB), None)
        if symtab is None:
            return
        _check_symbols(data, order, table, symtab)
        _check_map_relocations(data, order, table)
        by_name = {section.name: section for section in table}
        btf = by_name.get(".BTF")
        if btf is None or btf.type != SHT_PROGBITS:
            return
        types = _Types(data, btf)
        if types.ignored:
            return
        types.check_references()
        types.check_bitfields()
        types.check_variables(order, table, symtab)
        if ".BTF.ext" in by_name:
            types.check_core_relocations(by_name[".BTF.ext"])
    except _Malformed as bad:
        raise ObjectFormatError(
            str(bad), path=path, section=bad.section, offset=bad.offset
        ) from None


def sections(data: bytes) -> Iterator[Section]:
    """Yield the sections of an object of any byte order, the empty first one included.

    Raises ObjectFormatError if this is not a BPF object or its section headers are damaged.
    """
    try:
        yield from _section_table(data, _check_header(data, foreign=True))
    except _Malformed as bad:
        raise ObjectFormatError(str(bad), section=bad.section, offset=bad.offset) from None


def license(data: bytes) -> str | None:
    """Return the text of the section "license", None if there is none. Raises as `sections`."""
    for section in sections(data):
        if section.name == "license":
            return section.contents(data).partition(b"\0")[0].decode("utf-8", "replace")
    return None


def contents(data: Data, *names: str) -> dict[str, bytes]:
    """Return what the sections of those names hold, leaving out those that are not there.

    `data` is a 64-bit ELF file for any machine, of which only these sections and the table of all
    are read. Raises ObjectFormatError if it is not, or if they are damaged.
    """
    try:
        header = data[:64]
        if not header.startswith(b"\x7fELF") or len(header) < 64:
            raise _Malformed(f"this is not an ELF file: it starts with {header[:4].hex(' ')}")
        if header[4] != 2 or header[5] not in (1, 2):
            raise _Malformed("this is not a 64-bit ELF file", offset=4)
        table = _section_table(data, "<" if header[5] == 1 else ">")
        wanted = [section for section in table if section.name in names]
        _check_bounds(data, wanted)
        return {section.name: section.contents(data) for section in wanted}
    except _Malformed as bad:
        raise ObjectFormatError(str(bad), section=bad.section, offset=bad.offset) from None


def _check_header(data: bytes, foreign: bool) -> str:
    """Return the byte order as struct spells it."""
    if not data:
        raise _Malformed("the file is empty")
    if data.startswith((b"BC\xc0\xde", b"\xde\xc0\x17\x0b")):
        raise _Malformed(
            "this is LLVM bitcode; compile to an object with clang -target bpf -c, "
            "without -emit-llvm and -flto"
        )
    if data.startswith((b"!<arch>\n", b"!<thin>\n")):
        raise _Malformed(
            "this is an archive; link its members with bpftool gen object, or extract one with ar x"
        )
    if not data.startswith(b"\x7fELF"):
        if _is_text(data[:512]):
            raise _Malformed(
                "this is text, not a compiled object; compile C with clang -g -O2 -target bpf -c"
            )
        raise _Malformed(f"this is not an ELF file: it starts with {data[:4].hex(' ')}")
    if len(data) < 20:
        raise _Malformed(f"cut off: {len(data)} bytes are too few for an ELF header", offset=0)
    elf_class, byte_order = data[4], data[5]
    if byte_order not in (1, 2):
        raise _Malformed(f"byte order {byte_order} in the ELF header is unknown", offset=5)
    order = "<" if byte_order == 1 else ">"
    file_type, machine = struct.unpack_from(order + "HH", data, 16)
    if machine not in (EM_NONE, EM_BPF):
        machine_name = MACHINES.get(machine, f"machine {machine}")
        type_name = FILE_TYPES.get(file_type, f"ELF type {file_type}")
        raise _Malformed(
            f"this is an ELF file for {machine_name} ({type_name}); "
            "BPF objects are built with clang -target bpf",
            offset=18,
        )
    if elf_class != 2:
        raise _Malformed("this is a 32-bit ELF file; BPF objects are 64-bit", offset=4)
    if file_type != ET_REL:
        raise _Malformed(
            f"this is an ELF {FILE_TYPES.get(file_type, f'type {file_type}')}, not a relocatable "
            "object; link BPF objects with bpftool gen object, not with a system linker",
            offset=16,
        )
    if not foreign and struct.pack("=H", 1) != struct.pack(order + "H", 1):
        there, option = ("little", "bpfel") if byte_order == 1 else ("big", "bpfeb")
        here, wanted = ("big", "bpfeb") if byte_order == 1 else ("little", "bpfel")
        raise _Malformed(
            f"this object is {there}-endian ({option}), this machine is {here}-endian; "
            f"compile with clang -target {wanted}",
            offset=5,
        )
    if len(data) < 64:
        raise _Malformed(f"cut off: {len(data)} bytes are too few for an ELF header", offset=0)
    return order


def _is_text(start: bytes) -> bool:
    return not any(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in start)


def _section_table(data: Data, order: str) -> list[Section]:
    (start,) = struct.unpack(order + "Q", data[40:48])
    count, names_index = struct.unpack(order + "HH", data[60:64])
    if start == 0:
        return []
    header = struct.Struct(order + "2I4Q2I2Q")
    if count == 0 and start + header.size <= len(data):  # too many for 16 bits
        count = header.unpack(data[start : start + header.size])[5]
    end = start + count * header.size
    if end > len(data):
        raise _Malformed(
            f"cut off: the section headers end at byte {end}, the file has {len(data)} bytes",
            offset=start,
        )
    headers = list(header.iter_unpack(data[start:end]))
    if names_index == SHN_XINDEX and headers:
        names_index = headers[0][6]
    if names_index >= len(headers):
        raise _Malformed(
            f"section {names_index} should hold the section names, "
            f"but there are only {len(headers)} sections",
            offset=62,
        )
    names_start, names_size = headers[names_index][4:6]
    if names_start + names_size > len(data):
        raise _Malformed(
            f"cut off: the section names end at byte {names_start + names_size}, "
            f"the file has {len(data)} bytes",
            offset=names_start,
        )
    names = data[names_start : names_start + names_size]
    return [Section(_string(names, fields[0]), fields) for fields in headers]


def _string(strings: bytes, offset: int) -> str:
    """Return the NUL-terminated string at `offset`, "" if that is outside."""
    return strings[offset : strings.find(b"\0", offset)].decode("utf-8", "replace")


def _check_bounds(data: Data, table: list[Section]) -> None:
    for section in table:
        if section.offset + section.size <= len(data) or not section.size:
            continue
        if section.type in (SHT_NOBITS, SHT_LLVM_ADDRSIG):
            continue
        if section.name.startswith(UNREAD) and section.type != SHT_SYMTAB:
            continue
        raise _Malformed(
            f"cut off: section {section.name} has {section.size} bytes from byte "
            f"{section.offset} on, the file has {len(data)} bytes",
            section.name,
            section.offset,
        )


def _check_symbols(data: bytes, order: str, table: list[Section], symtab: Section) -> None:
    functions = 0
    for name, info, _, index, value, size in _symbols(data, order, symtab):
        if index >= len(table):
            continue
        section, end = table[index], value + size
        if section.name == ".jumptables" and end > section.size:
            raise _Malformed(
                f"a jump table ends at byte {end} of a section of {section.size} bytes",
                section.name,
                section.offset,
            )
        if info & 15 != STT_FUNC or not section.flags & SHF_EXECINSTR:
            continue
        functions += 1
        if functions > MAX_FUNCTIONS:
            raise _Malformed(f"more than {MAX_FUNCTIONS} functions", symtab.name)
        if (
            section.type == SHT_PROGBITS
            and size
            and 8 <= end <= section.size
            and data[section.offset + end - 8] == LD_IMM64
        ):
            # relocating it, libbpf writes to the slot after the function
            function = _string(_symbol_names(data, table, symtab), name)
            raise _Malformed(
                f"function {function} ends in the middle of a 16-byte load instruction",
                section.name,
                section.offset + end - 8,
            )


def _symbols(
    data: bytes, order: str, symtab: Section
) -> Iterator[tuple[int, int, int, int, int, int]]:
    """Yield name offset, info, other, section index, value and size of each symbol."""
    end = symtab.offset + symtab.size // 24 * 24
    return struct.iter_unpack(order + "IBBHQQ", data[symtab.offset : end])


def _symbol_names(data: bytes, table: list[Section], symtab: Section) -> bytes:
    return table[symtab.link].contents(data) if symtab.link < len(table) else b""


def _check_map_relocations(data: bytes, order: str, table: list[Section]) -> None:
    """libbpf makes an array as long as the offset of an initial value demands: gigabytes."""
    for section in table[1:]:
        if section.type != SHT_REL or section.info >= len(table):
            continue
        if section.name.startswith(UNREAD):
            continue
        target = table[section.info]
        if target.name != ".maps":
            continue
        size = 0 if target.type == SHT_NOBITS else target.size
        end = section.offset + section.size // 16 * 16
        for offset, _ in struct.iter_unpack(order + "QQ", data[section.offset : end]):
            if offset + 8 > size:
                raise _Malformed(
                    f"an initial value of a map lies at byte {offset} of a .maps section "
                    f"of {size} bytes",
                    section.name,
                    section.offset,
                )


class _Types:
    """The .BTF section, as far as libbpf believes what it says."""

    def __init__(self, data: bytes, section: Section) -> None:
        self.data = data
        self.section = section
        # where in `words` each type starts
        self.starts = [0]
        # what a typedef, const and the like stands for
        self.links: dict[int, int] = {}
        self.datasecs: list[int] = []
        self.bitfields: list[int] = []
        #: libbpf refuses this BTF, or goes on without it: there is nothing to check.
        self.ignored = not self._read()

    def _read(self) -> bool:
        data, section = self.data, self.section
        if section.size < 24:
            return False
        magic = data[section.offset : section.offset + 2]
        if magic not in (b"\x9f\xeb", b"\xeb\x9f"):
            return False
        self.order = "<" if magic == b"\x9f\xeb" else ">"
        header, types, types_size, strings, self.strings_size = struct.unpack_from(
            self.order + "5I", data, section.offset + 4
        )
        if (
            header + strings + self.strings_size > section.size
            or types + types_size > strings
            or types_size % 4
        ):
            return False
        self.strings = section.offset + header + strings
        if not data[self.strings : self.strings + self.strings_size].endswith(b"\0"):
            return False
        # type 0 is void and has no record in the file
        words = struct.unpack_from(
            f"{self.order}{types_size // 4}I", data, section.offset + header + types
        )
        self.words: tuple[int, ...] = (0, 0, 0, *words)
        return self._find_types()

    def _find_types(self) -> bool:
        """Note where the types are, False if they do not fill their space exactly."""
        words, starts = self.words, self.starts
        position, end = 3, len(words)
        while position + 3 <= end:
            info = words[position + 1]
            kind = info >> 24 & 31
            if kind not in ITEMS:
                return False
            fixed, each, _, _ = ITEMS[kind]
            if kind in MODIFIERS:
                self.links[len(starts)] = words[position + 2]
            elif kind == DATASEC:
                self.datasecs.append(len(starts))
            elif info >> 31 and kind in (STRUCT, UNION):
                self.bitfields.append(len(starts))
            starts.append(position)
            position += 3 + fixed + each * (info & 0xFFFF if each else 0)
        return position == end

    def kind(self, type_id: int) -> int:
        return self.words[self.starts[type_id] + 1] >> 24 & 31

    def name(self, type_id: int) -> str:
        return self.string(self.words[self.starts[type_id]])

    def string(self, offset: int) -> str:
        start = self.strings + offset
        return self.data[start : self.data.find(b"\0", start)].decode("utf-8", "replace")

    def items(self, type_id: int) -> Iterator[tuple[int, int, int]]:
        """Yield the members of a struct or the variables of a DATASEC: three words each."""
        start = self.starts[type_id]
        end = start + 3 + 3 * (self.words[start + 1] & 0xFFFF)
        words = self.words[start + 3 : end]
        return zip(words[::3], words[1::3], words[2::3], strict=True)

    def third(self, type_id: int) -> int:
        """Return the third word of a type: the size, or what it refers to."""
        return self.words[self.starts[type_id] + 2]

    def resolve(self, type_id: int) -> int:
        """Return what is behind typedefs, const and the like."""
        while type_id in self.links:
            type_id = self.links[type_id]
        return type_id

    def size(self, type_id: int) -> int | None:
        """Return the size in bytes, None where libbpf finds none either."""
        count = 1
        for _ in range(32):  # the deepest that libbpf follows
            type_id = self.resolve(type_id)
            kind = self.kind(type_id)
            if kind == PTR:
                return 8 * count
            if kind in SIZED:
                return self.third(type_id) * count
            if kind == ARRAY:
                type_id, _, elements = self.array(type_id)
                count *= elements
            elif kind in (VAR, DECL_TAG):
                type_id = self.third(type_id)
            else:
                return None
        return None

    def array(self, type_id: int) -> tuple[int, ...]:
        """Return the type of the elements, that of the index and the number of elements."""
        start = self.starts[type_id]
        return self.words[start + 3 : start + 6]

    def check_references(self) -> None:
        """libbpf 1.1 believes every string offset and type id, 1.7 most, and both loops."""
        words, starts = self.words, self.starts
        names, ids = [0], [0]
        functions, variables = [], []
        for start in starts[1:]:
            info = words[start + 1]
            kind = info >> 24 & 31
            names.append(words[start])
            if kind in REFERENCES:
                ids.append(words[start + 2])
                if kind == FUNC:
                    functions.append(words[start + 2])
                elif kind == VAR:
                    variables.append(words[start + 2])
            elif kind == ARRAY:
                ids.extend(words[start + 3 : start + 5])
            _, each, name, type_id = ITEMS[kind]
            if each and info & 0xFFFF:
                end = start + 3 + each * (info & 0xFFFF)
                if name is not None:
                    names.append(max(words[start + 3 + name : end : each]))
                if type_id is not None:
                    ids.append(max(words[start + 3 + type_id : end : each]))
        if max(names) >= self.strings_size:
            raise self._malformed(f"a name lies at byte {max(names)} of {self.strings_size}")
        if max(ids) >= len(starts):
            raise self._malformed(f"a type refers to type {max(ids)} of {len(starts)}")
        if any(self.kind(type_id) != FUNC_PROTO for type_id in functions):
            raise self._malformed("the type of a function is not a function prototype")
        if any(self.kind(type_id) in (VAR, DATASEC, DECL_TAG) for type_id in variables):
            raise self._malformed("the type of a variable is not a type")
        self._check_loops()

    def _check_loops(self) -> None:
        done: set[int] = set()
        for start in self.links:
            path = set()
            type_id = start
            while type_id in self.links and type_id not in done:
                if type_id in path:
                    raise self._malformed(f"type {type_id} {self.name(type_id)} refers to itself")
                path.add(type_id)
                type_id = self.links[type_id]
            done |= path

    def check_bitfields(self) -> None:
        """libbpf divides by the size of the type of a bitfield."""
        for struct_id in self.bitfields:
            for name, type_id, offset in self.items(struct_id):
                if offset >> 24 and not self.third(self.resolve(type_id)):
                    raise self._malformed(
                        f"bitfield {self.string(name)} of {self.name(struct_id)} has a type "
                        "without size"
                    )

    def check_variables(self, order: str, table: list[Section], symtab: Section) -> None:
        for datasec in self.datasecs:
            for type_id, _, _ in self.items(datasec):
                if self.kind(type_id) not in (VAR, FUNC):
                    raise self._malformed(
                        f"{self.name(type_id)} in {self.name(datasec)} is no variable or function"
                    )
            name = self.name(datasec)
            if name == ".maps":
                self._check_maps(datasec)
            elif name == ".kconfig":
                self._check_kconfig(datasec, symtab)
            elif name in STRUCT_OPS:
                self._check_struct_ops(datasec, order, table, symtab)

    def _check_maps(self, datasec: int) -> None:
        """To libbpf, a map of type struct_ops is one that it made from section .struct_ops."""
        for variable, _, _ in self.items(datasec):
            definition = self.resolve(self.third(variable))
            if self.kind(definition) != STRUCT:
                continue
            for name, member, _ in self.items(definition):
                pointer = self.resolve(member)  # __uint(type, N) is int (*type)[N]
                if self.kind(pointer) != PTR or self.string(name) != "type":
                    continue
                array = self.third(pointer)
                if self.kind(array) == ARRAY and self.array(array)[2] == MAP_TYPE_STRUCT_OPS:
                    raise _Malformed(
                        f"map {self.name(variable)} has the type struct_ops; define a struct "
                        'with SEC(".struct_ops") instead',
                        ".maps",
                    )

    def _check_kconfig(self, datasec: int, symtab: Section) -> None:
        """libbpf follows structs that contain themselves, and counts the sizes in an int."""
        symbols = symtab.size // 24
        for type_id, _, _ in self.items(datasec):
            element = self.resolve(self.third(type_id))
            size = self.size(element)
            if size is None:
                continue
            while self.kind(element) == ARRAY:
                element = self.resolve(self.array(element)[0])
            if self.kind(element) not in (INT, ENUM, ENUM64):
                raise self._malformed(
                    f"{self.name(type_id)} in .kconfig is not an integer, enum or string"
                )
            if (size + 8) * (symbols + 1) >= 1 << 31:
                raise self._malformed(f"{self.name(type_id)} in .kconfig has {size} bytes")

    def _check_struct_ops(
        self, datasec: int, order: str, table: list[Section], symtab: Section
    ) -> None:
        """libbpf adds offset and size in 32 bits, and believes the offsets of members."""
        values: dict[str, int] = {}
        if not self.third(datasec):  # not linked yet: libbpf takes offsets from the symbols
            names = _symbol_names(self.data, table, symtab)
            for name, info, _, _, value, _ in _symbols(self.data, order, symtab):
                if info & 15 == STT_OBJECT and info >> 4 in (STB_GLOBAL, STB_WEAK):
                    values.setdefault(_string(names, name), value & 0xFFFFFFFF)
        for type_id, offset, _ in self.items(datasec):
            struct_id = self.resolve(self.third(type_id))
            if self.kind(struct_id) != STRUCT:
                continue
            variable = self.name(type_id)
            size = self.third(struct_id)
            offset = max(offset, values.get(variable, 0))
            if offset + size >= 1 << 32:
                raise self._malformed(f"{variable} has {size} bytes at offset {offset}")
            for name, member_id, bits in self.items(struct_id):
                end = bits // 8 + (self.size(member_id) or 0)
                if end > size:
                    raise self._malformed(
                        f"member {self.string(name)} of {self.name(struct_id)} ends at byte {end} "
                        f"of {size}"
                    )

    def check_core_relocations(self, section: Section) -> None:
        """A negative index is below every limit to libbpf."""
        if section.type != SHT_PROGBITS or section.size < 32:
            return
        order = ">" if self.data.startswith(b"\xeb\x9f", section.offset) else "<"
        header, *_, offset, size = struct.unpack_from(order + "7I", self.data, section.offset + 4)
        if header < 32 or header + offset + size > section.size or size < 4:
            return
        start = section.offset + header + offset
        end = start + size
        (record_size,) = struct.unpack_from(order + "I", self.data, start)
        if record_size < 16 or record_size % 4:
            return
        accesses: set[int] = set()
        start += 4
        while start + 8 <= end:
            (count,) = struct.unpack_from(order + "I", self.data, start + 4)
            start += 8
            if start + count * record_size > end:
                return
            words = struct.unpack_from(f"{order}{count * record_size // 4}I", self.data, start)
            accesses.update(words[2 :: record_size // 4])
            start += count * record_size
        for access in accesses:
            if access >= self.strings_size:
                continue
            path = self.string(access)
            if "-" in path or any(len(index) > 9 for index in path.split(":")):
                raise _Malformed(
                    f"a CO-RE relocation has the access path {path!r}",
                    section.name,
                    section.offset,
                )

    def _malformed(self, message: str) -> _Malformed:
        return _Malformed("damaged BTF: " + message, ".BTF", self.section.offset)
