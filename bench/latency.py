#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""From a program's submit to Python: how long a record takes to a reader that waits.

    .venv/bin/python bench/latency.py [--records N] [--interval MS]

Needs root and `build.py bpf`; uvloop and its rows only where it is installed.  Another process has
one record written at a time; the record says when (bpf_ktime_get_ns()), which is compared with
CLOCK_MONOTONIC as soon as Python has it.
"""

import argparse
import asyncio
import os
import select
import statistics
import struct
import time
from pathlib import Path

import pybpf

try:
    import uvloop
except ImportError:
    uvloop = None

OBJECT = Path(__file__).resolve().parent / "stream.bpf.o"


def by_read(reader, count):
    for _ in range(count):
        yield reader.read().time, time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def by_epoll(reader, count):
    with select.epoll() as epoll:
        epoll.register(reader, select.EPOLLIN)
        while count:
            epoll.poll()
            while (record := reader.read_nowait()) is not None:
                yield record.time, time.clock_gettime_ns(time.CLOCK_MONOTONIC)
                count -= 1


def in_loop(run):
    async def collect(reader, count):
        found = []
        async for record in reader:
            found.append((record.time, time.clock_gettime_ns(time.CLOCK_MONOTONIC)))
            if len(found) == count:
                break
        return found

    return lambda reader, count: run(collect(reader, count))


WAYS = {"read()": by_read, "epoll": by_epoll, "async for": in_loop(asyncio.run)}
if uvloop:
    WAYS["async for, uvloop"] = in_loop(uvloop.run)


def producer(program, count, seconds):
    """A child process that has ``count`` records written, one each ``seconds``."""
    child = os.fork()
    if child == 0:
        try:
            time.sleep(0.2)  # until the reader waits
            for _ in range(count):
                time.sleep(seconds)
                program.test_run(ctx=struct.pack("Q", 1))
        finally:
            os._exit(0)
    return child


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=1000, help="for each row")
    parser.add_argument("--interval", type=float, default=3, metavar="MS")
    options = parser.parse_args()
    print(f"{'microseconds':28}{'median':>8}{'p99':>8}{'highest':>9}")
    with pybpf.load(OBJECT) as obj:
        for kind in ("ring", "perf"):
            program = obj.programs[f"to_{kind}"]
            for name, way in WAYS.items():
                with obj.events(kind, type="struct event") as reader:
                    child = producer(program, options.records, options.interval / 1000)
                    pairs = way(reader, options.records)
                    late = sorted((received - sent) / 1000 for sent, received in pairs)
                    os.waitpid(child, 0)
                p99 = late[len(late) * 99 // 100]
                row = f"{statistics.median(late):8.0f}{p99:8.0f}{late[-1]:9.0f}"
                print(f"{kind + ', ' + name:28}{row}")


if __name__ == "__main__":
    main()
