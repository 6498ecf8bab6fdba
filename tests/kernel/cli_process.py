# SPDX-License-Identifier: BSD-2-Clause
"""The command ``pybpf`` as a process that runs on, and a process to be seen by what it loads."""

from __future__ import annotations

import json
import re
import signal
import subprocess

import pytest
from bad_objects import MODULE, assert_no_traceback


def json_lines(done):
    """What a command printed with --json: every line is a JSON object."""
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(isinstance(each, dict) for each in found)
    return found


class Starter:
    """A process that waits to start another program in its place."""

    def __init__(self):
        self.shell = subprocess.Popen(["sh", "-c", "read go; exec true"], stdin=subprocess.PIPE)
        self.pid = self.shell.pid

    def go(self):
        """Let it start the other; once."""
        if self.shell.returncode is None:
            self.shell.communicate(b"go\n")


class Running:
    """A ``pybpf`` that runs in the foreground until it is told to stop."""

    def __init__(self, *arguments):
        # where the tests run in the background of a shell, SIGINT comes ignored
        words = ["env", "--default-signal=INT", *MODULE, *map(str, arguments)]
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def lines_until(self, pattern, stream="stdout"):
        """The lines of stdout, or stderr, up to the first that matches."""
        lines = []
        for line in getattr(self.process, stream):
            lines.append(line)
            if re.search(pattern, line):
                return lines
        pytest.fail(f"ended without {pattern!r}: {''.join(lines)}{self.process.stderr.read()}")

    def ended(self):
        """Exit status, and what stdout and stderr still held."""
        out, err = self.process.communicate()
        assert_no_traceback(err)
        return self.process.returncode, out, err

    def interrupt(self, number=signal.SIGINT):
        self.process.send_signal(number)
        return self.ended()
