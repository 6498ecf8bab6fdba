# SPDX-License-Identifier: BSD-2-Clause
"""Maps: elements as a mapping, flags, kinds, configuration, reuse, and maps of no object."""

from __future__ import annotations

import os
import sys
import threading
from array import array

import pybpf
import pytest
from pybpf import Map, MapFlags, MapType, UpdateFlags
from pybpf.codec import possible_cpus


@pytest.fixture
def loaded(bpf_object):
    with pybpf.load(bpf_object("everything")) as obj:
        yield obj


@pytest.fixture
def counts(loaded):
    return loaded.maps["counts"]


@pytest.fixture
def typed(bpf_object):
    with pybpf.load(bpf_object("typed")) as obj:
        yield obj


@pytest.fixture
def made():
    """A hash of no object: 4-byte keys, 8-byte values, room for 4."""
    with Map.create(MapType.HASH, key_size=4, value_size=8, max_entries=4, name="made") as m:
        yield m


def test_elements_by_int_and_by_bytes(counts):
    counts[1] = 10
    assert counts[1] == 10
    assert counts[b"\x01\0\0\0"] == 10
    counts[b"\x02\0\0\0"] = (20).to_bytes(8, "little")
    assert dict(counts) == {1: 10, 2: 20}
    assert counts.lookup_bytes(2) == (20).to_bytes(8, "little")
    assert counts.lookup(3) is None
    assert len(counts) == 2
    del counts[1]
    assert list(counts) == [2]
    assert 1 not in counts


def test_the_mapping_protocol(counts):
    counts.update({1: 10, 2: 20, 3: 30})
    assert counts.get(4) is None
    assert counts.pop(1) == 10
    assert counts.setdefault(4, 40) == 40
    assert sorted(counts.items()) == [(2, 20), (3, 30), (4, 40)]
    counts.clear()
    assert len(counts) == 0


def test_a_missing_key_is_a_keyerror(counts):
    for access in (lambda: counts[5], lambda: counts.__delitem__(5), lambda: counts.pop(5)):
        with pytest.raises(KeyError) as caught:
            access()
        assert caught.value.args == (5,)


def test_a_missing_tuple_is_one_key_of_the_keyerror(loaded):
    points = loaded.maps["points"]
    for access in (points.__getitem__, points.__delitem__, points.pop):
        with pytest.raises(KeyError) as caught:
            access((1, 2))
        assert caught.value.args == ((1, 2),)


def test_a_full_map_says_so(counts):
    counts.update(dict.fromkeys(range(8), 0))
    with pytest.raises(pybpf.MapFullError, match="max_entries=8"):
        counts[8] = 0


@pytest.mark.parametrize("key", [-1, 2**32])
def test_keys_out_of_range_are_refused(counts, key):
    with pytest.raises(OverflowError):
        counts[key] = 0


@pytest.mark.parametrize("key", [b"\0", b"\0" * 5, "one", None, 1.5])
def test_keys_of_the_wrong_kind_are_refused(counts, key):
    with pytest.raises(pybpf.LayoutError):
        counts[key] = 0


def test_update_flags(counts):
    counts.put(1, 10, UpdateFlags.NOEXIST)
    with pytest.raises(pybpf.KernelError, match="EEXIST"):
        counts.put(1, 11, UpdateFlags.NOEXIST)
    counts.put(1, 12, UpdateFlags.EXIST)
    with pytest.raises(KeyError):
        counts.put(2, 20, UpdateFlags.EXIST)
    assert dict(counts) == {1: 12}


def test_the_lock_flag_reads_and_writes_under_the_values_lock(loaded):
    guarded = loaded.maps["guarded"]
    value = (0).to_bytes(4, "little") + (5).to_bytes(4, "little")
    guarded.put(0, value, UpdateFlags.LOCK)
    assert guarded.lookup_bytes(0, UpdateFlags.LOCK) == value
    with pytest.raises(pybpf.KernelError, match="EINVAL"):
        loaded.maps["counts"].put(1, 1, UpdateFlags.LOCK)


def test_structs_are_typed_by_btf_and_their_padding_is_zero(loaded):
    points = loaded.maps["points"]
    points[{"x": 1, "y": 2}] = {"sequence": 3, "value": -4, "label": "five"}
    value = points[(1, 2)]
    assert (value.sequence, value.value, value.label) == (3, -4, b"five")
    (key,) = points
    assert (key.x, key.y) == (1, 2)
    assert bytes(key) == b"\x01\0\0\0\x02\0\0\0"
    assert points[b"\x01\0\0\0\x02\0\0\0"] == value


def test_signed_values_are_signed(loaded):
    levels = loaded.maps["levels"]
    levels[0] = -7
    assert levels[0] == -7
    with pytest.raises(OverflowError):
        levels[0] = 2**31


def test_an_array_has_all_its_elements(loaded):
    levels = loaded.maps["levels"]
    assert len(levels) == 4
    assert dict(levels) == dict.fromkeys(range(4), 0)
    with pytest.raises(pybpf.KernelError):
        del levels[0]
    with pytest.raises(KeyError):
        levels[4]


def test_a_per_cpu_map_holds_a_value_per_cpu(loaded):
    per_cpu = loaded.maps["per_cpu"]
    cpus = possible_cpus()
    assert per_cpu[0] == [0] * cpus
    per_cpu[0] = list(range(1, cpus + 1))
    assert per_cpu[0] == list(range(1, cpus + 1))
    loaded.programs["run_all"].test_run(ctx=bytes(4))
    assert sum(per_cpu[0]) == sum(range(1, cpus + 1)) + 1
    with pytest.raises(pybpf.LayoutError, match=f"{cpus} values"):
        per_cpu[0] = [1] * (cpus + 1)


def test_a_queue_has_no_keys(loaded):
    queue = loaded.maps["queue"]
    queue[None] = 5
    assert queue[None] == 5
    with pytest.raises(pybpf.LayoutError, match="no key"):
        queue[1] = 5
    with pytest.raises(pybpf.KernelError):
        list(queue)


def test_structs_are_keys_of_a_dict(loaded):
    points = loaded.maps["points"]
    for x in range(3):
        points[(x, 10 * x)] = {"sequence": x}
    found = dict(points.items())
    assert len(found) == 3
    key = next(key for key in points if key.x == 2)
    assert found[key].sequence == 2
    assert points[key] == found[key]


def test_numbers_have_their_types_byte_order(typed):
    routes = typed.maps["routes"]
    assert typed.programs["next_hop"].test_run(ctx=bytes(8)).retval == 0
    routes[0x7F000001] = 0x0A010203
    assert routes.lookup_bytes(b"\x7f\0\0\x01") == b"\x0a\x01\x02\x03"
    assert dict(routes.items()) == {0x7F000001: 0x0A010203}
    hop = typed.programs["next_hop"].test_run(ctx=bytes(8)).retval
    assert hop.to_bytes(4, "little") == b"\x0a\x01\x02\x03"
    with pytest.raises(OverflowError):
        routes[2**32] = 0


def test_bools_are_true_or_false(typed):
    switches = typed.maps["switches"]
    switches[True] = False
    switches[0] = 1
    ((key, value),) = ((key, value) for key, value in switches.items() if key)
    assert (key, value) == (True, False)
    assert {type(each) for pair in switches.items() for each in pair} == {bool}
    for wrong in (2, -1, 256):
        with pytest.raises(OverflowError):
            switches[True] = wrong
        with pytest.raises(OverflowError):
            switches[wrong] = True
    assert dict(switches.items()) == {True: False, False: True}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"eth0", "eth0"),
        (b"", ""),
        (b"every byte of it", "every byte of it"),
        ("zwölf".encode(), "zwölf"),
        (b"old\0garbage", "old"),
        (b"\0abstract", ""),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ("fifteen bytes ö".encode()[:-1], "fifteen bytes \ufffd"),
    ],
)
def test_text_comes_as_bytes_that_find_their_entry_again(typed, data, text):
    names = typed.maps["names"]
    names[data.ljust(16, b"\0")] = 7
    (key,) = names
    assert (key, key.text) == (data, text)
    assert dict(names) == dict(names.items()) == {data: 7}
    names[key] = 8
    assert names[data] == 8
    assert names.popitem() == (key, 8)
    names[key] = 9
    del names[next(iter(names))]
    assert len(names) == 0


