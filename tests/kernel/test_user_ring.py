# SPDX-License-Identifier: BSD-2-Clause
"""User ring buffers: what is submitted is what a program drains, in the order of reserving.

The program copies each sample that it drains into a ring buffer, which the tests read.
"""

from __future__ import annotations

import ctypes
import gc
import os
import random
import select
import signal
import subprocess
import sys
import time
from functools import partial

import features
import pybpf
import pytest
from pybpf import Map
from test_concurrency import HANG_SECONDS, Worker, at_once, forks
from test_ownership import in_child

RING = 4096
HEADER = 8
NO_WAKEUP, FORCE_WAKEUP = 1, 2  # flags of bpf_user_ringbuf_drain()
COMMAND = 24  # bytes of struct command
ROOM = RING // (COMMAND + HEADER)  # for so many commands


@pytest.fixture
def opened(bpf_object):
    features.require("user_ringbuf")
    with pybpf.open(bpf_object("userring")) as obj:
        yield obj


@pytest.fixture
def loaded(opened):
    opened.load()
    return opened


@pytest.fixture
def commands(loaded):
    return loaded.maps["commands"].writer()


@pytest.fixture
def untyped(loaded):
    return loaded.maps["untyped"].writer()


def drain(obj, ring):
    """Have the program take what is there; how many samples it was given."""
    answer = obj.programs[f"drain_{ring}"].test_run(ctx=bytes(8)).retval
    count = ctypes.c_int32(answer).value
    assert count >= 0, os.strerror(-count)
    return count


def drained(obj, ring="untyped", type=None):
    """The samples that the program takes now."""
    count = drain(obj, ring)
    with obj.events("drained", type=type, timeout=0) as reader:
        samples = list(reader)
    assert len(samples) == count
    return samples


def fill(ring, size=COMMAND):
    """Submit until there is no room; how many there was room for."""
    count = 0
    while True:
        try:
            ring.submit(bytes(size))
        except pybpf.MapFullError:
            return count
        count += 1


# ---- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        {"kind": 1, "number": 2**64 - 1, "name": "stop"},
        (1, 2**64 - 1, b"stop"),
        b"\1" + bytes(7) + b"\xff" * 8 + b"stop\0\0\0\0",
    ],
    ids=["dict", "tuple", "bytes"],
)
def test_values_are_encoded_as_the_maps_declaration_says(loaded, commands, value):
    commands.submit(value)
    (sample,) = drained(loaded, "commands")
    assert sample == b"\1" + bytes(7) + b"\xff" * 8 + b"stop\0\0\0\0"


def test_a_sample_that_was_read_can_be_submitted(loaded, commands):
    commands.submit((3, 4, "five"))
    (sample,) = drained(loaded, "commands", type="struct command")
    commands.submit(sample)
    (again,) = drained(loaded, "commands", type="struct command")
    assert again == sample
    assert (again.kind, again.number, again.name.text) == (3, 4, "five")


def test_the_type_may_be_given(loaded):
    for given in ("__u64", loaded.btf["__u64"]):
        with loaded.maps["untyped"].writer(given) as ring:
            ring.submit(77)
    with loaded.maps["commands"].writer("__u64") as ring:
        ring.submit(78)
    assert drained(loaded, type="__u64") == [77, 77]
    assert drained(loaded, "commands", type="__u64") == [78]
    with pytest.raises(pybpf.NotFoundError, match=r"struct comand.*did you mean"):
        loaded.maps["commands"].writer("struct comand")


def test_samples_without_a_type_are_bytes(loaded, untyped):
    given = [b"bytes", bytearray(b"array"), memoryview(b"view"), ctypes.c_uint32(0x01020304)]
    for value in given:
        untyped.submit(value)
    assert drained(loaded) == [bytes(memoryview(value)) for value in given]
    for value in ("text", 5, None, ["list"]):
        with pytest.raises(pybpf.LayoutError, match="'untyped' takes bytes, as the type"):
            untyped.submit(value)
    assert drained(loaded) == []


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        ({"kind": 256}, OverflowError, "256"),
        ({"kinds": 1}, pybpf.LayoutError, "kinds"),
        (bytes(23), pybpf.LayoutError, "23"),
        ((1, 2, "too long a name"), pybpf.LayoutError, "name"),
    ],
)
def test_what_does_not_fit_the_type_takes_no_room(loaded, commands, value, error, says):
    with pytest.raises(error, match=rf"sample of user ring buffer 'commands'.*{says}"):
        commands.submit(value)
    assert fill(commands) == ROOM
    assert drain(loaded, "commands") == ROOM


