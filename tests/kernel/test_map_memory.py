# SPDX-License-Identifier: BSD-2-Clause
"""The live memory of maps: arrays that can be mapped, and arenas, shared with programs."""

from __future__ import annotations

import functools
import gc
import mmap
import os
import struct
import subprocess
import sys
from pathlib import Path

import features
import numpy
import pybpf
import pytest
from pybpf import Map, MapFlags, MapType

ENTRIES = 600  # of every array, as mapped.bpf.c has it
PAGE = mmap.PAGESIZE


@pytest.fixture
def mapped(bpf_object):
    with pybpf.load(bpf_object("mapped")) as obj:
        yield obj


def increment(obj, key):
    """Have the program add one to that element of every map."""
    obj.bss.key = key
    obj.programs["increment"].test_run()


def mappings():
    """The lines of /proc/self/maps that are maps' memory."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if "bpf-map" in line]


# ---- arrays --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "letter", "largest"),
    [
        ("u8s", "B", 2**8 - 1),
        ("u16s", "H", 2**16 - 1),
        ("u32s", "I", 2**32 - 1),
        ("u64s", "Q", 2**64 - 1),
        ("s32s", "i", 2**31 - 1),
    ],
)
def test_a_view_of_integers(mapped, name, letter, largest):
    bpf_map = mapped.maps[name]
    view = bpf_map.memory()
    assert (view.format, len(view), view.readonly) == (letter, ENTRIES, False)
    for key in (0, 1, ENTRIES - 1):
        view[key] = largest - 1
        assert bpf_map[key] == largest - 1
        increment(mapped, key)
        assert view[key] == bpf_map[key] == largest
        bpf_map[key] = 5
        assert view[key] == 5
    assert view.tolist() == [5, 5, *[0] * (ENTRIES - 3), 5]
    with pytest.raises(IndexError):
        view[ENTRIES]
    with pytest.raises(ValueError, match="invalid value"):
        view[0] = largest + 1


def test_negative_integers(mapped):
    view = mapped.maps["s32s"].memory()
    view[3] = -1
    assert mapped.maps["s32s"][3] == -1
    increment(mapped, 3)
    assert view[3] == 0


def test_what_is_no_integer_of_the_machine_is_a_view_of_bytes(mapped):
    readings = mapped.maps["readings"]
    view = readings.memory()
    assert (view.format, len(view)) == ("B", 16 * ENTRIES)
    struct.pack_into("=IhB3s", view, 16 * 7, 41, 0, 3, b"tag")
    increment(mapped, 7)
    assert struct.unpack_from("=Ih", view, 16 * 7) == (42, -1)
    assert readings[7].asdict() == {"sequence": 42, "level": -1, "flags": 3, "tag": "tag"}
    assert not any(view[16 * 8 :])
    view = mapped.maps["be32s"].memory()
    mapped.maps["be32s"][1] = 0x01020304
    assert (len(view), bytes(view[8:16])) == (8 * ENTRIES, b"\1\2\3\4\0\0\0\0")


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_an_array_of_numpy(size):
    flags = MapFlags.MMAPABLE
    with Map.create(
        MapType.ARRAY, key_size=4, value_size=size, max_entries=ENTRIES, flags=flags
    ) as bpf_map:
        array = bpf_map.array()
        assert array.dtype == numpy.dtype(f"u{size}")
        assert array.shape == (ENTRIES,)
        array[:] = numpy.arange(ENTRIES) % 200
        assert list(bpf_map.values()) == [key % 200 for key in range(ENTRIES)]
        bpf_map[599] = 7
        array[0] += 1
        assert (array[599], bpf_map[0]) == (7, 1)
    assert array[599] == 7


def test_an_array_of_values_that_are_no_integers():
    with Map.create(
        MapType.ARRAY, key_size=4, value_size=12, max_entries=4, flags=MapFlags.MMAPABLE
    ) as bpf_map:
        bpf_map[1] = b"twelve bytes"
        array = bpf_map.array()
        assert array.shape == (4,)
        assert array[1].tobytes() == b"twelve bytes"
        array[2] = array[1]
        assert bpf_map[2] == b"twelve bytes"
        assert bpf_map[3] == bytes(12)


def test_a_structured_array_of_numpy(mapped):
    readings = mapped.maps["readings"]
    array = readings.array()
    assert array.dtype == readings.value_type.dtype
    assert array.shape == (ENTRIES,)
    array["sequence"][7] = 41
    array["tag"][7] = b"tag"
    increment(mapped, 7)
    assert (array["sequence"][7], array["level"][7]) == (42, -1)
    assert (readings[7].sequence, readings[7].tag) == (42, b"tag")
    assert array["sequence"].sum() == 42
    numbers = mapped.maps["s32s"].array()
    numbers[5] = -7
    assert (numbers.dtype, mapped.maps["s32s"][5]) == (numpy.int32, -7)
    addresses = mapped.maps["be32s"].array()
    addresses[1] = 0x01020304
    assert mapped.maps["be32s"].lookup_bytes(1) == b"\1\2\3\4"


def test_a_frozen_array_is_read_only(mapped):
    bpf_map = mapped.maps["u32s"]
    bpf_map[1] = 5
    bpf_map.freeze()
    view = bpf_map.memory()
    assert view.readonly
    assert view[1] == 5
    with pytest.raises(TypeError, match="read-only"):
        view[1] = 6
    increment(mapped, 1)  # programs may still write
    assert view[1] == 6


def test_a_frozen_array_of_numpy_is_read_only():
    with Map.create(
        MapType.ARRAY, key_size=4, value_size=4, max_entries=4, flags=MapFlags.MMAPABLE
    ) as bpf_map:
        bpf_map[1] = 5
        bpf_map.freeze()
        array = bpf_map.array()
        assert array[1] == 5
        with pytest.raises(ValueError, match="read-only"):
            array[1] = 6


@pytest.mark.parametrize("flag", [MapFlags.RDONLY, MapFlags.WRONLY])
def test_what_user_space_may_not_read_and_write_is_not_mapped(flag):
    flags = MapFlags.MMAPABLE | flag
    with Map.create(MapType.ARRAY, key_size=4, value_size=4, max_entries=4, flags=flags) as bpf_map:
        for view_of in (bpf_map.memory, bpf_map.array):
            with pytest.raises(pybpf.NotSupportedError, match="may both read and write"):
                view_of()


def test_freezing_is_refused_while_there_is_a_writable_view(mapped):
    bpf_map = mapped.maps["u32s"]
    view = bpf_map.memory()
    with pytest.raises(pybpf.KernelError, match=r"EBUSY.*(?s:.*)hint: .*memory\(\)"):
        bpf_map.freeze()
    view.release()
    del view
    bpf_map.freeze()


@pytest.mark.parametrize("view_of", [lambda m: m.memory(), lambda m: m.array()])
def test_a_view_outlives_its_map(view_of):
    before = set(os.listdir("/proc/self/fd"))
    bpf_map = Map.create(
        MapType.ARRAY, key_size=4, value_size=8, max_entries=4, flags=MapFlags.MMAPABLE
    )
    view, other = view_of(bpf_map), view_of(bpf_map)
    bpf_map[1] = 5
    bpf_map.close()
    assert view[1] == 5
    view[1] = 6
    assert other[1] == 6
    part = view[1:2]
    del view, other
    assert part[0] == 6
    del part, bpf_map
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == before
    assert mappings() == []


def test_a_view_outlives_its_object(bpf_object):
    with pybpf.load(bpf_object("mapped")) as obj:
        view = obj.maps["u64s"].memory()
        increment(obj, 5)
    assert view[5] == 1
    with pytest.raises(pybpf.ClosedError):
        obj.maps["u64s"].memory()


@pytest.mark.parametrize("kind", [MapType.HASH, MapType.ARRAY, MapType.PERCPU_ARRAY])
@pytest.mark.parametrize("view_of", [lambda m: m.memory(), lambda m: m.array()])
def test_other_maps_are_no_memory(kind, view_of):
    with (
        Map.create(kind, key_size=4, value_size=8, max_entries=4) as bpf_map,
        pytest.raises(pybpf.NotSupportedError, match=r"BPF_F_MMAPABLE|arrays have array"),
    ):
        view_of(bpf_map)


# ---- arenas --------------------------------------------------------------------------------------


def of_an_object(test):
    """A test of an object's arena, which libbpf before 1.4 does not open: then it has to say so."""

    def refused(bpf_object):
        with pytest.raises(pybpf.ObjectFormatError, match="addr_space"):
            pybpf.open(bpf_object("arena"))

    return test if pybpf.libbpf_version() >= (1, 4) else refused


