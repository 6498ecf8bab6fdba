# SPDX-License-Identifier: BSD-2-Clause
"""The programs of rings.bpf.o: what they write into its ring buffers, when, and how much of it."""

from __future__ import annotations

import random
import struct
import threading
import time
from contextlib import contextmanager

EVENT_ROOM = 24  # an event of 16 bytes, and the kernel's header
RING = 4096
PAYLOAD = random.Random(4).randbytes(65536)
RINGS = {"untyped": 0, "lines": 1, "events": 2}

_EMISSION = struct.Struct("<IIIIQ")


def event(sequence):
    """The bytes of one."""
    return struct.pack("<QQ", sequence, ~sequence % 2**64)


def sequences(events):
    """Their numbers, once it is checked that they are whole."""
    events = list(events)
    for each in events:
        assert bytes(each) == event(each.sequence)
    return [each.sequence for each in events]


class Rings:
    """Drives the programs of one loaded object."""

    def __init__(self, obj):
        self.obj = obj
        self._emit = obj.programs["emit"].test_run
        self._send = obj.programs["send"].test_run
        self._holds = 0

    def emit(self, count, first=0, *, discard_every=0, to_others=False):
        """Events ``first`` to ``first + count - 1``; how many found room and were not discarded."""
        given = _EMISSION.pack(count, discard_every, to_others, 0, first)
        return _EMISSION.unpack(self._emit(ctx=given).ctx_out)[3]

    def send(self, offset, size, ring="untyped"):
        """Put a part of the payload into a ring; whether there was room."""
        return self._send(ctx=struct.pack("<III", offset, size, RINGS[ring])).retval == 0

    def send_bytes(self, data, ring="untyped"):
        self.obj.bss["payload"] = data
        assert self.send(0, len(data), ring)

    @contextmanager
    def hold(self, sequence, *, discard=False):
        """Within the block, an event is reserved in the ring and not yet submitted."""
        self._holds += 1
        run = self.obj.programs["hold"].test_run
        given = struct.pack("<QIIQ", sequence, discard, 0, 0)
        thread = threading.Thread(target=run, kwargs={"ctx": given})
        thread.start()
        try:
            wait_until(lambda: self.obj.bss.held == self._holds)
            yield
        finally:
            self.obj.bss.let_go = self._holds
            thread.join()


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.0005)