def test_a_pinned_ring_takes_samples_of_its_programs_type_or_a_given_one(loaded, bpffs):
    loaded.maps["commands"].pin(bpffs / "commands")
    types = [None, "struct command", loaded.btf["struct command"]]
    with Map.open_pinned(bpffs / "commands") as pinned:
        for sample_type in types:
            with pinned.writer(sample_type) as ring:
                ring.submit({"number": 9})
        with pinned.writer(bytes) as ring:
            ring.submit(b"raw")
        with pytest.raises(pybpf.NotFoundError, match="struct command"):
            pinned.writer("struct comman")
        pinned.unpin(bpffs / "commands")
    *commands, raw = drained(loaded, "commands")
    assert commands == [bytes(8) + b"\x09" + bytes(15)] * len(types)
    assert raw == b"raw"


# ---- reserving -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 500, RING - HEADER])
def test_a_reserved_sample_is_as_long_as_asked_for_and_zero(loaded, untyped, size):
    for _ in range(3):  # what was there before shows nowhere
        untyped.submit(b"\xff" * size)
        assert drained(loaded) == [b"\xff" * size]
        with untyped.reserve(size) as sample:
            assert len(sample.data) == size
            assert bytes(sample.data) == bytes(size)
        assert drained(loaded) == [bytes(size)]


def test_what_is_written_in_place_is_what_programs_get(loaded, untyped):
    with untyped.reserve(6) as sample:
        sample.data[0] = 1
        sample.data[2:4] = b"ab"
        ctypes.c_uint16.from_buffer(sample.data, 4).value = 0x0303
    assert drained(loaded) == [b"\1\0ab\3\3"]


def test_the_explicit_form(loaded, untyped):
    sample = untyped.reserve(1)
    assert drained(loaded) == []
    sample.submit()
    assert drained(loaded) == [b"\0"]


def test_wrapping_around_changes_no_byte(loaded, untyped):
    sizes = random.Random(5)
    written = 0
    while written < 20 * RING:
        samples = []
        while True:
            sample = sizes.randbytes(sizes.choice([0, 3, 8, 100, 1000]))
            try:
                untyped.submit(sample)
            except pybpf.MapFullError:
                break
            samples.append(sample)
        assert drained(loaded) == samples
        written += sum(map(len, samples))


def test_discarded_samples_never_reach_programs(loaded, untyped):
    untyped.submit(b"first")
    untyped.reserve(8).discard()
    with pytest.raises(ZeroDivisionError), untyped.reserve(8) as sample:
        sample.data[0] = 1 // 0
    with untyped.reserve(8) as sample:
        sample.discard()
    untyped.submit(b"last")
    assert drained(loaded) == [b"first", b"last"]


def test_a_discarded_sample_takes_room_until_it_is_drained(loaded, untyped):
    untyped.reserve(RING - HEADER).discard()
    with pytest.raises(pybpf.MapFullError):
        untyped.submit(b"")
    assert drained(loaded) == []
    assert fill(untyped) == ROOM


def test_samples_come_in_the_order_of_reserving(loaded, untyped):
    samples = [untyped.reserve(1) for _ in range(3)]
    for number, sample in enumerate(samples):
        sample.data[0] = number
    samples[2].submit()
    samples[1].submit()
    assert drained(loaded) == []
    samples[0].submit()
    assert drained(loaded) == [b"\0", b"\1", b"\2"]


