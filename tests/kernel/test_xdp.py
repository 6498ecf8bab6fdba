# SPDX-License-Identifier: BSD-2-Clause
"""XDP programs on devices."""

from __future__ import annotations

import subprocess
import time

import pybpf
import pytest
from traffic import add_pair, send, send_frame

MODE_SHOWN = {"SKB": "xdpgeneric", "DRV": "xdp"}

pytestmark = pytest.mark.usefixtures("netns")


def ip(*arguments):
    done = subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def awaited(condition):
    """Whether it comes true within a second."""
    deadline = time.monotonic() + 1
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    return condition()


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


# ---- where and what ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["SKB", "DRV"])
def test_modes(obj, mode):
    add_pair()
    obj.programs["count"].attach_xdp("left", mode=pybpf.XdpMode[mode])
    assert MODE_SHOWN[mode] in ip("link", "show", "left").split()
    before = obj.bss.seen
    send_frame("right")
    assert awaited(lambda: obj.bss.seen > before)


def test_a_mode_that_the_device_lacks(obj):
    with pytest.raises(pybpf.AttachError, match="does not run XDP programs in this mode"):
        obj.programs["count"].attach_xdp("lo", mode=pybpf.XdpMode.DRV)


def test_a_card_that_takes_no_programs(obj, bpf_object):
    with pytest.raises(pybpf.AttachError, match="does not run XDP programs in this mode"):
        obj.programs["count"].attach_xdp("lo", mode=pybpf.XdpMode.HW)
    with pybpf.open(bpf_object("xdp")) as offloaded:
        offloaded.programs["count"].ifindex = 1
        assert offloaded.programs["count"].ifindex == 1
        with pytest.raises(pybpf.LoadError, match="'count'"):
            offloaded.load()


def test_one_program_for_a_device(obj):
    obj.programs["count"].attach_xdp("lo")
    for attach in (
        obj.programs["count_thousands"].attach_xdp,
        obj.programs["count_thousands"].attach_xdp_netlink,
    ):
        with pytest.raises(pybpf.AttachError, match="another program is attached there"):
            attach("lo")


@pytest.mark.requires("xdp_frags")
def test_packets_of_more_than_a_page(bpf_object):
    add_pair(mtu=9000)
    with pybpf.open(bpf_object("xdp")) as obj:
        obj.programs["measure"].autoload = True
        obj.load()
        with pytest.raises(pybpf.AttachError, match=r"MTU is too large .*xdp\.frags"):
            obj.programs["count"].attach_xdp("left", mode=pybpf.XdpMode.DRV)
        obj.programs["measure"].attach_xdp("left", mode=pybpf.XdpMode.DRV)
        send_frame("right", 8000)
        assert awaited(lambda: obj.bss.seen == 8000)


@pytest.mark.parametrize(("redirecting", "target"), [("to_cpu", "cpus"), ("to_device", "devices")])
def test_programs_where_packets_are_sent_on_to(obj, redirecting, target):
    add_pair()
    if target == "cpus":
        obj.maps["cpus"][0] = (64, obj.programs["at_cpu"])
    else:
        obj.maps["devices"][0] = ("right", obj.programs["at_device"])
    obj.programs[redirecting].attach_xdp("left")
    send_frame("right")
    assert awaited(lambda: obj.bss.sent_on > 0)


# ---- without links -------------------------------------------------------------------------------


def test_netlink_sees_packets_until_detached(obj):
    link = obj.programs["count"].attach_xdp_netlink("lo")
    assert packets_seen(obj) == 1
    with pytest.raises(pybpf.NotSupportedError, match="no link for this"):
        link.info()
    link.detach()
    assert packets_seen(obj) == 0


def test_netlink_replaces_what_is_expected(obj):
    first, second = obj.programs["count"], obj.programs["count_thousands"]
    old = first.attach_xdp_netlink("lo")
    with pytest.raises(pybpf.AttachError, match="not the expected one"):
        second.attach_xdp_netlink("lo", expected=second)
    new = second.attach_xdp_netlink("lo", expected=first)
    assert packets_seen(obj) == 1000
    old.detach()
    assert packets_seen(obj) == 1000, "what is attached is the second one's"
    first.attach_xdp_netlink("lo", replace=True)
    assert packets_seen(obj) == 1
    new.detach()
    assert packets_seen(obj) == 1


def test_netlink_updates_its_own_program(obj):
    first, second = obj.programs["count"], obj.programs["count_thousands"]
    link = first.attach_xdp_netlink("lo")
    link.update(second, expected=first)
    assert packets_seen(obj) == 1000
    with pytest.raises(pybpf.AttachError, match="another program than the expected one"):
        link.update(first, expected=first)
    link.update(first)
    assert packets_seen(obj) == 1
    second.attach_xdp_netlink("lo", expected=first)
    with pytest.raises(pybpf.AttachError, match="another program than the expected one"):
        link.update(first)
    link.detach()
    assert packets_seen(obj) == 1000


def test_netlink_in_a_mode(obj):
    add_pair()
    link = obj.programs["count"].attach_xdp_netlink("left", mode=pybpf.XdpMode.SKB)
    assert "xdpgeneric" in ip("link", "show", "left").split()
    link.detach()
    assert "xdp" not in ip("link", "show", "left")


def test_what_others_attached_by_netlink_is_detached(obj):
    first, second = obj.programs["count"], obj.programs["count_thousands"]
    first.attach_xdp_netlink("lo").disown()
    with pytest.raises(pybpf.AttachError, match="EEXIST"):
        pybpf.detach_xdp("lo", expected=second)
    assert packets_seen(obj) == 1
    pybpf.detach_xdp("lo", expected=first)
    assert packets_seen(obj) == 0
    pybpf.detach_xdp("lo")
    first.attach_xdp("lo")
    with pytest.raises(pybpf.AttachError, match="EBUSY"):
        pybpf.detach_xdp("lo")
    assert packets_seen(obj) == 1


def test_the_device_may_be_gone_before(obj):
    add_pair()
    link = obj.programs["count"].attach_xdp_netlink("left")
    ip("link", "del", "left")
    link.detach()
    assert obj.links == ()