def test_views_are_measured_in_bytes(counts, loaded):
    counts[memoryview(array("I", [5]))] = memoryview(array("I", [6, 7]))
    assert dict(counts) == {5: 6 | 7 << 32}
    assert counts[memoryview(array("H", [5, 0]))] == 6 | 7 << 32
    for wrong in (array("I", [5] * 4), array("B", [5]), array("H", [5])):
        with pytest.raises(pybpf.LayoutError, match=f"{wrong.itemsize * len(wrong)} are given"):
            counts[memoryview(wrong)]
    points = loaded.maps["points"]
    points[memoryview(array("I", [1, 2]))] = memoryview(array("Q", [3, 4, 0]))
    assert points[(1, 2)].sequence == 3
    with pytest.raises(pybpf.LayoutError):
        points[memoryview(array("Q", [1] * 8))] = bytes(24)


def test_untyped_views_are_measured_in_bytes(made):
    made[memoryview(array("I", [5]))] = memoryview(array("I", [6, 7]))
    assert dict(made) == {5: 6 | 7 << 32}
    with pytest.raises(pybpf.LayoutError):
        made[memoryview(array("I", [5] * 4))] = 0


def test_a_file_is_no_number(counts, made, tmp_path):
    with open(tmp_path / "file", "w") as file:
        for bpf_map in (counts, made):
            with pytest.raises(pybpf.LayoutError):
                bpf_map[1] = file
            with pytest.raises(pybpf.LayoutError):
                bpf_map[file] = 1
            with pytest.raises(pybpf.LayoutError):
                bpf_map[1] = bpf_map
            assert len(bpf_map) == 0


def test_compares_by_identity_and_can_be_hashed(counts, made):
    assert counts == counts
    assert counts != made
    assert len({counts, made}) == 2


# ---- while others change it ----------------------------------------------------------------------

STAYS = dict.fromkeys(range(32), 1)
COMES_AND_GOES = range(100, 200)


@pytest.fixture
def busy():
    """A hash in which the entries of STAYS stay, and others come and go all the time."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    stop, failures = threading.Event(), []
    with Map.create(MapType.HASH, key_size=4, value_size=8, max_entries=4096, name="busy") as busy:
        busy.update(STAYS)

        def churn():
            try:
                while not stop.is_set():
                    for key in COMES_AND_GOES:
                        busy[key] = key
                    for key in COMES_AND_GOES:
                        try:
                            del busy[key]
                        except KeyError:
                            pass
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=churn)
        thread.start()
        yield busy
        stop.set()
        thread.join()
    sys.setswitchinterval(interval)
    assert failures == []


def test_reading_a_map_that_changes_skips_what_vanishes(busy):
    for _ in range(100):
        found = dict(busy.items())
        assert STAYS.keys() <= found.keys() <= STAYS.keys() | set(COMES_AND_GOES)
        assert all(value == STAYS.get(key, key) for key, value in found.items())
        assert list(busy.values()).count(1) >= len(STAYS)
        assert STAYS.keys() <= set(busy)
        assert len(busy) >= len(STAYS)


@pytest.mark.native
def test_emptying_a_map_that_changes(busy):
    for _ in range(100):
        busy.clear()
        busy.update(STAYS)
        for _ in range(len(STAYS)):  # there are at least so many
            key, value = busy.popitem()
            assert value == STAYS.get(key, key)
    busy.clear()
    assert not STAYS.keys() & set(busy)


@pytest.fixture
def shared():
    """A hash of 3000 entries."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    with Map.create(MapType.HASH, key_size=4, value_size=4, max_entries=4096) as shared:
        shared.update((key, key) for key in range(3000))
        yield shared
    sys.setswitchinterval(interval)


def by_three_threads(function):
    """What each of them returns or raises."""
    results, barrier = [], threading.Barrier(3)

    def run():
        barrier.wait()
        try:
            results.append(function())
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_an_entry_is_popped_once(shared):
    def pop_all():
        found = []
        while True:
            try:
                found.append(shared.popitem())
            except KeyError:
                return found

    found = by_three_threads(pop_all)
    assert len(shared) == 0
    assert sorted(pair for each in found for pair in each) == [(key, key) for key in range(3000)]


