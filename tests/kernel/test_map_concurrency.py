# SPDX-License-Identifier: BSD-2-Clause
"""Threads, handlers and forks on one map: no key or value of somebody else's, nothing used after it
was closed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from functools import partial

import pybpf
import pytest
from pybpf import Map, MapType
from pybpf.access import Access
from test_concurrency import (
    HANG_SECONDS,
    Worker,
    assert_untouched,
    at_once,
    close_when_free,
    forks,
)
from test_ownership import in_child

pytestmark = [pytest.mark.native, pytest.mark.usefixtures("switch_often")]


@pytest.fixture
def churn(bpf_object):
    with pybpf.load(bpf_object("churn")) as obj:
        yield obj


def make_map(type=MapType.HASH, value_size=8, max_entries=64):
    return Map.create(type, key_size=4, value_size=value_size, max_entries=max_entries)


# ---- no key and no value is another thread's -----------------------------------------------------

WRITERS, ROUNDS, STILL = 4, 1500, 64


def check(shard, number, sequence):
    return (shard * 0x9E3779B97F4A7C15 ^ number << 32 ^ sequence) % 2**64


def record(shard, number, sequence):
    """What belongs under (shard, number), as a tuple."""
    return (shard, number), sequence, check(shard, number, sequence)


def assert_right(shard, number, sequence, value):
    found = (value.id.shard, value.id.number), value.sequence, value.check
    assert found == record(shard, number, sequence)


def use_records(records, shard):
    """Write and read entries of one's own in every way, and read those that nobody writes."""
    chance = random.Random(shard)
    now = {}
    for sequence in range(ROUNDS):
        number = chance.randrange(16)
        value = record(shard, number, sequence)
        write_record(records, shard, number, value, chance)
        now[number] = sequence
        read_record(records, shard, number, sequence, chance)
        still = chance.randrange(STILL)
        read_record(records, 0, still, still, chance)
    many = sorted(now)
    for number, value in zip(many, records.lookup_many([(shard, n) for n in many]), strict=True):
        assert_right(shard, number, now[number], value)


def write_record(records, shard, number, value, chance):
    way = chance.randrange(4)
    if way == 0:
        records[(shard, number)] = value
    elif way == 1:
        records.update_many([(shard, number)], [value])
    elif way == 2:
        records.pop((shard, number), None)
        assert (shard, number) not in records
        records[(shard, number)] = value
    else:
        records.put({"shard": shard, "number": number}, value)


def read_record(records, shard, number, sequence, chance):
    way = chance.randrange(4)
    if way == 0:
        value = records[(shard, number)]
    elif way == 1:
        value = records.get((shard, number))
    elif way == 2:
        value = records.lookup((shard, number))
    else:
        (value,) = records.lookup_many([(shard, number)])
    assert_right(shard, number, sequence, value)


def test_structs_of_threads_do_not_mix(churn):
    records = churn.maps["records"]
    for number in range(STILL):
        records[(0, number)] = record(0, number, number)
    shards = range(1, WRITERS + 1)
    outcomes = at_once(*(partial(use_records, records, shard) for shard in shards))
    assert [error for _, error in outcomes] == [None] * WRITERS


def use_numbers(bpf_map, first):
    for value in range(2 * ROUNDS):
        key = first + value % 8
        bpf_map[key] = key << 32 | value
        assert bpf_map[key] == key << 32 | value
        assert bpf_map.get(key) == key << 32 | value
        assert bpf_map.lookup_many([key, key]) == [key << 32 | value] * 2
        assert key in bpf_map


