# SPDX-License-Identifier: BSD-2-Clause
"""Ring buffers: typed and raw records, several rings, timeouts, closing, wrap-around."""

from __future__ import annotations

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
        records = reader.read_batch(1)
    assert [(r.sequence, r.value, r.label) for r in records] == [(i, -i, b"ring") for i in range(3)]


def test_records_are_typed_by_name_and_bytes_without_one(loaded):
    with loaded.events("untyped") as reader:
        produce(loaded, 2)
        assert reader.read_batch(1) == [(i).to_bytes(8, "little") for i in range(2)]
    with loaded.events("untyped", type="__u64") as reader:
        produce(loaded, 2)
        assert reader.read_batch(1) == [0, 1]
    with pytest.raises(pybpf.NotFoundError, match="struct reading"):
        loaded.events("readings", type="struct readin")


def test_several_rings_give_pairs(loaded):
    with loaded.events(["readings", "untyped"]) as reader:
        produce(loaded, 2)
        pairs = [pair for _ in range(2) for pair in reader.read_batch(0.1)]
    assert [name for name, _ in pairs].count("readings") == 2
    assert [record for name, record in pairs if name == "untyped"] == [bytes(8), b"\1" + bytes(7)]


def test_without_a_name_all_rings_are_read(loaded):
    with loaded.events() as reader:
        produce(loaded, 1)
        assert {name for name, _ in reader.read_batch(1)} == {"readings", "untyped"}


def test_iterating_ends_after_the_timeout(loaded):
    with loaded.events("readings", timeout=0.05) as reader:
        produce(loaded, 5)
        assert [record.sequence for record in reader] == list(range(5))


def test_a_record_shorter_than_its_type_raises_and_those_after_it_stay(loaded):
    with loaded.events(["untyped", "readings"], type="struct reading") as reader:
        produce(loaded, 1)
        with pytest.raises(pybpf.LayoutError, match=r"'untyped'.*24 bytes, 8"):
            reader.read_batch(1)
        (pair,) = reader.read_batch(1)
        assert pair[0] == "readings"


def test_more_records_than_the_ring_holds_over_time(loaded):
    """The ring of 4096 bytes wraps around many times."""
    with loaded.events("readings") as reader:
        for _ in range(50):
            produce(loaded, 60)
            assert [r.sequence for r in reader.read_batch(1)] == list(range(60))


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
    with pytest.raises(pybpf.LayoutError, match="HASH"):
        loaded.events("counts")
    with pytest.raises(pybpf.NotFoundError, match="readings"):
        loaded.events("reading")
