# SPDX-License-Identifier: BSD-2-Clause
"""Random sequences of everything that can be done with readers of one ring, beside a model of it.

python test_ring_model.py OBJECT SECONDS [SEED]      goes on for so long
"""

from __future__ import annotations

import gc
import random
import sys
import time
from collections import deque
from contextlib import ExitStack

import pybpf
import pytest
from ring_programs import PAYLOAD, Rings, event

pytestmark = [pytest.mark.native, pytest.mark.requires("bpf_loop")]

DISCARDED = None
ITEM = 16
SIZES = [0, 7, 8, 15, 16, 16, 16, 16, 16, 17, 23, 24, 40, 300]


class Planned(Exception):
    """What callbacks and blocks raise here."""


class ModelReader:
    """A reader, and what only it has: records that it was given back, an error to come."""

    def __init__(self, obj):
        self.reader = obj.events("events", timeout=0)
        self.back = deque()
        self.error = None
        self.received = self.bytes = 0


class Model:
    """One ring's records in order, and readers that share them."""

    def __init__(self, obj, seed):
        self.random = random.Random(seed)
        self.obj = obj
        self.rings = Rings(obj)
        self.ring = deque()
        self.sequence = 0
        self.readers = [ModelReader(obj), ModelReader(obj)]
        self.holding = None

    def close(self):
        if self.holding is not None:
            self.holding.close()
        for each in self.readers:
            each.reader.close()

    # -- what the ring has --

    def send(self):
        size, offset = self.random.choice(SIZES), self.random.randrange(1000)
        if self.rings.send(offset, size, "events"):
            self.ring.append(PAYLOAD[offset:][:size])

    def emit(self):
        count = self.random.randrange(1, 30)
        if sum(map(room, self.ring)) + count * 24 > 4000:
            return
        every = self.random.choice([0, 0, 1, 2, 3, 7])
        self.rings.emit(count, self.sequence, discard_every=every)
        for number in range(count):
            discarded = every and number % every == 0
            self.ring.append(DISCARDED if discarded else event(self.sequence + number))
        self.sequence += count

    def hold(self):
        """A record that is busy for some operations; the model has it from its end on."""
        if self.holding is not None:
            self.holding.close()
            self.holding = None
            self.ring.extend(self.behind)
        elif sum(map(room, self.ring)) < 3000:
            discard = self.random.random() < 0.3
            self.holding = ExitStack()
            self.holding.enter_context(self.rings.hold(self.sequence, discard=discard))
            self.behind = [DISCARDED if discard else event(self.sequence)]
            self.sequence += 1

    def next_of(self, model):
        """The record that a reader gives next, taken out; None where there is none."""
        if model.back:
            return model.back.popleft()
        while self.ring:
            record = self.ring.popleft()
            if record is not DISCARDED:
                model.received += 1
                model.bytes += len(record)
                return record
        return None

    def expect(self, model, most):
        """(records that a call gives, the short record of its error or None)."""
        found = []
        while len(found) < most:
            if not model.back and model.error is not None:
                if not found:
                    record, model.error = model.error, None
                    return found, record
                break
            record = self.next_of(model)
            if record is None:
                break
            if len(record) < ITEM:
                return found, record
            found.append(record)
        return found, None

    # -- ways to receive --

    def read_one(self, model):
        way = self.random.choice(["read", "read_nowait", "next"])
        reader = model.reader
        receive = {
            "read": lambda: reader.read(timeout=0),
            "read_nowait": reader.read_nowait,
            "next": lambda: next(reader, None),
        }[way]
        expected = self.expect(model, 1)
        assert outcome(lambda: [each for each in [receive()] if each is not None]) == expected

    def read_batch(self, model):
        most = self.random.choice([1, 2, 5, 1000])
        found, short = self.expect(model, most)
        if found:  # the error comes after those that went well
            model.error = short if short is not None else model.error
            short = None
        assert outcome(lambda: model.reader.read_batch(max=most, timeout=0)) == (found, short)

    def poll(self, model):
        fails_at, got = self.random.choice([1, 3, 1000]), []

        def callback(record):
            got.append(bytes(record))
            if len(got) == fails_at:
                raise Planned

        found, short = self.expect(model, fails_at)
        count = None
        try:
            _, error = outcome(lambda: [model.reader.poll(callback, timeout=0)], str)
            assert error == short
        except Planned:
            count = fails_at
        assert got == found
        assert (count is not None) == (len(found) == fails_at)

    def drain(self, model):
        if self.holding is not None:
            return  # it waits for a second
        found, short = self.expect(model, 1 << 30)
        if short is None and model.error is not None:
            short, model.error = model.error, None
        if short is not None:
            model.back.extend(found)
            found = []
        assert outcome(model.reader.drain) == (found, short)

    # -- arrays --

    def fitting(self, model, most, alike):
        """The records that an array gives: None where it is an error."""
        if model.back:
            return [model.back.popleft() for _ in range(min(most, len(model.back)))]
        while self.ring and self.ring[0] is DISCARDED:
            self.ring.popleft()
        found, size = [], None
        for record in list(self.ring)[: most if alike else None]:
            if record is DISCARDED and not alike:
                continue
            if len(found) == most or record is DISCARDED:
                break
            if not 0 <= len(record) - ITEM < 8:
                if not found:
                    return None
                break
            size = size or len(record)
            if alike and len(record) != size:
                break
            found.append(record)
        return found

    def take(self, model, records):
        for _ in records:
            self.next_of(model)

    def is_error(self, model, receive):
        """Whether an error comes instead of an array."""
        if model.error is None or model.back:
            return False
        record, model.error = model.error, None
        assert outcome(receive) == ([], record)
        return True

    def read_numpy(self, model):
        most = self.random.choice([1, 3, 1000])

        def receive():
            return model.reader.read_numpy(max=most, timeout=0)

        if self.is_error(model, receive):
            return
        from_back = bool(model.back)
        expected = self.fitting(model, most, alike=False)
        if expected is None:
            with pytest.raises(pybpf.LayoutError, match="does not hold"):
                receive()
            return
        if not from_back:
            self.take(model, expected)
        array = receive()
        assert array.tobytes() == b"".join(record[:ITEM] for record in expected)

    def view(self, model):
        most = self.random.choice([1, 3, 1000])
        view = model.reader.view(max=most, timeout=0)
        if self.is_error(model, view.__enter__):
            return
        from_back = bool(model.back)
        expected = self.fitting(model, most, alike=True)
        if expected is None:
            with pytest.raises(pybpf.LayoutError, match="does not hold"):
                view.__enter__()
            return
        array = view.__enter__()
        assert array.tobytes() == b"".join(record[:ITEM] for record in expected)
        parts = [array[1:], array["sequence"], array[:0], array[::-1]]
        end = self.random.choice(["take", "take", "keep", "others"])
        if end == "keep":
            view.__exit__(Planned, Planned(), None)
            if from_back:
                model.back.extendleft(reversed(expected))
        elif end == "others" and expected and not from_back:
            other = next(each for each in self.readers if each is not model)
            before = other.received
            self.read_one(other)
            if other.received == before:
                self.end(view)
                self.take(model, expected)
            else:
                with pytest.raises(pybpf.StateError, match="read by others"):
                    self.end(view)
        else:
            self.end(view)
            if not from_back:
                self.take(model, expected)
        if expected and not from_back:
            for part in [array, *parts]:
                with pytest.raises((pybpf.ClosedError, TypeError)):
                    len(part)

    def end(self, view):
        view.__exit__(None, None, None)

    # -- others --

    def reopen(self, model):
        if model.back or model.error is not None:
            return  # which would end with it
        how = self.random.choice(["close", "drop", "close in a view"])
        if how == "close":
            model.reader.close()
        if how == "close in a view":
            self.close_in_view(model)
        number = self.readers.index(model)
        self.readers[number] = ModelReader(self.obj)

    def close_in_view(self, model):
        view, expected = model.reader.view(timeout=0), self.fitting(model, 1000, alike=True)
        if expected is None:
            with pytest.raises(pybpf.LayoutError, match="does not hold"):
                view.__enter__()
            return
        with view as array:
            model.reader.close()
            assert len(array) == len(expected)
        self.take(model, expected)

    def check(self, model):
        stats = model.reader.stats
        assert (stats.received, stats.bytes) == (model.received, model.bytes)
        if not self.holding:
            assert stats.backlog <= sum(map(room, self.ring))
        if self.random.random() < 0.05:
            gc.collect()

    def step(self):
        operations = [self.send, self.emit, self.hold]
        if self.holding is not None:
            operations = [self.hold]
        receiving = [self.read_one, self.read_batch, self.poll, self.drain, self.read_numpy]
        receiving += [self.view, self.reopen, self.check]
        if self.random.random() < 0.45:
            weights = [4, 2, 0.2][: len(operations)] if len(operations) > 1 else [1]
            self.random.choices(operations, weights)[0]()
        else:
            self.random.choice(receiving)(self.random.choice(self.readers))


def outcome(receive, what=bytes):
    """(what it gives, None), or ([], the record of its error)."""
    try:
        return list(map(what, receive())), None
    except pybpf.LayoutError as error:
        return [], error.record


def room(record):
    """The bytes that a record takes in the ring; a discarded one is an event."""
    return (len(record if record is not DISCARDED else event(0)) + 8 + 7) // 8 * 8


def run(path, seed, steps):
    with pybpf.open(path) as obj:
        obj.bss["payload"] = PAYLOAD
        obj.load()
        model = Model(obj, seed)
        try:
            for _ in range(steps):
                model.step()
        finally:
            model.close()


@pytest.mark.requires("two_cpus")
@pytest.mark.parametrize("seed", range(5))
def test_readers_do_what_a_model_of_them_does(bpf_object, seed):
    pytest.importorskip("numpy")
    run(bpf_object("rings"), seed, 1500)


if __name__ == "__main__":
    seed, end = int(*sys.argv[3:] or [0]), time.monotonic() + float(sys.argv[2])
    while time.monotonic() < end:
        print("seed", seed, flush=True)
        run(sys.argv[1], seed, 3000)
        seed += 1
