# SPDX-License-Identifier: BSD-2-Clause
"""Hash keys with padding: what goes wrong with them, and who is told of it."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

import pybpf
import pytest

pytestmark = pytest.mark.native

PADDED = ["flows", "recent", "pairs"]


def opened(path, how=pybpf.open):
    """The object, and the LayoutWarnings of opening it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        obj = how(path)
    return obj, [each for each in caught if each.category is pybpf.LayoutWarning]


def test_what_goes_wrong(bpf_object):
    obj, _ = opened(bpf_object("hazard"), pybpf.load)
    with obj:
        assert obj.programs["store_twice"].test_run(ctx=bytes(8)).retval == 0
        flows = obj.maps["flows"]
        # two keys that no member tells apart; only the one without dirt in it is ever found
        assert len(flows) == 2
        first, second = flows
        assert first == second
        assert bytes(first) != bytes(second)
        assert flows[6, 7, 8] == 2


@pytest.mark.parametrize("how", [pybpf.open, pybpf.load])
def test_each_padded_key_is_warned_of_where_the_object_is_opened(bpf_object, how):
    obj, found = opened(bpf_object("hazard"), how)
    obj.close()
    assert [str(each.message).split("'")[3] for each in found] == PADDED
    assert {each.filename for each in found} == {__file__}
    message = str(found[0].message)
    for part in (
        "object 'hazard', map 'flows': its key, struct flow, has padding",
        "3 bytes at 1 after 'protocol', 2 bytes at 10 after 'port'.",
        "write `__u8 protocol_pad[3];` after 'protocol' in struct flow and "
        "`__u8 port_pad[2];` after 'port' in struct flow, or",
        "__builtin_memset(&key, 0, sizeof(key))",
    ):
        assert part in message
    assert "3 bytes at 13 after 'flows[1].protocol', and 1 more" in str(found[2].message)
    assert issubclass(pybpf.LayoutWarning, UserWarning)


def test_a_warning_that_is_an_error_leaves_nothing_open(bpf_object):
    with pytest.raises(pybpf.LayoutWarning):
        pybpf.open(bpf_object("hazard"))


def test_objects_without_padded_keys_open_in_silence(bpf_objects):
    left_out = {"hazard.bpf.o"}
    if pybpf.libbpf_version() < (1, 4):  # opens no arenas
        left_out.add("arena.bpf.o")
    for path in bpf_objects:
        if path.name not in left_out:
            obj, found = opened(path)
            obj.close()
            assert not found


def test_inspect_names_the_padding(bpf_object):
    command = [sys.executable, "-m", "pybpf", "inspect", str(bpf_object("hazard"))]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert shown.stderr == ""
    lines = [line for line in shown.stdout.splitlines() if line.startswith("warning: ")]
    assert [line.split("'")[1] for line in lines] == PADDED
    found = json.loads(subprocess.check_output([*command, "--json"]))
    padding = {each["name"]: each["key_padding"] for each in found["maps"]}
    assert {name for name, holes in padding.items() if holes} == set(PADDED)
    assert padding["flows"] == [
        {"offset": 1, "size": 3, "after": "protocol", "fix": "__u8 protocol_pad[3];"},
        {"offset": 10, "size": 2, "after": "port", "fix": "__u8 port_pad[2];"},
    ]


def test_the_load_command_warns_in_one_line_each(bpf_object):
    command = [sys.executable, "-m", "pybpf", "load", "--check", str(bpf_object("hazard"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert len(lines) == len(PADDED)
    assert all(line.startswith("pybpf: warning: object 'hazard', map") for line in lines)


def test_plain_keys_cost_no_reading_of_types(bpf_object):
    script = (
        "import sys, pybpf; obj = pybpf.open(sys.argv[1]); "
        "print(*(m for m in ('btf', 'shape', 'layout') if 'pybpf.' + m in sys.modules)); "
        "obj.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(bpf_object("pinned"))], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
