# SPDX-License-Identifier: BSD-2-Clause
"""Every kind of map behaves as its kind; a program on the other side reads and writes it, too.

Maps of devices and sockets are in test_map_net.py, those of cgroups, processes and files in
test_map_things.py, memory that is mapped in test_map_memory.py.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import subprocess
import sys
import threading
import time
from ipaddress import IPv4Address, IPv6Address, ip_network

import features
import pybpf
import pytest
from kernel_objects import perf_event_open
from pybpf import Map, MapFlags, MapType, UpdateFlags
from pybpf.codec import PerCpu, possible_cpus

TEST_RUN_ON_CPU = 1  # BPF_F_TEST_RUN_ON_CPU


class Kinds:
    """The object kinds.bpf.c: its maps as attributes, and calls of its programs."""

    def __init__(self, obj):
        self.object = obj

    def __getattr__(self, name):
        return self.object.maps[name]

    def call(self, program, cpu=None, **variables):
        """What the program returns as an int, after its global variables were set."""
        for name, value in variables.items():
            self.object.bss[name] = value
        if cpu is None:
            result = self.object.programs[program].test_run()
        else:
            result = self.object.programs[program].test_run(flags=TEST_RUN_ON_CPU, cpu=cpu)
        return ctypes.c_int32(result.retval).value

    def read(self, map_name, key, cpu=None):
        """What a program finds under ``key``; None where there is nothing."""
        found = self.call(f"read_{map_name}", key=key, cpu=cpu)
        return self.object.bss.value if found else None

    def write(self, map_name, key, value, cpu=None):
        """Have a program store ``value`` under ``key``."""
        assert self.call(f"write_{map_name}", key=key, value=value, cpu=cpu) == 0


@pytest.fixture
def kinds(bpf_object):
    with pybpf.load(bpf_object("kinds")) as obj:
        yield Kinds(obj)


def not_supported(operation, hint):
    """``with not_supported("iterate", "push"):`` a NotSupportedError that teaches."""
    return pytest.raises(pybpf.NotSupportedError, match=f"(?s){operation}.*hint: .*{hint}")


def online_cpus():
    return sorted(os.sched_getaffinity(0))


# ---- hashes and arrays ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hash", "array", "lru"])
def test_what_one_side_writes_the_other_reads(kinds, name):
    bpf_map = kinds.object.maps[name]
    bpf_map[1] = 2**64 - 1
    assert kinds.read(name, 1) == 2**64 - 1
    kinds.write(name, 2, 7)
    assert bpf_map[2] == bpf_map.get(2) == 7
    assert {1: 2**64 - 1, 2: 7}.items() <= bpf_map.to_dict().items()
    bpf_map.update({1: 10, 3: 30})
    assert [kinds.read(name, key) for key in (1, 2, 3)] == [10, 7, 30]


def test_a_hash_loses_what_is_deleted(kinds):
    kinds.hash.update({1: 10, 2: 20})
    del kinds.hash[1]
    assert kinds.read("hash", 1) is None
    assert kinds.hash.pop(2) == 20
    assert kinds.read("hash", 2) is None
    assert len(kinds.hash) == 0
    kinds.hash[3] = 30
    kinds.hash.clear()
    assert kinds.read("hash", 3) is None


def test_an_array_has_every_index_always(kinds):
    array = kinds.array
    assert len(array) == array.max_entries == 4
    assert list(array) == [0, 1, 2, 3]
    assert list(array.values()) == [0, 0, 0, 0]
    assert 3 in array
    assert 4 not in array
    with pytest.raises(KeyError):
        array[4]
    with pytest.raises(pybpf.KernelError, match="hint: its keys are 0 to 3"):
        array[4] = 1


@pytest.mark.parametrize("name", ["array", "cpu_array"])
@pytest.mark.parametrize(
    "delete",
    [
        lambda array: array.__delitem__(0),
        lambda array: array.pop(0),
        lambda array: array.popitem(),
        lambda array: array.pop_all(),
        lambda array: array.delete_many([0]),
        lambda array: array.clear(),
    ],
    ids=["del", "pop", "popitem", "pop_all", "delete_many", "clear"],
)
def test_an_array_never_loses_an_element(kinds, name, delete):
    array = kinds.object.maps[name]
    array[0] = 5
    with not_supported("(delete|pop) from map", "store zero instead"):
        delete(array)
    assert kinds.read(name, 0) == 5


@pytest.mark.parametrize("name", ["lru", "cpu_lru"])
def test_an_lru_hash_evicts_instead_of_being_full(kinds, name):
    lru = kinds.object.maps[name]
    for key in range(1000):
        lru[key] = key
    assert 1 <= len(lru) <= lru.max_entries
    assert max(lru) == 999
    assert all(value in (key, [key] * possible_cpus()) for key, value in lru.items())
    assert kinds.read(name, 999) == 999
    assert 0 not in lru


# ---- a value per CPU -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cpu_hash", "cpu_array", "cpu_lru"])
def test_every_cpu_has_a_value_of_its_own(kinds, name):
    cpus = possible_cpus()
    bpf_map = kinds.object.maps[name]
    values = [100 + cpu for cpu in range(cpus)]
    bpf_map[2] = values
    assert bpf_map[2] == values
    assert isinstance(bpf_map[2], PerCpu)
    for cpu in online_cpus():
        assert kinds.read(name, 2, cpu) == 100 + cpu
        kinds.write(name, 2, 200 + cpu, cpu)
        values[cpu] = 200 + cpu
        assert bpf_map[2] == bpf_map.to_dict()[2] == values
    assert bpf_map[2].sum() == sum(values)
    assert bpf_map[2].max() == max(values)
    assert bpf_map[2].merge(lambda a, b: a ^ b) == bpf_map[2].merge(int.__xor__)
    assert bpf_map[2].merge(min) == min(values)


def test_what_is_no_list_is_the_value_of_all_cpus(kinds):
    kinds.cpu_hash[1] = 7
    assert kinds.cpu_hash[1] == [7] * possible_cpus()
    assert [kinds.read("cpu_hash", 1, cpu) for cpu in online_cpus()] == [7] * len(online_cpus())


def test_the_value_of_one_cpu_is_stored_alone(kinds):
    values = [10 + cpu for cpu in range(possible_cpus())]
    kinds.cpu_hash[1] = values
    last = online_cpus()[-1]
    kinds.cpu_hash.put(1, 99, cpu=last)
    values[last] = 99
    assert kinds.cpu_hash[1] == values
    assert kinds.read("cpu_hash", 1, last) == 99
    kinds.cpu_hash.put(2, 5, cpu=0)
    assert kinds.cpu_hash[2] == [5] + [0] * (possible_cpus() - 1)


def test_flags_hold_for_the_value_of_one_cpu(kinds):
    kinds.cpu_hash[1] = 0
    with pytest.raises(KeyError) as caught:
        kinds.cpu_hash.put(2, 5, UpdateFlags.EXIST, cpu=0)
    assert caught.value.args == (2,)
    assert 2 not in kinds.cpu_hash
    with pytest.raises(pybpf.KernelError, match="EEXIST"):
        kinds.cpu_hash.put(1, 5, UpdateFlags.NOEXIST, cpu=0)
    with pytest.raises(IndexError, match=f"0 to {possible_cpus() - 1}"):
        kinds.cpu_hash.put(1, 5, cpu=possible_cpus())
    assert kinds.cpu_hash[1].sum() == 0


def test_structs_of_all_cpus_are_combined_member_by_member(kinds):
    kinds.tallies[1] = {}
    for peak, cpu in enumerate(online_cpus(), start=7):
        for packets in (1, 2, 3):
            assert kinds.call("tally", cpu, key=1, value=peak) == packets
    found = kinds.tallies[1]
    cpus = len(online_cpus())
    assert found.sum().packets == 3 * cpus
    assert found.max().asdict() == {"packets": 3, "peak": 6 + cpus}
    assert sum(value.peak for value in found) == found.sum().peak
    assert found.merge(lambda a, b: a if a.peak > b.peak else b).peak == 6 + cpus
    kinds.tallies[1] = (40, 5)
    assert kinds.call("tally", key=1, value=0) == 41
    values = [(cpu, 0) for cpu in range(possible_cpus())]
    kinds.tallies[1] = values
    assert [value.packets for value in kinds.tallies[1]] == [packets for packets, _ in values]


def test_a_sum_that_its_member_cannot_hold_is_an_overflowerror(kinds):
    kinds.tallies[1] = {"peak": 2**32 - 1}
    if possible_cpus() == 1:
        assert kinds.tallies[1].sum().peak == 2**32 - 1
        return
    with pytest.raises(OverflowError):
        kinds.tallies[1].sum()


def test_only_per_cpu_maps_store_for_one_cpu(kinds):
    with not_supported("store one CPU's value in map 'hash'", "per-CPU maps.*this is a HASH"):
        kinds.hash.put(1, 1, cpu=0)


# ---- longest prefixes ----------------------------------------------------------------------------


def test_the_longest_prefix_counts(kinds):
    routes = kinds.routes4
    routes[ip_network("0.0.0.0/0")] = 1
    routes["10.0.0.0/8"] = 2
    routes["10.1.0.0/17"] = 3
    routes["10.1.2.3"] = 4
    cases = {"192.0.2.1": 1, "10.200.0.1": 2, "10.1.128.0": 2, "10.1.2.4": 3, "10.1.2.3": 4}
    for address, hop in cases.items():
        assert routes[address] == routes[IPv4Address(address)] == hop
        packed = list(IPv4Address(address).packed)
        assert kinds.call("route4", address=packed + [0] * 12) == hop
    assert routes["10.1.0.0/16"] == 2
    assert routes.lookup_many(["10.1.2.3", "1.1.1.1"]) == [4, 1]
    assert routes.to_dict() == {
        ip_network("0.0.0.0/0"): 1,
        ip_network("10.0.0.0/8"): 2,
        ip_network("10.1.0.0/17"): 3,
        ip_network("10.1.2.3/32"): 4,
    }


def test_networks_of_ipv6(kinds):
    routes = kinds.routes6
    routes[ip_network("2001:db8::/32")] = 1
    routes["2001:db8:1::/48"] = 2
    routes[IPv6Address("2001:db8:1::1")] = 3
    cases = {"2001:db8:2::1": 1, "2001:db8:1::2": 2, "2001:db8:1::1": 3}
    for address, hop in cases.items():
        assert routes[address] == hop
        assert kinds.call("route6", address=list(IPv6Address(address).packed)) == hop
    assert "2001:db9::" not in routes
    assert kinds.call("route6", address=list(IPv6Address("2001:db9::").packed)) == -1
    assert sorted(map(str, routes)) == ["2001:db8:1::/48", "2001:db8:1::1/128", "2001:db8::/32"]


def test_prefixes_are_deleted_one_by_one(kinds):
    routes = kinds.routes4
    routes.update({"10.0.0.0/8": 1, "10.1.0.0/16": 2})
    with pytest.raises(KeyError):
        del routes["10.1.0.0/24"]  # though it has a route
    del routes["10.1.0.0/16"]
    assert routes["10.1.0.1"] == 1
    assert routes.pop("10.1.0.0/16", None) is None
    assert routes.pop("10.0.0.0/8") == 1
    assert routes.get("10.1.0.1") is None
    assert len(routes) == 0


def test_prefixes_that_a_program_stores(kinds):
    """The kernel keeps the bits beyond the prefix as they were given."""
    assert kinds.call("add_route4", address=[10, 1, 2, 3] + [0] * 12, key=8, value=5) == 0
    assert kinds.routes4.to_dict() == {ip_network("10.0.0.0/8"): 5}
    assert kinds.routes4["10.9.9.9"] == 5
    kinds.routes4.clear()
    assert len(kinds.routes4) == 0


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [
        ("10.0.0.1/8", "host bits"),
        ("10.0.0.0/33", "33"),
        ("2001:db8::/32", "32 bits"),
        (IPv6Address("::1"), "32 bits"),
        ("localhost", "network"),
        (5, "struct prefix4 takes"),
        (b"\x08\0\0\0", "8 bytes"),
    ],
)
def test_what_is_no_prefix_is_refused(kinds, prefix, reason):
    with pytest.raises(pybpf.LayoutError, match=reason):
        kinds.routes4[prefix] = 1


def test_prefixes_as_what_their_type_takes(kinds):
    kinds.routes4[{"length": 8, "address": [10, 0, 0, 0]}] = 1
    kinds.routes4[16, [10, 1, 0, 0]] = 2
    kinds.routes4[struct.pack("=I4B", 24, 10, 1, 1, 0)] = 3
    assert list(map(str, sorted(kinds.routes4))) == ["10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24"]


def test_prefixes_of_what_is_no_address(kinds):
    """Four bytes, but of several members: a struct, as the program declares it."""
    places = kinds.places
    places[{"length": 8, "country": 49}] = 1
    places[16, 49, 30, 0] = 2
    assert places[32, 49, 30, 7] == 2
    assert kinds.call("find_place", address=[49, 30] + [0] * 14) == 2
    assert kinds.call("find_place", address=[49, 31] + [0] * 14) == 1
    assert sorted((key.length, key.country, key.region) for key in places) == [
        (8, 49, 0),
        (16, 49, 30),
    ]
    with pytest.raises(pybpf.LayoutError):
        places["10.0.0.0/8"] = 1
    del places[16, 49, 30, 0]
    assert kinds.call("find_place", address=[49, 30] + [0] * 14) == 1


def test_prefixes_without_a_type():
    sizes = {"value_size": 4, "max_entries": 4, "flags": MapFlags.NO_PREALLOC}
    with (
        Map.create(MapType.LPM_TRIE, key_size=8, **sizes) as ipv4,
        Map.create(MapType.LPM_TRIE, key_size=9, **sizes) as other,
    ):
        ipv4["10.0.0.0/8"] = 1
        assert dict(ipv4) == {ip_network("10.0.0.0/8"): 1}
        ipv4.update({f"10.0.0.{host}": host for host in range(3)})
        with pytest.raises(pybpf.MapFullError, match="max_entries=4"):
            ipv4["192.0.2.1"] = 5
        other[b"\x08\0\0\0abcde"] = 2
        assert other[b"\x28\0\0\0a1234"] == 2
        assert dict(other) == {b"\x08\0\0\0abcde": 2}


# ---- without keys --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "order"), [("queue", [1, 2, 3]), ("stack", [3, 2, 1])], ids=["queue", "stack"]
)
def test_queues_and_stacks_have_their_order(kinds, name, order):
    bpf_map = kinds.object.maps[name]
    for value in (1, 2, 3):
        bpf_map.push(value)
    assert bpf_map.peek() == order[0]
    for value in order:
        assert kinds.call(f"pop_{name}") == 0
        assert kinds.object.bss.value == value
    for value in (1, 2, 3):
        assert kinds.call(f"push_{name}", value=value) == 0
    assert bpf_map.pop() == order[0]
    assert bpf_map.pop_all() == [(None, order[1]), (None, order[2])]
    assert bpf_map.pop_all() == []
    assert kinds.call(f"pop_{name}") < 0


@pytest.mark.parametrize("name", ["queue", "stack"])
def test_an_empty_queue_is_a_keyerror(kinds, name):
    bpf_map = kinds.object.maps[name]
    for read in (bpf_map.pop, bpf_map.peek):
        with pytest.raises(KeyError, match=f"map '{name}' is empty"):
            read()
    assert bpf_map.pop(None, 5) == 5
    assert bpf_map.get(None) is None


@pytest.mark.parametrize(
    ("name", "left"), [("queue", [2, 3, 4]), ("stack", [4, 3, 2])], ids=["queue", "stack"]
)
def test_a_full_queue_forgets_its_oldest_only_if_told(kinds, name, left):
    bpf_map = kinds.object.maps[name]
    for value in (1, 2, 3):
        bpf_map.push(value)
    with pytest.raises(pybpf.MapFullError, match="max_entries=3"):
        bpf_map.push(4)
    bpf_map.push(4, UpdateFlags.EXIST)
    assert [value for _, value in bpf_map.pop_all()] == left
    with pytest.raises(OverflowError):
        bpf_map.push(2**64)


ANY_USE = {
    "get": lambda m: m[0],
    "set": lambda m: m.__setitem__(0, 0),
    "del": lambda m: m.__delitem__(0),
    "in": lambda m: 0 in m,
    "lookup": lambda m: m.lookup(None),
    "put": lambda m: m.put(None, 0),
    "pop": lambda m: m.pop(),
    "popitem": lambda m: m.popitem(),
    "setdefault": lambda m: m.setdefault(None, 0),
    "peek": lambda m: m.peek(),
    "iterate": list,
    "len": len,
    "items": lambda m: list(m.items()),
    "clear": lambda m: m.clear(),
    "lookup_many": lambda m: m.lookup_many([None]),
    "update_many": lambda m: m.update_many([None], [0]),
    "delete_many": lambda m: m.delete_many([None]),
}
WITHOUT_KEYS = ("iterate", "len", "items", "popitem", "clear", "lookup_many", "update_many")


@pytest.mark.parametrize("name", ["queue", "stack"])
@pytest.mark.parametrize("use", [*WITHOUT_KEYS, "delete_many"])
def test_queues_have_no_keys_to_list(kinds, name, use):
    kinds.object.maps[name].push(1)
    with not_supported("", r"a (QUEUE|STACK) has push\(\), peek\(\), pop\(\) and pop_all\(\) only"):
        ANY_USE[use](kinds.object.maps[name])
    assert kinds.object.maps[name].peek() == 1


def test_a_queue_deletes_nothing(kinds):
    kinds.queue.push(1)
    with not_supported("delete from map 'queue'", "pop"):
        del kinds.queue[None]
    with pytest.raises(pybpf.LayoutError, match=r"no key of map 'queue'; use None, or push\(\)"):
        kinds.queue[0]


def create_ring(kind):
    return Map.create(kind, key_size=0, value_size=0, max_entries=4096, name="ring")


RINGS = [
    pytest.param(MapType.RINGBUF, r"read them with Object\.events\(\)", id="RINGBUF"),
    pytest.param(
        MapType.USER_RINGBUF,
        r"Map\.writer\(\)",
        id="USER_RINGBUF",
        marks=pytest.mark.requires("user_ringbuf"),
    ),
]


@pytest.mark.parametrize(("kind", "hint"), RINGS)
@pytest.mark.parametrize("use", [*ANY_USE, "push"])
def test_rings_hold_no_elements(kind, hint, use):
    with create_ring(kind) as ring, not_supported("map 'ring'", hint):
        {**ANY_USE, "push": lambda m: m.push(1)}[use](ring)


def test_rings_are_no_memory():
    with (
        create_ring(MapType.RINGBUF) as ring,
        not_supported("map the memory of map 'ring'", "BPF_F_MMAPABLE"),
    ):
        ring.memory()


@pytest.mark.parametrize("operation", ["push", "peek", "frames"])
def test_what_hashes_do_not_have_tells_who_has_it(kinds, operation):
    arguments = () if operation == "peek" else (1,)
    with not_supported("map 'hash'", rf"have {operation}\(\); this is a HASH"):
        getattr(kinds.hash, operation)(*arguments)


# ---- bloom filters -------------------------------------------------------------------------------


@pytest.fixture
def bloom(bpf_object):
    features.require("bloom_filter")
    with pybpf.load(bpf_object("bloom")) as obj:
        yield Kinds(obj)


def test_a_bloom_filter_knows_what_was_pushed(bloom):
    members = range(1000, 1100)
    for value in members[:50]:
        bloom.bloom.push(value)
    for value in members[50:]:
        assert bloom.call("push_bloom", value=value) == 0
    assert all(value in bloom.bloom for value in members)
    assert all(bloom.call("peek_bloom", value=value) == 0 for value in members)
    strangers = [value for value in range(10_000) if value not in members]
    found = [value for value in strangers if value in bloom.bloom]
    assert len(found) < 0.1 * len(strangers)
    assert [value for value in strangers if bloom.call("peek_bloom", value=value) == 0] == found


@pytest.mark.parametrize("use", [use for use in ANY_USE if use != "in"])
def test_a_bloom_filter_has_nothing_to_read(bloom, use):
    bloom.bloom.push(0)
    with not_supported("map 'bloom'", r"push\(value\) and `value in map` only"):
        ANY_USE[use](bloom.bloom)


def test_what_does_not_fit_is_not_asked_for(bloom):
    with pytest.raises(OverflowError):
        2**64 in bloom.bloom  # noqa: B015
    with pytest.raises(pybpf.LayoutError):
        "text" in bloom.bloom  # noqa: B015


# ---- programs ------------------------------------------------------------------------------------


def test_tail_calls_go_where_the_array_says(kinds):
    programs = kinds.programs
    seven, eight = (kinds.object.programs[name] for name in ("say_seven", "say_eight"))
    assert kinds.call("call", key=1) == 0
    programs[1] = seven
    assert kinds.call("call", key=1) == 7
    programs[1] = eight
    assert kinds.call("call", key=1) == 8
    assert programs[1] == eight.id
    assert programs.to_dict() == {1: eight.id}
    with pybpf.Program.from_id(programs[1]) as by_id:
        programs[0] = by_id
    assert kinds.call("call", key=0) == 8
    del programs[1]
    assert kinds.call("call", key=1) == 0
    with pytest.raises(KeyError):
        programs[1]
    with pytest.raises(KeyError):
        del programs[1]


def test_several_programs_at_once(kinds):
    seven, eight = (kinds.object.programs[name] for name in ("say_seven", "say_eight"))
    kinds.programs.update({0: seven, 2: eight})
    assert [kinds.call("call", key=key) for key in range(3)] == [7, 0, 8]
    assert kinds.programs.lookup_many(range(3)) == [seven.id, None, eight.id]
    assert kinds.programs.pop(2) == eight.id
    kinds.programs[1] = seven
    assert kinds.programs.delete_many(range(3)) == 2
    kinds.programs.update({1: seven, 2: eight})
    assert kinds.programs.pop_all() == [(1, seven.id), (2, eight.id)]
    assert kinds.call("call", key=1) == 0
    kinds.programs[1] = seven
    kinds.programs.clear()
    assert kinds.programs.to_dict() == {}
    assert len(kinds.programs) == 3
    with pytest.raises(pybpf.KernelError, match="its keys are 0 to 2"):
        kinds.programs[3] = seven
    with pytest.raises(KeyError):
        del kinds.programs[3]


def test_a_program_of_another_type_is_refused(kinds, bpf_object):
    with (
        pybpf.load(bpf_object("kinds_net")) as other,
        pytest.raises(pybpf.KernelError, match="hint: PROG_ARRAY takes programs of the type"),
    ):
        kinds.programs[0] = other.programs["at_cpu"]
    with pytest.raises(pybpf.KernelError, match="PROG_ARRAY takes programs"):
        kinds.programs[0] = kinds.hash
    with pytest.raises(pybpf.LayoutError, match=r"takes what has a fileno\(\), not 'say_seven'"):
        kinds.programs[0] = "say_seven"


# ---- maps of maps --------------------------------------------------------------------------------


@pytest.fixture
def inner_maps():
    """Two maps of the pattern; all elements of the first are 1, of the second 2."""
    with (
        Map.create(MapType.ARRAY, key_size=4, value_size=8, max_entries=2, name="ones") as ones,
        Map.create(MapType.ARRAY, key_size=4, value_size=8, max_entries=2, name="twos") as twos,
    ):
        ones.update({0: 1, 1: 1})
        twos.update({0: 2, 1: 2})
        yield ones, twos


@pytest.mark.parametrize("name", ["map_array", "map_hash"])
def test_maps_of_maps(kinds, inner_maps, name):
    ones, twos = inner_maps
    outer = kinds.object.maps[name]
    outer[1] = ones
    assert kinds.read(name, 1) == 1
    outer[1] = twos
    assert kinds.read(name, 1) == 2
    assert outer[1] == twos.id
    with Map.from_id(outer[1]) as found:
        assert found.name == "twos"
        found[0] = found[1] = 5
    assert kinds.read(name, 1) == 5
    del outer[1]
    assert kinds.read(name, 1) is None
    with pytest.raises(KeyError):
        outer[1]
    with pytest.raises(KeyError):
        del outer[1]
    outer.update({1: ones, 2: kinds.second})
    assert {1: ones.id, 2: kinds.second.id}.items() <= outer.to_dict().items()
    assert outer.pop(1) == ones.id
    outer.clear()
    assert outer.to_dict() == {}


def test_what_the_object_declares_is_there(kinds):
    assert kinds.map_array.to_dict() == {0: kinds.first.id}
    kinds.first.update({0: 3, 1: 3})
    assert kinds.read("map_array", 0) == 3


@pytest.mark.parametrize("name", ["map_array", "map_hash"])
def test_a_map_is_swapped_while_a_program_reads_it(kinds, inner_maps, name):
    outer = kinds.object.maps[name]
    outer[0] = inner_maps[0]
    stop = threading.Event()
    swaps = 0

    def swap():
        nonlocal swaps
        while not stop.is_set():
            outer[0] = inner_maps[(swaps := swaps + 1) % 2]

    thread = threading.Thread(target=swap)
    thread.start()
    seen, deadline = set(), time.monotonic() + 10
    try:
        # each swap waits for the programs that run; on one CPU several may pass between two reads
        while (swaps < 4 or len(seen) < 2) and time.monotonic() < deadline:
            seen.add(kinds.read(name, 0))
    finally:
        stop.set()
        thread.join()
    assert seen == {1, 2}


@pytest.mark.parametrize("name", ["map_array", "map_hash"])
def test_a_map_of_another_pattern_is_refused(kinds, name):
    outer = kinds.object.maps[name]
    with (
        Map.create(MapType.ARRAY, key_size=4, value_size=4, max_entries=2) as smaller,
        pytest.raises(pybpf.KernelError, match="takes maps of the type, sizes and flags"),
    ):
        outer[0] = smaller
    with pytest.raises(pybpf.KernelError, match="takes maps of the type"):
        outer[0] = kinds.object.programs["call"]


def test_maps_of_no_object_hold_maps(inner_maps):
    ones, twos = inner_maps
    sizes = {"key_size": 4, "value_size": 4, "max_entries": 100, "inner_map": ones}
    with Map.create(MapType.HASH_OF_MAPS, **sizes) as outer:
        outer.update_many(range(100), [ones, twos] * 50)
        assert outer.to_dict() == dict(zip(range(100), [ones.id, twos.id] * 50, strict=True))
        assert sorted(outer.pop_all())[:2] == [(0, ones.id), (1, twos.id)]


# ---- events and stacks ---------------------------------------------------------------------------


def last_record(ring):
    """The bytes of the last PERF_RECORD_SAMPLE with PERF_SAMPLE_RAW in a perf event's ring."""
    head = struct.unpack_from("=Q", ring, 1024)[0]  # struct perf_event_mmap_page.data_head
    assert head, "nothing was written"
    size = struct.unpack_from("=I", ring, mmap.PAGESIZE + 8)[0]
    return ring[mmap.PAGESIZE + 12 : mmap.PAGESIZE + 12 + size]


