# SPDX-License-Identifier: BSD-2-Clause
"""Maps whose keys or values are things of the kernel: cgroups, processes, sockets and files."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path

import features
import pybpf
import pytest
from kernel_objects import attach_to_cgroup
from pybpf import AttachType, Map, MapType, UpdateFlags
from pybpf.codec import possible_cpus

EGRESS = AttachType.CGROUP_INET_EGRESS


@pytest.fixture
def things(bpf_object):
    with pybpf.open(bpf_object("kinds_things")) as obj:
        leave_out_what_the_kernel_lacks(obj)
        obj.load()
        yield obj


def leave_out_what_the_kernel_lacks(obj):
    if not features.has("task_storage"):
        obj.maps["tasks"].autocreate = False
        obj.programs["count_task"].autoload = False


@pytest.fixture
def of_cgroups(bpf_object):
    features.require("cgrp_storage")
    with pybpf.load(bpf_object("kinds_cgrp")) as obj:
        yield obj


def call(obj, program, **variables):
    """What the program returns as an int, after its global variables were set."""
    for name, value in variables.items():
        obj.bss[name] = value
    return ctypes.c_int32(obj.programs[program].test_run().retval).value


def own_cgroup():
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return next(line.partition("::")[2] for line in lines if line.startswith("0::"))


@pytest.fixture
def cgroups(cgroup_root):
    """Two new cgroups (folders); this process is in the first one meanwhile."""
    home = cgroup_root / own_cgroup().lstrip("/")
    mine, other = (cgroup_root / f"pybpf-{name}-{os.getpid()}" for name in ("mine", "other"))
    mine.mkdir()
    other.mkdir()
    (mine / "cgroup.procs").write_text("0")
    yield mine, other
    (home / "cgroup.procs").write_text("0")
    mine.rmdir()
    other.rmdir()


@contextmanager
def same_descriptors(bpf_map):
    """What a block opens to use ``bpf_map`` is closed at its end."""
    bpf_map._elements()  # which have a descriptor of their own from the first use on
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) == before


# ---- arrays of cgroups ---------------------------------------------------------------------------


def test_a_program_knows_the_cgroups_that_were_assigned(things, cgroups):
    mine, other = cgroups
    bpf_map = things.maps["cgroups"]
    assert call(things, "is_under", key=1) < 0
    with same_descriptors(bpf_map):
        bpf_map[1] = mine
        assert call(things, "is_under", key=1) == 1
        bpf_map[1] = str(other)
        assert call(things, "is_under", key=1) == 0
        fd = os.open(mine, os.O_RDONLY)
        bpf_map[1] = fd
        os.close(fd)
        assert call(things, "is_under", key=1) == 1
        bpf_map.update({0: other, 1: mine})
        assert [call(things, "is_under", key=key) for key in (0, 1)] == [0, 1]
        del bpf_map[1]
        assert call(things, "is_under", key=1) < 0
        bpf_map.clear()
        assert call(things, "is_under", key=0) < 0
    with pytest.raises(KeyError):
        del bpf_map[1]


def test_what_is_no_cgroup_is_refused(things, cgroups, tmp_path):
    bpf_map = things.maps["cgroups"]
    with same_descriptors(bpf_map):
        with pytest.raises(pybpf.KernelError, match="takes cgroups of version 2: folders"):
            bpf_map[0] = tmp_path
        with pytest.raises(FileNotFoundError):
            bpf_map[0] = tmp_path / "missing"
        with pytest.raises(pybpf.LayoutError, match="takes what has a fileno"):
            bpf_map[0] = 1.5
        with pytest.raises(pybpf.KernelError, match="its keys are 0 to 1"):
            bpf_map[2] = cgroups[0]
        with pytest.raises(FileNotFoundError):
            bpf_map.update({0: cgroups[0], 1: tmp_path / "missing"})
    with pytest.raises(pybpf.NotSupportedError, match="only stored and deleted"):
        bpf_map[0]


# ---- storage of processes, sockets, files and cgroups --------------------------------------------


@pytest.mark.requires("task_storage")
def test_storage_of_a_process(things):
    tasks = things.maps["tasks"]
    me = os.getpid()
    assert call(things, "count_task") == 1
    assert tasks.pop(me) == 1
    with same_descriptors(tasks):
        assert me not in tasks
        tasks[me] = 41
        assert call(things, "count_task") == 42
        assert tasks[me] == tasks.get(me) == 42
        with os.fdopen(os.pidfd_open(me), "rb", buffering=0) as pidfd:
            assert tasks[pidfd] == 42
        assert tasks.lookup_many([me, 1]) == [42, None]
        tasks.update({me: 5, os.getppid(): 6})
        assert tasks.pop(os.getppid()) == 6
        del tasks[me]
        assert call(things, "count_task") == 1
        assert tasks.pop(me) == 1
        with pytest.raises(KeyError) as caught:
            tasks[me]
        assert caught.value.args == (me,)
        with pytest.raises(KeyError):
            del tasks[me]
        assert tasks.setdefault(me, 7) == tasks.setdefault(me, 8) == 7


@pytest.mark.requires("task_storage")
def test_update_flags_of_a_storage(things):
    tasks, me = things.maps["tasks"], os.getpid()
    with pytest.raises(KeyError):
        tasks.put(me, 1, UpdateFlags.EXIST)
    tasks.put(me, 1, UpdateFlags.NOEXIST)
    with pytest.raises(pybpf.KernelError, match="EEXIST"):
        tasks.put(me, 2, UpdateFlags.NOEXIST)
    assert tasks[me] == 1


@pytest.mark.requires("task_storage")
def test_a_process_that_is_gone_or_none(things):
    tasks = things.maps["tasks"]
    child = subprocess.Popen(["true"])
    child.wait()
    with same_descriptors(tasks), open("/dev/null") as file:
        with pytest.raises(ProcessLookupError):
            tasks[child.pid] = 1
        with pytest.raises(pybpf.KernelError, match="TASK_STORAGE has values for processes"):
            tasks[file] = 1
        with pytest.raises(pybpf.LayoutError, match="fileno"):
            tasks["self"] = 1


@pytest.mark.parametrize(
    "name",
    [pytest.param("tasks", marks=pytest.mark.requires("task_storage")), "sockets", "files"],
)
@pytest.mark.parametrize(
    "use",
    [list, len, lambda m: m.to_dict(), lambda m: m.clear(), lambda m: m.pop_all()],
    ids=["list", "len", "to_dict", "clear", "pop_all"],
)
def test_a_storage_is_not_listed(things, name, use):
    hint = "found by the thing of the kernel that it belongs to, and not listed"
    with pytest.raises(pybpf.NotSupportedError, match=f"iterate map '{name}'.*(?s:.*){hint}"):
        use(things.maps[name])


@pytest.fixture
def counting(things, cgroups):
    """The object, with its program counting what this process sends."""
    link = attach_to_cgroup(things.programs["count_packet"], cgroups[0], EGRESS)
    yield things
    os.close(link)


@pytest.fixture
def packets(cgroups):
    """A socket of this cgroup, and what sends a packet to itself from it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        yield sender, lambda: sender.sendto(b"x", sender.getsockname())


