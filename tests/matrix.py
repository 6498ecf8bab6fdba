# SPDX-License-Identifier: BSD-2-Clause
"""The tests on this machine's kernel and, those that depend on it, on others in guests: one table.

    python tests/matrix.py KERNEL,KERNEL,... [PYTEST ARGUMENTS]

``build.py test --kernels`` runs it. A guest runs all of tests/kernel that is not marked ``native``,
in one start. A skip that tests/features.py does not explain fails there as here. Exit status 0 if
nothing failed anywhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pybpf import GuestError, vm

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / ".build/test-results"
PYTEST = [sys.executable, "-m", "pytest"]
IN_GUESTS = [
    *("-q", "--no-header", "--tb=short", "-rfE", "-p", "no:cacheprovider"),
    *("-m", "not native", "-o", "testpaths=tests/kernel"),
]
# plugins take seconds to find there, and none is used
ENVIRONMENT = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYBPF_KERNEL_TESTS": "required"}
GUEST_SECONDS = 900


@dataclass
class Result:
    """What came of the kernel tests on one kernel."""

    kernel: str
    status: int
    seconds: float
    passed: int = 0
    # in their order; one that fails in its teardown too is reported twice
    failed: dict[str, None] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)

    def read(self, report: Path) -> None:
        """Take the outcomes from pytest's report in JUnit's XML, if it came to write one."""
        if not report.exists():
            return
        for case in ElementTree.parse(report).iter("testcase"):
            if not case.get("classname", "").startswith("tests.kernel."):
                continue
            outcomes = {outcome.tag: outcome for outcome in case}
            if "failure" in outcomes or "error" in outcomes:
                self.failed[f"{case.get('classname')}::{case.get('name')}"] = None
            elif "skipped" in outcomes:
                self.skipped[outcomes["skipped"].get("message", "")] += 1
            else:
                self.passed += 1


def main() -> int:
    names, arguments = sys.argv[1].split(","), sys.argv[2:]
    RESULTS.mkdir(parents=True, exist_ok=True)
    try:
        vm.update_qemu()
        guests = [prepared(name) for name in names]
    except GuestError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    results = [run_here(arguments)]
    for guest in guests:
        results.append(run_in(guest, arguments))
    print_table(results)
    return int(any(result.status for result in results))


def prepared(name: str) -> vm.Guest:
    """A guest with that kernel; what it needs is fetched now, so that a failure comes early."""
    if name not in [kernel.name for kernel in vm.fetched()]:
        print(f"==> fetching Linux {name}", flush=True)
    return vm.Guest(name, writable=[RESULTS])


def run_here(arguments: list[str]) -> Result:
    """All tests on the running kernel."""
    report = fresh_report("here")
    started = time.monotonic()
    status = subprocess.call(
        [*PYTEST, f"--junit-xml={report}", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYBPF_VM_TESTS": "required"},
    )
    result = Result(f"{os.uname().release} (here)", status, time.monotonic() - started)
    result.read(report)
    return result


def run_in(guest: vm.Guest, arguments: list[str]) -> Result:
    """The kernel tests in a guest."""
    kernel = guest.kernel
    print(f"==> running the kernel tests on Linux {kernel.release}", flush=True)
    report = fresh_report(kernel.name)
    started = time.monotonic()
    try:
        status = guest.run(
            [*PYTEST, *IN_GUESTS, f"--junit-xml={report}", *arguments],
            environment={**ENVIRONMENT, "PYBPF_TEST_GUEST": kernel.name},
            timeout=GUEST_SECONDS,
        )
    except GuestError as error:
        print(error, file=sys.stderr)
        status = 1
    result = Result(kernel.release, status, time.monotonic() - started)
    result.read(report)
    return result


def fresh_report(name: str) -> Path:
    report = RESULTS / f"{name}.xml"
    report.unlink(missing_ok=True)
    return report


def print_table(results: list[Result]) -> None:
    rows = [("kernel", "passed", "failed", "skipped", "seconds")]
    for result in results:
        counts = (result.passed, len(result.failed), result.skipped.total(), round(result.seconds))
        rows.append((result.kernel, *map(str, counts)))
    width = max(len(row[0]) for row in rows)
    print("\n==> the kernel tests")
    for name, *numbers in rows:
        print(f"{name:{width}}" + "".join(f"{number:>9}" for number in numbers))
    for result in results:
        for reason, count in sorted(result.skipped.items()):
            print(f"{result.kernel}: {count} skipped: {reason}")
    for result in results:
        for name in result.failed:
            print(f"FAILED on {result.kernel}: {name}")
        if result.status and not result.failed:
            print(f"FAILED on {result.kernel}: exit status {result.status}, see above")


if __name__ == "__main__":
    sys.exit(main())
