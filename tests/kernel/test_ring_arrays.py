# SPDX-License-Identifier: BSD-2-Clause
"""Records as arrays: copies, and views of the ring's memory, of which nothing may stay behind."""

from __future__ import annotations

import copy
import ctypes
import gc
import pickle
import threading
from functools import partial
from pathlib import Path

import pybpf
import pytest
from ring_programs import EVENT_ROOM, PAYLOAD, RING, Rings, event, sequences
from test_concurrency import Interrupts, Worker, forks, interrupts, run_script
from test_ownership import in_child

pytestmark = [pytest.mark.native, pytest.mark.requires("bpf_loop")]

np = pytest.importorskip("numpy")
_ = interrupts  # a fixture


@pytest.fixture
def loaded(bpf_object):
    with pybpf.open(bpf_object("rings")) as obj:
        obj.bss["payload"] = PAYLOAD
        obj.load()
        yield obj


@pytest.fixture
def rings(loaded):
    return Rings(loaded)


@pytest.fixture
def reader(loaded):
    with loaded.events("events") as made:
        yield made


def numbers(array):
    assert (array["inverted"] == ~array["sequence"]).all()
    return array["sequence"].tolist()


def fail_in(view):
    """What a view shows, whose block ends by an exception; and a plain array of it."""
    with pytest.raises(ZeroDivisionError), view as array:  # noqa: PT012
        shown, plain = array.tobytes(), np.asarray(array)
        raise ZeroDivisionError
    return shown, plain


def left_in(obj):
    with obj.events("events") as other:
        return sequences(other.drain())


# ---- copies --------------------------------------------------------------------------------------


def test_read_numpy_gives_what_waits(reader, rings):
    assert len(reader.read_numpy(timeout=0)) == 0
    rings.emit(5)
    first = reader.read_numpy(max=2)
    assert first.dtype == reader.read_numpy(max=1).dtype == reader._sources[0].type.dtype()
    assert numbers(first) == [0, 1]
    rest = reader.read_numpy()
    assert numbers(rest) == [3, 4]
    rest["sequence"] = 7  # it is the caller's own
    with pytest.raises(ValueError, match="at least 1"):
        reader.read_numpy(max=0)
    stats = reader.stats
    assert (stats.received, stats.bytes, stats.batches) == (5, 80, 1 + 1 + 1)


def test_read_numpy_over_a_wrapping_ring(reader, rings):
    for round in range(200):
        accepted = rings.emit(100 + round % 60, round, discard_every=7)
        found = numbers(reader.read_numpy())
        assert len(found) == accepted
        assert found == [round + n for n in range(100 + round % 60) if n % 7]


def test_read_numpy_ends_before_a_record_of_another_size(reader, rings):
    rings.emit(2)
    assert rings.send(0, 23, "events")  # seven bytes more are alignment
    assert rings.send(0, 24, "events")
    rings.emit(1, 2)
    assert len(reader.read_numpy()) == 3
    for _ in range(2):
        with pytest.raises(pybpf.LayoutError, match="24 bytes, which its type of 16"):
            reader.read_numpy()
    assert bytes(reader.read_nowait()) == PAYLOAD[:24]
    assert rings.send(0, 15, "events")
    assert numbers(reader.read_numpy()) == [2]
    with pytest.raises(pybpf.LayoutError, match="15 bytes"):
        reader.read_numpy()
    with pytest.raises(pybpf.LayoutError, match="15 are given"):
        reader.read_nowait()
    assert len(reader.read_numpy(timeout=0)) == 0


@pytest.mark.parametrize(
    ("type", "size"),
    [("__u64", 8), ("__u32", 4), (np.dtype(">u2"), 2), (ctypes.c_int32, 4), (np.uint8, 1)],
)
def test_read_numpy_of_single_numbers(loaded, rings, type, size):
    with loaded.events("untyped", type=type) as reader:
        for number in range(5):
            assert rings.send(number, size)
        array = reader.read_numpy()
        assert array.dtype.itemsize == size
        assert array.tobytes() == b"".join(PAYLOAD[number:][:size] for number in range(5))


