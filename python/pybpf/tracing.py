# SPDX-License-Identifier: BSD-2-Clause
"""The kernel's trace_pipe: the lines that programs write with bpf_printk()."""

from __future__ import annotations

import errno as _errno
import os
import re
from collections import deque
from dataclasses import dataclass

from pybpf import tracefs
from pybpf._handles import Closable, OwnedFd
from pybpf.errors import ClosedError, KernelError
from pybpf.kernel import explained
from pybpf.waiting import Deadline, Waiter, require_timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 16  # more than the kernel gives at a time, which then are whole lines
_NAME_WIDTH = 16  # of the task's name, in bytes: it may hold anything, what follows may not
_AFTER_NAME = re.compile(
    rb"-(?P<pid>\d+) +"
    rb"(?:\( *(?P<tgid>[\d-]+)\) )?"  # where the option record-tgid is on
    rb"\[(?P<cpu>\d+)\] "
    rb"(?:(?P<flags>\S+) )?"  # where the option irq-info is on, as it is at first
    rb" *(?P<timestamp>\d+(?:\.\d+)?): "
    rb"(?P<event>.*)",
    re.DOTALL,
)
_LOST = re.compile(rb"CPU:(?P<cpu>\d+) \[LOST (?P<lost>\d+) EVENTS\]")


@dataclass(frozen=True)
class TraceLine:
    """One line of trace_pipe; str() gives it as the kernel wrote it, without its end.

    ``task``, ``pid`` (of the thread), ``cpu`` and ``timestamp`` (seconds since boot, unless another
    clock is chosen in tracefs) are those of the moment of writing; ``tgid`` is the process where
    the option record-tgid is on, ``flags`` the kernel's signs for interrupts and preemption
    ("d..31").  ``function`` is "bpf_trace_printk" for bpf_printk(), else the event or function that
    wrote it.  ``message`` is the rest.

    Of a line that looks different, such as the second one of a message of two lines, all is
    ``message``, and the rest None.  ``lost`` is how many lines of ``cpu`` the kernel had no room
    for before the next one, of a line that tells that; 0 of others.
    """

    text: str
    message: str
    task: str | None = None
    pid: int | None = None
    tgid: int | None = None
    cpu: int | None = None
    flags: str | None = None
    timestamp: float | None = None
    function: str | None = None
    lost: int = 0

    def __str__(self) -> str:
        return self.text


def parse(line: bytes) -> TraceLine:
    """What a line says; all of it is the message where it looks like none that is known."""
    text = line.decode("utf-8", "replace")
    if lost := _LOST.fullmatch(line):
        return TraceLine(text, text, cpu=int(lost["cpu"]), lost=int(lost["lost"]))
    found = _AFTER_NAME.match(line, _NAME_WIDTH)
    if found is None:
        return TraceLine(text, text)
    function, colon, message = found["event"].decode("utf-8", "replace").partition(": ")
    tgid, flags = found["tgid"], found["flags"]
    return TraceLine(
        text=text,
        message=message if colon else function,
        task=line[:_NAME_WIDTH].lstrip(b" ").decode("utf-8", "replace"),
        pid=int(found["pid"]),
        tgid=int(tgid) if tgid and tgid.isdigit() else None,
        cpu=int(found["cpu"]),
        flags=None if flags is None else flags.decode("ascii", "replace"),
        timestamp=float(found["timestamp"]),
        function=function if colon else None,
    )


class TracePipe(Closable):
    """Reads the lines that programs, and whatever else is traced, write: pybpf.trace_pipe().

    Iterating gives TraceLines; it ends with close(), or when none came for ``timeout`` seconds, and
    can be taken up again.  close() may come from any thread or signal handler and ends a read that
    waits.  What a read has taken is gone from the kernel, whoever else wanted it; an exception of a
    signal handler can cost a line that is just being given, but none that is waited for.

    The caller owns it: close it, or use ``with``.
    """

    def __init__(self, timeout: float | None = None) -> None:
        require_timeout(timeout)
        self._timeout = timeout
        self._lines: deque[bytes] = deque()
        self._lost = 0
        self._waiter = Waiter("trace_pipe")
        try:
            self._handle = OwnedFd(_open(), "trace_pipe")
            with self._handle.borrow() as fd:
                self._waiter.add(fd)
        except BaseException:
            self._waiter.close()
            raise

    @property
    def closed(self) -> bool:
        return self._handle.closed

    @property
    def lost(self) -> int:
        """How many lines the kernel had no room for, as far as has been read.

        It keeps a few kilobytes for each CPU until something is switched on in tracefs, and then
        what ``buffer_size_kb`` there says.
        """
        return self._lost

    def fileno(self) -> int:
        """An epoll descriptor, readable while the kernel holds lines, and after close().

        For select, selectors and event loops: read then until read(0) gives None, for lines wait
        here, too.
        """
        return self._waiter.fileno()

    def read(self, timeout: float | None = None) -> TraceLine | None:
        """The next line, after at most ``timeout`` seconds (None: as long as it takes).

        None where none came in time; ClosedError after close(), also for a read that waits then.
        """
        require_timeout(timeout)
        deadline = Deadline(timeout)
        with self._handle.borrow() as fd:
            while (line := self._take(fd)) is None:
                left = deadline.left()
                if left <= 0:
                    return None
                self._waiter.wait(left)
        return line

    def _take(self, fd: int) -> TraceLine | None:
        """The next line if there is one."""
        if not self._lines:
            self._lines.extend(_read(fd))
        try:
            line = parse(self._lines.popleft())
        except IndexError:  # there is none, or another thread was quicker
            return None
        self._lost += line.lost
        return line

    def __iter__(self) -> Iterator[TraceLine]:
        while True:
            try:
                line = self.read(self._timeout)
            except ClosedError:
                return
            if line is None:
                return
            yield line

    def close(self) -> None:
        """End reading: a read that waits in another thread ends at once.  Harmless to repeat."""
        if self._waiter.wake():
            self._waiter.close()
            self._handle.close_when_unused()


def trace_pipe(*, timeout: float | None = None) -> TracePipe:
    """The lines of bpf_printk() and of all that is traced, as they come.

    It starts with the lines that are in the kernel's buffer already, however old they are: those
    that nobody has read yet.  ``timeout`` in seconds ends iterating when none comes for so long.
    Each line goes to one reader among all processes, and from Linux 6.6 on there can be only one at
    a time: KernelError (EBUSY) while there is another.  Needs root; works where tracefs is not
    mounted, too (Linux 5.2).
    """
    return TracePipe(timeout)


def _open() -> int:
    refuse = explained(KernelError, _open_hint, ("CAP_SYS_ADMIN",))
    return tracefs.open_file("trace_pipe", os.O_NONBLOCK, "open", "trace_pipe", refuse)


def _read(fd: int) -> list[bytes]:
    """The lines that the kernel gives at a time, without waiting for any."""
    try:
        chunk = os.read(fd, _CHUNK)
    except BlockingIOError:
        return []
    except OSError as error:
        raise KernelError("read", "trace_pipe", error.errno or _errno.EIO) from None
    return chunk.removesuffix(b"\n").split(b"\n") if chunk else []


def _open_hint(errno: int) -> str:
    if errno == _errno.EBUSY:
        return "somebody reads it already; from Linux 6.6 on only one can"
    return ""