@pytest.fixture
def arena(bpf_object):
    with pybpf.load(bpf_object("arena")) as obj:
        yield obj


@pytest.fixture
def create_arena():
    """create_arena(**more): an arena of two pages that no object has."""
    features.require("arena")
    sizes = {"key_size": 0, "value_size": 0, "max_entries": 2, "flags": MapFlags.MMAPABLE}
    return functools.partial(Map.create, MapType.ARENA, **sizes)


def cells_of(view):
    """The variable ``cells``, which begins some page with 1 to 8."""
    pattern = struct.pack("=8Q", *range(1, 9))
    start = next(at for at in range(0, len(view), PAGE) if view[at : at + 64] == pattern)
    return view[start : start + 64].cast("Q")


def add_up(obj):
    return obj.programs["add_up"].test_run().retval


@pytest.mark.requires("arena")
@of_an_object
def test_an_arena_is_shared_with_the_program(arena):
    view = arena.maps["arena"].memory()
    assert (view.format, len(view), view.readonly) == ("B", 4 * PAGE, False)
    cells = cells_of(view)
    assert add_up(arena) == sum(range(1, 9))
    assert cells.tolist() == list(range(2, 10))
    cells[0] = 1000
    assert add_up(arena) == 1000 + sum(range(3, 10))
    assert arena.maps["arena"].memory()[: len(view)] == view
    cells.release()
    view.release()


