# SPDX-License-Identifier: BSD-2-Clause
"""Streams of a program: what it prints to them, and what the kernel reports of it."""

from __future__ import annotations

import errno as _errno

from pybpf import _native
from pybpf._native import ffi, lib
from pybpf.errors import KernelError, NotSupportedError
from pybpf.kernel import explained

_SIZE = 1 << 17  # the kernel keeps 100,000 bytes of a stream


def read(program_fd: int, stream: int, target: str) -> str:
    """Take what is in a stream, without waiting; NotSupportedError before Linux 6.17."""
    buffer = ffi.new("char[]", _SIZE)
    code = lib.pybpf_stream_read(program_fd, stream, buffer, _SIZE)
    size = _native.check(code, "read a stream of", target, _refused)
    return bytes(ffi.buffer(buffer, size)).decode("utf-8", "replace")


def _refused(operation: str, target: str, errno: int, detail: str, log: str) -> KernelError:
    if errno == _errno.EINVAL:
        hint = "programs have streams since Linux 6.17"
        return NotSupportedError(operation, target, errno, detail, log, hint)
    return explained(KernelError)(operation, target, errno, detail, log)
