# SPDX-License-Identifier: BSD-2-Clause
"""Maps of interfaces, CPUs and sockets, by which programs send packets on."""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack

import pybpf
import pytest
from pybpf import Map, MapType

DROP, PASS, REDIRECT = 1, 2, 4  # enum xdp_action
TEST_XDP_LIVE_FRAMES = 2
AF_XDP, SOL_XDP, XDP_RX_RING = 44, 283, 2
SO_ATTACH_REUSEPORT_EBPF, SO_COOKIE = 52, 57
LOOPBACK = socket.if_nametoindex("lo")
PACKET = bytes(64)


@pytest.fixture
def net(bpf_object):
    with pybpf.load(bpf_object("kinds_net")) as obj:
        yield obj


def run(obj, program, key=0):
    """What the program returns for some packet, with ``key`` as the key that it looks for."""
    obj.bss.key = key
    return obj.programs[program].test_run(data=PACKET).retval


# ---- interfaces and CPUs -------------------------------------------------------------------------


def test_interfaces_by_name_and_number(net):
    interfaces = net.maps["interfaces"]
    assert run(net, "to_interfaces") == DROP
    interfaces[0] = "lo"
    assert run(net, "to_interfaces") == REDIRECT
    interfaces[1] = LOOPBACK
    assert interfaces.to_dict() == {0: LOOPBACK, 1: LOOPBACK}
    del interfaces[0]
    assert run(net, "to_interfaces") == DROP
    assert interfaces.pop(1) == LOOPBACK
    interfaces.update({0: "lo", 1: "lo"})
    interfaces.clear()
    assert interfaces.to_dict() == {}
    with pytest.raises(KeyError):
        interfaces[0]
    for absent in (0, 2):
        with pytest.raises(KeyError):
            del interfaces[absent]
    assert interfaces.delete_many([0, 1, 2]) == 0


@pytest.mark.parametrize("name", ["interfaces", "devices", "device_hash"])
def test_interfaces_that_are_not_there(net, name):
    bpf_map = net.maps[name]
    with pytest.raises(pybpf.NotFoundError, match=r"no network interface named 'lo0'.*'lo'"):
        bpf_map[0] = "lo0"
    with pytest.raises(pybpf.KernelError, match="takes interfaces"):
        bpf_map[0] = 2**31 - 1
    for wrong in (-1, 2**32):
        with pytest.raises(OverflowError):
            bpf_map[0] = wrong
    assert run(net, f"to_{name}") == DROP


@pytest.mark.parametrize("name", ["devices", "device_hash"])
def test_interfaces_with_a_program(net, name):
    devices, program = net.maps[name], net.programs["at_device"]
    devices[1] = ("lo", program)
    assert run(net, f"to_{name}", key=1) == REDIRECT
    assert devices[1].asdict() == {"number": LOOPBACK, "program": program.id}
    devices[1] = (LOOPBACK, program.fileno())
    assert devices[1].program == program.id
    devices[1] = "lo"
    assert devices[1].asdict() == {"number": LOOPBACK, "program": 0}
    devices[1] = {"number": LOOPBACK}
    del devices[1]
    assert run(net, f"to_{name}", key=1) == DROP
    with pytest.raises(KeyError):
        del devices[1]
    with pytest.raises(pybpf.KernelError, match="with programs of SEC"):
        devices[1] = ("lo", net.programs["at_cpu"])
    with pytest.raises(pybpf.KernelError, match="xdp/devmap"):
        devices[1] = ("lo", net.maps["devices"])
    for wrong in (("lo",), ("lo", "at_device"), ("lo", 1.5), 1.5, None):
        with pytest.raises(pybpf.LayoutError):
            devices[1] = wrong
    assert devices.to_dict() == {}


def test_a_program_reads_the_interface(net):
    net.maps["devices"][1] = "lo"
    assert run(net, "number_in_devices", key=1) == LOOPBACK
    assert run(net, "number_in_devices", key=0) == 0


def test_a_hash_of_interfaces_has_any_keys(net):
    devices = net.maps["device_hash"]
    devices.update({1000: "lo", 2**32 - 1: "lo"})
    assert sorted(devices) == [1000, 2**32 - 1]
    assert len(devices) == 2
    assert run(net, "to_device_hash", key=1000) == REDIRECT
    with pytest.raises(pybpf.MapFullError, match="max_entries=2"):
        devices[5] = "lo"
    devices.clear()
    assert len(devices) == 0


