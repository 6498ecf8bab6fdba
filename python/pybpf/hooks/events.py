# SPDX-License-Identifier: BSD-2-Clause
"""Perf events that run programs, of which tracepoints are one kind."""

from __future__ import annotations

from pybpf import _native
from pybpf._native import ffi, lib
from pybpf.holds import EventHold, FdHold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf._native import Refusal
    from pybpf.holds import Hold

NEEDED = ("CAP_BPF", "CAP_PERFMON")
TRACEPOINT = 2  # of enum perf_type_id
ANY = -1  # process, or CPU


def tracepoint(number: int) -> dict[str, Any]:
    """The request for a tracepoint: on one CPU, since a program on it runs on each."""
    return {"type": TRACEPOINT, "config": number, "cpu": 0, "pid": ANY}


def attach(
    what: str, program_fd: int, request: dict[str, Any], cookie: int, refuse: Refusal
) -> Hold:
    """Open the event that ``request`` describes, and have it run the program."""
    event, link = EventHold(), FdHold()
    wanted = ffi.new("struct pybpf_perf_request *", request)
    _native.check(lib.pybpf_perf_open(wanted, event.place), "attach", what, refuse)
    code = lib.pybpf_perf_attach(event.place[0], program_fd, cookie, link.place)
    _native.check(code, "attach", what, refuse)
    if link.fileno() < 0:
        return event
    event.end()  # the link holds it
    return link
