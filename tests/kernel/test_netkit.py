# SPDX-License-Identifier: BSD-2-Clause
"""Programs of pairs of netkit devices."""

from __future__ import annotations

import subprocess
from pathlib import Path

import features
import pybpf
import pytest
from traffic import send_frame

pytestmark = pytest.mark.usefixtures("netns")
NO_IPV6 = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")


@pytest.fixture
def obj(bpf_object):
    with pybpf.load(bpf_object("tc")) as loaded:
        yield loaded


@pytest.fixture
def pair():
    features.require("netkit")
    """The names of two devices, the primary one first, which send nothing by themselves."""
    if NO_IPV6.exists():
        NO_IPV6.write_text("1")
    subprocess.run(["ip", "link", "add", "name", "nk", "type", "netkit"], check=True)
    for name in ("nk", "nk0"):
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
    return "nk", "nk0"


def programs_run(obj, device):
    """The digits of the programs that one packet passes, in order."""
    obj.bss.ran = 0
    send_frame(device)
    return obj.bss.ran


@pytest.mark.parametrize("end", ["primary", "peer"])
def test_sees_what_that_end_sends_until_detached(obj, pair, end):
    link = obj.programs["one"].attach_netkit(pair[0], end)
    primary, peer = pair
    sender, other = (primary, peer) if end == "primary" else (peer, primary)
    assert programs_run(obj, sender) == 1
    assert programs_run(obj, other) == 0
    assert link.info().type == pybpf.LinkType.NETKIT
    assert link.what == f"program 'one' to netkit {end} of nk"
    link.detach()
    assert programs_run(obj, sender) == 0


def test_order_update_and_query(obj, pair):
    one, two, three = (obj.programs[name] for name in ("one", "two", "three"))
    first = one.attach_netkit("nk")
    two.attach_netkit("nk", before=first)
    assert programs_run(obj, "nk") == 21
    found = pybpf.query_device("nk").netkit_primary
    assert found.programs == (two.id, one.id)
    three.attach_netkit("nk", first=True, revision=found.revision)
    assert programs_run(obj, "nk") == 321
    first.update(obj.programs["drop"], expected=one)
    with pytest.raises(OSError, match="No buffer space"):
        programs_run(obj, "nk")
    assert obj.bss.ran == 329
    assert pybpf.query_device("nk0").netkit_peer.programs == (), "only the primary one tells"


def test_refusals_tell_the_reason(obj, pair):
    one = obj.programs["one"]
    with pytest.raises(pybpf.AttachError, match="device is no netkit"):
        one.attach_netkit("lo")
    with pytest.raises(pybpf.AttachError, match="by the primary one"):
        one.attach_netkit("nk0", "peer")
    with pytest.raises(ValueError, match="'primary' or 'peer', not 'both'"):
        one.attach_netkit("nk", "both")


def test_a_kernel_without_it_says_so(obj):
    with pytest.raises(pybpf.KernelError) as refused:
        obj.programs["one"].attach_netkit("lo")
    is_lacking = "netkit devices (Linux 6.7)" in refused.value.hint
    assert is_lacking == isinstance(refused.value, pybpf.NotSupportedError)