def test_pairs_without_a_type(net):
    program = net.programs["at_device"]
    with Map.create(MapType.DEVMAP, key_size=4, value_size=8, max_entries=2) as devices:
        devices.update({0: "lo", 1: ("lo", program)})
        assert devices.to_dict() == {0: (LOOPBACK, 0), 1: (LOOPBACK, program.id)}


@pytest.mark.requires("xdp_live_frames")
def test_cpus_with_a_program(net):
    cpus, program = net.maps["cpus"], net.programs["at_cpu"]
    cpus[0] = 64
    assert run(net, "to_cpus") == REDIRECT
    assert cpus[0].asdict() == {"number": 64, "program": 0}
    cpus[0] = (192, program)
    assert cpus[0].asdict() == {"number": 192, "program": program.id}
    net.programs["to_cpus"].test_run(
        data=PACKET, data_out_size=0, repeat=10, flags=TEST_XDP_LIVE_FRAMES
    )
    deadline = time.monotonic() + 5
    while net.bss.redirected < 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert net.bss.redirected == 10
    assert cpus.to_dict().keys() == {0}
    del cpus[0]
    assert run(net, "to_cpus") == DROP
    with pytest.raises(KeyError):
        del cpus[0]
    with pytest.raises(pybpf.KernelError, match="xdp/cpumap"):
        cpus[0] = (192, net.programs["at_device"])
    with pytest.raises(pybpf.KernelError, match="up to 16384"):
        cpus[0] = 16385
    with pytest.raises(OverflowError):
        cpus[0] = (-1, program)


@pytest.mark.requires("af_xdp")
def test_sockets_of_xdp(net):
    sockets = net.maps["xdp_sockets"]
    with socket.socket(AF_XDP, socket.SOCK_RAW) as xdp:
        assert run(net, "to_xdp_sockets") == DROP
        xdp.setsockopt(SOL_XDP, XDP_RX_RING, 64)
        sockets[0] = xdp
        assert run(net, "to_xdp_sockets") == REDIRECT
        del sockets[0]
        assert run(net, "to_xdp_sockets") == DROP
        sockets.update({0: xdp.fileno(), 1: xdp})
        sockets.clear()
        assert run(net, "to_xdp_sockets", key=1) == DROP
        for read in (lambda m: m[0], lambda m: 0 in m, lambda m: m.to_dict(), lambda m: m.pop(0)):
            with pytest.raises(pybpf.NotSupportedError, match="only stored and deleted"):
                read(sockets)
        sockets[0] = xdp
    assert run(net, "to_xdp_sockets") == DROP, "a closed socket leaves"
    with (
        socket.socket() as tcp,
        pytest.raises(pybpf.KernelError, match="XSKMAP takes sockets of the family AF_XDP"),
    ):
        sockets[0] = tcp


# ---- sockets -------------------------------------------------------------------------------------


