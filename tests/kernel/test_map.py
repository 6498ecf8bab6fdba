# SPDX-License-Identifier: BSD-2-Clause
"""Maps: elements as a mapping, flags, kinds, configuration, reuse, and maps of no object."""

from __future__ import annotations

import os

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
    assert counts.lookup(2) == (20).to_bytes(8, "little")
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
    assert guarded.lookup(0, UpdateFlags.LOCK) == value
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


def test_compares_by_identity_and_can_be_hashed(counts, made):
    assert counts == counts
    assert counts != made
    assert len({counts, made}) == 2


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
