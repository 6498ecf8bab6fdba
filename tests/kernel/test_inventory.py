# SPDX-License-Identifier: BSD-2-Clause
"""What the whole kernel holds, and who holds it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pybpf
import pytest

pytestmark = pytest.mark.usefixtures("netns")


@pytest.fixture
def obj(bpf_object):
    with pybpf.load(bpf_object("xdp")) as loaded:
        yield loaded


def by_id(infos, wanted):
    (found,) = [each for each in infos if each.id == wanted.id]
    return found


def test_programs_maps_and_links_are_listed_as_they_describe_themselves(obj):
    program, counters = obj.programs["count"], obj.maps["xdp.bss"]
    link = program.attach_xdp("lo")
    assert by_id(pybpf.programs(), program) == program.info()
    assert by_id(pybpf.maps(), counters) == counters.info()
    assert by_id(pybpf.links(), link) == link.info()


def test_a_program_tells_its_maps_memory_and_age(obj):
    info = obj.programs["count"].info()
    assert info.map_ids == (obj.maps["xdp.bss"].id,)
    assert info.memory >= info.xlated_size
    age = datetime.now().astimezone() - info.loaded_at
    assert timedelta(0) < age < timedelta(minutes=1)
    assert obj.maps["xdp.bss"].info().memory >= 8


def test_ids_that_are_gone_are_left_out(obj, bpf_object):
    with pybpf.load(bpf_object("xdp")) as other:
        gone = {each.id for each in other.programs.values() if each.loaded}
        listing = pybpf.programs()
        first = next(listing)
    rest = {each.id for each in listing}
    assert obj.programs["count"].id in rest | {first.id}
    assert not gone & rest


def test_runs_are_counted_only_while_somebody_asks(obj):
    program = obj.programs["count"]
    program.test_run(b"\0" * 64)
    assert program.info().run_cnt == 0
    with pybpf.enable_stats():
        program.test_run(b"\0" * 64, repeat=10)
    info = program.info()
    assert info.run_cnt == 10
    assert info.run_time_ns > 0
    program.test_run(b"\0" * 64)
    assert program.info() == info


def test_owners_are_the_processes_with_descriptors(obj):
    link = obj.programs["count"].attach_xdp("lo")
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[link.fileno()]
    )
    try:
        owners = pybpf.owners()
    finally:
        child.communicate(b"\n")
    mine = pybpf.inventory.Owner(os.getpid(), Path("/proc/self/comm").read_text().strip())
    assert [owner.pid for owner in owners.links[link.id]] == sorted([os.getpid(), child.pid])
    assert owners.programs[obj.programs["count"].id] == [mine]
    assert owners.maps[obj.maps["xdp.bss"].id] == [mine]


def test_links_tell_what_they_are_attached_to(obj):
    link = obj.programs["count"].attach_xdp("lo")
    info = link.info()
    assert info.ifindex == socket.if_nametoindex("lo")
    assert info.where == "XDP of lo"


@pytest.mark.requires("perf_event_names")
def test_a_tracepoints_link_tells_its_name(bpf_object):
    with pybpf.load(bpf_object("everything")) as everything:
        infos = [link.info() for link in everything.attach()]
    names = [each.name for each in infos if isinstance(each, pybpf.link_info.TracepointLink)]
    assert names


@pytest.mark.requires("user_namespaces")
def test_listing_takes_a_capability():
    code = """
import pybpf
for listing in pybpf.programs, pybpf.maps, pybpf.links:
    try:
        next(listing())
    except pybpf.PrivilegeError as error:
        assert "CAP_SYS_ADMIN" in str(error), error
    else:
        raise SystemExit(1)
"""
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", code]
    subprocess.run(command, check=True)
