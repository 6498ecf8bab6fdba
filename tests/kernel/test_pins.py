# SPDX-License-Identifier: BSD-2-Clause
"""Pins of maps, programs, links and whole objects, by hand and by name."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pybpf
import pytest
from bad_objects import AS_TRACER
from pybpf import Link, Map, MapType, Program, pin_folder

UNTYPED = """
import sys, warnings, pybpf
with warnings.catch_warnings(record=True) as caught, pybpf.Map.open_pinned(sys.argv[1]) as points:
    warnings.simplefilter("always")
    assert (points.key_type, points.value_type) == (None, None)
    print(list(points), [(each.category.__name__, str(each.message)) for each in caught])
"""


def test_a_pinned_map_comes_untyped_and_says_so_where_its_types_may_not_be_read(bpf_object, bpffs):
    pin = bpffs / "points"
    with pybpf.load(bpf_object("everything")) as obj:
        obj.maps["points"][1, 2] = {"sequence": 3}
        obj.maps["points"].pin(pin)
        with Map.open_pinned(pin) as typed:
            assert str(typed.key_type) == "struct place"
            assert [(key.x, key.y) for key in typed] == [(1, 2)]
        pin.chmod(0o666)
        command = [*AS_TRACER, sys.executable, "-c", UNTYPED, str(pin)]
        done = subprocess.run(command, capture_output=True, text=True)
        obj.maps["points"].unpin(pin)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"[{1 | 2 << 32}] [('LayoutWarning', ")
    assert done.stdout.count("CAP_SYS_ADMIN") == 1
    assert "set key_type and value_type" in done.stdout


def test_a_pinned_map_outlives_its_object(bpf_object, bpffs):
    with pybpf.load(bpf_object("everything")) as obj:
        obj.maps["counts"][1] = 10
        obj.maps["counts"].pin(bpffs / "counts")
    with Map.open_pinned(bpffs / "counts") as counts:
        assert dict(counts) == {1: 10}
        counts.unpin(bpffs / "counts")


def test_a_pinned_program_outlives_its_object(bpf_object, bpffs):
    with pybpf.load(bpf_object("everything")) as obj:
        program = obj.programs["set_mark"]
        program.pin(bpffs / "set_mark")
        tag = program.tag
    with Program.open_pinned(bpffs / "set_mark") as program:
        assert program.tag == tag
        assert program.test_run(b"\0" * 64).retval == 2
        with Program.from_id(program.id) as again:
            assert again.name == "set_mark"
        program.unpin(bpffs / "set_mark")


@pytest.mark.requires("perf_event_links")
def test_a_pinned_link_stays_attached(bpf_object, bpffs):
    with pybpf.load(bpf_object("everything")) as obj:
        obj.maps["counts"].pin(bpffs / "counts")
        (link,) = obj.attach()
        link.pin(bpffs / "link")
    with Map.open_pinned(bpffs / "counts") as counts, Link.open_pinned(bpffs / "link") as link:
        subprocess.run(["true"])
        assert os.getpid() in counts
        counts.unpin(bpffs / "counts")
        link.unpin(bpffs / "link")


def test_pins_of_another_kind_are_told_apart(bpf_object, bpffs):
    with pybpf.load(bpf_object("everything")) as obj:
        obj.programs["set_mark"].pin(bpffs / "set_mark")
        with pytest.raises(pybpf.PinError, match="a program is pinned there"):
            Map.open_pinned(bpffs / "set_mark")
        with pytest.raises(pybpf.PinError, match="a program is pinned there"):
            Link.open_pinned(bpffs / "set_mark")
        obj.programs["set_mark"].unpin(bpffs / "set_mark")


def test_a_map_pinned_by_name_is_found_again(bpf_object, bpffs):
    with pybpf.load(bpf_object("pinned"), pin_root=bpffs) as first:
        assert first.maps["shared"].pin_path == str(bpffs / "shared")
        first.programs["touch"].test_run(ctx=bytes(8))
        first_id = first.maps["shared"].id
    with pybpf.load(bpf_object("pinned"), pin_root=bpffs) as second:
        assert second.maps["shared"].id == first_id
        assert second.maps["shared"][7] == 49
        second.maps["shared"].unpin(bpffs / "shared")


def test_an_incompatible_pin_is_refused_field_by_field(bpf_object, bpffs):
    with Map.create(MapType.ARRAY, key_size=4, value_size=16, max_entries=3) as other:
        other.pin(bpffs / "shared")
        with pytest.raises(pybpf.PinError) as caught:
            pybpf.load(bpf_object("pinned"), pin_root=bpffs)
        other.unpin(bpffs / "shared")
    rows = [line.split() for line in str(caught.value).splitlines()]
    assert ["type", "HASH", "ARRAY"] in rows
    assert ["value_size", "8", "16"] in rows
    assert ["max_entries", "16", "3"] in rows
    assert not any(row[0] == "key_size" for row in rows)
    assert str(bpffs / "shared") in str(caught.value)


def test_pin_path_pins_and_can_be_cleared(bpf_object, bpffs):
    with pybpf.open(bpf_object("pinned"), pin_root=bpffs) as obj:
        obj.maps["shared"].pin_path = None
        obj.maps["counts" if "counts" in obj.maps else "shared"].pin_path = bpffs / "mine"
        obj.load()
        assert sorted(path.name for path in bpffs.iterdir()) == ["mine"]
        obj.maps["shared"].unpin(bpffs / "mine")


def test_a_failed_load_leaves_no_pin(bpf_object, bpffs):
    with pybpf.open(bpf_object("refused"), pin_root=bpffs) as obj:
        obj.maps["counts"].pin_path = bpffs / "counts"
        with pytest.raises(pybpf.VerifierError):
            obj.load()
    assert list(bpffs.iterdir()) == []


@pytest.mark.requires("perf_event_links")
def test_a_whole_object_is_pinned_and_removed(bpf_object, bpffs):
    folder = bpffs / "all"
    with pybpf.load(bpf_object("everything")) as obj:
        obj.attach()
        paths = pin_folder.store(obj, folder)
        assert str(folder / "links/on_exec") in paths
        assert str(folder / "maps/everythi_rodata") in paths
        assert str(folder / "programs/run_all") in paths
    with Map.open_pinned(folder / "maps/counts") as counts:
        subprocess.run(["true"])
        assert os.getpid() in counts
    assert sorted(pin_folder.remove(folder)) == sorted(paths)
    assert not folder.exists()


def test_pinning_a_whole_object_is_all_or_nothing(bpf_object, bpffs):
    folder = bpffs / "all"
    (folder / "programs").mkdir(parents=True)
    with pybpf.load(bpf_object("everything")) as obj:
        obj.programs["set_mark"].pin(folder / "programs/set_mark")
        with pytest.raises(pybpf.PinError, match="taken"):
            pin_folder.store(obj, folder)
        left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
        assert left == ["programs", "programs/set_mark"]
        obj.programs["set_mark"].unpin(folder / "programs/set_mark")
    (folder / "programs").rmdir()
    folder.rmdir()


def test_remove_touches_no_folder_that_is_not_its_own(bpffs, tmp_path):
    for folder in (tmp_path, bpffs / "none", bpffs):
        with pytest.raises(pybpf.PinError):
            pin_folder.remove(folder)
    (bpffs / "foreign").mkdir()
    with pytest.raises(pybpf.PinError, match="foreign"):
        pin_folder.remove(bpffs)
    (bpffs / "foreign").rmdir()


# ---- pins that are not what one takes them for ---------------------------------------------------


@pytest.fixture
def loaded(bpf_object):
    with pybpf.load(bpf_object("everything")) as obj:
        yield obj


PINNED = {
    "map": lambda obj: obj.maps["counts"],
    "program": lambda obj: obj.programs["on_exec"],
    "link": lambda obj: obj.attach()[0],
}
each_kind = pytest.mark.parametrize("kind", PINNED)


@each_kind
def test_unpin_removes_no_regular_file(loaded, bpffs, tmp_path, kind):
    thing = PINNED[kind](loaded)
    path = tmp_path / "precious"
    path.write_text("data")
    for wrong in (path, tmp_path, bpffs / "nothing"):
        with pytest.raises(pybpf.PinError) as caught:
            thing.unpin(wrong)
        assert str(wrong) in str(caught.value)
    assert path.read_text() == "data"


@pytest.mark.requires("perf_event_links")
@each_kind
def test_unpin_removes_no_pin_of_something_else(loaded, bpf_object, bpffs, kind):
    thing = PINNED[kind](loaded)
    with pybpf.load(bpf_object("everything")) as other_object:
        others = {name: get(other_object) for name, get in PINNED.items()}
        for name, other in others.items():
            path = bpffs / name
            other.pin(path)
            with pytest.raises(pybpf.PinError, match=str(path)):
                thing.unpin(path)
            assert path.exists()
            other.unpin(path)
            assert not path.exists()


@pytest.mark.requires("perf_event_links")
@each_kind
def test_unpin_after_the_pin_was_replaced_removes_nothing(loaded, bpf_object, bpffs, kind):
    thing, path = PINNED[kind](loaded), bpffs / "pin"
    thing.pin(path)
    path.unlink()
    with pybpf.load(bpf_object("everything")) as other_object:
        other = PINNED[kind](other_object)
        other.pin(path)
        with pytest.raises(pybpf.PinError, match=f"id {other.id} is pinned there"):
            thing.unpin(path)
        assert path.exists()
        other.unpin(path)


def runs(counts):
    """Whether on_exec counts the processes that this one starts."""
    counts.clear()
    subprocess.run(["true"])
    return os.getpid() in counts


@pytest.mark.requires("perf_event_links")
def test_with_a_pinned_link_leaves_it_attached(loaded, bpffs):
    path = bpffs / "link"
    (link,) = loaded.attach()
    link.pin(path)
    link.close()
    with Link.open_pinned(path) as again:
        assert again.source is None
    assert again.closed
    assert runs(loaded.maps["counts"])
    with Link.open_pinned(path) as last:
        last.unpin(path)
        assert runs(loaded.maps["counts"])
    assert not runs(loaded.maps["counts"])


@pytest.mark.requires("perf_event_links")
@pytest.mark.parametrize("opened", [False, True], ids=["own", "opened"])
def test_a_pinned_tracepoint_link_cannot_be_detached_and_says_where_it_is_pinned(
    loaded, bpffs, opened
):
    path = bpffs / "link"
    (link,) = loaded.attach()
    link.pin(path)
    if opened:
        link.close()
        link = Link.open_pinned(path)
    with pytest.raises(pybpf.NotSupportedError, match=re.escape(str(path))) as caught:
        link.detach()
    assert "unpin" in caught.value.hint
    assert not link.closed
    assert runs(loaded.maps["counts"])
    link.unpin(path)
    link.detach()
    assert link.closed
    assert not runs(loaded.maps["counts"])


@pytest.mark.parametrize("kind", ["links", "programs", "maps"])
def test_a_pin_folder_with_a_folder_within_is_left_alone(loaded, bpffs, kind):
    folder = bpffs / "all"
    paths = pin_folder.store(loaded, folder)
    stranger = folder / kind / "a_folder"
    stranger.mkdir()
    with pytest.raises(pybpf.PinError, match=re.escape(str(stranger))):
        pin_folder.remove(folder)
    left = sorted(str(path) for path in folder.glob("*/*"))
    assert left == sorted([*paths, str(stranger)])
    stranger.rmdir()
    assert sorted(pin_folder.remove(folder)) == sorted(paths)
