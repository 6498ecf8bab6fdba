# SPDX-License-Identifier: BSD-2-Clause
"""What the peer benchmark has its clients do with maps and programs, done with pybpf.

Each workload is a method of Workloads that does one pass and returns (operations, seconds of the
timed part); names with a slash are variants of what stands before it.
"""

import contextlib
import ctypes
import statistics
import struct
import time

import pybpf

SMALL, BIG, ARRAY, RUNS = 10_000, 100_000, 4096, 1000
RING, PERF, PERF_PAGES = 40_000, 8000, 256
SUM = BIG * (BIG - 1) // 2  # of all values in the big map
NAMES = {}


def workload(name):
    def register(function):
        NAMES[name] = function
        return function

    return register


def names():
    return list(NAMES)


class Record(ctypes.Structure):
    """The records of both rings, whose type the object's BTF does not have."""

    _fields_ = (
        ("seq", ctypes.c_uint64),
        ("pid", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("ts", ctypes.c_uint64),
        ("val", ctypes.c_uint64),
        ("comm", ctypes.c_char * 16),
        ("pad", ctypes.c_uint64 * 2),
    )


RING_SUM, PERF_SUM = RING * (RING - 1) // 2, PERF * (PERF - 1) // 2


class Workload:
    def __init__(self, function, objects):
        self._function = function
        self._objects = objects

    def rate(self, seconds):
        """The median of the passes' operations per second."""
        rates, start = [], time.perf_counter()
        while not rates or time.perf_counter() - start < seconds:
            operations, duration = self._function(self._objects)
            rates.append(operations / duration)
        return statistics.median(rates)


class Objects:
    """The benchmark's object with its maps filled."""

    def __init__(self, obj):
        self.small, self.structs = obj.maps["h_u32"], obj.maps["h_st"]
        self.big, self.array = obj.maps["h_big"], obj.maps["arr"]
        self.packet, self.syscall = obj.programs["nop_tc"], obj.programs["nop_syscall"]
        self.ring = obj.events("rb", timeout=0)
        self.typed_ring = obj.events("rb", type=Record, timeout=0)
        self.typed_perf = obj.events("pea", type=Record, timeout=0, pages=PERF_PAGES)
        self.typed_ring.read_numpy(timeout=0)  # imports numpy, which is no part of what is measured
        self.fill_ring, self.fill_perf = obj.programs["fill_rb"], obj.programs["fill_pe"]
        self.keys = list(range(BIG))
        self.small.update_many(self.keys[:SMALL], self.keys[:SMALL])
        entries = [((i, i, i), (i, i, i, i, i)) for i in range(SMALL)]
        self.structs.update_many([key for key, _ in entries], [value for _, value in entries])
        self.pairs = dict(zip(self.keys, self.keys, strict=True))
        self.big.update_many(self.pairs)


@contextlib.contextmanager
def prepared(folder):
    """The workloads by name, for as long as their object is loaded."""
    with pybpf.load(f"{folder}/bench.bpf.o") as obj:
        objects = Objects(obj)
        yield {name: Workload(function, objects) for name, function in NAMES.items()}


@workload("lookup_u32")
def lookup(objects):
    counts, total = objects.small, 0
    start = time.perf_counter()
    for key in range(SMALL):
        total += counts[key]
    return SMALL, time.perf_counter() - start


@workload("lookup_u32/many")
def lookup_many(objects):
    start = time.perf_counter()
    sum(objects.small.lookup_many(range(SMALL)))
    return SMALL, time.perf_counter() - start


@workload("lookup_struct")
def lookup_struct(objects):
    structs, total = objects.structs, 0
    start = time.perf_counter()
    for i in range(SMALL):
        total += structs[i, i, i].sum
    return SMALL, time.perf_counter() - start


@workload("update_u32")
def update(objects):
    counts = objects.small
    start = time.perf_counter()
    for key in range(SMALL):
        counts[key] = key
    return SMALL, time.perf_counter() - start


@workload("update_struct")
def update_struct(objects):
    structs = objects.structs
    start = time.perf_counter()
    for i in range(SMALL):
        structs[i, i, i] = (i, i, i, i, i)
    return SMALL, time.perf_counter() - start


@workload("delete_u32")
def delete(objects):
    counts = objects.small
    start = time.perf_counter()
    for key in range(SMALL):
        del counts[key]
    duration = time.perf_counter() - start
    counts.update_many(objects.keys[:SMALL], objects.keys[:SMALL])
    return SMALL, duration


@workload("iter_100k")
def iterate(objects):
    total = 0
    start = time.perf_counter()
    for _, value in objects.big.items(batch_size=1):
        total += value
    duration = time.perf_counter() - start
    assert total == SUM
    return BIG, duration


@workload("batch_lookup_100k")
def iterate_batched(objects):
    total = 0
    start = time.perf_counter()
    for _, value in objects.big.items():
        total += value
    duration = time.perf_counter() - start
    assert total == SUM
    return BIG, duration


@workload("batch_lookup_100k/dict")
def to_dict(objects):
    start = time.perf_counter()
    count = len(objects.big.to_dict())
    return count, time.perf_counter() - start


@workload("batch_lookup_100k/np")
def to_numpy(objects):
    start = time.perf_counter()
    keys, values = objects.big.to_numpy()
    values.sum()
    return len(keys), time.perf_counter() - start


@workload("batch_update_100k")
def update_many(objects):
    start = time.perf_counter()
    objects.big.update_many(objects.pairs)
    return BIG, time.perf_counter() - start


@workload("batch_update_100k/np")
def update_numpy(objects):
    import numpy

    keys, values = numpy.arange(BIG, dtype="u4"), numpy.arange(BIG, dtype="u8")
    start = time.perf_counter()
    objects.big.update_numpy(keys, values)
    return BIG, time.perf_counter() - start


@workload("array_mmap_read")
def read_memory(objects):
    from numpy import add

    memory = objects.array.array()
    start = time.perf_counter()
    for _ in range(64):
        add.reduce(memory)
    return 64 * ARRAY, time.perf_counter() - start


@workload("array_lookup")
def read_array(objects):
    array, total = objects.array, 0
    start = time.perf_counter()
    for index in range(ARRAY):
        total += array[index]
    return ARRAY, time.perf_counter() - start


@workload("test_run_tc")
def run_packet(objects):
    run, packet = objects.packet.test_run, bytes(64)
    start = time.perf_counter()
    for _ in range(RUNS):
        run(packet)
    return RUNS, time.perf_counter() - start


@workload("test_run_syscall")
def run_syscall(objects):
    run, context = objects.syscall.test_run, bytes(8)
    start = time.perf_counter()
    for _ in range(RUNS):
        run(ctx=context)
    return RUNS, time.perf_counter() - start


def fill_ring(objects):
    run = objects.fill_ring.test_run(ctx=struct.pack("=Q", RING))
    assert run.retval == RING


def fill_perf(objects):
    run = objects.fill_perf.test_run(ctx=struct.pack("=12Q", PERF, *[0] * 11))
    assert run.retval == 0


def drained(count, total, start, expected):
    """What a pass over a ring comes to: all records, and the sum of a member of each."""
    duration = time.perf_counter() - start
    assert total == expected
    return count, duration


@workload("ringbuf_drain")
def drain_ring(objects):
    fill_ring(objects)
    total = 0
    start = time.perf_counter()
    for record in objects.typed_ring:
        total += record.val
    return drained(RING, total, start, RING_SUM)


@workload("ringbuf_drain/view")
def view_ring(objects):
    fill_ring(objects)
    start = time.perf_counter()
    with objects.typed_ring.view() as records:
        total = int(records["val"].sum())
    return drained(RING, total, start, RING_SUM)


@workload("ringbuf_drain/numpy")
def copy_ring(objects):
    fill_ring(objects)
    start = time.perf_counter()
    total = int(objects.typed_ring.read_numpy()["val"].sum())
    return drained(RING, total, start, RING_SUM)


@workload("ringbuf_drain/bytes")
def drain_ring_bytes(objects):
    fill_ring(objects)
    count = 0
    start = time.perf_counter()
    for _ in objects.ring:
        count += 1
    return drained(count, count, start, RING)


class Counter:
    def __init__(self):
        self.count = 0

    def add(self, record):
        self.count += 1


@workload("ringbuf_drain/callback")
def call_back_ring(objects):
    fill_ring(objects)
    counter = Counter()
    start = time.perf_counter()
    objects.ring.poll(counter.add)
    return drained(RING, counter.count, start, RING)


@workload("ringbuf_drain/async")
def drain_ring_async(objects):
    import asyncio

    async def drain():
        total = 0
        start = time.perf_counter()
        async for record in objects.typed_ring:
            total += record.val
        return drained(RING, total, start, RING_SUM)

    fill_ring(objects)
    return asyncio.run(drain())


@workload("perf_drain")
def drain_perf(objects):
    fill_perf(objects)
    total = 0
    start = time.perf_counter()
    for record in objects.typed_perf:
        total += record.val
    return drained(PERF, total, start, PERF_SUM)


@workload("perf_drain/numpy")
def copy_perf(objects):
    fill_perf(objects)
    start = time.perf_counter()
    total = int(objects.typed_perf.read_numpy()["val"].sum())
    return drained(PERF, total, start, PERF_SUM)


@workload("perf_drain/callback")
def call_back_perf(objects):
    fill_perf(objects)
    counter = Counter()
    start = time.perf_counter()
    objects.typed_perf.poll(counter.add)
    return drained(PERF, counter.count, start, PERF)
