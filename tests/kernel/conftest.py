# SPDX-License-Identifier: BSD-2-Clause
"""Tests on the running kernel: a private mount namespace with a bpffs, and nothing left behind."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import features
import pybpf
import pytest
import watched
from cli_process import Running, Starter
from kernel_objects import held_elsewhere, kernel_ids
from pybpf._native import lib

ROOT = Path(__file__).parents[2]

CLONE_NEWNS = 0x20000
CLONE_NEWNET = 0x40000000
MS_REC, MS_PRIVATE = 0x4000, 1 << 18


def pytest_collection_modifyitems(items):
    if os.geteuid() != 0:
        for item in items:
            if "/kernel/" in str(item.path):
                item.add_marker(pytest.mark.skip(reason="needs root"))


def pytest_collection_finish():
    # what is there before the first test needs no looking through after each of them
    gc.collect()
    gc.freeze()


libc = ctypes.CDLL(None, use_errno=True)


def make_private(mount_point, recursive):
    flags = MS_PRIVATE | (MS_REC if recursive else 0)
    if libc.mount(None, mount_point.encode(), None, flags, None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), mount_point)


@pytest.fixture(scope="session", autouse=True)
def private_mounts():
    """A mount namespace of our own: what tests mount ends with them and shows nowhere else."""
    if os.geteuid() != 0:
        return
    if libc.unshare(CLONE_NEWNS):
        pytest.exit(f"cannot make a mount namespace: {os.strerror(ctypes.get_errno())}", 1)
    try:
        make_private("/", recursive=True)
    except OSError:  # a chroot, whose root is no mount point
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            make_private(line.split()[4], recursive=False)


@pytest.fixture(scope="session")
def bpffs_root(private_mounts):
    folder = tempfile.mkdtemp(prefix="pybpf-bpffs-")
    subprocess.run(["mount", "-t", "bpf", "bpf", folder], check=True)
    yield Path(folder)
    subprocess.run(["umount", folder], check=True)
    os.rmdir(folder)


@pytest.fixture
def bpffs(bpffs_root):
    """An empty folder on a bpffs; what is left there after the test fails it."""
    folder = bpffs_root / "test"
    folder.mkdir()
    yield folder
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    shutil.rmtree(folder)
    assert not left, f"left pinned: {left}"


@pytest.fixture
def cgroup_root(tmp_path):
    """The root of the cgroups of version 2."""
    root = tmp_path / "cgroups"
    root.mkdir()
    subprocess.run(["mount", "-t", "cgroup2", "none", str(root)], check=True)
    yield root
    subprocess.run(["umount", str(root)], check=True)


@pytest.fixture
def netns():
    """A network namespace of this thread's own, in which only the loopback device is, and up."""
    with open("/proc/thread-self/ns/net") as before:
        if libc.unshare(CLONE_NEWNET):
            pytest.fail(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield
        finally:
            libc.setns(before.fileno(), CLONE_NEWNET)


def open_descriptors():
    """What this process has open: {fd: target}."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[int(fd)] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            pass  # the listing's own
    return found


def fresh_ids(before):
    """The programs, maps and links of the kernel that were not there before."""
    return {(kind, number) for kind, ids in kernel_ids().items() for number in ids - before[kind]}


def lasting(suspects, seconds):
    """Those of the programs, maps and links that the kernel has not freed after so long."""
    deadline = time.monotonic() + seconds
    while suspects and time.monotonic() < deadline:
        time.sleep(0.005)
        now = kernel_ids()
        suspects = {(kind, number) for kind, number in suspects if number in now[kind]}
    return suspects


@pytest.fixture(scope="module", autouse=True)
def left_by(private_mounts):
    """Every module leaves the kernel's programs, maps and links as they were.

    {(kind, id): the test that left it}.  The kernel frees after an RCU grace period, which can take
    a quarter of a second: too long to wait for after each test.
    """
    found = {}
    if os.geteuid() != 0:
        yield found
        return
    before = kernel_ids()
    yield found
    gc.collect()
    suspects = lasting(fresh_ids(before), 0.5)
    if suspects:
        held = held_elsewhere()  # it looks at every process
        suspects = lasting({(k, n) for k, n in suspects if n not in held[k]}, 5)
    left = {suspect: found.get(suspect, "a fixture") for suspect in suspects}
    assert not left, f"left in the kernel: {left}"


@pytest.fixture(autouse=True)
def nothing_left(left_by, request):
    """Every test leaves its process's descriptors as they were; ``left_by`` looks at the rest."""
    if os.geteuid() != 0:
        yield
        return
    descriptors, ids = open_descriptors(), kernel_ids()
    yield
    gc.collect()
    gc.freeze()  # what is alive now need not be looked at after each test to come
    left_by.update(dict.fromkeys(fresh_ids(ids), request.node.name))
    left = {fd: target for fd, target in open_descriptors().items() if fd not in descriptors}
    assert not left, f"left open: {left}"


@pytest.fixture
def watched_process():
    """The program watched.c, running."""
    with watched.Process() as process:
        yield process


@pytest.fixture
def tracer(bpf_object):
    """tracer(NAME): that program of tracing.bpf.c, loaded, to count what this process does.

    More arguments are those of set_attach_target(), and properties to set before.
    """
    with contextlib.ExitStack() as objects:

        def load(name, *target, **properties):
            obj = objects.enter_context(pybpf.open(bpf_object("tracing")))
            program = obj.programs[name]
            for key, value in {"autoload": True, **properties}.items():
                setattr(program, key, value)
            if target:
                program.set_attach_target(*target)
            obj.load()
            obj.bss.process = os.getpid()
            return program

        yield load


@pytest.fixture
def attempt():
    """attempt(SINCE, CALL, ...): what CALL(...) returns.

    Skips the test where the kernel lacks what it takes, once the error has named one of the
    releases SINCE as the first that has it.
    """

    def attempt(since, call, *arguments, **options):
        try:
            return call(*arguments, **options)
        except pybpf.NotSupportedError as error:
            releases = (since,) if isinstance(since, str) else since
            if not any(f"(Linux {release})" in error.hint for release in releases):
                pytest.fail(f"does not tell that Linux {since} has it: {error}")
            features.skip_as_told(error)

    return attempt


@pytest.fixture
def switch_often():
    """Threads take turns as often as Python lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(scope="session")
def compiled_with_libbpf(tmp_path_factory):
    """compiled_with_libbpf(SOURCE): a C program of this folder, with the libbpf that pybpf has."""
    prefix = ROOT / ".build/libbpf"
    built_in = [f"-I{prefix}/include", f"{prefix}/lib/libbpf.a", "-lelf", "-lz"]
    libbpf = built_in if lib.PYBPF_HAS_LOAD_STATS else ["-lbpf"]

    def compiled(source):
        program = tmp_path_factory.mktemp("c") / source.removesuffix(".c")
        path = Path(__file__).with_name(source)
        subprocess.run(["gcc", "-o", str(program), str(path), *libbpf], check=True)
        return program

    return compiled


@pytest.fixture
def starter():
    starter = Starter()
    yield starter
    starter.go()


@pytest.fixture
def running():
    """running(ARGUMENTS...): a Running that the test's end also ends."""
    started = []

    def start(*arguments):
        started.append(Running(*arguments))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()
