# SPDX-License-Identifier: BSD-2-Clause
"""Newer objects in the place of what another process left pinned, also by one that is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import warnings
from functools import partial

import pybpf
import pytest
from pybpf import pin_folder
from test_ownership import in_child

pytestmark = pytest.mark.usefixtures("netns")


@pytest.fixture
def agents(bpf_object):
    return {number: bpf_object(f"agent{number}") for number in (1, 2, 3)}


@pytest.fixture
def folder(agents, bpffs):
    """Where the first version is left, attached."""
    with pybpf.load(agents[1]) as obj:
        obj.programs["count_packets"].attach_xdp("lo")
        obj.attach()
        pin_folder.store(obj, bpffs / "agent")
    yield bpffs / "agent"
    pin_folder.remove(bpffs / "agent")


@pytest.fixture
def udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


def packets(folder):
    """How many were counted, by version."""
    with pybpf.Map.open_pinned(folder / "maps/packets_by_version") as counts:
        return list(counts.values())


def execs(folder):
    with pybpf.Map.open_pinned(folder / "maps/execs_by_version") as counts:
        return list(counts.values())


def which_counts_packets(folder, udp):
    """The number of the version that counts them: exactly one."""
    before = packets(folder)
    udp.sendto(b"x", udp.getsockname())
    grown = [after - old for after, old in zip(packets(folder), before, strict=True)]
    assert sum(grown) == 1
    return grown.index(1)


def which_count_execs(folder):
    """The numbers of the versions that count them: one, or for moments both."""
    before = execs(folder)
    subprocess.run(["true"], check=True)
    pairs = enumerate(zip(execs(folder), before, strict=True))
    return {number for number, (after, old) in pairs if after > old}


def pinned(folder, kind):
    return sorted(path.name for path in (folder / kind).iterdir())


def test_a_new_process_takes_over(folder, agents, udp):
    assert which_counts_packets(folder, udp) == 1
    with pybpf.reload_pinned(folder, agents[2]).object:
        pass
    assert which_counts_packets(folder, udp) == 2
    assert which_count_execs(folder) == {2}
    assert packets(folder) == [0, 1, 1, 0]
    assert pinned(folder, "links") == ["count_execs", "count_exits", "count_packets"]
    assert pinned(folder, "programs") == ["count_execs", "count_exits", "count_packets"]
    assert pinned(folder, "maps") == [
        "agent2_bss",
        "agent2_rodata",
        "execs_by_version",
        "flows",
        "packets_by_version",
    ]


def test_it_reports_what_became_of_maps_and_links(folder, agents):
    reloaded = pybpf.reload_pinned(folder, agents[2])
    reloaded.object.close()
    assert {switch.program: switch.how for switch in reloaded.links} == {
        "count_packets": "updated",
        "count_execs": "overlapped",
        "only_in_the_first": "ended",
        "count_exits": "added",
    }
    assert set(reloaded.maps.kept) == {"flows", "packets_by_version", "execs_by_version"}


@pytest.mark.requires("perf_event_links")
def test_a_link_of_a_perf_event_overlaps_as_well(bpf_object, bpffs):
    folder = bpffs / "kept"
    with pybpf.load(bpf_object("everything")) as obj:
        (link,) = obj.attach()
        assert link.info().type == pybpf.LinkType.PERF_EVENT
        pin_folder.store(obj, folder)
    reloaded = pybpf.reload_pinned(folder, bpf_object("everything"))
    assert [(switch.program, switch.how) for switch in reloaded.links] == [
        ("on_exec", "overlapped")
    ]
    counts = reloaded.object.maps["counts"]
    counts.clear()
    subprocess.run(["true"], check=True)
    assert os.getpid() in counts  # and whoever else starts a program meanwhile
    reloaded.object.close()
    pin_folder.remove(folder)


def contents(folder):
    found = {}
    for kind, cls in (("maps", pybpf.Map), ("programs", pybpf.Program), ("links", pybpf.Link)):
        for name in pinned(folder, kind):
            with cls.open_pinned(folder / kind / name) as each:
                found[kind, name] = each.id
    return found


def test_what_fails_changes_nothing(folder, agents, udp):
    before = contents(folder)
    with pytest.raises(pybpf.LayoutError, match="zone"):
        pybpf.reload_pinned(folder, agents[3])
    with pytest.raises(pybpf.ReloadError):
        pybpf.reload_pinned(folder, agents[2], health=lambda new: False, timeout=0)
    assert contents(folder) == before
    assert which_counts_packets(folder, udp) == 1


def test_an_exception_at_the_last_moment_changes_nothing(folder, agents, udp, monkeypatch):
    before = contents(folder)

    def interrupted(exchange):
        raise KeyboardInterrupt

    monkeypatch.setattr("pybpf.takeover._Exchange.take_names", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pybpf.reload_pinned(folder, agents[2])
    assert contents(folder) == before
    assert which_counts_packets(folder, udp) == 1
    assert which_count_execs(folder) == {1}


def test_another_folder_is_refused(bpffs, agents):
    with pytest.raises(pybpf.PinError, match="did not make this folder"):
        pybpf.reload_pinned(bpffs, agents[2])
    with pytest.raises(pybpf.PinError, match="none"):
        pybpf.reload_pinned(bpffs / "none", agents[2])


def test_one_process_at_a_time(folder, agents):
    def meanwhile(new):
        with pytest.raises(pybpf.BusyError):
            pybpf.reload_pinned(folder, agents[2])
        return True

    pybpf.reload_pinned(folder, agents[2], health=meanwhile).object.close()


BPF_CALLS = {"pybpf_link_update", "pybpf_attach", "bpf_obj_pin", "rename", "unlink", "close"}


def take_over_until_killed(steps, folder, version):
    """Take over, but die before or after the call of that number that others can see."""

    def count(frame, event, function):
        nonlocal steps
        if event in ("c_call", "c_return") and function.__name__ in BPF_CALLS:
            steps -= 1
            if steps == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    warnings.simplefilter("ignore")
    sys.setprofile(count)
    pybpf.reload_pinned(folder, version)


def killed_after(steps, folder, version):
    """Whether a process that takes over was killed before it was done."""
    status = in_child(partial(take_over_until_killed, steps, folder, version))
    assert status in (0, -signal.SIGKILL)
    return status != 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.native
def test_killed_anywhere_it_leaves_one_version_or_the_other(folder, agents, udp):
    steps = 1
    while killed_after(steps, folder, agents[2]):
        assert which_counts_packets(folder, udp) in (1, 2)
        assert which_count_execs(folder) in ({1}, {2}, {1, 2})
        pybpf.reload_pinned(folder, agents[1]).object.close()
        assert which_counts_packets(folder, udp) == 1
        assert which_count_execs(folder) == {1}
        assert not [name for _, name in contents(folder) if name.startswith("~")]
        steps += 1
    assert steps > 20
    assert which_counts_packets(folder, udp) == 2
