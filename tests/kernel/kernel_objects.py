# SPDX-License-Identifier: BSD-2-Clause
"""What tests ask the kernel by system calls of their own and not through pybpf.

Which programs, maps and links it holds, and for perf events.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import time
from pathlib import Path

NR_BPF, NR_PERF_EVENT_OPEN = {"x86_64": (321, 298), "aarch64": (280, 241)}[platform.machine()]
GET_NEXT_ID = {"prog": 11, "map": 12, "link": 31}

libc = ctypes.CDLL(None, use_errno=True)


class NextId(ctypes.Structure):
    _fields_ = [
        ("start_id", ctypes.c_uint32),
        ("next_id", ctypes.c_uint32),
        ("open_flags", ctypes.c_uint32),
    ]


def next_id(command, start):
    attributes = NextId(start_id=start)
    if libc.syscall(NR_BPF, command, ctypes.byref(attributes), ctypes.sizeof(attributes)) == 0:
        return attributes.next_id
    if ctypes.get_errno() == errno.ENOENT:
        return None
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def kernel_ids():
    """{"prog": ids, "map": ids, "link": ids} of the whole machine."""
    found = {}
    for kind, command in GET_NEXT_ID.items():
        ids, last = set(), 0
        while (last := next_id(command, last)) is not None:
            ids.add(last)
        found[kind] = ids
    return found


def wait_until_gone(kind, id):
    """Until the kernel holds no such thing any more: what was pinned ends a moment later."""
    deadline = time.monotonic() + 5
    while id in kernel_ids()[kind]:
        assert time.monotonic() < deadline, f"{kind} {id} is still there"
        time.sleep(0.01)


def held_elsewhere():
    """The ids that descriptors of other processes hold."""
    held = {kind: set() for kind in GET_NEXT_ID}
    for process in set(filter(str.isdigit, os.listdir("/proc"))) - {str(os.getpid())}:
        for name, number in numbers_in(Path(f"/proc/{process}/fdinfo")):
            held[name].add(number)
    return held


def numbers_in(folder):
    """("prog", 5), ("map", 7) ... of one process's descriptors; of those that stay, if it ends."""
    try:
        for info in folder.iterdir():
            for line in info.read_text().splitlines():
                name, _, value = line.partition(":")
                if name in ("prog_id", "map_id", "link_id"):
                    yield name.removesuffix("_id"), int(value)
    except OSError:
        return


class PerfEventAttr(ctypes.Structure):
    """``struct perf_event_attr``, version 0."""

    _fields_ = [
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("unused", ctypes.c_uint64 * 3),
    ]


def perf_event_open(cpu, read_format=0, event=(1, 10)):
    """The descriptor of an event (type, config), one that BPF programs write raw samples to."""
    sample_raw, cloexec = 1 << 10, 1 << 3
    attributes = PerfEventAttr(
        type=event[0],
        size=ctypes.sizeof(PerfEventAttr),
        config=event[1],
        sample_period=1,
        sample_type=sample_raw,
        read_format=read_format,
    )
    fd = libc.syscall(NR_PERF_EVENT_OPEN, ctypes.byref(attributes), -1, cpu, -1, cloexec)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd


class LinkCreate(ctypes.Structure):
    """The part of ``union bpf_attr`` that BPF_LINK_CREATE reads."""

    _fields_ = [
        ("prog_fd", ctypes.c_uint32),
        ("target_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    ]


def attach_to_cgroup(program, folder, attach_type):
    """The descriptor of a link between them, which ends with it."""
    link_create = 28
    cgroup = os.open(folder, os.O_RDONLY)
    try:
        attributes = LinkCreate(program.fileno(), cgroup, attach_type)
        fd = libc.syscall(NR_BPF, link_create, ctypes.byref(attributes), ctypes.sizeof(attributes))
    finally:
        os.close(cgroup)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd
