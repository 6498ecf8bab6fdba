# SPDX-License-Identifier: BSD-2-Clause
"""``pybpf reload``: a newer object in the place of what ``pybpf load --pin`` left running."""

from __future__ import annotations

import dataclasses

import pybpf
from pybpf.cli import things
from pybpf.cli.output import DONE, print_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "reload",
        help="put a newer object in the place of a running one, without a gap",
        description="Load an object, take over the maps that load --pin left below a folder where "
        "they are laid out alike, and switch its links: all of it or nothing. Killed meanwhile, it "
        "leaves the old program or the new one on each hook. Needs root.",
    )
    parser.add_argument("folder", metavar="DIR", help="that load --pin made")
    parser.add_argument("file", metavar="FILE", help="the newer .bpf.o")
    parser.add_argument(
        "--drop",
        action="append",
        default=[],
        metavar="MAP",
        help="begin with this map anew, whatever is in the old one (may be repeated)",
    )
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    dropped = dict.fromkeys(options.drop)
    reloaded = pybpf.reload_pinned(options.folder, options.file, maps=dropped)
    reloaded.object.close()
    maps = dataclasses.asdict(reloaded.maps)
    if options.json:
        links = [dataclasses.asdict(each) for each in reloaded.links]
        things.print_json({"links": links, "maps": maps})
        return DONE
    rows = [("program", each.program, each.how, each.what) for each in reloaded.links]
    rows += [("map", name, how, "") for how, names in maps.items() for name in names]
    print_table(("", "NAME", "WHAT BECAME OF IT", "WHERE"), rows)
    return DONE
