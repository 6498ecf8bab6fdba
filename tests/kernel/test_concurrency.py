# SPDX-License-Identifier: BSD-2-Clause
"""Threads, signal handlers, forks and Ctrl-C at the worst moment: nothing is used after it was
closed, nothing hangs, and no record is lost or given twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import partial

import pybpf
import pytest
from pybpf import Map, MapType
from pybpf.program import Runner
from test_ownership import in_child, is_attached

pytestmark = pytest.mark.native

HANG_SECONDS = 20
RECORDS_PER_RUN = 64

forks = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture
def loaded(bpf_object):
    with pybpf.load(bpf_object("everything")) as obj:
        yield obj


def make_map():
    return Map.create(MapType.HASH, key_size=4, value_size=8, max_entries=8)


def produce(obj, count=RECORDS_PER_RUN):
    obj.programs["run_all"].test_run(ctx=count.to_bytes(4, "little"))


class Worker(threading.Thread):
    """A thread that keeps what its function returns, or the error that it raises."""

    def __init__(self, function):
        super().__init__(daemon=True)
        self.function = function
        self.result = self.error = None
        self.start()

    def run(self):
        try:
            self.result = self.function()
        except BaseException as error:
            self.error = error

    def outcome(self):
        """(result, error), at the end; a thread that hangs fails the test."""
        self.join(HANG_SECONDS)
        assert not self.is_alive(), "hangs"
        return self.result, self.error


def at_once(*functions):
    """The outcomes of functions that threads begin at the same time."""
    barrier = threading.Barrier(len(functions))

    def start(function):
        barrier.wait(HANG_SECONDS)
        return function()

    return [worker.outcome() for worker in [Worker(partial(start, each)) for each in functions]]


# ---- close() while others are at it --------------------------------------------------------------


def write_until_refused(bpf_map, begun):
    while True:
        bpf_map[7] = 7
        begun.set()


def assert_untouched(fresh):
    for bpf_map in fresh:
        assert list(bpf_map) == [], "a write to the closed map has reached another one"
        bpf_map.close()


def test_writers_to_a_closed_map_never_reach_the_next_one(switch_often):
    for _ in range(150):
        old, begun = make_map(), threading.Event()
        writers = [Worker(partial(write_until_refused, old, begun)) for _ in range(2)]
        assert begun.wait(HANG_SECONDS)
        old.close()
        fresh = [make_map() for _ in range(3)]
        for writer in writers:
            assert type(writer.outcome()[1]) is pybpf.ClosedError
        assert_untouched(fresh)


def close_when_free(obj, state="loaded"):
    deadline = time.monotonic() + HANG_SECONDS
    while not obj.closed:
        assert time.monotonic() < deadline, "never free"
        try:
            obj.close()
        except pybpf.BusyError:
            assert obj.state == state


def test_writers_to_a_closed_objects_map_never_reach_the_next_one(bpf_object, switch_often):
    for _ in range(5):
        obj, begun = pybpf.load(bpf_object("typed")), threading.Event()
        names = obj.maps["names"]

        def write(names=names, begun=begun):
            while True:
                names["key"] = 7
                begun.set()
                for _ in range(100):  # else there is hardly a moment to close
                    pass

        writer = Worker(write)
        assert begun.wait(HANG_SECONDS)
        close_when_free(obj)
        fresh = [make_map() for _ in range(8)]
        assert type(writer.outcome()[1]) is pybpf.ClosedError
        assert_untouched(fresh)


@pytest.mark.parametrize(
    "part", [lambda obj: obj.maps["names"], lambda obj: obj.programs["next_hop"]]
)
@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
def test_fileno_while_the_object_closes_is_a_number_or_an_error(
    bpf_object, switch_often, part, used
):
    for _ in range(10):
        obj, begun = pybpf.load(bpf_object("typed")), threading.Event()
        if used:
            part(obj).fileno()

        def ask(obj=obj, begun=begun):
            while True:
                begun.set()
                assert part(obj).fileno() > 2

        asker = Worker(ask)
        assert begun.wait(HANG_SECONDS)
        close_when_free(obj)
        assert isinstance(asker.outcome()[1], pybpf.StateError), asker.error


# ---- load() and attach() by two threads ----------------------------------------------------------


def test_of_two_threads_that_load_one_object_one_succeeds(bpf_object, switch_often):
    for _ in range(20):
        with pybpf.open(bpf_object("everything")) as obj:
            errors = [error for _, error in at_once(obj.load, obj.load)]
            assert errors.count(None) == 1, errors
            (refusal,) = filter(None, errors)
            assert type(refusal) in (pybpf.BusyError, pybpf.StateError)
            assert obj.state == "loaded"
            produce(obj, 1)


def test_two_threads_that_attach_attach_every_program_once(bpf_object, switch_often):
    for _ in range(4):
        with pybpf.open(bpf_object("everything")) as obj:
            obj.programs["off_by_default"].autoload = True
            obj.load()
            (first, error), (second, other_error) = at_once(obj.attach, obj.attach)
            assert (error, other_error) == (None, None)
            sources = sorted(link.source.name for link in [*first, *second])
            assert sources == ["off_by_default", "on_exec"]
            assert set(obj.links) == {*first, *second}


# ---- first test runs by several threads ----------------------------------------------------------


def test_threads_may_run_a_program_for_the_first_time_at_once(loaded, switch_often):
    """Each of them would make the descriptor that runs use; that of one serves all."""

    def run_often():
        for _ in range(20):
            program.test_run(ctx=RECORDS_PER_RUN.to_bytes(4, "little"))

    for _ in range(200):
        with pybpf.Program.from_fd(loaded.programs["run_all"].fileno()) as program:
            assert at_once(*[run_often] * 4) == [(None, None)] * 4


def test_a_program_that_is_closed_while_it_is_run_first_is_closed(loaded, monkeypatch):
    class ClosedMeanwhile(Runner):
        def __init__(self, fd, type):
            super().__init__(fd, type)
            program.close()

    monkeypatch.setattr("pybpf.program.Runner", ClosedMeanwhile)
    descriptors = len(os.listdir("/proc/self/fd"))
    program = pybpf.Program.from_fd(loaded.programs["run_all"].fileno())
    for _ in range(2):
        with pytest.raises(pybpf.ClosedError):
            program.test_run(ctx=bytes(4))
    assert len(os.listdir("/proc/self/fd")) == descriptors


# ---- readers that are closed ---------------------------------------------------------------------

# A handler closes the reader at a random moment of what the main thread does with it.
CLOSE_IN_HANDLER = """
import faulthandler, json, os, random, signal, sys, pybpf
faulthandler.dump_traceback_later(120, exit=True)
random.seed(7)