@pytest.mark.parametrize("type", ["__u32", np.dtype("<u4"), ctypes.c_uint32, "struct line"])
@pytest.mark.parametrize("listed", [False, True], ids=["alone", "as a list"])
def test_what_was_given_back_comes_first(loaded, rings, type, listed):
    """Values that other ways to read gave back come as what they are, and once."""
    with loaded.events(["untyped"] if listed else "untyped", type=type) as reader:
        for number in range(4):
            assert rings.send(number, 4)
        expected = [PAYLOAD[number:][:4] for number in range(4)]
        taken = []
        reader._take(taken, 2)
        reader._give_back(taken)
        if type == "struct line":
            assert [each.tobytes() for each in reader.read_numpy(max=1)] == expected[:1]
        else:
            assert reader.read_numpy(max=1).tobytes() == expected[0]
        assert fail_in(reader.view(max=1))[0] == expected[1]
        with reader.view(max=1) as array:
            assert array.tobytes() == expected[1]
        with reader.view() as array:
            assert array.tobytes() == b"".join(expected[2:])


def test_arrays_are_of_one_maps_records_with_a_dtype(loaded, rings):
    with loaded.events() as reader:
        for receive in (reader.read_numpy, reader.view):
            with pytest.raises(pybpf.LayoutError, match="one map"):
                receive()
    with loaded.events("untyped") as reader:
        assert rings.send(0, 8)
        with pytest.raises(pybpf.LayoutError, match="untyped records have no dtype"):
            reader.read_numpy()
        with pytest.raises(pybpf.LayoutError, match="no dtype"), reader.view():
            pass
        assert reader.read() == PAYLOAD[:8]


def test_ctrl_c_in_read_numpy_costs_no_record(loaded, rings, interrupts: Interrupts):
    interrupted = 0
    with loaded.events("events") as reader:
        for _ in range(600):
            rings.emit(8)
            got = []
            interrupted += interrupts.call(5e-5, lambda got=got: got.append(reader.read_numpy()))
            found = [number for array in got for number in numbers(array)]
            assert found + sequences(reader.read_batch(timeout=0)) == list(range(8))
    assert interrupted > 10


# ---- views ---------------------------------------------------------------------------------------


def test_a_view_shows_records_and_takes_them_at_its_end(reader, rings):
    rings.emit(5)
    with reader.view(max=3) as array:
        assert numbers(array) == [0, 1, 2]
        assert array[1].tolist() == (1, ~1 % 2**64)
        assert reader.stats.received == 0
        assert reader.stats.backlog == 5 * EVENT_ROOM
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True
        with pytest.raises(ValueError, match="read-only"):
            array["sequence"][0] = 1
    stats = reader.stats
    assert (stats.received, stats.bytes, stats.batches) == (3, 48, 1)
    with reader.view() as array:
        assert numbers(array) == [3, 4]
    with reader.view(timeout=0) as array:
        assert len(array) == 0


def test_views_over_a_wrapping_ring(reader, rings):
    sent = got = 0
    for round in range(300):
        sent += rings.emit(37 + round % 100, sent)
        while got < sent:
            with reader.view(max=1 + round % 50, timeout=0) as array:
                assert numbers(array) == list(range(got, got + len(array)))
                got += len(array)


def test_a_view_skips_discarded_records_and_ends_before_other_sizes(reader, rings):
    rings.emit(4, discard_every=3)  # 1 and 2 are left
    assert rings.send(0, 17, "events")
    with reader.view() as array:
        assert numbers(array) == [1, 2]
    with reader.view() as array:
        assert array.tobytes() == PAYLOAD[:16]
    assert rings.send(0, 8, "events")
    with pytest.raises(pybpf.LayoutError, match="8 bytes"), reader.view():
        pass
    with pytest.raises(pybpf.LayoutError, match="8 are given"):
        reader.read()


def test_an_exception_in_the_block_keeps_the_records(reader, rings):
    rings.emit(3)
    _, plain = fail_in(reader.view())  # that this stays hides no exception
    assert plain["sequence"].tolist() == [0, 1, 2]
    assert sequences(reader.read_batch()) == [0, 1, 2]


