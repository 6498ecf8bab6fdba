# SPDX-License-Identifier: BSD-2-Clause
"""Programs attached to cgroups, for what the processes in them do."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import features
import pybpf
import pytest
from pybpf import AttachType, CgroupMode

SO_MARK = 36
TYPES = {4: socket.AF_INET, 6: socket.AF_INET6}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}

pytestmark = pytest.mark.usefixtures("netns")


@pytest.fixture
def cgroup(cgroup_root):
    """A cgroup that this process is in."""
    with pybpf.Cgroup.create(f"pybpf-{os.getpid()}", parent=cgroup_root) as made:
        made.add()
        yield made


@pytest.fixture
def obj(bpf_object, cgroup_root):  # which it may hold as long as something is attached
    with pybpf.load(bpf_object("cgroups")) as loaded:
        yield loaded


def datagram(version):
    """One datagram from a socket to itself."""
    with socket.socket(TYPES[version], socket.SOCK_DGRAM) as udp:
        udp.bind((LOOPBACK[version], 0))
        udp.sendto(b"x", udp.getsockname())
        udp.recvfrom(1)


def connection(version):
    """A connection within this process."""
    with (
        socket.create_server((LOOPBACK[version], 0), family=TYPES[version]) as server,
        socket.create_connection(server.getsockname()[:2]) as client,
    ):
        client.getpeername()


def unix(tmp_path):
    """A datagram from one unix socket to another, which are connected afterwards."""
    names = [str(tmp_path / "a"), str(tmp_path / "b")]
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other,
    ):
        one.bind(names[0])
        other.bind(names[1])
        one.sendto(b"x", names[1])
        other.recvfrom(1)
        one.connect(names[1])
        one.getpeername()
        one.getsockname()
    for name in names:
        os.unlink(name)


def mark():
    """A socket with a mark; the mark that it has then."""
    with socket.socket() as marked:
        marked.setsockopt(socket.SOL_SOCKET, SO_MARK, 5)
        return marked.getsockopt(socket.SOL_SOCKET, SO_MARK)


def read_sysctl():
    Path("/proc/sys/kernel/ostype").read_text()


def open_device():
    with open("/dev/zero", "rb"):
        pass


TRIGGERS = {
    "ingress": lambda: datagram(4),
    "egress": lambda: datagram(4),
    "sock_create": lambda: datagram(4),
    "sock_release": lambda: datagram(4),
    "post_bind4": lambda: datagram(4),
    "post_bind6": lambda: datagram(6),
    "bind4": lambda: datagram(4),
    "bind6": lambda: datagram(6),
    "connect4": lambda: connection(4),
    "connect6": lambda: connection(6),
    "sendmsg4": lambda: datagram(4),
    "sendmsg6": lambda: datagram(6),
    "recvmsg4": lambda: datagram(4),
    "recvmsg6": lambda: datagram(6),
    "getpeername4": lambda: connection(4),
    "getpeername6": lambda: connection(6),
    "getsockname4": lambda: connection(4),
    "getsockname6": lambda: connection(6),
    "getsockopt": mark,
    "setsockopt": mark,
    "sysctl": read_sysctl,
    "device": open_device,
    "socket_states": lambda: connection(4),
}
UNIX = ("connect_unix", "sendmsg_unix", "recvmsg_unix", "getpeername_unix", "getsockname_unix")
# what has no verdict, or one that nobody is told
UNREFUSED = {
    *("ingress", "sock_release", "recvmsg4", "recvmsg6", "getpeername4", "getpeername6"),
    *("getsockname4", "getsockname6", "getsockopt", "socket_states"),
}


def runs(obj, trigger):
    """How often a program runs for what ``trigger`` does."""
    before = obj.bss.seen
    trigger()
    return obj.bss.seen - before


def test_every_program_runs_for_what_the_cgroup_does_until_it_is_detached(obj, cgroup):
    for name, trigger in TRIGGERS.items():
        link = obj.programs[name].attach_cgroup(cgroup)
        assert link.info().type == pybpf.LinkType.CGROUP
        assert runs(obj, trigger) > 0, name
        link.detach()
        assert runs(obj, trigger) == 0, name


def test_programs_refuse(obj, cgroup):
    for name in TRIGGERS.keys() - UNREFUSED:
        with obj.programs[name].attach_cgroup(cgroup):
            obj.bss.refuse = 1
            with pytest.raises(PermissionError):
                TRIGGERS[name]()
            obj.bss.refuse = 0
            TRIGGERS[name]()


def test_what_is_done_outside_of_the_cgroup_is_not_seen(obj, cgroup, cgroup_root):
    with obj.programs["bind4"].attach_cgroup(cgroup):
        pybpf.Cgroup(cgroup_root).add()
        assert runs(obj, TRIGGERS["bind4"]) == 0
        cgroup.add()
        assert runs(obj, TRIGGERS["bind4"]) == 1


def test_connections_go_elsewhere(obj, cgroup):
    with (
        obj.programs["connect4"].attach_cgroup(cgroup),
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        port = server.getsockname()[1]
        obj.bss.redirect_to = socket.htons(port)
        with socket.create_connection(("127.0.0.1", port ^ 1)) as client:
            assert client.getpeername()[1] == port


def test_options_of_sockets_are_changed(obj, cgroup):
    with obj.programs["getsockopt"].attach_cgroup(cgroup):
        assert mark() == 77
    assert mark() == 5


def load_alone(path, name):
    """The object with that program alone; its section may be one that libbpf 1.1 does not know."""
    obj = pybpf.open(path)
    for program in obj.programs.values():
        program.autoload = program.name == name
    program = obj.programs[name]
    if program.type == pybpf.ProgramType.UNSPEC:
        program.type = pybpf.ProgramType.CGROUP_SOCK_ADDR
        program.expected_attach_type = AttachType[f"CGROUP_UNIX_{name.split('_')[0].upper()}"]
    with contextlib.ExitStack() as unless_loaded:
        unless_loaded.callback(obj.close)
        obj.load()
        unless_loaded.pop_all()
    return obj


@pytest.mark.parametrize("name", UNIX)
@pytest.mark.requires("cgroup_unix")
def test_addresses_of_unix_sockets(bpf_object, cgroup, tmp_path, name):
    with load_alone(bpf_object("cgroups"), name) as obj:
        with obj.programs[name].attach_cgroup(cgroup):
            assert runs(obj, lambda: unix(tmp_path)) > 0
        assert runs(obj, lambda: unix(tmp_path)) == 0


@pytest.mark.requires("lsm_cgroup", "trampolines")
def test_lsm_programs_of_a_cgroup(bpf_object, cgroup):
    with load_alone(bpf_object("cgroups"), "lsm_bind") as obj:
        with obj.programs["lsm_bind"].attach_cgroup(cgroup):
            assert runs(obj, lambda: datagram(4)) == 1
            attached = cgroup.attached(AttachType.LSM_CGROUP)
            assert attached.programs == (obj.programs["lsm_bind"].id,)
            obj.bss.refuse = 1
            with pytest.raises(PermissionError):
                datagram(4)
            obj.bss.refuse = 0
        assert runs(obj, lambda: datagram(4)) == 0


# ---- where ---------------------------------------------------------------------------------------


def test_a_cgroup_by_its_path_or_descriptor(obj, cgroup):
    descriptor = os.open(cgroup, os.O_PATH)
    try:
        for place in (cgroup.path, Path(cgroup), descriptor):
            with obj.programs["bind4"].attach_cgroup(place):
                assert runs(obj, TRIGGERS["bind4"]) == 1
    finally:
        os.close(descriptor)


def test_what_is_no_cgroup(obj, tmp_path):
    with pytest.raises(pybpf.AttachError, match="folders of a cgroup2 file system; one is mounted"):
        obj.programs["bind4"].attach_cgroup(tmp_path)
    with pytest.raises(pybpf.AttachError, match="there is no cgroup /nowhere"):
        obj.programs["bind4"].attach_cgroup("/nowhere")
    assert obj.links == ()


def test_a_cgroup_hook_that_the_program_is_not_for(obj, cgroup):
    with pytest.raises(pybpf.AttachError, match="not made for this hook"):
        obj.programs["bind4"].attach_cgroup(cgroup, hook=AttachType.CGROUP_INET4_CONNECT)


def test_a_program_for_two_hooks(obj, cgroup):
    for hook in (AttachType.CGROUP_INET_INGRESS, AttachType.CGROUP_INET_EGRESS):
        with obj.programs["either"].attach_cgroup(cgroup, hook=hook):
            assert runs(obj, lambda: datagram(4)) == 1
            assert cgroup.attached(hook).programs == (obj.programs["either"].id,)


def test_pinned_programs_of_cgroups(obj, cgroup, bpffs):
    for name, hook in (("device", None), ("bind4", AttachType.CGROUP_INET4_BIND)):
        pin = bpffs / name
        obj.programs[name].pin(pin)
        with pybpf.Program.open_pinned(pin) as program:
            if hook is not None:
                with pytest.raises(pybpf.AttachError, match="give hook=AttachType"):
                    program.attach_cgroup(cgroup)
            with program.attach_cgroup(cgroup, hook=hook):
                assert runs(obj, TRIGGERS[name]) == 1
            program.unpin(pin)


def test_another_program_takes_its_place_in_a_cgroup(obj, cgroup):
    first, second = obj.programs["first"], obj.programs["second"]
    link = first.attach_cgroup(cgroup)
    link.update(second, expected=first)
    assert run_order(obj) == 2
    with pytest.raises(pybpf.AttachError, match="another program than the expected one"):
        link.update(first, expected=first)


# ---- in which order ------------------------------------------------------------------------------


@pytest.fixture
def order():
    features.require("cgroup_order")


SOCK_CREATE = AttachType.CGROUP_INET_SOCK_CREATE


def run_order(obj):
    """The digits of the programs that run when a socket is made."""
    obj.bss.order = 0
    socket.socket().close()
    return obj.bss.order


def test_programs_of_a_cgroup_run_in_the_order_of_attaching(obj, cgroup):
    for name in ("first", "second", "third"):
        obj.programs[name].attach_cgroup(cgroup)
    assert run_order(obj) == 123
    ids = tuple(obj.programs[name].id for name in ("first", "second", "third"))
    assert cgroup.attached(SOCK_CREATE).programs == ids


@pytest.mark.usefixtures("order")
def test_programs_take_a_place_before_or_after_others(obj, cgroup):
    first, second, third = (obj.programs[name] for name in ("first", "second", "third"))
    link = second.attach_cgroup(cgroup)
    with first.attach_cgroup(cgroup, before=link), third.attach_cgroup(cgroup, before=link):
        assert run_order(obj) == 132
    with third.attach_cgroup(cgroup), first.attach_cgroup(cgroup, after=link):
        assert run_order(obj) == 213
    with third.attach_cgroup(cgroup, first=True) as top, first.attach_cgroup(cgroup, after=top):
        assert run_order(obj) == 312


@pytest.mark.usefixtures("order")
def test_programs_without_a_link_take_a_place_among_their_like(obj, cgroup):
    first, second, third = (obj.programs[name] for name in ("first", "second", "third"))
    second.attach_cgroup(cgroup, mode=CgroupMode.MULTI)
    third.attach_cgroup(cgroup, mode=CgroupMode.MULTI, before=second)
    first.attach_cgroup(cgroup, mode=CgroupMode.MULTI, after=third)
    assert run_order(obj) == 312


@pytest.mark.usefixtures("order")
def test_a_place_that_is_none(obj, cgroup):
    first, second = obj.programs["first"], obj.programs["second"]
    with pytest.raises(ValueError, match="one of before, after and first"):
        first.attach_cgroup(cgroup, before=second, first=True)
    with pytest.raises(pybpf.AttachError, match="links take places before and after links"):
        first.attach_cgroup(cgroup, before=second)
    elsewhere = obj.programs["bind4"].attach_cgroup(cgroup)
    with pytest.raises(pybpf.AttachError, match="not attached there"):
        first.attach_cgroup(cgroup, before=elsewhere)


@pytest.mark.usefixtures("order")
def test_the_revision(obj, cgroup):
    first, second = obj.programs["first"], obj.programs["second"]
    before = cgroup.attached(SOCK_CREATE).revision
    link = first.attach_cgroup(cgroup, revision=before)
    with pytest.raises(pybpf.AttachError, match="another revision than the expected one"):
        second.attach_cgroup(cgroup, revision=before)
    now = cgroup.attached(SOCK_CREATE).revision
    assert now > before
    second.attach_cgroup(cgroup, before=link, revision=now)
    assert run_order(obj) == 21


@pytest.mark.parametrize("options", [{"first": True}, {"revision": 1}])
def test_kernels_without_an_order_of_programs_say_so(obj, cgroup, options):
    attached = cgroup.attached(SOCK_CREATE)
    if attached.revision is None:
        with pytest.raises(pybpf.NotSupportedError, match=r"Linux 6\.17"):
            obj.programs["first"].attach_cgroup(cgroup, **options)
    else:
        obj.programs["first"].attach_cgroup(cgroup, **options)
    assert cgroup.attached(SOCK_CREATE).programs == tuple(link.source.id for link in obj.links)


# ---- without a link ------------------------------------------------------------------------------


def test_a_program_without_a_link(obj, cgroup, bpffs):
    link = obj.programs["first"].attach_cgroup(cgroup, mode=CgroupMode.MULTI)
    assert run_order(obj) == 1
    attached = cgroup.attached(SOCK_CREATE)
    assert attached.programs == (obj.programs["first"].id,)
    assert attached.flags == CgroupMode.MULTI
    with pytest.raises(pybpf.NotSupportedError, match="the kernel has no link for this"):
        link.pin(bpffs / "link")
    link.detach()
    assert run_order(obj) == 0
    assert cgroup.attached(SOCK_CREATE).programs == ()


def test_the_modes_of_programs_without_a_link(obj, cgroup):
    first, second = obj.programs["first"], obj.programs["second"]
    with pybpf.Cgroup.create("below", parent=cgroup) as below:
        below.add()
        with first.attach_cgroup(cgroup, mode=CgroupMode.EXCLUSIVE):
            with pytest.raises(pybpf.AttachError, match="admits no others"):
                second.attach_cgroup(below, mode=CgroupMode.EXCLUSIVE)
            with pytest.raises(pybpf.AttachError, match="admits no others"):
                second.attach_cgroup(cgroup)
        with first.attach_cgroup(cgroup, mode=CgroupMode.OVERRIDE):
            assert run_order(obj) == 1
            with second.attach_cgroup(below, mode=CgroupMode.OVERRIDE):
                assert run_order(obj) == 2
                assert below.attached(SOCK_CREATE, effective=True).programs == (second.id,)
            assert below.attached(SOCK_CREATE, effective=True).programs == (first.id,)
        with first.attach_cgroup(cgroup), second.attach_cgroup(below):
            assert run_order(obj) == 21
            both = below.attached(SOCK_CREATE, effective=True)
            assert both.programs == (second.id, first.id)
            assert below.attached(SOCK_CREATE).programs == (second.id,)


def test_what_has_taken_its_place_stays(obj, cgroup):
    """The kernel would detach it: of one program alone it does not look at which."""
    link = obj.programs["first"].attach_cgroup(cgroup, mode=CgroupMode.EXCLUSIVE)
    successor = obj.programs["second"].attach_cgroup(cgroup, mode=CgroupMode.EXCLUSIVE)
    link.detach()
    assert run_order(obj) == 2
    successor.detach()
    assert run_order(obj) == 0


def test_a_program_without_a_link_ends_with_its_object(bpf_object, cgroup):
    with pybpf.load(bpf_object("cgroups")) as obj:
        obj.programs["first"].attach_cgroup(cgroup, mode=CgroupMode.MULTI)
        assert cgroup.attached(SOCK_CREATE).programs != ()
    assert cgroup.attached(SOCK_CREATE).programs == ()


def test_a_cgroup_that_is_removed_first(obj, cgroup_root):
    made = pybpf.Cgroup.create(f"pybpf-{os.getpid()}-gone", parent=cgroup_root)
    links = [
        obj.programs["first"].attach_cgroup(made),
        obj.programs["second"].attach_cgroup(made, mode=CgroupMode.MULTI),
    ]
    made.remove()
    for link in links:
        link.detach()


# ---- cgroups themselves --------------------------------------------------------------------------


def test_cgroups_are_made_filled_and_removed(cgroup_root):
    made = pybpf.Cgroup.create(f"pybpf-{os.getpid()}-made", parent=cgroup_root)
    assert made.id == os.stat(made).st_ino
    assert made.processes == []
    made.add(os.getpid())
    assert made.processes == [os.getpid()]
    with pytest.raises(pybpf.KernelError, match="EEXIST"):
        pybpf.Cgroup.create(f"pybpf-{os.getpid()}-made", parent=cgroup_root)
    made.remove()
    assert os.getpid() in pybpf.Cgroup(cgroup_root).processes
    with pytest.raises(pybpf.KernelError, match="no such cgroup"):
        made.add()


def test_cgroups_are_made_where_they_are_mounted(cgroup_root):
    with pybpf.Cgroup.create(f"pybpf-{os.getpid()}-here") as made:
        assert (cgroup_root / os.path.basename(made)).is_dir()


def test_a_cgroup_with_others_below_it(cgroup):
    with (
        pybpf.Cgroup.create("below", parent=cgroup),
        pytest.raises(pybpf.KernelError, match="cgroups below it"),
    ):
        cgroup.remove()