def produce():
    obj.programs["run_all"].test_run(ctx=(3).to_bytes(4, "little"))

def wait(reader):
    while True:
        reader.read_batch()

def poll(reader):
    while True:
        produce()
        reader.read_batch(timeout=0)

def iterate(reader):
    for record in reader:
        assert record.label == b"none"
        if record.sequence == 2:
            produce()

ended = {"closed": 0, "iterated": 0}
with pybpf.load(sys.argv[1]) as obj:
    produce()  # after its first run a program has a second descriptor
    obj.events("readings").read_batch(timeout=0)
    before = len(os.listdir("/proc/self/fd"))
    for use in [wait, poll, iterate] * 60:
        reader = obj.events("readings")
        signal.signal(signal.SIGALRM, lambda *_: reader.close())
        produce()
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 4e-3))
        try:
            use(reader)
            ended["iterated"] += 1
        except pybpf.ClosedError:
            ended["closed"] += 1
        assert reader.closed
        obj.events("readings", timeout=0).read_batch(timeout=0)
    del reader
    ended["left"] = len(os.listdir("/proc/self/fd")) - before
print(json.dumps(ended))
"""


def run_script(script, *arguments):
    """The JSON that a script prints, which fails the test where it hangs or complains."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=3 * HANG_SECONDS,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return json.loads(done.stdout)


def test_a_signal_handler_may_close_a_reader_in_use(bpf_object):
    ended = run_script(CLOSE_IN_HANDLER, bpf_object("everything"))
    assert ended == {"closed": 120, "iterated": 60, "left": 0}


def wait_until_polling(thread):
    """Return when the thread sleeps in epoll_wait(2)."""
    deadline = time.monotonic() + HANG_SECONDS
    calls = ("232 ", "22 ")  # epoll_wait on x86_64, epoll_pwait on aarch64
    while True:
        with open(f"/proc/self/task/{thread.native_id}/syscall") as file:
            if file.read().startswith(calls):
                return
        assert time.monotonic() < deadline, "does not wait"


@pytest.mark.parametrize("waits", [True, False], ids=["that waits", "that begins to"])
def test_close_ends_a_read_though_its_descriptors_are_reused(loaded, waits):
    for _ in range(20):
        reader = loaded.events("readings")
        worker = Worker(reader.read_batch)
        if waits:
            wait_until_polling(worker)
        reader.close()
        reused = [os.eventfd(0) for _ in range(3)]
        try:
            assert type(worker.outcome()[1]) is pybpf.ClosedError
        finally:
            for fd in reused:
                os.close(fd)


