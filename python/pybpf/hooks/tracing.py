# SPDX-License-Identifier: BSD-2-Clause
"""Tracepoints of the kernel."""

from __future__ import annotations

import errno
import os

from pybpf import _native, features, tracefs
from pybpf._native import lib
from pybpf.holds import FdHold
from pybpf.hooks import linking, perf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.holds import Hold


def attach_tracepoint(what: str, program_fd: int, category: str, name: str, cookie: int) -> Hold:
    def hint(number: int) -> str:
        if number == errno.ENOENT:
            return f"this kernel has no tracepoint {category}/{name} (/sys/kernel/tracing/events)"
        if number == errno.EACCES:
            return "the program reads more than the tracepoint has"
        if number == errno.EINVAL:
            return "the program is no tracepoint program"
        return ""

    refuse = linking.refusal(features.PERF_LINK if cookie else (), perf.NEEDED, hint)
    file = tracefs.open_file(f"events/{category}/{name}/id", 0, "attach", what, refuse)
    try:
        number = int(os.read(file, 32))
    finally:
        os.close(file)
    return perf.attach(what, program_fd, perf.tracepoint(number), cookie, refuse)


def attach_raw_tracepoint(what: str, program_fd: int, name: str, cookie: int) -> Hold:
    def hint(number: int) -> str:
        if number == errno.ENOENT:
            return f"this kernel has no tracepoint {name!r} (/sys/kernel/tracing/events/*)"
        if number == errno.EINVAL:
            return "the program is no raw_tp program, or reads more than the tracepoint has"
        return ""

    feature = features.RAW_TRACEPOINT_COOKIE if cookie else ()
    hold = FdHold()
    code = lib.pybpf_raw_tracepoint_open(
        _native.c_string(name, "name"), program_fd, cookie, hold.place
    )
    _native.check(code, "attach", what, linking.refusal(feature, perf.NEEDED, hint))
    return hold
