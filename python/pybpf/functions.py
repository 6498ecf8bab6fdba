# SPDX-License-Identifier: BSD-2-Clause
"""The functions of a file by name: where in it the code is that probes go to.

Names are those of the symbol tables, of a debug file with the same build id below /usr/lib/debug,
and of Go's own table; C++ names also as they are in the source, with parameters or without.
"""

from __future__ import annotations

import errno
import heapq
import os
import struct
from typing import NamedTuple

from pybpf import demangling, go_functions
from pybpf.elf_symbols import (
    code_segments,
    files,
    identity,
    name_at,
    offset_at,
    symbol_tables,
    table_entries,
)
from pybpf.errors import NotFoundError, NotSupportedError, ObjectFormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from pybpf.elf_symbols import RawTable

_FUNCTION, _CHOOSER = 2, 10  # STT_FUNC, STT_GNU_IFUNC
_HIDDEN = 0x8000  # of an entry of .gnu.version: not the version that a name alone means
_FEW = 500  # names, which is what there is time for to find those that were meant


class Function(NamedTuple):
    """A function as a symbol table has it; ``offset`` is where in the file its code begins.

    ``is_default``: the name alone means this version.  ``is_chooser``: its code only chooses, when
    a process starts, which of several functions for different processors the name stands for.
    """

    name: str
    offset: int
    version: str = ""
    is_default: bool = True
    is_chooser: bool = False


def named(path: str, name: str) -> dict[int, str]:
    """Offsets and names of the functions of the file called ``name``; of several, if they differ.

    ``name`` may have a version, "memcpy@GLIBC_2.2.5".  NotFoundError where there is none,
    NotSupportedError for those that stand for another function on each kind of processor,
    ObjectFormatError where the file is not of ELF, OSError where it cannot be read.
    """
    functions = _of_file(path)
    if name in functions.choosers:
        hint = f"which function runs as {name} is chosen for the processor: probe that by its name"
        raise NotSupportedError("find", f"{name} in {path}", errno.EOPNOTSUPP, hint=hint)
    found = functions.named(name)
    if not found:
        raise NotFoundError(f"function of {path}", name, functions.similar(name))
    return {function.offset: _text(function.name) for function in found}


def matching(path: str, pattern: str, matches: Callable[[str], object]) -> dict[int, str]:
    """Offsets and names of those of which ``matches`` is true for one of their names.

    Errors as of named(): NotFoundError where there is none for the ``pattern``.
    """
    functions = _of_file(path)
    found = functions.matching(matches)
    if not found:
        raise NotFoundError(f"function of {path}", pattern, functions.similar(pattern))
    return {function.offset: _text(function.name) for function in found}


class _Functions:
    """The functions of one file."""

    def __init__(self, functions: list[Function]) -> None:
        self._by_name: dict[str, list[Function]] = {}
        for function in functions:
            if not function.is_chooser:
                self._by_name.setdefault(function.name, []).append(function)
        self._readable: dict[str, tuple[str, str]] | None = None
        self.choosers = frozenset(each.name for each in functions if each.is_chooser)
        self.size = 300 * len(functions)  # bytes of memory, about

    def named(self, name: str) -> list[Function]:
        return self._versions(name) or self._readable_as(name)

    def matching(self, matches: Callable[[str], object]) -> list[Function]:
        return [
            function
            for name, functions in self._by_name.items()
            if matches(name) or any(map(matches, self._forms().get(name, ())))
            for function in functions
        ]

    def _versions(self, name: str) -> list[Function]:
        plain, _, version = name.replace("@@", "@").partition("@")
        found = self._by_name.get(plain, [])
        if version:
            return [function for function in found if function.version == version]
        return [function for function in found if function.is_default] or found

    def _readable_as(self, name: str) -> list[Function]:
        return [
            function
            for mangled, forms in self._forms().items()
            if name in forms
            for function in self._by_name[mangled]
        ]

    def _forms(self) -> dict[str, tuple[str, str]]:
        """{mangled name: (as in the source, without its parameters)} of C++ names."""
        if self._readable is None:
            texts = {name: demangling.demangle(name) for name in self._by_name}
            self._readable = {
                name: (text, demangling.without_parameters(text))
                for name, text in texts.items()
                if text is not None
            }
        return self._readable

    def similar(self, name: str) -> list[str]:
        """The names that may have been meant, so few that the closest of them are found quickly."""
        names = set(map(_text, self._by_name))
        return heapq.nlargest(_FEW, names, key=lambda each: _likeness(each, name))


def _text(name: str) -> str:
    return demangling.demangle(name) or name


def _likeness(name: str, other: str) -> int:
    """How many letters they have in common at their ends."""
    shared = os.path.commonprefix  # of any texts
    return len(shared((name, other))) + len(shared((name[::-1], other[::-1])))


def _of_file(path: str) -> _Functions:
    """Read once, as long as the file does not change."""
    key = ("functions", *identity(os.stat(path)))
    found: _Functions = files.get(key, lambda: _read_functions(path))
    return found


def _read_functions(path: str) -> _Functions:
    from elftools.elf.elffile import ELFFile

    with open(path, "rb") as file:
        try:
            elf = ELFFile(file)
            segments = code_segments(elf)
            functions = [
                function._replace(offset=offset)
                for function in _by_address(elf)
                if (offset := offset_at(segments, function.offset)) is not None
            ]
        except Exception as error:  # the bytes may be any, and so is what pyelftools raises
            raise ObjectFormatError(f"cannot be read as an ELF file: {error}", path) from error
    return _Functions(functions)


def _by_address(elf: Any) -> Iterator[Function]:
    """The functions, with their address in the place of the offset."""
    tables = symbol_tables(elf)
    for table in tables:
        yield from _of_table(elf, table)
    if all(table.type != "SHT_SYMTAB" for table in tables):
        for name, address in go_functions.functions(elf):
            yield Function(name, address)


def _of_table(elf: Any, table: RawTable) -> Iterator[Function]:
    versions = _versions(elf) if table.type == "SHT_DYNSYM" else []
    entries = table_entries(table, elf.elfclass, elf.little_endian)
    for index, (name, info, _, section, address, _) in enumerate(entries):
        kind = info & 15
        if section in table.code_ends and kind in (_FUNCTION, _CHOOSER):
            plain, at, version = name_at(table.strings, name).partition("@")
            is_default = not at or version.startswith("@")
            if index < len(versions):
                version, is_default = versions[index]
            yield Function(plain, address, version.lstrip("@"), is_default, kind == _CHOOSER)


def _versions(elf: Any) -> list[tuple[str, bool]]:
    """For each entry of .dynsym its version, and whether the name alone means it."""
    numbers = elf.get_section_by_name(".gnu.version")
    definitions = elf.get_section_by_name(".gnu.version_d")
    if numbers is None or definitions is None:
        return []
    names = {
        definition["vd_ndx"]: next(names).name for definition, names in definitions.iter_versions()
    }
    return [
        (names.get(number & ~_HIDDEN, ""), not number & _HIDDEN)
        for (number,) in struct.iter_unpack("<H" if elf.little_endian else ">H", numbers.data())
    ]
