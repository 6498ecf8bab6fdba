# SPDX-License-Identifier: BSD-2-Clause
"""``pybpf load``: open, load, attach, tell what is there, and print events until stopped."""

from __future__ import annotations

import contextlib
import json
import os
import sys

import pybpf
from pybpf import pin_folder, words
from pybpf.cli.lines import JSON, TEXT, line_makers
from pybpf.cli.output import (
    DONE,
    UsageError,
    error_json,
    print_table,
    report_error,
    status_of,
)
from pybpf.cli.stream import Ring, add_options, stream
from pybpf.cli.type_option import named_type, names_by_ring
from pybpf.variable_text import parse_value
from pybpf.verifier import summary_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any, TextIO

    from pybpf import Btf, Object, ObjectMap, ObjectProgram
    from pybpf.btf import Type
    from pybpf.cli.template import Template


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "load",
        help="load objects, attach their programs and print their events",
        description="Load objects, attach what their section names say, and print what comes from "
        "their ring buffers and perf event arrays until Ctrl-C; then detach all. With --format, "
        "events alone are on stdout and the rest is on stderr. Needs root, or CAP_BPF with "
        "CAP_PERFMON or CAP_NET_ADMIN.",
    )
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="a .bpf.o")
    add("--no-attach", action="store_true", help="load only")
    outcome = parser.add_mutually_exclusive_group()
    outcome.add_argument(
        "--check",
        action="store_true",
        help="load, report and unload; attach nothing, pin nothing",
    )
    outcome.add_argument(
        "--pin",
        metavar="DIR",
        help="pin maps, programs and links below DIR (on a bpffs), and leave them running",
    )
    add("--only", action="append", metavar="PROG", help="load this program alone (may be repeated)")
    add(
        "--var",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a global variable before loading",
    )
    add(
        "--map",
        action="append",
        default=[],
        metavar="NAME.max_entries=N",
        help="set how many entries a map holds",
    )
    add("--btf", metavar="FILE", help="relocate against this BTF instead of the running kernel's")
    add(
        "--log-level",
        type=int,
        choices=range(8),
        default=0,
        metavar="N",
        help="show the verifier's log: 1 its last path, 2 everything, +4 statistics",
    )
    add("--verbose", action="store_true", help="show the whole log of libbpf and the verifier")
    add_options(parser)
    add(
        "--json",
        action="store_true",
        help="all as JSON, an object on a line: one for each loaded file, then one for each event",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    require_sense(options)
    if options.check:
        return check(options)
    with contextlib.ExitStack() as stack:
        objects: list[Object] = []
        for path in options.files:
            try:
                objects.append(stack.enter_context(bring_up(path, options)))
            except pybpf.Error as error:
                return report_failure(error, path, options)
        rings = rings_of(objects, options)
        lines = line_makers({ring.name: ring.type for ring in rings}, event_format(options))
        if options.pin:
            pin(objects, options)
        folders = pin_folders(objects, options) if options.pin else [None] * len(objects)
        for path, obj, folder in zip(options.files, objects, folders, strict=True):
            report(path, obj, folder, options)
        if options.pin:
            if not options.json:
                print(f"pinned at {options.pin}; `pybpf unload {options.pin}` takes it down")
            return DONE
        status = stream(rings, lines, options)
        links = sum(len(obj.links) for obj in objects)
    if not options.json:
        detached = f"detached {counted(links, 'program')}"
        print(f"{detached}, unloaded {counted(len(objects), 'object')}", file=report_file(options))
    return status


def require_sense(options: argparse.Namespace) -> None:
    """UsageError where options contradict one another, or --pin names nothing."""
    if options.pin == "":
        raise UsageError("--pin DIR: the name of the folder is empty")
    if options.json and options.format not in (None, JSON):
        raise UsageError("--json shows events as JSON, too: leave it away, or --format")
    of_events = options.format or options.stats or options.type
    if (options.check or options.pin) and of_events:
        raise UsageError(
            "--format, --stats and --type are of events, which --check and --pin do not print"
        )


def event_format(options: argparse.Namespace) -> str | Template:
    return JSON if options.json else options.format or TEXT


def report_file(options: argparse.Namespace) -> TextIO:
    """Where tables go: not between events whose form is asked for."""
    return sys.stderr if options.format and not options.json else sys.stdout


STREAMS = (pybpf.MapType.RINGBUF, pybpf.MapType.PERF_EVENT_ARRAY)


def rings_of(objects: list[Object], options: argparse.Namespace) -> list[Ring]:
    """All that is read, named by its object too where there are several objects."""
    owners = {
        prefix + ring.name: (obj, ring)
        for obj, prefix in zip(objects, prefixes(objects), strict=True)
        for ring in obj.maps.values()
        if ring.type in STREAMS and ring.autocreate
    }
    type_names = names_by_ring(options.type, list(owners))
    return [
        Ring(name, ring, record_type(obj, ring, type_names.get(name), options))
        for name, (obj, ring) in owners.items()
    ]


def record_type(
    obj: Object, ring: ObjectMap, name: str | None, options: argparse.Namespace
) -> Type | None:
    """The type of that ``name``, or what a ring buffer's declaration says."""
    if name is not None:
        return named_type(name, types_around(obj, options))
    if ring.type != pybpf.MapType.RINGBUF:
        return None  # a perf event array declares the type of the descriptors that it holds
    return ring.declared_value_type


def types_around(obj: Object, options: argparse.Namespace) -> Iterator[Btf]:
    """Where types are looked up: in the object, and in what it was relocated against."""
    if obj.btf is not None:
        yield obj.btf
    yield pybpf.Btf.from_file(options.btf) if options.btf else pybpf.Btf.kernel()


def prefixes(objects: list[Object]) -> list[str]:
    """What tells the rings of several objects apart: a., b., and a#3. for a third that is an a."""
    if len(objects) == 1:
        return [""]
    names = [obj.name for obj in objects]
    return [
        f"{name}." if name not in names[:at] else f"{name}#{at + 1}."
        for at, name in enumerate(names)
    ]


def counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


# ---- bringing up ---------------------------------------------------------------------------------


def bring_up(path: str, options: argparse.Namespace) -> Object:
    """Open, configure, load and attach as told; nothing is left where that fails."""
    log_level = options.log_level or int(options.verbose)
    obj = pybpf.open(path, btf=options.btf, log_level=log_level)
    try:
        configure(obj, path, options)
        if options.check:
            pin_nothing(obj)
        obj.load()
        if not options.no_attach and not options.check:
            obj.attach()
    except BaseException:
        obj.close()
        raise
    return obj


def pin_nothing(obj: Object) -> None:
    """Have load() pin no map; one that is pinned already is still compared."""
    for bpf_map in obj.maps.values():
        if bpf_map.pin_path and not os.path.exists(bpf_map.pin_path):
            bpf_map.pin_path = None


def report_failure(error: pybpf.Error, path: str, options: argparse.Namespace) -> int:
    """Tell what is wrong with one file; the exit status for it."""
    if options.json:
        failure = {"object": path, "loaded": False, "error": error_json(error)}
        print(json.dumps(failure), flush=True)
    else:
        report_error(error, path, options.verbose)
    return status_of(error)


def configure(obj: Object, path: str, options: argparse.Namespace) -> None:
    """Apply --only, --var and --map; what the object does not have is wrong usage."""
    try:
        if options.only:
            for name in options.only:
                _ = obj.programs[name]
            for program in obj.programs.values():
                program.autoload = program.name in options.only
        for setting in options.var:
            name, value = split_setting(setting, "--var NAME=VALUE")
            set_variable(obj, name, value)
        for setting in options.map:
            name, value = split_setting(setting, "--map NAME.max_entries=N")
            map_name, _, field = name.rpartition(".")
            if field != "max_entries":
                raise UsageError(
                    f"--map {setting}: only max_entries can be set: --map NAME.max_entries=N"
                )
            obj.maps[map_name].max_entries = entries(setting, value)
    except (pybpf.NotFoundError, pybpf.LayoutError, OverflowError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from None


def set_variable(obj: Object, name: str, text: str) -> None:
    variable = obj.variables[name]
    try:
        value = parse_value(variable.type, text)
    except pybpf.LayoutError as error:
        raise UsageError(f"variable {name}: {error}") from None
    variable.value = value


def split_setting(setting: str, form: str) -> tuple[str, str]:
    name, equals, value = setting.partition("=")
    if not equals:
        raise UsageError(f"{setting!r} is not of the form {form}")
    return name, value


def entries(setting: str, value: str) -> int:
    try:
        number = int(value, 0)
    except ValueError:
        raise UsageError(f"--map {setting}: {value!r} is no number") from None
    if not 0 < number < 1 << 32:
        raise UsageError(f"--map {setting}: {number} is not between 1 and {(1 << 32) - 1}")
    return number


def pin_folders(objects: list[Object], options: argparse.Namespace) -> list[str]:
    """Where each object is pinned: --pin DIR, or DIR/NAME where there are several."""
    if len(objects) == 1:
        return [options.pin]
    names = [pin_folder.pin_name(obj.name) for obj in objects]
    if len(set(names)) < len(names):
        raise UsageError("--pin: two objects have the same name; pin them one by one")
    return [os.path.join(options.pin, name) for name in names]


def pin(objects: list[Object], options: argparse.Namespace) -> None:
    """Pin all objects; all or nothing."""
    made: list[str] = []
    done: list[str] = []
    try:
        if len(objects) > 1:
            pin_folder.make_folder(options.pin.rstrip("/"), made)
        for obj, folder in zip(objects, pin_folders(objects, options), strict=True):
            pin_folder.store(obj, folder)
            done.append(folder)
    except BaseException:
        for folder in done:
            pin_folder.remove(folder)
        for folder in made:
            os.rmdir(folder)
        raise


# ---- telling -------------------------------------------------------------------------------------


def report(path: str, obj: Object, folder: str | None, options: argparse.Namespace) -> None:
    """What is loaded and attached, and pinned below ``folder``."""
    if options.verbose or options.log_level:
        print(obj.log, end="", file=sys.stderr)
    if options.json:
        print(json.dumps(describe(path, obj, folder)), flush=True)
        return
    file = report_file(options)
    print(f"{path}: loaded", file=file)
    attached = {link.source: link.what.partition(" to ")[2] or "registered" for link in obj.links}
    print_table(
        ("program", "type", "section", "attached to", "id", "verifier"),
        [
            (
                p.name,
                words.program_type(p.type),
                p.section,
                attached.get(p, "-"),
                p.id,
                p.verifier_stats or "-",
            )
            for p in obj.programs.values()
            if p.loaded
        ],
        file,
    )
    maps = [m for m in obj.maps.values() if m.autocreate]
    if maps:
        print_table(
            ("map", "type", "key", "value", "entries", "id", "pinned"),
            [
                (
                    m.name,
                    words.map_type(m.type),
                    m.key_size,
                    m.value_size,
                    m.max_entries,
                    m.id,
                    pinned_at(m, folder) or "-",
                )
                for m in maps
            ],
            file,
        )
    file.flush()


def pinned_at(bpf_map: ObjectMap, folder: str | None) -> str | None:
    if folder is not None:
        return os.path.join(folder, "maps", pin_folder.pin_name(bpf_map.name))
    return bpf_map.pin_path


def describe(path: str, obj: Object, folder: str | None = None) -> dict[str, Any]:
    """A loaded object as JSON."""
    links: dict[Any, list[str]] = {}
    for link in obj.links:
        links.setdefault(link.source, []).append(link.what)
    return {
        "object": path,
        "loaded": True,
        "programs": [
            {
                **describe_program(program),
                "id": program.id if program.loaded else None,
                "attached": links.get(program, []),
            }
            for program in obj.programs.values()
        ],
        "maps": [
            {
                "name": m.name,
                "type": words.map_type(m.type),
                "type_id": int(m.type),
                "key_size": m.key_size,
                "value_size": m.value_size,
                "max_entries": m.max_entries,
                "id": m.id,
                "pinned": pinned_at(m, folder),
            }
            for m in obj.maps.values()
            if m.autocreate
        ],
    }


def describe_program(program: ObjectProgram) -> dict[str, Any]:
    return {
        "name": program.name,
        "type": words.program_type(program.type),
        "section": program.section,
        "loaded": program.loaded,
        "insns": program.insn_count,
        "jited_size": program.info().jited_size if program.loaded else 0,
        "log_summary": summary_line(program.verifier_summary),
    }


# ---- --check -------------------------------------------------------------------------------------


def check(options: argparse.Namespace) -> int:
    """Load each file, report and unload it, going on after a failure; the worst status."""
    status = DONE
    for path in options.files:
        try:
            with bring_up(path, options) as obj:
                report(path, obj, None, options)
                if not options.json:
                    print(f"{path}: loads on this kernel", flush=True)
        except pybpf.Error as error:
            status = max(status, report_failure(error, path, options))
    return status
