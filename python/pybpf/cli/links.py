# SPDX-License-Identifier: BSD-2-Clause
"""``pybpf link``: what is attached by links."""

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
    parser = commands.add_parser("link", help="list, show, pin and detach the kernel's links")
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    listing = actions.add_parser("list", help="all links: what is attached where, and who holds it")
    listing.add_argument("--json", action="store_true")
    listing.set_defaults(run=list_all)

    show = actions.add_parser("show", help="all that the kernel tells of one")
    show.add_argument("link", metavar="LINK", help=THING)
    show.add_argument("--json", action="store_true")
    show.set_defaults(run=show_one)

    pin = actions.add_parser("pin", help="give one a name on a bpffs, so that it stays attached")
    pin.add_argument("link", metavar="LINK", help=THING)
    pin.add_argument("path", metavar="PATH", help="on a bpffs")
    pin.set_defaults(run=pin_one)

    detach = actions.add_parser("detach", help="end one, whoever holds it")
    detach.add_argument("link", metavar="LINK", help=THING)
    detach.set_defaults(run=detach_one)


THING = "its id, or the path of its pin"


def list_all(options: argparse.Namespace) -> int:
    owners = pybpf.owners().links
    infos = list(pybpf.links())
    if options.json:
        things.print_json([{**things.as_json(each, owners), "where": each.where} for each in infos])
        return DONE
    names = {each.id: each.name for each in pybpf.programs()}
    things.print_things(
        ("ID", "TYPE", "PROGRAM", "ATTACHED TO", "HELD BY"),
        (
            (
                each.id,
                words.link_type(each.type) or each.type.name,
                f"{each.program_id} {names.get(each.program_id, '')}" if each.program_id else "",
                each.where,
                things.owner_names(each.id, owners),
            )
            for each in infos
        ),
    )
    return DONE


def show_one(options: argparse.Namespace) -> int:
    with things.open_thing(pybpf.Link, options.link, pybpf.links) as link:
        info = link.info()
    fields = {**things.as_json(info, pybpf.owners().links), "where": info.where}
    if options.json:
        things.print_json(fields)
    else:
        things.print_fields(fields)
    return DONE


def pin_one(options: argparse.Namespace) -> int:
    with things.open_thing(pybpf.Link, options.link, pybpf.links) as link:
        link.pin(options.path)
    return DONE


def detach_one(options: argparse.Namespace) -> int:
    with things.open_thing(pybpf.Link, options.link, pybpf.links) as link:
        link.detach()
    return DONE
