# SPDX-License-Identifier: BSD-2-Clause
"""Many elements at once: all of them in batches and key by key, many chosen ones, numpy arrays, and
what is guaranteed while programs and threads change the map."""

from __future__ import annotations

import signal
import struct
import sys
import threading
import time
from ipaddress import ip_network

import numpy
import pybpf
import pytest
from pybpf import Map, MapFlags, MapType, UpdateFlags, bulk
from pybpf.codec import possible_cpus
from test_concurrency import HANG_SECONDS, Worker

ENTRIES = 1000
CPUS = possible_cpus()


def make_map(type=MapType.HASH, max_entries=ENTRIES, **options):
    options = {"key_size": 4, "value_size": 8, **options}
    return Map.create(type, max_entries=max_entries, **options)


def hash_of(entries, max_entries=ENTRIES):
    made = make_map(max_entries=max_entries)
    made.update(entries)
    return made


# ---- all entries ---------------------------------------------------------------------------------


def plain_value(key):
    return key * 2**33 + 1


def per_cpu_value(key):
    return [key + 1000 * cpu for cpu in range(CPUS)]


# type of map -> (how many entries, the value under a key)
KINDS = {
    MapType.HASH: (ENTRIES, plain_value),
    MapType.LRU_HASH: (ENTRIES // 8, plain_value),  # which forgets before it is full
    MapType.PERCPU_HASH: (ENTRIES, per_cpu_value),
    MapType.LRU_PERCPU_HASH: (ENTRIES // 8, per_cpu_value),
    MapType.ARRAY: (ENTRIES, plain_value),
    MapType.PERCPU_ARRAY: (ENTRIES, per_cpu_value),
}
BATCH_SIZES = [None, 1, 2, 3, 7, 999, 1000, 1001, 10**6]


@pytest.fixture(params=KINDS, ids=lambda type: type.name.lower())
def filled(request):
    """(a map of each kind, what is in it)."""
    count, value = KINDS[request.param]
    entries = {key: value(key) for key in range(count)}
    with make_map(request.param) as bpf_map:
        bpf_map.update(entries)
        yield bpf_map, entries


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_all_entries_come_once_by_batches_of_any_size(filled, batch_size):
    bpf_map, entries = filled
    pairs = list(bpf_map.items(batch_size=batch_size))
    assert len(pairs) == len(entries)
    assert dict(pairs) == entries
    values = list(bpf_map.values(batch_size=batch_size))
    assert sorted(values) == sorted(entries.values())


def test_keys_length_and_dict(filled):
    bpf_map, entries = filled
    assert sorted(bpf_map) == sorted(bpf_map.keys()) == list(entries)
    assert len(bpf_map) == len(bpf_map.items()) == len(entries)
    assert bpf_map.to_dict() == entries


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_prefixes_come_once(batch_size):
    entries = {ip_network((number << 8, 24)): number for number in range(300)}
    flags = MapFlags.NO_PREALLOC
    with make_map(MapType.LPM_TRIE, key_size=8, flags=flags) as routes:
        routes.update(entries)
        pairs = list(routes.items(batch_size=batch_size))
        assert len(pairs) == 300
        assert dict(pairs) == entries
        assert len(routes) == 300
        assert sorted(routes.pop_all()) == sorted(entries.items())
        assert len(routes) == 0


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_a_hash_of_maps_gives_the_ids_of_its_maps(batch_size):
    with (
        make_map(MapType.ARRAY, 1) as inner,
        make_map(MapType.ARRAY, 1) as other,
        make_map(MapType.HASH_OF_MAPS, 64, value_size=4, inner_map=inner) as outer,
    ):
        for key in range(20):
            outer[key] = other if key % 2 else inner
        expected = {key: other.id if key % 2 else inner.id for key in range(20)}
        assert dict(outer.items(batch_size=batch_size)) == expected
        assert outer.lookup_many([1, 99, 2]) == [other.id, None, inner.id]
        assert outer.delete_many([1, 99, 2]) == 2
        assert len(outer) == 18


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_has_at_least_one_entry(batch_size):
    with make_map() as bpf_map, pytest.raises(ValueError, match="at least 1"):
        list(bpf_map.items(batch_size=batch_size))


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_an_empty_map_has_no_entries(batch_size):
    with make_map() as bpf_map:
        assert list(bpf_map.items(batch_size=batch_size)) == []
        assert bpf_map.pop_all() == []
        assert len(bpf_map) == 0
        bpf_map.clear()
        with pytest.raises(KeyError, match="empty"):
            bpf_map.popitem()


def test_large_values_are_read_in_batches_too():
    size = 1 << 20  # more than a batch usually has room for
    with make_map(max_entries=8, value_size=size) as bpf_map:
        entries = {key: bytes([key]) * size for key in range(8)}
        bpf_map.update(entries)
        assert dict(bpf_map.items()) == entries
        assert dict(bpf_map.items(batch_size=1)) == entries
        assert dict(bpf_map.pop_all()) == entries


def test_what_is_read_stays_when_the_buffer_is_used_again():
    with make_map(value_size=24) as bpf_map:
        entries = {key: struct.pack("=IQQI", key, key, key, key) for key in range(ENTRIES)}
        bpf_map.update(entries)
        pairs = list(bpf_map.items(batch_size=64))
        assert dict(pairs) == entries


def test_a_bucket_that_holds_more_than_a_batch_is_read_whole():
    # of 4096 buckets about 80 hold more than three of 4096 keys: ENOSPC, and more room
    entries = {key: key for key in range(4096)}
    with hash_of(entries, 4096) as bpf_map:
        for batch_size in (1, 2, 3):
            pairs = list(bpf_map.items(batch_size=batch_size))
            assert len(pairs) == 4096
            assert dict(pairs) == entries


def test_a_closed_map_ends_the_reading():
    for batch_size in (1, 16):
        with hash_of({key: key for key in range(ENTRIES)}) as bpf_map:
            entries = bpf_map.items(batch_size=batch_size)
            reading = iter(entries)
            next(reading)
        with pytest.raises(pybpf.ClosedError):
            list(entries)


# ---- many chosen entries -------------------------------------------------------------------------


def test_lookup_many_keeps_the_order_and_fills_in_the_default():
    with hash_of({1: 10, 2: 20, 3: 30}) as bpf_map:
        assert bpf_map.lookup_many([3, 9, 1, 3]) == [30, None, 10, 30]
        assert bpf_map.lookup_many([3, 9], default=-1) == [30, -1]
        assert bpf_map.lookup_many([]) == []
        assert bpf_map.lookup_many([9]) == [None]
        assert bpf_map.lookup_many(key for key in (2, 1)) == [20, 10]
        assert bpf_map.lookup_many({2: "any", 1: "thing"}) == [20, 10]
        assert bpf_map.lookup_many(range(1, 4)) == [10, 20, 30]
        assert bpf_map.lookup_many(numpy.array([3, 1], "u4")) == [30, 10]
        assert bpf_map.lookup_many([b"\x02\0\0\0", 1]) == [20, 10]


def test_lookup_many_refuses_what_is_no_key():
    with hash_of({1: 10}) as bpf_map:
        for wrong, error in [
            ([1, "2"], pybpf.LayoutError),
            ([1, None], pybpf.LayoutError),
            ([1, 2**32], OverflowError),
            (numpy.array([1.5]), pybpf.LayoutError),
            ([1, b"\0"], pybpf.LayoutError),
        ]:
            with pytest.raises(error):
                bpf_map.lookup_many(wrong)


def test_lookup_many_of_every_kind(filled):
    bpf_map, entries = filled
    keys = sorted(entries, key=lambda key: key * 7919 % 1009)
    assert bpf_map.lookup_many(keys) == [entries[key] for key in keys]
    missing = 10**6
    assert bpf_map.lookup_many([missing, keys[0]], default="no") == ["no", entries[keys[0]]]


def test_structs_by_many(bpf_object):
    with pybpf.load(bpf_object("churn")) as obj:
        records = obj.maps["records"]
        records.update_many({(1, 2): ((1, 2), 3, 4), (5, 6): ((5, 6), 7, 8)})
        found = records.lookup_many([(5, 6), (9, 9), {"shard": 1, "number": 2}])
        assert [value and value.check for value in found] == [8, None, 4]
        (key,) = (key for key in records if key.shard == 5)
        assert records.lookup_many([key]) == [found[0]]
        assert records.delete_many([key, (9, 9)]) == 1
        ((key, value),) = records.pop_all()
        assert (key.number, value.sequence) == (2, 3)
        assert len(records) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ({1: 10, 2: 20},),
        ([1, 2], [10, 20]),
        (range(1, 3), range(10, 30, 10)),
        ((key for key in (1, 2)), (value for value in (10, 20))),
        (numpy.array([1, 2]), numpy.array([10, 20])),
        ({1: "any", 2: "thing"}, [10, 20]),
    ],
    ids=["mapping", "lists", "ranges", "generators", "arrays", "keys of a dict"],
)
def test_update_many_takes(arguments):
    with make_map() as bpf_map:
        bpf_map.update_many(*arguments)
        assert bpf_map.to_dict() == {1: 10, 2: 20}


