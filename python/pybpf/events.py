# SPDX-License-Identifier: BSD-2-Clause
"""Ring buffers: drained in C into a batch, from which Python takes records one by one.

No Python runs beneath a C frame, so exceptions, Ctrl-C and closing from anywhere are ordinary.
"""

from __future__ import annotations

import os
import select
import sys
import time
from _thread import allocate_lock

from pybpf import _native
from pybpf._handles import Handle, OwnedFd, warn_unclosed
from pybpf._native import ffi, lib
from pybpf.constants import MapType
from pybpf.errors import ClosedError, KernelError, LayoutError, StateError
from pybpf.kernel import explained

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from pybpf.btf import Type
    from pybpf.map import Map
    from pybpf.object import Object

_BATCH_BYTES = 1 << 20


class Source:
    """One ring buffer of a reader: its name and the type of its records (bytes where None)."""

    __slots__ = ("map", "name", "type")

    def __init__(self, map: Map, type: Type | None) -> None:
        self.name = map.name
        self.map = map
        self.type = type

    def decode(self, data: bytes) -> Any:
        if self.type is None:
            return data
        from pybpf import layout

        return layout.decode(self.type, data)


class RingReader:
    """Reads the records of one or several ring buffers, in each buffer's order.

    Iterating gives records, or (map name, record) pairs for a reader of several buffers; it ends
    with close(), or when no record came for ``timeout`` seconds.  A ring has one consumer: two
    readers, or two processes, on one ring share its records between them.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        tagged: bool = False,
        timeout: float | None = None,
        owner: Object | None = None,
    ) -> None:
        self._sources = list(sources)
        self._tagged = tagged
        self._timeout = timeout
        self._owner = owner
        self._process = os.getpid()
        self._pending: list[tuple[int, bytes]] = []
        self._lock = allocate_lock()
        self._wake = OwnedFd(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK), "reader's wake-up")
        self._handle = Handle(lib.pybpf_rings_new(), lib.pybpf_rings_free, "ring buffer reader")
        try:
            for source in self._sources:
                self._add(source)
            with self._handle.borrow() as rings:
                self._epoll_fd = int(lib.pybpf_rings_epoll_fd(rings))
        except BaseException:
            self.close()
            raise

    def _add(self, source: Source) -> None:
        if source.map.type != MapType.RINGBUF:
            raise LayoutError(
                f"map {source.name!r} is of type {source.map.type.name}; only RINGBUF is read"
            )
        with self._handle.borrow() as rings:
            code = lib.pybpf_rings_add(rings, source.map.fileno())
        _native.check(code, "read", f"ring buffer {source.name!r}", explained(KernelError))

    @property
    def closed(self) -> bool:
        return self._handle.closed

    def fileno(self) -> int:
        """An epoll descriptor, readable while records wait; for selectors and event loops."""
        if self.closed:
            raise ClosedError("ring buffer reader is closed")
        return self._epoll_fd

    def read_batch(self, timeout: float | None = None) -> list[Any]:
        """The records that wait, after at most ``timeout`` seconds (None: as long as it takes).

        Empty where none came in time.  ClosedError after close(), also for a read that waits then.
        A record that does not fit its type raises LayoutError; those after it come next time.
        """
        if not self._pending:
            self._pending = self._wait(timeout)
        batch = []
        while self._pending:
            try:
                batch.append(self._decode(self._pending[0]))
            except LayoutError:
                if batch:
                    return batch  # the next call raises
                del self._pending[0]
                raise
            del self._pending[0]
        return batch

    def __iter__(self) -> Iterator[Any]:
        while True:
            try:
                batch = self.read_batch(self._timeout)
            except ClosedError:
                return
            if not batch:
                return
            yield from batch

    def _decode(self, record: tuple[int, bytes]) -> Any:
        source = self._sources[record[0]]
        try:
            value = source.decode(record[1])
        except LayoutError as error:
            raise LayoutError(f"a record of ring buffer {source.name!r}: {error}") from None
        return (source.name, value) if self._tagged else value

    def _wait(self, timeout: float | None) -> list[tuple[int, bytes]]:
        """Raw records: those there are, or those that come in time."""
        deadline = None if timeout is None else time.monotonic() + timeout
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        poll.register(self._wake.fileno(), select.POLLIN)
        while True:
            records = self._drain()
            if records:
                return records
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return []
            poll.poll(None if left is None else left * 1000)

    def _drain(self) -> list[tuple[int, bytes]]:
        """Move what waits in the rings into Python, at most a batch."""
        if self._process != os.getpid():
            raise StateError(
                f"this reader belongs to process {self._process}; "
                "reading in its fork would take its records"
            )
        with self._lock, self._handle.borrow() as rings:
            count = lib.pybpf_rings_drain(rings, _BATCH_BYTES)
            if count < 0:
                names = ", ".join(source.name for source in self._sources)
                _native.check(count, "read", f"ring buffers {names}")
            records, data = lib.pybpf_rings_records(rings), lib.pybpf_rings_data(rings)
            return [
                (record.source, bytes(ffi.buffer(data + record.offset, record.size)))
                for record in (records[i] for i in range(count))
            ]

    def close(self) -> None:
        """End reading: a read that waits in another thread ends at once.  Harmless to repeat."""
        if self.closed:
            return
        with self._lock:
            self._handle.close()
        os.eventfd_write(self._wake.fileno(), 1)
        self._wake.close()
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
        warn_unclosed(repr(self), self)
        self.close()
