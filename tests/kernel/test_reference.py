# SPDX-License-Identifier: BSD-2-Clause
"""Every object is to pybpf what it is to C libbpf: it opens, holds and loads the same.

reference.c is built with the very libbpf that pybpf has. To compare third-party objects, name a
folder of .o files:  PYBPF_OBJECTS=DIR python -m pytest tests/kernel/test_reference.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.native

RINGS = (27, 31)  # BPF_MAP_TYPE_RINGBUF, BPF_MAP_TYPE_USER_RINGBUF


@pytest.fixture(scope="module")
def reference(compiled_with_libbpf):
    """reference(OBJECT): what reference.c prints of it, as {"program": [fields, ...], ...}."""
    program = compiled_with_libbpf("reference.c")

    def ask(path):
        out = subprocess.run([str(program), str(path)], stdout=subprocess.PIPE, text=True).stdout
        found = {"open": [], "program": [], "map": [], "load": [], "loaded": []}
        for line in out.splitlines():
            kind, *fields = line.split("\t")
            found[kind].append(fields)
        return found

    return ask


@pytest.fixture
def objects(bpf_objects):
    """The repository's objects, or those of PYBPF_OBJECTS."""
    folder = os.environ.get("PYBPF_OBJECTS")
    return bpf_objects if folder is None else sorted(Path(folder).glob("*.o"))


def answers(*arguments):
    """The JSON lines of a command, by object."""
    command = [sys.executable, "-m", "pybpf", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    assert done.returncode in (0, 1)
    return {answer["object"]: answer for answer in map(json.loads, done.stdout.splitlines())}


def test_objects_open_and_hold_what_c_says(reference, objects):
    seen = answers("inspect", "--json", *objects)
    for path in objects:
        answer, expected = seen[str(path)], reference(path)
        assert ("error" not in answer) == (expected["open"] == [["0"]]), path
        keys = ("name", "section", "type_id", "attach_type_id", "insns", "autoload")
        assert fields(answer, "programs", keys) == expected["program"], path
        keys = (
            *("name", "type_id", "key_size", "value_size"),
            *("max_entries", "flags", "pinning"),
        )
        assert fields(answer, "maps", keys) == expected["map"], path


def fields(answer, kind, keys):
    rows = answer.get(kind, [])
    return [
        [str(int(row[key]) if isinstance(row[key], bool) else row[key]) for key in keys]
        for row in rows
    ]


def test_objects_load_where_c_loads_them(reference, objects):
    seen = answers("load", "--check", "--json", *objects)
    for path in objects:
        answer, expected = seen[str(path)], reference(path)
        loads = expected["load"] == [["0"]]
        # pybpf loads ring buffers with a declared type of records, which libbpf alone refuses
        typed_ring = any(int(row[1]) in RINGS and row[3] != "0" for row in expected["map"])
        assert answer["loaded"] == loads or (typed_ring and answer["loaded"]), path
        if loads:
            loaded = [program["name"] for program in answer["programs"] if program["loaded"]]
            assert loaded == [name for (name,) in expected["loaded"]], path