def test_threads_share_a_reader_and_each_record_goes_to_one(bpf_object, switch_often):
    runs = 400
    with pybpf.open(bpf_object("everything")) as obj:
        obj.maps["readings"].max_entries = 16384
        obj.load()
        room = threading.Semaphore(7 * RECORDS_PER_RUN)  # records of 32 bytes in the ring
        reader = obj.events("readings")

        def iterate():
            found = []
            for record in reader:
                found.append(record.sequence)
                room.release()
            return found

        def read():
            found = []
            while True:
                try:
                    batch = reader.read_batch()
                except pybpf.ClosedError:
                    return found
                found += [record.sequence for record in batch]
                room.release(len(batch))

        workers = [Worker(function) for function in (iterate, read, iterate, read)]
        for _ in range(runs):
            take(room, RECORDS_PER_RUN)
            produce(obj)
        take(room, 7 * RECORDS_PER_RUN)  # all are there
        reader.close()
        total = Counter()
        for worker in workers:
            found, error = worker.outcome()
            assert error is None
            total.update(found)
    assert total == dict.fromkeys(range(RECORDS_PER_RUN), runs)


def take(semaphore, count):
    for _ in range(count):
        assert semaphore.acquire(timeout=HANG_SECONDS), "records are missing"


# ---- forks ---------------------------------------------------------------------------------------


@forks
def test_a_forks_close_leaves_the_parents_reader_asleep(loaded):
    reader = loaded.events("readings")
    loaded.attach()

    def close_all():
        reader.close()
        loaded.close()

    assert in_child(close_all) == 0
    cpu, wall = time.process_time(), time.monotonic()
    assert reader.read_batch(timeout=0.2) == []
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    assert wall >= 0.2
    assert cpu < wall / 4, "it spins"
    produce(loaded)
    assert len(reader.read_batch(timeout=HANG_SECONDS)) == RECORDS_PER_RUN
    assert is_attached(loaded)


@forks
@pytest.mark.parametrize("close", ["its link", "its object"])
def test_a_fork_that_closed_its_link_does_not_keep_it_attached(loaded, close):
    (link,) = loaded.attach()
    ready, stop = os.eventfd(0), os.eventfd(0)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            (link if close == "its link" else loaded).close()
            status = 2 if any("link" in target for target in bpf_descriptors()) else 0
        finally:
            os.eventfd_write(ready, 1)
            os.eventfd_read(stop)
            os._exit(status)
    try:
        os.eventfd_read(ready)
        assert is_attached(loaded), "the fork has detached the parent's program"
        link.detach()
        assert not is_attached(loaded)
    finally:
        os.eventfd_write(stop, 1)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.close(ready)
        os.close(stop)
    assert status == 0, "the fork holds the link's descriptor on"


