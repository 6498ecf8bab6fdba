# SPDX-License-Identifier: BSD-2-Clause
"""Records that programs write into ring buffers and perf event arrays: one reader for all of them.

Records are taken out of the kernel's memory in C (c_src/records.c), which never waits; waiting is
done here.  No Python runs beneath libbpf, so exceptions, Ctrl-C and closing from anywhere are
ordinary.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys

from pybpf import _native, drops
from pybpf._handles import Closable
from pybpf._native import Records
from pybpf.errors import (
    BusyError,
    ClosedError,
    KernelError,
    LayoutError,
    NotSupportedError,
    StateError,
)
from pybpf.kernel import explained
from pybpf.record_sources import (
    cpus_with_a_place,
    memory_hint,
    perf_needs,
    perf_options,
    require_perf,
    sources,
    whole,
)
from pybpf.waiting import Deadline, Waiter, require_timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    import numpy

    from pybpf.accounting import ReaderStats
    from pybpf.drops import DropCounter
    from pybpf.map import Map
    from pybpf.record_sources import PerfOptions, Source
    from pybpf.record_types import RecordTypeArgument
    from pybpf.ring_view import Shown


_MOST = sys.maxsize
# A record may wait that cannot be taken yet, because a program is writing it or others come first;
# then the descriptor says that there is something.
_BUSY_SECONDS = 0.001
_DRAIN_SECONDS = 1.0
_HEADER = 8


class Reader(Records, Closable):
    """Reads the records of ring buffers and perf event arrays: Object.events(), Map.reader().

    Iterating gives records in each ring's order, or (map name, record) pairs for a reader of
    several maps.  It ends with close(), or when no record came for ``timeout`` seconds, and can be
    taken up again.  The reader is a channel with many ways to receive: blocking (read, read_batch),
    not blocking (read_nowait), with a callback (poll), as arrays (read_numpy, view), and ``async
    for`` and get() in asyncio.  All of them take from the same stream; nothing that the kernel
    accepted is lost between them, also where an exception comes between.

    close() may come from any thread or signal handler and ends every wait at once.  What was not
    read stays in the rings: drain() takes it out, when the producers are closed.

    Threads may share one reader.  Several readers of one ring buffer, in one process or in many,
    share its records: each goes to one of them.  A fork's child cannot read with its parent's
    reader (StateError), but may make its own.
    """

    def __init__(
        self,
        maps: Map | Sequence[Map] | Mapping[str, Map],
        *,
        type: RecordTypeArgument | None = None,
        timeout: float | None = None,
        pages: int | None = None,
        wakeup_events: int | None = None,
        watermark: int | None = None,
        overwrite: bool = False,
        ordered: bool = False,
    ) -> None:
        """A reader of one map, or of several: a list, or a mapping where the user names them.

        ``type`` is what records are: the name of a BTF type ("struct event") of the map's object or
        such a type, a ctypes class, a numpy dtype; a table ``{number: type}``, by which the integer
        that records begin with chooses (records under other numbers are bytes; an enumerator's name
        stands for its number, and is looked up in the enum that records begin with, else in all
        that the object's BTF has); or a function that is given a record's bytes and returns a type.
        Unless given, what the map's declaration names (``__type(value, struct event)``), else
        bytes, which are also to be had by ``type=bytes``.  Of several maps each may have its own:
        ``{map name: type}``; those that are not in there have what is declared.

        A ctypes class of the declared type's size must be laid out like that.  A record shorter
        than its type raises LayoutError, whose ``record`` has it; bytes behind a struct stay with
        it.

        ``timeout`` ends iterating when no record came for so many seconds; None waits on.  Here and
        in all calls, a negative one is 0.

        For perf event arrays, which need CAP_PERFMON (CAP_SYS_ADMIN where the sysctl
        kernel.perf_event_paranoid is above 2, as in Debian), and for a reader of at least one:

        * ``pages``: the size of each CPU's ring, a power of two, 64 unless given.  CPUs that come
          online later are for a new reader.
        * ``wakeup_events`` or ``watermark``: who waits is woken when so many records, or more than
          so many bytes (at most half a ring), came to a CPU; who looks gets what is there.
        * ``overwrite``: new records replace the oldest, and each read gives what came since the
          last one.  Lost are records that come during the microseconds that copying takes.
        * ``ordered``: the records of all CPUs come in the order of time, each 2 ms late; for a
          reader of such arrays alone.

        Such records have up to 65,508 bytes; larger ones are lost.  As bytes, or where they end
        with a flexible array, up to 7 bytes of no meaning follow, by which the kernel aligns them.
        An array has one reader: another that is made later gets its records instead.

        TypeError or ValueError for arguments that make no sense, a map that is given twice and maps
        of one name in a list; NotSupportedError for maps of other kinds, and for options that they
        do not have; NotFoundError for a name that there is not.
        """
        require_timeout(timeout)
        perf = perf_options(pages, wakeup_events, watermark, overwrite, ordered)
        self._sources = sources(maps, type)
        require_perf(
            self._sources,
            pages=pages is not None,
            wakeup_events=wakeup_events is not None,
            watermark=watermark is not None,
            overwrite=overwrite,
            ordered=ordered,
        )
        self._timeout = timeout
        self._process = os.getpid()
        self._wakeups = 0
        self._drops: list[DropCounter] = []
        self._dropped = 0  # what those counted that have ended
        self._counts_lost = not overwrite
        self._waits: dict[asyncio.AbstractEventLoop, list[asyncio.Future[bool]]] = {}
        self._waiter = Waiter(f"reader of {self._names()}")
        self._epoll = self._waiter.fileno()  # for event loops that still have it when it is closed
        try:
            self._waiter.add(_native.check(self._add_bell(), "read", self._names()))
            for source in self._sources:
                self._add(source, perf)
        except BaseException:
            self.close()
            raise

    # -- setting up --

    def _names(self) -> str:
        return ", ".join(source.name for source in self._sources)

    def _add(self, source: Source, perf: PerfOptions) -> None:
        known = source.type
        decode = None if known.is_raw else source.decode
        name = source.name if source.is_tagged else None
        self._add_source(name, known.structs, known.size, known.is_open, decode, ctypes.addressof)
        if source.is_ring:
            self._add_bpf_ring(source)
        else:
            self._add_perf_rings(source, perf)

    def _add_bpf_ring(self, source: Source) -> None:
        counter = drops.find(source.map)
        if counter is not None:
            self._drops.append(counter)
        self._counts_lost = self._counts_lost and counter is not None
        with source.map._borrow_fd() as fd:
            code = self._add_ring(fd, source.map.max_entries)
            _native.check(code, "read", f"ring buffer {source.name!r}", explained(KernelError))
            self._waiter.add(fd)  # its file lives as long as the memory does

    def _add_perf_rings(self, source: Source, perf: PerfOptions) -> None:
        refusal = explained(KernelError, lambda code: memory_hint(code, perf[0]), perf_needs())
        with source.map._borrow_fd() as fd:
            for cpu in cpus_with_a_place(source.map.max_entries):
                code = self._add_perf(fd, cpu, *perf)
                what = f"perf event array {source.name!r} on CPU {cpu}"
                self._waiter.add(_native.check(code, "read", what, refusal))

    # -- waiting --

    def _require_usable(self) -> None:
        closed, forked, failure = self._state()
        if closed:
            raise ClosedError(f"reader of {self._names()} is closed")
        if forked:
            raise StateError(
                f"this reader belongs to process {self._process}; "
                "reading in its fork would take its records"
            )
        if failure:
            hint = "the ring holds no records there: another process may read it as well"
            raise KernelError("read", self._names(), failure, hint=hint)

    def _when_there(self, take: Callable[[], object], timeout: float | None) -> bool:
        """Repeat ``take`` until it takes something, for at most ``timeout`` seconds."""
        require_timeout(timeout)
        if take():  # as a rule, and then all that follows would take longer than this
            return True
        deadline = Deadline(timeout)
        was_there = False  # something that could not be taken
        with self._waiter.borrow():
            try:
                while not take():
                    self._require_usable()
                    if self._silence():
                        continue
                    left = deadline.left()
                    if left <= 0:
                        return False
                    if not self._backlog():
                        was_told = self._waiter.wait(left)
                        self._wakeups += was_told
                    elif was_there:
                        self._waiter.pause(min(left, _BUSY_SECONDS))
                    was_there = self._backlog() > 0
            finally:
                self._pass_on()
        return True

    def _pass_on(self) -> None:
        """Tell others that wait of what is left: a perf ring tells one of them, once."""
        if self._waiter.is_shared() and self._backlog():
            self._ring_bell()

    # -- receiving --

    def read(self, timeout: float | None = None) -> Any:
        """The next record, after at most ``timeout`` seconds (None: as long as it takes).

        None where none came in time.  ClosedError after close(), also for a read that waits then;
        LayoutError for a record that does not fit its type, which is taken out with it.
        """
        taken: list[Any] = []
        try:
            self._when_there(lambda: self._take(taken, 1), timeout)
            return taken[0] if taken else None
        except BaseException:
            self._give_back(taken)
            raise

    def read_nowait(self) -> Any:
        """The next record, None where there is none yet; raises what read() does."""
        return self.read(0)

    def read_batch(self, *, max: int | None = None, timeout: float | None = None) -> list[Any]:
        """The records that wait, at most ``max``, after at most ``timeout`` seconds.

        Empty where none came in time; otherwise as read().  A record that does not fit its type
        raises LayoutError when those before it were read.
        """
        taken: list[Any] = []
        try:
            self._when_there(lambda: self._take_present(taken, max), timeout)
            return taken
        except BaseException:
            self._give_back(taken)
            raise

    def _take_present(self, taken: list[Any], most: int | None) -> int:
        """Take what is there now: of what comes meanwhile not more than the rings hold."""
        return self._take(taken, _most(most))

    def poll(self, callback: Callable[[Any], object], timeout: float | None = None) -> int:
        """Call ``callback(record)`` for each record that waits, after at most ``timeout`` seconds.

        How many it was called for.  What it raises comes out here; that record counts as read,
        those after it come next time.  A callback may close the reader.
        """
        if not callable(callback):
            raise TypeError(f"a callback is called with each record, which {callback!r} is not for")
        count = 0

        def deliver() -> int:
            nonlocal count
            count = self._deliver(callback)
            return count

        self._when_there(deliver, timeout)
        return count

    def drain(self) -> list[Any]:
        """All records that are in the rings, without waiting for others.

        For the end, when the producers are closed: one that is still being written is waited
        for, at most a second.
        """
        taken: list[Any] = []
        try:
            deadline = Deadline(_DRAIN_SECONDS)
            end = self._taken() + self._backlog()
            self._take(taken, _MOST)
            while self._backlog() and self._taken() < end and deadline.left() > 0:
                if any(self._state()):
                    break
                self._waiter.pause(_BUSY_SECONDS)
                self._take(taken, _MOST)
            self._take_back(taken, 1)  # raises the error that comes after what went well
            if not taken:
                self._require_usable()
            return taken
        except BaseException:
            self._give_back(taken)
            raise

    def _taken(self) -> int:
        """Bytes that were taken out of the rings, with the least that is around records there."""
        received, size, *_ = self._account()
        return size + _HEADER * received

    def _next(self) -> Any:
        """What iterating gives when nothing is there."""
        try:
            record = self.read(self._timeout)
        except ClosedError:
            raise StopIteration from None
        if record is None:
            raise StopIteration
        return record

    # -- arrays --

    def read_numpy(self, *, max: int | None = None, timeout: float | None = None) -> Any:
        """The records that wait as a new structured array of their type's dtype, as read_batch().

        For a reader of one map.  A record that is shorter than the type, or longer by 8 bytes or
        more, ends the array; where it is the first, LayoutError is raised and it stays.  Needs
        numpy.
        """
        from pybpf import ring_view

        source = self._only_source("read_numpy")
        dtype, most = source.type.dtype(), _most(max)
        item = dtype.itemsize
        given_back: list[Any] = []
        copied: list[tuple[bytearray, int]] = []

        other = 0

        def copy() -> int:
            nonlocal other
            other = self._copy(item, most, copied)
            return other or self._take_back(given_back, most)

        try:
            self._when_there(copy, timeout)
            if other < 0:
                ring_view.require_fit(source.name, item, -1 - other)
            if given_back:
                return ring_view.joined([source.bytes_of(each) for each in given_back], dtype)
            return ring_view.array_of(copied, dtype)
        except BaseException:
            self._give_back(given_back)
            parts = ring_view.parts(copied, item)
            self._give_back([source.value_of(each) for each in parts])
            raise

    def view(self, *, max: int | None = None, timeout: float | None = None) -> View:
        """``with reader.view() as array``: records that wait where they are, without a copy.

        A read-only structured array over the ring's own memory, of records of one size that follow
        each other; empty where none came in ``timeout`` seconds.  The block's end gives them back
        to the kernel, but where it ends by an exception, they come again.  Then the array and what
        was cut out of it are of no use: ClosedError.  Copies, and what was computed, stay.
        BusyError where plain arrays (numpy.asarray()) still show the ring, whose records then stay
        in it.  numpy does not tell of memoryviews and ``flat``: past the block they show anything.

        Who reads inside the block, by this reader too, takes records that the array shows.  Then
        the block's end is a StateError, and of these records come again those that nobody took.

        For a reader of one ring buffer; NotSupportedError for others.  Needs numpy.
        """
        source = self._only_source("view")
        if not source.is_ring:
            raise NotSupportedError(
                "view",
                f"map {source.name!r}",
                errno.EOPNOTSUPP,
                "",
                "",
                "records of perf event arrays are not in one place: read_numpy() copies them",
            )
        return View(self, source, _most(max), timeout)

    def _only_source(self, what: str) -> Source:
        if len(self._sources) > 1:
            raise LayoutError(f"{what}() is for readers of one map: records of several differ")
        return self._sources[0]

    # -- asyncio --

    async def get(self) -> Any:
        """The next record, as soon as there is one: for asyncio.

        ClosedError after close().  When it is cancelled, no record is lost.
        """
        taken: list[Any] = []
        try:
            await self._when_there_async(taken, None)
            return taken[0]
        except BaseException:
            self._give_back(taken)
            raise

    async def _next_async(self) -> Any:
        """What ``async for`` waits for when nothing is there."""
        taken: list[Any] = []
        try:
            if await self._when_there_async(taken, self._timeout):
                return taken[0]
        except ClosedError:
            pass
        except BaseException:
            self._give_back(taken)
            raise
        raise StopAsyncIteration

    async def _when_there_async(self, taken: list[Any], timeout: float | None) -> bool:
        """_when_there() for one record, while other tasks run."""
        import asyncio

        deadline = Deadline(timeout)
        was_there = False
        await asyncio.sleep(0)  # others have their turn, however many records wait
        with self._waiter.borrow():
            try:
                while not self._take(taken, 1):
                    self._require_usable()
                    if self._silence():
                        continue
                    left = deadline.left()
                    if left <= 0:
                        return False
                    if not self._backlog():
                        was_told = await self._readable(left)
                        self._wakeups += was_told
                    elif was_there:
                        await asyncio.sleep(min(left, _BUSY_SECONDS))
                    was_there = self._backlog() > 0
            finally:
                self._pass_on()
        return True

    async def _readable(self, seconds: float) -> bool:
        """Wait at most so long; whether the descriptor said that there is something."""
        import asyncio

        loop = asyncio.get_running_loop()
        told: asyncio.Future[bool] = loop.create_future()
        is_first = loop not in self._waits
        if is_first:
            self._forget_closed_loops()
            loop.add_reader(self._epoll, self._tell, loop)
            self._waits[loop] = []
        self._waits[loop].append(told)
        timer = loop.call_later(seconds, _answer, told, False)
        try:
            if is_first:
                await asyncio.sleep(0)  # uvloop adds it when the loop goes round
                if self._backlog():  # a perf ring has told epoll_ctl() of it, which forgets it
                    return False
            return await told
        finally:
            timer.cancel()
            self._forget(loop, told)

    def _tell(self, loop: asyncio.AbstractEventLoop) -> None:
        """There is something: everybody looks, and waits again where others were faster."""
        loop.remove_reader(self._epoll)
        for told in self._waits.pop(loop, ()):
            _answer(told, True)

    def _forget(self, loop: asyncio.AbstractEventLoop, told: asyncio.Future[bool]) -> None:
        waiting = self._waits.get(loop, [])
        if told in waiting:
            waiting.remove(told)
            if not waiting:
                del self._waits[loop]
                loop.remove_reader(self._epoll)

    def _forget_closed_loops(self) -> None:
        """Tasks that waited in them never go on, and are collected when nobody has them."""
        for loop in list(self._waits):
            if loop.is_closed():
                del self._waits[loop]

    # -- what there is --

    @property
    def stats(self) -> ReaderStats:
        """What was read and lost until now, and what waits."""
        from pybpf.accounting import ReaderStats

        received, size, batches, lost, highest = self._account()
        lost += self._dropped + sum(counter.lost() for counter in self._drops)
        return ReaderStats(
            received=received,
            bytes=size,
            batches=batches,
            wakeups=self._wakeups,
            lost=lost,
            counts_lost=self._counts_lost,
            backlog=self._backlog(),
            backlog_highest=highest,
        )

    def _end_counting(self) -> None:
        while self._drops:
            counter = self._drops.pop()
            self._dropped += counter.lost()
            counter.close()

    @property
    def closed(self) -> bool:
        return self._waiter.closed or bool(self._state()[0])

    def fileno(self) -> int:
        """An epoll descriptor, readable when there may be records, and when close() ends a wait.

        For select, selectors and event loops.  Ring buffers keep it readable as long as records
        wait.  Perf event arrays tell of a record once, be it to epoll_ctl(), which forgets it: so
        take records until there are none, after it was registered and before each wait, and
        where a loop registers it for each wait (trio), wait with a timeout.
        """
        return self._waiter.fileno()

    # -- closing --

    def close(self) -> None:
        """End reading: waits of other threads and tasks end at once.  Harmless to repeat."""
        if not self._waiter.wake():
            return
        self._close()
        self._end_counting()
        self._forget_closed_loops()
        self._waiter.close()
        if self._owner is not None:
            self._owner._forget_reader(self)

    def _words(self) -> str:
        return f"Reader of {self._names()}"


class View:
    """The context manager that Reader.view() returns."""

    def __init__(self, reader: Reader, source: Source, most: int, timeout: float | None) -> None:
        self._reader = reader
        self._source = source
        self._most = most
        self._timeout = timeout
        self._given_back: list[Any] = []
        self._shown: Shown | None = None

    def __enter__(self) -> numpy.ndarray[Any, Any]:
        from pybpf import ring_view

        dtype = self._source.type.dtype()
        try:
            self._reader._when_there(lambda: self._look(dtype), self._timeout)
            if self._shown is not None:
                return self._shown.array
            parts = [self._source.bytes_of(each) for each in self._given_back]
            return ring_view.joined(parts, dtype)
        except BaseException:
            self._end(consume=False)
            raise

    def _look(self, dtype: numpy.dtype[Any]) -> bool:
        from pybpf import ring_view

        if self._reader._take_back(self._given_back, self._most):
            return True
        self._shown = ring_view.shown(self._reader, self._source.name, dtype, self._most)
        return self._shown is not None

    def __exit__(self, kind: object, *exception: object) -> None:
        self._end(consume=kind is None)

    def _end(self, consume: bool) -> None:
        given_back, self._given_back = self._given_back, []
        shown, self._shown = self._shown, None
        if not consume:
            self._reader._give_back(given_back)
        if shown is None:
            return
        is_unused = shown.end()
        if consume and not is_unused:
            raise BusyError(
                "an array that was made from this view still shows the ring, whose records stay "
                "in it therefore: copy what is needed for longer than the view"
            )
        if consume:
            shown.consume()


def _answer(told: asyncio.Future[bool], is_there: bool) -> None:
    if not told.done():
        told.set_result(is_there)


def _most(given: int | None) -> int:
    """How many records ``max=`` lets through."""
    if given is None:
        return _MOST
    if whole("max", given) < 1:
        raise ValueError(f"max is at least 1, not {given}")
    return min(given, _MOST)
