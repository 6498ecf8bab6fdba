# SPDX-License-Identifier: BSD-2-Clause
"""Perf event arrays: records of every size and of several CPUs, losses counted, waking,
overwriting, the order of time, privileges, and several readers."""

from __future__ import annotations

import gc
import itertools
import os
import select
import struct
import threading
import time

import features
import numpy
import pybpf
import pytest
from bad_objects import AS_TRACER
from perf_records import (
    CPUS,
    HEAD,
    Producers,
    assert_intact,
    head,
    prepare,
    produce,
    sequences,
    totals,
)
from pybpf.kernel import cpu_numbers
from test_bad_input import assert_told_well, raised_by
from test_concurrency import Worker, forks
from test_ownership import in_child

LARGEST = 65508  # with the time, which comes with each record of an ordered reader
HEADERS = 12  # bytes around a record: its header, and its size


@pytest.fixture
def perf(bpf_object):
    with pybpf.load(bpf_object("perf")) as obj:
        prepare(obj)
        yield obj


@pytest.fixture
def two_cpus():
    features.require("two_cpus")
    return CPUS


class Looking(pybpf.Reader):
    """A reader that counts how often it looks for records."""

    looks = 0

    def _take(self, *arguments):
        self.looks += 1
        return super()._take(*arguments)


def ring_bytes(pages):
    return pages * os.sysconf("SC_PAGESIZE")


# ---- records -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [False, True])
def test_records_of_every_size_come_whole(perf, ordered):
    """The ring wraps around several times, also within records."""
    with perf.events("samples", pages=32, ordered=ordered) as reader:
        for size in [*range(300), 4095, 4096, 4097, 30_000, 65_507, LARGEST, 1]:
            produce(perf, 1, size)
            record = reader.read(1)
            assert_intact(record, size)
            assert (len(record) + 4) % 8 == 0
        assert reader.stats.lost == 0


@pytest.mark.parametrize("size", [65_517, 65_525, 65_528, 65_536, 70_000, 1 << 17])
def test_records_that_are_too_large_for_the_kernel_disturb_no_others(perf, size):
    with perf.events("samples", pages=64) as reader:
        produce(perf, 2)
        produce(perf, 1, size)
        produce(perf, 2)
        assert sequences(reader.read_batch(timeout=1)) == [0, 1, 3, 4]
        assert reader.stats.lost <= 1


def test_a_full_ring_is_read_many_times(perf):
    each = 30
    with perf.events("samples", pages=1) as reader:
        for round in range(60):
            produce(perf, each, 100)
            records = reader.read_batch(timeout=1)
            assert sequences(records) == list(range(round * each, (round + 1) * each))
            for record in records:
                assert_intact(record, 100)
        assert reader.stats.backlog_highest == each * (100 + HEADERS)


def test_records_of_all_cpus_come_each_in_its_order(perf, two_cpus):
    with perf.events("samples") as reader:
        for count in (3, 5, 700):
            for cpu in two_cpus:
                produce(perf, count, cpu=cpu)
        records = reader.read_batch(timeout=1)
    for cpu in two_cpus:
        assert sequences(records, cpu) == list(range(708))


def test_records_are_typed_and_keep_what_is_behind_their_type(perf):
    with perf.events("samples", type="struct sample") as reader:
        for size in range(HEAD.size, HEAD.size + 24):
            produce(perf, 1, size)
            record = reader.read(1)
            assert (record.sequence, record.cpu) == (size - HEAD.size, CPUS[0])
            assert record.size == size
        assert_intact(bytes(record), size)
        produce(perf, 1, 8)
        with pytest.raises(pybpf.LayoutError, match=r"'samples'.*24 bytes, 12"):
            reader.read(1)


def test_flexible_arrays_have_all_their_elements(perf):
    with perf.events("samples", type="struct tailed") as reader:
        for size in range(HEAD.size, HEAD.size + 40):
            produce(perf, 1, size)
            record = reader.read(1)
            assert record.head.size == size
            assert_intact(bytes(record), size)