def test_a_key_is_popped_by_one_and_the_others_get_their_default(shared):
    found = by_three_threads(lambda: [shared.pop(key, None) for key in range(3000)])
    assert not [each for each in found if isinstance(each, Exception)], "a default was given"
    popped = sorted(value for each in found for value in each if value is not None)
    assert popped == list(range(3000))


# ---- before load ---------------------------------------------------------------------------------


def test_configuration_reaches_the_kernel(bpf_object):
    with pybpf.open(bpf_object("everything")) as obj:
        counts = obj.maps["counts"]
        counts.type = MapType.LRU_HASH
        counts.max_entries = 99
        counts.flags = MapFlags.NO_COMMON_LRU
        obj.maps["queue"].value_size = 16
        obj.maps["levels"].numa_node = 0
        obj.maps["untyped"].max_entries = 4096 * 4
        obj.load()
        info = counts.info()
        assert info.type == MapType.LRU_HASH
        assert info.flags == MapFlags.NO_COMMON_LRU
        assert info.max_entries >= 99
        assert obj.maps["queue"].info().value_size == 16
        assert obj.maps["levels"].info().flags == MapFlags.NUMA_NODE
        assert obj.maps["untyped"].info().max_entries == 4096 * 4


@pytest.mark.requires("bloom_filter")
def test_bloom_filters_take_map_extra(bpf_object):
    with pybpf.open(bpf_object("everything")) as obj:
        queue = obj.maps["queue"]
        queue.type = MapType.BLOOM_FILTER
        queue.map_extra = 3
        obj.load()
        assert queue.info().map_extra == 3


def test_a_map_without_autocreate_is_not_created(bpf_object):
    with pybpf.open(bpf_object("everything")) as obj:
        obj.maps["points"].autocreate = False
        obj.load()
        with pytest.raises(pybpf.StateError, match="autocreate is off"):
            obj.maps["points"][b"\0" * 8]


def test_an_offloaded_map_needs_its_device(bpf_object):
    with pybpf.open(bpf_object("everything")) as obj:
        obj.maps["counts"].ifindex = 1  # the loopback device takes no maps
        with pytest.raises(pybpf.LoadError, match="counts") as caught:
            obj.load()
        assert caught.value.stage == "map"


def test_maps_need_load(bpf_object):
    with (
        pybpf.open(bpf_object("everything")) as obj,
        pytest.raises(pybpf.StateError, match=r"call load\(\) first"),
    ):
        obj.maps["counts"][1]


def test_an_inner_map_is_the_pattern_of_a_map_of_maps(bpf_object):
    with (
        Map.create(MapType.ARRAY, key_size=4, value_size=4, max_entries=1) as inner,
        pybpf.open(bpf_object("map_of_maps")) as obj,
    ):
        inner[0] = 123
        obj.maps["outer"].inner_map = inner
        obj.load()
        total = obj.programs["sum_first"]
        assert total.test_run(ctx=bytes(8)).retval == 2**32 - 1
        obj.maps["outer"][0] = inner
        assert total.test_run(ctx=bytes(8)).retval == 123
        assert obj.maps["outer"][0] == inner.id


def test_the_empty_slots_of_an_array_of_maps_are_left_out(bpf_object):
    with (
        Map.create(MapType.ARRAY, key_size=4, value_size=4, max_entries=1) as inner,
        pybpf.open(bpf_object("map_of_maps")) as obj,
    ):
        outer = obj.maps["outer"]
        outer.inner_map = inner
        obj.load()
        assert dict(outer.items()) == {}
        assert list(outer.values()) == []
        outer[1] = inner
        assert dict(outer.items()) == {1: inner.id}
        assert list(outer.values()) == [inner.id]
        assert list(outer) == [0, 1]


