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

_KINDS = {"bpf-map": "map", "bpf-prog": "program", "bpf_link": "link", "bpf-link": "link"}


def pin(fd: int, path: str | os.PathLike[str], what: str) -> None:
    """Pin the map, program or link behind ``fd``; PinError or PrivilegeError where that fails."""
    name = os.fspath(path)
    result = lib.bpf_obj_pin(fd, _native.c_string(name, "the path"))
    refusal = explained(PinError, lambda _: pin_hint(name))
    _native.check(result, f"pin {what}", f"at {name}", refusal)


def unpin(path: str | os.PathLike[str], what: str, fd: int) -> None:
    """Remove the pin at ``path`` of what is behind ``fd``, which lives on while anything holds it.

    PinError where there is no pin, or one of something else.
    """
    name = os.fspath(path)
    kind = fd_kind(fd)
    pinned = open_pinned(name, kind)
    try:
        found, wanted = _id(pinned, kind), _id(fd, kind)
    finally:
        os.close(pinned)
    if found != wanted:
        hint = f"the {kind} of id {found} is pinned there, not {what} of id {wanted}"
        raise PinError(f"unpin {what}", f"at {name}", _errno.EINVAL, hint=hint)
    remove(name)


def remove(path: str) -> None:
    """Remove whatever is pinned at ``path``; PinError or PrivilegeError where that fails."""
    try:
        os.unlink(path)
    except OSError as error:
        raise refused("unpin", path, error, path) from None


def _id(fd: int, kind: str) -> int:
    structure = {"map": "bpf_map_info", "program": "bpf_prog_info", "link": "bpf_link_info"}[kind]
    return int(_native.info(fd, f"struct {structure}").id)


def refused(operation: str, target: str, error: OSError, path: str) -> KernelError:
    """PinError, or PrivilegeError, for what the file system refused at ``path``."""
    explain = explained(PinError, lambda _: _open_hint(path))
    return explain(operation, target, error.errno or 0, "", "")


def open_pinned(path: str | os.PathLike[str], kind: str) -> int:
    """A new fd of the "map", "program" or "link" pinned at ``path``; PinError for anything else."""
    name = os.fspath(path)
    refusal = explained(PinError, lambda _: _open_hint(name))
    result = lib.bpf_obj_get(_native.c_string(name, "the path"))
    fd = _native.check(result, f"open pinned {kind}", name, refusal)
    found = fd_kind(fd)
    if found == kind:
        return fd
    os.close(fd)
    raise PinError(f"open pinned {kind}", name, _errno.EINVAL, hint=f"a {found} is pinned there")


def fd_kind(fd: int) -> str:
    """What a descriptor is: "map", "program" or "link"; else what the kernel calls it."""
    name = os.readlink(f"/proc/self/fd/{fd}").removeprefix("anon_inode:").strip("[]")
    return _KINDS.get(name, name)


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
