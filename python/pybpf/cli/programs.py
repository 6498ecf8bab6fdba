# SPDX-License-Identifier: BSD-2-Clause
"""``pybpf prog``: the programs that the kernel holds."""

from __future__ import annotations

import dataclasses
import platform

import pybpf
from pybpf import words
from pybpf.cli import things
from pybpf.cli.output import DONE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from typing import Any

    from pybpf.dump import JitedFunction, XlatedInstruction


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

    dump = actions.add_parser("dump", help="the instructions of one, with their lines of C")
    dump.add_argument("program", metavar="PROGRAM", help=things.THING)
    dump.add_argument(
        "--jited",
        action="store_true",
        help="the machine's instead: disassembled where the package capstone is installed",
    )
    dump.add_argument("--json", action="store_true")
    dump.set_defaults(run=dump_one)

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


def dump_one(options: argparse.Namespace) -> int:
    with things.open_thing(pybpf.Program, options.program, pybpf.programs) as program:
        found: Sequence[Any] = program.jited() if options.jited else program.xlated()
    if not found:
        raise pybpf.Error(f"the kernel does not show the code of {options.program}")
    if options.json:
        things.print_json([things.plain(dataclasses.asdict(each)) for each in found])
    elif options.jited:
        for function in found:
            print_machine_code(function)
    else:
        for each in found:
            print_instruction(each)
    return DONE


def print_instruction(each: XlatedInstruction) -> None:
    if each.function:
        print(f"{each.function}:")
    if each.line:
        print(f"  ; {each.line}")
    print(f"{each.instruction.pc:5}: {each.text}")


def print_machine_code(function: JitedFunction) -> None:
    print(f"{function.name}: at {function.address:#x}")
    lines = dict(function.lines)
    for offset, text in machine_instructions(function):
        if offset in lines:
            print(f"  ; {lines[offset]}")
        print(f"{offset:5x}: {text}")


def machine_instructions(function: JitedFunction) -> Iterator[tuple[int, str]]:
    """Each instruction's offset and text; without capstone, the bytes up to the next line."""
    try:
        import capstone
    except ImportError:
        starts = [offset for offset, _ in function.lines] or [0]
        for start, end in zip(starts, [*starts[1:], len(function.code)], strict=True):
            yield start, function.code[start:end].hex(" ")
        return
    machine = platform.machine()
    if machine == "aarch64":
        engine = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)
    else:
        engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    for each in engine.disasm(function.code, function.address):
        yield each.address - function.address, f"{each.mnemonic} {each.op_str}".rstrip()
