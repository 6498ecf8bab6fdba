# SPDX-License-Identifier: BSD-2-Clause
"""User ring buffers (Linux 6.1): user space produces, programs take by bpf_user_ringbuf_drain().

libbpf writes the ring; waiting for room is done here, because libbpf's own wait lets no Ctrl-C
through.  Users write to memory of the sample's own, which submit() copies into the ring: an array
or a ctypes object over it may live longer, and must not reach later samples then.
"""

from __future__ import annotations

import errno
import os
import select
import sys
from _thread import RLock
from operator import index

from pybpf import _native, layout, map_kinds
from pybpf._handles import Closable, Handle, Uncopyable, warn_unclosed
from pybpf._native import ffi, lib
from pybpf.btf import Type
from pybpf.constants import MapType
from pybpf.errors import (
    BusyError,
    ClosedError,
    KernelError,
    LayoutError,
    MapFullError,
    NotFoundError,
    StateError,
)
from pybpf.kernel import explained
from pybpf.waiting import Deadline, require_timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from pybpf.map import Map

    SampleType: TypeAlias = str | Type | type[bytes]

_HEADER_BYTES = 8  # BPF_RINGBUF_HDR_SZ
_LARGEST_SAMPLE = (1 << 24) - 1  # the size of a dynptr: behind a larger one the kernel is stuck
# The places of each producer, by its process (a fork has its parent's, too) and its map's id.
_producers: dict[tuple[int, int], set[Any]] = {}