def test_update_many_of_every_kind(filled):
    bpf_map, entries = filled
    changed = {key: entries[(key + 1) % len(entries)] for key in entries}
    bpf_map.update_many(changed)
    assert bpf_map.to_dict() == changed
    bpf_map.update_many(list(entries), list(entries.values()))
    assert bpf_map.to_dict() == entries


def test_update_many_stores_nothing_that_does_not_fit():
    with make_map() as bpf_map:
        with pytest.raises(ValueError, match="2 keys and 1 values"):
            bpf_map.update_many([1, 2], [10])
        with pytest.raises(OverflowError):
            bpf_map.update_many({1: 10, 2: 2**64})
        with pytest.raises(pybpf.LayoutError):
            bpf_map.update_many({1: 10, "2": 20})
        with pytest.raises(TypeError, match="a mapping, or keys and values"):
            bpf_map.update_many([1, 2])
        assert len(bpf_map) == 0
        bpf_map.update_many({})
        bpf_map.update_many([], [])
        assert len(bpf_map) == 0


FULL = 100_000  # more than one call takes to C


@pytest.mark.parametrize("flags", [0, UpdateFlags.NOEXIST], ids=["batch", "one by one"])
def test_a_full_map_tells_how_many_were_stored(flags):
    with make_map(max_entries=FULL) as bpf_map:
        entries = {key: key for key in range(FULL + 10)}
        with pytest.raises(pybpf.MapFullError, match="max_entries=100000") as caught:
            bpf_map.update_many(entries, flags=flags)
        stored = bpf_map.to_dict()
        assert f"{len(stored)} of the {FULL + 10} were stored" in str(caught.value)
        assert stored == {key: key for key in range(len(stored))}
        assert len(stored) >= FULL


