# SPDX-License-Identifier: BSD-2-Clause
"""What the kernel made of programs, and their instructions as the verifier spells them."""

from __future__ import annotations

import re

import pybpf
import pytest
from pybpf import instructions

STEP = re.compile(r"^(\d+): \([0-9a-f]{2}\) (.*?)(?: *;.*)?$", re.MULTILINE)


@pytest.fixture
def called(kernel_btf):
    """The names of helpers by number."""
    numbers = kernel_btf["enum bpf_func_id"].values
    return {
        (instructions.HELPER, number): f"bpf_{name.removeprefix('BPF_FUNC_')}"
        for name, number in numbers.items()
    }


def is_decided(text, logged):
    """Whether the verifier wrote over a branch that constants decide, as Linux 7.2 does first."""
    return text.startswith("if ") and logged.startswith("goto ")


@pytest.mark.parametrize(
    "name",
    [
        "everything",
        "iterators",
        pytest.param("rings", marks=pytest.mark.requires("bpf_loop")),
        "agent2",
    ],
)
def test_text_is_that_of_the_verifiers_log(bpf_object, called, name):
    compared = 0
    with pybpf.open(bpf_object(name), log_level=2) as obj:
        obj.load()
        for program in (each for each in obj.programs.values() if each.loaded):
            logged = {int(pc): text for pc, text in STEP.findall(program.verifier_log)}
            for each in instructions.parse(program.insns):
                if each.pc in logged and not (each.is_wide and each.src):  # there it has addresses
                    text = instructions.text(each, called)
                    assert text == logged[each.pc] or is_decided(text, logged[each.pc])
                    compared += 1
    assert compared > 10


@pytest.fixture
def program(bpf_object):
    with pybpf.load(bpf_object("agent1")) as obj:
        yield obj.programs["count_packets"]


def test_rewritten_instructions_have_lines_functions_and_map_ids(program):
    code = program.xlated()
    assert code[0].function == "count_packets"
    assert code[-1].text == "exit"
    lines = [each.line for each in code if each.line]
    assert lines[0].file.endswith("agent.h")
    assert "version" in lines[0].text
    assert lines[0].number > 1
    ids = {int(id) for each in code for id in re.findall(r"map\[id:(\d+)\]", each.text)}
    assert ids <= set(program.info().map_ids)
    assert ids


def test_calls_of_the_kernel_have_names(bpf_object):
    with pybpf.load(bpf_object("iterators")) as obj:
        texts = [each.text for each in obj.programs["tasks"].xlated()]
    assert [text for text in texts if text.startswith("call bpf_seq_")]


def test_machine_code_has_lines(program):
    (function,) = program.jited()
    assert function.name == "count_packets"
    assert len(function.code) == program.info().jited_size
    offsets = [offset for offset, _ in function.lines]
    assert offsets == sorted(offsets)
    assert offsets[-1] < len(function.code)
    assert "return XDP_PASS" in function.lines[-1][1].text