def test_storage_of_a_socket(counting, packets):
    sender, send = packets
    sockets = counting.maps["sockets"]
    with same_descriptors(sockets):
        assert sender not in sockets
        send()
        assert sender not in sockets
        sockets[sender] = 10
        send()
        assert sockets[sender] == sockets[sender.fileno()] == 11
        del sockets[sender]
        send()
        assert sockets.get(sender) is None
        with pytest.raises(KeyError):
            del sockets[sender]
        with (
            open("/dev/null") as file,
            pytest.raises(pybpf.KernelError, match="SK_STORAGE has values for sockets"),
        ):
            sockets[file] = 1


def test_storage_of_a_file(things, tmp_path):
    files = things.maps["files"]
    path = tmp_path / "file"
    path.write_text("")
    with same_descriptors(files):
        assert path not in files
        files[path] = 5
        with open(path) as file:
            assert files[path] == files[str(path)] == files[file] == 5
            files[file] = 6
        os.link(path, tmp_path / "same")
        assert files[tmp_path / "same"] == files[path] == 6
        del files[path]
        with pytest.raises(KeyError):
            files[path]
        with pytest.raises(FileNotFoundError):
            files[tmp_path / "missing"] = 1
        with pytest.raises(pybpf.KernelError, match="INODE_STORAGE has values for files: paths"):
            files[1 << 20] = 1