USES = {
    "index": lambda array: array[0],
    "field": lambda array: array["sequence"],
    "iterate": list,
    "length": len,
    "add": lambda array: array + 1,
    "sum": lambda array: array.sum(),
    "compare": lambda array: (array < 3).all(),
}
PARTS = {
    "it": lambda array: array,
    "a slice": lambda array: array[1:],
    "a field": lambda array: array["sequence"],
    "a field's slice": lambda array: array["sequence"][::-2],
    "a reshaped one": lambda array: array.reshape(1, -1),
    "a transposed one": lambda array: array.T,
    "another type": lambda array: array["sequence"].view("i8"),
    "broadcast": lambda array: np.broadcast_to(array, (2, 5), subok=True),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
def test_an_ended_view_is_of_no_use(reader, rings, part, closed):
    rings.emit(5)
    with reader.view() as array:
        kept = PARTS[part](array)
    if closed:
        reader.close()
    for use in USES.values():
        with pytest.raises((pybpf.ClosedError, TypeError)):
            use(kept)
    with pytest.raises(pybpf.ClosedError, match="copy them inside its block"):
        kept[0]


COPIES = {
    "copy": lambda array: array.copy(),
    "numpy.array": np.array,
    "mask": lambda array: array[array["sequence"] >= 0],
    "indices": lambda array: array[[0, 1, 2, 3, 4]],
    "computed": lambda array: np.array(array)[np.argsort(array["sequence"])],
    "pickled": lambda array: pickle.loads(pickle.dumps(array)),
    "deep": copy.deepcopy,
    "sorted": np.sort,
    "concatenated": lambda array: np.concatenate([array[:2], array[2:]]),
}


@pytest.mark.parametrize("make", COPIES)
def test_copies_outlive_the_view(reader, rings, make):
    rings.emit(5)
    with reader.view() as array:
        kept = COPIES[make](array)
        total = array["sequence"].sum()
        doubled = array["sequence"] * 2
        single = array[2]
    rings.emit(160, 1000)
    reader.close()
    assert numbers(kept) == [0, 1, 2, 3, 4]
    assert kept[1]["sequence"] == 1
    assert total == 10
    assert doubled.tolist() == [0, 2, 4, 6, 8]
    assert single["sequence"] == 2


ESCAPES = {
    "numpy.asarray": np.asarray,
    "view": lambda array: array.view(np.ndarray),
    "a field": lambda array: np.asarray(array["sequence"]),
    "a slice": lambda array: np.asarray(array[1:][::2]),
    "broadcast": lambda array: np.broadcast_to(array, (2, 5)),
}


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_plain_array_that_stays_keeps_the_records(loaded, reader, rings, escape):
    rings.emit(5)
    with pytest.raises(pybpf.BusyError, match="copy what"), reader.view() as array:
        kept = ESCAPES[escape](array)
    before = kept.copy()
    assert rings.emit(1000) == (RING - 1) // EVENT_ROOM - 5  # their room is still taken
    assert (kept == before).all()
    assert sequences(reader.drain())[:5] == [0, 1, 2, 3, 4]
    reader.close()
    loaded.close()
    gc.collect()
    kept.copy()  # what it shows is any record's, but there


def test_plain_arrays_that_are_gone_do_not_matter(reader, rings):
    rings.emit(5)
    with reader.view() as array:
        assert np.asarray(array)["sequence"].sum() == 10
        assert memoryview(array).nbytes == 80
    assert reader.stats.received == 5


@pytest.mark.parametrize(
    "hold",
    [memoryview, lambda array: array.flat, lambda array: array.flat[0], np.nditer],
    ids=["memoryview", "flat", "a scalar of flat", "nditer"],
)
def test_what_numpy_does_not_tell_of_crashes_nothing(loaded, reader, rings, hold):
    rings.emit(5)
    with reader.view() as array:
        held = hold(array)
    del array
    reader.close()
    loaded.close()
    gc.collect()
    held.tobytes() if isinstance(held, memoryview | np.void) else list(held)


# ---- views and closing, collecting, others -------------------------------------------------------


@pytest.mark.parametrize("by", ["itself", "another thread", "its object"])
def test_closing_in_the_block_takes_what_was_shown(bpf_object, by):
    obj = pybpf.load(bpf_object("rings"))
    rings, reader = Rings(obj), obj.events("events")
    rings.emit(5)
    kept = pybpf.Reader(obj.maps["events"], timeout=0)
    with reader.view(max=3) as array:
        if by == "itself":
            reader.close()
        elif by == "another thread":
            Worker(reader.close).outcome()
        else:
            obj.close()
        assert numbers(array) == [0, 1, 2]
    assert reader.stats.received == 3
    with pytest.raises(pybpf.ClosedError):
        array[0]
    with kept:
        assert sequences(kept) == [3, 4]
    obj.close()


def test_a_view_of_a_closed_reader(reader):
    view = reader.view()
    reader.close()
    with pytest.raises(pybpf.ClosedError), view:
        pass


def test_closing_ends_a_view_that_waits(reader):
    view = reader.view()
    worker = Worker(view.__enter__)
    reader.close()
    assert type(worker.outcome()[1]) is pybpf.ClosedError


def test_records_that_others_take_meanwhile_are_an_error(loaded, reader, rings):
    rings.emit(4)
    view = reader.view()
    assert len(view.__enter__()) == 4
    with loaded.events("events") as other:
        assert other.read().sequence == 0
    with pytest.raises(pybpf.StateError, match="read by others"):
        view.__exit__(None, None, None)
    assert sequences(reader.drain()) == [1, 2, 3]


def test_reading_within_a_view_takes_what_it_shows(reader, rings):
    rings.emit(4)
    view = reader.view()
    shown = view.__enter__()
    assert sequences(reader.read_batch(max=2)) == [0, 1]
    assert numbers(shown) == [0, 1, 2, 3]
    with pytest.raises(pybpf.StateError, match="read by others"):
        view.__exit__(None, None, None)
    assert sequences(reader.drain()) == [2, 3]


def test_views_within_views(reader, rings):
    """Both show the same records, and one of them takes them."""
    rings.emit(4)
    outer = reader.view()
    shown = outer.__enter__()
    with reader.view(max=2) as inner:
        assert numbers(inner) == [0, 1]
        assert numbers(shown) == [0, 1, 2, 3]
    assert len(shown) == 4
    with pytest.raises(pybpf.ClosedError):
        inner[0]
    with pytest.raises(pybpf.StateError, match="read by others"):
        outer.__exit__(None, None, None)
    assert sequences(reader.drain()) == [2, 3]


def test_a_view_that_is_entered_again(reader, rings):
    view = reader.view(max=2)
    rings.emit(4)
    for expected in ([0, 1], [2, 3]):
        with view as array:
            assert numbers(array) == expected


@forks
def test_a_forks_end_of_a_view_takes_nothing(reader, rings):
    rings.emit(4)
    with reader.view() as array:

        def child():
            raise SystemExit(numbers(array) != [0, 1, 2, 3])

        view = reader.view(timeout=0)
        assert in_child(lambda: view.__exit__(None, None, None)) == 0
        assert in_child(partial(numbers, array)) == 0
    assert reader.stats.received == 4


# Views that are collected as a part of garbage, by closing readers and ending views or not, with
# finalizers that use what they still reach.  It is about crashes, so it has a process of its own.
COLLECT = """
import gc, itertools, json, sys, warnings, pybpf
import numpy as np
sys.path.insert(0, sys.argv[2])
from ring_programs import Rings

warnings.simplefilter("ignore")
used = 0

class Holder:
    def __init__(self, *held):
        self.held, self.cycle = held, self

    def __del__(self):
        global used
        for each in self.held:
            try:
                used += len(memoryview(each).tobytes())
            except TypeError:  # neither an array nor a memoryview
                pass

def leave_garbage(order, closes, ends):
    reader = pybpf.Reader(obj.maps["events"], timeout=0)
    view = reader.view()
    array = view.__enter__()
    plain = np.asarray(array)
    if closes:
        reader.close()
    if ends:
        try:
            view.__exit__(None, None, None)
        except pybpf.BusyError:
            pass
    parts = [reader, view, array, plain]
    reader.holders = [Holder(array, plain, memoryview(plain), parts[i]) for i in order]

with pybpf.load(sys.argv[1]) as obj:
    rings = Rings(obj)
    for how in itertools.product(itertools.permutations(range(4)), (False, True), (False, True)):
        rings.emit(3)
        leave_garbage(*how)
        gc.collect()
        with obj.events("events") as other:
            other.drain()
print(json.dumps(used))
"""


def test_views_may_be_collected_in_any_order(bpf_object):
    assert run_script(COLLECT, bpf_object("rings"), Path(__file__).parent) > 0


def test_threads_view_and_read_at_once(loaded, rings, switch_often):
    """Each record once, although readers of one ring and views of them are at it together."""
    stop, got, lock = threading.Event(), [], threading.Lock()
    reader, other = loaded.events("events"), loaded.events("events")

    def view():
        while not stop.is_set():
            try:
                with reader.view(max=5, timeout=0.01) as array:
                    found = np.array(array)
            except pybpf.StateError:  # others took these
                continue
            with lock:
                got.extend(numbers(found))

    def read():
        while not stop.is_set():
            found = [record.sequence for record in other.read_batch(max=3, timeout=0.01)]
            with lock:
                got.extend(found)

    workers = [Worker(view), Worker(read), Worker(view)]
    accepted = [number for number in range(20_000) if rings.emit(1, number)]
    stop.set()
    for worker in workers:
        assert worker.outcome() == (None, None)
    assert sorted(got + left_in(loaded)) == accepted


def test_event_arrays_have_the_programs_bytes(reader, rings):
    rings.emit(2, 2**64 - 1)
    with reader.view() as array:
        assert array.tobytes() == event(2**64 - 1) + event(0)