def test_arrays_of_records(perf, two_cpus):
    with perf.events("samples", type="struct sample") as reader:
        for cpu in two_cpus:
            produce(perf, 100, cpu=cpu)
        array = reader.read_numpy(timeout=1)
        for cpu in two_cpus:
            assert array[array["cpu"] == cpu]["sequence"].tolist() == list(range(100))
        assert len(reader.read_numpy(timeout=0)) == 0
        produce(perf, 5)
        produce(perf, 1, 64)
        produce(perf, 1)
        assert len(reader.read_numpy(timeout=0)) == 5
        with pytest.raises(pybpf.LayoutError, match="68 bytes"):
            reader.read_numpy(timeout=0)
        assert reader.read_nowait().size == 64
        assert len(reader.read_numpy(timeout=0)) == 1
        assert reader.stats.received == 207


def test_there_are_no_views_of_them(perf):
    refused = pytest.raises(pybpf.NotSupportedError, match=r"'samples'[\s\S]*read_numpy")
    with perf.events("samples") as reader, refused:
        reader.view()


def test_rings_of_both_kinds_in_one_reader(perf, two_cpus):
    with perf.events(["samples", "ring", "others"], type="struct sample") as reader:
        for into in ("samples", "ring", "others"):
            for cpu in two_cpus:
                produce(perf, 2, into=into, cpu=cpu)
        pairs = reader.read_batch(timeout=1)
        expected = {"samples": [0, 1], "ring": [2, 3], "others": [4, 5]}
        for name, numbers in expected.items():
            for cpu in two_cpus:
                found = [each.sequence for which, each in pairs if (which, each.cpu) == (name, cpu)]
                assert found == numbers
        assert len(pairs) == 12
    with pytest.raises(pybpf.NotSupportedError, match="its records have no time"):
        perf.events(["samples", "ring"], ordered=True)


def test_without_a_name_perf_event_arrays_are_read_too(perf):
    with perf.events() as reader:
        for into in ("samples", "ring", "others"):
            produce(perf, 1, into=into)
        assert {name for name, _ in reader.read_batch(timeout=1)} == {"samples", "ring", "others"}


# ---- losses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [24, 100, 1000])
def test_lost_records_are_counted(perf, two_cpus, size):
    with perf.events("samples", pages=1) as reader:
        for cpu in two_cpus:
            produce(perf, 500, size, cpu=cpu)
        received = len(reader.read_batch(timeout=1))
        for cpu in two_cpus:  # a kernel before 6.0 tells of losses with the next record
            produce(perf, 1, size, cpu=cpu)
        received += len(reader.read_batch(timeout=1))
        stats = reader.stats
        produced, refused = totals(perf)
    assert produced == 1002
    assert stats.received == received
    assert stats.lost == refused == produced - received > 0
    assert reader.stats.lost == stats.lost, "after close"


@pytest.mark.requires("perf_lost")
def test_lost_records_are_counted_when_none_follows(perf):
    reader = perf.events("samples", pages=1)
    produce(perf, 100, 100)
    assert reader.stats.lost == totals(perf)[1] > 0
    reader.close()
    assert reader.stats.lost == totals(perf)[1]


def test_what_is_produced_is_received_or_lost(perf, two_cpus):
    with perf.events("samples", pages=2) as reader:
        received = {cpu: [] for cpu in two_cpus}
        with Producers(perf, 200, 64):
            deadline = time.monotonic() + 1
            while time.monotonic() < deadline:
                for record in reader.read_batch(timeout=0.1):
                    received[head(record).cpu].append(head(record).sequence)
        for cpu in two_cpus:
            produce(perf, 1, cpu=cpu)
        for record in reader.drain():
            received[head(record).cpu].append(head(record).sequence)
        stats, (produced, refused) = reader.stats, totals(perf)
    for numbers in received.values():
        assert all(a < b for a, b in itertools.pairwise(numbers))
    assert sum(map(len, received.values())) == stats.received
    assert stats.lost == refused
    assert stats.received + stats.lost == produced