def test_update_many_with_flags():
    with hash_of({2: 20}) as bpf_map:
        with pytest.raises(pybpf.KernelError, match="EEXIST"):
            bpf_map.update_many({1: 11, 2: 21, 3: 31}, flags=UpdateFlags.NOEXIST)
        assert bpf_map.to_dict() == {1: 11, 2: 20}  # up to the one that is there
        bpf_map.update_many({1: 12, 2: 22}, flags=UpdateFlags.EXIST)
        assert bpf_map.to_dict() == {1: 12, 2: 22}
        with pytest.raises(pybpf.KernelError, match="EINVAL"):
            bpf_map.update_many({1: 13}, flags=UpdateFlags.LOCK)  # there is no lock


def test_the_lock_flag_for_many(bpf_object):
    with pybpf.load(bpf_object("everything")) as obj:
        guarded = obj.maps["guarded"]
        guarded.update_many({0: bytes(4) + b"\5\0\0\0"}, flags=UpdateFlags.LOCK)
        (value,) = guarded.lookup_many([0], flags=UpdateFlags.LOCK)
        assert value.value == 5


def test_delete_many_counts_those_that_were_there():
    entries = {key: key for key in range(ENTRIES)}
    with hash_of(entries) as bpf_map:
        assert bpf_map.delete_many([]) == 0
        assert bpf_map.delete_many([10**6]) == 0
        assert bpf_map.delete_many([10**6, 1, 10**6, 10**6 + 1, 2, 2, 3, 10**6]) == 3
        assert bpf_map.delete_many(range(0, 2 * ENTRIES, 2)) == ENTRIES // 2 - 1
        assert bpf_map.to_dict() == {key: key for key in range(5, ENTRIES, 2)}
        assert bpf_map.delete_many(key for key in range(ENTRIES)) == ENTRIES // 2 - 2
        assert len(bpf_map) == 0


