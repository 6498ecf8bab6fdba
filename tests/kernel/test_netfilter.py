# SPDX-License-Identifier: BSD-2-Clause
"""Programs at netfilter's hooks."""

from __future__ import annotations

import socket
import subprocess

import pybpf
import pytest
from lacking import skipped_without
from pybpf import NetfilterHook
from traffic import send

pytestmark = pytest.mark.usefixtures("netns")


@pytest.fixture
def obj(bpf_object):
    with pybpf.open(bpf_object("netfilter")) as opened:
        for program in opened.programs.values():  # libbpf knows the section since 1.3
            program.type = pybpf.ProgramType.NETFILTER
            program.expected_attach_type = pybpf.AttachType.NETFILTER
        with skipped_without("section 'netfilter' (Linux 6.4)"):
            opened.load()
        yield opened


def packets_seen(obj):
    before = obj.bss.seen
    send()
    return obj.bss.seen - before


@pytest.mark.parametrize("hook", ["PRE_ROUTING", "LOCAL_IN", "LOCAL_OUT", "POST_ROUTING"])
def test_sees_packets_until_detached(obj, hook):
    link = obj.programs["accept"].attach_netfilter(socket.AF_INET, NetfilterHook[hook])
    assert packets_seen(obj) == 1
    link.detach()
    assert packets_seen(obj) == 0


def test_the_link_tells_where(obj):
    link = obj.programs["accept"].attach_netfilter(
        socket.AF_INET6, NetfilterHook.FORWARD, priority=-7
    )
    assert packets_seen(obj) == 0, "these packets are of the other family"
    assert link.what == "program 'accept' to netfilter FORWARD of family 10, priority -7"
    info = link.info()
    assert (info.family, info.hook, info.priority) == (10, NetfilterHook.FORWARD, -7)


def test_the_lower_priority_comes_first(obj):
    def attach(name, priority):
        program = obj.programs[name]
        return program.attach_netfilter(socket.AF_INET, NetfilterHook.LOCAL_IN, priority=priority)

    drop = attach("drop", 10)
    accept = attach("accept", 5)
    assert not send()
    assert obj.bss.seen == 1
    accept.detach()
    attach("accept", 15)
    assert not send()
    assert obj.bss.seen == 1
    drop.detach()
    assert send()
    assert obj.bss.seen == 2


def test_fragments_come_whole(obj):
    accept = obj.programs["accept"]
    subprocess.run(["ip", "link", "set", "lo", "mtu", "1500"], check=True)
    link = accept.attach_netfilter(socket.AF_INET, NetfilterHook.PRE_ROUTING)
    assert send(bytes(3000))
    assert obj.bss.longest <= 1500
    link.detach()
    with skipped_without("defragmentation (Linux 6.6)"):
        accept.attach_netfilter(socket.AF_INET, NetfilterHook.PRE_ROUTING, defrag=True)
    assert send(bytes(3000))
    assert obj.bss.longest == 3028


def test_refusals_tell_the_reason(obj):
    accept, hook = obj.programs["accept"], NetfilterHook.LOCAL_IN
    with pytest.raises(pybpf.AttachError, match="NFPROTO_IPV4"):
        accept.attach_netfilter(99, hook)
    accept.attach_netfilter(socket.AF_INET, hook, priority=1)
    with pytest.raises(pybpf.AttachError, match="another BPF program has that hook"):
        accept.attach_netfilter(socket.AF_INET, hook, priority=1)


def test_a_priority_that_is_too_low_to_defragment(obj):
    with (
        skipped_without("defragmentation (Linux 6.6)"),
        pytest.raises(pybpf.AttachError, match="above -400"),
    ):
        obj.programs["accept"].attach_netfilter(
            socket.AF_INET, NetfilterHook.PRE_ROUTING, priority=-500, defrag=True
        )