# ---- waking --------------------------------------------------------------------------------------


def is_readable(reader, seconds):
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_number_of_records_wakes(perf, count):
    with perf.events("samples", wakeup_events=count) as reader:
        for _ in range(3):
            for _ in range(count - 1):
                produce(perf)
                assert not is_readable(reader, 0.01)
            produce(perf)
            assert is_readable(reader, 5)
            assert not is_readable(reader, 0), "told once"
            assert len(reader.read_batch(timeout=0)) == count


def test_a_number_of_bytes_wakes(perf):
    each = 100 + HEADERS
    with perf.events("samples", pages=1, watermark=10 * each) as reader:
        for _ in range(10):
            produce(perf, 1, 100)
            assert not is_readable(reader, 0.01)
        produce(perf, 1, 100)
        assert is_readable(reader, 5)
        assert len(reader.read_batch(timeout=0)) == 11


def test_half_a_ring_wakes_whatever_is_asked_for(perf):
    each = 500 + HEADERS
    with perf.events("samples", pages=1, wakeup_events=1_000_000) as reader:
        enough = ring_bytes(1) // 2 // each
        produce(perf, enough, 500)
        assert not is_readable(reader, 0.01)
        produce(perf, 1, 500)
        assert is_readable(reader, 5)


def test_what_came_without_waking_is_there_at_the_timeout(perf):
    with perf.events("samples", wakeup_events=3) as reader:
        waits = Worker(lambda: reader.read_batch(timeout=0.5))
        time.sleep(0.1)
        produce(perf, 2)
        assert len(waits.outcome()[0]) == 2
        assert reader.stats.wakeups == 0


def test_records_that_were_there_before_are_read_without_waking(perf):
    with perf.events("samples") as reader:
        produce(perf)
        assert is_readable(reader, 5)
        assert not is_readable(reader, 0)
        assert reader.read(5) is not None


def test_threads_that_wait_share_what_comes_at_once(perf):
    """The kernel may wake one of them alone, and once."""
    for _ in range(30):
        with perf.events("samples") as reader:
            waits = [Worker(lambda: reader.read(60)) for _ in range(4)]
            time.sleep(0.01)
            produce(perf, 2, cpu=CPUS[-1])
            produce(perf, 2, cpu=CPUS[0])
            assert all(worker.outcome()[0] for worker in waits)


# ---- overwriting ---------------------------------------------------------------------------------


def test_the_newest_records_stay_and_come_oldest_first(perf):
    most = ring_bytes(1) // (100 + HEADERS)
    with perf.events("samples", pages=1, overwrite=True) as reader:
        newest = 0
        for count in (most - 1, 500, 1000, 7):
            produce(perf, count, 100)
            newest += count
            records = reader.read_batch(timeout=1)
            for record in records:
                assert_intact(record, 100)
            found = sequences(records)
            assert found == list(range(newest - len(found), newest))
            assert min(count, most - 2) <= len(found) <= min(count, most)
            assert reader.read_nowait() is None
            assert reader.stats.backlog == 0
        assert reader.stats.lost == 0


def test_overwritten_rings_are_read_in_any_way(perf, two_cpus):
    with perf.events("samples", pages=1, overwrite=True, type="struct sample") as reader:
        each = HEAD.size + 4 + HEADERS
        for cpu in two_cpus:
            produce(perf, 10, cpu=cpu)
        assert reader.stats.backlog == 20 * each
        assert reader.read(1).sequence == 0
        assert reader.stats.backlog == 19 * each
        assert len(reader.read_batch(max=9, timeout=0)) == 9
        assert reader.stats.backlog == 10 * each
        array = reader.read_numpy(timeout=0)
        assert array["sequence"].tolist() == list(range(10))
        assert reader.stats.backlog == 0
        assert is_readable(reader, 1)
        produce(perf, 3)
        assert [record.sequence for record in reader.drain()] == [10, 11, 12]


