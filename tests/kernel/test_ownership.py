# SPDX-License-Identifier: BSD-2-Clause
"""Who owns what: links, collection in any order, closing twice or under use, fork, leaks."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pybpf
import pytest
from kernel_objects import kernel_ids
from pybpf._handles import Handle


@pytest.fixture
def loaded(bpf_object):
    with pybpf.load(bpf_object("everything")) as obj:
        yield obj


def is_attached(obj):
    """Whether on_exec runs when something is started."""
    obj.maps["counts"].clear()
    subprocess.run(["true"])
    return len(obj.maps["counts"]) > 0


def test_a_link_lasts_as_long_as_its_object_not_its_variable(loaded):
    loaded.programs["on_exec"].attach()
    gc.collect()
    assert is_attached(loaded)
    assert len(loaded.links) == 1


def test_detach_ends_a_link(loaded):
    link = loaded.programs["on_exec"].attach()
    link.detach()
    link.detach()
    assert link.closed
    assert not is_attached(loaded)
    assert loaded.links == ()
    with pytest.raises(pybpf.ClosedError):
        link.info()


@pytest.mark.requires("perf_event_links")
def test_a_link_as_context_manager_detaches(loaded):
    with loaded.programs["on_exec"].attach() as link:
        assert link.info().program_id == loaded.programs["on_exec"].id
        assert is_attached(loaded)
    assert not is_attached(loaded)


def test_a_map_keeps_its_object_alive(bpf_object):
    counts = pybpf.load(bpf_object("everything")).maps["counts"]
    gc.collect()
    counts[1] = 1
    assert dict(counts) == {1: 1}
    counts._owner.close()


def test_an_object_collected_while_open_warns_and_closes(bpf_object):
    before = kernel_ids()["prog"]
    obj = pybpf.load(bpf_object("everything"))
    program_id = obj.programs["on_exec"].id
    assert program_id not in before
    del obj  # still alive: the object and its maps refer to each other
    with pytest.warns(ResourceWarning, match="unclosed object 'everything'"):
        gc.collect()
    assert not any("bpf" in os.readlink(f"/proc/self/fd/{fd}") for fd in bpf_descriptors())


def bpf_descriptors():
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            if "bpf" in os.readlink(f"/proc/self/fd/{fd}"):
                found.append(fd)
        except FileNotFoundError:
            pass
    return found


def test_close_ends_readers_and_links_with_the_object(bpf_object):
    obj = pybpf.load(bpf_object("everything"))
    reader = obj.events("readings")
    (link,) = obj.attach()
    obj.close()
    assert reader.closed
    assert link.closed
    assert bpf_descriptors() == []


def test_closing_under_a_running_call_is_refused():
    destroyed = []
    handle = Handle("pointer", destroyed.append, "thing")
    with handle.borrow() as pointer:
        assert pointer == "pointer"
        with pytest.raises(pybpf.BusyError, match="thing is in use"):
            handle.close()
    handle.close()
    handle.close()
    assert destroyed == ["pointer"]
    with pytest.raises(pybpf.ClosedError, match="thing is closed"), handle.borrow():
        pass


def test_threads_share_an_object(loaded):
    counts, failures = loaded.maps["counts"], []

    def work(key):
        try:
            for value in range(2000):
                counts[key] = value
                assert counts[key] == value
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(key,)) for key in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def in_child(function):
    """Run ``function`` in a forked child; its exit status, 0 where it raises nothing."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forks_close_does_not_detach_the_parents_links(loaded):
    loaded.attach()

    def close_all():
        for link in loaded.links:
            link.close()
        loaded.close()

    assert in_child(close_all) == 0
    assert is_attached(loaded)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_may_use_maps_but_neither_links_nor_readers(loaded):
    (link,) = loaded.attach()
    reader = loaded.events("readings")

    def use():
        loaded.maps["counts"][3] = 33
        for forbidden in (link.detach, link.disown, lambda: reader.read_batch(timeout=0)):
            with pytest.raises(pybpf.StateError, match="fork"):
                forbidden()

    assert in_child(use) == 0
    assert loaded.maps["counts"][3] == 33


DISOWN = """
import os, subprocess, sys, pybpf
obj = pybpf.load(sys.argv[1])
counts = obj.maps["counts"]
counts.pin(sys.argv[2])
(link,) = obj.attach()
link.disown()
assert obj.links == ()
obj.close()
with pybpf.Map.open_pinned(sys.argv[2]) as counts:
    subprocess.run(["true"])
    assert os.getpid() in counts, "the disowned link must outlive its object"
"""


def test_a_disowned_link_lasts_as_long_as_its_process(bpf_object, bpffs):
    pin = bpffs / "counts"
    subprocess.run(
        [sys.executable, "-W", "error", "-c", DISOWN, str(bpf_object("everything")), str(pin)],
        check=True,
    )
    with pybpf.Map.open_pinned(pin) as counts:
        counts.clear()
        subprocess.run(["true"])
        assert len(counts) == 0
        counts.unpin(pin)


@pytest.mark.native
def test_many_rounds_leave_descriptors_and_memory_as_they_were(bpf_object):
    """Two processes at a time: to detach is mostly to wait for the kernel."""
    command = [sys.executable, str(Path(__file__).with_name("rounds.py"))]
    command.append(str(bpf_object("everything")))
    with (
        subprocess.Popen([*command, "1000"], stdout=subprocess.PIPE) as loading,
        subprocess.Popen([*command, "100", "attach"], stdout=subprocess.PIPE) as attaching,
    ):
        grown = [json.loads(process.communicate()[0]) for process in (loading, attaching)]
    assert [each["fds"] for each in grown] == [0, 0]
    assert max(each["kib"] for each in grown) < 256
