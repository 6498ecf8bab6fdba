# SPDX-License-Identifier: BSD-2-Clause
"""``pybpf unload``: take down what ``pybpf load --pin`` left running."""

from __future__ import annotations

from pybpf.cli.output import DONE
from pybpf.pin_folder import remove

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "unload",
        help="take down what load --pin left running",
        description="Unpin all links, programs and maps below a folder, and remove the folder.",
    )
    parser.add_argument("folder", metavar="DIR")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    removed = remove(options.folder)
    print(f"{options.folder}: {len(removed)} pins removed")
    return DONE
