# SPDX-License-Identifier: BSD-2-Clause
"""Programs on many functions of user space at once: uprobe.multi and sessions."""

from __future__ import annotations

import re
from contextlib import ExitStack

import pybpf
import pytest
import watched
from pybpf import AttachType, ProgramType, functions

MULTI, SESSION = "6.6", "6.13"
KINDS = {"session": AttachType.TRACE_UPROBE_SESSION, "entry": 0}


@pytest.fixture
def watcher(bpf_object):
    """watcher(NAME): that program of uprobes.bpf.c, loaded, and its object's variables.

    libbpf before 1.3 does not know the sections.
    """
    with ExitStack() as objects:

        def load(name):
            obj = objects.enter_context(pybpf.open(bpf_object("uprobes")))
            program = obj.programs[name]
            program.type = ProgramType.KPROBE
            program.expected_attach_type = KINDS.get(name, AttachType.TRACE_UPROBE_MULTI)
            program.autoload = True
            obj.load()
            return program, obj.bss

        yield load


@pytest.fixture
def many(watcher, attempt):
    """The program of section uprobe.multi and the variables, where the kernel has such links."""
    program, seen = watcher("many")
    attempt(MULTI, program.attach_uprobe_multi, watched.program(), "add_one").detach()
    return program, seen


SYMBOLS = {"glob": "add_*", "question marks": "add_???", "regex": re.compile("add_(one|two)")}


@pytest.mark.parametrize("symbols", SYMBOLS.values(), ids=SYMBOLS.keys())
def test_all_that_match(many, watched_process, symbols):
    program, seen = many
    link = program.attach_uprobe_multi(watched.program(), symbols)
    assert link.info().type == pybpf.LinkType.UPROBE_MULTI
    watched_process.call("add_one", 1)
    watched_process.call("add_two", 2)
    watched_process.call("call_twin", 3)
    assert seen.calls == 2
    link.detach()
    watched_process.call("add_one", 1)
    assert seen.calls == 2


def test_a_list_with_cookies(many, watcher, watched_process):
    program, seen = watcher("many_with_cookies")
    offset = next(iter(functions.named(str(watched.program()), "add_two")))
    link = program.attach_uprobe_multi(watched.program(), ["add_one", offset], cookies=[1 << 40, 7])
    assert link.what.endswith(f":add_one, {offset:#x}")
    watched_process.call("add_one", 1)
    assert seen.cookies == 1 << 40
    watched_process.call("add_two", 1)
    assert seen.cookies == (1 << 40) + 7


def test_one_process_of_two(many, watched_process):
    program, seen = many
    program.attach_uprobe_multi(watched.program(), "add_*", pid=watched_process.pid)
    with watched.Process() as other:
        other.call("add_two", 1)
        assert seen.calls == 0
    watched_process.call("add_two", 1)
    assert seen.calls == 1


def test_overloads_of_c_plus_plus(many):
    program, seen = many
    link = program.attach_uprobe_multi(watched.shapes(), "shapes::Square::scale*")
    assert "shapes::Square::scale(double)" in link.what
    watched.function(watched.shapes(), "area_of_scaled")(3)
    assert seen.calls == 2


def test_where_functions_return(watcher, attempt, watched_process):
    program, seen = watcher("many_at_return")
    attempt(MULTI, program.attach_uprobe_multi, watched.program(), ["add_one"])
    watched_process.call("add_one", 5)
    assert (seen.calls, seen.value) == (1, 6)


@pytest.mark.parametrize(("ends", "calls"), [(0, 2), (1, 1)])
def test_a_session_runs_at_both_ends(watcher, attempt, watched_process, ends, calls):
    program, seen = watcher("session")
    seen.session_ends = ends
    attempt(SESSION, program.attach_uprobe_multi, watched.program(), "add_one")
    watched_process.call("add_one", 5)
    assert seen.calls == calls


def test_a_pinned_link_stays(many, watched_process, bpffs):
    program, seen = many
    link = program.attach_uprobe_multi(watched.program(), "add_one")
    link.pin(bpffs / "link")
    link.close()
    watched_process.call("add_one", 5)
    (bpffs / "link").unlink()
    assert seen.calls == 1


def test_another_number_of_cookies(many):
    program, _ = many
    with pytest.raises(ValueError, match="1 cookies for 2 functions"):
        program.attach_uprobe_multi(watched.program(), ["add_one", "add_two"], cookies=[1])
    with pytest.raises(ValueError, match="no functions"):
        program.attach_uprobe_multi(watched.program(), [])


def test_nothing_matches(many):
    program, _ = many
    with pytest.raises(pybpf.NotFoundError, match=r"'addd_\*'"):
        program.attach_uprobe_multi(watched.program(), "addd_*")
    with pytest.raises(pybpf.NotFoundError, match="did you mean 'add_one'"):
        program.attach_uprobe_multi(watched.program(), ["add_two", "add_onne"])


def test_a_program_of_another_section(many, watcher):
    program, _ = watcher("entry")
    with pytest.raises(pybpf.AttachError, match=r"section is none of uprobe\.multi"):
        program.attach_uprobe_multi(watched.program(), "add_one")