def test_naming_a_pipe_does_not_wait_for_its_other_end(things, tmp_path):
    files = things.maps["files"]
    os.mkfifo(tmp_path / "pipe")
    files[tmp_path / "pipe"] = 5
    assert files[tmp_path / "pipe"] == 5


@pytest.mark.requires("lsm")
def test_a_program_counts_in_the_storage_of_a_file(bpf_object, tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pybpf.load(bpf_object("kinds_lsm")) as obj:
        files = obj.maps["files"]
        files[path] = 40
        obj.attach()
        for _ in range(2):
            path.read_text()
        assert files[path] == 42


def test_storage_of_a_cgroup(of_cgroups, cgroups, tmp_path):
    mine, other = cgroups
    storage = of_cgroups.maps["cgroups"]
    assert mine not in storage
    assert call(of_cgroups, "count_cgroup") == 1
    with same_descriptors(storage):
        assert storage[mine] == 1
        storage[mine] = 41
        assert call(of_cgroups, "count_cgroup") == 42
        with pytest.raises(KeyError):
            storage[other]
        storage[str(other)] = 5
        assert storage.lookup_many([mine, other]) == [42, 5]
        fd = os.open(other, os.O_RDONLY)
        assert storage[fd] == 5
        os.close(fd)
        del storage[mine]
        assert mine not in storage
        assert call(of_cgroups, "count_cgroup") == 1
        with pytest.raises(pybpf.KernelError, match="CGRP_STORAGE has values for cgroups"):
            storage[tmp_path] = 1
    with pytest.raises(pybpf.NotSupportedError, match="not listed"):
        len(storage)


# ---- storage of a program's attachment to a cgroup -----------------------------------------------


def test_storage_of_an_attachment_to_a_cgroup(counting, cgroups, packets):
    _, send = packets
    mine, other = cgroups
    sent = counting.maps["sent"]
    send()
    send()
    assert sent[mine, EGRESS] == sent[str(mine), EGRESS] == 2
    number = os.stat(mine).st_ino
    assert sent[number, EGRESS] == 2
    assert sent[{"cgroup_inode_id": number, "attach_type": EGRESS}] == 2
    assert [key.cgroup_inode_id for key in sent] == [number]
    assert len(sent) == 1
    sent[mine, EGRESS] = 40
    send()
    assert list(sent.values()) == [41]
    for key in ((other, EGRESS), (mine, AttachType.CGROUP_INET_INGRESS)):
        with pytest.raises(KeyError):
            sent[key]
        with pytest.raises(KeyError):
            sent[key] = 1
    with pytest.raises(pybpf.NotSupportedError, match="come and go with programs"):
        del sent[mine, EGRESS]


def test_storage_of_an_attachment_by_cpu(counting, cgroups, packets):
    _, send = packets
    mine, other = cgroups
    sent = counting.maps["sent_by_cpu"]
    send()
    assert sent[mine].sum() == 1
    assert len(sent[mine]) == possible_cpus()
    sent[mine] = 10
    send()
    assert sent[os.stat(mine).st_ino].sum() == 10 * possible_cpus() + 1
    assert list(sent) == [os.stat(mine).st_ino]
    sent.put(mine, 1000, cpu=0)
    assert sent[mine][0] == 1000
    assert other not in sent


def test_such_storage_is_empty_before_the_attachment(things, cgroups):
    assert len(things.maps["sent"]) == 0
    assert (cgroups[0], EGRESS) not in things.maps["sent"]


def test_such_storage_without_types_has_pairs_as_keys(bpf_object, cgroups, packets):
    """As an object without BTF has it."""
    mine, _ = cgroups
    kind = MapType.CGROUP_STORAGE
    with (
        Map.create(kind, key_size=16, value_size=8, max_entries=0) as sent,
        pybpf.open(bpf_object("kinds_things")) as obj,
    ):
        leave_out_what_the_kernel_lacks(obj)
        obj.maps["sent"].reuse(sent)
        obj.load()
        link = attach_to_cgroup(obj.programs["count_packet"], mine, EGRESS)
        packets[1]()
        os.close(link)
        assert sent.to_dict() == {(os.stat(mine).st_ino, EGRESS): 1}
        assert sent[mine, EGRESS] == 1
        with pytest.raises(OverflowError):
            sent[-1, EGRESS]
        with pytest.raises(pybpf.LayoutError):
            sent[mine, "egress"]
        with pytest.raises(pybpf.LayoutError):
            sent[mine]
