# SPDX-License-Identifier: BSD-2-Clause
"""What is attached to devices, network namespaces and sockmaps."""

from __future__ import annotations

import os
import subprocess

import pybpf
import pytest
from lacking import skipped_without
from pybpf import XdpMode, XdpProgram
from traffic import add_pair

pytestmark = pytest.mark.usefixtures("netns")


@pytest.fixture
def tc(bpf_object):
    with pybpf.load(bpf_object("tc")) as loaded:
        yield loaded


def test_a_device_with_nothing():
    found = pybpf.query_device("lo")
    assert found.ifindex == 1
    assert found.xdp == found.clsact_ingress == found.clsact_egress == ()
    for attached in (found.tcx_ingress, found.tcx_egress, found.netkit_primary, found.netkit_peer):
        assert attached.programs == attached.links == ()


def test_xdp(bpf_object):
    add_pair()
    with pybpf.load(bpf_object("xdp")) as obj:
        program = obj.programs["count"]
        program.attach_xdp("left", mode=XdpMode.SKB)
        program.attach_xdp_netlink("right", mode=XdpMode.DRV)
        assert pybpf.query_device("left").xdp == (XdpProgram(XdpMode.SKB, program.id),)
        assert pybpf.query_device("right").xdp == (XdpProgram(XdpMode.DRV, program.id),)
    assert pybpf.query_device("left").xdp == ()


def test_tcx(tc):
    one, two = tc.programs["one"], tc.programs["two"]
    with skipped_without("tcx (Linux 6.6)"):
        first = one.attach_tcx("lo", "ingress")
    found = pybpf.query_device("lo")
    assert found.tcx_ingress.programs == (one.id,)
    assert found.tcx_egress.programs == ()
    second = two.attach_tcx("lo", "ingress", first=True, revision=found.tcx_ingress.revision)
    again = pybpf.query_device("lo").tcx_ingress
    assert again.programs == (two.id, one.id)
    assert again.links == (second.id, first.id)
    assert again.revision == found.tcx_ingress.revision + 1


def test_clsact(tc):
    one, two = tc.programs["one"], tc.programs["two"]
    later = one.attach_clsact("lo", "ingress", priority=9).filter
    first = two.attach_clsact("lo", "ingress", priority=2, handle=77).filter
    egress = two.attach_clsact("lo", "egress").filter
    subprocess.run(
        ["tc", "filter", "add", "dev", "lo", "ingress", "u32", "match", "u32", "0", "0"], check=True
    )
    found = pybpf.query_device("lo")
    assert found.clsact_ingress == (first, later)
    assert found.clsact_egress == (egress,)


def test_more_filters_than_a_message_holds(tc):
    for priority in range(1, 201):
        tc.programs["one"].attach_clsact("lo", "egress", priority=priority)
    found = pybpf.query_device("lo").clsact_egress
    assert [each.priority for each in found] == list(range(1, 201))
    pybpf.destroy_clsact("lo")


def test_a_device_that_is_not_there():
    for device in ("lol", 1 << 20):
        with pytest.raises(pybpf.NotFoundError, match=str(device)):
            pybpf.query_device(device)


def test_a_network_namespace(bpf_object):
    with pybpf.load(bpf_object("netns")) as obj:
        refuse, dissect = obj.programs["refuse"], obj.programs["dissect"]
        refuse.attach_sk_lookup()
        dissect.attach_flow_dissector()
        found = pybpf.query_netns()
        assert found.ino == os.stat("/proc/thread-self/ns/net").st_ino
        assert found.sk_lookup.programs == (refuse.id,)
        assert found.flow_dissector.programs == (dissect.id,)
    assert pybpf.query_netns().sk_lookup.programs == ()


def test_a_sockmap(bpf_object):
    with pybpf.load(bpf_object("sockets")) as obj:
        sockets = obj.maps["sockets"]
        with skipped_without("queries of sockmaps (Linux 5.18)"):
            found = pybpf.query_sockmap(sockets)
        assert found.sk_msg_verdict.programs == ()
        obj.programs["count_sent"].attach_sockmap(sockets)
        obj.programs["parse"].attach_sockmap(sockets)
        found = pybpf.query_sockmap(sockets)
        assert found.sk_msg_verdict.programs == (obj.programs["count_sent"].id,)
        assert found.sk_skb_stream_parser.programs == (obj.programs["parse"].id,)
        assert found.sk_skb_stream_verdict.programs == found.sk_skb_verdict.programs == ()


def test_a_map_of_another_type():
    with (
        pybpf.Map.create(pybpf.MapType.HASH, key_size=4, value_size=4, max_entries=1) as other,
        skipped_without("queries of sockmaps (Linux 5.18)"),
        pytest.raises(pybpf.KernelError, match="what is attached to map ''"),
    ):
        pybpf.query_sockmap(other)


@pytest.mark.parametrize(
    ("name", "program", "method"),
    [
        ("tc", "one", "attach_tc(device, direction)"),
        ("xdp", "count", "attach_xdp(device)"),
        ("xdp", "at_cpu", "the program of an element of a devmap or cpumap"),
        ("netns", "dissect", "attach_flow_dissector(netns)"),
        ("sockets", "parse", "attach_sockmap(map)"),
        ("sockets", "shorten", "attach_socket_filter(sock)"),
    ],
)
def test_an_object_tells_which_method_attaches_the_rest(bpf_object, name, program, method):
    with pybpf.load(bpf_object(name)) as obj:
        obj.attach()
        assert obj.unattached[program] == method
