# SPDX-License-Identifier: BSD-2-Clause
"""What all commands share in printing: tables, errors, values and exit statuses."""

from __future__ import annotations

import sys

from pybpf.errors import Error, KernelError, LoadError, PrivilegeError, VerifierError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pybpf.btf import Type

DONE, REFUSED, USAGE, NO_PRIVILEGE, INTERRUPTED = 0, 1, 2, 3, 130

_HEX_BYTES = 64


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


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on stdout: by rich where installed (the extra ``cli``), else in plain columns."""
    texts = [[str(cell) for cell in row] for row in rows]
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
        for row in (columns, *texts):
            print("  ".join(map(str.ljust, row, widths)).rstrip())
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in texts:
        table.add_row(*row)
    # into a pipe, lines keep their length
    width = None if sys.stdout.isatty() else 200
    Console(width=width, highlight=False, markup=False).print(table)


def plain(value: Any) -> Any:
    """A record as JSON can hold it: structs as objects, text as text, bytes as hex digits."""
    if hasattr(value, "asdict"):
        return plain(value.asdict())
    if hasattr(value, "text"):
        return value.text
    if isinstance(value, dict):
        return {name: plain(member) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return bytes(value).hex() if isinstance(value, (bytes, bytearray)) else value


def record_text(value: Any, btf_type: Type | None) -> str:
    """A record in one line: ``name=value`` for a struct, the first bytes in hex where untyped."""
    if hasattr(value, "text"):
        return str(value.text)
    if isinstance(value, (bytes, bytearray)):
        more = f" ... ({len(value)} bytes)" if len(value) > _HEX_BYTES else ""
        return bytes(value[:_HEX_BYTES]).hex(" ", 4) + more
    if not hasattr(value, "asdict"):
        return str(value)
    names = _enumerators(btf_type)
    members = plain(value)
    return " ".join(
        f"{name}={names[name].get(member, member) if name in names else member}"
        for name, member in members.items()
    )


def _enumerators(btf_type: Type | None) -> dict[str, dict[int, str]]:
    """For each member of a struct that is an enum: the names of its values."""
    from pybpf.btf import Composite, Enum

    struct = btf_type.resolve() if btf_type is not None else None
    if not isinstance(struct, Composite):
        return {}
    enums = {member.name: member.type.resolve() for member in struct.members}
    return {
        name: {number: word for word, number in enum.values.items()}
        for name, enum in enums.items()
        if isinstance(enum, Enum)
    }
