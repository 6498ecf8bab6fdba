# SPDX-License-Identifier: BSD-2-Clause
"""Struct_ops maps: registered, replaced, pinned; congestion controls and schedulers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import features
import pybpf
import pytest

AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
SCHEDULER = Path("/sys/kernel/sched_ext")


@pytest.fixture
def ops_links():
    features.require("struct_ops_links", "struct_ops_links_of_libbpf")


@pytest.fixture
def obj(bpf_object, ops_links, netns):
    with pybpf.load(bpf_object("struct_ops")) as loaded:
        yield loaded


def registered():
    return AVAILABLE.read_text().split()


def connect(control="pybpf_ops"):
    """A connection under that congestion control."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, control.encode())
        client.connect(server.getsockname())


def connections(obj):
    """How many connections the first and the second congestion control see of one."""
    before = obj.bss.first_seen, obj.bss.second_seen
    connect()
    return obj.bss.first_seen - before[0], obj.bss.second_seen - before[1]


def test_ops_are_called_until_detached(obj):
    ops = obj.maps["first"]
    link = ops.attach()
    assert link in obj.links
    assert link.source is ops
    assert link.info().type == pybpf.LinkType.STRUCT_OPS
    assert connections(obj) == (1, 0)
    link.detach()
    assert "pybpf_ops" not in registered()
    with pytest.raises(FileNotFoundError):
        connect()


def test_other_ops_take_their_place(obj):
    first, second = obj.maps["first"], obj.maps["second"]
    link = first.attach()
    link.update_map(second)
    assert link.source is second
    assert connections(obj) == (0, 1)
    link.update_map(first, expected=second)
    assert connections(obj) == (1, 0)
    with pytest.raises(pybpf.AttachError, match=r"another .* than the expected one"):
        link.update_map(second, expected=second)
    assert connections(obj) == (1, 0)


def test_ops_of_another_name_do_not_take_their_place(obj):
    link = obj.maps["first"].attach()
    with pytest.raises(pybpf.AttachError, match="EINVAL"):
        link.update_map(obj.maps["other"])
    assert connections(obj) == (1, 0)


def test_pinned_ops_outlive_their_object_and_are_replaced(bpf_object, obj, bpffs):
    with pybpf.load(bpf_object("struct_ops")) as former:
        former.maps["first"].attach().pin(bpffs / "ops")
    assert "pybpf_ops" in registered()
    with pybpf.Link.open_pinned(bpffs / "ops") as link:
        link.update_map(obj.maps["second"])
        assert connections(obj) == (0, 1)
        link.unpin(bpffs / "ops")
    assert "pybpf_ops" not in registered()


def test_a_name_that_is_taken(obj):
    obj.maps["first"].attach()
    with pytest.raises(pybpf.AttachError, match="ops of this name are registered already"):
        obj.maps["second"].attach()
    with pytest.raises(pybpf.AttachError, match="already"):
        obj.attach()
    assert [link.source for link in obj.links] == [obj.maps["first"]]


def test_a_map_that_is_none_of_ops(bpf_object):
    with (
        pybpf.load(bpf_object("kinds")) as obj,
        pytest.raises(pybpf.AttachError, match="EINVAL"),
    ):
        obj.maps["hash"].attach()


def test_ops_without_a_link_are_registered_and_nothing_more(bpf_object, bpffs):
    with pybpf.load(bpf_object("congestion")) as obj:
        link = obj.maps["pybpf_test"].attach()
        assert "pybpf_test" in registered()
        for refused in (link.info, link.fileno, lambda: link.pin(bpffs / "link")):
            with pytest.raises(pybpf.NotSupportedError, match="the kernel has no link for this"):
                refused()
        link.detach()
        assert "pybpf_test" not in registered()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_leaves_ops_without_a_link_registered(bpf_object):
    with pybpf.load(bpf_object("congestion")) as obj:
        obj.attach()
        pid = os.fork()
        if pid == 0:
            obj.close()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert "pybpf_test" in registered()
    assert "pybpf_test" not in registered()


def test_kernels_without_links_of_ops_say_so(bpf_object, kernel_btf):
    if pybpf.libbpf_version() < (1, 2):
        with pytest.raises(pybpf.NotSupportedError, match=r"need libbpf 1\.2"):
            pybpf.load(bpf_object("struct_ops"))
        return
    if "struct bpf_struct_ops_link" in kernel_btf:
        pybpf.load(bpf_object("struct_ops")).close()
        return
    with pytest.raises(pybpf.NotSupportedError, match=r"Linux 6\.4"):
        pybpf.load(bpf_object("struct_ops"))


# ---- schedulers ----------------------------------------------------------------------------------


@pytest.fixture
def schedulers(ops_links):
    features.require("sched_ext")


@pytest.mark.usefixtures("schedulers")
def test_a_scheduler_runs_tasks_until_detached(bpf_object):
    with pybpf.load(bpf_object("scheduler")) as obj:
        link = obj.maps["scheduler"].attach()
        assert (SCHEDULER / "state").read_text() == "enabled\n"
        assert (SCHEDULER / "root/ops").read_text() == "pybpf_test\n"
        subprocess.run([sys.executable, "-c", ""], check=True)
        assert obj.bss.seen > 0
        with pytest.raises(pybpf.AttachError, match="the kernel takes one alone"):
            obj.maps["scheduler"].attach()
        link.detach()
        await_state("disabled")
        seen = obj.bss.seen
        subprocess.run([sys.executable, "-c", ""], check=True)
        assert obj.bss.seen == seen


def await_state(state):
    deadline = time.monotonic() + 10
    while (SCHEDULER / "state").read_text() != f"{state}\n":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_kernels_without_schedulers_in_bpf_say_so(bpf_object, kernel_btf):
    if pybpf.libbpf_version() < (1, 2):
        with pytest.raises(pybpf.NotSupportedError, match=r"need libbpf 1\.2"):
            pybpf.load(bpf_object("scheduler"))
        return
    if "struct sched_ext_ops" in kernel_btf:
        pybpf.load(bpf_object("scheduler")).close()
        return
    with pytest.raises(pybpf.NotSupportedError, match=r"type sched_ext_ops \(Linux 6\.12\)"):
        pybpf.load(bpf_object("scheduler"))
