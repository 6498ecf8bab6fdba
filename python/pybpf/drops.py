# SPDX-License-Identifier: BSD-2-Clause
"""Records that a ring had no room for, as its programs count them by pybpf/events.bpf.h."""

from __future__ import annotations

import errno
import os

from pybpf.errors import KernelError, PinError
from pybpf.map import Map
from pybpf.object_map import ObjectMap

NAME = "pybpf_drops"
_KIND = (5, 32, 8)  # of the header's map: BPF_MAP_TYPE_PERCPU_HASH, char[32], __u64
_NOEXIST = 1  # of UpdateFlags
_KERNEL_NAME_LENGTH = 15  # of a map's name; the kernel cuts longer ones


class DropCounter:
    """How many records of one ring its programs have lost since this was made.

    It has a descriptor of its own, so that it outlives the object that the counts are of, until
    close().  Of several counters of a ring each counts all that the ring loses in its own time.
    """

    def __init__(self, counts: Map, ring: str) -> None:
        """``counts`` is the header's map, which stays the caller's, ``ring`` the ring's whole name.

        Makes the ring's count where there is none, so that programs only add to it: KernelError or
        PrivilegeError where the kernel refuses, MapFullError where other rings have all counts.
        """
        from pybpf.access import Access

        with counts._borrow_fd() as fd:
            self._access = Access(counts, fd, None, None)
        self._key = ring.encode().ljust(counts.key_size, b"\0")
        try:
            self._begin()
            self._before = self._total()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        try:
            self._access.update(self._key, bytes(self._access.value.size), _NOEXIST)
        except KernelError as error:
            if error.errno != errno.EEXIST:
                raise

    def _total(self) -> int:
        """What all CPUs have counted; 0 where somebody deleted the count."""
        counts = self._access.lookup(self._key)
        return sum(memoryview(counts).cast("Q")) if counts is not None else 0

    def lost(self) -> int:
        """The records that were lost meanwhile, on all CPUs; one system call.

        ClosedError after close().
        """
        return self._total() - self._before

    def close(self) -> None:
        """Give the descriptor back.  Harmless to repeat."""
        self._access.close()


def find(ring: Map) -> DropCounter | None:
    """A counter of what ``ring`` loses from now on; None where its programs do not count.

    The counts are in the ring's object.  For a pinned ring they are pinned in the folder where it
    was opened, as "pybpf_drops", and it is known there by its whole name: the kernel's or, where
    the kernel has cut that to 15 characters, its pin's.  The caller closes the counter.

    StateError before load(), and what DropCounter() raises.
    """
    if isinstance(ring, ObjectMap):
        return _in_object(ring)
    if ring._pin is not None:
        return _beside_pin(ring.name, ring._pin)
    return None


def _in_object(ring: ObjectMap) -> DropCounter | None:
    counts = ring._owner.maps.get(NAME)
    if counts is None or not counts.autocreate:
        return None
    return _counter(counts, ring.name)


def _beside_pin(kernel_name: str, pin: str) -> DropCounter | None:
    folder, name = os.path.split(pin)
    if len(kernel_name) < _KERNEL_NAME_LENGTH:
        name = kernel_name
    elif not name.startswith(kernel_name):
        return None
    try:
        counts = Map.open_pinned(os.path.join(folder, NAME))
    except PinError:  # there is none, or one of a program or link
        return None
    with counts:
        return _counter(counts, name)


def _counter(counts: Map, ring: str) -> DropCounter | None:
    """A counter of ``ring`` in a map of the right name, where it is the header's."""
    if (counts.type, counts.key_size, counts.value_size) != _KIND:
        return None
    return DropCounter(counts, ring)
