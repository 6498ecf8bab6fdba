# SPDX-License-Identifier: BSD-2-Clause
"""tc programs on devices as filters of clsact, and the choice between these and tcx."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import subprocess
import threading

import pybpf
import pytest
from traffic import send

CLONE_NEWNET = 0x40000000

pytestmark = pytest.mark.usefixtures("netns")


@pytest.fixture
def obj(bpf_object):
    with pybpf.load(bpf_object("tc")) as loaded:
        yield loaded


def programs_run(obj):
    """The digits of the programs that one packet passes, in order."""
    obj.bss.ran = 0
    send()
    return obj.bss.ran


def tc(*arguments):
    done = subprocess.run(["tc", *arguments], check=True, capture_output=True, text=True)
    return done.stdout


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_sees_packets_until_detached(obj, direction):
    link = obj.programs["one"].attach_clsact("lo", direction)
    assert programs_run(obj) == 1
    assert link.what == f"program 'one' to clsact {direction} of lo"
    assert link.filter.direction == direction
    assert link.filter.program_id == obj.programs["one"].id
    shown = tc("filter", "show", "dev", "lo", direction)
    assert f"pref {link.filter.priority} bpf chain 0 handle {link.filter.handle:#x} one:" in shown
    assert "direct-action" in shown
    link.detach()
    assert programs_run(obj) == 0
    assert tc("filter", "show", "dev", "lo", direction) == ""


def test_a_verdict_ends_the_row(obj):
    obj.programs["one"].attach_clsact("lo", "ingress", priority=2)
    assert programs_run(obj) == 1
    obj.programs["drop"].attach_clsact("lo", "ingress", priority=1)
    obj.bss.ran = 0
    assert not send()
    assert obj.bss.ran == 9


def test_priority_and_handle(obj):
    later = obj.programs["two"].attach_clsact("lo", "ingress", priority=7, handle=5)
    obj.programs["one"].attach_clsact("lo", "ingress", priority=3)
    chosen = obj.programs["three"].attach_clsact("lo", "ingress")
    assert programs_run(obj) == 123
    obj.programs["three"].attach_clsact("lo", "ingress", priority=3)
    assert programs_run(obj) == 3123, "of one priority the newest comes first"
    assert (later.filter.priority, later.filter.handle) == (7, 5)
    assert chosen.filter.priority == 49152


def test_another_program_takes_its_place(obj):
    first = obj.programs["one"].attach_clsact("lo", "ingress", priority=1, handle=1)
    with pytest.raises(pybpf.AttachError, match="replace=True"):
        obj.programs["two"].attach_clsact("lo", "ingress", priority=1, handle=1)
    assert programs_run(obj) == 1
    obj.programs["two"].attach_clsact("lo", "ingress", priority=1, handle=1, replace=True)
    assert programs_run(obj) == 2
    first.detach()
    assert programs_run(obj) == 2, "the filter is the second one's"


def test_update_keeps_the_filter(obj):
    one, two = obj.programs["one"], obj.programs["two"]
    link = one.attach_clsact("lo", "ingress")
    before = link.filter
    link.update(two, expected=one)
    assert programs_run(obj) == 2
    assert link.filter == dataclasses.replace(before, program_id=two.id)
    with pytest.raises(pybpf.AttachError, match="another program than the expected one"):
        link.update(one, expected=one)
    link.update(one)
    assert programs_run(obj) == 1
    link.detach()
    assert programs_run(obj) == 0


def test_update_of_a_filter_that_is_somebody_elses_now(obj):
    one, two, three = (obj.programs[name] for name in ("one", "two", "three"))
    link = one.attach_clsact("lo", "ingress", priority=1, handle=1)
    two.attach_clsact("lo", "ingress", priority=1, handle=1, replace=True)
    with pytest.raises(pybpf.AttachError, match="another program than the expected one"):
        link.update(three)
    assert programs_run(obj) == 2


def test_reloading_keeps_the_filter(obj, bpf_object):
    obj.programs["one"].attach_clsact("lo", "ingress", priority=1, handle=1)
    done = pybpf.reload(obj, bpf_object("tc"))
    with done.object as new:
        assert [switch.how for switch in done.links] == ["updated"]
        assert programs_run(new) == 1
        assert new.links[0].filter.program_id == new.programs["one"].id
    assert tc("filter", "show", "dev", "lo", "ingress") == ""


def test_there_is_no_link_of_the_kernel(obj, bpffs):
    link = obj.programs["one"].attach_clsact("lo", "ingress")
    for use in (link.info, link.fileno, lambda: link.pin(bpffs / "link")):
        with pytest.raises(pybpf.NotSupportedError, match="no link for this"):
            use()


def test_a_disowned_one_stays(obj):
    link = obj.programs["one"].attach_clsact("lo", "ingress")
    link.disown()
    assert programs_run(obj) == 1
    pybpf.destroy_clsact("lo")
    assert programs_run(obj) == 0


def test_it_may_be_gone_before(obj):
    for direction in ("ingress", "egress"):
        obj.programs["one"].attach_clsact("lo", direction)
    tc("filter", "del", "dev", "lo", "ingress")
    obj.links[0].detach()
    pybpf.destroy_clsact("lo")
    obj.links[0].detach()
    assert obj.links == ()


def test_it_is_detached_where_it_was_attached(obj):
    link = obj.programs["one"].attach_clsact("lo", "ingress")
    namespaces = []

    def detach_elsewhere():
        assert ctypes.CDLL(None).unshare(CLONE_NEWNET) == 0
        namespaces.append(os.readlink("/proc/thread-self/ns/net"))
        link.detach()
        namespaces.append(os.readlink("/proc/thread-self/ns/net"))

    thread = threading.Thread(target=detach_elsewhere)
    thread.start()
    thread.join()
    assert programs_run(obj) == 0
    assert link.closed
    here = os.readlink("/proc/thread-self/ns/net")
    assert namespaces[0] == namespaces[1] != here


def test_clsact_comes_and_goes(obj):
    pybpf.create_clsact("lo")
    pybpf.create_clsact("lo")
    assert "clsact" in tc("qdisc", "show", "dev", "lo")
    pybpf.destroy_clsact("lo")
    pybpf.destroy_clsact("lo")
    assert "clsact" not in tc("qdisc", "show", "dev", "lo")


def test_a_device_that_is_not_there(obj):
    for device in ("lol", 1 << 20):
        with pytest.raises(pybpf.NotFoundError, match=str(device)):
            obj.programs["one"].attach_clsact(device, "ingress")


def test_a_program_of_another_type(bpf_object):
    with pybpf.load(bpf_object("xdp")) as other, pytest.raises(pybpf.AttachError, match="EINVAL"):
        other.programs["count"].attach_clsact("lo", "ingress")


def test_tcx_where_the_kernel_has_it(obj):
    link = obj.programs["one"].attach_tc("lo", "ingress")
    assert programs_run(obj) == 1
    is_clsact = link.filter is not None
    assert ("clsact" if is_clsact else "tcx") in link.what
    assert is_clsact == ("clsact" in tc("qdisc", "show", "dev", "lo"))
    if not is_clsact:
        assert link.info().type == pybpf.LinkType.TCX
    link.detach()
    assert programs_run(obj) == 0