@pytest.mark.parametrize("ordered", [False, True])
def test_snapshots_while_others_write(perf, two_cpus, ordered):
    last = dict.fromkeys(two_cpus, -1)
    taken = 0
    with perf.events("samples", pages=4, overwrite=True, ordered=ordered) as reader:
        with Producers(perf, 50, 200):
            deadline = time.monotonic() + 20
            while taken < 3000 and time.monotonic() < deadline:
                for record in reader.read_batch(timeout=1):
                    assert_intact(record, 200)
                    assert last[head(record).cpu] < head(record).sequence
                    last[head(record).cpu] = head(record).sequence
                    taken += 1
        for cpu in two_cpus:
            produce(perf, 1, 200, cpu=cpu)
        taken += len(reader.drain())
        stats, (produced, refused) = reader.stats, totals(perf)
    assert stats.received == taken >= 3000
    assert stats.lost == refused, "those that came while a ring was copied"
    assert taken + refused <= produced


# ---- the order of time ---------------------------------------------------------------------------


def times(reader, how):
    """The times of the records that wait."""
    if how == "numpy":
        return reader.read_numpy(timeout=0.01)["time"].tolist()
    return [record.time for record in reader.read_batch(timeout=0.01)]


@pytest.mark.parametrize("how", ["batch", "numpy"])
def test_records_of_two_cpus_come_in_the_order_of_time(perf, two_cpus, how):
    found = []
    with perf.events("samples", pages=256, ordered=True, type="struct sample") as reader:
        with Producers(perf, 20, pause=0.0005):
            deadline = time.monotonic() + 1
            while time.monotonic() < deadline:
                found += times(reader, how)
        while more := times(reader, how):
            found += more
        assert reader.stats.lost == 0
        assert len(found) == reader.stats.received == totals(perf)[0]
    array = numpy.array(found)
    late = numpy.maximum.accumulate(array) - array
    # the program asks for the time before the kernel notes it, and may be interrupted between
    assert (late > 100_000).sum() <= len(found) / 1000
    assert len(found) > 2000


def test_a_quiet_stream_is_not_held_back(perf):
    with perf.events("samples", ordered=True) as reader:
        for _ in range(10):
            waits = Worker(lambda: (reader.read(20), time.monotonic_ns()))
            time.sleep(0.005)
            produce(perf)
            record, received = waits.outcome()[0]
            late = received - head(record).time
            assert late > 2_000_000, "an older one may come from another CPU"
            assert late < 2_000_000_000, "at the end of the timeout only"


def test_waiting_for_a_record_that_is_held_back_is_not_work(perf):
    with Looking(perf.maps["samples"], ordered=True) as reader, Producers(perf, 1, pause=0.001):
        for _ in range(100):
            reader.read()
        assert reader.looks < 2000


# ---- options, limits, privileges -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pages": 0}, "pages.*not 0"),
        ({"pages": -1}, "pages.*not -1"),
        ({"pages": 3}, "power of two.*not 3"),
        ({"pages": 1 << 32}, "pages.*not 4294967296"),
        ({"wakeup_events": 0}, "wakeup_events.*not 0"),
        ({"wakeup_events": 1 << 32}, "wakeup_events"),
        ({"watermark": 0}, "watermark.*not 0"),
        ({"pages": 1, "watermark": ring_bytes(1) // 2 + 1}, "half a ring"),
        ({"watermark": 100, "wakeup_events": 2}, "not by both"),
    ],
)
def test_options_that_make_no_sense(perf, options, message):
    with pytest.raises(ValueError, match=message):
        perf.events("samples", **options)


