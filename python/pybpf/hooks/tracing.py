# SPDX-License-Identifier: BSD-2-Clause
"""Tracepoints, and what programs are verified for: functions of the kernel and of programs."""

from __future__ import annotations

import errno
import os

from pybpf import _native, features, tracefs
from pybpf._native import NULL, lib
from pybpf.holds import FdHold, LibbpfHold
from pybpf.hooks import events, linking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf.features import Feature
    from pybpf.holds import Hold
    from pybpf.program import Program

_RAW_TRACEPOINT = 23  # of AttachType


# ---- tracepoints ---------------------------------------------------------------------------------


def attach_tracepoint(what: str, program_fd: int, category: str, name: str, cookie: int) -> Hold:
    def hint(number: int) -> str:
        if number == errno.ENOENT:
            return f"this kernel has no tracepoint {category}/{name} (/sys/kernel/tracing/events)"
        if number == errno.EACCES:
            return "the program reads more than the tracepoint has"
        if number == errno.EINVAL:
            return "the program is no tracepoint program"
        return ""

    refuse = linking.refusal(features.PERF_LINK if cookie else (), events.NEEDED, hint)
    file = tracefs.open_file(f"events/{category}/{name}/id", 0, "attach", what, refuse)
    try:
        number = int(os.read(file, 32))
    finally:
        os.close(file)
    return events.attach(what, program_fd, events.tracepoint(number), cookie, refuse)


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
    _native.check(code, "attach", what, linking.refusal(feature, events.NEEDED, hint))
    return hold


# ---- what programs are verified for --------------------------------------------------------------


def attach_trace(what: str, program: Any, cookie: int) -> Hold:
    fd, attach_type = lib.bpf_program__fd(program), lib.bpf_program__expected_attach_type(program)
    refuse = linking.refusal((), events.NEEDED, _trace_hint)
    if cookie:
        linking.require(_cookie_feature(attach_type), what)
        return linking.create(what, refuse, fd, attach_type, 0, tracing={"cookie": cookie})
    # which is what kernels without cookies have, too
    hold = FdHold()
    code = lib.pybpf_raw_tracepoint_open(NULL, fd, 0, hold.place)
    _native.check(code, "attach", what, refuse)
    return hold


def _cookie_feature(attach_type: int) -> Feature:
    if attach_type == _RAW_TRACEPOINT:
        return features.RAW_TRACEPOINT_COOKIE
    return features.TRAMPOLINE_COOKIE


def _trace_hint(number: int) -> str:
    if number in (errno.EINVAL, errno.EFAULT):
        return "this takes programs of sections tp_btf, fentry, fexit, fmod_ret, fsession and lsm"
    if number == errno.EBUSY:
        return "it is attached already, or its function is traced in a way that excludes this"
    if number == errno.ENOENT:
        return "before Linux 5.13, what was attached once cannot be again"
    if number == errno.E2BIG:
        return "as many programs as a function can have are attached to this one"
    return ""


def attach_freplace(what: str, program: Any, target: Program, function: str) -> Hold:
    hold = LibbpfHold()
    name = _native.c_string(function, "function")
    with target._borrow_fd() as target_fd:
        code = lib.pybpf_attach_freplace(program, target_fd, name, hold.place)
    _native.check(code, "attach", what, linking.refusal((), events.NEEDED, _freplace_hint))
    return hold


def _freplace_hint(number: int) -> str:
    if number in (errno.ENOENT, errno.ESRCH):
        return "the target has no global function of that name"
    if number == errno.EINVAL:
        return "the function has to be global, and of the type of the one it was loaded for"
    if number == errno.EBUSY:
        return "the function is replaced already"
    return ""
