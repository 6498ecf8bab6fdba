# SPDX-License-Identifier: BSD-2-Clause
"""What iterator programs (of sections "iter/...") write, as lines of text or as records."""

from __future__ import annotations

import errno as _errno
import io
import os
import struct
from _thread import RLock
from contextlib import contextmanager

from pybpf import _native, record_types
from pybpf._handles import Handle, Uncopyable
from pybpf._native import ffi, lib
from pybpf.codec import open_path
from pybpf.constants import CgroupIterOrder
from pybpf.errors import AttachError, ClosedError, KernelError, LayoutError, NotSupportedError
from pybpf.holds import FdHold
from pybpf.kernel import explained

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from typing_extensions import Buffer

    from pybpf.btf import Btf
    from pybpf.record_types import RecordType, RecordTypeArgument

_TRACE_ITER = 28  # of AttachType
_CHUNK = 1 << 16  # a read gives at most the 8 pages that the kernel collects

_TAKES = {
    "bpf_map_elem": ("map",),
    "bpf_sk_storage_map": ("map",),
    "sockmap": ("map",),
    "cgroup": ("cgroup", "order"),
    "task": ("pid", "tid"),
    "task_file": ("pid", "tid"),
    "task_vma": ("pid", "tid"),
}


def needs_parameters(target: str) -> bool:
    """Whether an iterator over ``target`` does not know by itself what it goes over."""
    return any(name in _TAKES.get(target, ()) for name in ("map", "cgroup"))


# ---- starting ------------------------------------------------------------------------------------


def run(
    program_fd: int,
    what: str,
    target: str,
    given: Mapping[str, Any],
    type: RecordTypeArgument | None,
    btf: Callable[[], Btf | None],
) -> Iteration:
    """Start the iterator program ``what`` over ``target``, with what is ``given`` of _TAKES.

    It gives lines, or records of ``type``, of which a name is one of ``btf()``.
    """
    items = Lines if type is None else Records(record_types.resolve(type, btf), what)
    link = link_over(program_fd, what, target, given)
    fd = _native.check(lib.bpf_iter_create(link.fileno()), "start", what, _refused)
    return Iteration(Output(link, fd, what), items)


def link_over(program_fd: int, what: str, target: str, given: Mapping[str, Any]) -> FdHold:
    """A link that stands for the iterator program ``what`` with what is ``given``."""
    link = FdHold()
    with _parameters(target, given) as over:
        memory = ffi.from_buffer(over)
        address = int(ffi.cast("uintptr_t", memory)) if over else 0
        parameters = {"parameters": address, "size": len(over)}
        request = {"prog_fd": program_fd, "attach_type": _TRACE_ITER, "iter": parameters}
        code = lib.pybpf_link_create(ffi.new("struct pybpf_link_request *", request), link.place)
        _native.check(code, "start", what, _refused)
    _require_heeded(link.fileno(), what, given)
    return link


@contextmanager
def _parameters(target: str, given: Mapping[str, Any]) -> Iterator[bytes]:
    """``union bpf_iter_link_info``, or none of it; what it names stays open inside the block."""
    takes = _TAKES.get(target, ())
    if foreign := [name for name in given if name not in takes]:
        wants = f"takes {' or '.join(takes)}" if takes else "takes no parameters"
        raise LayoutError(f"an iterator over {target!r} {wants}, not {', '.join(foreign)}")
    if "map" in takes:
        if "map" not in given:
            raise LayoutError(f"an iterator over {target!r} needs the map: iter(map=...)")
        with given["map"]._borrow_fd() as fd:
            yield struct.pack("=I", fd)
    elif "cgroup" in takes:
        order = given.get("order", CgroupIterOrder.DESCENDANTS_PRE)
        with _cgroup_fd(given.get("cgroup")) as fd:
            yield struct.pack("=IIQ", order, fd, 0)
    else:
        yield _task(**given) if given else b""


@contextmanager
def _cgroup_fd(cgroup: Any) -> Iterator[int]:
    """A descriptor of a cgroup; 0, which stands for the root of all, for None."""
    if cgroup is None:
        yield 0
        return
    opened = open_path(cgroup)
    fd = opened
    if fd is None:
        fd = cgroup.fileno() if hasattr(cgroup, "fileno") else cgroup
    try:
        if fd == 0:
            raise LayoutError("descriptor 0 cannot be a cgroup: the kernel takes it for none")
        yield fd
    finally:
        if opened is not None:
            os.close(opened)


def _task(pid: int = 0, tid: int = 0) -> bytes:
    if pid and tid:
        raise LayoutError("an iterator takes pid (a whole process) or tid (one thread), not both")
    number = pid or tid
    if not 0 < number < 1 << 31:
        raise OverflowError(f"{number} is no number of a process or thread")
    return struct.pack("=III", tid, pid, 0)


def _require_heeded(link: int, what: str, given: Mapping[str, Any]) -> None:
    """Refuse to go over all tasks, as the kernel does before Linux 6.1, disregarding a tid."""
    if "tid" in given and _native.info(link, "struct pybpf_iter_info").tid != given["tid"]:
        raise _refused("start", what, _errno.E2BIG)