@pytest.fixture
def connection():
    """The two ends of a TCP connection."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = stack.enter_context(socket.create_connection(server.getsockname()))
        accepted, _ = server.accept()
        stack.enter_context(accepted)
        yield client, accepted


def cookie(of):
    return int.from_bytes(of.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), "little")


def port(of):
    return of.getsockname()[1]


@pytest.mark.parametrize("name", ["sockets", "socket_hash"])
def test_sockets_are_found_by_a_program_and_read_as_cookies(net, connection, name):
    client, accepted = connection
    sockets = net.maps[name]
    assert run(net, f"port_in_{name}", key=1) == 0
    sockets[1] = client
    assert run(net, f"port_in_{name}", key=1) == port(client)
    assert sockets[1] == cookie(client)
    sockets[1] = accepted.fileno()
    assert run(net, f"port_in_{name}", key=1) == port(accepted)
    assert sockets.to_dict() == {1: cookie(accepted)}
    del sockets[1]
    assert run(net, f"port_in_{name}", key=1) == 0
    with pytest.raises(KeyError):
        sockets[1]
    for absent in (1, 2):
        with pytest.raises(KeyError):
            del sockets[absent]
    sockets.update({0: client, 1: accepted})
    assert sockets.lookup_many([0, 1, 2]) == [cookie(client), cookie(accepted), None]
    assert sockets.pop(0) == cookie(client)
    assert sockets.delete_many([0, 1]) == 1
    sockets.update({0: client, 1: accepted})
    sockets.clear()
    assert sockets.to_dict() == {}
    sockets.update({0: client, 1: accepted})
    assert sorted(sockets.pop_all()) == [(0, cookie(client)), (1, cookie(accepted))]
    assert run(net, f"port_in_{name}", key=1) == 0


@pytest.mark.parametrize("name", ["sockets", "socket_hash"])
def test_a_closed_socket_leaves_its_map(net, name):
    sockets = net.maps[name]
    with socket.create_server(("127.0.0.1", 0)) as server:
        sockets[0] = server
        assert run(net, f"port_in_{name}") == port(server)
    assert 0 not in sockets
    assert run(net, f"port_in_{name}") == 0


@pytest.mark.parametrize("name", ["narrow_sockets", "narrow_hash"])
def test_sockets_are_not_read_through_values_of_four_bytes(net, connection, name):
    client, accepted = connection
    sockets = net.maps[name]
    sockets.update({0: client, 1: accepted})
    for read in (lambda m: m[0], lambda m: m.to_dict(), lambda m: m.lookup_many([0])):
        with pytest.raises(pybpf.KernelError, match="cookies, which need values of 8 bytes"):
            read(sockets)
    assert sorted(sockets) == [0, 1]
    assert len(sockets) == 2
    with pytest.raises(pybpf.MapFullError):
        sockets[2] = client
    del sockets[0]
    sockets.clear()
    with pytest.raises(KeyError):
        del sockets[1]


@pytest.mark.parametrize("name", ["sockets", "socket_hash"])
def test_sockets_that_are_refused_tell_which_are_taken(net, name):
    sockets = net.maps[name]
    with socket.socket() as unconnected, open("/dev/null") as file:
        for wrong in (unconnected, file, 1 << 20):
            with pytest.raises(pybpf.KernelError, match="takes TCP sockets that are connected"):
                sockets[0] = wrong
    with pytest.raises(pybpf.LayoutError, match="fileno"):
        sockets[0] = "127.0.0.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        sockets[0] = udp
        assert run(net, f"port_in_{name}") == port(udp)


# ---- sockets that share a port -------------------------------------------------------------------


@pytest.fixture
def sharing():
    """Two UDP sockets of one port, which wait for a second at most."""
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)
        )
        for each in (first, second):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            each.settimeout(1)
            each.bind(first.getsockname() if each is second else ("127.0.0.1", 0))
        yield first, second


def test_a_program_chooses_among_sockets_of_one_port(net, sharing):
    group = net.maps["group"]
    program = net.programs["choose"].fileno()
    sharing[0].setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, program)
    group.update({0: sharing[0], 1: sharing[1]})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for key in (0, 1, 1, 0):
            net.bss.key = key
            sender.sendto(b"%d" % key, sharing[0].getsockname())
            assert sharing[key].recv(10) == b"%d" % key
        del group[1]
        net.bss.key = 1
        sender.sendto(b"dropped", sharing[0].getsockname())
        net.bss.key = 0
        sender.sendto(b"last", sharing[0].getsockname())
        assert sharing[0].recv(10) == b"last"
    assert group.to_dict() == {0: cookie(sharing[0])}
    with pytest.raises(KeyError):
        del group[1]
    group.clear()
    assert group.to_dict() == {}


def test_sockets_that_share_no_port_are_refused(net, sharing):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as alone:
        alone.bind(("127.0.0.1", 0))
        with pytest.raises(pybpf.KernelError, match="REUSEPORT_SOCKARRAY takes bound UDP"):
            net.maps["group"][0] = alone
    with open(os.devnull) as file, pytest.raises(pybpf.KernelError, match="SO_REUSEPORT"):
        net.maps["group"][0] = file
    net.maps["narrow_group"][0] = sharing[0]
    with pytest.raises(pybpf.KernelError, match="need values of 8 bytes"):
        net.maps["narrow_group"][0]
    net.maps["narrow_group"].clear()
