# SPDX-License-Identifier: BSD-2-Clause
"""BTF as a C header, by libbpf's dumper, which works in a child process: see c_src/btf_dump.c."""

from __future__ import annotations

import os
import signal

from pybpf import _native
from pybpf._native import ffi, lib
from pybpf.errors import ObjectFormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# libbpf's bpf_tracing.h and others look for this name
_TOP = """\
#ifndef __VMLINUX_H__
#define __VMLINUX_H__

#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute push (__attribute__((preserve_access_index)), apply_to = record)
#endif

"""
_BOTTOM = """\
#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute pop
#endif

#endif /* __VMLINUX_H__ */
"""
_LIMITS: dict[int, str] = {
    signal.SIGXCPU: "they take too much time",
    signal.SIGXFSZ: "they make too much text",
}


def to_c(data: Sequence[bytes]) -> str:
    """The types of the last of ``data`` as C, each of which continues the one before it.

    ObjectFormatError where libbpf refuses them, crashes over them or comes to no end; KernelError
    where no process can be started.
    """
    with (
        open(os.memfd_create("pybpf types"), "r+b") as text,
        open(os.memfd_create("pybpf messages"), "r+b") as messages,
    ):
        status = _run(data, text.fileno(), messages.fileno())
        text.seek(0)  # both share the position
        messages.seek(0)
        types = text.read()
        if types.endswith(b"\0"):  # written last
            return _TOP + types[:-1].decode(errors="backslashreplace") + _BOTTOM
        said = messages.read().decode(errors="replace").splitlines()[-3:]
    causes = [_cause(status), *(line.removeprefix("libbpf: ") for line in said)]
    raise ObjectFormatError(f"libbpf cannot write these types as C: {'; '.join(causes)}")


def _run(data: Sequence[bytes], text_fd: int, messages_fd: int) -> int:
    """The exit status of the child process, negative for a signal."""
    array = ffi.new("struct pybpf_btf_data[]", len(data))
    for place, raw in zip(array, data, strict=True):
        place.start, place.size = ffi.from_buffer(raw), len(raw)
    child = lib.pybpf_btf_dump(array, len(data), text_fd, messages_fd)
    _native.check(child, "start a process", "to write types as C")
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except ChildProcessError:  # somebody else waited for it: a handler, or SIGCHLD is ignored
        return 0
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise


def _cause(status: int) -> str:
    if status > 0:
        return os.strerror(status)
    if status == 0:
        return "its process ended early"
    return _LIMITS.get(-status) or f"it was ended by {signal.Signals(-status).name}"