def _refused(
    operation: str, target: str, errno: int, detail: str = "", log: str = ""
) -> KernelError:
    if errno == _errno.E2BIG:
        hint = "going over one process or thread alone takes Linux 6.1"
        return NotSupportedError(operation, target, errno, detail, log, hint)
    refuse = explained(AttachError, _start_hint, ("CAP_BPF", "CAP_PERFMON"))
    return refuse(operation, target, errno, detail, log)


def _start_hint(errno: int) -> str:
    if errno == _errno.EINVAL:
        return "it is no iterator (section iter/...), or the kernel has none for maps of this type"
    if errno == _errno.EACCES:
        return "the program uses more of a key or value than this map has, or writes to keys"
    return ""


# ---- output --------------------------------------------------------------------------------------


def _read_hint(errno: int) -> str:
    if errno == _errno.E2BIG:
        return "for one object a program can write 8 pages (32 KiB) at most"
    if errno == _errno.EOPNOTSUPP:
        return "an iterator over cgroups can write 8 pages (32 KiB) in all; go over fewer"
    return ""


class Output(io.RawIOBase):
    """The bytes that a program writes as it is read; closed at their end.

    Whatever comes between, Ctrl-C too, may have cost some of them, and so ends it.
    """

    def __init__(self, link: FdHold, fd: int, what: str) -> None:
        # the link stays open as well: before Linux 6.1 the map or cgroup may go with it
        self.ended = False
        self.handle = Handle((link, fd), _close, f"iterator of {what}")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        if self.ended:
            return 0
        try:
            with self.handle.borrow() as (_, fd):
                size = self._read(fd, buffer)
            if size == 0:
                self.ended = True
                self.handle.close_when_unused()
            return size
        except BaseException:
            self.handle.close_when_unused()
            raise

    def _read(self, fd: int, buffer: Buffer) -> int:
        while True:
            try:
                return os.readv(fd, [buffer])
            except BlockingIOError:
                # after a million objects without output, or because the program wants one again
                if self.handle.closed:
                    raise ClosedError(f"{self.handle.what} was closed meanwhile") from None
            except OSError as error:
                number = error.errno or _errno.EIO
                hint = _read_hint(number)
                raise KernelError("read the", self.handle.what, number, hint=hint) from None

    def close(self) -> None:
        """Give the descriptors back, at the latest when a read has returned."""
        self.handle.close_when_unused()
        super().close()


def _close(output: tuple[FdHold, int]) -> None:
    link, fd = output
    link.end()
    os.close(fd)


class Lines:
    """How lines are taken from the output, and what they are in Python."""

    @staticmethod
    def take(output: io.BufferedReader[Any]) -> str | None:
        line = output.readline()
        return line.removesuffix(b"\n").decode("utf-8", "replace") if line else None


class Records:
    """How records of one type are taken from the output, and what they are in Python."""

    def __init__(self, type: RecordType, what: str) -> None:
        if type.size == 0:
            raise LayoutError(f"{type} have no size, by which the output of {what} could be cut")
        self._type = type
        self._what = what

    def take(self, output: io.BufferedReader[Any]) -> Any:
        data = output.read(self._type.size)
        if not data:
            return None
        if len(data) < self._type.size:
            raise LayoutError(
                f"the output of {self._what} ends with {len(data)} bytes; "
                f"{self._type} take {self._type.size} each"
            )
        return self._type.decode(data)


class Iteration(Uncopyable):
    """One run of an iterator program over its objects: ObjectProgram.iter().

    Iterating gives lines of text without their ends, or records where a type was given.  The
    program runs as they are asked for; what it sees is the kernel as it is then.

    It owns two descriptors of the kernel's, which end with the last line, with close() from any
    thread, or with the last reference.  To go over everything again, ask the program for another.
    After close() before the end, and after an error, it raises ClosedError.  Threads may share one;
    each line goes to one of them.
    """

    def __init__(self, output: Output, items: type[Lines] | Records) -> None:
        self._output = output
        self._buffer = io.BufferedReader(output, _CHUNK)
        self._items = items
        self._lock = RLock()  # readline() of threads at the same time mixes lines up

    @property
    def closed(self) -> bool:
        """Whether there is no more to read, because of its end or close()."""
        return self._output.handle.closed

    def __iter__(self) -> Iteration:
        return self

    def __next__(self) -> Any:
        self._require_whole()
        with self._lock:
            item = self._items.take(self._buffer)
        if item is None:
            raise StopIteration
        return item

    def read(self) -> bytes:
        """All that has not been given yet, as the program wrote it; b"" at the end.

        KernelError where the kernel refuses to go on, ClosedError after close().
        """
        self._require_whole()
        with self._lock:
            return self._buffer.read()

    def _require_whole(self) -> None:
        if self.closed and not self._output.ended:
            raise ClosedError(f"{self._output.handle.what} is closed")

    def close(self) -> None:
        """Give the descriptors back, at the latest when a running read returns.

        Harmless to repeat.
        """
        self._output.handle.close_when_unused()

    def __enter__(self) -> Iteration:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Iteration: {self._output.handle.what}{' closed' if self.closed else ''}>"
