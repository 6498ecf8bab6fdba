# SPDX-License-Identifier: BSD-2-Clause
"""Where the tests get BTF from: C that clang compiles for BPF, or types written word by word."""

from __future__ import annotations

import functools
import io
import os
import re
import shutil
import struct
import subprocess

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection


class Compiled:
    """What clang made of a source: the ELF file, the raw BTF and each global's initial bytes."""

    def __init__(self, elf: bytes) -> None:
        self.elf = elf
        file = ELFFile(io.BytesIO(elf))
        btf, symbols = file.get_section_by_name(".BTF"), file.get_section_by_name(".symtab")
        assert btf is not None
        assert isinstance(symbols, SymbolTableSection)
        self.btf: bytes = btf.data()
        self.variables: dict[str, bytes] = {}
        for symbol in symbols.iter_symbols():
            if symbol["st_info"]["type"] == "STT_OBJECT":
                section = file.get_section(symbol["st_shndx"])
                start = symbol["st_value"]
                self.variables[symbol.name] = section.data()[start : start + symbol["st_size"]]


@functools.cache
def compile_bpf(source: str, byteorder: str = "little") -> Compiled:
    """Compile C for BPF of that byte order."""
    target = "bpfel" if byteorder == "little" else "bpfeb"
    command = [newest_clang(), "-target", target, "-g", "-O2", "-x", "c", "-c", "-", "-o", "-"]
    done = subprocess.run(command, input=source.encode(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return Compiled(done.stdout)


def newest_clang() -> str:
    """The clang of the highest version on PATH, or the one without a version."""
    versions = set()
    for folder in os.environ["PATH"].split(os.pathsep):
        if os.path.isdir(folder):
            versions |= {
                int(found[1])
                for n in os.listdir(folder)
                if (found := re.fullmatch(r"clang-(\d+)", n))
            }
    clang = shutil.which(f"clang-{max(versions)}" if versions else "clang")
    assert clang, "these tests need clang"
    return clang


def raw_btf(
    types: list[tuple[int, ...]],
    strings: bytes = b"\0",
    byteorder: str = "little",
) -> bytes:
    """BTF of ``types``, each a tuple of its 32-bit words, and of ``strings`` as they are."""
    order = "<" if byteorder == "little" else ">"
    words = [word for words in types for word in words]
    body = struct.pack(f"{order}{len(words)}I", *words)
    header = struct.pack(
        order + "HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(body), len(body), len(strings)
    )
    return header + body + strings


def info(kind: int, vlen: int = 0, flag: bool = False) -> int:
    """The second word of a type."""
    return flag << 31 | kind << 24 | vlen
