# SPDX-License-Identifier: BSD-2-Clause
"""Pins of maps, programs, links and whole objects, by hand and by name."""

from __future__ import annotations

import subprocess

import pybpf
import pytest
from pybpf import Link, Map, MapType, Program, pin_folder


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


def test_a_pinned_link_stays_attached(bpf_object, bpffs):
    with pybpf.load(bpf_object("everything")) as obj:
        obj.maps["counts"].pin(bpffs / "counts")
        (link,) = obj.attach()
        link.pin(bpffs / "link")
    with Map.open_pinned(bpffs / "counts") as counts, Link.open_pinned(bpffs / "link") as link:
        subprocess.run(["true"])
        assert len(counts) == 1
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
        assert len(counts) == 1
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
