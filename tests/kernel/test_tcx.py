# SPDX-License-Identifier: BSD-2-Clause
"""tc programs on devices, by links and in order: tcx."""

from __future__ import annotations

import pybpf
import pytest
from lacking import skipped_without
from traffic import send

pytestmark = pytest.mark.usefixtures("netns")


@pytest.fixture
def obj(bpf_object):
    with pybpf.load(bpf_object("tc")) as loaded:
        with skipped_without("tcx (Linux 6.6)"):
            loaded.programs["one"].attach_tcx("lo", "ingress").detach()
        yield loaded


def programs_run(obj):
    """The digits of the programs that one packet passes, in order."""
    obj.bss.ran = 0
    send()
    return obj.bss.ran


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_sees_packets_until_detached(obj, direction):
    link = obj.programs["one"].attach_tcx("lo", direction)
    assert programs_run(obj) == 1
    assert link.what == f"program 'one' to tcx {direction} of lo"
    assert link.info().type == pybpf.LinkType.TCX
    link.detach()
    assert programs_run(obj) == 0


def test_a_verdict_ends_the_row(obj):
    obj.programs["drop"].attach_tcx("lo", "ingress")
    obj.programs["one"].attach_tcx("lo", "ingress")
    obj.bss.ran = 0
    assert not send()
    assert obj.bss.ran == 9


def test_order(obj):
    one, two, three = (obj.programs[name] for name in ("one", "two", "three"))
    link = one.attach_tcx("lo", "ingress")
    two.attach_tcx("lo", "ingress")
    assert programs_run(obj) == 12
    third = three.attach_tcx("lo", "ingress", first=True)
    assert programs_run(obj) == 312
    third.detach()
    third = three.attach_tcx("lo", "ingress", before=two)
    assert programs_run(obj) == 132
    third.detach()
    three.attach_tcx("lo", "ingress", after=link)
    assert programs_run(obj) == 132
    link.update(obj.programs["drop"], expected=one)
    assert programs_run(obj) == 9


def test_a_place_that_is_not_there(obj):
    one, two = obj.programs["one"], obj.programs["two"]
    with pytest.raises(pybpf.AttachError, match="before or after is not attached there"):
        one.attach_tcx("lo", "ingress", before=two)
    with pytest.raises(ValueError, match="one of before, after and first"):
        one.attach_tcx("lo", "ingress", before=two, first=True)
    with pytest.raises(ValueError, match="'ingress' or 'egress', not 'up'"):
        one.attach_tcx("lo", "up")
    one.attach_tcx("lo", "ingress")
    with pytest.raises(pybpf.AttachError, match="attached there already"):
        one.attach_tcx("lo", "ingress")


def test_a_revision_that_is_past(obj):
    one, two, three = (obj.programs[name] for name in ("one", "two", "three"))
    one.attach_tcx("lo", "egress")
    link = two.attach_tcx("lo", "egress", revision=2)
    with pytest.raises(pybpf.AttachError, match="since that revision"):
        three.attach_tcx("lo", "egress", revision=2)
    link.detach()
    assert programs_run(obj) == 1
