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


def answer(workloads, folder, name, seconds):
    """What one run of a workload gives, as the protocol wants it."""
    try:
        if name == "load_small":
            return run_load_small(folder, seconds)
        if name not in workloads:
            return {"workload": name, "error": "unknown"}
        return {"workload": name, "ops_per_s": workloads[name].rate(seconds)}
    except Exception as error:  # the driver shows it and goes on
        return {"workload": name, "error": f"{type(error).__name__}: {error}"}


def main():
    folder, what = sys.argv[1:3]
    if what == "--startup":
        startup(folder)
        return
    import workloads

    if what == "--list":
        print("load_small", *workloads.names(), sep="\n")
        return
    import json
    import os

    seconds = float(os.environ.get("BENCH_SECS", "0.06"))
    with workloads.prepared(folder) as found:
        for line in sys.stdin:
            print(json.dumps(answer(found, folder, line.strip(), seconds)), flush=True)