def test_a_program_writes_to_the_perf_event_that_was_assigned(kinds):
    cpu = online_cpus()[0]
    assert kinds.call("output", cpu, key=1, value=5) < 0
    fd = perf_event_open(cpu)
    try:
        with mmap.mmap(fd, 2 * mmap.PAGESIZE) as ring:
            kinds.events[1] = fd
            assert kinds.call("output", cpu, key=1, value=0x1122334455667788) == 0
            assert last_record(ring)[:8] == (0x1122334455667788).to_bytes(8, sys.byteorder)
            del kinds.events[1]
            assert kinds.call("output", cpu, key=1, value=5) < 0
            with pytest.raises(KeyError):
                del kinds.events[1]
            kinds.events.update({0: fd, 1: fd})
            kinds.events.clear()
            assert kinds.call("output", cpu, key=1, value=5) < 0
    finally:
        os.close(fd)


def test_perf_events_are_not_read_back(kinds):
    for read in (lambda m: m[0], lambda m: 0 in m, lambda m: m.pop(0), lambda m: dict(m.items())):
        with not_supported("look up in map 'events'", "only stored and deleted"):
            read(kinds.events)
    assert list(kinds.events) == [0, 1]
    with (
        open("/dev/null") as file,
        pytest.raises(pybpf.KernelError, match=r"takes descriptors of perf_event_open\(2\)"),
    ):
        kinds.events[0] = file