def bpf_descriptors():
    """What this process has open of the kernel's BPF things: "anon_inode:bpf_link" and so on."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            pass  # the listing's own
    return [target for target in found if "bpf" in target]


# ---- Ctrl-C --------------------------------------------------------------------------------------


def is_interruptible(frame):
    """Whether an exception in the frame is pybpf's to bear: it is one of pybpf's or called by one,
    and none of a __del__, where Python itself drops it, or of logging, which keeps its lock."""
    inside = False
    while frame is not None:
        if frame.f_code.co_name == "__del__" or frame.f_globals["__name__"] == "logging":
            return False
        inside = inside or frame.f_globals["__name__"].startswith("pybpf.")
        frame = frame.f_back
    return inside


class Interrupts:
    """Calls with a KeyboardInterrupt at a random moment."""

    def __init__(self):
        self.random = random.Random(7)
        self.armed = False
        self.raised = 0

    def handle(self, number, frame):
        if self.armed and is_interruptible(frame):
            self.raised += 1
            raise KeyboardInterrupt

    def call(self, longest, function):
        """Whether the function was interrupted within the ``longest`` seconds it may take."""
        self.armed = True
        signal.setitimer(signal.ITIMER_REAL, self.random.uniform(1e-6, longest))
        try:
            function()
        except KeyboardInterrupt:
            return True
        finally:
            self.armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        return False


@pytest.fixture
def interrupts():
    made = Interrupts()
    before = signal.signal(signal.SIGALRM, made.handle)
    yield made
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def seconds_of(function):
    """How long it takes, once what it imports is there."""
    took = []
    for _ in range(5):
        start = time.perf_counter()
        function()
        took.append(time.perf_counter() - start)
    return min(took)


def load_and_close(data):
    with pybpf.open(data) as obj:
        obj.load()


def test_ctrl_c_during_load_leaves_an_object_that_can_be_closed(bpf_object, interrupts):
    data = bpf_object("typed").read_bytes()
    whole = seconds_of(partial(load_and_close, data))
    states = Counter()
    for number in range(600):
        with pybpf.open(data) as obj:
            # every other time where Python runs, before the call into C
            longest = whole if number % 2 else whole / 20
            interrupted = interrupts.call(longest, obj.load)
            states[obj.state] += 1
            assert obj.state in ("open", "loaded", "failed")
            if not interrupted:
                assert obj.state == "loaded"
            if obj.state == "open":
                obj.load()  # the interrupt came before anything was done
            elif obj.state == "failed":
                with pytest.raises(pybpf.StateError, match="open the file again"):
                    obj.load()
        assert obj.state == "closed"
    assert bpf_descriptors() == []
    assert interrupts.raised > 60, states
    assert states["failed"] > 0, states


@pytest.fixture
def wide(bpf_object):
    """An object whose ring ``readings`` holds 511 records of run_all, and more."""
    with pybpf.open(bpf_object("everything")) as obj:
        obj.maps["readings"].max_entries = 16384
        obj.load()
        yield obj


ALL = list(range(RECORDS_PER_RUN))


@pytest.mark.parametrize("how", ["read_batch", "iterating"])
def test_ctrl_c_during_a_read_loses_and_doubles_no_record(wide, interrupts, how):
    rounds = 1200
    reader, found = wide.events("readings", timeout=0), []

    def read_batch():
        found.append(reader.read_batch(timeout=0))

    def iterate():
        for record in reader:
            found.append([record])

    read = {"read_batch": read_batch, "iterating": iterate}[how]
    longest = seconds_of(lambda: (produce(wide), read()))
    found.clear()
    for number in range(rounds):
        produce(wide)
        interrupts.call(longest, read)
        if number % 5 == 4:  # before the ring is full
            found += iter(partial(reader.read_batch, timeout=0), [])
    sequences = [record.sequence for batch in found for record in batch]
    assert interrupts.raised > rounds / 40  # it takes microseconds
    assert Counter(sequences) == dict.fromkeys(ALL, rounds), "lost, or given twice"
    assert sequences == ALL * rounds, "out of order"


def test_a_signal_handler_that_reads_where_its_thread_reads_takes_nothing_away(wide):
    rounds = 300
    reader, found = wide.events("readings"), []
    moments = random.Random(7)

    def read(*_):
        try:
            found.append(reader.read_batch(timeout=0))
        except pybpf.BusyError:
            refused.append(True)

    refused = []
    longest = seconds_of(lambda: (produce(wide), read()))
    found.clear()
    before = signal.signal(signal.SIGALRM, read)
    try:
        for _ in range(rounds):
            produce(wide)
            signal.setitimer(signal.ITIMER_REAL, moments.uniform(1e-6, longest))
            read()
            read()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    found += iter(partial(reader.read_batch, timeout=0), [])
    total = Counter(record.sequence for batch in found for record in batch)
    assert total == dict.fromkeys(ALL, rounds), "lost, or given twice"


@pytest.mark.filterwarnings("ignore:unclosed <UserSample:ResourceWarning")
@pytest.mark.requires("user_ringbuf")
def test_ctrl_c_leaves_no_sample_in_the_way_of_later_ones(bpf_object, interrupts):
    rounds, last = 1500, b"last"
    with pybpf.load(bpf_object("userring")) as obj:
        ring = obj.maps["untyped"].writer()

        def produce():
            ring.submit(b"first")
            with ring.reserve(6) as sample:
                sample.data[:] = b"second"
            sample = ring.reserve(5)
            sample.data[:] = b"third"
            sample.submit()

        def drained():
            obj.programs["drain_untyped"].test_run(ctx=bytes(8))
            with obj.events("drained", timeout=0) as reader:
                return list(reader)

        longest = 2 * seconds_of(produce)
        drained()
        seen = Counter()
        for _ in range(rounds):
            interrupted = interrupts.call(longest, produce)
            ring.submit(last)
            found = drained()
            seen.update(found)
            if not interrupted:
                assert found == [b"first", b"second", b"third", last]
        assert seen[last] == rounds, "a sample was in the way"
    assert interrupts.raised > rounds / 10
    assert seen[b"first"] > seen[b"third"] > 0


def test_an_interrupted_reader_can_be_closed(loaded, interrupts):
    reader = loaded.events("readings")
    longest = seconds_of(lambda: (produce(loaded), reader.read_batch(timeout=0)))
    reader.close()
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(300):
        reader = loaded.events("readings")
        produce(loaded)
        interrupts.call(longest, partial(reader.read_batch, timeout=0))
        reader.close()
        assert set(os.listdir("/proc/self/fd")) == before, "close() has not freed it"
    assert interrupts.raised > 30
