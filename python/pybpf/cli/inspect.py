# SPDX-License-Identifier: BSD-2-Clause
"""``pybpf inspect``: what an object holds, without loading it and without any privilege."""

from __future__ import annotations

import json
import warnings

import pybpf
from pybpf import words
from pybpf.cli.output import DONE, REFUSED, print_table, report_error
from pybpf.hazards import padded_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from pybpf import Object


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "inspect",
        help="say what objects hold, without loading them",
        description="Say what objects hold, without any privilege and without loading them.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--json", action="store_true", help="one JSON object per file and line")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    status = DONE
    for path in options.files:
        try:
            with opened(path) as obj:
                if options.json:
                    print(json.dumps(describe(path, obj)), flush=True)
                else:
                    show(path, obj)
        except pybpf.Error as error:
            status = REFUSED
            if options.json:
                failure = {"type": type(error).__name__, "message": str(error)}
                print(json.dumps({"object": path, "error": failure}), flush=True)
            else:
                report_error(error, path)
    return status


def opened(path: str) -> Object:
    """The object without the warnings of opening one: what they say is shown as part of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pybpf.LayoutWarning)
        return pybpf.open(path)


def describe(path: str, obj: Object) -> dict[str, Any]:
    """An opened object as JSON; ``type`` in libbpf's words, ``*_id`` the kernel's numbers.

    ``key_padding`` is what a hash's key has of it, in bytes.
    """
    padding = {padded.map.name: padded.holes for padded in padded_keys(obj)}
    return {
        "object": path,
        "license": obj.license,
        "endianness": obj.byte_order,
        "programs": [
            {
                "name": program.name,
                "section": program.section,
                "type": words.program_type(program.type),
                "type_id": int(program.type),
                "attach_type": words.attach_type(program.expected_attach_type),
                "attach_type_id": int(program.expected_attach_type),
                "insns": program.insn_count,
                "autoload": program.autoload,
            }
            for program in obj.programs.values()
        ],
        "maps": [
            {
                "name": bpf_map.name,
                "type": words.map_type(bpf_map.type),
                "type_id": int(bpf_map.type),
                "key_size": bpf_map.key_size,
                "value_size": bpf_map.value_size,
                "max_entries": bpf_map.max_entries,
                "flags": int(bpf_map.flags),
                "pinning": int(bpf_map.pin_path is not None),
                "key_padding": [
                    {"offset": hole.offset, "size": hole.size, "after": hole.after, "fix": hole.fix}
                    for hole in padding.get(bpf_map.name, ())
                ],
            }
            for bpf_map in obj.maps.values()
        ],
        "variables": [
            {
                "name": name,
                "section": variable.section.name,
                "type": str(variable.type),
                "size": variable.size,
            }
            for name, variable in obj.variables.items()
        ],
    }


def show(path: str, obj: Object) -> None:
    found = describe(path, obj)
    print(f"{path}: {found['endianness']}-endian, license {found['license'] or 'none'}")
    programs = {
        "program": "name",
        "section": "section",
        "type": "type",
        "insns": "insns",
        "autoload": "autoload",
    }
    show_rows(programs, found["programs"])
    maps = {
        "map": "name",
        "type": "type",
        "key": "key_size",
        "value": "value_size",
        "entries": "max_entries",
        "flags": "flags",
        "pinned by name": "pinning",
    }
    show_rows(maps, found["maps"])
    variables = {"variable": "name", "section": "section", "type": "type", "size": "size"}
    show_rows(variables, found["variables"])
    for padded in padded_keys(obj):
        print(f"warning: {padded}")


def show_rows(columns: dict[str, str], rows: list[dict[str, Any]]) -> None:
    """A table with those columns (heading: key), nothing where there are no rows."""
    if rows:
        print_table(list(columns), [[row[key] for key in columns.values()] for row in rows])
