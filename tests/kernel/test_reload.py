# SPDX-License-Identifier: BSD-2-Clause
"""Newer objects in the place of running ones."""

from __future__ import annotations

import socket
import subprocess
import threading

import pybpf
import pytest
from bad_objects import compile_bpf

pytestmark = pytest.mark.usefixtures("netns")


@pytest.fixture
def agents(bpf_object):
    """The paths of the versions by number."""
    return {number: bpf_object(f"agent{number}") for number in (1, 2, 3)}


@pytest.fixture
def running(agents):
    """The first version, loaded and attached."""
    obj = pybpf.load(agents[1])
    try:
        obj.programs["count_packets"].attach_xdp("lo")
        obj.attach()
        yield obj
    finally:
        obj.close()


@pytest.fixture
def udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


def send(udp, count=1):
    for _ in range(count):
        udp.sendto(b"x", udp.getsockname())


def execute():
    subprocess.run(["true"], check=True)


def by_program(reloaded):
    return {switch.program: switch.how for switch in reloaded.links}


def test_the_new_version_is_attached_and_has_the_old_ones_data(running, agents, udp):
    running.maps["flows"][7,] = 70
    send(udp, 3)
    reloaded = pybpf.reload(running, agents[2])
    with reloaded.object as new:
        assert running.closed
        send(udp, 2)
        assert [(flow.mark, count) for flow, count in new.maps["flows"].items()] == [(7, 70)]
        assert list(new.maps["packets_by_version"].values()) == [0, 3, 2, 0]
        execute()
        assert new.maps["execs_by_version"][2] >= 1
        assert new.bss.exits >= 1


def test_it_reports_what_became_of_maps_and_links(running, agents):
    reloaded = pybpf.reload(running, agents[2], maps={"flows": None})
    with reloaded.object:
        assert by_program(reloaded) == {
            "count_packets": "updated",
            "count_execs": "overlapped",
            "only_in_the_first": "ended",
            "count_exits": "added",
        }
        assert {"packets_by_version", "execs_by_version"} <= set(reloaded.maps.kept)
        assert {"flows", ".rodata"} <= set(reloaded.maps.fresh)
        assert reloaded.maps.migrated == (".bss",)


def test_variables_stay_where_they_are_laid_out_alike(running, agents, udp):
    send(udp, 3)
    reloaded = pybpf.reload(running, agents[1])
    with reloaded.object as new:
        assert new.bss.packets == 3
        send(udp)
        assert new.bss.packets == 4


def test_variables_stay_where_their_section_changed(running, agents, udp):
    send(udp, 3)
    with pybpf.reload(running, agents[2]).object as new:
        assert new.bss.packets == 3


COUNTERS = """
unsigned long long {0}, {1};

SEC("socket")
int count(void *ctx)
{{
	{0} += 1;
	{1} += 2;
	return 0;
}}
"""


def test_variables_in_the_place_of_others_begin_anew(tmp_path):
    """Two sections of one size, with other variables in them."""
    older = compile_bpf(tmp_path, "older", COUNTERS.format("seen", "dropped"))
    newer = compile_bpf(tmp_path, "newer", COUNTERS.format("passed", "seen"))
    obj = pybpf.load(older)
    obj.bss.seen, obj.bss.dropped = 3, 5
    reloaded = pybpf.reload(obj, newer)
    with reloaded.object as new:
        assert (new.bss.seen, new.bss.passed) == (3, 0)
    assert reloaded.maps.migrated == (".bss",)


def test_maps_laid_out_otherwise_are_refused_with_the_difference(running, agents, udp):
    with pytest.raises(pybpf.LayoutError) as refused:
        pybpf.reload(running, agents[3])
    assert "map 'flows'" in str(refused.value)
    assert "zone" in str(refused.value)
    assert_unchanged(running, udp)


