# SPDX-License-Identifier: BSD-2-Clause
"""Programs on functions of the kernel, by kprobes."""

from __future__ import annotations

import pybpf
import pytest
from pybpf import AttachType, ProbeMode, ProgramType
from traced_kernel import FUNCTION, seen

KPROBE, MULTI = "4.17", "5.18"
COOKIE, SESSION = (KPROBE, "5.15"), (MULTI, "6.10")
OTHER = "ksys_read"


def read_file():
    with open("/proc/self/comm") as comm:
        comm.read()


@pytest.mark.parametrize("name", ["kprobe", "kretprobe"])
def test_counts_calls_until_detached(tracer, attempt, name):
    program = tracer(name)
    link = attempt(KPROBE, program.attach_kprobe, FUNCTION)
    assert link.what == f"program {name!r} to {name} {FUNCTION}"
    assert seen(program) == 1
    link.detach()
    assert seen(program) == 0


def test_the_argument_goes_before_the_section(tracer, attempt):
    link = attempt(KPROBE, tracer("kretprobe").attach_kprobe, FUNCTION, retprobe=False)
    assert f" kprobe {FUNCTION}" in link.what


def test_the_first_function_there_is(tracer, attempt):
    program = tracer("kprobe")
    link = attempt(KPROBE, program.attach_kprobe, ["no_such_function", FUNCTION, OTHER])
    assert link.what.endswith(f" kprobe {FUNCTION}")
    assert seen(program) == 1


def test_a_cookie(tracer, attempt):
    attempt(COOKIE, tracer("kprobe").attach_kprobe, FUNCTION, cookie=1)  # which it does not ask for
    program = tracer("kprobe_cookie")
    program.attach_kprobe(FUNCTION, cookie=1 << 40)
    assert seen(program, counter="cookies") == 1 << 40


def test_an_offset_is_an_instruction(tracer, attempt):
    program = tracer("kprobe")
    attempt(KPROBE, program.attach_kprobe, FUNCTION).detach()
    refused = []
    for offset in range(1, 16):
        try:
            program.attach_kprobe(FUNCTION, offset=offset)
            break
        except pybpf.AttachError as error:
            refused.append(error)
    assert "midst of an instruction" in refused[0].hint
    assert seen(program) == 1


@pytest.mark.parametrize("mode", ProbeMode)
def test_modes(tracer, attempt, mode):
    program = tracer("kprobe")
    if pybpf.libbpf_version() < (1, 2):
        with pytest.raises(pybpf.NotSupportedError, match=r"libbpf 1\.2"):
            program.attach_kprobe(FUNCTION, mode=mode)
        return
    since = COOKIE if mode == ProbeMode.LINK else KPROBE
    link = attempt(since, program.attach_kprobe, FUNCTION, mode=mode)
    assert seen(program) == 1
    if mode == ProbeMode.LINK:
        assert link.info().type == pybpf.LinkType.PERF_EVENT
    link.detach()
    assert seen(program) == 0


def test_no_such_function(tracer, attempt):
    program = tracer("kprobe")
    attempt(KPROBE, program.attach_kprobe, FUNCTION).detach()
    with pytest.raises(pybpf.AttachError, match=f"no function 'do_sys_opennat2'.*{FUNCTION}"):
        program.attach_kprobe("do_sys_opennat2")


def test_a_function_that_cannot_be_probed(tracer, attempt):
    program = tracer("kprobe")
    attempt(KPROBE, program.attach_kprobe, FUNCTION).detach()
    with pytest.raises(pybpf.AttachError, match="lets nobody probe"):
        program.attach_kprobe("notify_die")


@pytest.mark.parametrize("name", ["kprobe_multi", "kretprobe_multi"])
def test_many_functions_by_one_link(tracer, attempt, name):
    program = tracer(name)
    link = attempt(MULTI, program.attach_kprobe_multi, "do_sys_op?n*")
    assert link.info().type == pybpf.LinkType.KPROBE_MULTI
    assert seen(program) == 1
    link.detach()
    assert seen(program) == 0


def test_a_cookie_for_each_function(tracer, attempt):
    attempt(MULTI, tracer("kprobe_multi").attach_kprobe_multi, [FUNCTION], cookies=[1])
    program = tracer("kprobe_multi_cookie")
    program.attach_kprobe_multi([OTHER, FUNCTION], cookies=[100, 1])
    assert seen(program, counter="cookies") == 1
    assert seen(program, read_file, counter="cookies") > 100


@pytest.mark.parametrize(
    ("functions", "hint"),
    [
        ("no_such_function_*", "no function that ftrace can trace matches"),
        ([FUNCTION, "do_sys_opennat2"], f"no function 'do_sys_opennat2'.*{FUNCTION}"),
    ],
)
def test_functions_that_are_none(tracer, attempt, functions, hint):
    program = tracer("kprobe_multi")
    attempt(MULTI, program.attach_kprobe_multi, [FUNCTION]).detach()
    with pytest.raises(pybpf.AttachError, match=hint):
        program.attach_kprobe_multi(functions)


def test_cookies_and_functions_that_do_not_fit(tracer):
    program = tracer("kprobe_multi")
    with pytest.raises(ValueError, match="no function is named"):
        program.attach_kprobe_multi([])
    with pytest.raises(ValueError, match="no function is named"):
        program.attach_kprobe([])
    with pytest.raises(ValueError, match="2 cookies for 1 functions"):
        program.attach_kprobe_multi([FUNCTION], cookies=[1, 2])
    with pytest.raises(ValueError, match="not with a pattern"):
        program.attach_kprobe_multi("do_*", cookies=[1])


def test_a_program_that_is_not_for_many(tracer, attempt):
    attempt(MULTI, tracer("kprobe_multi").attach_kprobe_multi, FUNCTION).detach()
    with pytest.raises(pybpf.AttachError, match=r'of section "kprobe\.multi"'):
        tracer("kprobe").attach_kprobe_multi(FUNCTION)


def test_a_session_runs_at_the_return_too(tracer, attempt):
    program = tracer(
        "kprobe_session",
        type=ProgramType.KPROBE,  # old libbpfs do not know the section
        expected_attach_type=AttachType.TRACE_KPROBE_SESSION,
    )
    if pybpf.libbpf_version() < (1, 5):
        with pytest.raises(pybpf.NotSupportedError, match=r"libbpf 1\.5"):
            program.attach_kprobe_multi(FUNCTION)
        return
    link = attempt(SESSION, program.attach_kprobe_multi, FUNCTION)
    assert seen(program) == 2
    link.detach()
    assert seen(program) == 0


@pytest.mark.parametrize("name", ["ksyscall", "kretsyscall"])
def test_system_calls(tracer, attempt, name):
    program = tracer(name)
    link = attempt(KPROBE, program.attach_ksyscall, "openat")
    assert seen(program) == 1
    link.detach()
    assert seen(program) == 0


def test_a_cookie_of_a_system_call(tracer, attempt):
    attempt(COOKIE, tracer("ksyscall").attach_ksyscall, "openat", cookie=1)
    program = tracer("ksyscall_cookie")
    program.attach_ksyscall("openat", cookie=7)
    assert seen(program, counter="cookies") == 7


def test_no_such_system_call(tracer, attempt):
    program = tracer("ksyscall")
    attempt(KPROBE, program.attach_ksyscall, "openat").detach()
    with pytest.raises(pybpf.AttachError, match="no system call 'openatt'"):
        program.attach_ksyscall("openatt")
