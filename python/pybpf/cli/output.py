# SPDX-License-Identifier: BSD-2-Clause
"""What all commands share in printing: tables, errors and exit statuses."""

from __future__ import annotations

import sys

from pybpf.errors import Error, KernelError, LoadError, PrivilegeError, VerifierError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TextIO

DONE, REFUSED, USAGE, NO_PRIVILEGE, INTERRUPTED, UNREAD = 0, 1, 2, 3, 130, 141


class UsageError(Exception):
    """The command line asks for something that cannot be: exit status 2."""


def status_of(error: Error) -> int:
    return NO_PRIVILEGE if isinstance(error, PrivilegeError) else REFUSED


def report_error(error: Error, path: str | None = None, verbose: bool = False) -> None:
    """The error in one screen on stderr; with ``verbose`` everything libbpf and the kernel said."""
    where = f"{path}: " if path and path not in str(error) else ""
    print(f"pybpf: {where}{error}", file=sys.stderr)
    if verbose and isinstance(error, KernelError) and error.log:
        print(error.log, file=sys.stderr, end="")


def error_json(error: Error) -> dict[str, Any]:
    """The error as ``load --json`` shows it; what does not apply is null."""
    kernel = error if isinstance(error, KernelError) else None
    load = error if isinstance(error, LoadError) else None
    log = error.verifier_log if isinstance(error, VerifierError) else kernel.log if kernel else ""
    return {
        "type": type(error).__name__,
        "stage": load.stage if load else None,
        "errno": kernel.errno if kernel else None,
        "program": load.program if load else None,
        "message": str(error),
        "log": log,
    }


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], file: TextIO | None = None
) -> None:
    """A table on ``file``, unless given stdout: by rich where installed (the extra ``cli``)."""
    file = file or sys.stdout
    texts = [[str(cell) for cell in row] for row in rows]
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
        for row in (columns, *texts):
            print("  ".join(map(str.ljust, row, widths)).rstrip(), file=file)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in texts:
        table.add_row(*row)
    # into a pipe, lines keep their length
    width = None if file.isatty() else 200
    Console(file=file, width=width, highlight=False, markup=False).print(table)