def test_more_memory_than_there_is(perf):
    with pytest.raises(pybpf.KernelError) as caught:
        perf.events("samples", pages=1 << 31)
    assert_told_well(caught.value, pybpf.KernelError, "'samples' on CPU", "\nhint: .*fewer pages=")


@pytest.fixture
def paranoid():
    """What perf events take here: -1 limits nothing, above 2 CAP_PERFMON is not enough."""
    with open("/proc/sys/kernel/perf_event_paranoid") as setting:
        return int(setting.read())


def assert_lacks_all(error):
    assert_told_well(error, pybpf.PrivilegeError, "EACCES", "\nhint: .*lacks CAP_SYS_ADMIN:")


READ_WITH_LITTLE = """
    import resource
    with pybpf.load(sys.argv[1]) as obj:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        obj.events("samples", pages=4096)
"""


@pytest.mark.requires("perf_limits")
def test_who_may_lock_little_memory_is_told(bpf_object, paranoid):
    error = raised_by(READ_WITH_LITTLE, bpf_object("perf"), prefix=AS_TRACER)
    if paranoid > 2:
        assert_lacks_all(error)
    else:
        assert_told_well(error, pybpf.KernelError, "EPERM", "16384 KiB", "\nhint: .*ulimit -l")


READ_AS_TRACER = """
    sys.path.insert(0, sys.argv[2])
    from perf_records import produce
    with pybpf.load(sys.argv[1]) as obj:
        with obj.events("samples", pages=8) as reader:
            produce(obj, 3)
            count = len(reader.read_batch(timeout=1))
        produce(obj, 1)
        refused = sum(obj.maps["counts"][place].refused for place in range(16))
        raise pybpf.LayoutError(f"{count} received, {refused} refused")
"""


def test_who_may_trace_may_read(bpf_object, paranoid):
    tests = os.path.dirname(__file__)
    error = raised_by(READ_AS_TRACER, bpf_object("perf"), tests, prefix=AS_TRACER)
    if paranoid > 2:
        assert_lacks_all(error)
    else:
        assert str(error) == "3 received, 1 refused"


REPLACED_AS_TRACER = """
    sys.path.insert(0, sys.argv[2])
    from perf_records import produce, totals
    with pybpf.load(sys.argv[1]) as obj:
        older, newer = obj.events("samples", pages=8), obj.events("samples", pages=8)
        older.close()
        produce(obj, 2)
        count = len(newer.drain())
        newer.close()
        produce(obj, 1)
        raise pybpf.LayoutError(f"{count} received, {totals(obj)[1]} refused")
"""


def test_who_may_trace_keeps_the_place_of_an_older_reader(bpf_object, paranoid):
    """Without CAP_SYS_ADMIN the map has one file, through which both have entered the array."""
    tests = os.path.dirname(__file__)
    error = raised_by(REPLACED_AS_TRACER, bpf_object("perf"), tests, prefix=AS_TRACER)
    if paranoid > 2:
        assert_lacks_all(error)
    else:
        assert str(error) == "2 received, 1 refused"


CREATE_AND_READ = """
    with Map.create(MapType.PERF_EVENT_ARRAY, key_size=4, value_size=4, max_entries=64) as made:
        made.reader()
"""


def test_who_may_not_trace_is_told_what_that_takes(paranoid):
    without = [word.replace("+perfmon,", "") for word in AS_TRACER]
    error = raised_by(CREATE_AND_READ, prefix=without)
    if paranoid > 2:
        assert_lacks_all(error)
    else:
        assert_told_well(error, pybpf.PrivilegeError, "EACCES", "\nhint: .*lacks CAP_PERFMON:")


def test_the_numbers_of_cpus():
    assert cpu_numbers("0\n") == [0]
    assert cpu_numbers("0-3\n") == [0, 1, 2, 3]
    assert cpu_numbers("0,2-3,7,10-11\n") == [0, 2, 3, 7, 10, 11]


