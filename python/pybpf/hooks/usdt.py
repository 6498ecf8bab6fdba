# SPDX-License-Identifier: BSD-2-Clause
"""USDT: probes that a program or library has in its source, and tells of in notes."""

from __future__ import annotations

import errno

from pybpf import _native
from pybpf._native import lib
from pybpf.errors import NotFoundError, ObjectFormatError
from pybpf.holds import UsdtHold
from pybpf.hooks import binaries, uprobes

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from typing import Any

    from pybpf.holds import Hold

_NOTES = ".note.stapsdt"


def find(binary: str | os.PathLike[str], provider: str, name: str, pid: int | None) -> str:
    """The path of the file, which has that probe; NotFoundError without."""
    path = binaries.find(binary, pid)
    wanted = f"{provider}:{name}"
    known = set(probes(path))
    if wanted not in known:
        raise NotFoundError(f"USDT probe of {path}", wanted, sorted(known))
    return path


def probes(path: str) -> Iterator[str]:
    """ "provider:name" of each place of a probe in the file; ObjectFormatError: no ELF file."""
    from elftools.elf.elffile import ELFFile

    with open(path, "rb") as file:
        try:
            elf = ELFFile(file)
            section: Any = elf.get_section_by_name(_NOTES)
            addresses = 3 * elf.elfclass // 8  # of the probe, of .stapsdt.base, of the semaphore
            for note in section.iter_notes() if section else ():
                provider, name, _ = note["n_descdata"][addresses:].split(b"\0", 2)
                yield f"{provider.decode()}:{name.decode()}"
        except Exception as error:  # the bytes may be any, and so is what pyelftools raises
            raise ObjectFormatError(f"cannot be read as an ELF file: {error}", path) from error


def attach(
    what: str, program: Any, path: str, pid: int | None, provider: str, name: str, cookie: int
) -> Hold:
    hold = UsdtHold()
    code = lib.pybpf_attach_usdt(
        program,
        uprobes.one_or_all(pid),
        _native.c_string(path, "path"),
        _native.c_string(provider, "provider"),
        _native.c_string(name, "name"),
        cookie,
        hold.place,
    )
    _native.check(code, "attach", what, uprobes.refusal(code, _hint))
    return hold


def _hint(number: int) -> str:
    if number == errno.ESRCH:
        return 'a USDT program includes <bpf/usdt.bpf.h>, and its section begins with "usdt"'
    return ""
