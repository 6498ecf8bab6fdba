# SPDX-License-Identifier: BSD-2-Clause
"""Programs on tracepoints of the kernel."""

from __future__ import annotations

import pybpf
import pytest
from test_bad_input import assert_told_well, raised_by
from traced_kernel import rename, seen

COOKIE, RAW_COOKIE = "5.15", "6.10"


def attach(program, **options):
    """Attach one of the programs to the tracepoint that rename() passes."""
    if program.name.startswith("raw"):
        return program.attach_raw_tracepoint("task_rename", **options)
    if program.name.startswith("tp_btf"):
        return program.attach_trace(**options)
    return program.attach_tracepoint("task", "task_rename", **options)


@pytest.mark.parametrize("name", ["tracepoint", "raw_tracepoint", "tp_btf"])
def test_counts_until_detached(tracer, name):
    program = tracer(name)
    link = attach(program)
    assert "task_rename" in link.what
    assert link in program._owner.links
    assert seen(program, rename) == 1
    link.detach()
    assert seen(program, rename) == 0


@pytest.mark.parametrize(
    ("name", "since"),
    [("tracepoint", COOKIE), ("raw_tracepoint", RAW_COOKIE), ("tp_btf", RAW_COOKIE)],
)
def test_a_cookie(tracer, attempt, name, since):
    attempt(since, attach, tracer(name), cookie=1)  # which it does not ask for
    program = tracer(f"{name}_cookie")
    attach(program, cookie=1 << 40)
    assert seen(program, rename, counter="cookies") == 1 << 40


@pytest.mark.parametrize("name", ["tracepoint", "raw_tracepoint"])
def test_a_pinned_program_attaches_too(tracer, bpffs, name):
    program = tracer(name)
    program.pin(bpffs / name)
    try:
        with pybpf.Program.open_pinned(bpffs / name) as pinned:
            with attach(pinned):
                assert seen(program, rename) == 1
            assert seen(program, rename) == 0
    finally:
        (bpffs / name).unlink()


def test_no_such_tracepoint(tracer):
    with pytest.raises(pybpf.AttachError, match="no tracepoint task/task_renamed"):
        tracer("tracepoint").attach_tracepoint("task", "task_renamed")
    with pytest.raises(pybpf.AttachError, match="no tracepoint 'task_renamed'"):
        tracer("raw_tracepoint").attach_raw_tracepoint("task_renamed")


@pytest.mark.parametrize("name", ["tracepoint", "raw_tracepoint"])
def test_a_program_that_reads_more_than_there_is(tracer, name):
    with pytest.raises(pybpf.AttachError, match="reads more than the tracepoint has"):
        attach(tracer(f"{name}_greedy"))


def test_a_program_of_another_section(tracer):
    program = tracer("perf_event")
    with pytest.raises(pybpf.AttachError, match="no tracepoint program"):
        program.attach_tracepoint("task", "task_rename")
    with pytest.raises(pybpf.AttachError, match="no raw_tp program"):
        program.attach_raw_tracepoint("task_rename")
    with pytest.raises(pybpf.AttachError, match="sections tp_btf, fentry"):
        program.attach_trace()


ATTACH_AS_NOBODY = """
    import os
    import encodings.ascii
    import pybpf.hooks.tracing  # while these files can be read
    with pybpf.open(sys.argv[1]) as obj:
        program = obj.programs["tracepoint"]
        program.autoload = True
        obj.load()
        os.setuid(65534)
        program.attach_tracepoint("task", "task_rename")
"""


def test_who_may_not_is_told_what_it_takes(bpf_object):
    error = raised_by(ATTACH_AS_NOBODY, bpf_object("tracing"))
    assert_told_well(error, pybpf.PrivilegeError, "uid 65534 lacks CAP_BPF, CAP_PERFMON")
