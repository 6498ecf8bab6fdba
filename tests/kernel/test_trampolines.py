# SPDX-License-Identifier: BSD-2-Clause
"""Programs on functions of the kernel, its modules and other programs, and in their place."""

from __future__ import annotations

import os

import features
import pybpf
import pytest
from pybpf import AttachType, ProgramType
from traced_kernel import FUNCTION, open_file, seen

COOKIE = "5.19"
SESSION = {"type": ProgramType.TRACING, "expected_attach_type": AttachType.TRACE_FSESSION}


@pytest.fixture
def loaded(tracer):
    """loaded(NAME, ...): tracer(NAME, ...), where the kernel takes such a program."""

    def load(name, *target):
        features.require("trampolines")
        if name.startswith("fsession"):  # a section that old libbpfs do not know
            features.require("fsession")
            return tracer(name, FUNCTION, **SESSION)
        return tracer(name, *target)

    return load


def run(program):
    """What the program returns for a packet."""
    return program.test_run(bytes(64)).retval


@pytest.mark.parametrize(
    ("name", "hits"), [("fentry", 1), ("fexit", 1), ("fmod_ret", 1), ("fsession", 2), ("lsm", 1)]
)
def test_counts_calls_until_detached(loaded, name, hits):
    program = loaded(name)
    link = program.attach_trace()
    assert link.what.startswith(f"program {name!r} to {name} ")
    assert link.info().type == pybpf.LinkType.TRACING
    assert seen(program) == hits
    link.detach()
    assert seen(program) == 0


@pytest.mark.parametrize("name", ["fentry", "fexit", "fmod_ret", "fsession", "lsm"])
def test_a_cookie(loaded, attempt, name):
    attempt(COOKIE, loaded(name).attach_trace, cookie=1)  # which it does not ask for
    program = loaded(f"{name}_cookie")
    program.attach_trace(cookie=1 << 40)
    assert seen(program, counter="cookies") in (1 << 40, 2 << 40)


@pytest.mark.parametrize("name", ["fmod_ret_deny", "lsm_deny"])
def test_what_a_program_returns_counts(loaded, name):
    with loaded(name).attach_trace(), pytest.raises(PermissionError):
        open_file()
    open_file()


def test_twice_is_once_too_often(loaded):
    program = loaded("fentry")
    program.attach_trace()
    with pytest.raises(pybpf.AttachError, match=r"attached already|attached once"):
        program.attach_trace()
    assert seen(program) == 1


@pytest.mark.requires("module_types")
def test_a_function_of_a_module(loaded):
    program = loaded("of_module", "ovl_open")
    program.attach_trace()
    assert seen(program, lambda: os.close(os.open(__file__, os.O_RDONLY))) >= 1


def test_a_function_of_a_program(tracer, loaded):
    target = tracer("target")
    program = loaded("of_program", "answer", target)
    with program.attach_trace():
        assert seen(program, lambda: run(target)) == 1
    assert seen(program, lambda: run(target)) == 0


def test_a_function_in_the_place_of_another(tracer, loaded):
    target, other = tracer("target"), tracer("target")
    program = loaded("replacement", "answer", target)
    assert run(target) == 11 + 102
    with program.attach_freplace(target, "answer"):
        assert run(target) == 40 + 102
    with program.attach_freplace(other, "another"):
        assert run(other) == 11 + 400
        assert run(target) == 11 + 102
    assert run(other) == 11 + 102


def test_no_such_function_to_replace(tracer, loaded):
    target = tracer("target")
    program = loaded("replacement", "answer", target)
    with pytest.raises(pybpf.AttachError, match="no global function of that name"):
        program.attach_freplace(target, "no_answer")