def test_what_an_array_cannot():
    with make_map(MapType.ARRAY) as array:
        for refused in (array.clear, array.pop_all, array.popitem, lambda: array.delete_many([1])):
            with pytest.raises(pybpf.NotSupportedError):
                refused()


def test_pop_all_and_clear_of_every_hash(filled):
    bpf_map, entries = filled
    if bpf_map.type in (MapType.ARRAY, MapType.PERCPU_ARRAY):
        return
    popped = bpf_map.pop_all()
    assert len(popped) == len(entries)
    assert dict(popped) == entries
    assert list(bpf_map) == []
    bpf_map.update(entries)
    bpf_map.clear()
    assert list(bpf_map) == []
    bpf_map.update(entries)
    key, value = bpf_map.popitem()
    assert entries[key] == value
    assert key not in bpf_map
    assert len(bpf_map) == len(entries) - 1


def test_one_map_into_another():
    with hash_of({1: 10, 2: 20}) as source, make_map() as target:
        target.update(source)
        assert target.to_dict() == {1: 10, 2: 20}
        target.clear()
        target.update_many(source)
        assert target.to_dict() == {1: 10, 2: 20}
        target.update([(3, 30), (1, 11)])
        assert target.to_dict() == {1: 11, 2: 20, 3: 30}


@pytest.mark.native
@pytest.mark.parametrize("name", ["lookup_many", "update_many", "delete_many"])
def test_a_call_on_very_many_entries_lets_signals_through(name):
    keys = list(range(3_000_000))
    with make_map(max_entries=len(keys), flags=MapFlags.NO_PREALLOC) as bpf_map:
        raw = struct.pack(f"={len(keys)}I", *keys)
        calls = {
            "lookup_many": lambda: bulk.lookup_raw(access, raw, len(keys), 0),
            "update_many": lambda: bulk.update_raw(access, raw, raw + raw, len(keys), 0),
            "delete_many": lambda: bulk._delete_raw(access, raw, len(keys)),
        }
        access = bpf_map._elements()
        began = []

        def interrupt(*_):
            raise InterruptedError(time.monotonic() - began[0])

        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            began.append(time.monotonic())
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            with pytest.raises(InterruptedError) as caught:
                calls[name]()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert caught.value.args[0] < 0.5


# ---- while programs and threads change the map ---------------------------------------------------

STAYS = dict.fromkeys(range(1000), 1)
COME_AND_GO = range(100_000, 102_048)


@pytest.fixture
def churned(bpf_object):
    """A hash in which STAYS stay, while BPF programs add and remove other entries all the time."""
    with pybpf.load(bpf_object("churn")) as obj:
        numbers, stop = obj.maps["numbers"], threading.Event()
        numbers.update(STAYS)
        parts = [struct.pack("=II", first, 512) for first in COME_AND_GO[::512]]

        def churn():
            while not stop.is_set():
                for part in parts:
                    obj.programs["add"].test_run(ctx=part)
                for part in parts:
                    obj.programs["remove"].test_run(ctx=part)

        worker = Worker(churn)
        yield numbers
        stop.set()
        assert worker.outcome() == (None, None)


def read_while_it_changes(bpf_map, batch_size, expect_all):
    """How many other entries were seen in many readings, each of which is as it should be."""
    others, until = 0, time.monotonic() + 2
    while time.monotonic() < until:
        pairs = list(bpf_map.items(batch_size=batch_size))
        found = dict(pairs)
        assert len(found) == len(pairs), "a key came twice"
        assert all(value == STAYS.get(key, key) for key, value in pairs)
        assert found.keys() - STAYS.keys() <= set(COME_AND_GO)
        if expect_all:
            assert found.keys() >= STAYS.keys(), "an entry that is there throughout was left out"
        others += len(found.keys() - STAYS.keys())
    return others