def test_a_finished_sample_cannot_be_used(loaded, untyped):
    submitted, discarded = untyped.reserve(4), untyped.reserve(4)
    submitted.submit()
    discarded.discard()
    for sample in (submitted, discarded):
        for use in (sample.submit, sample.discard):
            with pytest.raises(pybpf.StateError, match="submitted or discarded already"):
                use()
        with pytest.raises(ValueError, match="released"):
            sample.data[0] = 1
    assert drained(loaded) == [bytes(4)]


def test_what_was_made_over_a_sample_writes_nowhere_afterwards(loaded, untyped):
    with untyped.reserve(4) as sample:
        part = sample.data[1:3]
        number = ctypes.c_uint32.from_buffer(sample.data)
        number.value = 0x05050505
    part[0] = 9
    number.value = 0x09090909
    assert drained(loaded) == [b"\5\5\5\5"]
    untyped.submit(b"next")
    part[1] = 9
    assert drained(loaded) == [b"next"]


def test_a_sample_that_is_collected_unfinished_is_discarded(loaded, untyped):
    with pytest.warns(ResourceWarning, match="unclosed <UserSample of 8 bytes in"):
        untyped.reserve(8)
    untyped.submit(b"after it")
    assert drained(loaded) == [b"after it"]


LEAVE_UNFINISHED = """
import sys, pybpf
with pybpf.Map.open_pinned(sys.argv[1]) as pinned:
    ring = pinned.writer()
sample = ring.reserve(8)
ring.submit(b"of a process that is gone")
"""


def test_a_process_that_ends_leaves_no_sample_unfinished(loaded, bpffs):
    ring = loaded.maps["untyped"]
    ring.pin(bpffs / "ring")
    subprocess.run([sys.executable, "-c", LEAVE_UNFINISHED, bpffs / "ring"], check=True)
    ring.unpin(bpffs / "ring")
    assert drained(loaded) == [b"of a process that is gone"]


# ---- sizes ---------------------------------------------------------------------------------------


def test_a_sample_larger_than_the_ring_is_refused(loaded, untyped):
    says = r"reserve 4089 bytes in user ring buffer 'untyped': E2BIG(.|\n)*at most 4088 bytes"
    for use in (untyped.reserve, lambda size, timeout: untyped.submit(bytes(size), timeout)):
        with pytest.raises(pybpf.KernelError, match=says) as caught:
            use(RING - HEADER + 1, timeout=None)
        assert type(caught.value) is pybpf.KernelError
    for size in (1 << 30, 1 << 31, 1 << 32, 1 << 70):
        with pytest.raises(pybpf.KernelError, match="E2BIG"):
            untyped.reserve(size)
    with pytest.raises(ValueError, match="-1 bytes"):
        untyped.reserve(-1)
    with pytest.raises(TypeError):
        untyped.reserve(1.5)
    assert fill(untyped, RING - HEADER) == 1


def test_the_largest_sample_that_programs_can_take(opened):
    opened.maps["untyped"].max_entries = 1 << 25
    opened.load()
    largest = (1 << 24) - 1
    with opened.maps["untyped"].writer() as ring:
        with pytest.raises(pybpf.KernelError, match=f"at most {largest} bytes"):
            ring.reserve(largest + 1)
        ring.submit(bytes(largest))
        assert drain(opened, "untyped") == 1
        assert opened.bss.size == largest
        ring.submit(b"and one after it")
        assert drained(opened) == [b"and one after it"]


def test_without_room_submitting_raises_and_draining_makes_room(loaded, commands):
    assert fill(commands) == ROOM
    says = r"reserve 24 bytes in user ring buffer 'commands': ENOSPC(.|\n)*bpf_user_ringbuf_drain"
    for use in (lambda: commands.reserve(24), lambda: commands.submit((1, 2, "x"))):
        with pytest.raises(pybpf.MapFullError, match=says):
            use()
    loaded.data.most = 1
    assert drain(loaded, "commands") == 1
    assert fill(commands) == 1


# ---- waiting -------------------------------------------------------------------------------------


