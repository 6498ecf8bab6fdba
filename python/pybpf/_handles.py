# SPDX-License-Identifier: BSD-2-Clause
"""Who owns what: file descriptors with one owner, and C pointers that nobody uses after close."""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock

from pybpf.errors import BusyError, ClosedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def warn_unclosed(what: str, thing: object) -> None:
    """The ResourceWarning of something that is collected while open."""
    import warnings

    warnings.warn(f"unclosed {what}", ResourceWarning, source=thing, stacklevel=3)


class OwnedFd:
    """A descriptor that is closed once, by close() or, with a ResourceWarning, by collection."""

    __slots__ = ("__weakref__", "_fd", "_what")

    def __init__(self, fd: int, what: str) -> None:
        self._fd = fd
        self._what = what

    def fileno(self) -> int:
        if self._fd < 0:
            raise ClosedError(f"{self._what} is closed")
        return self._fd

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        if self._fd >= 0 and not sys.is_finalizing():
            warn_unclosed(self._what, self)
            self.close()


class Handle:
    """A C pointer with its destructor.

    cffi drops the GIL inside calls, so another thread may close while one is inside: borrow()
    counts the users, and close() raises BusyError rather than free under them.
    """

    __slots__ = ("__weakref__", "_destroy", "_lock", "_pointer", "_users", "what")

    def __init__(self, pointer: Any, destroy: Callable[[Any], object], what: str) -> None:
        self._pointer = pointer
        self._destroy = destroy
        self._lock = allocate_lock()
        self._users = 0
        self.what = what

    @property
    def closed(self) -> bool:
        return self._pointer is None

    def borrow(self) -> Borrow:
        """``with handle.borrow() as pointer``: valid inside the block; ClosedError after close."""
        return Borrow(self)

    def _enter(self) -> Any:
        with self._lock:
            if self._pointer is None:
                raise ClosedError(f"{self.what} is closed")
            self._users += 1
            return self._pointer

    def _exit(self) -> None:
        with self._lock:
            self._users -= 1

    def close(self) -> None:
        """Destroy what the pointer names, once; BusyError while another thread has it borrowed."""
        with self._lock:
            if self._pointer is None:
                return
            if self._users:
                raise BusyError(
                    f"{self.what} is in use by another call; close it when that returns"
                )
            pointer, self._pointer = self._pointer, None
        self._destroy(pointer)

    def abandon(self) -> None:
        """Forget the pointer without destroying what it names."""
        with self._lock:
            self._pointer = None


class Borrow:
    """The context manager that Handle.borrow() returns."""

    __slots__ = ("_handle",)

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def __enter__(self) -> Any:
        return self._handle._enter()

    def __exit__(self, *exception: object) -> None:
        self._handle._exit()
