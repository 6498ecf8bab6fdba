# SPDX-License-Identifier: BSD-2-Clause
"""Programs on the probes that programs and libraries have in their source: USDT."""

from __future__ import annotations

import os

import pybpf
import pytest
import watched

WITHOUT_PID = "5.15"


@pytest.fixture
def obj(bpf_object):
    with pybpf.open(bpf_object("usdt")) as obj:
        for program in obj.programs.values():
            program.autoload = True
        obj.load()
        yield obj


def test_all_places_of_a_probe_until_detached(obj, watched_process):
    link = obj.programs["probe"].attach_usdt(
        watched.program(), "watched", "plain", pid=watched_process.pid, cookie=1 << 40
    )
    assert f"USDT watched:plain of /proc/{watched_process.pid}/root{watched.program()}" in link.what
    watched_process.call("pass_probes", 5)
    assert (obj.bss.calls, obj.bss.argument, obj.bss.cookie) == (2, 6, 1 << 40)
    link.detach()
    watched_process.call("pass_probes", 5)
    assert obj.bss.calls == 2


def test_a_probe_that_has_a_semaphore(obj, watched_process):
    """The program runs into it only while somebody watches."""
    link = obj.programs["probe"].attach_usdt(
        watched.program(), "watched", "guarded", pid=watched_process.pid
    )
    watched_process.call("pass_probes", 5)
    assert (obj.bss.calls, obj.bss.argument) == (1, 5)
    link.detach()
    watched_process.call("pass_probes", 5)
    assert obj.bss.calls == 1


def test_a_library_in_one_process_of_two(obj, watched_process):
    obj.programs["probe"].attach_usdt("libwatched", "watched", "plain", pid=os.getpid())
    watched_process.call("pass_probes", 5)
    assert obj.bss.calls == 0
    watched.function(watched.library(), "pass_probes")(5)
    assert obj.bss.calls == 2


def test_every_process(obj, attempt):
    program = obj.programs["probe"]
    attempt(WITHOUT_PID, program.attach_usdt, watched.library(), "watched", "plain")
    watched.function(watched.library(), "pass_probes")(5)
    assert obj.bss.calls == 2


def test_by_the_sections_name(obj, attempt, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", str(watched.library().parent))
    program = obj.programs["probe"]
    attempt(WITHOUT_PID, program.attach_usdt, "libwatched", "watched", "plain").detach()
    link = obj.programs["by_section"].attach()
    watched.function(watched.library(), "pass_probes")(5)
    assert obj.bss.calls == 2
    with pytest.raises(pybpf.NotSupportedError, match="no link for this"):
        link.fileno()  # and not that of libbpf's struct, which would be 0


def test_a_fork_closes_nothing_of_its_parents(obj, watched_process):
    link = obj.programs["probe"].attach_usdt(
        watched.program(), "watched", "plain", pid=watched_process.pid
    )
    if os.fork() == 0:
        link.close()
        os.fstat(0)
        os._exit(0)
    assert os.wait()[1] == 0
    watched_process.call("pass_probes", 5)
    assert obj.bss.calls == 2


def test_no_such_probe(obj):
    with pytest.raises(pybpf.NotFoundError, match="did you mean 'watched:plain'"):
        obj.programs["probe"].attach_usdt(watched.program(), "watched", "plane")
    with pytest.raises(pybpf.NotFoundError, match="'watched:plain'; there are none"):
        obj.programs["probe"].attach_usdt(watched.shapes(), "watched", "plain")
    with pytest.raises(pybpf.ObjectFormatError, match="cannot be read as an ELF file"):
        obj.programs["probe"].attach_usdt("/etc/passwd", "watched", "plain")


def test_a_program_that_knows_nothing_of_usdt(bpf_object):
    with pybpf.open(bpf_object("uprobes")) as obj:
        obj.programs["entry"].autoload = True
        obj.load()
        with pytest.raises(pybpf.AttachError, match="includes <bpf/usdt"):
            obj.programs["entry"].attach_usdt(watched.program(), "watched", "plain")
