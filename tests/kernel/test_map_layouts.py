# SPDX-License-Identifier: BSD-2-Clause
"""Keys and values of every layout: arrays as keys, and what numpy has of padding and byte order."""

from __future__ import annotations

import ipaddress

import numpy
import pybpf
import pytest
from pybpf import Btf, Map, MapType


@pytest.fixture
def made():
    """A function that makes a map of the kernel's own types, key and value alike."""
    maps = []

    def make(btf_type, kind=MapType.HASH, flags=0):
        size = btf_type.size
        new = Map.create(kind, key_size=size, value_size=size, max_entries=8, flags=flags)
        maps.append(new)
        new.key_type = new.value_type = btf_type
        return new

    yield make
    for each in maps:
        each.close()


def member_type(struct, name):
    return next(each.type for each in Btf.kernel()[struct].members if each.name == name)


def test_keys_that_are_arrays_are_keys_of_a_dict(made):
    macs = made(member_type("struct ethhdr", "h_dest"))
    macs[[1, 2, 3, 4, 5, 6]] = [6, 5, 4, 3, 2, 1]
    assert macs.to_dict() == {(1, 2, 3, 4, 5, 6): [6, 5, 4, 3, 2, 1]}
    assert list(macs) == [(1, 2, 3, 4, 5, 6)]
    assert macs[next(iter(macs))] == [6, 5, 4, 3, 2, 1]
    macs.update_many(macs.to_dict())
    assert macs.popitem() == ((1, 2, 3, 4, 5, 6), [6, 5, 4, 3, 2, 1])


def test_an_interface_is_no_key_of_a_trie():
    with Map.create(
        MapType.LPM_TRIE, key_size=8, value_size=4, max_entries=8, flags=pybpf.MapFlags.NO_PREALLOC
    ) as routes:
        given = ipaddress.ip_interface("10.1.0.5/16")
        with pytest.raises(pybpf.LayoutError, match=r"give IPv4Interface.*\.network or \.ip"):
            routes[given] = 1
        routes[given.network] = 1
        assert routes[given.ip] == 1


# bitfields, __be16, a union of addresses; an array in a union of unions; padding
@pytest.mark.parametrize(
    "name", ["struct iphdr", "struct in6_addr", "struct timezone", "struct kstat"]
)
@pytest.mark.parametrize("kind", [MapType.HASH, MapType.PERCPU_HASH])
def test_numpy_has_the_types_own_layout_and_takes_it_back(made, name, kind):
    btf_type = Btf.kernel()[name]
    entries = made(btf_type, kind)
    entries[bytes(btf_type.size)] = btf_type.ctype()
    some = btf_type.ctype.from_buffer_copy(bytes(range(1, 1 + btf_type.size)))
    entries[some] = some
    keys, values = entries.to_numpy()
    assert keys.dtype == values.dtype == btf_type.dtype
    assert sorted(map(bytes, entries)) == sorted(keys[at].tobytes() for at in range(2))
    before = entries.to_dict()
    entries.clear()
    entries.update_numpy(keys, values)
    assert entries.to_dict() == before


def test_the_padding_of_numpy_arrays_is_no_part_of_a_key(made):
    """Which numpy fills with what was there."""
    btf_type = Btf.kernel()["struct kstat"]
    entries = made(btf_type)
    keys = numpy.frombuffer(b"\xff" * 2 * btf_type.size, btf_type.dtype)
    entries.update_numpy(keys[:1], keys[1:])
    key = btf_type.ctype.from_buffer_copy(keys[:1].tobytes())
    (found,) = entries
    assert found == key
    assert bytes(found) == entries.lookup_bytes(found) != bytes(key)
    assert key not in entries, "its padding is not what the map has"


def test_an_empty_map_gives_empty_arrays(made):
    keys, values = made(Btf.kernel()["struct iphdr"]).to_numpy()
    assert keys.shape == values.shape == (0,)
    assert keys.dtype == Btf.kernel()["struct iphdr"].dtype


@pytest.mark.filterwarnings("ignore::pybpf.LayoutWarning")
def test_keys_with_chance_in_their_padding_find_their_entries(bpf_object):
    with pybpf.load(bpf_object("hazard")) as obj:
        flows = obj.maps["flows"]
        flows[bytes.fromhex("06ffffff010000005000ffff")] = 1
        flows[6, 1, 80] = 2
        found = sorted((value, bytes(key)[1:4].hex()) for key, value in flows.items())
        assert found == [(1, "ffffff"), (2, "000000")]
        assert sorted(flows[key] for key in flows) == [1, 2]
        assert sorted(flows.lookup_many(list(flows))) == [1, 2]
        assert flows[{"protocol": 6, "address": 1, "port": 80}] == 2
        assert flows.delete_many(list(flows)) == 2
        assert len(flows) == 0


def test_keys_of_two_maps_of_one_type_are_equal(bpf_object):
    with pybpf.load(bpf_object("everything")) as one, pybpf.load(bpf_object("everything")) as other:
        one.maps["points"][1, 2] = {"sequence": 3}
        other.maps["points"].update(one.maps["points"])
        ((key, value),) = one.maps["points"].items()
        assert type(key) is not type(next(iter(other.maps["points"])))
        assert other.maps["points"].to_dict() == {key: value}
        assert other.maps["points"][key] == value
        assert key != value


def test_a_struct_that_is_kept_keeps_no_others(bpf_object):
    with pybpf.load(bpf_object("everything")) as obj:
        points = obj.maps["points"]
        points.update({(x, x): {"sequence": x} for x in range(8)})
        for key, value in points.items():
            assert key._b_base_ is value._b_base_ is None
            assert len(bytes(value)) == points.value_size
