# SPDX-License-Identifier: BSD-2-Clause
"""Lines of trace_pipe, as the kernel's options and versions make them."""

from __future__ import annotations

import pytest
from pybpf.tracing import TraceLine, parse


def test_all_parts_of_a_line():
    text = "          python-31337   [003] d..31 12345.678901: bpf_trace_printk: took 5 us: fine"
    assert parse(text.encode()) == TraceLine(
        text=text,
        message="took 5 us: fine",
        task="python",
        pid=31337,
        tgid=None,
        cpu=3,
        flags="d..31",
        timestamp=12345.678901,
        function="bpf_trace_printk",
        lost=0,
    )
    assert str(parse(text.encode())) == text


@pytest.mark.parametrize(
    "name",
    [
        "<idle>",
        "<...>",
        "a b",
        "[kworker/0:1]",
        "x-1 [000] d",
        "-1-2-3",
        "a: b: c",
        "ünïcödé",
        "exactly15bytes.",
    ],
)
def test_a_task_may_be_called_anything(name):
    padded = name.encode().rjust(16)
    line = parse(padded + b"-42      [001] ....1   5.000001: bpf_trace_printk: hi")
    assert (line.task, line.pid, line.cpu, line.message) == (name, 42, 1, "hi")


@pytest.mark.parametrize(
    ("between", "tgid", "cpu", "flags", "timestamp"),
    [
        ("-7       [000] d..3  1234.500000: ", None, 0, "d..3", 1234.5),  # until Linux 5.16
        ("-7     [000] d..3  1234.500000: ", None, 0, "d..3", 1234.5),  # until 5.9
        ("-7       (     12) [000] ..... 1234567.500000: ", 12, 0, ".....", 1234567.5),
        ("-7       (-------) [000] .....     0.000001: ", None, 0, ".....", 1e-6),
        ("-7       [127]  1234.500000: ", None, 127, None, 1234.5),  # without irq-info
        ("-4194304 [000] d.s.3.  1234.500000: ", None, 0, "d.s.3.", 1234.5),
        ("-7       [000] d..31  10123456789012: ", None, 0, "d..31", 10123456789012),  # x86-tsc
    ],
)
def test_options_and_versions(between, tgid, cpu, flags, timestamp):
    line = parse(f"{'cat':>16}{between}bpf_trace_printk: 12: 34".encode())
    assert (line.tgid, line.cpu, line.flags, line.timestamp) == (tgid, cpu, flags, timestamp)
    assert (line.task, line.function, line.message) == ("cat", "bpf_trace_printk", "12: 34")


@pytest.mark.parametrize(
    ("event", "function", "message"),
    [
        ("bpf_trace_printk: ", "bpf_trace_printk", ""),
        ("tracing_mark_write: a: b", "tracing_mark_write", "a: b"),
        ("schedule <-do_nanosleep", None, "schedule <-do_nanosleep"),
        ("bpf_trace_printk: \N{GREEK SMALL LETTER MU}s", "bpf_trace_printk", "\u03bcs"),
    ],
)
def test_functions_and_messages(event, function, message):
    line = parse(b"             cat-7       [000] d..31  1.000000: " + event.encode())
    assert (line.function, line.message) == (function, message)


def test_lost_lines_are_told():
    line = parse(b"CPU:1 [LOST 199919 EVENTS]")
    assert (line.cpu, line.lost, line.message) == (1, 199919, "CPU:1 [LOST 199919 EVENTS]")
    assert line.task is line.pid is line.function is line.timestamp is None


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"the second line of a message",
        b"CPU:1 [LOST 5 EVENTS] and more",
        b"             cat-7       [000] d..31  1.000000 no colon",
        b"             cat_7       [000] d..31  1.000000: bpf_trace_printk: x",
        b"             cat-7",
        b"x" * 5000,
    ],
)
def test_a_line_that_looks_different_is_kept_whole(line):
    text = line.decode()
    assert parse(line) == TraceLine(text=text, message=text)


def test_bytes_that_are_no_text():
    line = parse(b"            c\xffat-7       [000] d..31  1.000000: bpf_trace_printk: \xfe\r\0.")
    assert (line.task, line.message) == ("c\ufffdat", "\ufffd\r\0.")
