# SPDX-License-Identifier: BSD-2-Clause
"""XDP programs on devices."""

from __future__ import annotations

import socket

import pybpf
import pytest

pytestmark = pytest.mark.usefixtures("netns")


def send():
    """One packet over the loopback device."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))  # or the kernel would answer
        udp.sendto(b"x", udp.getsockname())


@pytest.fixture
def obj(bpf_object):
    with pybpf.load(bpf_object("xdp")) as loaded:
        yield loaded


def packets_seen(obj):
    """What one packet adds to the counter."""
    before = obj.bss.seen
    send()
    return obj.bss.seen - before


def test_sees_packets_until_detached(obj):
    link = obj.programs["count"].attach_xdp("lo", mode=pybpf.XdpMode.SKB)
    assert packets_seen(obj) == 1
    assert link.info().type == pybpf.LinkType.XDP
    assert link in obj.links
    link.detach()
    assert packets_seen(obj) == 0
    assert obj.links == ()


def test_another_program_takes_its_place(obj):
    first, second = obj.programs["count"], obj.programs["count_thousands"]
    link = first.attach_xdp("lo")
    link.update(second, expected=first)
    assert packets_seen(obj) == 1000
    assert link.source is second
    with pytest.raises(pybpf.AttachError, match="another program than the expected one"):
        link.update(first, expected=first)
    assert packets_seen(obj) == 1000


def test_a_pinned_program_attaches_too(obj, bpffs):
    obj.programs["count"].pin(bpffs / "count")
    try:
        with pybpf.Program.open_pinned(bpffs / "count") as program:
            with program.attach_xdp("lo") as link:
                assert packets_seen(obj) == 1
                with pybpf.Link.from_id(link.id) as same:
                    assert same.info() == link.info()
            assert packets_seen(obj) == 0
    finally:
        (bpffs / "count").unlink()


def test_no_such_device(obj):
    with pytest.raises(pybpf.NotFoundError, match="lo"):
        obj.programs["count"].attach_xdp("lol")
    assert obj.links == ()


def test_a_program_of_another_type(bpf_object):
    with pybpf.load(bpf_object("printk")) as other:
        program = next(iter(other.programs.values()))
        with pytest.raises(pybpf.AttachError, match="EINVAL"):
            program.attach_xdp("lo")
