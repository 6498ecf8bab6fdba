# SPDX-License-Identifier: BSD-2-Clause
"""Opening a damaged object succeeds or raises pybpf.Error: no crash, no hang, no leak.

The objects are damaged and opened in a child process, because a crash takes its process along.
The child notes the number (seed) of each mutant before it opens it, so that the parent knows
which one was the last; it saves that, and another child goes on with the next object.

PYBPF_FUZZ_ROUNDS says how many mutants to try in all, PYBPF_FUZZ_SEED where to start.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from mutate import Mutator
from pybpf import elf

ROUNDS = int(os.environ.get("PYBPF_FUZZ_ROUNDS", "2000"))
FIRST_SEED = int(os.environ.get("PYBPF_FUZZ_SEED", "0"))
HANG_SECONDS = 10
# a lying size must not take the machine's memory before somebody notices
MEMORY_LIMIT = 4 << 30


def test_undamaged_objects_pass_the_check(bpf_objects: list[Path]) -> None:
    for path in bpf_objects:
        elf.check_object(path.read_bytes(), str(path), foreign=True)


def test_open_survives_damage(bpf_objects: list[Path], tmp_path: Path) -> None:
    failures = []
    count = max(1, ROUNDS // len(bpf_objects))
    left = list(bpf_objects)
    while left:
        first = FIRST_SEED + (len(bpf_objects) - len(left)) * count
        progress = tmp_path / f"{len(left)}.progress"
        problem, stderr = _run_child(left, first, count, progress)
        if not problem:
            break
        seed = int(progress.read_bytes() or first)
        done = (seed - first) // count
        path = left[done]
        del left[: done + 1]
        mutant = tmp_path / f"{path.name}.{seed}.o"
        mutant.write_bytes(Mutator(path.read_bytes()).mutate(seed))
        failures.append(f"{path} seed {seed}: {problem}\nreproducer: {mutant}\n{stderr}")
    if failures:
        pytest.fail("\n\n".join(failures), pytrace=False)


def _run_child(paths: list[Path], first: int, count: int, progress: Path) -> tuple[str, str]:
    """Return what went wrong, empty if nothing, and what the child last wrote to stderr."""
    errors = progress.with_suffix(".stderr")
    progress.touch()
    command = [sys.executable, "-X", "faulthandler", __file__]
    command += [str(first), str(count), str(progress), *map(str, paths)]
    with errors.open("wb") as stderr, subprocess.Popen(command, stderr=stderr) as child:
        seen = b""
        while True:
            try:
                status = child.wait(HANG_SECONDS)
                break
            except subprocess.TimeoutExpired:
                now = progress.read_bytes()
                if now == seen:
                    child.kill()
                    return f"hung for {HANG_SECONDS} s", _end_of(errors)
                seen = now
    if status < 0:
        problem = f"killed by signal {-status}"
    else:
        problem = f"exit status {status}" if status else ""
    return problem, _end_of(errors)


def _end_of(errors: Path) -> str:
    """The traceback; before it, libbpf complains about mutants that it refused."""
    return "\n".join(errors.read_text(errors="replace").splitlines()[-30:])


def _child(first: int, count: int, progress_path: str, paths: list[str]) -> None:
    """Try ``count`` mutants of each object; their seeds go on from one object to the next."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    with open(progress_path, "r+b", buffering=0) as progress:
        for number, path in enumerate(paths):
            _try_mutants(Path(path).read_bytes(), first + number * count, count, progress.fileno())


def _try_mutants(data: bytes, first: int, count: int, progress: int) -> None:
    mutator = Mutator(data)
    os.pwrite(progress, b"%20d" % first, 0)
    _open_and_close(data)  # whatever stays open from now on is a leak
    expected = os.listdir("/proc/self/fd")
    for seed in range(first, first + count):
        os.pwrite(progress, b"%20d" % seed, 0)
        _open_and_close(mutator.mutate(seed))
        found = os.listdir("/proc/self/fd")
        if found != expected:
            raise AssertionError(f"file descriptors before: {expected}, after: {found}")


def _open_and_close(data: bytes) -> None:
    import pybpf

    try:
        pybpf.open(data).close()
    except pybpf.Error:
        pass


if __name__ == "__main__":
    _child(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
