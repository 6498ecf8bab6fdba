# SPDX-License-Identifier: BSD-2-Clause
"""Opening: from a path, bytes or file to an Object, without asking the kernel anything."""

from __future__ import annotations

import errno
import os
import stat
from io import FileIO

from pybpf import _native, elf
from pybpf._native import ffi, lib
from pybpf.errors import (
    KernelError,
    NotSupportedError,
    ObjectFormatError,
    ObjectNotFoundError,
    PrivilegeError,
)
from pybpf.hazards import warn_of_padded_keys
from pybpf.object import LOG_STATS, Object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

    ObjectSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO

_LOG_LEVELS = 7
_OPEN_HINTS = {
    "legacy map definitions": 'hint: define maps as BTF structs in SEC(".maps")',
    "BTF is required": "hint: maps are described by BTF; compile with clang -g",
}


def open(
    source: ObjectSource,
    *,
    name: str | None = None,
    btf: str | os.PathLike[str] | None = None,
    pin_root: str | os.PathLike[str] | None = None,
    kconfig: str | None = None,
    token: str | os.PathLike[str] | None = None,
    log_level: int = 0,
) -> Object:
    """Open a compiled BPF object without asking the kernel anything; needs no privilege.

    ``source`` is a path, bytes or a binary file.  ``name`` is the object's name (the file's up to
    its first dot), which the kernel shows in the names of .rodata and the like.  ``btf`` is a BTF
    file to relocate against instead of the running kernel's.  ``pin_root`` is the folder for maps
    declared LIBBPF_PIN_BY_NAME (/sys/fs/bpf).  ``kconfig`` adds CONFIG_X=y lines over those of the
    running kernel.  ``token`` is a BPF file system to take a BPF token from (libbpf 1.4, Linux
    6.9).  ``log_level`` is the verifier's for every program that sets none of its own.

    ObjectFormatError for what is no such object, ObjectNotFoundError for a missing file.  Warns
    with LayoutWarning of hashes whose keys have padding.  The caller owns the Object: close() it,
    or use ``with``.
    """
    if not 0 <= log_level <= _LOG_LEVELS:
        raise ValueError(f"log_level is a sum of 1, 2 and 4, not {log_level}")
    if token is not None and _native.version() < (1, 4):
        hint = "BPF tokens need libbpf 1.4; this pybpf is built with {}.{}".format(
            *_native.version()
        )
        raise NotSupportedError("use BPF token of", os.fspath(token), errno.EOPNOTSUPP, hint=hint)
    if btf is not None and not os.path.exists(btf):
        raise ObjectNotFoundError("read types from", os.fspath(btf), errno.ENOENT)
    data, path = _read(source)
    elf.check_object(data, path, foreign=True)
    license = elf.license(data)
    if not name:
        name = os.path.basename(path).partition(".")[0] if path else "object"
    texts = {"name": name, "pin_root": pin_root, "kconfig": kconfig, "btf": btf, "token": token}
    options = ffi.new("struct pybpf_open_options *")
    options.log_level = log_level & ~LOG_STATS  # which Object.load() asks for by itself
    keep = []  # cffi frees what only a struct field points to
    for field, text in texts.items():
        if text is not None:
            keep.append(ffi.new("char[]", _native.c_string(text, field)))
            setattr(options, field, keep[-1])
    pointer = ffi.new("struct bpf_object **")
    _native.listen()
    code = lib.pybpf_open(ffi.from_buffer(data), len(data), options, pointer)
    messages = _native.take_log()
    if code < 0:
        raise _open_error(_native.kernel_errno(code), path, _native.join_log(messages, 0))
    custom_btf = None if btf is None else os.fspath(btf)
    obj = Object(pointer[0], path, license, _byte_order(data), log_level, custom_btf)
    try:
        warn_of_padded_keys(obj)
    except BaseException:  # a warning may be an error
        obj.close()
        raise
    return obj


def load(
    source: ObjectSource,
    *,
    name: str | None = None,
    btf: str | os.PathLike[str] | None = None,
    pin_root: str | os.PathLike[str] | None = None,
    kconfig: str | None = None,
    token: str | os.PathLike[str] | None = None,
    log_level: int = 0,
    optional: bool | str | Iterable[str] = False,
) -> Object:
    """open() and Object.load() in one go, with what both raise; where that fails nothing is left.

    ``optional`` is load()'s: what is left out where this kernel lacks it.

    The caller owns the Object: close() it, or use ``with``.
    """
    obj = open(
        source,
        name=name,
        btf=btf,
        pin_root=pin_root,
        kconfig=kconfig,
        token=token,
        log_level=log_level,
    )
    try:
        obj.load(optional=optional)
    except BaseException:
        obj.close()
        raise
    return obj


def _read(source: ObjectSource) -> tuple[bytes, str | None]:
    """The object's bytes, and its path where it has one."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source), None
    if hasattr(source, "read"):
        data = source.read()
        if not isinstance(data, bytes):
            raise ObjectFormatError("the file is open in text mode; open it in binary mode")
        name = getattr(source, "name", None)
        return data, name if isinstance(name, str) else None
    path = os.fsdecode(source)
    try:
        return _read_file(path), path
    except FileNotFoundError as error:
        raise ObjectNotFoundError("open object", path, error.errno or 0) from None
    except PermissionError as error:
        hint = "this user may not read the file"
        raise PrivilegeError("open object", path, error.errno or 0, hint=hint) from None
    except OSError as error:
        raise KernelError("open object", path, error.errno or 0) from None


def _read_file(path: str) -> bytes:
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise ObjectFormatError("is a folder, not a BPF object", path)
    if not stat.S_ISREG(mode):
        raise ObjectFormatError("is no regular file", path)
    with FileIO(path) as file:
        return file.readall()


def _byte_order(data: bytes) -> str:
    return "big" if data[5] == 2 else "little"  # EI_DATA, which elf.check_object() has seen


def _open_error(number: int, path: str | None, warnings: str) -> Exception:
    lines = [line for line in warnings.splitlines() if line.strip()]
    lines = lines[-8:] or [os.strerror(number)]
    lines += [hint for words, hint in _OPEN_HINTS.items() if words in warnings]
    return ObjectFormatError("libbpf cannot open it: " + "\n  ".join(lines), path)
