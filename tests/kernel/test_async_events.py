# SPDX-License-Identifier: BSD-2-Clause
"""Readers in asyncio and other event loops: nothing is lost by cancelling, nobody starves, nothing
stays registered."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
import selectors
import threading
import time

import pybpf
import pytest
import uvloop
from perf_records import CPUS, Producers, head, prepare, produce, sequences
from test_concurrency import Worker
from test_perf_events import Looking

pytestmark = pytest.mark.native

ENOUGH = 4000  # records of a storm
RUNS = {"asyncio": asyncio.run, "uvloop": uvloop.run}
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="module", autouse=True)
def process_of_uvloop():
    """What uvloop keeps open as long as the process lives."""
    uvloop.run(asyncio.sleep(0))


@pytest.fixture
def loaded(bpf_object):
    with pybpf.load(bpf_object("perf")) as obj:
        prepare(obj)
        yield obj


@pytest.fixture(params=["ring", "samples"])
def into(request):
    """A ring buffer, whose descriptor is readable while it has records, and a perf event array,
    whose descriptor tells once."""
    return request.param


@pytest.fixture(params=RUNS)
def run(request):
    """run(coroutine), on a new loop each time."""

    def run(coroutine):
        return RUNS[request.param](asyncio.wait_for(coroutine, 60))

    return run


@pytest.fixture(params=LOOPS)
def new_loop(request):
    return LOOPS[request.param]


async def take(reader, count):
    return [await reader.get() for _ in range(count)]


async def until_waiting(*readers):
    """Give the tasks that were started time to wait for records."""
    while not all(any(reader._waits.values()) for reader in readers):
        await asyncio.sleep(0)


def is_registered(loop, reader):
    """Whether the loop watched the reader; from now on it does not."""
    return loop.remove_reader(reader.fileno())


# ---- receiving -----------------------------------------------------------------------------------


def test_what_is_there_and_what_comes(loaded, into, run):
    async def main():
        with loaded.events(into, timeout=0.05) as reader:
            produce(loaded, 300, into=into)
            assert sequences([record async for record in reader]) == list(range(300))
            produce(loaded, 2, into=into)
            assert sequences(await take(reader, 2)) == [300, 301]
            waits = asyncio.create_task(take(reader, 3))
            for _ in range(3):
                await until_waiting(reader)
                produce(loaded, into=into, cpu=CPUS[-1])
            assert len(await waits) == 3
            assert not is_registered(asyncio.get_running_loop(), reader)

    run(main())


def test_one_loop_after_the_other(loaded, into, run):
    with loaded.events(into) as reader:
        for number in range(5):
            produce(loaded, 2, into=into)
            assert sequences([run(reader.get())]) == [2 * number]
            assert head(reader.read(1)).sequence == 2 * number + 1


def test_async_for_ends_at_the_timeout_and_can_be_taken_up_again(loaded, into, run):
    async def main():
        with loaded.events(into, timeout=0.05) as reader:
            for _ in range(3):
                begun = time.monotonic()
                assert [record async for record in reader] == []
                assert time.monotonic() - begun > 0.045
            produce(loaded, into=into)
            assert len([record async for record in reader]) == 1

    run(main())


def test_a_timeout_gives_what_came_without_waking(loaded, run):
    async def main():
        with loaded.events("samples", wakeup_events=5, timeout=0.2) as reader:
            waits = asyncio.create_task(anext(reader))
            await until_waiting(reader)
            produce(loaded)
            assert head(await waits).sequence == 0
            assert reader.stats.wakeups == 0

    run(main())


def test_tasks_share_what_comes(loaded, into, run):
    async def main():
        with loaded.events(into) as reader:
            for _ in range(50):
                tasks = [asyncio.create_task(reader.get()) for _ in range(6)]
                await until_waiting(reader)
                produce(loaded, 4, into=into, cpu=CPUS[-1])
                produce(loaded, 2, into=into, cpu=CPUS[0])
                assert len(set(await asyncio.gather(*tasks))) == 6

    run(main())


def test_readers_side_by_side(loaded, run):
    async def main():
        with loaded.events("ring") as one, loaded.events(["samples", "others"]) as two:
            tasks = [asyncio.create_task(take(reader, 20)) for reader in (one, two)]
            await until_waiting(one, two)
            for _ in range(10):
                for name in ("ring", "samples", "others"):
                    produce(loaded, 2 if name == "ring" else 1, into=name)
                    await asyncio.sleep(0)
            ring, pairs = await asyncio.gather(*tasks)
            assert len(ring) == 20
            assert [name for name, _ in pairs].count("others") == 10

    run(main())


def test_other_readers_of_the_same_ring_do_not_make_a_task_spin(loaded, run):
    """Both are told of each record, and one of them finds nothing."""

    async def main():
        with loaded.events("ring") as one, loaded.events("ring") as other:
            tasks = [asyncio.create_task(reader.get()) for reader in (one, other)]
            await until_waiting(one, other)
            produce(loaded, into="ring")
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0.05)
            assert sum(task.done() for task in tasks) == 1
            produce(loaded, into="ring")
            await asyncio.gather(*tasks)

    run(main())


# ---- nothing is lost -----------------------------------------------------------------------------


async def impatient(reader, found, stop):
    """Takes records, and gives up again and again in different ways."""
    draw = random.Random(len(found))
    while not stop.is_set():
        waiting = draw.choice([reader.get, lambda: anext(reader)])()
        try:
            found.append(await asyncio.wait_for(waiting, draw.choice([0, 1e-6, 1e-4, 1e-3])))
        except asyncio.TimeoutError:
            pass


async def interrupted(reader, found, stop):
    """Iterates, and is cancelled again and again."""

    async def iterate():
        async for record in reader:
            found.append(record)

    draw = random.Random(1)
    while not stop.is_set():
        task = asyncio.create_task(iterate())
        await asyncio.sleep(draw.choice([0, 1e-5, 1e-3]))
        task.cancel()
        await asyncio.wait([task])


def test_a_storm_of_cancellations_loses_nothing(loaded, into, run):
    """Each record comes exactly once."""

    async def main():
        with loaded.events(into) as reader:
            found, stop = [], threading.Event()
            tasks = [impatient(reader, found, stop) for _ in range(3)]
            tasks += [interrupted(reader, found, stop)]
            gathered = asyncio.gather(*tasks)
            with Producers(loaded, 20, pause=0.002, into=into):
                while len(found) < ENOUGH:
                    await asyncio.sleep(0.01)
            stop.set()
            await gathered
            found += reader.drain()
            assert reader.stats.lost == 0
            return found, reader.stats.received

    found, received = run(main())
    refused = sum(loaded.maps["counts"][cpu % 16].refused for cpu in CPUS)
    assert refused == 0
    for cpu in CPUS:
        numbers = sequences(found, cpu)
        assert sorted(numbers) == list(range(len(numbers)))
    assert len(found) == received


def test_a_record_that_nobody_awaits_comes_again(loaded, into, run):
    async def main():
        with loaded.events(into) as reader:
            produce(loaded, 3, into=into)
            assert head(await anext(reader)).sequence == 0
            for _ in range(3):
                anext(reader)  # and dropped
            assert sequences(await take(reader, 2)) == [1, 2]

    run(main())


def test_who_waits_is_told_of_a_record_that_is_given_back(loaded, into, run):
    async def main():
        with loaded.events(into) as reader:
            produce(loaded, 2, into=into)
            await anext(reader)
            taken = anext(reader)
            waits = asyncio.create_task(reader.get())
            await until_waiting(reader)
            thread = Worker(reader.read)
            del taken
            done, _ = await asyncio.wait([waits], timeout=0.2)
            produce(loaded, 1, into=into)
            numbers = sequences([await waits, thread.outcome()[0]])
            assert sorted(numbers) == [1, 2]
            assert done or thread.result

    run(main())


def test_a_record_that_does_not_fit_raises_and_those_after_it_come(loaded, into, run):
    async def main():
        with loaded.events(into, type="struct sample", timeout=0.05) as reader:
            for size in (24, 8, 24):
                produce(loaded, 1, size, into=into)
            assert (await anext(reader)).sequence == 0
            with pytest.raises(pybpf.LayoutError) as caught:
                await anext(reader)
            assert caught.value.record[:8] == (1).to_bytes(8, "little")
            assert [record.sequence async for record in reader] == [2]
            waits = asyncio.create_task(reader.get())
            await until_waiting(reader)
            produce(loaded, 1, 8, into=into)
            with pytest.raises(pybpf.LayoutError):
                await waits

    run(main())


# ---- closing -------------------------------------------------------------------------------------


def test_closing_by_another_task_ends_all_waits(loaded, into, run):
    async def main():
        with loaded.events(into) as reader:

            async def iterate():
                return [record async for record in reader]

            tasks = [asyncio.create_task(each) for each in (reader.get(), iterate(), iterate())]
            await until_waiting(reader)
            reader.close()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(results[0], pybpf.ClosedError)
            assert results[1:] == [[], []]
            with pytest.raises(pybpf.ClosedError):
                await reader.get()
            assert await iterate() == []

    run(main())


def test_closing_by_another_thread_ends_all_waits(loaded, into, run):
    async def main(reader, begun):
        waits = asyncio.create_task(reader.get())
        await until_waiting(reader)
        begun.set()
        with pytest.raises(pybpf.ClosedError):
            await waits

    for _ in range(20):
        reader, begun = loaded.events(into), threading.Event()
        closes = Worker(lambda: (begun.wait(20), reader.close()))  # noqa: B023
        run(main(reader, begun))
        closes.outcome()


def test_closing_the_object_ends_all_waits(bpf_object, into, run):
    async def main():
        obj = pybpf.load(bpf_object("perf"))
        reader = obj.events(into)
        waits = asyncio.create_task(reader.get())
        await until_waiting(reader)
        obj.close()
        with pytest.raises(pybpf.ClosedError):
            await waits

    run(main())


def test_a_loop_that_is_closed_leaves_the_reader_to_the_next(loaded, into, new_loop, caplog):
    with loaded.events(into) as reader:
        for _ in range(3):
            loop = new_loop()
            loop.create_task(reader.get())
            loop.run_until_complete(until_waiting(reader))
            loop.close()
        loop = new_loop()
        later = threading.Timer(0.05, produce, (loaded,), {"into": into})
        later.start()
        assert head(loop.run_until_complete(reader.get())).sequence == 0
        later.join()
        loop.close()
    with caplog.at_level(logging.CRITICAL, "asyncio"):  # that tasks are destroyed that waited
        gc.collect()


def test_loops_of_two_threads_share_a_reader(loaded, into, new_loop):
    with loaded.events(into) as reader:
        found = []

        async def iterate():
            async for record in reader:
                found.append(record)

        def run():
            loop = new_loop()
            loop.run_until_complete(iterate())
            loop.close()

        workers = [Worker(run) for _ in range(2)]
        with Producers(loaded, 20, pause=0.001, into=into):
            deadline = time.monotonic() + 20
            while len(found) < ENOUGH and time.monotonic() < deadline:
                time.sleep(0.01)
        produced = sum(loaded.maps["counts"][cpu % 16].produced for cpu in CPUS)
        while len(found) < produced and time.monotonic() < deadline:
            time.sleep(0.01)
        reader.close()
        for worker in workers:
            assert worker.outcome() == (None, None)
        assert len(found) == produced >= ENOUGH
        for cpu in CPUS:
            numbers = sorted(sequences(found, cpu))
            assert numbers == list(range(len(numbers)))


# ---- fair, and not too eager ---------------------------------------------------------------------


def test_others_have_their_turn_however_many_records_wait(loaded, into, run):
    async def main():
        turns = 0

        async def others():
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        with loaded.events(into, timeout=0) as reader:
            produce(loaded, 1024, into=into)
            produce(loaded, 1024 - 30, into=into)
            beside = asyncio.create_task(others())
            count = len([record async for record in reader])
            assert turns >= count // 256
            turns, _ = 0, produce(loaded, 100, into=into)
            await take(reader, 100)
            assert turns >= 99
            beside.cancel()
            return count

    assert run(main()) == 2018


def test_waiting_for_a_record_that_is_held_back_is_not_work(loaded, run):
    async def main():
        with Looking(loaded.maps["samples"], ordered=True) as reader:
            with Producers(loaded, 1, pause=0.001):
                await take(reader, 100)
            assert reader.looks < 2000

    run(main())


def test_the_last_records_in_the_order_of_time_come_without_others(loaded, run):
    async def main():
        with loaded.events("samples", ordered=True) as reader:
            for _ in range(5):
                waits = asyncio.ensure_future(take(reader, 6))
                await until_waiting(reader)
                for cpu in CPUS:
                    produce(loaded, 6 // len(CPUS), cpu=cpu)
                records = await asyncio.wait_for(waits, 20)
                times = [head(record).time for record in records]
                assert times == sorted(times)

    run(main())


def test_async_for_is_not_much_slower_than_for(loaded, run):
    """Half as fast is the goal, and more is measured; the margin is for busy machines."""
    count, times = 2000, 30

    def fill():
        for _ in range(2):
            produce(loaded, count // 2, into="ring")
        return time.perf_counter()

    def plain(reader):
        begun = fill()
        assert sum(1 for _ in reader) == count
        return time.perf_counter() - begun

    async def best_in_loop(reader):
        best = 1.0
        for _ in range(times):
            begun, found = fill(), 0
            async for _ in reader:
                found += 1
            assert found == count
            best = min(best, time.perf_counter() - begun)
        return best

    with loaded.events("ring", type="struct sample", timeout=0) as reader:
        ratio = min(plain(reader) for _ in range(times)) / run(best_in_loop(reader))
    assert ratio > 0.3


# ---- other loops ---------------------------------------------------------------------------------


def test_a_selector_tells_of_records_of_several_readers(loaded):
    found = dict.fromkeys(["ring", "samples", "others"], 0)
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for name in found:
            selector.register(stack.enter_context(loaded.events(name)), selectors.EVENT_READ, name)
        for name, cpu in (("samples", CPUS[0]), ("ring", CPUS[-1])):
            stack.enter_context(Producers(loaded, 5, cpus=[cpu], pause=0.001, into=name))
        while min(found["samples"], found["ring"]) < 200:
            events = selector.select(20)
            assert events
            for key, _ in events:
                while key.fileobj.read_nowait() is not None:
                    found[key.data] += 1
    assert found["others"] == 0


def test_a_selector_tells_of_what_was_given_back_and_of_closing(loaded, into):
    with selectors.DefaultSelector() as selector, loaded.events(into) as reader:
        selector.register(reader, selectors.EVENT_READ)
        assert selector.select(0) == []
        produce(loaded, into=into)
        assert selector.select(5)
        reader._give_back([reader.read_nowait()])
        assert selector.select(0)
        assert head(reader.read_nowait()).sequence == 0
        assert reader.read_nowait() is None
        assert selector.select(0) == []