class Opened:
    """What a ring holds of C and the kernel; all of it ends with free(), or collection.

    BusyError where the process has opened it already: each producer would take places that the
    other has taken.
    """

    __slots__ = ("_fds", "_key", "places", "process", "ring")

    def __init__(self, map: Map, what: str) -> None:
        self.process = os.getpid()
        self.places: set[Any] = set()  # of samples that are not finished
        self.ring = _native.NULL
        self._fds: list[int] = []
        self._key = self.process, map.id
        # in one step: of threads that come at once, one is the first
        if _producers.setdefault(self._key, self.places) is not self.places:
            raise BusyError(
                f"{what} has a UserRing in this process already, and one producer at a time: "
                "share that one, or close it first"
            )
        with map._borrow_fd() as fd:
            self._fds.append(os.dup(fd))
        self._fds.append(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        ring = lib.user_ring_buffer__new(self.fd, _native.NULL)
        self.ring = _native.check_pointer(ring, "write to", what, explained(KernelError))

    @property
    def fd(self) -> int:
        return self._fds[0]

    @property
    def wake(self) -> int:
        return self._fds[1]

    @property
    def is_of_this_process(self) -> bool:
        return self.process == os.getpid()

    def free(self) -> None:
        if self.is_of_this_process:
            for place in list(self.places):  # what has no end would hold up later samples for good
                lib.pybpf_place_discard(self.ring, place)
        ring, self.ring = self.ring, _native.NULL
        lib.user_ring_buffer__free(ring)
        while self._fds:
            os.close(self._fds.pop())
        if _producers.get(self._key) is self.places:
            del _producers[self._key]

    def __del__(self) -> None:
        # an interrupt inside __init__ may leave nothing to free
        if hasattr(self, "_key") and not sys.is_finalizing():
            self.free()


class UserSample(Uncopyable):
    """A sample that has its place in a ring and is still to be filled: UserRing.reserve().

    ``data`` is a memoryview of its bytes, zero at first, to be written to until submit() or
    discard(), which release it.  Arrays and ctypes objects made over it are then cut off from it.

    Leaving a ``with`` block submits, an exception in it discards.  A sample that is collected
    unfinished is discarded with a ResourceWarning.
    """

    __slots__ = ("__weakref__", "_finished", "_memory", "_place", "_ring", "data")

    def __init__(self, ring: UserRing, size: int) -> None:
        self._ring = ring
        self._memory = bytearray(size)
        self.data = memoryview(self._memory)
        self._place = ffi.new("struct pybpf_place *")
        ring._opened.places.add(self._place)
        self._finished = False

    def submit(self) -> None:
        """Give it to the program that drains next; samples come in the order of reserve().

        StateError where it is submitted or discarded already, and in a fork of the process that
        reserved it; ClosedError where the ring was closed, which discards.
        """
        self._finish(lib.pybpf_place_submit, len(self._memory), ffi.from_buffer(self._memory))

    def discard(self) -> None:
        """Give its place up: programs never see it.  Raises what submit() raises."""
        self._finish(lib.pybpf_place_discard)

    def _finish(self, how: Callable[..., bool], *data: Any) -> None:
        self._release()
        if not self._ring._give_back(self._place, how, *data):
            raise StateError(f"this sample of {self._ring._what} is submitted or discarded already")
        self._finished = True

    def _release(self) -> None:
        try:
            self.data.release()
        except BufferError:
            pass  # something was made over it, and keeps the memory, which is not the ring's

    def _abandon(self) -> None:
        """Discard it unless that is done; a fork leaves it to the process that reserved it."""
        self._release()
        try:
            self._ring._give_back(self._place, lib.pybpf_place_discard)
        except StateError:
            pass
        self._finished = True

    def __enter__(self) -> UserSample:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        if kind is not None:
            self._abandon()
        elif not self._finished:
            self.submit()

    def __repr__(self) -> str:
        state = ", finished" if self._finished else ""
        return f"<UserSample of {len(self._memory)} bytes in {self._ring._what}{state}>"

    def __del__(self) -> None:
        if getattr(self, "_finished", True):  # an interrupt inside __init__ leaves nothing to do
            return
        try:
            is_taken = self._place.memory != _native.NULL
            if is_taken and self._ring._opened.is_of_this_process and not sys.is_finalizing():
                warn_unclosed(repr(self), self)
        finally:
            self._abandon()  # at the end of the process too: the ring may be pinned


class UserRing(Closable):
    """Gives samples to BPF programs through a user ring buffer (Linux 6.1): Map.writer().

    A sample waits in the ring until a program calls bpf_user_ringbuf_drain(); submitting one runs
    no program.  Programs get samples in the order in which their places were reserved: one that is
    neither submitted nor discarded holds up those after it, and so does one that a killed process
    had reserved, for good.

    A ring has one producer: one UserRing at a time, which within a process is seen to (BusyError)
    and among processes is up to them.  Threads and signal handlers may share it; a fork may not
    use it.  It ends with close(), or with the object that its map
    belongs to.  close() may come from any thread or signal handler, discards what is reserved and
    ends a reserve() that waits; what is submitted stays in the ring.
    """

    def __init__(self, map: Map, type: SampleType | None = None) -> None:
        self._what = f"user ring buffer {map.name!r}"
        map.fileno()  # which says whether it is closed
        if map.type != MapType.USER_RINGBUF:
            raise map_kinds.not_supported(map.type, map.name, "write samples to")
        self._type = _sample_type(map, type)
        self._bytes = map.max_entries
        self._lock = RLock()  # a signal handler that reserves must not wait for its own thread
        self._opened = Opened(map, self._what)
        self._handle = Handle(self._opened, Opened.free, self._what)
        self._owner = map._adopt(self)

    @property
    def closed(self) -> bool:
        return self._handle.closed

    def fileno(self) -> int:
        """The ring's descriptor, writable (EPOLLOUT) while there is any room; for selectors.

        With EPOLLET an epoll tells of every drain, but of those with BPF_RB_NO_WAKEUP.
        """
        with self._handle.borrow() as opened:
            return int(opened.fd)

    # -- samples --

    def reserve(self, size: int, timeout: float | None = 0) -> UserSample:
        """Room for a sample of ``size`` bytes, which the caller fills and submits, or discards.

        Where there is no room it waits for a program to drain the ring, ``timeout`` seconds (None:
        as long as it takes; a negative one is 0), then raises MapFullError.  A drain with
        BPF_RB_NO_WAKEUP makes room without waking it.  KernelError with E2BIG for a sample that the
        ring can never hold, ClosedError after close(), also while it waits, StateError in a fork.

        Each sample takes its size and 8 bytes, rounded up to 8, of the ring's ``max_entries``.
        """
        size = self._possible(index(size))
        sample = UserSample(self, size)
        try:
            self._once_there_is_room(lib.pybpf_place_take, size, sample._place, timeout)
            return sample
        except BaseException:
            sample._abandon()
            raise

    def submit(self, value: Any, timeout: float | None = 0) -> None:
        """Put ``value`` into the ring, encoded as the type of samples; bytes where that is unknown.

        LayoutError or OverflowError where it does not fit that type; else as reserve().
        """
        data = self._encode(value)
        self._once_there_is_room(lib.pybpf_sample_put, self._possible(len(data)), data, timeout)

    def _encode(self, value: Any) -> bytes:
        what = f"a sample of {self._what}"
        if self._type is not None:
            try:
                return layout.encode(self._type, value)
            except (LayoutError, OverflowError) as error:
                raise type(error)(f"{what}: {error}") from None
        try:
            return bytes(memoryview(value))
        except TypeError:
            unknown = "takes bytes, as the type of samples is unknown"
            raise LayoutError(f"{what} {unknown}; not {value!r}") from None

    def _possible(self, size: int) -> int:
        """``size``, where a ring without samples has room for it."""
        if size < 0:
            raise ValueError(f"a sample has no {size} bytes")
        most = min(self._bytes - _HEADER_BYTES, _LARGEST_SAMPLE)
        if size <= most:
            return size
        hint = f"a sample of a ring with max_entries={self._bytes} has at most {most} bytes"
        raise KernelError(f"reserve {size} bytes in", self._what, errno.E2BIG, hint=hint)

    def _once_there_is_room(
        self, take: Callable[..., int], size: int, what: Any, timeout: float | None
    ) -> None:
        """Have C take ``size`` bytes for ``what``, at the latest after ``timeout`` seconds."""
        require_timeout(timeout)
        self._require_process()
        with self._handle.borrow() as opened:

            def taken() -> bool:
                with self._lock:
                    code = take(opened.ring, size, what)
                if code not in (0, -errno.ENOSPC):
                    _native.check(code, f"reserve {size} bytes in", self._what)
                return code == 0

            if not taken() and not self._wait(opened, taken, timeout):
                hint = "programs have not drained it (bpf_user_ringbuf_drain)"
                operation = f"reserve {size} bytes in"
                raise MapFullError(operation, self._what, errno.ENOSPC, hint=hint)

    def _wait(self, opened: Opened, taken: Callable[[], bool], timeout: float | None) -> bool:
        """Whether ``taken()`` becomes true in time; asked for whenever a program has drained."""
        if timeout is not None and timeout <= 0:
            return False
        deadline = Deadline(timeout)
        with select.epoll() as poll:
            poll.register(opened.wake, select.EPOLLIN)
            # any room makes it writable, enough or not: only a change of that is worth a look
            poll.register(opened.fd, select.EPOLLOUT | select.EPOLLET)
            while not taken():
                if self.closed:
                    raise ClosedError(f"{self._what} was closed while it was waited for")
                left = deadline.left()
                if left <= 0:
                    return False
                poll.poll(left)
        return True

    def _give_back(self, place: Any, how: Callable[..., bool], *data: Any) -> bool:
        """Submit or discard what has that place; whether it still had it."""
        self._require_process()
        with self._handle.borrow() as opened:
            had_it = how(opened.ring, place, *data)
            opened.places.discard(place)
        return had_it

    def _require_process(self) -> None:
        if not self._opened.is_of_this_process:
            raise StateError(
                f"{self._what} has process {self._opened.process} as its producer; "
                "its fork would write over its samples"
            )

    # -- end --

    def close(self) -> None:
        """Discard what is reserved, and end a reserve() that waits.  Harmless to repeat."""
        if self._opened.is_of_this_process:  # a fork shares the eventfd with its parent
            try:
                with self._handle.borrow() as opened:
                    os.eventfd_write(opened.wake, 1)
            except ClosedError:
                return
        self._handle.close_when_unused()
        if self._owner is not None:
            self._owner._forget_reader(self)

    def _words(self) -> str:
        return f"UserRing of {self._what}"


def _sample_type(map: Map, given: SampleType | None) -> Type | None:
    if given is None:
        return map._record_type()
    if given is bytes:
        return None
    if isinstance(given, str):
        types = map._record_btf()
        if types is None:
            raise NotFoundError("type (there is no BTF to look it up in)", given)
        given = types[given]
    if not isinstance(given, Type):
        raise LayoutError(f"{given!r} is no type of samples: a BTF type, its name or bytes is")
    layout.ctype(given)  # which says what has no values
    return given