def test_an_array_with_fewer_places_than_cpus(bpf_object):
    with pybpf.open(bpf_object("perf")) as obj:
        obj.maps["samples"].max_entries = 1
        obj.load()
        with obj.events("samples") as reader:
            produce(obj, 1, cpu=CPUS[-1])
            assert len(reader.drain()) == (CPUS[-1] == 0)


# ---- lives ---------------------------------------------------------------------------------------


def test_a_reader_of_a_pinned_array_needs_no_object(bpf_object, bpffs):
    with pybpf.load(bpf_object("perf")) as obj:
        kept = {obj.maps["samples"]: bpffs / "samples", obj.programs["to_samples"]: bpffs / "to"}
        for each, path in kept.items():
            each.pin(path)
        with pybpf.Map.open_pinned(bpffs / "samples") as pinned:
            reader = pinned.reader(type=obj.btf["struct sample"])
        with pybpf.Program.open_pinned(bpffs / "to") as program:
            for each, path in kept.items():
                each.unpin(path)
            obj.close()
            assert program.test_run(ctx=struct.pack("QQ", 2, 24)).retval == 2
    with reader:
        assert [record.sequence for record in reader.read_batch(timeout=1)] == [0, 1]


def test_a_reader_ends_with_its_object(bpf_object):
    obj = pybpf.load(bpf_object("perf"))
    reader = obj.maps["samples"].reader()
    produce(obj)
    assert reader.read(1)
    obj.close()
    with pytest.raises(pybpf.ClosedError):
        reader.read(0)
    assert reader.stats.received == 1


def test_a_second_reader_takes_an_array_over(perf):
    first = perf.events("samples")
    produce(perf, 1)
    second = perf.events("samples")
    produce(perf, 2)
    assert sequences(first.drain()) == [0]
    first.close()
    produce(perf, 1)
    assert sequences(second.drain()) == [1, 2, 3]
    second.close()
    produce(perf, 1)
    assert totals(perf) == (5, 1), "nobody reads any more"
    with perf.events("samples") as third:
        produce(perf, 1)
        assert sequences(third.drain()) == [5]


def locked_bytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmPin:"))


@pytest.mark.native
def test_many_readers_leave_nothing(perf):
    descriptors, locked = set(os.listdir("/proc/self/fd")), locked_bytes()
    for number in range(1000):
        reader = perf.events("samples", pages=1, overwrite=bool(number % 2))
        if number % 3:
            reader.close()
    del reader
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == descriptors
    assert locked_bytes() == locked


def test_closing_in_a_callback(perf):
    reader = perf.events("samples")
    produce(perf, 3)
    assert reader.poll(lambda record: reader.close(), timeout=1) == 1
    assert reader.closed
    assert reader.stats.received == 1


def test_an_error_in_a_callback_keeps_the_other_records(perf):
    with perf.events("samples") as reader:
        produce(perf, 3)
        with pytest.raises(ZeroDivisionError):
            reader.poll(lambda record: 1 // head(record).sequence, timeout=1)
        assert sequences(reader.drain()) == [1, 2]


@forks
def test_a_fork_takes_no_records(perf):
    def disturb():
        for read in (reader.read_nowait, reader.drain, lambda: next(reader)):
            with pytest.raises(pybpf.StateError, match="belongs to process"):
                read()
        reader.close()

    with perf.events("samples") as reader:
        produce(perf, 2)
        assert in_child(disturb) == 0
        produce(perf, 1)
        assert sequences(reader.read_batch(timeout=1)) == [0, 1, 2]


def test_closing_ends_reads_of_all_threads(perf):
    with perf.events("samples") as reader:
        waits = [Worker(reader.read) for _ in range(3)]
        time.sleep(0.05)
        reader.close()
        for worker in waits:
            assert isinstance(worker.outcome()[1], pybpf.ClosedError)
    assert threading.active_count() == 1
