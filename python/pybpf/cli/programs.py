# SPDX-License-Identifier: BSD-2-Clause
"""``pybpf prog``: the programs that the kernel holds."""

from __future__ import annotations

import pybpf
from pybpf import words
from pybpf.cli import things
from pybpf.cli.output import DONE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("prog", help="list, show and pin the kernel's programs")
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    listing = actions.add_parser("list", help="all programs, and who holds them")
    listing.add_argument("--json", action="store_true")
    listing.set_defaults(run=list_all)

    show = actions.add_parser("show", help="all that the kernel tells of one")
    show.add_argument("program", metavar="PROGRAM", help=things.THING)
    show.add_argument("--json", action="store_true")
    show.set_defaults(run=show_one)

    pin = actions.add_parser("pin", help="give one a name on a bpffs")
    pin.add_argument("program", metavar="PROGRAM", help=things.THING)
    pin.add_argument("path", metavar="PATH", help="on a bpffs")
    pin.set_defaults(run=pin_one)


def list_all(options: argparse.Namespace) -> int:
    owners = pybpf.owners().programs
    infos = list(pybpf.programs())
    if options.json:
        things.print_json([things.as_json(each, owners) for each in infos])
        return DONE
    things.print_things(
        ("ID", "TYPE", "NAME", "LOADED", "INSTRUCTIONS", "MEMORY", "RUNS", "HELD BY"),
        (
            (
                each.id,
                words.program_type(each.type) or each.type.name,
                each.name,
                f"{each.loaded_at:%Y-%m-%d %H:%M:%S}",
                each.xlated_size // 8,
                each.memory,
                each.run_cnt,
                things.owner_names(each.id, owners),
            )
            for each in infos
        ),
    )
    return DONE


def show_one(options: argparse.Namespace) -> int:
    with things.open_thing(pybpf.Program, options.program, pybpf.programs) as program:
        info = program.info()
    fields = things.as_json(info, pybpf.owners().programs)
    if options.json:
        things.print_json(fields)
    else:
        things.print_fields({**fields, "loaded": f"{info.loaded_at:%Y-%m-%d %H:%M:%S}"})
    return DONE


def pin_one(options: argparse.Namespace) -> int:
    with things.open_thing(pybpf.Program, options.program, pybpf.programs) as program:
        program.pin(options.path)
    return DONE
