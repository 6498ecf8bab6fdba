# SPDX-License-Identifier: BSD-2-Clause
"""The command line: ``pybpf load | events | reload | ... | prog | map | link | vm``.

Arguments and printing only; whatever a command does, the library's users can call.

Exit status: 0 done, 1 the kernel or the object refused or records did not fit their type, 2 wrong
usage, 3 lacking privilege; and as of a process that a signal ended: 129 its terminal is gone, 130
interrupted, 141 nobody reads the output, 143 terminated.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings

import pybpf
from pybpf.cli import events, inspect, links, load, maps, net, programs, reload, unload, vm
from pybpf.cli.output import (
    REFUSED,
    UNREAD,
    USAGE,
    UsageError,
    report_error,
    status_of,
)
from pybpf.cli.signals import raise_when_stopped, status_of_interrupt
from pybpf.errors import Error

EXIT_STATUS = (
    "exit status: 0 done, 1 the kernel or the object refused or events did not fit their type, "
    "2 wrong usage, 3 lacking privilege, 129 hung up, 130 interrupted, 141 nobody reads the "
    "output, 143 terminated"
)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pybpf",
        description="Load and look at precompiled CO-RE BPF objects.",
        epilog=EXIT_STATUS,
    )
    version = f"pybpf {pybpf.__version__}, libbpf {'.'.join(map(str, pybpf.libbpf_version()))}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (load, events, reload, unload, inspect, programs, maps, links, net, vm):
        module.add_parser(commands)
    return parser


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Warnings are about the user's objects, not about a line of this program."""
    print(f"pybpf: warning: {message}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit status."""
    options = make_parser().parse_args(arguments)
    warnings.showwarning = show_warning
    if sys.stdout is None:
        print("pybpf: stdout is closed", file=sys.stderr)
        return USAGE
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names of files
    try:
        raise_when_stopped()
        status: int = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        return status_of_interrupt(interrupt)
    except UsageError as error:
        print(f"pybpf: {error}", file=sys.stderr)
        return USAGE
    except Error as error:
        report_error(error)
        return status_of(error)
    except OSError as error:
        # nobody reads our output, or nothing takes it; Python must not trip over that at exit again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return UNREAD
        print(f"pybpf: writing the output: {error}", file=sys.stderr)
        return REFUSED
    return status
