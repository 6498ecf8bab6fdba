# SPDX-License-Identifier: BSD-2-Clause
"""``pybpf vm``: commands under other kernels."""

from __future__ import annotations

import json
import sys

from pybpf.cli.output import DONE, print_table
from pybpf.errors import GuestError, GuestTimeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

TIMED_OUT, NO_GUEST = 124, 125
QEMU = "qemu"
_EXIT_STATUS = "exit status: the command's own; 124 timed out, 125 the guest could not run or died"


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "vm",
        help="run commands under other kernels",
        description="Run commands under Debian's kernels, in QEMU, on top of this machine's files.",
    )
    parts = parser.add_subparsers(dest="part", required=True, metavar="COMMAND")
    add_fetch(parts)
    add_run(parts)
    add_list(parts)


def add_fetch(parts: Any) -> None:
    parser = parts.add_parser(
        "fetch",
        help="download kernels into the cache",
        description="Download kernels into the cache, by apt's own client from where the machine's "
        "packages come from. Nothing is installed, and no privilege is needed.",
    )
    parser.add_argument(
        "names",
        nargs="+",
        metavar="KERNEL",
        help="the first two numbers of a release, as 6.12; "
        f"{QEMU}: a newer QEMU than Debian 12 has, twice as fast",
    )
    add_architecture(parser)
    parser.set_defaults(run=run_fetch)


def add_architecture(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--arch",
        choices=("amd64", "arm64"),
        help="another than this machine's; a guest then has a small root of its own, with Python, "
        "and this folder",
    )


def add_run(parts: Any) -> None:
    parser = parts.add_parser(
        "run",
        help="run one command under a kernel",
        description="Start a guest, run one command in it as root, in this folder, and end it. It "
        "reads nothing; what it prints is shown as it comes. What it writes is lost, but in the "
        "folders given with --rw.",
        epilog=_EXIT_STATUS,
    )
    parser.add_argument("-k", "--kernel", required=True, help="as 6.12; fetched if it was not")
    parser.add_argument(
        "--rw", action="append", default=[], metavar="DIR", help="what is written there stays"
    )
    add_architecture(parser)
    parser.add_argument("--timeout", type=float, metavar="S", help="end the guest after S seconds")
    parser.add_argument("command_line", nargs="+", metavar="COMMAND")
    parser.set_defaults(run=run_command)


def add_list(parts: Any) -> None:
    parser = parts.add_parser("list", help="show the kernels in the cache")
    parser.add_argument("--json", action="store_true", help="as a list of JSON objects")
    parser.set_defaults(run=run_list)


def run_fetch(options: argparse.Namespace) -> int:
    from pybpf import vm

    for name in options.names:
        if name == QEMU:
            vm.update_qemu()
        else:
            print(f"{name}: {vm.fetch(name, options.arch).release}", flush=True)
    return DONE


def run_command(options: argparse.Namespace) -> int:
    from pybpf import vm

    try:
        guest = vm.Guest(options.kernel, architecture=options.arch, writable=options.rw)
        return guest.run(options.command_line, timeout=options.timeout)
    except GuestError as error:
        print(f"pybpf: {error}", file=sys.stderr)
        return TIMED_OUT if isinstance(error, GuestTimeout) else NO_GUEST


def run_list(options: argparse.Namespace) -> int:
    from pybpf import vm

    rows = [
        {
            "kernel": kernel.name,
            "release": kernel.release,
            "architecture": kernel.architecture,
            "folder": str(kernel.folder),
        }
        for kernel in vm.fetched()
    ]
    if options.json:
        print(json.dumps(rows))
    elif rows:
        print_table(list(rows[0]), [list(row.values()) for row in rows])
    return DONE
