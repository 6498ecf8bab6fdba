# SPDX-License-Identifier: BSD-2-Clause
"""Programs on perf events."""

from __future__ import annotations

import mmap
import os
import threading

import features
import pybpf
import pytest
from kernel_objects import wait_until_gone
from pybpf import PerfCache, PerfCacheOp, PerfCacheResult, PerfEvent, PerfHardware, PerfSoftware
from pybpf.kernel import online_cpus
from traced_kernel import seen

CLOCK = PerfEvent.software(PerfSoftware.CPU_CLOCK)
FAULTS = PerfEvent.software(PerfSoftware.PAGE_FAULTS)
PAGES = 200


def touch_pages():
    """Have the kernel give this thread that many pages of memory, each by a fault of its own."""
    with mmap.mmap(-1, PAGES * mmap.PAGESIZE) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(PAGES):
            memory[page * mmap.PAGESIZE] = 1


def touch_pages_in_a_thread():
    thread = threading.Thread(target=touch_pages)
    thread.start()
    thread.join()


def work():
    sum(range(2_000_000))


@pytest.fixture
def program(tracer):
    return tracer("perf_event")


def test_a_frequency_on_each_cpu_until_detached(program):
    before = len(os.listdir("/proc/self/fd"))
    with program.attach_perf_events(CLOCK, frequency=1000):
        assert len(os.listdir("/proc/self/fd")) == before + len(online_cpus())
        assert seen(program, work) > 0
    assert seen(program, work) == 0


def test_all_cpus_or_none(program):
    with pytest.raises(pybpf.AttachError) as refused:
        program.attach_perf_events(CLOCK, frequency=1000, cpus=[*online_cpus(), 8191])
    assert seen(program, work) == 0  # also while somebody looks at the error
    assert "on CPU 8191" in str(refused.value)


def test_a_period_of_one_thread(program):
    link = program.attach_perf_event(FAULTS, period=10, pid=0)
    assert link.what == "program 'perf_event' to software event PAGE_FAULTS of process 0"
    assert PAGES / 10 <= seen(program, touch_pages) < PAGES / 2
    assert seen(program, touch_pages_in_a_thread) < PAGES / 10
    link.detach()
    assert seen(program, touch_pages) == 0


def test_threads_to_come_as_well(program):
    program.attach_perf_event(FAULTS, period=1, pid=os.getpid(), inherit=True)
    assert seen(program, touch_pages_in_a_thread) >= PAGES


def test_on_one_cpu(program):
    before = os.sched_getaffinity(0)
    here, *others = sorted(before)
    os.sched_setaffinity(0, [here])
    try:
        with program.attach_perf_event(FAULTS, period=1, cpu=here):
            assert seen(program, touch_pages) >= PAGES
        for other in others[:1]:
            with program.attach_perf_event(FAULTS, period=1, cpu=other):
                assert seen(program, touch_pages) == 0
    finally:
        os.sched_setaffinity(0, before)


def test_a_cookie(tracer, attempt):
    attempt("5.15", tracer("perf_event").attach_perf_event, FAULTS, period=1, pid=0, cookie=1)
    program = tracer("perf_event_cookie")
    program.attach_perf_event(FAULTS, period=10, pid=0, cookie=1 << 40)
    assert seen(program, touch_pages, counter="cookies") >> 40 >= PAGES / 10


def test_a_pinned_link_lasts(tracer, attempt, bpffs):
    attempt("5.15", tracer("perf_event").attach_perf_event, FAULTS, period=1, pid=0, cookie=1)
    program = tracer("perf_event")
    link = program.attach_perf_event(FAULTS, period=1, pid=0)
    link.pin(bpffs / "link")
    id = link.id
    link.close()
    assert seen(program, touch_pages) >= PAGES
    (bpffs / "link").unlink()
    wait_until_gone("link", id)
    assert seen(program, touch_pages) == 0


@pytest.mark.parametrize(
    "event",
    [
        PerfEvent.hardware(PerfHardware.INSTRUCTIONS),
        PerfEvent.cache(PerfCache.L1D, PerfCacheOp.READ, PerfCacheResult.ACCESS),
        PerfEvent.raw(0xC0),  # instructions, on x86
    ],
    ids=str,
)
def test_what_the_processor_counts(program, event):
    if not features.has("hardware_events"):
        with pytest.raises(pybpf.NotSupportedError, match="this machine does not count that"):
            program.attach_perf_event(event, frequency=1000, pid=0)
        features.require("hardware_events")
    program.attach_perf_event(event, frequency=1000, pid=0)
    assert seen(program, work) > 0


@pytest.mark.parametrize(
    ("names", "enum", "prefix"),
    [
        (PerfHardware, "perf_hw_id", "PERF_COUNT_HW_"),
        (PerfSoftware, "perf_sw_ids", "PERF_COUNT_SW_"),
        (PerfCache, "perf_hw_cache_id", "PERF_COUNT_HW_CACHE_"),
        (PerfCacheOp, "perf_hw_cache_op_id", "PERF_COUNT_HW_CACHE_OP_"),
        (PerfCacheResult, "perf_hw_cache_op_result_id", "PERF_COUNT_HW_CACHE_RESULT_"),
    ],
)
def test_the_names_are_the_kernels(kernel_btf, names, enum, prefix):
    theirs = kernel_btf[f"enum {enum}"].values
    for name, number in theirs.items():
        if not name.endswith("_MAX"):
            assert names(number).name == name.removeprefix(prefix)


def test_a_cache_event_is_three_bytes():
    event = PerfEvent.cache(PerfCache.DTLB, PerfCacheOp.PREFETCH, PerfCacheResult.MISS)
    assert event == PerfEvent(type=3, config=0x010203)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"pid": 0}, "either frequency or period"),
        ({"pid": 0, "frequency": 9, "period": 9}, "either frequency or period"),
        ({"period": 9}, "cpu or pid"),
    ],
)
def test_it_takes_how_often_and_where(program, options, why):
    with pytest.raises(ValueError, match=why):
        program.attach_perf_event(FAULTS, **options)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"pid": 4194304}, "no such process"),
        ({"pid": 0, "period": None, "frequency": 1 << 40}, "perf_event_max_sample_rate"),
    ],
)
def test_what_the_kernel_refuses(program, options, why):
    with pytest.raises(pybpf.AttachError, match=why):
        program.attach_perf_event(FAULTS, **{"period": 9, **options})


def test_a_cpu_that_is_not_there_leaves_none_attached(program):
    with pytest.raises(pybpf.AttachError, match="CPU 8191"):
        program.attach_perf_events(FAULTS, period=9, cpus=[0, 8191])
    assert program._owner.links == ()