def wait_until_it_waits(worker):
    """Return when the thread sleeps in epoll_wait(2)."""
    deadline = time.monotonic() + HANG_SECONDS
    calls = ("232 ", "281 ", "22 ")  # epoll_wait and epoll_pwait on x86_64, epoll_pwait on aarch64
    while True:
        with open(f"/proc/self/task/{worker.native_id}/syscall") as file:
            if file.read().startswith(calls):
                return
        assert time.monotonic() < deadline, "does not wait"


@pytest.fixture
def full(commands):
    """The ring ``commands``, without room."""
    fill(commands)
    return commands


@pytest.mark.parametrize("timeout", [None, HANG_SECONDS, 1e300, float("inf")])
def test_a_reserve_that_waits_gets_room_when_a_program_drains(loaded, full, timeout):
    worker = Worker(partial(full.reserve, 100, timeout))
    wait_until_it_waits(worker)
    assert drain(loaded, "commands") == ROOM
    sample, error = worker.outcome()
    assert error is None
    sample.data[:] = b"x" * 100
    sample.submit()
    loaded.bss.size = 0
    assert drain(loaded, "commands") == 1
    assert loaded.bss.size == 100


def test_too_little_room_ends_no_wait_and_costs_no_time(loaded, full):
    loaded.data.most = 1
    worker = Worker(partial(full.submit, bytes(COMMAND), None))
    big = Worker(partial(full.reserve, 10 * COMMAND, None))
    for each in (worker, big):
        wait_until_it_waits(each)
    assert drain(loaded, "commands") == 1  # room for worker's, not for big's
    assert worker.outcome() == (None, None)
    assert drain(loaded, "commands") == 1  # the ring has room now, but too little
    cpu, wall = time.process_time(), time.monotonic()
    time.sleep(0.3)
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    assert big.is_alive()
    assert cpu < wall / 4, "it spins"
    loaded.data.most = ROOM
    drain(loaded, "commands")
    sample, _ = big.outcome()
    sample.discard()


def test_many_that_wait_get_room_one_after_the_other(loaded, full):
    loaded.data.most = 1
    workers = [Worker(partial(full.submit, bytes(COMMAND), None)) for _ in range(8)]
    for worker in workers:
        wait_until_it_waits(worker)
    for _ in workers:
        assert drain(loaded, "commands") == 1
    assert [worker.outcome() for worker in workers] == [(None, None)] * 8
    assert fill(full) == 0


@pytest.mark.parametrize("timeout", [0.2, 0, -1, float("-inf")])
def test_a_timeout_ends_the_wait(full, timeout):
    start = time.monotonic()
    with pytest.raises(pybpf.MapFullError):
        full.reserve(8, timeout=timeout)
    assert time.monotonic() - start >= timeout