@pytest.mark.requires("arena")
@of_an_object
def test_an_object_is_not_closed_under_a_view_of_its_arena(bpf_object):
    obj = pybpf.load(bpf_object("arena"))
    view = obj.maps["arena"].memory()
    part = view[PAGE:]
    with pytest.raises(pybpf.BusyError):
        obj.close()
    del view
    with pytest.raises(pybpf.BusyError):
        obj.close()
    part[0] = 1
    del part
    obj.close()
    assert obj.closed
    with pytest.raises(pybpf.ClosedError):
        obj.maps["arena"].memory()


@pytest.mark.requires("arena")
@of_an_object
def test_the_memory_of_an_arena_keeps_its_object(bpf_object):
    views = [pybpf.load(bpf_object("arena")).maps["arena"].memory()]

    def forget():
        views.clear()
        gc.collect()

    gc.collect()
    assert cells_of(views[0])[7] == 8
    with pytest.warns(ResourceWarning, match="unclosed object 'arena'"):
        forget()


def test_an_arena_of_no_object(create_arena):
    bpf_map = create_arena()
    first = bpf_map.memory()
    first[0] = 5
    second = bpf_map.memory()
    assert second[0] == 5
    del first, second
    assert bpf_map.memory()[0] == 5
    view = bpf_map.memory()
    bpf_map.close()
    view[PAGE] = 6
    assert (view[0], view[PAGE]) == (5, 6)
    with pytest.raises(pybpf.ClosedError):
        bpf_map.memory()
    assert mappings() != []
    del view
    assert mappings() == []


def test_an_arena_keeps_its_address(create_arena):
    with create_arena() as bpf_map:
        view = bpf_map.memory()
        with (
            Map.from_id(bpf_map.id) as other,
            pytest.raises(pybpf.KernelError, match="use the Map that has mapped it"),
        ):
            other.memory()
        del view


def test_processes_share_an_arena_that_has_an_address(create_arena):
    address = 1 << 44
    with create_arena(map_extra=address) as bpf_map:
        view = bpf_map.memory()
        assert any(line.startswith(f"{address:x}-") for line in mappings())
        code = f"import pybpf\nwith pybpf.Map.from_id({bpf_map.id}) as m: m.memory()[10] = 7"
        subprocess.run([sys.executable, "-c", code], check=True)
        assert view[10] == 7
        del view


@pytest.mark.parametrize(
    "use",
    [
        lambda m: m[0],
        lambda m: m.__setitem__(0, 0),
        lambda m: 0 in m,
        list,
        len,
        lambda m: m.to_numpy(),
        lambda m: m.array(),
        lambda m: m.push(1),
    ],
    ids=["get", "set", "in", "iterate", "len", "to_numpy", "array", "push"],
)
def test_an_arena_has_no_elements(create_arena, use):
    with (
        create_arena() as bpf_map,
        pytest.raises(pybpf.NotSupportedError, match=r"an arena is memory: see Map\.memory\(\)"),
    ):
        use(bpf_map)
