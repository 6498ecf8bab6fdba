# SPDX-License-Identifier: BSD-2-Clause
"""Ring buffers: typed and raw records, several rings, timeouts, closing, wrap-around."""

from __future__ import annotations

import os
import select
import threading

import pybpf
import pytest


@pytest.fixture
def loaded(bpf_object):
    with pybpf.open(bpf_object("everything")) as obj:
        obj.rodata["label"] = "ring"
        obj.load()
        yield obj


def produce(obj, count):
    obj.programs["run_all"].test_run(ctx=count.to_bytes(4, "little"))


def test_records_are_typed_by_the_maps_declaration(loaded):
    with loaded.events("readings") as reader:
        produce(loaded, 3)
        records = reader.read_batch(timeout=1)
    assert [(r.sequence, r.value, r.label) for r in records] == [(i, -i, b"ring") for i in range(3)]


def test_records_are_typed_by_name_and_bytes_without_one(loaded):
    with loaded.events("untyped") as reader:
        produce(loaded, 2)
        assert reader.read_batch(timeout=1) == [(i).to_bytes(8, "little") for i in range(2)]
    with loaded.events("untyped", type="__u64") as reader:
        produce(loaded, 2)
        assert reader.read_batch(timeout=1) == [0, 1]
    with pytest.raises(pybpf.NotFoundError, match="struct reading"):
        loaded.events("readings", type="struct readin")


def test_bytes_are_to_be_had_of_a_declared_type_too(loaded):
    with loaded.events("readings", type=bytes) as reader:
        produce(loaded, 1)
        assert reader.read(1) == bytes(12) + b"ring" + bytes(8)


def test_several_rings_give_pairs(loaded):
    with loaded.events(["readings", "untyped"]) as reader:
        produce(loaded, 2)
        pairs = [pair for _ in range(2) for pair in reader.read_batch(timeout=0.1)]
    assert [name for name, _ in pairs].count("readings") == 2
    assert [record for name, record in pairs if name == "untyped"] == [bytes(8), b"\1" + bytes(7)]


def test_without_a_name_all_rings_are_read(loaded):
    with loaded.events() as reader:
        produce(loaded, 1)
        assert {name for name, _ in reader.read_batch(timeout=1)} == {"readings", "untyped"}


def test_iterating_ends_after_the_timeout(loaded):
    with loaded.events("readings", timeout=0.05) as reader:
        produce(loaded, 5)
        assert [record.sequence for record in reader] == list(range(5))


def test_leaving_a_loop_loses_nothing(loaded):
    with loaded.events("readings", timeout=0) as reader:
        produce(loaded, 6)
        for record in reader:
            assert record.sequence == 0
            break
        with pytest.raises(ZeroDivisionError):
            sum(record.sequence // (1 - record.sequence) for record in reader)
        assert next(iter(reader)).sequence == 2
        produce(loaded, 1)
        assert [record.sequence for record in reader.read_batch(timeout=1)] == [3, 4, 5, 0]


@pytest.mark.parametrize("timeout", [1e9, 1e300, float("inf")])
def test_a_timeout_may_be_as_long_as_one_likes(loaded, timeout):
    with loaded.events("readings", timeout=timeout) as reader:
        waits = select.poll()
        waits.register(reader, select.POLLIN)
        later = threading.Thread(target=lambda: (waits.poll(20), produce(loaded, 2)))
        later.start()  # when the reader waits, as a rule
        assert next(iter(reader)).sequence == 0
        later.join()
        assert [record.sequence for record in reader.read_batch(timeout=timeout)] == [1]


@pytest.mark.parametrize("timeout", [0, -1, float("-inf")])
def test_a_timeout_that_is_over_gives_what_is_there(loaded, timeout):
    with loaded.events("readings") as reader:
        assert reader.read_batch(timeout=timeout) == []
        produce(loaded, 1)
        assert len(reader.read_batch(timeout=timeout)) == 1


def fill(obj, ring_bytes):
    for _ in range(ring_bytes // (64 * 32)):
        produce(obj, 64)


@pytest.mark.native
def test_a_ring_that_is_always_full_starves_no_other(bpf_object):
    size = 4 << 20  # four batches
    with pybpf.open(bpf_object("everything")) as obj:
        obj.maps["readings"].max_entries = size
        obj.load()
        for names in (["readings", "untyped"], ["untyped", "readings"]):
            with obj.events(names, type="__u64") as reader:
                fill(obj, size)
                seen = {name for name, _ in reader.read_batch(timeout=0)}
                fill(obj, size // 2)
                seen |= {name for name, _ in reader.read_batch(timeout=0)}
                assert seen == {"readings", "untyped"}


def test_readers_that_are_dropped_leave_no_descriptors(loaded):
    produce(loaded, 1)  # after its first run a program has a second descriptor
    loaded.events("readings").read_batch(timeout=1)
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(50):
        produce(loaded, 1)
        assert len(loaded.events("readings").read_batch(timeout=1)) == 1
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_ring_that_was_not_created_is_not_read(bpf_object):
    with pybpf.open(bpf_object("everything")) as obj:
        obj.maps["untyped"].autocreate = False
        obj.programs["run_all"].autoload = False  # which uses it
        obj.load()
        with obj.events() as reader:
            assert repr(reader) == "<Reader of readings>"
        with pytest.raises(pybpf.StateError, match="autocreate is off"):
            obj.events("untyped")


def test_a_record_shorter_than_its_type_raises_and_those_after_it_stay(loaded):
    with loaded.events(["untyped", "readings"], type="struct reading") as reader:
        produce(loaded, 1)
        with pytest.raises(pybpf.LayoutError, match=r"'untyped'.*24 bytes, 8"):
            reader.read_batch(timeout=1)
        (pair,) = reader.read_batch(timeout=1)
        assert pair[0] == "readings"


def test_more_records_than_the_ring_holds_over_time(loaded):
    """The ring of 4096 bytes wraps around many times."""
    with loaded.events("readings") as reader:
        for _ in range(50):
            produce(loaded, 60)
            assert [r.sequence for r in reader.read_batch(timeout=1)] == list(range(60))


def test_closing_ends_a_read_that_waits(loaded):
    reader = loaded.events("readings")
    ended = []

    def wait():
        try:
            reader.read_batch()
        except pybpf.ClosedError as error:
            ended.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not thread.is_alive():
        pass
    reader.close()
    thread.join(5)
    assert not thread.is_alive()
    assert len(ended) == 1


def test_the_descriptor_tells_when_records_wait(loaded):
    with loaded.events("readings") as reader:
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        assert poll.poll(0) == []
        produce(loaded, 1)
        assert poll.poll(1000) == [(reader.fileno(), select.POLLIN)]


def test_only_ring_buffers_are_read(loaded):
    with pytest.raises(pybpf.NotSupportedError, match=r"have reader.*HASH"):
        loaded.events("counts")
    with pytest.raises(pybpf.NotFoundError, match="readings"):
        loaded.events("reading")
    with pytest.raises(pybpf.LayoutError, match="at least one"):
        loaded.events([])
