# SPDX-License-Identifier: BSD-2-Clause
"""Which file is meant by the name of a program or library, on this machine or in a container."""

from __future__ import annotations

import os
import shutil
import struct

from pybpf.elf_symbols import name_at
from pybpf.errors import NotFoundError, PrivilegeError
from pybpf.symbols import DELETED, MAX_PID, code_mappings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybpf.symbols import Mapping

_CACHE = "/etc/ld.so.cache"
_CACHE_MAGIC = b"glibc-ld.so.cache1.1"
_CACHE_HEADER = struct.Struct("=20s2I20x")  # magic, entries, length of the texts
_CACHE_ENTRY = struct.Struct("=i2I12x")  # flags, places of name and path
# for libraries that the cache does not have: without glibc, all of them
_FOLDERS = ("/usr/local/lib", "/usr/lib64", "/lib64", "/usr/lib", "/lib")
_IDENTITY = slice(4, 6)  # of an ELF header: 32 or 64 bits, and the byte order
_MACHINE = slice(18, 20)


def find(binary: str | os.PathLike[str], pid: int | None) -> str:
    """The path of the file that ``binary`` names, in the eyes of process ``pid`` where given.

    A name without a slash is that of a library, also without its version ("libc"), or of a program:
    one that the process has mapped, or else that is on PATH or that the dynamic linker would load.
    NotFoundError tells where was looked.
    """
    name = os.fspath(binary)
    if pid is not None and not 0 < pid <= MAX_PID:
        raise ValueError(f"no process can have the pid {pid}: they are 1 to {MAX_PID}")
    if "/" in name:
        return _existing(name if pid is None else _seen_by(pid, name))
    return _installed(name) if pid is None else _mapped(name, pid)


def _seen_by(pid: int, path: str) -> str:
    """An absolute path in the root of that process; /proc is this process's own."""
    is_elsewhere = path.startswith("/") and not path.startswith("/proc/")
    return f"/proc/{pid}/root{path}" if is_elsewhere else path


def _existing(path: str) -> str:
    if os.path.isfile(path):
        return path
    folder, _, name = path.rpartition("/")
    raise NotFoundError(f"file in {folder or '/'}", name, _listing(folder or "/"))


def _listing(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _chosen(name: str, known: list[tuple[str, str]]) -> str | None:
    """The path of the first (name, path) of that name, else of one that only has a version more."""
    exact = [path for each, path in known if each == name]
    newer = [path for each, path in known if each.startswith(f"{name}.")]
    return next(iter(exact + newer), None)


# ---- on this machine -----------------------------------------------------------------------------


def _installed(name: str) -> str:
    libraries = list(_cached_libraries())
    libraries += [(each, f"{folder}/{each}") for folder in _folders() for each in _listing(folder)]
    alike = [(each, path) for each, path in libraries if each.startswith(name)]
    found = shutil.which(name) or _chosen(name, [each for each in alike if _is_native(each[1])])
    if found is None:
        looked = ", ".join(("PATH", _CACHE, *_folders()))
        raise NotFoundError(f"program or library (in {looked})", name, dict(libraries))
    return found


def _folders() -> list[str]:
    asked = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return [folder for folder in (*asked, *_FOLDERS) if folder]


def _cached_libraries() -> Iterator[tuple[str, str]]:
    """(name, path) of what the dynamic linker of glibc knows, newer versions first."""
    try:
        with open(_CACHE, "rb") as file:
            content = file.read()
    except OSError:
        return
    start = content.find(_CACHE_MAGIC)  # behind what the linkers of old want
    if start < 0:
        return
    content = content[start:]
    _, count, _ = _CACHE_HEADER.unpack_from(content)
    end = _CACHE_HEADER.size + count * _CACHE_ENTRY.size
    for _, name, path in _CACHE_ENTRY.iter_unpack(content[_CACHE_HEADER.size : end]):
        yield name_at(content, name), name_at(content, path)


def _is_native(path: str) -> bool:
    """Whether that is an ELF file for the same processor as Python itself."""
    kinds = []
    for each in (path, "/proc/self/exe"):
        try:
            with open(each, "rb") as file:
                header = file.read(20)
        except OSError:
            return False
        kinds.append((header[:4], header[_IDENTITY], header[_MACHINE]))
    return kinds[0] == kinds[1]


# ---- in a process --------------------------------------------------------------------------------


def _mapped(name: str, pid: int) -> str:
    known = [(os.path.basename(each.path).removesuffix(DELETED), each) for each in _mappings(pid)]
    found = _chosen(name, [(each, _place(pid, mapping)) for each, mapping in known])
    if found is None:
        raise NotFoundError(f"file mapped by process {pid}", name, sorted(dict(known)))
    return found


def _place(pid: int, mapping: Mapping) -> str:
    """A path of this process that leads to the file, also where it has no name any more."""
    named = f"/proc/{pid}/root{mapping.path}"
    is_there = not mapping.path.endswith(DELETED) and os.path.exists(named)
    return named if is_there else f"/proc/{pid}/map_files/{mapping.start:x}-{mapping.end:x}"


def _mappings(pid: int) -> list[Mapping]:
    try:
        with open(f"/proc/{pid}/maps", "rb") as maps:
            return [each for each in code_mappings(maps.read()) if each.path.startswith("/")]
    except PermissionError as error:
        hint = "it takes the same user as the process, or CAP_SYS_PTRACE"
        raise PrivilegeError(
            "read the mappings of", f"process {pid}", error.errno or 0, hint=hint
        ) from None
    except OSError:  # it has ended
        return []
