# SPDX-License-Identifier: BSD-2-Clause
"""Programs of network namespaces: sk_lookup and flow dissectors."""

from __future__ import annotations

import os
import socket
import subprocess

import pybpf
import pytest
from traffic import send

pytestmark = pytest.mark.usefixtures("netns")


@pytest.fixture
def obj(bpf_object):
    with pybpf.load(bpf_object("netns")) as loaded:
        yield loaded


@pytest.fixture
def server(obj):
    """A server whose port sk_lookup refuses, in the namespace of the test."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        obj.bss.refused_port = listening.getsockname()[1]
        yield listening


def is_reached(server):
    try:
        socket.create_connection(server.getsockname(), timeout=1).close()
    except ConnectionRefusedError:
        return False
    return True


def test_sk_lookup_chooses_until_detached(obj, server):
    assert is_reached(server)
    link = obj.programs["refuse"].attach_sk_lookup()
    assert not is_reached(server)
    assert link.what == "program 'refuse' to sk_lookup of this network namespace"
    assert link.info().netns_ino == os.stat("/proc/thread-self/ns/net").st_ino
    link.detach()
    assert is_reached(server)


def test_a_namespace_by_path_and_process(obj, server):
    # the thread's own, which the test has changed
    for netns in (f"/proc/{os.getpid()}/task/{thread_id()}/ns/net", thread_id()):
        with obj.programs["refuse"].attach_sk_lookup(netns):
            assert not is_reached(server)
        assert is_reached(server)


def thread_id():
    return int(os.readlink("/proc/thread-self").rpartition("/")[2])


def test_a_namespace_by_name(obj, server):
    subprocess.run(["ip", "netns", "attach", "pybpf-test", str(thread_id())], check=True)
    try:
        with obj.programs["refuse"].attach_sk_lookup("pybpf-test") as link:
            assert not is_reached(server)
            assert link.what == "program 'refuse' to sk_lookup of network namespace pybpf-test"
        with pytest.raises(pybpf.NotFoundError, match=r"'pybpf-tset'; did you mean 'pybpf-test'"):
            obj.programs["refuse"].attach_sk_lookup("pybpf-tset")
    finally:
        subprocess.run(["ip", "netns", "delete", "pybpf-test"], check=True)


def test_another_namespace_is_untouched(obj, server):
    command = ["unshare", "--net", "sh", "-c", "echo; read end"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with obj.programs["refuse"].attach_sk_lookup(other.pid) as link:
            assert link.info().netns_ino == os.stat(f"/proc/{other.pid}/ns/net").st_ino
            assert is_reached(server)
        other.stdin.close()


def test_a_file_that_is_no_namespace(obj):
    with pytest.raises(pybpf.AttachError, match="EINVAL"):
        obj.programs["refuse"].attach_sk_lookup("/dev/null")
    with pytest.raises(pybpf.AttachError, match="open /proc/self/mem/x: ENOTDIR"):
        obj.programs["refuse"].attach_sk_lookup("/proc/self/mem/x")


def test_a_process_that_is_not_there(obj):
    with pytest.raises(pybpf.NotFoundError, match="no network namespace named '4194304'"):
        obj.programs["refuse"].attach_sk_lookup(1 << 22)


def test_a_flow_dissector_dissects_until_detached(obj):
    obj.programs["hash"].attach_clsact("lo", "egress")
    link = obj.programs["dissect"].attach_flow_dissector()
    send()
    assert obj.bss.dissected > 0
    with pytest.raises(pybpf.AttachError, match="another flow dissector"):
        obj.programs["dissect"].attach_flow_dissector()
    link.detach()
    before = obj.bss.dissected
    send()
    assert obj.bss.dissected == before
