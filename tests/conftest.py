# SPDX-License-Identifier: BSD-2-Clause
"""What all tests share: the compiled objects, and the rule that no kernel test is skipped.

With PYBPF_KERNEL_TESTS=required (``build.py test`` as root sets it) a skipped test below kernel/
is a failure unless it goes through kernel_lacks(), which names what was probed for in vain.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pybpf
import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent
REQUIRED = os.environ.get("PYBPF_KERNEL_TESTS") == "required"
JUSTIFIED = "this kernel refuses: "

skipped_tests = []
ran_on_kernel = 0


def kernel_lacks(what):
    """Skip the running test because the kernel has been asked for ``what`` and refused."""
    pytest.skip(JUSTIFIED + what)


@pytest.fixture(name="kernel_lacks")
def skipping():
    """kernel_lacks(WHAT), for tests that probe by themselves."""
    return kernel_lacks


@pytest.fixture
def user_namespaces():
    """For tests that make one, which no process in a chroot may."""
    probe = ["unshare", "--user", "--map-root-user", "true"]
    if subprocess.run(probe, stderr=subprocess.DEVNULL).returncode:
        kernel_lacks("user namespaces (in a chroot, or by user.max_user_namespaces)")


@pytest.fixture
def user_rings():
    """For tests that load one."""
    kind = pybpf.MapType.USER_RINGBUF
    try:
        pybpf.Map.create(kind, key_size=0, value_size=0, max_entries=4096).close()
    except pybpf.KernelError:
        kernel_lacks("maps of type USER_RINGBUF (Linux 6.1)")


@pytest.fixture
def kernel_btf():
    """The running kernel's types."""
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        kernel_lacks("types of its own (CONFIG_DEBUG_INFO_BTF)")
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
        if JUSTIFIED not in reason:
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
