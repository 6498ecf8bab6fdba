# SPDX-License-Identifier: BSD-2-Clause
"""Records that rings had no room for, counted by programs with pybpf/events.bpf.h: none is missed,
none is counted twice, whoever else produces at the same time."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time

import numpy
import pybpf
import pytest
from pybpf import drops
from test_concurrency import Worker, at_once

OVERLOAD_SECONDS = float(os.environ.get("PYBPF_OVERLOAD_SECONDS", "3"))

RECORD = numpy.dtype([("cpu", "u4"), ("writer", "u4"), ("number", "u8")])
RING_HOLDS = 4095 // (8 + RECORD.itemsize)  # a byte stays free
PER_RUN = 256
WRITERS = ["emit", "reserve", "emit_quietly"]
LONG = "ring_with_a_name_as_long_as_any"
CPUS = sorted(os.sched_getaffinity(0))


@pytest.fixture
def loaded(bpf_object):
    with pybpf.load(bpf_object("overload")) as obj:
        yield obj


@pytest.fixture
def counting():
    """counting(MAP): a counter of what that ring loses, closed at the end."""
    made = []

    def count(ring):
        counter = drops.find(ring)
        assert counter is not None
        made.append(counter)
        return counter

    yield count
    for counter in made:
        counter.close()


def write(obj, writer, runs=1, records=PER_RUN):
    program, request = obj.programs[writer], records.to_bytes(8, sys.byteorder)
    for _ in range(runs):
        program.test_run(ctx=request)


def on_cpu(cpu, function, *arguments):
    """What runs ``function`` in a thread that stays on that CPU."""

    def run():
        os.sched_setaffinity(0, {cpu})  # of the calling thread
        return function(*arguments)

    return run


def without_error(outcomes):
    assert [error for _, error in outcomes] == [None] * len(outcomes)


@pytest.mark.parametrize("writer", WRITERS)
def test_what_a_full_ring_refuses_is_counted(loaded, counting, writer):
    counter = counting(loaded.maps["events"])
    write(loaded, writer, records=RING_HOLDS)
    assert counter.lost() == 0
    write(loaded, writer, records=1)
    assert counter.lost() == 1
    write(loaded, writer, runs=100)
    assert counter.lost() == 1 + 100 * PER_RUN


def test_emitting_gives_what_the_kernel_said(loaded):
    emit = loaded.programs["emit_one"]
    assert emit.test_run(ctx=bytes(8)).retval == 0
    write(loaded, "emit", records=RING_HOLDS - 1)
    assert emit.test_run(ctx=bytes(8)).retval == -errno.EAGAIN & 0xFFFFFFFF


def test_each_ring_has_its_own_count(loaded, counting):
    short, long = counting(loaded.maps["events"]), counting(loaded.maps[LONG])
    write(loaded, "emit", runs=2)
    write(loaded, "emit_long", runs=5)
    assert short.lost() == 2 * PER_RUN - RING_HOLDS
    assert long.lost() == 5 * PER_RUN - RING_HOLDS


@pytest.mark.native
def test_a_counter_counts_what_is_lost_from_then_on(loaded, counting):
    write(loaded, "emit")
    first = counting(loaded.maps["events"])
    assert first.lost() == 0
    write(loaded, "emit")
    second = counting(loaded.maps["events"])
    write(loaded, "emit")
    assert (first.lost(), second.lost()) == (2 * PER_RUN, PER_RUN)
    assert loaded.maps["pybpf_drops"]["events"].sum() == 3 * PER_RUN - RING_HOLDS


@pytest.mark.native
def test_several_cpus_lose_at_once(loaded, counting):
    counter = counting(loaded.maps["events"])
    runs = 500
    without_error(
        at_once(*(on_cpu(cpu, write, loaded, writer, runs) for cpu in CPUS for writer in WRITERS))
    )
    tried = [loaded.maps["tried"][index] for index in range(len(WRITERS))]
    assert all(tried[index][cpu] == runs * PER_RUN for index in range(len(tried)) for cpu in CPUS)
    assert counter.lost() == len(CPUS) * len(WRITERS) * runs * PER_RUN - RING_HOLDS


@pytest.mark.native
def test_programs_make_the_count_where_no_reader_has(loaded):
    """The first loss comes on all CPUs at the same time, in the best of the rounds."""
    write(loaded, "emit", records=RING_HOLDS)
    counts, runs = loaded.maps["pybpf_drops"], 4
    for _ in range(50):
        assert not counts
        without_error(at_once(*(on_cpu(cpu, write, loaded, "emit", runs) for cpu in CPUS)))
        assert counts.pop("events").sum() == len(CPUS) * runs * PER_RUN


@pytest.mark.native
def test_a_counter_outlives_its_object(bpf_object):
    with pybpf.load(bpf_object("overload")) as obj:
        counter = drops.find(obj.maps["events"])
        write(obj, "emit")
    assert counter.lost() == PER_RUN - RING_HOLDS
    counter.close()
    counter.close()
    with pytest.raises(pybpf.ClosedError, match="pybpf_drops"):
        counter.lost()


@pytest.mark.native
def test_counters_take_no_descriptors_with_them(loaded):
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(100):
        drops.find(loaded.maps["events"]).close()
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.native
def test_a_map_without_room_for_a_count_is_an_error(loaded):
    loaded.maps["pybpf_drops"].update({f"ring_{number}": 0 for number in range(64)})
    with pytest.raises(pybpf.MapFullError, match="pybpf_drops"):
        drops.find(loaded.maps["events"])


# ---- where counts are found ----------------------------------------------------------------------


def test_programs_without_the_header_have_no_counts(bpf_object):
    with pybpf.load(bpf_object("everything")) as obj:
        assert drops.find(obj.maps["readings"]) is None


def test_counts_that_were_not_created_are_none(bpf_object):
    with pybpf.open(bpf_object("overload")) as obj:
        for program in obj.programs.values():
            program.autoload = False
        obj.maps["pybpf_drops"].autocreate = False
        obj.load()
        assert drops.find(obj.maps["events"]) is None


def test_before_load_there_is_nothing_to_count(bpf_object):
    with (
        pybpf.open(bpf_object("overload")) as obj,
        pytest.raises(pybpf.StateError, match="pybpf_drops"),
    ):
        drops.find(obj.maps["events"])


@pytest.fixture
def pinned(loaded, bpffs):
    """pinned(MAP, NAME): that map of the object pinned as NAME, until the end; the pin's path."""
    pins = []

    def pin(bpf_map, name):
        path = str(bpffs / name)
        bpf_map.pin(path)
        pins.append(path)
        return path

    yield pin
    for path in pins:
        os.unlink(path)


