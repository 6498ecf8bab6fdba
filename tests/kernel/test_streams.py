# SPDX-License-Identifier: BSD-2-Clause
"""Streams of programs: what they print, what the kernel reports of them, and old kernels."""

from __future__ import annotations

import features
import pybpf
import pytest


@pytest.fixture
def any_program(bpf_object):
    with pybpf.load(bpf_object("printk")) as obj:
        yield obj.programs["print"]


@pytest.fixture
def printing(bpf_object):
    with pybpf.load(bpf_object("streams")) as obj:
        yield obj


def test_a_program_that_prints_nothing(any_program):
    if features.has("streams"):
        assert any_program.read_stdout() == any_program.read_stderr() == ""
        return
    with pytest.raises(pybpf.NotSupportedError) as refused:
        any_program.read_stdout()
    assert "read a stream of program 'print': EINVAL" in str(refused.value)
    assert "Linux 6.17" in refused.value.hint


@pytest.mark.requires("streams")
def test_streams_of_programs_that_are_not_there(any_program, bpf_object):
    with pybpf.open(bpf_object("printk")) as obj, pytest.raises(pybpf.StateError, match="load"):
        obj.programs["print"].read_stdout()
    other = pybpf.Program.from_fd(any_program.fileno())
    assert other.read_stderr() == ""
    other.close()
    with pytest.raises(pybpf.ClosedError):
        other.read_stderr()


@pytest.mark.requires("stream_printk")
def test_what_a_program_prints_comes_once(printing):
    program = printing.programs["print"]
    printing.bss.lines = 3
    program.test_run()
    with pybpf.Program.from_id(program.id) as same:
        assert same.read_stderr() == "complaint 7\n"
    assert program.read_stderr() == ""
    assert program.read_stdout() == "".join(f"line {i} of many\n" for i in range(3))
    assert program.read_stdout() == ""


@pytest.mark.requires("stream_printk")
def test_all_that_the_kernel_took_comes(printing):
    program = printing.programs["print"]
    printing.bss.lines = 50_000
    program.test_run()
    printed = printing.bss.printed
    assert 0 < printed < 50_000  # beyond 100,000 bytes the kernel takes none
    assert program.read_stdout() == "".join(f"line {i} of many\n" for i in range(printed))


@pytest.mark.requires("stream_printk")
def test_the_kernels_reports(printing):
    program = printing.programs["never_ends"]
    program.test_run()
    report = program.read_stderr()
    assert report.startswith("ERROR: Timeout detected for may_goto instruction")
    assert "streams.bpf.c" in report
