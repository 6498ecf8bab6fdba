# SPDX-License-Identifier: BSD-2-Clause
"""Ring buffers in place: every size and alignment, records that are not ready, overload, closing at
any moment, and whoever else reads."""

from __future__ import annotations

import gc
import json
import mmap
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import partial

import features
import pybpf
import pytest
from pybpf import Map, MapType
from ring_programs import EVENT_ROOM, PAYLOAD, RING, Rings, event, sequences, wait_until
from test_concurrency import HANG_SECONDS, Worker, forks, run_script, wait_until_polling
from test_ownership import in_child

pytestmark = pytest.mark.requires("bpf_loop")


@pytest.fixture
def loaded(bpf_object):
    with pybpf.open(bpf_object("rings")) as obj:
        obj.bss["payload"] = PAYLOAD
        obj.load()
        yield obj


@pytest.fixture
def rings(loaded):
    return Rings(loaded)


@pytest.fixture
def two_cpus():
    """For programs that go on while this process does something else."""
    features.require("two_cpus")


# ---- what is in the ring -------------------------------------------------------------------------


def test_records_come_whole_wherever_the_ring_wraps_around(loaded, rings):
    """Each place that a record can begin at, so that any part of one lies across the end."""
    with loaded.events("untyped") as reader:
        for round in range(RING // 8):
            # with headers and alignment 8 bytes more than the ring, in two turns
            for sizes in [(2000,), (1200, 100, 3, 752)]:
                for size in sizes:
                    assert rings.send(round + size, size)
                expected = [PAYLOAD[round + size :][:size] for size in sizes]
                assert reader.read_batch(timeout=0) == expected, (round, sizes)


@pytest.mark.parametrize("pages", [1, 4])
def test_records_of_every_size_that_the_kernel_takes(bpf_object, pages):
    ring = pages * RING
    with pybpf.open(bpf_object("rings")) as obj:
        obj.bss["payload"] = PAYLOAD
        obj.maps["untyped"].max_entries = ring
        obj.load()
        rings = Rings(obj)
        largest = ring - 16  # its 8 bytes more must leave at least one of the ring's free
        with obj.events("untyped") as reader:
            for size in range(largest + 1):
                assert rings.send(size, size)
                assert reader.read_nowait() == PAYLOAD[size : 2 * size]
            assert reader.read_nowait() is None
            assert not rings.send(0, largest + 1)
            assert reader.stats.received == largest + 1
            assert reader.stats.bytes == sum(range(largest + 1))


def test_a_full_ring_is_read_to_its_last_record(loaded, rings):
    with loaded.events("events") as reader:
        accepted = rings.emit(1000)
        assert accepted == (RING - 1) // EVENT_ROOM
        assert reader.stats.backlog == reader.stats.backlog_highest == accepted * EVENT_ROOM
        assert sequences(reader.read_batch(timeout=0)) == list(range(accepted))


def test_discarded_records_are_skipped(loaded, rings):
    with loaded.events("events") as reader:
        for round in range(100):
            assert rings.emit(60, discard_every=3) == 40
            wanted = [number for number in range(60) if number % 3]
            take = [reader.read_batch, reader.drain, partial(map, lambda _: reader.read(), wanted)]
            assert sequences(take[round % 3]()) == wanted
        assert rings.emit(60, discard_every=1) == 0
        assert reader.read_nowait() is None
        stats = reader.stats
        assert (stats.received, stats.bytes, stats.backlog) == (4000, 64000, 0)


def test_a_record_may_be_empty(loaded, rings):
    with loaded.events("untyped", timeout=0) as reader:
        assert rings.send(0, 0)
        assert rings.send(5, 0)
        assert reader.read() == b""
        assert list(reader) == [b""]


def test_a_records_tail_stays_with_it(loaded, rings):
    with loaded.events("lines") as reader:
        rings.send_bytes(struct.pack("<I", 7) + b"seven", "lines")
        line = reader.read()
        assert line.number == 7
        assert bytes(line) == b"\7\0\0\0seven"
        assert line.text == b"seven"
        rings.send_bytes(struct.pack("<I", 8), "lines")
        assert bytes(reader.read()) == b"\x08\0\0\0"


@pytest.mark.parametrize("size", [0, 1, 15])
def test_a_short_record_is_an_error_with_the_record(loaded, rings, size):
    with loaded.events("events", timeout=0) as reader:
        rings.emit(1)
        assert rings.send(3, size, "events")
        rings.emit(1, first=1)
        assert sequences(reader.read_batch(timeout=0)) == [0]  # what went well comes first
        with pytest.raises(pybpf.LayoutError, match=f"'events'.*16 bytes, {size} ") as caught:
            reader.read_nowait()
        assert caught.value.record == PAYLOAD[3 : 3 + size]
        assert sequences(reader) == [1]


def test_a_long_record_keeps_its_tail(loaded, rings):
    with loaded.events("events") as reader:
        assert rings.send(0, 17, "events")
        record = reader.read()
        assert bytes(record) == PAYLOAD[:17]
        assert record.sequence == int.from_bytes(PAYLOAD[:8], "little")


def test_a_short_record_does_not_get_lost_in_drain(loaded, rings):
    with loaded.events("events") as reader:
        rings.emit(2)
        assert rings.send(3, 5, "events")
        with pytest.raises(pybpf.LayoutError):
            reader.drain()
        assert sequences(reader.drain()) == [0, 1]


# ---- records that are not ready ------------------------------------------------------------------


def test_a_busy_record_is_waited_for_without_spinning(loaded, rings, two_cpus):
    with loaded.events("events") as reader:
        with rings.hold(0):
            rings.emit(3, first=1)
            cpu, wall = time.thread_time(), time.monotonic()
            assert reader.read(timeout=0.5) is None
            cpu, wall = time.thread_time() - cpu, time.monotonic() - wall
            assert wall >= 0.5
            assert cpu < wall / 4, "it spins"
            assert reader.read_nowait() is None
            assert reader.read_batch(timeout=0) == []
            assert reader.stats.backlog == 4 * EVENT_ROOM
            worker = Worker(partial(reader.read_batch, timeout=HANG_SECONDS))
        batch, error = worker.outcome()
        assert error is None
        assert sequences(batch + reader.drain()) == [0, 1, 2, 3]


def test_a_busy_record_that_is_discarded_makes_way(loaded, rings, two_cpus):
    with loaded.events("events") as reader:
        with rings.hold(0, discard=True):
            rings.emit(1, first=1)
            assert reader.read_nowait() is None
        assert sequences(reader.drain()) == [1]


def test_drain_waits_for_what_is_being_written(loaded, rings, two_cpus):
    with loaded.events("events") as reader:
        rings.emit(2)
        with rings.hold(2):
            rings.emit(1, first=3)
            worker = Worker(reader.drain)
            wait_until(lambda: reader.stats.received == 2)
            time.sleep(0.02)
            assert worker.is_alive()
        records, error = worker.outcome()
        assert error is None
        assert sequences(records) == [0, 1, 2, 3]


def test_drain_gives_up_what_is_not_written_to_its_end(loaded, rings, two_cpus):
    with loaded.events("events") as reader:
        rings.emit(2)
        with rings.hold(2):
            start = time.monotonic()
            assert sequences(reader.drain()) == [0, 1]
            assert 0.9 < time.monotonic() - start < HANG_SECONDS
        assert sequences(reader.drain()) == [2]


def test_drain_ends_while_programs_go_on(loaded, rings, two_cpus):
    stop = threading.Event()

    def produce():
        while not stop.is_set():
            rings.emit(1 << 12)

    with loaded.events("events") as reader:
        worker = Worker(produce)
        try:
            for _ in range(20):
                start = time.monotonic()
                assert len(reader.drain()) <= 2 * RING // EVENT_ROOM
                assert time.monotonic() - start < 0.9, "as long as it waits for a busy record"
        finally:
            stop.set()
            worker.outcome()


def test_another_rings_records_come_while_one_is_busy(loaded, rings, two_cpus):
    with loaded.events(["events", "untyped"]) as reader:
        with rings.hold(0):
            assert rings.send(0, 9)
            assert reader.read(timeout=HANG_SECONDS) == ("untyped", PAYLOAD[:9])
        assert reader.read(timeout=HANG_SECONDS)[1].sequence == 0


# ---- several rings, and more than fits -----------------------------------------------------------


def test_rings_take_turns(loaded, rings):
    """Not more than 64 records of one ring come before another one's."""
    with loaded.events(["events", "others"]) as reader:
        assert rings.emit(340, to_others=True) == 340
        names = [name for name, _ in reader.read_batch(timeout=0)]
        assert Counter(names) == {"events": 170, "others": 170}
        longest = max(len(part) for part in "".join(name[0] for name in names).split("o"))
        assert longest <= 64


def test_each_rings_order_is_kept(loaded, rings):
    with loaded.events() as reader:
        for _ in range(50):
            rings.emit(100, to_others=True)
            by_name = {"events": [], "others": []}
            for name, record in reader.read_batch(timeout=0):
                by_name[name].append(record.sequence)
            assert by_name == {"events": [*range(0, 100, 2)], "others": [*range(1, 100, 2)]}


def keep_reading(reader, end):
    """How many records came in order until ``end`` is set, and the first that was missed."""
    received, last = 0, -1
    while True:
        over = end.is_set()
        batch = reader.read_batch(timeout=0.02)
        received += len(batch)
        for record in batch:
            assert record.sequence > last
            assert record.inverted == ~record.sequence % 2**64
            last = record.sequence
        if over and not batch:
            return received


def test_what_the_kernel_accepts_under_overload_is_received(loaded, rings, two_cpus):
    rounds, each = 50, 20000
    end = threading.Event()
    with loaded.events("events") as reader:
        worker = Worker(partial(keep_reading, reader, end))
        try:
            accepted = sum(rings.emit(each, number * each) for number in range(rounds))
        finally:
            end.set()
            received, error = worker.outcome()
        assert error is None
        assert received == accepted == reader.stats.received
        assert accepted < rounds * each, "that was no overload"


# ---- the ways to receive -------------------------------------------------------------------------


def test_what_each_way_to_receive_gives(loaded, rings):
    with loaded.events("events", timeout=0) as reader:
        assert reader.read(timeout=0) is None
        assert reader.read_nowait() is None
        assert reader.read_batch(timeout=0) == []
        assert reader.poll(pytest.fail, timeout=0) == 0
        assert reader.drain() == []
        assert list(reader) == []
        rings.emit(8)
        assert reader.read().sequence == 0
        assert reader.read_nowait().sequence == 1
        assert sequences(reader.read_batch(max=2)) == [2, 3]
        assert next(reader).sequence == 4
        got = []
        assert reader.poll(got.append) == 3
        assert sequences(got) == [5, 6, 7]
        for most in (0, -1):
            with pytest.raises(ValueError, match="at least 1"):
                reader.read_batch(max=most)


def test_a_timeout_is_waited_out(loaded):
    with loaded.events("events", timeout=0.05) as reader:
        for receive in (
            partial(reader.read, 0.05),
            partial(reader.read_batch, timeout=0.05),
            partial(reader.poll, pytest.fail, 0.05),
            partial(next, reader, None),
        ):
            start = time.monotonic()
            assert not receive()
            assert time.monotonic() - start >= 0.05


def test_the_accounting_is_exact(loaded, rings):
    with loaded.events("events") as reader:
        rings.emit(10)
        reader.read_batch(max=4)
        stats = reader.stats
        assert (stats.received, stats.bytes, stats.batches, stats.lost) == (4, 64, 1, 0)
        assert (stats.backlog, stats.backlog_highest) == (6 * EVENT_ROOM, 10 * EVENT_ROOM)
        reader.read_batch()
        assert reader.read(timeout=0) is None
        rings.emit(1)
        reader.read()
        stats = reader.stats
        assert (stats.received, stats.bytes, stats.batches) == (11, 176, 2)
        assert (stats.backlog, stats.backlog_highest) == (0, 10 * EVENT_ROOM)
    assert reader.stats == stats


def test_waits_that_end_with_a_record_are_counted(loaded, rings):
    with loaded.events("events") as reader:
        assert reader.read(timeout=0.01) is None
        assert reader.stats.wakeups == 0
        worker = Worker(reader.read)
        wait_until_polling(worker)
        rings.emit(1)
        worker.outcome()
        assert reader.stats.wakeups == 1


def test_what_a_callback_raises_costs_no_other_record(loaded, rings):
    with loaded.events("events") as reader:
        rings.emit(5)
        got = []

        def callback(record):
            got.append(record.sequence)
            if record.sequence == 2:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            reader.poll(callback)
        assert got == [0, 1, 2]
        assert reader.poll(callback) == 2
        assert got == [0, 1, 2, 3, 4]


def test_a_callback_may_read_itself(loaded, rings):
    with loaded.events("events") as reader:
        rings.emit(4)
        got = []
        assert reader.poll(lambda record: got.extend([record, reader.read_nowait()])) == 2
        assert sequences(got) == [0, 1, 2, 3]


# ---- closing -------------------------------------------------------------------------------------


def left_in(obj, name="events"):
    """The numbers of what a new reader gets."""
    with obj.events(name) as reader:
        return sequences(reader.drain())


def test_closing_in_a_callback_leaves_the_rest_in_the_ring(loaded, rings):
    reader = loaded.events("events")
    rings.emit(5)
    assert reader.poll(lambda record: record.sequence == 1 and reader.close()) == 2
    assert reader.closed
    assert left_in(loaded) == [2, 3, 4]


def test_closing_while_iterating_leaves_the_rest_in_the_ring(loaded, rings):
    reader = loaded.events("events")
    rings.emit(5)
    got = []
    for record in reader:
        got.append(record.sequence)
        if record.sequence == 1:
            reader.close()
    assert got == [0, 1]
    assert list(reader) == []
    assert left_in(loaded) == [2, 3, 4]


def test_a_closed_reader_says_so(loaded, rings):
    reader = loaded.events("events")
    rings.emit(1)
    reader.close()
    reader.close()
    for receive in (
        reader.read,
        reader.read_nowait,
        reader.read_batch,
        partial(reader.poll, pytest.fail),
        reader.drain,
        reader.fileno,
    ):
        with pytest.raises(pybpf.ClosedError, match="reader of events is closed"):
            receive()
    assert "closed" in repr(reader)
    assert left_in(loaded) == [0]


def test_what_was_given_back_is_had_by_draining_a_closed_reader(loaded, rings):
    reader = loaded.events("untyped", type=interrupt_at_second())
    assert rings.send(0, 8)
    assert rings.send(8, 8)
    with pytest.raises(KeyboardInterrupt):
        reader.read_batch()
    reader.close()
    assert reader.drain() == [PAYLOAD[:8], PAYLOAD[8:16]]


@pytest.mark.native
@pytest.mark.parametrize("way", ["read", "read_batch", "poll", "iterate"])
def test_closing_by_another_thread_costs_no_record(loaded, rings, switch_often, way):
    for _ in range(30):
        reader, got, begun = loaded.events("events"), [], threading.Event()

        def receive(reader=reader, got=got, begun=begun):
            ways = {
                "read": lambda: got.append(reader.read()),
                "read_batch": lambda: got.extend(reader.read_batch(max=7)),
                "poll": lambda: reader.poll(got.append),
                "iterate": lambda: got.extend(reader),
            }
            try:
                while not reader.closed:
                    begun.set()
                    ways[way]()
            except pybpf.ClosedError:
                pass

        worker = Worker(receive)
        assert begun.wait(HANG_SECONDS)
        accepted = rings.emit(150)
        reader.close()
        assert worker.outcome() == (None, None)
        assert sequences(got) + left_in(loaded) == list(range(accepted))


# A handler closes the reader at a random moment; what it got and what is left is everything.
CLOSE_AND_COUNT = """
import faulthandler, json, random, signal, sys, pybpf
sys.path.insert(0, sys.argv[2])
from ring_programs import Rings
faulthandler.dump_traceback_later(100, exit=True)
random.seed(7)
closed_early = 0
with pybpf.load(sys.argv[1]) as obj:
    rings = Rings(obj)
    for number in range(400):
        reader, got = obj.events("events"), []
        signal.signal(signal.SIGALRM, lambda *_: reader.close())
        accepted = rings.emit(160)
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 2e-4))
        try:
            if number % 4 == 0:
                for record in reader:
                    got.append(record.sequence)
            elif number % 4 == 1:
                while True:
                    got.append(reader.read().sequence)
            elif number % 4 == 2:
                while True:
                    reader.poll(lambda record: got.append(record.sequence))
            else:
                while True:
                    got += [record.sequence for record in reader.read_batch(max=9)]
        except pybpf.ClosedError:
            pass
        closed_early += len(got) < accepted
        with obj.events("events") as other:
            got += [record.sequence for record in other.drain()]
        assert got == list(range(accepted)), (number, got)
print(json.dumps(closed_early))
"""


@pytest.mark.native
def test_closing_by_a_signal_handler_costs_no_record(bpf_object):
    closed_early = run_script(CLOSE_AND_COUNT, bpf_object("rings"), os.path.dirname(__file__))
    assert closed_early > 40


# ---- signals -------------------------------------------------------------------------------------

BLOCKED = """
import sys, time, pybpf
obj = pybpf.load(sys.argv[1])
reader = obj.events("events", timeout=None)
use = {
    "read": reader.read,
    "read_batch": reader.read_batch,
    "poll": lambda: reader.poll(print),
    "iterate": lambda: next(reader),
    "read_numpy": reader.read_numpy,
    "view": lambda: reader.view().__enter__(),
}[sys.argv[2]]
if sys.argv[2] in ("read_numpy", "view"):
    import numpy, pybpf.ring_view
print("ready", flush=True)
try:
    use()
except KeyboardInterrupt:
    print(time.monotonic(), flush=True)
reader.close()
obj.close()
"""


def sleeps_in_epoll(pid):
    try:
        with open(f"/proc/{pid}/syscall") as file:
            return file.read().startswith(("232 ", "22 "))
    except OSError:
        return False


@pytest.mark.native
@pytest.mark.parametrize("way", ["read", "read_batch", "poll", "iterate", "read_numpy", "view"])
def test_ctrl_c_ends_a_wait_at_once(bpf_object, way):
    if way in ("read_numpy", "view"):
        pytest.importorskip("numpy")
    command = [sys.executable, "-c", BLOCKED, str(bpf_object("rings")), way]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        wait_until(lambda: sleeps_in_epoll(process.pid))
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        interrupted = float(process.stdout.readline())
    assert process.returncode == 0
    assert interrupted - sent < 0.1


def test_a_handler_that_returns_leaves_the_time_that_is_left(loaded, rings):
    calls = []
    before = signal.signal(signal.SIGALRM, lambda *_: calls.append(None))
    signal.setitimer(signal.ITIMER_REAL, 0.03, 0.03)
    try:
        with loaded.events("events") as reader:
            start = time.monotonic()
            assert reader.read(timeout=0.3) is None
            took = time.monotonic() - start
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(calls) >= 5
    assert 0.3 <= took < 0.6


def interrupt_at_second():
    """A type whose choice is interrupted for the second record, the first time."""
    seen = []

    def choose(data):
        seen.append(data)
        if len(seen) == 2:
            raise KeyboardInterrupt

    return choose


def test_ctrl_c_while_a_record_is_decoded_costs_none(loaded, rings):
    with loaded.events("untyped", type=interrupt_at_second()) as reader:
        for number in range(4):
            assert rings.send(number, 8)
        with pytest.raises(KeyboardInterrupt):
            reader.read_batch()
        assert reader.read_batch() == [PAYLOAD[number:][:8] for number in range(4)]


# ---- forks ---------------------------------------------------------------------------------------


@forks
def test_a_fork_gets_none_of_its_parents_records(loaded, rings):
    reader = loaded.events("events", timeout=0)
    rings.emit(3)
    reader.read()

    def child():
        for receive in (reader.read_nowait, partial(next, reader), reader.drain, reader.read_batch):
            with pytest.raises(pybpf.StateError, match="process"):
                receive()
        assert reader.stats.backlog == 0
        reader.close()

    assert in_child(child) == 0
    assert sequences(reader) == [1, 2]


@forks
def test_a_fork_gets_none_that_its_parents_reader_was_given_back(loaded, rings):
    reader = loaded.events("untyped", type=interrupt_at_second(), timeout=0)
    for number in range(2):
        assert rings.send(number, 8)
    with pytest.raises(KeyboardInterrupt):
        reader.read_batch()

    def child():
        with pytest.raises(pybpf.StateError, match="process"):
            reader.read_nowait()

    assert in_child(child) == 0
    assert list(reader) == [PAYLOAD[:8], PAYLOAD[1:9]]


@forks
def test_a_fork_that_drops_a_reader_does_not_disturb_its_parent(loaded, rings):
    holder = [loaded.events("events", timeout=0)]
    rings.emit(3)

    def child():
        holder.clear()
        gc.collect()

    assert in_child(child) == 0
    assert sequences(holder[0]) == [0, 1, 2]
    worker = Worker(holder[0].read)
    wait_until_polling(worker)
    assert in_child(child) == 0
    rings.emit(1)
    assert worker.outcome()[0].sequence == 0


@forks
def test_a_fork_may_make_its_own_reader(loaded, rings):
    parents = loaded.events("events", timeout=0)
    rings.emit(4)
    assert parents.read().sequence == 0

    def child():
        with loaded.events("events", timeout=0) as reader:
            assert reader.read().sequence == 1
            assert reader.read().sequence == 2

    assert in_child(child) == 0
    assert sequences(parents) == [3]


# ---- who else reads ------------------------------------------------------------------------------


def test_readers_of_one_ring_share_its_records(loaded, rings):
    with loaded.events("events") as one, loaded.events("events") as other:
        rings.emit(6)
        got = [one.read(), other.read(), *one.read_batch(max=2), other.read(), one.read()]
        assert sequences(got) == [0, 1, 2, 3, 4, 5]
        assert one.read_nowait() is other.read_nowait() is None
        assert one.stats.received + other.stats.received == 6


READ_UNTIL_CLOSED = """
import json, sys, pybpf
map = pybpf.Map.open_pinned(sys.argv[1])
received = []
with map.reader(type=bytes) as reader:
    print("ready", flush=True)
    while not (received and received[-1] == (1 << 64) - 1):
        for record in (reader.read_batch() if sys.argv[2] == "batch" else [reader.read()]):
            received.append(int.from_bytes(record[:8], "little"))
            assert int.from_bytes(record[8:], "little") == (1 << 64) - 1 - received[-1]
print(json.dumps(received))
"""


@pytest.mark.native
def test_processes_share_a_ring_and_each_record_goes_to_one(loaded, rings, bpffs):
    """Two of them, by different ways to read; each ends with a last record of its own."""
    loaded.maps["events"].pin(bpffs / "events")
    command = [sys.executable, "-c", READ_UNTIL_CLOSED, str(bpffs / "events")]
    readers = [
        subprocess.Popen([*command, way], stdout=subprocess.PIPE, text=True)
        for way in ("batch", "one by one")
    ]
    try:
        for process in readers:
            assert process.stdout.readline() == "ready\n"
        accepted, sent = Counter(), 0
        while sent < 200_000:
            if rings.emit(1, sent):
                accepted[sent] = 1
            sent += 1
        found, alive = Counter(), list(readers)
        while alive:
            rings.emit(1, (1 << 64) - 1)
            time.sleep(0.01)
            alive = [
                process for process in alive if not select.select([process.stdout], [], [], 0)[0]
            ]
        for process in readers:
            numbers = json.loads(process.stdout.read())
            assert len(numbers) > 1
            found.update(number for number in numbers if number != (1 << 64) - 1)
    finally:
        for process in readers:
            process.kill()
            process.communicate()
        loaded.maps["events"].unpin(bpffs / "events")
    assert found == accepted


@pytest.mark.native
@pytest.mark.parametrize("readers", [1, 2], ids=["one reader", "a reader each"])
def test_threads_get_each_record_once(loaded, rings, switch_often, readers):
    opened = [loaded.events("events") for _ in range(readers)]
    got, total = [[], []], 40_000

    def iterate(number):
        for record in opened[number % readers]:
            got[number].append(record.sequence)

    workers = [Worker(partial(iterate, number)) for number in range(2)]
    sent = 0
    while sent < total:
        sent += rings.emit(1, sent)
    wait_until(lambda: opened[0].stats.backlog == 0)
    for reader in opened:
        reader.close()
    for worker in workers:
        assert worker.outcome() == (None, None)
    assert sorted(got[0] + got[1]) == list(range(total))


def test_another_process_that_breaks_the_ring_breaks_no_memory(loaded, rings):
    """Positions that are none: an error or nothing, and neither a crash nor a wait without end."""
    page = mmap.PAGESIZE
    with mmap.mmap(loaded.maps["events"].fileno(), page) as consumer:
        for position in [1, 4, 8, 16, 4095, 1 << 20, 1 << 40, 2**63, 2**64 - 8, 2**64 - 1]:
            rings.emit(1000)
            for receive in ("read_nowait", "read_batch", "drain", "read_numpy"):
                with loaded.events("events") as reader:
                    before = consumer[:8]
                    consumer[:8] = position.to_bytes(8, "little")
                    try:
                        if receive == "read_batch":
                            reader.read_batch(timeout=0)
                        elif receive == "read_numpy":
                            reader.read_numpy(timeout=0)
                        else:
                            getattr(reader, receive)()
                    except (pybpf.KernelError, pybpf.LayoutError):
                        pass
                    assert reader.stats.backlog <= RING
                    consumer[:8] = before
            left_in(loaded)


# ---- what a reader holds -------------------------------------------------------------------------


def test_a_reader_of_a_pinned_map_outlives_the_map(loaded, rings, bpffs):
    loaded.maps["events"].pin(bpffs / "events")
    try:
        with Map.open_pinned(bpffs / "events") as pinned:
            reader = pinned.reader(timeout=0)
        # the map is closed, which the reader does not need any more
        rings.emit(3)
        with reader:
            assert sequences(reader) == [0, 1, 2]
    finally:
        loaded.maps["events"].unpin(bpffs / "events")


def test_a_reader_of_a_map_that_nobody_declared():
    made = Map.create(MapType.RINGBUF, key_size=0, value_size=0, max_entries=RING)
    with made, made.reader() as reader:
        assert reader.read(timeout=0) is None
        assert repr(reader).startswith("<Reader of ")


def test_closing_the_object_closes_its_readers(bpf_object):
    obj = pybpf.load(bpf_object("rings"))
    reader = obj.events("events")
    Rings(obj).emit(1)
    worker = Worker(obj.events("others").read)
    wait_until_polling(worker)
    obj.close()
    assert type(worker.outcome()[1]) is pybpf.ClosedError
    assert reader.closed
    assert list(reader) == []


def test_a_reader_that_was_made_of_maps_outlives_their_object(bpf_object):
    obj = pybpf.load(bpf_object("rings"))
    reader = pybpf.Reader(obj.maps["events"], timeout=0)
    Rings(obj).emit(2)
    obj.close()
    with reader:
        assert sequences(reader) == [0, 1]


@pytest.mark.native
def test_ten_thousand_readers_leave_nothing(loaded, rings):
    rings.emit(1)

    def rounds(count):
        for number in range(count):
            reader = loaded.events("events")
            if number % 3 == 0:
                assert reader.read_nowait().sequence == 0
                rings.emit(1)
            if number % 3 != 1:
                reader.close()
            del reader  # an object's own reader closes quietly

    def held():
        gc.collect()
        with open("/proc/self/statm") as statm:
            resident = int(statm.read().split()[1]) * mmap.PAGESIZE
        with open("/proc/self/maps") as maps:
            mappings = sum(1 for _ in maps)
        return resident, mappings, len(os.listdir("/proc/self/fd"))

    rounds(2000)
    before = held()
    rounds(10_000)
    after = held()
    assert after[0] - before[0] < 1 << 20
    assert after[1] - before[1] < 10
    assert after[2] == before[2]


def test_a_reader_that_cannot_be_made_leaves_nothing(loaded):
    loaded.maps["others"].freeze()  # after which its consumer position cannot be mapped
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(pybpf.KernelError, match="ring buffer 'others'"):
            pybpf.Reader([loaded.maps["events"], loaded.maps["others"]])
        with pytest.raises(pybpf.NotFoundError):
            loaded.events("events", type="struct nothing")
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == before


def test_event_bytes_are_what_the_program_wrote(loaded, rings):
    with loaded.events("events", type=bytes) as reader:
        rings.emit(3, first=2**63)
        assert reader.read_batch() == [event(2**63 + number) for number in range(3)]
