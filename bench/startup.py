#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""From process start to attached: pybpf against C with the system's libbpf, on bench/small.bpf.o.

    .venv/bin/python bench/startup.py [--rounds N]

Needs root, gcc, libbpf's headers (libbpf-dev) and `build.py bpf`. In every round each client starts
once; ratios are taken within a round, and medians shown. tracefs is mounted for the C client's
sake, in a mount namespace of its own.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
OBJECT = HERE / "small.bpf.o"
BARE = "import sys; print('ready', flush=True); sys.stdin.read()"


def start(command):
    """Milliseconds until the client says "ready", and its peak memory then, in MiB."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    begun = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as client:
        if client.stdout.readline() != b"ready\n":
            sys.exit(f"{command[0]} did not get ready")
        elapsed = (time.perf_counter() - begun) * 1e3
        status = Path(f"/proc/{client.pid}/status").read_text()
        client.stdin.close()
    return elapsed, int(re.search(r"VmHWM:\s*(\d+)", status)[1]) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--in-namespace", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.in_namespace:
        mount = 'mount -t tracefs t /sys/kernel/tracing 2>/dev/null; exec "$@"'
        again = [sys.executable, *sys.argv, "--in-namespace"]
        os.execvp("unshare", ["unshare", "-m", "sh", "-c", mount, "sh", *again])
    with tempfile.TemporaryDirectory() as folder:
        compiled = f"{folder}/startup"
        subprocess.run(["gcc", "-O2", "-o", compiled, HERE / "startup.c", "-lbpf"], check=True)
        clients = {
            "C, libbpf": [compiled, OBJECT],
            "Python, pybpf": [sys.executable, HERE / "client.py", HERE, "--startup"],
            "python -c": [sys.executable, "-c", BARE],
        }
        for command in clients.values():
            start(command)  # into the page cache, and bytecode
        found = {name: [] for name in clients}
        for _ in range(options.rounds):
            for name, command in clients.items():
                found[name].append(start(command))
    base = [wall for wall, _ in found["C, libbpf"]]
    print(f"{'client':<14} {'wall ms':>8} {'ratio':>6} {'peak RSS MiB':>13}")
    for name, runs in found.items():
        walls = [wall for wall, _ in runs]
        ratio = statistics.median(wall / c for wall, c in zip(walls, base, strict=True))
        memory = statistics.median(rss for _, rss in runs)
        print(f"{name:<14} {statistics.median(walls):>8.1f} {ratio:>6.2f} {memory:>13.1f}")


if __name__ == "__main__":
    main()
