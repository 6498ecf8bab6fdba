# SPDX-License-Identifier: BSD-2-Clause
"""Arguments of readers and writers that make no sense: told at once, whatever waits in the ring,
and nothing is left behind."""

from __future__ import annotations

import gc
import os
import re

import features
import pybpf
import pytest
from pybpf import Reader
from ring_programs import Rings, sequences

pytestmark = pytest.mark.native


@pytest.fixture
def loaded(bpf_object):
    with pybpf.load(bpf_object("rings")) as obj:
        Rings(obj).emit(1)
        yield obj


@pytest.fixture
def perf(bpf_object):
    with pybpf.load(bpf_object("perf")) as obj:
        yield obj


@pytest.fixture
def unchanged():
    """The test leaves what was made before it as it was."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == before


# ---- timeouts, counts, callbacks -----------------------------------------------------------------

READS = {
    "read": lambda reader, timeout: reader.read(timeout),
    "read_batch": lambda reader, timeout: reader.read_batch(timeout=timeout),
    "poll": lambda reader, timeout: reader.poll(print, timeout),
    "read_numpy": lambda reader, timeout: reader.read_numpy(timeout=timeout),
    "view": lambda reader, timeout: reader.view(timeout=timeout).__enter__(),
}
NO_TIMES = [("1", TypeError), ([1], TypeError), (float("nan"), ValueError)]


@pytest.mark.requires("user_ringbuf")
@pytest.mark.parametrize(("timeout", "error"), NO_TIMES)
def test_what_is_no_time(loaded, bpf_object, timeout, error):
    says = pytest.raises(error, match=f"seconds, or None, not {re.escape(repr(timeout))}")
    with loaded.events("events") as reader:
        for read in READS.values():
            with says:
                read(reader, timeout)
        assert sequences(reader.drain()) == [0]
    with says:
        loaded.events("events", timeout=timeout)
    with pybpf.load(bpf_object("userring")) as obj, obj.maps["untyped"].writer() as ring:
        for write in (ring.submit, lambda value, timeout: ring.reserve(1, timeout)):
            with says:
                write(b"", timeout)
    with says:
        pybpf.trace_pipe(timeout=timeout)
    with pybpf.trace_pipe() as pipe, says:
        pipe.read(timeout)


@pytest.mark.parametrize(("most", "error"), [("x", TypeError), (1.5, TypeError), (0, ValueError)])
def test_what_is_no_number_of_records(loaded, most, error):
    with loaded.events("events") as reader:
        for read in (reader.read_batch, reader.read_numpy, reader.view):
            with pytest.raises(error, match=f"max is .*not '?{most}"):
                read(max=most, timeout=0)
        assert sequences(reader.drain()) == [0]


def test_any_number_of_records_is_one(loaded):
    with loaded.events("events") as reader:
        assert sequences(reader.read_batch(max=1 << 70)) == [0]


@pytest.mark.parametrize("callback", [None, "print", []])
def test_what_cannot_be_called(loaded, callback):
    with loaded.events("events") as reader:
        with pytest.raises(TypeError, match="a callback is called with each record"):
            reader.poll(callback, 0)
        assert sequences(reader.drain()) == [0]


# ---- maps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("maps", ["events", [1], {"a": None}, None, 5])
def test_what_is_no_map(maps, unchanged):
    with pytest.raises(TypeError, match=r"a reader takes a Map|not iterable"):
        Reader(maps)


def test_a_map_that_is_given_twice(loaded, unchanged):
    events = loaded.maps["events"]
    with pybpf.Map.from_fd(events.fileno()) as again:
        for maps in ([events, events], [events, again], {"a": events, "b": again}):
            with pytest.raises(ValueError, match="map 'events' is given twice"):
                Reader(maps)
    with pytest.raises(ValueError, match="map 'events' is given twice"):
        loaded.events(["others", "events", "events"])


def test_maps_of_one_name(loaded, bpf_object):
    with pybpf.load(bpf_object("rings")) as other:
        maps = [loaded.maps["events"], other.maps["events"]]
        with pytest.raises(ValueError, match="two maps are named 'events': give a mapping"):
            Reader(maps)
        Rings(other).emit(1, 5)
        with Reader(dict(zip("ab", maps, strict=True))) as reader:
            assert {name: each.sequence for name, each in reader.drain()} == {"a": 0, "b": 5}


@pytest.mark.requires("user_ringbuf")
def test_maps_of_other_kinds(loaded, bpf_object, unchanged):
    section = loaded.maps["rings.bss"]
    with pytest.raises(pybpf.NotSupportedError, match=r"records of map 'rings.bss'[\s\S]*ARRAY"):
        section.reader()
    with pytest.raises(pybpf.NotSupportedError, match=r"'rings.bss'"):
        loaded.events(["events", "rings.bss"])
    with pytest.raises(pybpf.NotSupportedError, match=r"'events'[\s\S]*hint: .*Map.reader\(\)"):
        loaded.maps["events"].writer()
    with (
        pybpf.load(bpf_object("userring")) as obj,
        pytest.raises(pybpf.NotSupportedError, match=r"'untyped'[\s\S]*hint: .*Map.writer\(\)"),
    ):
        obj.maps["untyped"].reader()


# ---- options for perf event arrays ---------------------------------------------------------------

OPTIONS = [
    {"pages": 64},
    {"wakeup_events": 1},
    {"watermark": 100},
    {"overwrite": True},
    {"ordered": True},
]


@pytest.mark.parametrize("option", OPTIONS)
def test_options_that_ring_buffers_do_not_have(loaded, perf, unchanged, option):
    (name,) = option
    says = rf"read with {name}= map '{{}}'[\s\S]*hint: perf event arrays have"
    for names in ("events", ["events", "others"]):
        with pytest.raises(pybpf.NotSupportedError, match=says.format("events")):
            loaded.events(names, **option)
    if name != "ordered":  # which takes arrays alone
        perf.events(["samples", "ring"], **option).close()


@pytest.mark.parametrize("name", ["pages", "wakeup_events", "watermark"])
@pytest.mark.parametrize("value", ["1", 1.0])
def test_options_that_are_no_numbers(perf, unchanged, name, value):
    with pytest.raises(TypeError, match=f"{name} is a whole number, not {value!r}"):
        perf.events("samples", **{name: value})


# ---- a type for each map -------------------------------------------------------------------------


def test_a_type_for_each_map(loaded):
    rings = Rings(loaded)
    tables = {"untyped": {"STOPPED": "struct stopped"}, "lines": bytes}
    with loaded.events(["events", "untyped", "lines"], type=tables) as reader:
        rings.send_bytes(b"\2\0\0\0\7\0\0\0")
        rings.send_bytes(b"\2\0\0\0", "lines")
        found = dict(reader.drain())
    assert (found["events"].sequence, found["untyped"].status) == (0, 7)
    assert found["lines"] == b"\2\0\0\0"


def test_a_type_for_a_map_that_is_not_read(loaded, unchanged):
    types = {"events": bytes, "other": bytes}
    with pytest.raises(pybpf.NotFoundError, match=r"map of this reader named 'other'.*'others'"):
        loaded.events(["events", "others"], type=types)


# ---- writers -------------------------------------------------------------------------------------


@pytest.fixture
def untyped(bpf_object):
    features.require("user_ringbuf")
    with pybpf.load(bpf_object("userring")) as obj:
        yield obj.maps["untyped"]


@pytest.mark.parametrize("type", [int, 5, dict, [], lambda data: bytes])
def test_what_is_no_type_of_samples(untyped, unchanged, type):
    with pytest.raises(pybpf.LayoutError, match="is no type of samples"):
        untyped.writer(type)


def test_types_without_values_are_none_of_samples(untyped, bpf_object, unchanged):
    types = pybpf.Btf.from_file(bpf_object("userring"))
    with pytest.raises(pybpf.LayoutError, match="is a section"):
        untyped.writer(types.find(".maps"))


def test_a_map_has_one_writer_at_a_time(untyped, unchanged):
    with pybpf.Map.from_fd(untyped.fileno()) as again:
        ring = untyped.writer()
        for each in (untyped, again):
            with pytest.raises(pybpf.BusyError, match=r"'untyped' has a UserRing.*share that one"):
                each.writer()
        ring.submit(b"not disturbed")
        ring.close()
        with again.writer() as ring:
            ring.submit(b"the next one")


def test_a_writer_that_is_dropped_or_cannot_be_made_makes_way(untyped, unchanged, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    untyped.writer()
    with monkeypatch.context() as patched:
        patched.setattr(pybpf.user_ring, "Handle", fail)
        with pytest.raises(ZeroDivisionError):
            untyped.writer()
    untyped.writer().close()
