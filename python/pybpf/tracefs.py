# SPDX-License-Identifier: BSD-2-Clause
"""The kernel's tracefs, also where it is not mounted, as in many containers."""

from __future__ import annotations

import os

from pybpf import _native
from pybpf._native import lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf._native import Refusal

_FOLDERS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")


def open_file(name: str, flags: int, operation: str, target: str, refuse: Refusal) -> int:
    """A descriptor of the file ``name``, for reading; otherwise what ``refuse`` makes of it."""
    for folder in _FOLDERS:
        try:
            return os.open(f"{folder}/{name}", os.O_RDONLY | os.O_CLOEXEC | flags)
        except (FileNotFoundError, NotADirectoryError):
            pass  # not mounted there
        except OSError as error:
            raise refuse(operation, target, error.errno or 0, "", "") from None
    return _open_hidden(name, flags, operation, target, refuse)


def _open_hidden(name: str, flags: int, operation: str, target: str, refuse: Refusal) -> int:
    """The same, of a tracefs of our own that is mounted nowhere (Linux 5.2, CAP_SYS_ADMIN)."""
    folder = _native.check(lib.pybpf_tracefs_open(), "open a tracefs for", target, refuse)
    try:
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC | flags, dir_fd=folder)
    except OSError as error:
        raise refuse(operation, target, error.errno or 0, "", "") from None
    finally:
        os.close(folder)
