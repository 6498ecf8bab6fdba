# SPDX-License-Identifier: BSD-2-Clause
"""Pins: names on a bpffs that keep a map, program or link alive without any process."""

from __future__ import annotations

import errno as _errno
import os
import stat

from pybpf import _native
from pybpf._native import lib
from pybpf.errors import KernelError, PinError
from pybpf.kernel import explained, mount_points, on_bpffs


def pin(fd: int, path: str | os.PathLike[str], what: str) -> None:
    """Pin the map, program or link behind ``fd``; PinError or PrivilegeError where that fails."""
    name = os.fspath(path)
    result = lib.bpf_obj_pin(fd, _native.path_bytes(name))
    refusal = explained(PinError, lambda _: pin_hint(name))
    _native.check(result, f"pin {what}", f"at {name}", refusal)


def unpin(path: str | os.PathLike[str], what: str) -> None:
    """Remove a pin; what it held lives on while something else holds it."""
    try:
        os.unlink(path)
    except OSError as error:
        raise refused(f"unpin {what}", f"at {os.fspath(path)}", error, os.fspath(path)) from None


def refused(operation: str, target: str, error: OSError, path: str) -> KernelError:
    """PinError, or PrivilegeError, for what the file system refused at ``path``."""
    explain = explained(PinError, lambda _: _open_hint(path))
    return explain(operation, target, error.errno or 0, "", "")


def open_pinned(path: str | os.PathLike[str], kind: str) -> int:
    """A new fd of the "map", "prog" or "link" pinned at ``path``; PinError for anything else."""
    name = os.fspath(path)
    refusal = explained(PinError, lambda _: _open_hint(name))
    fd = _native.check(
        lib.bpf_obj_get(_native.path_bytes(name)), f"open pinned {kind}", name, refusal
    )
    found = fd_kind(fd)
    if found == kind:
        return fd
    os.close(fd)
    raise PinError(f"open pinned {kind}", name, _errno.EINVAL, hint=f"a {found} is pinned there")


def fd_kind(fd: int) -> str:
    """What a BPF fd is: "map", "prog" or "link"; the kernel's own word for anything else."""
    name = os.readlink(f"/proc/self/fd/{fd}").removeprefix("anon_inode:").strip("[]")
    return name[4:] if name.startswith(("bpf-", "bpf_")) else name


def pin_hint(path: str) -> str:
    """Why something cannot be pinned at ``path``; "" where no reason shows."""
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        return f"there is no folder {folder}; make it first (on a bpffs, mkdir works as usual)"
    if not on_bpffs(folder):
        mounted = mount_points("bpf")
        if mounted:
            return f"{folder} is not on a bpffs; one is mounted at {', '.join(mounted)}"
        return "no bpffs is mounted here; try: mount -t bpf bpf /sys/fs/bpf"
    if os.path.lexists(path):
        return f"{path} is taken; unpin it first, or open it with open_pinned()"
    if "." in os.path.basename(path):
        return "the kernel refuses names with a dot on a bpffs"
    return ""


def _open_hint(path: str) -> str:
    """Why nothing can be opened from ``path``; "" where no reason shows."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if mount_points("bpf"):
            return "nothing is pinned there"
        return "nothing is pinned there, and no bpffs is mounted; try: mount -t bpf bpf /sys/fs/bpf"
    except OSError:
        return ""
    if not stat.S_ISREG(mode) or not on_bpffs(os.path.dirname(os.path.abspath(path))):
        return f"{path} is no BPF pin: pins are files on a bpffs"
    return ""
