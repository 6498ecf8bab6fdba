# SPDX-License-Identifier: BSD-2-Clause
"""Open, load and close an object again and again; print what a thousand rounds cost in memory.

    rounds.py OBJECT ROUNDS [attach]      prints {"fds": grown by, "kib": grown by}

A process of its own, because a test runner's memory moves by itself.
"""

from __future__ import annotations

import gc
import json
import os
import sys

import pybpf


def round_trip(path: str, attach: bool) -> None:
    with pybpf.load(path) as obj:
        if attach:
            obj.attach()
            with obj.events("readings") as reader:
                obj.programs["run_all"].test_run(ctx=(3).to_bytes(4, "little"))
                assert len(reader.read_batch(timeout=1)) == 3


def resident_kib() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def main() -> None:
    path, rounds, attach = sys.argv[1], int(sys.argv[2]), "attach" in sys.argv
    for _ in range(rounds // 5):  # until the allocator has settled
        round_trip(path, attach)
    gc.collect()
    fds, kib = len(os.listdir("/proc/self/fd")), resident_kib()
    for _ in range(rounds):
        round_trip(path, attach)
    gc.collect()
    grown = {"fds": len(os.listdir("/proc/self/fd")) - fds, "kib": resident_kib() - kib}
    print(json.dumps(grown))


if __name__ == "__main__":
    main()