@pytest.mark.native
@pytest.mark.parametrize(("ring", "writer"), [("events", "emit"), (LONG, "emit_long")])
def test_pinned_rings_find_the_counts_pinned_beside_them(loaded, pinned, counting, ring, writer):
    pinned(loaded.maps["pybpf_drops"], "pybpf_drops")
    with pybpf.Map.open_pinned(pinned(loaded.maps[ring], ring)) as opened:
        counter = counting(opened)
        write(loaded, writer)
        assert counter.lost() == PER_RUN - RING_HOLDS


@pytest.mark.native
def test_a_pin_may_have_any_name_where_the_kernel_has_the_rings(loaded, pinned, counting):
    pinned(loaded.maps["pybpf_drops"], "pybpf_drops")
    with pybpf.Map.open_pinned(pinned(loaded.maps["events"], "other")) as opened:
        counter = counting(opened)
        write(loaded, "emit")
        assert counter.lost() == PER_RUN - RING_HOLDS
    with pybpf.Map.open_pinned(pinned(loaded.maps[LONG], "another")) as opened:
        assert drops.find(opened) is None


@pytest.mark.native
def test_a_pinned_ring_alone_has_no_counts(loaded, pinned):
    with pybpf.Map.open_pinned(pinned(loaded.maps["events"], "events")) as opened:
        assert drops.find(opened) is None


