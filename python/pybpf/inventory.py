# SPDX-License-Identifier: BSD-2-Clause
"""What the whole kernel holds: its programs, maps and links, and which processes hold them."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from dataclasses import dataclass, field

from pybpf import _native, info
from pybpf._handles import OwnedFd
from pybpf._native import lib
from pybpf.errors import KernelError
from pybpf.ids import all_ids
from pybpf.kernel import explained
from pybpf.link_info import link_info

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from pybpf.info import MapInfo, ProgramInfo
    from pybpf.link_info import LinkInfo

    Info = TypeVar("Info")

_RUN_TIME = 0  # BPF_STATS_RUN_TIME


def programs() -> Iterator[ProgramInfo]:
    """What the kernel tells of each of its programs, in the order of their ids.

    Those that come or go meanwhile may be among them or not.  ``Program.from_id(info.id)`` opens
    one.  PrivilegeError without CAP_SYS_ADMIN.
    """
    return _each("program", lib.bpf_prog_get_fd_by_id, info.program_info)


def maps() -> Iterator[MapInfo]:
    """What the kernel tells of each of its maps; as programs() otherwise."""
    return _each("map", lib.bpf_map_get_fd_by_id, info.map_info)


def links() -> Iterator[LinkInfo]:
    """What the kernel tells of each of its links (Linux 5.8); as programs() otherwise.

    What is attached without a link, as with netlink, is not among them.
    """
    return _each("link", lib.bpf_link_get_fd_by_id, link_info)


def _each(
    noun: str, fd_by_id: Callable[[int], int], describe: Callable[[int], Info]
) -> Iterator[Info]:
    refuse = explained(KernelError, needed=("CAP_SYS_ADMIN",))
    for id in all_ids(noun):
        fd = fd_by_id(id)
        if fd == -errno.ENOENT:
            continue  # it went meanwhile
        _native.check(fd, "open", f"{noun} of id {id}", refuse)
        try:
            described = describe(fd)
        finally:
            os.close(fd)
        yield described


@contextmanager
def enable_stats() -> Iterator[None]:
    """``with pybpf.enable_stats()``: count ``run_cnt`` and ``run_time_ns`` of all programs.

    They go on from where they were, for as long as somebody counts; it makes each run some 20 ns
    longer.  Linux 5.8; PrivilegeError without CAP_SYS_ADMIN.
    """
    refuse = explained(KernelError, needed=("CAP_SYS_ADMIN",))
    code = lib.bpf_enable_stats(_RUN_TIME)
    counting = OwnedFd(_native.check(code, "count", "the runs of programs", refuse), "run counts")
    try:
        yield
    finally:
        counting.close_when_unused()


@dataclass(frozen=True)
class Owner:
    """A process that holds a descriptor of something; ``name`` is its comm."""

    pid: int
    name: str


@dataclass
class Owners:
    """Who holds what, by the kernel's ids: ``owners.maps.get(id, [])``."""

    programs: dict[int, list[Owner]] = field(default_factory=dict)
    maps: dict[int, list[Owner]] = field(default_factory=dict)
    links: dict[int, list[Owner]] = field(default_factory=dict)


def owners() -> Owners:
    """The processes that hold descriptors of programs, maps and links, in the order of their pids.

    What only a pin, another program or a hook holds is not there, nor are processes that this one
    may not look into (ptrace access: the same user, or CAP_SYS_PTRACE).
    """
    found = Owners()
    kinds = {"prog_id": found.programs, "map_id": found.maps, "link_id": found.links}
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        held = set(_held_by(pid))
        if held:
            owner = Owner(pid, _comm(pid))
            for kind, id in held:
                kinds[kind].setdefault(id, []).append(owner)
    return found


def _held_by(pid: int) -> Iterator[tuple[str, int]]:
    """("prog_id", 7) and so on, for each descriptor."""
    try:
        descriptors = list(os.scandir(f"/proc/{pid}/fdinfo"))
    except OSError:
        return  # it ended, or is not ours to see
    for descriptor in descriptors:
        kind, id = _identity(pid, descriptor.name)
        if kind:
            yield kind, id


def _identity(pid: int, fd: str) -> tuple[str, int]:
    """What a descriptor is of: a link also names its program, which it holds, not the process."""
    try:
        if "bpf" not in os.readlink(f"/proc/{pid}/fd/{fd}"):
            return "", 0
        with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii", errors="replace") as lines:
            values = dict(line.rstrip("\n").partition(":")[::2] for line in lines)
    except OSError:
        return "", 0
    for kind in ("link_id", "prog_id", "map_id"):
        if kind in values:
            return kind, int(values[kind])
    return "", 0


def _comm(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
            return comm.read().rstrip("\n")
    except OSError:
        return "?"