@pytest.mark.native
@pytest.mark.parametrize("batch_size", [None, 16, 200])
def test_batches_hold_what_is_there_throughout_exactly_once(churned, batch_size):
    assert read_while_it_changes(churned, batch_size, expect_all=True) > 0


@pytest.mark.native
def test_key_by_key_comes_once_what_is_never_replaced(churned):
    assert read_while_it_changes(churned, 1, expect_all=True) > 0


@pytest.mark.native
def test_batches_hold_what_is_replaced_all_the_time():
    """Replacing moves an entry within its bucket: key by key may miss it, batches do not."""
    entries = dict.fromkeys(range(2000), 1)
    stop = threading.Event()
    with hash_of(entries, 4096) as bpf_map:

        def replace():
            while not stop.is_set():
                bpf_map.update_many(entries)

        worker = Worker(replace)
        for _ in range(100):
            pairs = list(bpf_map.items())
            assert len(pairs) == len(entries)
            assert dict(pairs) == entries
        for _ in range(100):
            pairs = list(bpf_map.items(batch_size=1))
            assert len(dict(pairs)) == len(pairs), "a key came twice"
            assert dict(pairs).items() <= entries.items()
        stop.set()
        assert worker.outcome() == (None, None)


def walked(bpf_map, change):
    """The keys of a walk, of which ``change`` is told each lot that was read in one go."""
    seen = set()
    for chunk, _, count in bulk._walk(bpf_map._elements(), 256, values=False):
        keys = struct.unpack_from(f"={count}I", chunk)
        assert not seen & set(keys), "a key came twice"
        seen |= set(keys)
        change(keys)
    return seen


def test_a_walk_that_saw_the_map_change_goes_over_it_again():
    """The kernel may skip, within its own step, what it should have come to."""
    added = range(20_000, 21_000)
    with hash_of(dict.fromkeys(range(10_000), 1), 20_000) as bpf_map:

        def change(keys):
            if added[0] not in bpf_map:
                bpf_map.update_many(added, added)  # of which some come before the walk's place
                bpf_map.delete_many(keys[-1:])

        assert walked(bpf_map, change) == {*range(10_000), *added}


@pytest.mark.native
def test_a_walk_that_must_start_over_too_often_is_aborted():
    """The consumer takes out what it has just got, and puts back what it got before: each time the
    walk loses its place, it has none to go back to and meets again all that it has given."""
    entries, taken = {key: key for key in range(10_000)}, []
    with hash_of(entries, len(entries)) as bpf_map:

        def take_out_and_put_back(keys):
            bpf_map.delete_many(keys)
            bpf_map.update_many(taken, taken)
            taken[:] = keys

        with pytest.raises(pybpf.IterationAborted, match="a list of its keys"):
            walked(bpf_map, take_out_and_put_back)


@pytest.mark.native
@pytest.mark.parametrize("share", [1, 2, 3, 256])
def test_deleting_what_was_read_key_by_key(share):
    """Also where the last of what was read is among it, from which the kernel would go on."""
    entries = {key: key for key in range(20_000)}
    with hash_of(entries, len(entries)) as bpf_map:
        deleted = set()

        def delete_some(keys):
            some = keys[::-1][::share]
            assert bpf_map.delete_many(some) == len(some)
            deleted.update(some)

        assert walked(bpf_map, delete_some) == entries.keys()
        assert set(bpf_map) == entries.keys() - deleted


@pytest.mark.native
@pytest.mark.parametrize("share", [1, 2, 256])
def test_deleting_prefixes_while_reading_them(share):
    """Whose look-up finds a shorter prefix where one is gone."""
    entries = {ip_network((number << 12, 20)): number for number in range(20_000)}
    entries[ip_network("0.0.0.0/0")] = 1
    flags = MapFlags.NO_PREALLOC
    with make_map(MapType.LPM_TRIE, len(entries), key_size=8, flags=flags) as routes:
        routes.update(entries)
        seen, deleted = {}, 0
        for key, value in routes.items():
            assert key not in seen, "a key came twice"
            seen[key] = value
            if len(seen) % share == 0:
                del routes[key]
                deleted += 1
        assert seen == entries
        assert len(routes) == len(entries) - deleted


