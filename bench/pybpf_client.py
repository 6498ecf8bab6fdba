# SPDX-License-Identifier: BSD-2-Clause
"""pybpf as a client of the peer benchmark: see README.md in this folder for the protocol.

client.py BUILD_FOLDER --list | --startup | -
"""

import sys

import pybpf

# other imports are late: the start of a process is measured too


def load_small(folder):
    """Open, load, attach and destroy the small object once; the five times between the steps."""
    import time

    times = [time.perf_counter()]
    obj = pybpf.open(f"{folder}/small.bpf.o")
    times.append(time.perf_counter())
    obj.load()
    times.append(time.perf_counter())
    obj.attach()
    times.append(time.perf_counter())
    obj.close()
    times.append(time.perf_counter())
    return times


def run_load_small(folder, seconds):
    import statistics
    import time

    rounds, start = [], time.perf_counter()
    while not rounds or time.perf_counter() - start < 2 * seconds:
        rounds.append(load_small(folder))
    phases = {
        phase: statistics.median((r[i + 1] - r[i]) * 1e3 for r in rounds)
        for i, phase in enumerate(("open", "load", "attach", "destroy"))
    }
    rate = 1 / statistics.median(r[3] - r[0] for r in rounds)
    return {"workload": "load_small", "ops_per_s": rate, "ms": phases}


def startup(folder):
    with pybpf.open(f"{folder}/small.bpf.o") as obj:
        obj.load()
        obj.attach()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.read()


def main():
    folder, what = sys.argv[1:3]
    if what == "--list":
        print("load_small")
    elif what == "--startup":
        startup(folder)
    else:
        import json
        import os

        seconds = float(os.environ.get("BENCH_SECS", "0.06"))
        for line in sys.stdin:
            name = line.strip()
            known = name == "load_small"
            answer = (
                run_load_small(folder, seconds) if known else {"workload": name, "error": "unknown"}
            )
            print(json.dumps(answer), flush=True)
