# SPDX-License-Identifier: BSD-2-Clause
"""Programs of sockets: those of sockmaps, filters, and the choice among sockets of one port."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pybpf
import pytest
from pybpf import AttachType


@pytest.fixture
def obj(bpf_object):
    with pybpf.load(bpf_object("sockets")) as loaded:
        yield loaded


@pytest.fixture
def connection():
    """The two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    with client, accepted:
        for each in client, accepted:
            each.settimeout(1)
        yield client, accepted


@pytest.fixture
def udp():
    """Makes UDP sockets of this machine's own, which wait for a second at most."""
    with ExitStack() as stack:

        def make(address=("127.0.0.1", 0), *, shared=False):
            made = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
            made.settimeout(1)
            made.bind(address)
            return made

        yield make


def exchanged(sender, receiver):
    sender.send(b"hello")
    return receiver.recv(10)


# ---- sockmaps ------------------------------------------------------------------------------------


def put_anew(obj, sock):
    """Into the map, which a socket leaves with the programs that it came with."""
    obj.maps["sockets"].clear()
    obj.maps["sockets"][0] = sock


def has_links(link):
    """Whether the kernel has links for sockmaps (Linux 6.10)."""
    try:
        return link.info().type == pybpf.LinkType.SOCKMAP
    except pybpf.NotSupportedError:
        return False


def test_what_is_sent_is_seen_until_detached(obj, connection):
    client, accepted = connection
    link = obj.programs["count_sent"].attach_sockmap(obj.maps["sockets"])
    put_anew(obj, client)
    assert link.what == "program 'count_sent' to SK_MSG_VERDICT of map 'sockets'"
    assert exchanged(client, accepted) == b"hello"
    assert obj.bss.seen == 1
    link.detach()
    put_anew(obj, client)
    assert exchanged(client, accepted) == b"hello"
    assert obj.bss.seen == 1


def test_what_is_received_is_seen_until_detached(obj, connection):
    client, accepted = connection
    parser = obj.programs["parse"].attach_sockmap(obj.maps["sockets"])
    link = obj.programs["count_received"].attach_sockmap(obj.maps["sockets"])
    obj.maps["sockets"][0] = accepted
    assert exchanged(client, accepted) == b"hello"
    assert obj.bss.seen == 1001
    link.detach()
    parser.detach()
    put_anew(obj, accepted)
    assert exchanged(client, accepted) == b"hello"
    assert obj.bss.seen == 1001


def test_a_section_that_does_not_say_which_hook(obj):
    program, sockets = obj.programs["count_any"], obj.maps["sockets"]
    with pytest.raises(pybpf.AttachError, match=r"give hook=AttachType\.SK_SKB_VERDICT"):
        program.attach_sockmap(sockets)
    link = program.attach_sockmap(sockets, hook=AttachType.SK_SKB_STREAM_VERDICT)
    assert "SK_SKB_STREAM_VERDICT" in link.what


def test_a_pinned_program_attaches_too(obj, bpffs, connection):
    client, accepted = connection
    obj.programs["count_sent"].pin(bpffs / "count")
    try:
        with (
            pybpf.Program.open_pinned(bpffs / "count") as program,
            program.attach_sockmap(obj.maps["sockets"]),
        ):
            put_anew(obj, client)
            exchanged(client, accepted)
            assert obj.bss.seen == 1
    finally:
        (bpffs / "count").unlink()


def test_another_program_takes_its_place(obj, connection):
    client, accepted = connection
    counting, refusing = obj.programs["count_sent"], obj.programs["refuse_sent"]
    link = counting.attach_sockmap(obj.maps["sockets"])
    link.update(refusing, expected=counting)
    put_anew(obj, client)
    with pytest.raises(PermissionError):
        exchanged(client, accepted)
    with pytest.raises(pybpf.AttachError, match="another program than the expected one"):
        link.update(counting, expected=counting)
    link.update(counting)
    put_anew(obj, client)
    assert exchanged(client, accepted) == b"hello"
    assert obj.bss.seen == 1
    link.detach()
    put_anew(obj, client)
    assert exchanged(client, accepted) == b"hello"
    assert obj.bss.seen == 1