@pytest.mark.native
def test_a_walk_lets_signals_through():
    """However much there is room for, a call returns after some milliseconds."""
    count = 200_000
    with hash_of({key: key for key in range(count)}, count) as bpf_map:
        walk = bulk._walk(bpf_map._elements(), count, values=False)
        counts = [count for _, _, count in walk]
    assert sum(counts) == count
    assert max(counts) < 20_000


@pytest.mark.native
def test_nothing_that_is_stored_while_all_is_popped_is_lost(bpf_object):
    """Programs and threads add keys of their own, each once; every one is popped once."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    with pybpf.load(bpf_object("churn")) as obj:
        numbers, ended = obj.maps["numbers"], []

        def add_by_program(first):
            at, last = first, first + 60_000
            while at < last:
                part = struct.pack("=II", at, min(512, last - at))
                at += obj.programs["add"].test_run(ctx=part).retval
            ended.append(first)

        def add_by_python(first):
            at = first
            while at < first + 20_000:
                try:
                    numbers[at] = at
                    at += 1
                except pybpf.MapFullError:
                    time.sleep(0)
            ended.append(first)

        workers = [Worker(lambda: add_by_program(0)), Worker(lambda: add_by_program(10**6))]
        workers.append(Worker(lambda: add_by_python(2 * 10**6)))
        popped = []
        deadline = time.monotonic() + HANG_SECONDS
        while len(ended) < len(workers):
            assert time.monotonic() < deadline
            popped += numbers.pop_all()
        popped += numbers.pop_all()
        for worker in workers:
            assert worker.outcome() == (None, None)
        assert len(numbers) == 0
    sys.setswitchinterval(interval)
    expected = {
        *range(60_000),
        *range(10**6, 10**6 + 60_000),
        *range(2 * 10**6, 2 * 10**6 + 20_000),
    }
    assert len(popped) == len(expected)
    assert {key for key, _ in popped} == expected
    assert all(key == value for key, value in popped)


# ---- numpy ---------------------------------------------------------------------------------------


def test_numpy_of_every_kind(filled):
    bpf_map, entries = filled
    keys, values = bpf_map.to_numpy()
    per_cpu = bpf_map.type in (
        MapType.PERCPU_HASH,
        MapType.LRU_PERCPU_HASH,
        MapType.PERCPU_ARRAY,
    )
    assert (keys.dtype, values.dtype) == ("u4", "u8")
    assert keys.shape == (len(entries),)
    assert values.shape == ((len(entries), CPUS) if per_cpu else (len(entries),))
    assert dict(zip(keys.tolist(), values.tolist(), strict=True)) == entries
    bpf_map.update_numpy(keys[::-1], values)
    backwards = dict(zip(keys[::-1].tolist(), values.tolist(), strict=True))
    assert bpf_map.to_dict() == backwards


@pytest.mark.parametrize("type", [MapType.HASH, MapType.PERCPU_HASH, MapType.LPM_TRIE])
def test_numpy_of_an_empty_map(type):
    flags = MapFlags.NO_PREALLOC
    with make_map(type, key_size=8, flags=flags) as bpf_map:
        keys, values = bpf_map.to_numpy()
        assert len(keys) == len(values) == 0
        assert values.dtype == "u8"
        assert values.shape[1:] == ((CPUS,) if type == MapType.PERCPU_HASH else ())
        bpf_map.update_numpy(keys, values)
        assert len(bpf_map) == 0


def test_numpy_values_of_a_cpu_that_are_rounded_up():
    with make_map(MapType.PERCPU_HASH, value_size=4) as bpf_map:
        values = numpy.arange(2 * CPUS, dtype="u4").reshape(2, CPUS)
        bpf_map.update_numpy(numpy.array([1, 2], "u4"), values)
        assert bpf_map[2] == list(range(CPUS, 2 * CPUS))
        keys, read = bpf_map.to_numpy()
        assert read.dtype == "u4"
        assert read[keys == 2].tolist() == [bpf_map[2]]


def test_numpy_keys_of_other_sizes_are_raw():
    with make_map(key_size=6) as bpf_map:
        bpf_map[b"abcdef"] = 7
        keys, values = bpf_map.to_numpy()
        assert keys.dtype == "V6"
        assert (keys[0].tobytes(), values.tolist()) == (b"abcdef", [7])
        bpf_map.update_numpy(keys, values + 1)
        assert bpf_map[b"abcdef"] == 8


def test_what_numpy_gives_is_the_callers_own():
    with hash_of({1: 10}) as bpf_map:
        keys, values = bpf_map.to_numpy()
        values[:] = keys[:] = 99
        assert bpf_map.to_dict() == {1: 10}


@pytest.mark.parametrize(
    ("keys", "values", "stored"),
    [
        (numpy.array([1, 2], "u1"), numpy.array([10, 20], "i8"), {1: 10, 2: 20}),
        (numpy.array([1, 2], ">u4"), numpy.array([10, 20], ">u8"), {1: 10, 2: 20}),
        ([1, 2], [10, 2**63 - 1], {1: 10, 2: 2**63 - 1}),
        (numpy.arange(10)[2:6:2], numpy.arange(100, 110)[::-5], {2: 109, 4: 104}),
        (numpy.array([True]), numpy.array([False]), {1: 0}),
    ],
    ids=["other sizes", "other byte order", "lists", "strided", "bools"],
)
def test_numpy_converts_what_fits(keys, values, stored):
    with make_map() as bpf_map:
        bpf_map.update_numpy(keys, values)
        assert bpf_map.to_dict() == stored


ONE = numpy.array([1], "u4")


@pytest.mark.parametrize(
    ("keys", "values", "error"),
    [
        (numpy.array([1, 2**32]), [1, 2], OverflowError),
        (numpy.array([-1]), [1], OverflowError),
        (ONE, numpy.array([-1]), OverflowError),
        (ONE, numpy.array([1.0]), pybpf.LayoutError),
        (ONE, numpy.array([1], "M8[s]"), pybpf.LayoutError),
        (ONE, numpy.array([None]), pybpf.LayoutError),
        (ONE, numpy.array(["1"]), pybpf.LayoutError),
        (ONE, numpy.array([[1, 2]], "u8"), pybpf.LayoutError),
        (numpy.array([[1, 2]], "u4"), numpy.array([1], "u8"), pybpf.LayoutError),
        (1, 1, pybpf.LayoutError),
        (ONE, numpy.array([(1, 2)], "u4,u4"), pybpf.LayoutError),
        (numpy.array([1, 2], "u4"), numpy.array([1], "u8"), ValueError),
    ],
)
def test_numpy_stores_nothing_that_does_not_fit(keys, values, error):
    with make_map() as bpf_map:
        with pytest.raises(error):
            bpf_map.update_numpy(keys, values)
        assert len(bpf_map) == 0


@pytest.mark.parametrize("shape", [(1,), (1, CPUS + 1), (1, CPUS, 1), (2, CPUS)])
def test_numpy_values_have_a_column_for_each_cpu(shape):
    with make_map(MapType.PERCPU_HASH) as bpf_map:
        with pytest.raises((pybpf.LayoutError, ValueError)):
            bpf_map.update_numpy(ONE, numpy.zeros(shape, "u8"))
        assert len(bpf_map) == 0


def test_numpy_tells_how_many_were_stored_and_takes_flags():
    with make_map(max_entries=4) as bpf_map:
        keys = numpy.arange(6, dtype="u4")
        with pytest.raises(pybpf.MapFullError, match="4 of the 6 were stored"):
            bpf_map.update_numpy(keys, keys)
        assert bpf_map.to_dict() == {key: key for key in range(4)}
        with pytest.raises(pybpf.KernelError, match="EEXIST"):
            bpf_map.update_numpy(ONE, ONE, flags=UpdateFlags.NOEXIST)
