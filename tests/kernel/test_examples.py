# SPDX-License-Identifier: BSD-2-Clause
"""Every example runs as its users run it, and tells of what happens meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.native

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example():
    """example(NAME, ARGS...): a running example with its output as lines; ended after the test."""
    started = []

    def start(name, *arguments):
        command = [sys.executable, "-W", "error", str(EXAMPLES / name / "main.py"), *arguments]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_every_example_is_tested_here():
    names = {path.parent.name for path in EXAMPLES.glob("*/main.py")}
    assert names == {"execsnoop"}


def test_execsnoop_tells_of_starts_and_ends(example):
    process = example("execsnoop", "--exits")
    assert process.stdout.readline().split() == ["EVENT", "PID", "PPID", "CODE", "COMM"]
    child = subprocess.Popen(["false"])
    child.wait()
    seen = {}
    while set(seen) != {"EXEC", "EXIT"}:
        event, pid, _, code, comm = process.stdout.readline().split(maxsplit=4)
        if int(pid) == child.pid:
            seen[event] = (int(code), comm.strip())
    assert seen == {"EXEC": (0, "false"), "EXIT": (1, "false")}
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert (process.returncode, stderr) == (0, "")


def test_execsnoop_watches_one_process_for_a_while(example):
    process = example("execsnoop", "--pid", "1", "--duration", "0.2")
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert len(out.splitlines()) == 1
