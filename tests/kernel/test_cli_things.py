# SPDX-License-Identifier: BSD-2-Clause
"""``pybpf prog``, ``map``, ``link`` and ``reload`` as processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pybpf
import pytest
from bad_objects import assert_no_traceback

pytestmark = [pytest.mark.native, pytest.mark.usefixtures("netns")]


def pybpf_run(*arguments):
    """(exit status, stdout, stderr)"""
    command = [sys.executable, "-m", "pybpf", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert_no_traceback(done.stderr)
    return done.returncode, done.stdout, done.stderr


def printed(*arguments):
    status, out, err = pybpf_run(*arguments)
    assert (status, err) == (0, "")
    return out


def printed_json(*arguments):
    return json.loads(printed(*arguments, "--json"))


@pytest.fixture
def obj(bpf_object):
    with pybpf.load(bpf_object("agent1")) as loaded:
        loaded.programs["count_packets"].attach_xdp("lo")
        yield loaded


def test_lists_name_what_there_is_and_who_holds_it(obj):
    (link,) = obj.links
    program, flows = obj.programs["count_packets"], obj.maps["flows"]
    me = {"pid": os.getpid(), "name": open_comm()}
    for kind, thing in (("prog", program), ("map", flows), ("link", link)):
        (found,) = [each for each in printed_json(kind, "list") if each["id"] == thing.id]
        assert found["owners"] == [me]
        table = printed(kind, "list")
        (row,) = [line for line in table.splitlines() if line.split()[0] == str(thing.id)]
        assert f"{me['name']} ({me['pid']})" in row
    assert "XDP of lo" in printed("link", "list")


def open_comm():
    with open("/proc/self/comm") as comm:
        return comm.read().strip()


def test_one_is_shown_by_id_name_or_pin(obj, bpffs):
    program = obj.programs["count_packets"]
    shown = printed_json("prog", "show", program.id)
    assert shown["name"] == "count_packets"
    assert shown["type"] == "XDP"
    assert printed_json("prog", "show", "count_packets") == shown
    assert printed("prog", "pin", "count_packets", bpffs / "p") == ""
    try:
        assert printed_json("prog", "show", bpffs / "p") == shown
    finally:
        (bpffs / "p").unlink()
    assert "count_packets" in printed("prog", "show", program.id)


def test_the_code_of_a_program_is_shown_with_its_lines(obj):
    text = printed("prog", "dump", "count_packets")
    assert text.startswith("count_packets:\n")
    assert "; return XDP_PASS; @ agent.h:" in text
    assert text.endswith(": exit\n")
    code = printed_json("prog", "dump", "count_packets")
    assert code[-1]["text"] == "exit"
    machine = printed("prog", "dump", "count_packets", "--jited")
    assert "; return XDP_PASS; @ agent.h:" in machine
    assert "ret" in machine


def test_entries_are_read_and_written_as_json(obj):
    assert printed("map", "update", "flows", '{"mark": 7}', "5") == ""
    assert obj.maps["flows"][7,] == 5
    assert printed("map", "lookup", "flows", "[7]") == "5\n"
    assert printed("map", "dump", "flows") == '{"mark": 7}: 5\n'
    assert printed_json("map", "dump", "flows") == [{"key": {"mark": 7}, "value": 5}]
    assert printed("map", "delete", "flows", '{"mark": 7}') == ""
    assert len(obj.maps["flows"]) == 0
    assert printed_json("map", "show", "flows")["key_type"] == "struct flow"


def test_what_is_missing_or_wrong_is_said(obj):
    assert pybpf_run("map", "lookup", "flows", "[7]") == (
        1,
        "",
        "pybpf: map 'flows' has no entry [7]\n",
    )
    status, _, err = pybpf_run("map", "update", "flows", '{"marks": 7}', "5")
    assert status == 1
    assert "mark" in err
    status, _, err = pybpf_run("map", "update", "flows", '{"mark": 7}', "many")
    assert status == 1
    assert "'many'" in err
    status, _, err = pybpf_run("prog", "show", "no_such")
    assert status == 2
    assert "no_such" in err
    status, _, err = pybpf_run("link", "show", 4294967295)
    assert status == 1
    assert "ENOENT" in err


def test_a_name_of_several_is_refused(obj, bpf_object):
    with pybpf.load(bpf_object("agent1")) as other:
        status, _, err = pybpf_run("map", "show", "flows")
        assert status == 2
        assert str(other.maps["flows"].id) in err
        assert str(obj.maps["flows"].id) in err


def test_a_link_is_detached_whoever_holds_it(obj):
    (link,) = obj.links
    assert printed("link", "detach", link.id) == ""
    assert link.info().ifindex == 0


def test_a_pinned_object_is_reloaded(bpf_object, bpffs):
    printed("load", "--pin", bpffs / "agent", bpf_object("agent1"))
    try:
        reloaded = printed_json("reload", bpffs / "agent", bpf_object("agent2"))
        assert {each["program"]: each["how"] for each in reloaded["links"]} == {
            "count_execs": "overlapped",
            "only_in_the_first": "ended",
            "count_exits": "added",
        }
        assert "flows" in reloaded["maps"]["kept"]
        status, out, err = pybpf_run("reload", bpffs / "agent", bpf_object("agent3"))
        assert (status, out) == (1, "")
        assert "zone" in err
        table = printed("reload", bpffs / "agent", bpf_object("agent3"), "--drop", "flows")
        assert "fresh" in table
    finally:
        printed("unload", bpffs / "agent")


def test_what_is_attached_to_the_network_is_listed(obj, bpf_object):
    def rows():
        return [(each["where"], each["hook"], each["program"]) for each in printed_json("net")]

    xdp = obj.programs["count_packets"].id
    assert ("lo", "XDP, SKB", xdp) in rows()
    with pybpf.load(bpf_object("tc")) as tc:
        link = tc.programs["one"].attach_clsact("lo", "ingress")
        hook = f"clsact ingress, priority {link.filter.priority}"
        assert ("lo", hook, tc.programs["one"].id) in rows()
    assert "count_packets" in printed("net")
    obj.links[0].detach()
    assert xdp not in [program for _, _, program in rows()]