def test_a_second_one(obj, connection):
    client, accepted = connection
    first = obj.programs["refuse_sent"].attach_sockmap(obj.maps["sockets"])
    if has_links(first):
        with pytest.raises(pybpf.AttachError, match="a link is attached there"):
            obj.programs["count_sent"].attach_sockmap(obj.maps["sockets"])
        first.detach()
    else:
        obj.programs["count_sent"].attach_sockmap(obj.maps["sockets"])
        first.detach()
        put_anew(obj, client)
        exchanged(client, accepted)
        assert obj.bss.seen == 1, "the second one stays"


def test_a_map_of_another_type(obj):
    with (
        pybpf.Map.create(pybpf.MapType.HASH, key_size=4, value_size=4, max_entries=1) as other,
        pytest.raises(pybpf.AttachError, match="SOCKMAP and SOCKHASH"),
    ):
        obj.programs["count_sent"].attach_sockmap(other)


# ---- filters -------------------------------------------------------------------------------------


def test_a_filter_shortens_packets_until_detached(obj, udp):
    receiver, sender = udp(), udp()
    sender.connect(receiver.getsockname())
    link = obj.programs["shorten"].attach_socket_filter(receiver)
    assert exchanged(sender, receiver) == b"hel"
    link.detach()
    assert exchanged(sender, receiver) == b"hello"


def test_a_filter_is_updated(obj, udp):
    receiver, sender = udp(), udp()
    receiver.setblocking(False)
    sender.connect(receiver.getsockname())
    shorten, drop = obj.programs["shorten"], obj.programs["drop"]
    link = shorten.attach_socket_filter(receiver)
    link.update(drop, expected=shorten)
    with pytest.raises(BlockingIOError):
        exchanged(sender, receiver)
    with pytest.raises(pybpf.AttachError, match="another program than the expected one"):
        link.update(shorten, expected=shorten)


def test_a_filter_goes_with_its_socket(obj, udp):
    receiver = udp()
    link = obj.programs["drop"].attach_socket_filter(receiver)
    receiver.close()
    link.detach()
    assert obj.links == ()
    with pytest.raises(pybpf.AttachError, match="the socket is closed"):
        obj.programs["drop"].attach_socket_filter(receiver)


def test_a_filter_that_somebody_else_detached(obj, udp):
    receiver = udp()
    link = obj.programs["drop"].attach_socket_filter(receiver)
    receiver.setsockopt(socket.SOL_SOCKET, 27, 0)  # SO_DETACH_BPF
    link.detach()
    assert obj.links == ()


def test_a_program_chooses_among_sockets_of_one_port(obj, udp):
    first = udp(shared=True)
    sharing = [first, udp(first.getsockname(), shared=True)]
    sender = udp()
    sender.connect(first.getsockname())
    link = obj.programs["choose"].attach_reuseport(first)
    for chosen in (0, 1, 1, 0):
        obj.bss.chosen = chosen
        assert exchanged(sender, sharing[chosen]) == b"hello"
    with pybpf.enable_stats():
        exchanged(sender, first)
        assert obj.programs["choose"].info().run_cnt == 1
        link.detach()
        sender.send(b"hello")
        assert obj.programs["choose"].info().run_cnt == 1


def test_a_socket_that_shares_no_port(obj, udp):
    with pytest.raises(pybpf.AttachError, match="set SO_REUSEPORT first"):
        obj.programs["choose"].attach_reuseport(udp())


def test_a_program_of_another_type(obj, udp):
    with pytest.raises(pybpf.AttachError, match="the program is of another type"):
        obj.programs["count_sent"].attach_socket_filter(udp())
