# SPDX-License-Identifier: BSD-2-Clause
"""Records of tests/bpf/perf.bpf.c: having them written on a CPU of choice, and what they are."""

from __future__ import annotations

import os
import struct
import threading
from typing import NamedTuple

ON_CPU = 1  # BPF_F_TEST_RUN_ON_CPU
CPUS = sorted(os.sched_getaffinity(0))[:2]
HEAD = struct.Struct("QQII")
PATTERN = struct.pack(f"{1 << 14}Q", *range(1 << 14))  # what stands behind the head of a record
PLACES = 16  # of CPUs in the program's maps
MOST_PER_RUN = 64


class Head(NamedTuple):
    """What a record begins with."""

    sequence: int
    time: int
    cpu: int
    size: int


def prepare(obj):
    """Have the records of a loaded object end with PATTERN."""
    for place in range(PLACES):
        obj.maps["scratch"][place] = PATTERN


def produce(obj, count=1, size=HEAD.size, *, cpu=CPUS[0], into="samples"):
    """Have ``count`` records of ``size`` bytes written on that CPU."""
    program = obj.programs[f"to_{into}"]
    for written in range(0, count, MOST_PER_RUN):
        now = min(count - written, MOST_PER_RUN)
        done = program.test_run(ctx=struct.pack("QQ", now, size), flags=ON_CPU, cpu=cpu)
        assert done.retval == now


def head(record):
    return Head(*HEAD.unpack_from(record))


def sequences(records, cpu=None):
    """The sequence numbers of records, or of those from one CPU."""
    heads = [head(record) for record in records]
    return [each.sequence for each in heads if cpu in (None, each.cpu)]


def assert_intact(record, size=None):
    """A record is what the program wrote, and behind it what the kernel aligns it by."""
    if size is None:
        size = head(record).size
    assert 0 <= len(record) - size < 8
    begin = min(size, HEAD.size)
    assert record[begin:size] == PATTERN[begin:size]


def totals(obj):
    """How many records programs wrote or tried to, and how many of them were refused."""
    counts = [obj.maps["counts"][place] for place in range(PLACES)]
    return sum(each.produced for each in counts), sum(each.refused for each in counts)


class Producers:
    """Threads that write records, one for each CPU, until the block ends.

    ``with Producers(obj, count, size):`` has each write ``count`` records at a time.
    """

    def __init__(self, obj, count, size=HEAD.size, *, cpus=CPUS, pause=0.0, **options):
        self.stop = threading.Event()
        self.threads = [
            threading.Thread(target=self.run, args=(obj, count, size, cpu, pause, options))
            for cpu in cpus
        ]

    def run(self, obj, count, size, cpu, pause, options):
        while not self.stop.wait(pause):
            produce(obj, count, size, cpu=cpu, **options)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exception):
        self.stop.set()
        for thread in self.threads:
            thread.join()
