#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""execsnoop: tell of every program that starts on this machine.

    .venv/bin/python examples/execsnoop/main.py [--pid PID] [--exits] [--duration SECONDS]

Needs root (CAP_BPF and CAP_PERFMON) and Linux 5.8.
"""

import argparse
import time
from pathlib import Path

import pybpf

OBJECT = Path(__file__).with_name("execsnoop.bpf.o")
KINDS = {1: "EXEC", 2: "EXIT"}


def main() -> None:
    parser = argparse.ArgumentParser(description="Tell of every program that starts.")
    parser.add_argument("--pid", type=int, default=0, help="watch this process alone")
    parser.add_argument("--exits", action="store_true", help="tell of processes that end, too")
    parser.add_argument("--duration", type=float, help="stop after so many seconds")
    options = parser.parse_args()

    with pybpf.open(OBJECT) as obj:
        obj.rodata.only_pid = options.pid
        obj.rodata.with_exits = options.exits
        obj.load()
        obj.attach()
        print(f"{'EVENT':<6} {'PID':>8} {'PPID':>8} {'CODE':>6} COMM", flush=True)
        end = None if options.duration is None else time.monotonic() + options.duration
        reader = obj.events("events")
        try:
            while end is None or time.monotonic() < end:
                left = None if end is None else end - time.monotonic()
                for event in reader.read_batch(timeout=left):
                    code = event.exit_code >> 8
                    numbers = f"{event.pid:>8} {event.ppid:>8} {code:>6}"
                    print(f"{KINDS[event.kind]:<6} {numbers} {event.comm.text}", flush=True)
        except KeyboardInterrupt:
            pass
        if obj.bss.dropped:
            print(f"{obj.bss.dropped} events were lost: the ring buffer was full")


if __name__ == "__main__":
    main()