def assert_unchanged(running, udp):
    """The first version runs, alone, and is attached as it was."""
    assert running.state == "loaded"
    assert len(running.links) == 3
    before = running.maps["packets_by_version"].to_dict()
    send(udp)
    assert running.maps["packets_by_version"].to_dict() == before | {1: before[1] + 1}
    links = {each.program_id for each in pybpf.links()}
    assert {link.source.id for link in running.links} == links & our_programs()


def our_programs():
    return {each.id for each in pybpf.programs() if each.name.startswith(("count_", "only_in"))}


def test_a_function_takes_their_content_over(running, agents):
    running.maps["flows"][7,] = 70

    def migrate(old, new):
        for flow, count in old.items():
            new[{"mark": flow.mark, "zone": 1}] = count

    with pybpf.reload(running, agents[3], maps={"flows": migrate}).object as new:
        assert [(flow.zone, count) for flow, count in new.maps["flows"].items()] == [(1, 70)]


def test_a_function_for_no_map_of_both_is_an_error(running, agents, udp):
    with pytest.raises(pybpf.NotFoundError, match="flowz"):
        pybpf.reload(running, agents[2], maps={"flowz": None})
    assert_unchanged(running, udp)


def test_constants_are_set_by_a_function(running, agents, udp):
    def configure(new):
        new.rodata.version = 3

    with pybpf.reload(running, agents[2], configure=configure).object as new:
        send(udp)
        assert new.maps["packets_by_version"][3] == 1


def test_a_bad_health_changes_nothing(running, agents, udp):
    asked = []
    with pytest.raises(pybpf.ReloadError, match=r"0\.1 s"):
        pybpf.reload(running, agents[2], health=asked.append, timeout=0.1)
    assert len(asked) > 1
    assert_unchanged(running, udp)


def test_an_exception_of_the_health_changes_nothing(running, agents, udp):
    def health(new):
        assert new.programs["count_packets"].test_run(b"\0" * 64).retval == 2
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pybpf.reload(running, agents[2], health=health)
    assert_unchanged(running, udp)


def test_a_refused_link_puts_the_others_back(running, agents, udp, monkeypatch):
    def refuse(program):
        raise pybpf.AttachError("attach", "it", 22)

    tracing = next(link for link in running.links if link.source.name == "count_execs")
    monkeypatch.setattr(tracing, "_again", refuse)
    with pytest.raises(pybpf.AttachError):
        pybpf.reload(running, agents[2])
    assert_unchanged(running, udp)


def test_an_object_that_does_not_load_changes_nothing(running, bpf_object, udp):
    with pytest.raises(pybpf.VerifierError):
        pybpf.reload(running, bpf_object("refused"))
    with pytest.raises(pybpf.ObjectNotFoundError):
        pybpf.reload(running, "none.bpf.o")
    assert_unchanged(running, udp)


def test_only_loaded_objects_are_reloaded(agents):
    with pybpf.open(agents[1]) as obj, pytest.raises(pybpf.StateError, match="load"):
        pybpf.reload(obj, agents[2])


@pytest.mark.native
def test_no_packet_is_missed_or_counted_twice(agents, udp):
    def leave_out_others(obj):  # which take long to detach
        for program in obj.programs.values():
            program.autoload = program.name == "count_packets"

    current = pybpf.open(agents[1])
    leave_out_others(current)
    current.load()
    current.programs["count_packets"].attach_xdp("lo")
    sent = 0
    stop = threading.Event()

    def traffic():
        nonlocal sent
        while not stop.is_set():
            send(udp)
            sent += 1

    sender = threading.Thread(target=traffic)
    sender.start()
    try:
        for number in range(500):
            version = agents[1 + number % 2]
            current = pybpf.reload(current, version, configure=leave_out_others).object
    finally:
        stop.set()
        sender.join()
        counts = current.maps["packets_by_version"].to_dict()
        current.close()
    assert sent > 500
    assert sum(counts.values()) == sent
    assert counts[1]
    assert counts[2]