@pytest.mark.native
@pytest.mark.parametrize("other", ["map", "program"])
def test_something_else_of_that_name_has_no_counts(loaded, pinned, other):
    pinned(loaded.maps["tried"] if other == "map" else loaded.programs["emit"], "pybpf_drops")
    with pybpf.Map.open_pinned(pinned(loaded.maps["events"], "events")) as opened:
        assert drops.find(opened) is None


@pytest.mark.native
def test_a_descriptor_tells_no_counts(loaded):
    with pybpf.Map.from_fd(loaded.maps["events"].fileno()) as ring:
        assert drops.find(ring) is None


# ---- one object of several files -----------------------------------------------------------------


@pytest.fixture
def linked(compiled_with_libbpf, bpf_object, tmp_path):
    """An object made of two, each of which has the header, rings and programs."""
    whole = str(tmp_path / "whole.bpf.o")
    parts = [bpf_object("overload"), bpf_object("linked")]
    subprocess.run([compiled_with_libbpf("linker.c"), whole, *parts], check=True)
    return whole


@pytest.mark.native
def test_files_linked_to_one_object_share_one_map_of_counts(linked, counting):
    with pybpf.load(linked) as obj:
        assert [name for name in obj.maps if "drops" in name] == ["pybpf_drops"]
        first, second = counting(obj.maps["events"]), counting(obj.maps["linked_ring"])
        write(obj, "emit", runs=3)
        write(obj, "emit_linked", runs=300)
        assert first.lost() == 3 * PER_RUN - RING_HOLDS
        assert second.lost() == 300 - 4095 // (8 + 8)


# ---- overload ------------------------------------------------------------------------------------


class Tally:
    """What a reader received: how many, and that each producer's records came in their order."""

    def __init__(self):
        self.received = 0
        self.last = {}

    def add(self, batch):
        records = numpy.frombuffer(b"".join(batch), RECORD)
        self.received += len(records)
        for cpu in numpy.unique(records["cpu"]):
            for writer in numpy.unique(records["writer"]):
                who = (records["cpu"] == cpu) & (records["writer"] == writer)
                self.follow((cpu, writer), records["number"][who].astype("i8"))

    def follow(self, who, numbers):
        if len(numbers):
            assert numpy.all(numpy.diff(numbers, prepend=self.last.get(who, -1)) > 0)
            self.last[who] = numbers[-1]


def write_until(stop, obj):
    while not stop.is_set():
        for writer in WRITERS:
            write(obj, writer, runs=10)


@pytest.mark.native
def test_produced_is_received_and_lost(bpf_object, counting):
    """Every CPU produces without a pause, and timers produce in the middle of that."""
    with pybpf.open(bpf_object("overload")) as obj:
        obj.maps["events"].max_entries = 1 << 22
        obj.load()
        counter, tally, stop = counting(obj.maps["events"]), Tally(), threading.Event()
        with obj.events("events") as reader:
            link = obj.programs["emit_in_interrupt"].attach()
            producers = [Worker(on_cpu(cpu, write_until, stop, obj)) for cpu in CPUS]
            end = time.monotonic() + OVERLOAD_SECONDS
            while time.monotonic() < end:
                tally.add(reader.read_batch(timeout=1))
            stop.set()
            without_error([producer.outcome() for producer in producers])
            link.detach()
            tally.add(reader.drain())
            stats = reader.stats
        tried = {writer: obj.maps["tried"][writer] for writer in (0, 1, 2, 4)}
        assert all(counts[cpu] for counts in tried.values() for cpu in CPUS)
        produced = sum(counts.sum() for counts in tried.values()) - obj.maps["discarded"][0].sum()
        assert produced == stats.received + stats.lost
        assert (stats.received, stats.lost) == (tally.received, counter.lost())
        assert stats.counts_lost
        assert reader.stats.lost == stats.lost, "known after the end, too"
        assert min(stats.received, stats.lost) > RING_HOLDS