def test_only_programs_store_stacks(kinds):
    stack_id = kinds.call("take_stack")
    assert stack_id >= 0
    addresses = kinds.stacks[stack_id]
    assert addresses[0] >> 63, "no address of the kernel"
    raw = struct.unpack("=16Q", kinds.stacks.lookup_bytes(stack_id))
    assert addresses == [address for address in raw if address]
    assert kinds.stacks.to_dict() == {stack_id: addresses}
    with not_supported("update map 'stacks'", r"bpf_get_stackid\(\)"):
        kinds.stacks[stack_id] = kinds.stacks.lookup_bytes(stack_id)
    assert kinds.stacks.pop(stack_id) == addresses
    assert len(kinds.stacks) == 0
    with pytest.raises(KeyError):
        del kinds.stacks[stack_id]
    assert kinds.stacks.get(stack_id) is None
    with pytest.raises(KeyError):
        kinds.stacks.frames(stack_id)


def test_the_frames_of_a_stack(kinds):
    frames = kinds.stacks.frames(kinds.call("take_stack"), os.getpid())
    program = kinds.object.programs["take_stack"]
    assert frames[0].symbol == f"bpf_prog_{program.tag}_take_stack"
    assert frames[-1].module == "vmlinux"


def test_a_stack_of_build_ids(kinds):
    stack_id = kinds.call("take_build_ids")
    assert stack_id >= 0
    innermost = kinds.build_ids[stack_id][0]
    assert len(innermost.build_id) == 40
    with not_supported("take frames from map 'build_ids'", "build ids with offsets in files"):
        kinds.build_ids.frames(stack_id)


