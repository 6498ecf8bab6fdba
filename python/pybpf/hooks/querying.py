# SPDX-License-Identifier: BSD-2-Clause
"""What is attached to a hook, in the order in which it runs: BPF_PROG_QUERY."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from pybpf import _native
from pybpf._native import ffi, lib
from pybpf.errors import KernelError
from pybpf.kernel import explained

_EFFECTIVE = 1  # BPF_F_QUERY_EFFECTIVE
_LSM_CGROUP = 43  # of AttachType
_TELL_LINKS = (46, 47, 54, 55)  # TCX_INGRESS, TCX_EGRESS, NETKIT_PRIMARY, NETKIT_PEER
_USUAL_COUNT = 64  # all that a hook of a cgroup or device takes


@dataclass(frozen=True)
class Attached:
    """The programs at one hook.

    ``programs`` are their ids in the order in which they run.  ``revision`` is a number that each
    change makes greater; None where the kernel does not count (cgroups before Linux 6.17).
    ``flags`` are those of the hook (``BPF_F_ALLOW_*`` of a cgroup's).  ``links`` are, of tcx and
    netkit, the ids of the programs' links, None for one without; empty elsewhere.
    """

    programs: tuple[int, ...]
    revision: int | None
    flags: int
    links: tuple[int | None, ...] = ()


def query(target: int, attach_type: int, *, effective: bool = False) -> Attached:
    """What is attached to ``target``, a descriptor or an interface's number; KernelError.

    ``effective``: of a cgroup, with what those above it have it run as well.
    """
    count = _USUAL_COUNT
    while True:
        ids = ffi.new("uint32_t[]", count)
        flags = ffi.new("uint32_t[]", count)
        links = ffi.new("uint32_t[]", count)
        request = ffi.new(
            "struct pybpf_query *",
            {
                "target": target,
                "attach_type": attach_type,
                "query_flags": _EFFECTIVE if effective else 0,
                "prog_ids": _address(ids),
                "count": count,
            },
        )
        if attach_type == _LSM_CGROUP and not effective:  # which the kernel insists on
            request.prog_attach_flags = _address(flags)
        if attach_type in _TELL_LINKS:
            request.link_ids = _address(links)
        code = lib.pybpf_prog_query(request)
        if code != -errno.ENOSPC:
            break
        count = 2 * int(request.count)
    refuse = explained(KernelError, None, ("CAP_NET_ADMIN",))
    _native.check(code, "ask what is attached", f"at hook {attach_type}", refuse)
    return Attached(
        tuple(ids[0 : request.count]),
        int(request.revision) or None,
        int(request.attach_flags),
        tuple(id or None for id in links[0 : request.count]) if request.link_ids else (),
    )


def _address(memory: object) -> int:
    return int(ffi.cast("uintptr_t", memory))
