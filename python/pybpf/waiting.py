# SPDX-License-Identifier: BSD-2-Clause
"""Waiting for descriptors, which another thread or a signal handler ends."""

from __future__ import annotations

import os
import select
import time

from pybpf._handles import Handle
from pybpf.errors import ClosedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf._handles import Borrow

_LONGEST = 3600.0
# A signal that comes in the moment before epoll_wait(2) is handled when that returns: Ctrl-C and
# handlers that close must not wait for a record.
_LONGEST_WAIT = 0.05


def require_timeout(timeout: Any) -> None:
    """TypeError or ValueError for what is neither None nor a number of seconds.

    For calls that may not have to wait, and would otherwise let it pass then.
    """
    kind: type[Exception] = ValueError
    try:
        if timeout is None or 0.0 + timeout == 0.0 + timeout:  # NaN is not
            return
    except TypeError:
        kind = TypeError
    raise kind(f"a timeout is a number of seconds, or None, not {timeout!r}")


class Deadline:
    """When ``timeout`` seconds are over; never where that is None."""

    __slots__ = ("_end",)

    def __init__(self, timeout: float | None) -> None:
        self._end = None if timeout is None else time.monotonic() + timeout

    def left(self) -> float:
        """Seconds, not more than an hour: ask again."""
        return _LONGEST if self._end is None else min(self._end - time.monotonic(), _LONGEST)


class Waiter:
    """Waits for any of some descriptors.  Its own becomes readable with theirs, and with wake().

    close() may come while others wait: after wake() they return, and the last one closes.
    """

    def __init__(self, what: str) -> None:
        self._process = os.getpid()
        wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            epoll = select.epoll()
        except BaseException:
            os.close(wake)
            raise
        self._handle = Handle((epoll, wake), _close, what)
        self.add(wake)

    def add(self, fd: int) -> None:
        """Wait for that, too; who owns it keeps it open."""
        with self._handle.borrow() as (epoll, _):
            epoll.register(fd, select.EPOLLIN)

    def fileno(self) -> int:
        """An epoll descriptor."""
        with self._handle.borrow() as (epoll, _):
            return int(epoll.fileno())

    def borrow(self) -> Borrow:
        """``with waiter.borrow():`` keeps the descriptor for who waits by other means."""
        return self._handle.borrow()

    def is_shared(self) -> bool:
        """Whether others have it, too, as who asks has: with borrow()."""
        return self._handle.is_shared()

    def wait(self, seconds: float) -> bool:
        """Wait at most so long, or for a moment; whether there is something."""
        with self._handle.borrow() as (epoll, _):
            return bool(epoll.poll(max(min(seconds, _LONGEST_WAIT), 0), 1))

    def pause(self, seconds: float) -> None:
        """Let so much time pass, unless wake() comes."""
        with self._handle.borrow() as (_, wake):
            poll = select.poll()
            poll.register(wake, select.POLLIN)
            poll.poll(max(seconds, 0) * 1000)

    def wake(self) -> bool:
        """End every wait of this process, now and from now on; False after close()."""
        try:
            with self._handle.borrow() as (_, wake):
                if self._process == os.getpid():  # a fork shares the eventfd with its parent
                    os.eventfd_write(wake, 1)
        except ClosedError:
            return False
        return True

    @property
    def closed(self) -> bool:
        return self._handle.closed

    def close(self) -> None:
        """Give the descriptors back, at the latest when nobody waits any more."""
        self._handle.close_when_unused()


def _close(resource: tuple[select.epoll, int]) -> None:
    epoll, wake = resource
    epoll.close()
    os.close(wake)
