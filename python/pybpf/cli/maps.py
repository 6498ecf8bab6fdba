# SPDX-License-Identifier: BSD-2-Clause
"""``pybpf map``: the kernel's maps and what is in them, typed by their BTF."""

from __future__ import annotations

import contextlib
import json

import pybpf
from pybpf import words
from pybpf.cli import things
from pybpf.cli.output import DONE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any

_KEY = "as JSON: 5, '[1, 2]', '{\"pid\": 1}'; text for what is text"


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("map", help="the kernel's maps, and what is in them")
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    listing = actions.add_parser("list", help="all maps, and who holds them")
    listing.add_argument("--json", action="store_true")
    listing.set_defaults(run=list_all)

    def add_action(name: str, run: Any, help: str, *arguments: tuple[str, str]) -> Any:
        action = actions.add_parser(name, help=help)
        action.add_argument("map", metavar="MAP", help=things.THING)
        for argument, meaning in arguments:
            action.add_argument(argument.lower(), metavar=argument, help=meaning)
        action.set_defaults(run=run)
        return action

    key, value = ("KEY", _KEY), ("VALUE", "as KEY")
    add_action("pin", pin_one, "give one a name on a bpffs", ("PATH", "on a bpffs"))
    add_action("update", update, "set an entry", key, value)
    add_action("delete", delete, "remove an entry", key)
    for action in (
        add_action("show", show_one, "all that the kernel tells of one"),
        add_action("dump", dump, "all entries"),
        add_action("lookup", lookup, "one entry's value", key),
    ):
        action.add_argument("--json", action="store_true")


def list_all(options: argparse.Namespace) -> int:
    owners = pybpf.owners().maps
    infos = list(pybpf.maps())
    if options.json:
        things.print_json([things.as_json(each, owners) for each in infos])
        return DONE
    things.print_things(
        ("ID", "TYPE", "NAME", "KEY", "VALUE", "ENTRIES", "MEMORY", "HELD BY"),
        (
            (
                each.id,
                words.map_type(each.type) or each.type.name,
                each.name,
                each.key_size,
                each.value_size,
                each.max_entries,
                each.memory,
                things.owner_names(each.id, owners),
            )
            for each in infos
        ),
    )
    return DONE


def open_map(options: argparse.Namespace) -> Any:
    return things.open_thing(pybpf.Map, options.map, pybpf.maps)


def show_one(options: argparse.Namespace) -> int:
    with open_map(options) as found:
        info = found.info()
        types = {"key_type": found.key_type, "value_type": found.value_type}
    fields = things.as_json(info, pybpf.owners().maps)
    fields |= {name: str(type) if type is not None else None for name, type in types.items()}
    if options.json:
        things.print_json(fields)
    else:
        things.print_fields(fields)
    return DONE


def pin_one(options: argparse.Namespace) -> int:
    with open_map(options) as found:
        found.pin(options.path)
    return DONE


def dump(options: argparse.Namespace) -> int:
    with open_map(options) as found:
        entries = ((things.plain(key), things.plain(value)) for key, value in found.items())
        if options.json:
            things.print_json([{"key": key, "value": value} for key, value in entries])
        else:
            for key, value in entries:
                print(f"{json.dumps(key)}: {json.dumps(value)}")
    return DONE


def lookup(options: argparse.Namespace) -> int:
    with open_map(options) as found, naming_missing(found, options.key):
        value = things.plain(found[parse_key(options.key)])
    print(json.dumps(value, indent=2 if options.json else None))
    return DONE


@contextlib.contextmanager
def naming_missing(found: Any, key: str) -> Iterator[None]:
    """An error that says what is missing, for a plain KeyError."""
    try:
        yield
    except KeyError:
        raise pybpf.Error(f"map {found.name!r} has no entry {key}") from None


def parse_key(text: str) -> Any:
    """As parse_plain(), but a list gives the members of a struct, as tuples do."""
    key = things.parse_plain(text)
    return tuple(key) if isinstance(key, list) else key


def update(options: argparse.Namespace) -> int:
    with open_map(options) as found:
        found[parse_key(options.key)] = things.parse_plain(options.value)
    return DONE


def delete(options: argparse.Namespace) -> int:
    with open_map(options) as found, naming_missing(found, options.key):
        del found[parse_key(options.key)]
    return DONE
