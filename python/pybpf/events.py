# SPDX-License-Identifier: BSD-2-Clause
"""Ring buffers: drained in C into a batch, from which Python takes records one by one.

No Python runs beneath a C frame, so exceptions, Ctrl-C and closing from anywhere are ordinary.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import time
from _thread import RLock
from itertools import islice

from pybpf import _native
from pybpf._handles import Handle, Uncopyable, warn_unclosed
from pybpf._native import ffi, lib
from pybpf.constants import MapType
from pybpf.errors import BusyError, ClosedError, KernelError, LayoutError, StateError
from pybpf.kernel import explained

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from pybpf.btf import Type
    from pybpf.map import Map
    from pybpf.object import Object

_BATCH_BYTES = 1 << 20
_POLL_SECONDS = 3600.0  # poll() counts milliseconds in an int


class Source:
    """One ring buffer of a reader: its name and the type of its records (bytes where None)."""

    __slots__ = ("map", "name", "type")

    def __init__(self, map: Map, type: Type | None, name: str | None = None) -> None:
        self.name = map.name if name is None else name
        self.map = map
        self.type = type

    def decode(self, data: bytes) -> Any:
        if self.type is None:
            return data
        from pybpf import layout

        try:
            return layout.decode(self.type, data)
        except LayoutError as error:
            raise LayoutError(f"a record of ring buffer {self.name!r}: {error}") from None


class Batch:
    """What one drain brought, by its number in C; from ``position`` on still to be delivered."""

    __slots__ = ("number", "position", "records")

    def __init__(self, number: int, records: list[tuple[int, bytes]]) -> None:
        self.number = number
        self.records = records
        self.position = 0


class Delivery:
    """Records on their way from a batch to the caller, given back where they do not arrive."""

    __slots__ = ("batch", "end", "start", "values")

    batch: Batch | None
    start: int
    end: int
    values: list[Any]

    def __init__(self) -> None:
        self.batch = None
        self.values = []


class RingReader(Uncopyable):
    """Reads the records of one or several ring buffers, in each buffer's order: Object.events().

    Iterating gives records, or (map name, record) pairs for a reader of several buffers; it ends
    with close(), or when no record came for ``timeout`` seconds.  It can be left and taken up
    again: nothing that was read from the ring is lost, also where an exception comes between.
    close() may come from any thread or signal handler, and ends a read that waits.

    A ring has one consumer: two readers, or two processes, on one ring share its records between
    them.  Threads may share one reader; each record goes to one of them.  A signal handler may
    close a reader, but not read where its own thread is reading (BusyError).
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        tagged: bool = False,
        timeout: float | None = None,
        owner: Object | None = None,
    ) -> None:
        if not sources:
            raise LayoutError("a reader needs at least one ring buffer")
        self._sources = list(sources)
        self._tagged = tagged
        self._timeout = timeout
        self._owner = owner
        self._process = os.getpid()
        self._batch = Batch(0, [])
        self._lock = RLock()  # a signal handler that reads must not wait for its own thread
        self._taking = False
        rings = lib.pybpf_rings_new()
        if rings == _native.NULL:
            raise KernelError("make", "a ring buffer reader", ffi.errno or errno.ENOMEM)
        wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._handle = Handle((rings, wake), _free, "ring buffer reader")
        try:
            for source in self._sources:
                self._add(source)
        except BaseException:
            self.close()
            raise

    def _add(self, source: Source) -> None:
        if source.map.type != MapType.RINGBUF:
            raise LayoutError(
                f"map {source.name!r} is of type {source.map.type.name}; only RINGBUF is read"
            )
        with self._handle.borrow() as (rings, _), source.map._borrow_fd() as fd:
            code = lib.pybpf_rings_add(rings, fd)
        _native.check(code, "read", f"ring buffer {source.name!r}", explained(KernelError))

    @property
    def closed(self) -> bool:
        return self._handle.closed

    def fileno(self) -> int:
        """An epoll descriptor, readable while the rings hold records; for selectors and loops."""
        with self._handle.borrow() as (rings, _):
            return int(lib.pybpf_rings_epoll_fd(rings))

    def read_batch(self, timeout: float | None = None) -> list[Any]:
        """The records that wait, after at most ``timeout`` seconds (None: as long as it takes).

        Empty where none came in time.  ClosedError after close(), also for a read that waits then.
        A record that does not fit its type raises LayoutError; those after it come next time.
        """
        delivery = Delivery()
        try:
            self._wait(timeout, delivery, None)
            return delivery.values
        except BaseException:
            self._give_back(delivery)
            raise

    def __iter__(self) -> Iterator[Any]:
        while True:
            delivery = Delivery()
            try:
                self._wait(self._timeout, delivery, 1)
                if not delivery.values:
                    return
            except ClosedError:
                return
            except BaseException:
                self._give_back(delivery)
                raise
            yield delivery.values[0]

    def _wait(self, timeout: float | None, delivery: Delivery, limit: int | None) -> None:
        """Deliver the records there are, or that come in time; at most ``limit``."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._handle.borrow() as (rings, wake):
            poll = select.poll()
            poll.register(lib.pybpf_rings_epoll_fd(rings), select.POLLIN)
            poll.register(wake, select.POLLIN)
            while True:
                if self._take(rings, delivery, limit):
                    return
                if self.closed:
                    raise ClosedError("ring buffer reader was closed while it waited")
                left = _POLL_SECONDS if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    return
                poll.poll(min(left, _POLL_SECONDS) * 1000)

    def _take(self, rings: Any, delivery: Delivery, limit: int | None) -> bool:
        """Deliver what there is without waiting; whether there was anything."""
        with self._lock:
            if self._taking:
                raise BusyError("a signal handler cannot read where its own thread is reading")
            self._taking = True
            try:
                if self._batch.position == len(self._batch.records):
                    self._drain(rings)
                return self._deliver(delivery, limit)
            finally:
                self._taking = False

    def _deliver(self, delivery: Delivery, limit: int | None) -> bool:
        batch, start = self._batch, self._batch.position
        end = None if limit is None else start + limit
        for record in islice(batch.records, start, end):
            try:
                delivery.values.append(self._decode(record))
            except LayoutError:
                if delivery.values:
                    break  # the next call begins with this one
                batch.position = start + 1
                raise
        delivery.start, delivery.end = start, start + len(delivery.values)
        delivery.batch = batch
        batch.position = delivery.end
        return bool(delivery.values)

    def _give_back(self, delivery: Delivery) -> None:
        """Put records that an exception kept from the caller before those still to be delivered."""
        batch = delivery.batch
        if batch is None or batch.position < delivery.end:
            return
        with self._lock:
            now = self._batch
            again = batch.records[delivery.start : delivery.end]
            self._batch = Batch(now.number, again + now.records[now.position :])

    def _decode(self, record: tuple[int, bytes]) -> Any:
        source = self._sources[record[0]]
        value = source.decode(record[1])
        return (source.name, value) if self._tagged else value

    def _drain(self, rings: Any) -> None:
        """Move what waits in the rings into a new batch, which C keeps until it is in place."""
        if self._process != os.getpid():
            raise StateError(
                f"this reader belongs to process {self._process}; "
                "reading in its fork would take its records"
            )
        count = lib.pybpf_rings_drain(rings, self._batch.number, _BATCH_BYTES)
        if count < 0:
            names = ", ".join(source.name for source in self._sources)
            _native.check(count, "read", f"ring buffers {names}")
        number = lib.pybpf_rings_batch(rings)
        records, data = lib.pybpf_rings_records(rings), lib.pybpf_rings_data(rings)
        self._batch = Batch(
            number,
            [
                (record.source, bytes(ffi.buffer(data + record.offset, record.size)))
                for record in (records[i] for i in range(count))
            ],
        )

    def close(self) -> None:
        """End reading: a read that waits in another thread ends at once.  Harmless to repeat."""
        if self._process == os.getpid():  # a fork shares the eventfd with its parent
            try:
                with self._handle.borrow() as (_, wake):
                    os.eventfd_write(wake, 1)
            except ClosedError:
                return
        self._handle.close_when_unused()
        if self._owner is not None:
            self._owner._forget_reader(self)

    def __enter__(self) -> RingReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        names = ", ".join(source.name for source in self._sources)
        return f"<RingReader of {names}{' closed' if self.closed else ''}>"

    def __del__(self) -> None:
        handle = getattr(self, "_handle", None)
        if handle is None or handle.closed or sys.is_finalizing():
            return
        try:
            if self._owner is None:
                warn_unclosed(repr(self), self)
        finally:
            self.close()


def _free(resource: tuple[Any, int]) -> None:
    rings, wake = resource
    lib.pybpf_rings_free(rings)
    os.close(wake)
