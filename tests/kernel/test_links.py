# SPDX-License-Identifier: BSD-2-Clause
"""How long an attachment lasts: docs/links.md, line by line.

Each is seen in the kernel's list of what is attached to a cgroup, without any program's running.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import subprocess
import sys

import pybpf
import pytest

PR_SET_CHILD_SUBREAPER = 36
HOOK = pybpf.AttachType.CGROUP_INET_SOCK_CREATE

# attaches in each of the four ways, does what is to be done, and tells what is attached then
SCRIPT = """
import gc, os, signal, subprocess, sys
import pybpf
obj = pybpf.load(sys.argv[1])
cgroup = pybpf.Cgroup(sys.argv[2])
names = {obj.programs[name].id: name for name in ("first", "second", "third", "sock_create")}
def attached():
    ids = cgroup.attached(pybpf.AttachType.CGROUP_INET_SOCK_CREATE).programs
    print(*sorted(names[each] for each in ids), flush=True)
obj.programs["first"].attach_cgroup(cgroup)
obj.programs["second"].attach_cgroup(cgroup).pin(sys.argv[3])
obj.programs["third"].attach_cgroup(cgroup).disown()
obj.programs["sock_create"].attach_cgroup(cgroup, mode=pybpf.CgroupMode.MULTI)
print(*(f"{id}={name}" for id, name in names.items()))
"""
NAMED = {"first": "linked", "second": "pinned", "third": "disowned", "sock_create": "without link"}
ALL = {"linked", "pinned", "disowned", "without link"}


@pytest.fixture
def cgroup(cgroup_root):
    with pybpf.Cgroup.create(f"pybpf-{os.getpid()}-links", parent=cgroup_root) as made:
        yield made


@pytest.fixture
def process(bpf_object, cgroup, bpffs):
    """process(CODE): what SCRIPT's process prints, with that code at its end, and its status."""
    pin = bpffs / "link"

    def run(code, *descriptors):
        command = [sys.executable, "-W", "ignore::ResourceWarning", "-c", SCRIPT + code]
        command += [str(bpf_object("cgroups")), str(cgroup), str(pin)]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, pass_fds=descriptors)

    yield run
    pin.unlink()


def attached_afterwards(cgroup, done):
    """What is attached though the process is gone."""
    ids = dict(pair.split("=") for pair in done.stdout.splitlines()[0].split())
    found = cgroup.attached(HOOK).programs
    return {NAMED[ids[str(each)]] for each in found}


WITHIN = {
    "obj.close()": {"pinned", "disowned"},
    "for link in obj.links: link.close()": {"pinned", "disowned"},
    "for link in obj.links: link.detach()": {"disowned"},
    "del obj; gc.collect()": {"pinned", "disowned"},
    "gc.collect()": ALL,
    "subprocess.run(['true'], close_fds=False)": ALL,
    "if os.fork() == 0: obj.close(); os._exit(0)\nos.wait()": ALL,
    "if os.fork() == 0: del obj; gc.collect(); os._exit(0)\nos.wait()": ALL,
    "if os.fork() == 0: sys.exit()\nos.wait()": ALL,
}


@pytest.mark.parametrize("what", WITHIN)
def test_what_is_attached_while_the_process_lives(process, what):
    done = process(f"{what}\nattached()\nos._exit(0)")
    assert done.returncode == 0
    assert {NAMED[name] for name in done.stdout.splitlines()[-1].split()} == WITHIN[what]


ENDS = {
    "": 0,
    "sys.exit(3)": 3,
    "raise SystemExit(4)": 4,
    "os._exit(5)": 5,
    "os.execvp('true', ['true'])": 0,
    "os.kill(os.getpid(), signal.SIGKILL)": -signal.SIGKILL,
}


@pytest.mark.parametrize("end", ENDS)
def test_what_is_attached_when_the_process_is_gone(process, cgroup, end):
    done = process(end)
    assert done.returncode == ENDS[end]
    assert attached_afterwards(cgroup, done) == {"pinned", "without link"}


@pytest.fixture
def orphans():
    """Processes whose parents end become this one's children, which it can wait for."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    yield
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0)


@pytest.mark.usefixtures("orphans")
def test_a_fork_keeps_what_its_parent_leaves(process, cgroup):
    """It inherits the descriptors: what they hold ends with the last process that has them."""
    reading, writing = os.pipe()
    fork = f"""
child = os.fork()
if child == 0:
    os.close(1)
    os.read({reading}, 1)
    os._exit(0)
print(child)
"""
    try:
        done = process(fork, reading)
        assert attached_afterwards(cgroup, done) == ALL
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(int(done.stdout.splitlines()[-1]), 0)
    assert attached_afterwards(cgroup, done) == {"pinned", "without link"}


# ---- collection ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", ["object", "program", "link", "map"])
def test_what_is_kept_of_an_object_keeps_it_attached(bpf_object, cgroup, kept):
    obj = pybpf.load(bpf_object("cgroups"))
    program = obj.programs["first"]
    parts = {
        "object": obj,
        "program": program,
        "link": program.attach_cgroup(cgroup),
        "map": obj.bss.map,
    }
    id = program.id
    part = parts[kept]
    del parts, obj, program
    gc.collect()
    assert cgroup.attached(HOOK).programs == (id,)
    del part
    with pytest.warns(ResourceWarning, match="unclosed object 'cgroups'"):
        gc.collect()
    assert cgroup.attached(HOOK).programs == ()


# ---- other handles of the same link --------------------------------------------------------------


def test_another_handle_by_id_keeps_it_attached(bpf_object, cgroup):
    with pybpf.load(bpf_object("cgroups")) as obj:
        link = obj.programs["first"].attach_cgroup(cgroup)
        other = pybpf.Link.from_id(link.id)
    with other:
        assert len(cgroup.attached(HOOK).programs) == 1
    assert cgroup.attached(HOOK).programs == ()


def test_detach_ends_it_for_all_handles(bpf_object, cgroup, bpffs):
    with pybpf.load(bpf_object("cgroups")) as obj:
        link = obj.programs["first"].attach_cgroup(cgroup)
        link.pin(bpffs / "link")
        with pybpf.Link.open_pinned(bpffs / "link") as other:
            link.detach()
            assert cgroup.attached(HOOK).programs == ()
            with pytest.raises(pybpf.AttachError, match="the link was detached"):
                other.update(obj.programs["second"])
            other.unpin(bpffs / "link")


def test_there_is_no_link_of_that_id():
    with pytest.raises(pybpf.AttachError, match="open link 4294967295: ENOENT"):
        pybpf.Link.from_id(0xFFFFFFFF)


@pytest.mark.requires("cgroup_order")
def test_each_change_raises_the_revision(bpf_object, cgroup):
    with pybpf.load(bpf_object("cgroups")) as obj:
        seen = [cgroup.attached(HOOK).revision]
        link = obj.programs["first"].attach_cgroup(cgroup)
        seen.append(cgroup.attached(HOOK).revision)
        link.update(obj.programs["second"])
        seen.append(cgroup.attached(HOOK).revision)
        link.detach()
        seen.append(cgroup.attached(HOOK).revision)
        assert seen == sorted(set(seen))
