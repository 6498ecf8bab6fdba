# SPDX-License-Identifier: BSD-2-Clause
"""The one door to libbpf and C: the only importer of pybpf._libbpf and pybpf._fast.

Return codes pass through check() or check_pointer(), text through text(), and what libbpf prints
is kept per thread, so that the error of a failed call carries it.
"""

from __future__ import annotations

import errno
import os
import struct
import sys

from pybpf._fast import Elements, Records, Runs, TestRunResult, test_run
from pybpf._libbpf import ffi, lib
from pybpf.errors import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable
    from typing import Any

    Refusal = Callable[[str, str, int, str, str], KernelError]
    """Builds the error of (operation, target, errno, decisive lines, whole log)."""

__all__ = [
    "NULL",
    "Elements",
    "Records",
    "Runs",
    "TestRunResult",
    "c_string",
    "check",
    "check_pointer",
    "ffi",
    "info",
    "join_log",
    "kernel_errno",
    "lib",
    "listen",
    "shared_fd",
    "take_log",
    "test_run",
    "text",
    "version",
]

NULL = ffi.NULL

_WARN, _INFO, _DEBUG = range(3)  # enum libbpf_print_level
_LOGGING_LEVELS = {_WARN: 30, _INFO: 20, _DEBUG: 10}
_MESSAGE_HEADER = struct.Struct("=II")  # shim.c: struct message_header
_PREFIX = "libbpf: "

lib.pybpf_log_install()


def version() -> tuple[int, int]:
    """The libbpf that is linked in: (major, minor)."""
    return lib.libbpf_major_version(), lib.libbpf_minor_version()


def text(pointer: Any) -> str:
    """A C string as str; "" for NULL."""
    return "" if pointer == NULL else ffi.string(pointer).decode("utf-8", "replace")


def c_string(value: str | bytes | os.PathLike[str], what: str) -> bytes:
    """A text or path as C wants it; ValueError for one that holds a NUL byte."""
    encoded = os.fsencode(value)
    if b"\0" in encoded:
        raise ValueError(f"{what} holds a NUL byte: {value!r}")
    return encoded


def listen(debug: bool = False) -> None:
    """From here on, keep this thread's messages of libbpf, for debugging too if somebody reads it.

    What calls before left that nobody asked about is dropped.
    """
    lib.pybpf_log_clear()
    logger = _logger()
    wanted = debug or (logger is not None and logger.isEnabledFor(10))  # logging.DEBUG
    lib.pybpf_log_level(_DEBUG if wanted else _INFO)


def take_log(drop: tuple[str, ...] = ()) -> list[tuple[int, str]]:
    """The messages of this thread since the last time, as (level, text), passed on to logging.

    Those that begin with one of ``drop`` are left out.
    """
    size = ffi.new("size_t *")
    start = lib.pybpf_log_text(size)
    if size[0] == 0:
        return []
    raw = bytes(ffi.buffer(start, size[0]))
    lib.pybpf_log_clear()
    messages = []
    offset = 0
    while offset < len(raw):
        level, length = _MESSAGE_HEADER.unpack_from(raw, offset)
        offset += _MESSAGE_HEADER.size
        text = raw[offset : offset + length].decode("utf-8", "replace")
        offset += length
        message = text.removeprefix(_PREFIX)
        if not message.startswith(drop):
            messages.append((level, message))
    logger = _logger()
    if logger is not None:
        for level, message in messages:
            try:
                logger.log(_LOGGING_LEVELS.get(level, 10), "%s", message.rstrip("\n"))
            except Exception:  # a handler's own affair; what libbpf has done is done
                break
    return messages


def _logger() -> logging.Logger | None:
    """The "pybpf" logger, None where nobody has imported logging: nobody listens then."""
    logging = sys.modules.get("logging")
    return None if logging is None else logging.getLogger("pybpf")


def join_log(messages: list[tuple[int, str]], level: int = _DEBUG) -> str:
    """The messages of at most that level as one text."""
    return "".join(message for severity, message in messages if severity <= level)


def kernel_errno(code: int) -> int:
    """A negative code as errno; libbpf's own numbers (4000 and up) say that the input is bad."""
    return -code if -code < 4000 else errno.EINVAL


def check(result: int, operation: str, target: str, refusal: Refusal = KernelError) -> int:
    """``result`` where it is not negative; otherwise raise what ``refusal`` makes of it."""
    messages = take_log()
    if result >= 0:
        return result
    raise refusal(
        operation, target, kernel_errno(result), join_log(messages, _WARN), join_log(messages)
    )


def check_pointer(pointer: Any, operation: str, target: str, refusal: Refusal = KernelError) -> Any:
    """``pointer`` where it is not NULL; otherwise raise by errno, which must be untouched."""
    number = ffi.errno
    if pointer == NULL:
        check(-number, operation, target, refusal)
    take_log()
    return pointer


def shared_fd(fd: int) -> Any:
    """A copy of a descriptor for calls during which another thread may close it.

    It ends with lib.pybpf_fd_close(), at the latest when the last such call returns, or with its
    last reference.
    """
    copy = os.dup(fd)
    handle = lib.pybpf_fd_new(copy)
    if handle == NULL:
        os.close(copy)
        raise MemoryError
    return ffi.gc(handle, lib.pybpf_fd_free)


def info(fd: int, structure: str, **request: int) -> Any:
    """What the kernel tells of a BPF fd, as ``structure`` ("struct bpf_map_info").

    ``request`` is what it holds before: addresses and sizes of buffers for the kernel to fill.
    """
    result = ffi.new(f"{structure} *", request)
    size = ffi.new("uint32_t *", ffi.sizeof(structure))
    check(lib.bpf_obj_get_info_by_fd(fd, result, size), "get information", f"of fd {fd}")
    return result