def test_signals_do_not_make_a_wait_longer_or_shorter(full):
    timeout, signals = 0.4, []
    before = signal.signal(signal.SIGALRM, lambda *_: signals.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    start = time.monotonic()
    try:
        with pytest.raises(pybpf.MapFullError):
            full.reserve(8, timeout=timeout)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert timeout <= time.monotonic() - start < 2 * timeout
    assert len(signals) > 5


def test_ctrl_c_ends_a_wait(loaded, full):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            full.reserve(8, timeout=HANG_SECONDS)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert drain(loaded, "commands") == ROOM
    assert fill(full) == ROOM


def test_a_drain_without_wakeup_wakes_nobody(loaded, full):
    """That is the program's choice; it can wake by a drain of nothing, later."""
    worker = Worker(partial(full.submit, bytes(COMMAND), None))
    wait_until_it_waits(worker)
    loaded.bss.drain_flags = NO_WAKEUP
    assert drain(loaded, "commands") == ROOM
    worker.join(0.2)
    assert worker.is_alive()
    loaded.bss.drain_flags = FORCE_WAKEUP
    drain(loaded, "commands")
    assert worker.outcome() == (None, None)


def test_the_descriptor_tells_when_there_is_room(loaded, full):
    poll = select.poll()
    poll.register(full, select.POLLOUT)
    assert poll.poll(0) == []
    drain(loaded, "commands")
    assert poll.poll(1000 * HANG_SECONDS) == [(full.fileno(), select.POLLOUT)]


# ---- closing -------------------------------------------------------------------------------------


def test_closing_ends_a_reserve_that_waits(full):
    workers = [Worker(partial(full.reserve, 8, timeout)) for timeout in (None, HANG_SECONDS)]
    for worker in workers:
        wait_until_it_waits(worker)
    full.close()
    assert [type(worker.outcome()[1]) for worker in workers] == [pybpf.ClosedError] * 2


def test_a_signal_handler_may_close_a_ring_that_is_waited_for(full):
    before = signal.signal(signal.SIGALRM, lambda *_: full.close())
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(pybpf.ClosedError, match="'commands' was closed"):
            full.reserve(8, timeout=HANG_SECONDS)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_closing_discards_what_is_reserved(loaded, untyped):
    untyped.submit(b"before")
    kept = untyped.reserve(8)
    with pytest.raises(pybpf.ClosedError), untyped.reserve(8):
        untyped.close()
    for use in (kept.submit, kept.discard, untyped.fileno, partial(untyped.submit, b"")):
        with pytest.raises(pybpf.ClosedError, match="user ring buffer 'untyped' is closed"):
            use()
    untyped.close()
    assert untyped.closed
    with loaded.maps["untyped"].writer() as again:
        again.submit(b"after")
    assert drained(loaded) == [b"before", b"after"]


def test_a_ring_ends_with_its_object(opened):
    opened.load()
    ring = opened.maps["untyped"].writer()
    sample = ring.reserve(8)
    opened.close()
    assert ring.closed
    with pytest.raises(pybpf.ClosedError):
        sample.submit()


def test_a_ring_may_be_dropped_where_its_object_closes_it(loaded):
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        loaded.maps["untyped"].writer()
    assert set(os.listdir("/proc/self/fd")) == before
    with Map.from_fd(loaded.maps["untyped"].fileno()) as own:
        with pytest.warns(ResourceWarning, match="unclosed <UserRing of user ring buffer 'un"):
            own.writer()
        with own.writer() as ring:
            pass
        assert repr(ring) == "<UserRing of user ring buffer 'untyped' closed>"


def test_a_ring_outlives_the_map_that_it_was_made_from(loaded):
    with Map.from_fd(loaded.maps["untyped"].fileno()) as own:
        ring = own.writer()
    with ring:
        ring.submit(b"still there")
    assert drained(loaded) == [b"still there"]


def test_opening_and_closing_leaves_nothing_behind(loaded):
    def state():
        gc.collect()
        with open("/proc/self/maps") as mappings:
            return len(os.listdir("/proc/self/fd")), sum("bpf-map" in line for line in mappings)

    drain(loaded, "untyped")  # after its first run a program has a second descriptor
    before = state()
    for number in range(1000):
        with loaded.maps["untyped"].writer() as ring:
            sample = ring.reserve(4)
            ring.submit(number.to_bytes(4, "little"))
            if number % 2:
                sample.submit()
        drain(loaded, "untyped")
    assert state() == before


@pytest.mark.parametrize("name", ["drained", "userring.bss"])
def test_only_user_ring_buffers_have_a_writer(loaded, name):
    with pytest.raises(pybpf.NotSupportedError, match=f"write samples to map '{name}'"):
        loaded.maps[name].writer()


def test_a_writer_needs_a_loaded_object(opened):
    with pytest.raises(pybpf.StateError, match="works after load"):
        opened.maps["commands"].writer()
    opened.load()
    opened.close()
    with pytest.raises(pybpf.ClosedError):
        opened.maps["commands"].writer()


# ---- threads, handlers and forks -----------------------------------------------------------------


@pytest.mark.native
def test_threads_share_a_ring_and_each_sample_arrives_once_in_its_order(loaded, switch_often):
    producers, each = 4, 2000
    ring = loaded.maps["untyped"].writer()
    found = []

    def produce(producer):
        for number in range(each):
            value = bytes([producer]) + number.to_bytes(4, "little")
            if number % 3:
                ring.submit(value, timeout=HANG_SECONDS)
                continue
            with ring.reserve(5, timeout=HANG_SECONDS) as sample:
                sample.data[:] = value

    def consume():
        deadline = time.monotonic() + 3 * HANG_SECONDS
        while len(found) < producers * each:
            assert time.monotonic() < deadline, "samples are missing"
            found.extend(drained(loaded))

    outcomes = at_once(*(partial(produce, producer) for producer in range(producers)), consume)
    assert outcomes == [(None, None)] * (producers + 1)
    for producer in range(producers):
        own = [int.from_bytes(value[1:], "little") for value in found if value[0] == producer]
        assert own == list(range(each))


def test_one_of_the_threads_that_finish_a_sample_does(loaded, untyped, switch_often):
    submitted = 0
    for _ in range(200):
        sample = untyped.reserve(8)
        outcomes = at_once(sample.submit, sample.discard, sample.submit)
        errors = [type(error) for _, error in outcomes if error is not None]
        assert errors == [pybpf.StateError] * 2
        count = drain(loaded, "untyped")
        assert count == (outcomes[1][1] is not None)
        submitted += count
    assert submitted


@pytest.mark.native
def test_closing_under_threads_that_reserve_leaves_the_ring_usable(loaded, switch_often):
    def reserve(ring):
        while True:
            with ring.reserve(8, timeout=None):
                pass

    for _ in range(50):
        ring = loaded.maps["untyped"].writer()
        workers = [Worker(partial(reserve, ring)) for _ in range(3)]
        time.sleep(random.uniform(0, 0.002))
        ring.close()
        assert {type(worker.outcome()[1]) for worker in workers} == {pybpf.ClosedError}
        drain(loaded, "untyped")
        with loaded.maps["untyped"].writer() as again:
            assert fill(again, 8) == RING // 16
        assert drain(loaded, "untyped") == RING // 16


@pytest.mark.native
def test_a_signal_handler_may_submit_where_its_thread_does(loaded, untyped):
    moments, handled, rounds = random.Random(7), [], 2000

    def submit(*_):
        untyped.submit(b"handler")
        handled.append(True)

    before = signal.signal(signal.SIGALRM, submit)
    found = []
    try:
        for _ in range(rounds):
            signal.setitimer(signal.ITIMER_REAL, moments.uniform(1e-6, 3e-5))
            with untyped.reserve(6) as sample:
                sample.data[:] = b"thread"
            signal.setitimer(signal.ITIMER_REAL, 0)
            found += drained(loaded)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    found += drained(loaded)
    assert found.count(b"thread") == rounds
    assert found.count(b"handler") == len(handled) > rounds / 20


@forks
def test_a_fork_may_not_produce(loaded, untyped):
    sample = untyped.reserve(1)

    def use():
        submit, reserve = partial(untyped.submit, b""), partial(untyped.reserve, 8)
        for forbidden in (sample.submit, sample.discard, submit, reserve):
            with pytest.raises(pybpf.StateError, match="fork"):
                forbidden()

    assert in_child(use) == 0
    sample.data[0] = 1
    sample.submit()
    assert drained(loaded) == [b"\1"]


@forks
def test_an_exception_in_a_fork_discards_nothing_of_its_parents(loaded, untyped):
    def leave():
        with pytest.raises(KeyError), sample:
            raise KeyError

    with untyped.reserve(1) as sample:
        assert in_child(leave) == 0
    assert drained(loaded) == [b"\0"]


@forks
def test_what_a_fork_drops_and_closes_stays_the_parents(loaded):
    ring = loaded.maps["untyped"].writer()
    held = [ring.reserve(1)]

    def drop():
        held.clear()
        gc.collect()
        ring.close()
        loaded.close()

    assert in_child(drop) == 0
    held[0].submit()
    fill(ring, 8)
    worker = Worker(partial(ring.submit, b"x", None))
    wait_until_it_waits(worker)
    assert drain(loaded, "untyped") > 0
    assert worker.outcome() == (None, None)