@pytest.mark.parametrize("type", [MapType.HASH, MapType.ARRAY, MapType.PERCPU_HASH])
def test_integers_of_threads_do_not_mix(type):
    def use_per_cpu(bpf_map, first):
        for value in range(ROUNDS // 2):
            bpf_map[first] = [first << 32 | value | cpu << 48 for cpu in range(cpus)]
            assert bpf_map[first] == [first << 32 | value | cpu << 48 for cpu in range(cpus)]

    with make_map(type) as bpf_map:
        cpus = len(bpf_map.setdefault(0, 0)) if type == MapType.PERCPU_HASH else 0
        use = use_per_cpu if cpus else use_numbers
        outcomes = at_once(*(partial(use, bpf_map, 8 * n) for n in range(WRITERS)))
        assert [error for _, error in outcomes] == [None] * WRITERS


def test_of_threads_that_set_a_default_all_get_one(churn):
    numbers = churn.maps["numbers"]
    for key in range(300):
        values = at_once(*(partial(numbers.setdefault, key, value) for value in range(3)))
        assert {error for _, error in values} == {None}
        assert {value for value, _ in values} == {numbers[key]}


# ---- the first use, by several at once -----------------------------------------------------------


def test_threads_that_use_a_map_first_share_its_access():
    for _ in range(200):
        with make_map() as bpf_map:
            begin = [partial(bpf_map.__setitem__, key, key) for key in range(3)]
            assert [error for _, error in at_once(*begin, partial(len, bpf_map))] == [None] * 4
            descriptors = len(os.listdir("/proc/self/fd"))
            assert bpf_map[1] == 1
        # that of the map, and one of its access
        assert len(os.listdir("/proc/self/fd")) == descriptors - 2


def test_threads_that_use_a_type_first_get_one_class(bpf_object):
    def use(obj, shard):
        records = obj.maps["records"]
        records[(shard, 7)] = record(shard, 7, shard)
        value = records[(shard, 7)]
        assert_right(shard, 7, shard, value)
        keys = [key for key in records if key.shard == shard]
        assert records.lookup_many(keys) == [value]
        return type(value), type(keys[0])

    for _ in range(20):
        with pybpf.load(bpf_object("churn")) as obj:
            outcomes = at_once(*(partial(use, obj, shard) for shard in range(4)))
            assert [error for _, error in outcomes] == [None] * 4
            assert len({classes for classes, _ in outcomes}) == 1


def test_a_map_that_is_closed_while_it_is_used_first_is_closed(monkeypatch):
    class ClosedMeanwhile(Access):
        def __init__(self, map, *rest):
            super().__init__(map, *rest)
            map.close()

    monkeypatch.setattr("pybpf.access.Access", ClosedMeanwhile)
    descriptors = len(os.listdir("/proc/self/fd"))
    bpf_map = make_map()
    for _ in range(2):
        with pytest.raises(pybpf.ClosedError):
            bpf_map[1] = 1
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_map_that_a_thread_closes_while_it_is_used_first_is_closed():
    for _ in range(300):
        descriptors, bpf_map = len(os.listdir("/proc/self/fd")), make_map()
        (_, error), (_, close_error) = at_once(partial(bpf_map.get, 1), bpf_map.close)
        assert close_error is None
        assert error is None or type(error) is pybpf.ClosedError
        with pytest.raises(pybpf.ClosedError):
            bpf_map[1]
        assert len(os.listdir("/proc/self/fd")) == descriptors


# ---- close() under use ---------------------------------------------------------------------------


def use_until_refused(use, begun):
    while True:
        use()
        begun.set()


def everything(bpf_map):
    """What a map is used for, one call each."""
    return {
        "getitem": lambda: bpf_map.get(7),
        "setitem": lambda: bpf_map.__setitem__(7, 7),
        "contains": lambda: 7 in bpf_map,
        "put": lambda: bpf_map.put(7, 7),
        "pop": lambda: bpf_map.pop(7, None),
        "items": lambda: list(bpf_map.items()),
        "key by key": lambda: list(bpf_map.items(batch_size=1)),
        "length": lambda: len(bpf_map),
        "lookup_many": lambda: bpf_map.lookup_many(range(50)),
        "update_many": lambda: bpf_map.update_many(dict.fromkeys(range(50), 7)),
        "delete_many": lambda: bpf_map.delete_many(range(50)),
        "pop_all": lambda: bpf_map.pop_all(),
        "clear": lambda: bpf_map.clear(),
        "info": lambda: bpf_map.info(),
    }


@pytest.mark.parametrize("use", sorted(everything(None)))
def test_a_map_closed_under_use_is_closed_and_nobody_elses_is_used(use):
    for _ in range(15):
        old, begun = make_map(), threading.Event()
        old.update(dict.fromkeys(range(50), 7))
        users = [Worker(partial(use_until_refused, everything(old)[use], begun)) for _ in range(2)]
        assert begun.wait(HANG_SECONDS)
        old.close()
        fresh = [make_map() for _ in range(4)]  # which get the numbers that were closed
        for bpf_map in fresh:
            bpf_map[63] = 63
        for user in users:
            assert type(user.outcome()[1]) is pybpf.ClosedError
        for bpf_map in fresh:
            assert bpf_map.pop(63) == 63, "a call on the closed map has reached another one"
        assert_untouched(fresh)


@pytest.mark.parametrize("use", ["getitem", "setitem", "key by key", "lookup_many"])
def test_an_object_closed_under_use_of_its_map_is_busy_or_closed(bpf_object, use):
    for _ in range(5):
        obj, begun = pybpf.load(bpf_object("churn")), threading.Event()
        user = Worker(partial(use_until_refused, everything(obj.maps["numbers"])[use], begun))
        assert begun.wait(HANG_SECONDS)
        close_when_free(obj)
        fresh = [make_map() for _ in range(8)]
        assert type(user.outcome()[1]) is pybpf.ClosedError
        assert_untouched(fresh)


# A handler closes the map at a random moment of what the main thread does with it.
CLOSE_IN_HANDLER = """
import faulthandler, json, os, random, signal, sys, pybpf
from pybpf import Map, MapType
faulthandler.dump_traceback_later(120, exit=True)
random.seed(7)
closed = 0

def close(*_):
    bpf_map.close()
    fresh.append(Map.create(MapType.HASH, key_size=4, value_size=8, max_entries=8))

signal.signal(signal.SIGALRM, close)
for round in range(300):
    fresh = []
    bpf_map = Map.create(MapType.HASH, key_size=4, value_size=8, max_entries=64)
    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 1e-3))
    try:
        while True:
            bpf_map[1] = 1
            bpf_map.update_many({2: 2, 3: 3})
            list(bpf_map.items(batch_size=1))
            len(bpf_map)
            bpf_map.lookup_many([1, 2, 3])
            bpf_map.pop(2, None)
            bpf_map.clear()
    except pybpf.ClosedError:
        closed += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    bpf_map.close()
    for other in fresh:
        assert list(other) == [], "a call on the closed map has reached another one"
        other.close()
del bpf_map, fresh
print(json.dumps({"closed": closed, "fds": len(os.listdir("/proc/self/fd"))}))
"""


def test_a_handler_may_close_the_map_that_is_in_use():
    script = [sys.executable, "-W", "error", "-c", CLOSE_IN_HANDLER]
    done = subprocess.run(script, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout) == {"closed": 300, "fds": 4}


# ---- forks ---------------------------------------------------------------------------------------


@forks
def test_a_child_uses_and_closes_a_map_that_a_thread_was_using():
    with make_map(max_entries=4096) as bpf_map:
        bpf_map.update({key: key for key in range(2000)})
        stop, begun = threading.Event(), threading.Event()

        def use():
            while not stop.is_set():
                bpf_map[3000] = 1
                assert len(bpf_map.lookup_many(range(2000))) == 2000
                begun.set()

        def child():
            assert bpf_map.lookup_many(range(2000)) == list(range(2000))
            bpf_map[4000] = os.getpid()
            bpf_map.close()
            with pytest.raises(pybpf.ClosedError):
                bpf_map[4000]

        user = Worker(use)
        assert begun.wait(HANG_SECONDS)
        for _ in range(20):
            assert in_child(child) == 0
            assert bpf_map.pop(4000) > 1
        stop.set()
        assert user.outcome() == (None, None)
