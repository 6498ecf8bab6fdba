# SPDX-License-Identifier: BSD-2-Clause
"""trace_pipe: what bpf_printk() writes, waiting for it, losing it, and where tracefs is mounted."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pybpf
import pytest


@pytest.fixture
def loaded(bpf_object):
    with pybpf.load(bpf_object("printk")) as obj:
        yield obj


@pytest.fixture
def pipe():
    with pybpf.trace_pipe(timeout=0) as pipe:
        for _ in pipe:  # what was written before
            pass
    with pybpf.trace_pipe(timeout=0.2) as pipe:
        yield pipe


def tell(obj, text, lines=1):
    obj.bss["text"] = text
    obj.bss["lines"] = lines
    obj.programs["print"].test_run()


@contextlib.contextmanager
def on_cpu(number):
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {number})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture
def named():
    """named(NAME): what the kernel calls this thread meanwhile."""
    own = Path(f"/proc/self/task/{threading.get_native_id()}/comm")
    before = own.read_bytes()
    yield own.write_bytes
    own.write_bytes(before.rstrip(b"\n"))


def test_the_parts_of_a_line(loaded, pipe):
    with on_cpu(0):
        tell(loaded, "hello", 3)
    lines = list(pipe)
    assert [line.message for line in lines] == ["0 hello", "1 hello", "2 hello"]
    for line in lines:
        assert (line.pid, line.cpu) == (threading.get_native_id(), 0)
        assert line.function == "bpf_trace_printk"
        assert str(line) == line.text
        assert line.text.endswith(f"bpf_trace_printk: {line.message}")
    assert lines[0].timestamp <= lines[1].timestamp <= lines[2].timestamp


@pytest.mark.parametrize("name", ["a b", "x-1 [000] d", "a: b: c", "fifteen bytes.."])
def test_a_task_may_be_called_anything(loaded, pipe, named, name):
    """The kernel notes the name when it switches to another task, and until then prints <...>."""
    named(name.encode())
    for _ in range(50):
        tell(loaded, "hello")
        time.sleep(0.01)
        line = pipe.read(1)
        assert (line.pid, line.function) == (threading.get_native_id(), "bpf_trace_printk")
        if line.task == name:
            break
    assert line.task == name


def test_a_message_of_two_lines_gives_two(loaded, pipe):
    tell(loaded, "first\n  second: -1 [000]")
    first, second = pipe
    assert (first.message, first.function) == ("0 first", "bpf_trace_printk")
    assert second == pybpf.TraceLine("  second: -1 [000]", "  second: -1 [000]")


def test_many_lines_come_in_order(loaded, pipe):
    messages = []
    for _ in range(100):
        tell(loaded, "x" * 60, 30)
        messages += [pipe.read(1).message for _ in range(30)]
    assert messages == [f"{i} {'x' * 60}" for i in range(3000)]
    assert pipe.lost == 0


def test_reading_one_at_a_time(loaded, pipe):
    assert pipe.read(0) is None
    tell(loaded, "hello", 2)
    assert pipe.read().message == "0 hello"
    assert pipe.read(0).message == "1 hello"
    assert pipe.read(0.01) is None
    tell(loaded, "again")
    assert [line.message for line in pipe] == ["2 again"]


def test_lines_that_the_kernel_had_no_room_for_are_counted(loaded, pipe):
    """What is told to be lost is exactly what is missing at that place."""
    with on_cpu(0):
        for _ in range(60):
            tell(loaded, "x" * 60, 1000)  # 100 bytes a line; the buffer holds at most 1.4 MB
    following = lost = 0
    for line in pipe:
        if line.lost:
            assert line.cpu == 0
            lost += line.lost
            following += line.lost
        else:
            assert int(line.message.split()[0]) == following
            following += 1
    assert following == 60_000
    assert pipe.lost == lost > 0


def test_the_descriptor_tells_when_lines_wait(loaded, pipe):
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    assert poll.poll(0) == []
    tell(loaded, "hello")
    assert poll.poll(1000) == [(pipe.fileno(), select.POLLIN)]
    assert pipe.read(0).message == "0 hello"
    assert poll.poll(0) == []


def waiting_thread(pipe, ended):
    def wait():
        try:
            ended.append(pipe.read())
        except pybpf.ClosedError as error:
            ended.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_line_ends_a_read_that_waits(loaded, pipe):
    ended = []
    thread = waiting_thread(pipe, ended)
    time.sleep(0.05)
    tell(loaded, "hello")
    thread.join(20)
    assert [line.message for line in ended] == ["0 hello"]


def test_closing_ends_a_read_that_waits(pipe):
    ended = []
    thread = waiting_thread(pipe, ended)
    time.sleep(0.05)
    pipe.close()
    thread.join(20)
    assert [type(error) for error in ended] == [pybpf.ClosedError]
    assert pipe.closed
    assert list(pipe) == []
    pipe.close()
    with pytest.raises(pybpf.ClosedError):
        pipe.read(0)
    with pytest.raises(pybpf.ClosedError):
        pipe.fileno()
    assert repr(pipe) == "<TracePipe closed>"


@contextlib.contextmanager
def alarm(handler):
    """Have a signal handler called in the midst of what waits."""
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_signal_handler_may_close_it(pipe):
    with alarm(lambda *_: pipe.close()), pytest.raises(pybpf.ClosedError):
        pipe.read(20)


def test_an_interrupted_read_can_be_taken_up_again(loaded, pipe):
    with alarm(signal.default_int_handler), pytest.raises(KeyboardInterrupt):
        pipe.read(20)
    tell(loaded, "hello")
    assert pipe.read(1).message == "0 hello"


def test_an_interrupt_that_raises_nothing_does_not_shorten_a_wait(pipe):
    start = time.monotonic()
    with alarm(lambda *_: None):
        assert pipe.read(0.3) is None
    assert time.monotonic() - start >= 0.3


@pytest.mark.requires("one_trace_pipe")
def test_one_reader_at_a_time(pipe):
    with pytest.raises(pybpf.KernelError, match="open trace_pipe: EBUSY") as refused:
        pybpf.trace_pipe()
    assert "only one" in refused.value.hint


def test_one_that_is_dropped_is_closed_with_a_warning(pipe):
    pipe.close()
    with pytest.warns(ResourceWarning, match="unclosed <TracePipe>"):
        pybpf.trace_pipe().fileno()
    pybpf.trace_pipe().close()


@pytest.fixture
def no_tracefs():
    """Empty folders where a tracefs is looked for: mount(FOLDER) puts one into one of them."""
    mounted = []

    def mount(kind, folder):
        subprocess.run(["mount", "-t", kind, "none", folder], check=True)
        mounted.append(folder)

    for folder in ("/sys/kernel/tracing", "/sys/kernel/debug"):
        mount("tmpfs", folder)
    os.mkdir("/sys/kernel/debug/tracing")
    yield lambda folder: mount("tracefs", folder)
    for folder in reversed(mounted):
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("folder", ["/sys/kernel/tracing", "/sys/kernel/debug/tracing", None])
def test_wherever_tracefs_is(loaded, no_tracefs, folder):
    if folder:
        no_tracefs(folder)
    with pybpf.trace_pipe(timeout=0.2) as pipe:
        tell(loaded, "hello")
        assert "0 hello" in [line.message for line in pipe]


@pytest.mark.requires("user_namespaces")
@pytest.mark.usefixtures("no_tracefs")
def test_without_privilege():
    """A tracefs of one's own takes CAP_SYS_ADMIN, and not that of a user namespace."""
    code = "import pybpf; pybpf.trace_pipe()"
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "PrivilegeError" in done.stderr
    assert "CAP_SYS_ADMIN of a user namespace" in done.stderr


def test_many_are_opened_and_closed(pipe):
    pipe.close()
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(200):
        pybpf.trace_pipe().close()
    assert set(os.listdir("/proc/self/fd")) == before