def test_a_map_of_maps_takes_what_has_a_descriptor(bpf_object):
    with (
        Map.create(MapType.ARRAY, key_size=4, value_size=4, max_entries=1) as inner,
        pybpf.open(bpf_object("map_of_maps")) as obj,
    ):
        outer = obj.maps["outer"]
        outer.inner_map = inner
        obj.load()
        with os.fdopen(os.dup(inner.fileno()), "rb", buffering=0) as file:
            outer[0] = file
        outer[1] = inner.fileno()
        assert dict(outer) == {0: inner.id, 1: inner.id}
        with pytest.raises(pybpf.LayoutError):
            outer[inner] = inner  # a key is none


def test_reuse_shares_another_map(bpf_object, loaded):
    loaded.maps["counts"][1] = 5
    with pybpf.open(bpf_object("everything")) as other:
        other.maps["counts"].reuse(loaded.maps["counts"])
        other.load()
        assert other.maps["counts"].id == loaded.maps["counts"].id
        assert other.maps["counts"][1] == 5


def test_reuse_of_a_pinned_map_by_its_path(bpf_object, bpffs, made):
    made.pin(bpffs / "made")
    with pybpf.open(bpf_object("everything")) as other:
        other.maps["counts"].reuse(bpffs / "made")
        other.load()
        assert other.maps["counts"].id == made.id
        assert other.maps["counts"].max_entries == 4
    made.unpin(bpffs / "made")


def test_reuse_of_another_kind_of_map_shows_both_sides(bpf_object, made):
    with pybpf.open(bpf_object("everything")) as obj:
        with pytest.raises(pybpf.PinError) as caught:
            obj.maps["per_cpu"].reuse(made)
        shown = str(caught.value)
        assert "PERCPU_ARRAY" in shown
        assert "HASH" in shown
        assert "value_size   4                8" in shown


# ---- maps of no object ---------------------------------------------------------------------------


def test_create_gives_a_usable_map(made):
    assert (made.name, made.type, made.key_size, made.value_size, made.max_entries) == (
        "made",
        MapType.HASH,
        4,
        8,
        4,
    )
    made[1] = 2
    assert dict(made) == {1: 2}


def test_create_refuses_nonsense(bpf_object):
    with pytest.raises(pybpf.KernelError, match="create map 'x' of type HASH: EINVAL"):
        Map.create(MapType.HASH, key_size=0, value_size=0, max_entries=0, name="x")


@pytest.mark.parametrize("name", ["a\0b", "\0", "sixteen_letters_", "x" * 100, "fünfzehn_bytes_"])
def test_a_name_that_the_kernel_cannot_keep_is_refused(name):
    with pytest.raises(ValueError, match="name"):
        Map.create(MapType.ARRAY, key_size=4, value_size=4, max_entries=1, name=name)


def test_a_name_of_fifteen_bytes_is_kept_whole():
    name = "fifteen_letters"
    with Map.create(MapType.ARRAY, key_size=4, value_size=4, max_entries=1, name=name) as made:
        assert made.name == made.info().name == name


def test_from_id_and_from_fd_open_the_same_map(made):
    made[1] = 2
    with Map.from_id(made.id) as by_id, Map.from_fd(made.fileno()) as by_fd:
        assert by_id[1] == by_fd[1] == 2
        assert by_id.fileno() != made.fileno() != by_fd.fileno()


def test_from_id_of_nothing_and_from_fd_of_something_else(tmp_path):
    with pytest.raises(pybpf.KernelError, match="ENOENT"):
        Map.from_id(2**31)
    with open(tmp_path / "file", "w") as file, pytest.raises(pybpf.LayoutError, match="is no map"):
        Map.from_fd(file.fileno())


def test_a_frozen_map_refuses_changes(made):
    made[1] = 2
    made.freeze()
    assert made[1] == 2
    with pytest.raises(pybpf.KernelError, match="frozen"):
        made[1] = 3


def test_a_closed_map_refuses_everything(made):
    made.close()
    made.close()
    with pytest.raises(pybpf.ClosedError):
        made[1]
    assert repr(made) == "<Map 'made'>"


def test_a_map_collected_while_open_warns_and_closes():
    before = set(os.listdir("/proc/self/fd"))
    with pytest.warns(ResourceWarning, match="unclosed map 'lost'"):
        Map.create(MapType.ARRAY, key_size=4, value_size=4, max_entries=1, name="lost")
    assert set(os.listdir("/proc/self/fd")) == before