# ---- struct_ops ----------------------------------------------------------------------------------


def test_struct_ops_are_read_with_what_the_kernel_keeps_around_them(bpf_object):
    with pybpf.open(bpf_object("congestion")) as obj:
        ops = obj.maps["pybpf_test"]
        if pybpf.libbpf_version() >= (1, 4):  # which tells it before load
            assert str(ops.value_type) == "struct tcp_congestion_ops"
        obj.load()
        assert str(ops.value_type) == "struct bpf_struct_ops_tcp_congestion_ops"
        assert (len(ops), ops[0].data.name) == (1, b"")
        obj.attach()
        assert ops[0].data.name == b"pybpf_test"
        assert ops[0].data.ssthresh == obj.programs["ssthresh"].id
        with Map.from_id(ops.id) as by_id:
            assert by_id[0].data.name == b"pybpf_test"
        assert ops.lookup_bytes(0) == bytes(ops[0])
        with pytest.raises(pybpf.KernelError, match="update map 'pybpf_test'"):
            ops[0] = bytes(ops.value_size)


# ---- kinds that this library does not know -------------------------------------------------------

AS_AN_OLDER_LIBRARY = """
import sys
from pybpf import constants

numbers = {kind.name: kind.value for kind in constants.MapType}
numbers["LRU_HASH"], numbers["QUEUE"] = 1001, 1002  # what this library knows is something else
constants.MapType = constants.KernelEnum("MapType", numbers)

import pybpf

kind = constants.MapType(9)
with pybpf.Map.create(kind, key_size=4, value_size=12, max_entries=64) as m:
    assert m.type.name == "UNKNOWN_9", m.type
    m[1] = bytes(12)
    m.update({key: bytes([key]) * 12 for key in range(1, 41)})
    assert m[7] == m.pop(7) == bytes([7]) * 12
    assert 7 not in m and len(m) == 39
    del m[8]
    assert m.lookup_many([8, 9]) == [None, bytes([9]) * 12]
    assert dict(m.items()) == {key: bytes([key]) * 12 for key in range(1, 41) if key not in (7, 8)}
    assert m.delete_many(range(20)) == 17
    assert len(m.pop_all()) == 21 and list(m) == []
    try:
        m.push(bytes(12))
    except pybpf.NotSupportedError as error:
        assert "UNKNOWN_9" in str(error), error
    else:
        raise AssertionError("pushed")
with pybpf.Map.create(constants.MapType(22), key_size=0, value_size=4, max_entries=4) as m:
    m.put(None, b"\\x01\\0\\0\\0")
    assert m[None] == m.pop() == 1
    try:
        list(m)
    except pybpf.NotSupportedError as error:
        assert "UNKNOWN_22" in str(error), error
    else:
        raise AssertionError("iterated")
"""


def test_a_kind_newer_than_the_library_works_as_bytes():
    """LRU hashes and queues, of which a library that is older than them would not know."""
    subprocess.run([sys.executable, "-c", AS_AN_OLDER_LIBRARY], check=True)


@pytest.mark.requires("insn_array")
def test_an_array_of_instructions():
    with Map.create(MapType.INSN_ARRAY, key_size=4, value_size=16, max_entries=2) as created:
        assert len(created) == 2
        assert created[0] == bytes(16)
        with not_supported("delete from", "all its entries"):
            del created[0]
