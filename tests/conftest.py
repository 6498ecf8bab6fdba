# SPDX-License-Identifier: BSD-2-Clause
"""What all tests share: the compiled objects, and the rule that no kernel test is skipped.

With PYBPF_KERNEL_TESTS=required (``build.py test`` as root sets it) a skipped test below kernel/
is a failure unless it is marked ``requires(FEATURE, ...)`` and features.py explains it.
"""

from __future__ import annotations

import os
from pathlib import Path

import features
import pybpf
import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent
REQUIRED = os.environ.get("PYBPF_KERNEL_TESTS") == "required"

skipped_tests = []
ran_on_kernel = 0


def pytest_runtest_setup(item):
    for mark in item.iter_markers("requires"):
        features.require(*mark.args)


@pytest.fixture
def kernel_btf():
    """The running kernel's types."""
    features.require("btf")
    return pybpf.Btf.kernel()


def bpf_object_path(name):
    """The compiled tests/bpf/NAME.bpf.c."""
    path = TESTS / f"bpf/{name}.bpf.o"
    if not path.exists():
        pytest.fail(f"{path} is missing; run: python3 build.py bpf")
    return path


@pytest.fixture
def bpf_object():
    """bpf_object(NAME): the path of the compiled tests/bpf/NAME.bpf.c."""
    return bpf_object_path


@pytest.fixture
def bpf_objects():
    """All compiled objects of the repository."""
    found = sorted(TESTS.glob("bpf/*.bpf.o")) + sorted((ROOT / "examples").glob("*/*.bpf.o"))
    assert found, "no compiled objects; run: python3 build.py bpf"
    return found


def is_kernel_test(nodeid):
    return "tests/kernel/" in nodeid or nodeid.startswith("kernel/")


def pytest_runtest_logreport(report):
    global ran_on_kernel
    if not is_kernel_test(report.nodeid):
        return
    if report.when == "call" and report.passed:
        ran_on_kernel += 1
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if features.JUSTIFIED not in reason:
            skipped_tests.append(f"{report.nodeid}: {reason}")


def pytest_sessionfinish(session, exitstatus):
    if REQUIRED and skipped_tests and session.exitstatus == 0:
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter):
    kernel = os.uname()
    terminalreporter.write_line(
        f"{ran_on_kernel} kernel tests passed natively on Linux {kernel.release} {kernel.machine}"
    )
    if REQUIRED:
        for skipped in skipped_tests:
            terminalreporter.write_line(
                f"FAILED: skipped though this kernel could run it: {skipped}"
            )
