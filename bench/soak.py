#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A reader at a million records a second for a minute: does it keep up, and in how much memory?

    .venv/bin/python bench/soak.py [--seconds S] [--rate N] [--by iterating|batches|numpy|view]

Needs root and `build.py bpf`, numpy for the last two.  Another process has records of 64 bytes
written into a ring buffer of 16 MiB, in portions every millisecond; this one looks at the sequence
number of each.
"""

import argparse
import os
import resource
import struct
import time
from pathlib import Path

import pybpf

OBJECT = Path(__file__).resolve().parent / "stream.bpf.o"
PORTION = 1000
WARM_UP = 1  # second, for memory that is taken once


def produce(program, rate, seconds):
    """Have records written at that rate; in a child process, which it returns."""
    child = os.fork()
    if child:
        return child
    try:
        context = struct.pack("Q", PORTION)
        begun = time.monotonic()
        for number in range(int(rate * seconds / PORTION)):
            time.sleep(max(0, begun + number * PORTION / rate - time.monotonic()))
            program.test_run(ctx=context)
    finally:
        os._exit(0)


class Check:
    """Counts the records that came, and those missing between them."""

    def __init__(self):
        self.received = self.missing = self.next = 0

    def one(self, sequence):
        self.missing += sequence - self.next
        self.next = sequence + 1
        self.received += 1

    def many(self, sequences):
        if len(sequences):
            self.received += len(sequences)
            self.missing += int(sequences[-1]) + 1 - self.next - len(sequences)
            self.next = int(sequences[-1]) + 1


def by_iterating(reader, check):
    for record in reader:
        check.one(record.sequence)


def by_batches(reader, check):
    while records := reader.read_batch(timeout=1):
        for record in records:
            check.one(record.sequence)


def by_numpy(reader, check):
    while len(array := reader.read_numpy(timeout=1)):
        check.many(array["sequence"])


def by_view(reader, check):
    there = True
    while there:
        with reader.view(timeout=1) as array:
            check.many(array["sequence"])
            there = len(array) > 0


def resident():
    """Bytes of memory that this process has."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def run(obj, way, rate, seconds):
    """Read what is produced to its end."""
    check = Check()
    with obj.events("ring", timeout=1) as reader:
        child = produce(obj.programs["to_ring"], rate, seconds)
        way(reader, check)
        os.waitpid(child, 0)
        return check, reader.stats


def main():
    ways = {"iterating": by_iterating, "batches": by_batches, "numpy": by_numpy, "view": by_view}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=int, default=1_000_000)
    parser.add_argument("--by", choices=ways, default="iterating")
    options = parser.parse_args()
    with pybpf.load(OBJECT) as obj:
        run(obj, ways[options.by], options.rate, WARM_UP)
        obj.bss.written = obj.bss.dropped = 0
        memory, worked, begun = resident(), cpu_seconds(), time.monotonic()
        check, stats = run(obj, ways[options.by], options.rate, options.seconds)
        elapsed = time.monotonic() - begun - 1  # the timeout at the end
        share = (cpu_seconds() - worked) / elapsed
        written, dropped = obj.bss.written, obj.bss.dropped
    print(f"by {options.by}: {written:,} written, {check.received:,} received, {dropped:,} lost")
    print(f"{check.received / elapsed:,.0f} a second, {100 * share:.0f} % of a CPU")
    print(f"memory grew by {(resident() - memory) / 1024:.0f} KiB")
    print(
        f"at most {stats.backlog_highest / 2**20:.1f} of 16 MiB waited, {stats.wakeups:,} wakeups"
    )
    if check.missing > dropped or check.received + dropped != written:
        raise SystemExit(f"{written - check.received - dropped} records are missing")


if __name__ == "__main__":
    main()
