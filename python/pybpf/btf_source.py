# SPDX-License-Identifier: BSD-2-Clause
"""Where BTF comes from: its raw bytes in a file, of the running kernel, and by kernel id.

Apart from pybpf.btf, which makes types of these bytes and needs neither the kernel nor C.
"""

from __future__ import annotations

import errno as _errno
import os
import stat

from pybpf import _native, elf
from pybpf._native import ffi, lib
from pybpf.errors import (
    KernelError,
    NotFoundError,
    NotSupportedError,
    ObjectFormatError,
    ObjectNotFoundError,
    PrivilegeError,
)
from pybpf.kernel import explained

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KERNEL_FOLDER = "/sys/kernel/btf"
VMLINUX = "vmlinux"

_BTF_MAGICS = (b"\x9f\xeb", b"\xeb\x9f")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\xfd7": "xz", b"(\xb5": "zstd", b"BZ": "bzip2"}


def of_file(path: str) -> tuple[bytes, bytes | None]:
    """The BTF in a file, and the one that it continues where the file brings that along.

    Raises ObjectFormatError, and KernelError where the file cannot be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO would wait
        try:
            return _of_open_file(fd)
        finally:
            os.close(fd)
    except ObjectFormatError as bad:
        raise ObjectFormatError(bad.message, path, bad.section, bad.offset) from None
    except OSError as failed:
        raise _unreadable(path, failed.errno or 0) from None


def _of_open_file(fd: int) -> tuple[bytes, bytes | None]:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise ObjectFormatError("is no regular file")
    data = elf.FileData(fd)
    magic = data[:2]
    if magic in _BTF_MAGICS:
        return data[:], None
    if magic in _COMPRESSED:
        raise ObjectFormatError(f"this is compressed ({_COMPRESSED[magic]}); decompress it first")
    found = elf.contents(data, ".BTF", ".BTF.base")
    if ".BTF" not in found:
        raise ObjectFormatError(
            "no section .BTF: compile BPF programs with clang -g, a kernel with "
            "CONFIG_DEBUG_INFO_BTF=y"
        )
    return found[".BTF"], found.get(".BTF.base")


def _unreadable(path: str, errno: int) -> KernelError:
    errors = {_errno.ENOENT: ObjectNotFoundError, _errno.EACCES: PrivilegeError}
    return errors.get(errno, KernelError)("read types from", path, errno)


def kernel_inode(module: str | None) -> int:
    """A number that belongs to the types of the kernel or, until it is unloaded, of that module.

    NotSupportedError where the kernel has no BTF, NotFoundError where it has none of the module.
    """
    try:
        return os.stat(_kernel_path(module)).st_ino
    except OSError as failed:
        raise _missing(module, failed.errno or 0) from None


def _kernel_path(module: str | None) -> str:
    return f"{KERNEL_FOLDER}/{module or VMLINUX}"


def _missing(module: str | None, errno: int) -> NotFoundError | NotSupportedError:
    if os.path.exists(_kernel_path(None)):
        modules = sorted(set(os.listdir(KERNEL_FOLDER)) - {VMLINUX})
        return NotFoundError("loaded kernel module with types", str(module), modules)
    return NotSupportedError(
        "read the types of",
        "the running kernel",
        errno,
        f"there is no {_kernel_path(None)}",
        hint="the kernel must be built with CONFIG_DEBUG_INFO_BTF=y and sysfs be mounted; "
        "otherwise Btf.from_file() reads the BTF of this very kernel from a file",
    )


def of_kernel(module: str | None) -> tuple[bytes, str]:
    """The BTF of the running kernel, or what that module adds to it; and its path."""
    path = _kernel_path(module)
    try:
        # not mapped, though Linux 6.16 could: 4 ms less, but Python 3.12 keeps a descriptor for it
        with open(path, "rb", buffering=0) as file:
            return file.readall(), path
    except OSError as failed:
        raise _unreadable(path, failed.errno or 0) from None


def of_id(id: int) -> bytes | str:
    """The BTF that the kernel holds under that id; for its own only the name of whose it is.

    That is "vmlinux" or a module.  Raises KernelError where there is none.
    """
    if not 0 <= id < 1 << 32:
        raise OverflowError(f"a kernel id has 32 bits, {id} has not")
    refusal = explained(KernelError, needed=("CAP_SYS_ADMIN",))
    fd = _native.check(lib.bpf_btf_get_fd_by_id(id), "open types", f"of id {id}", refusal)
    try:
        return _of_fd(fd)
    finally:
        os.close(fd)


def _of_fd(fd: int) -> bytes | str:
    info = _native.info(fd, "struct bpf_btf_info")
    if info.kernel_btf:
        name = ffi.new("char[]", info.name_len + 1)
        _native.info(fd, "struct bpf_btf_info", name=_address(name), name_len=len(name))
        return _native.text(name)
    data = ffi.new("char[]", info.btf_size)
    _native.info(fd, "struct bpf_btf_info", btf=_address(data), btf_size=len(data))
    return bytes(ffi.buffer(data))


def _address(buffer: Any) -> int:
    return int(ffi.cast("uintptr_t", buffer))
