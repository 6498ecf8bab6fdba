# SPDX-License-Identifier: BSD-2-Clause
"""``pybpf events``: print the records of rings that are pinned."""

from __future__ import annotations

import contextlib
import warnings

import pybpf
from pybpf import declarations
from pybpf.cli.lines import TEXT, line_makers
from pybpf.cli.output import UsageError
from pybpf.cli.stream import Ring, add_options, stream
from pybpf.cli.type_option import named_type, names_by_ring

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import Any

    from pybpf import Btf, Map
    from pybpf.btf import Type


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "events",
        help="print the events of pinned ring buffers",
        description="Print what comes from pinned ring buffers and perf event arrays until Ctrl-C. "
        "That takes the events out: of several readers of a ring each gets some. Needs root, or "
        "CAP_BPF (and CAP_PERFMON for perf event arrays); without CAP_SYS_ADMIN no types are "
        "found but in --btf FILE.",
    )
    parser.add_argument("pins", nargs="+", metavar="PIN", help="as /sys/fs/bpf/mine/maps/events")
    parser.add_argument(
        "--btf",
        metavar="FILE",
        help="where types are found: an object, BTF or a vmlinux; unless given, the objects whose "
        "loaded programs use the ring, and the kernel",
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    btf = pybpf.Btf.from_file(options.btf) if options.btf is not None else None
    with contextlib.ExitStack() as stack:
        maps = [stack.enter_context(pybpf.Map.open_pinned(path)) for path in options.pins]
        names = ring_names(maps, options.pins)
        type_names = names_by_ring(options.type, names)
        rings = [
            Ring(name, ring, record_type(ring, type_names.get(name), btf))
            for name, ring in zip(names, maps, strict=True)
        ]
        types = {ring.name: ring.type for ring in rings}
        lines = line_makers(types, options.format or TEXT)
        return stream(rings, lines, options)


def ring_names(maps: Sequence[Map[Any, Any]], paths: Sequence[str]) -> list[str]:
    """What each is called: its name, or its path where several have one name."""
    names = [each.name for each in maps]
    if len(set(paths)) < len(paths):
        raise UsageError("one PIN is given twice")
    return names if len(set(names)) == len(names) else list(paths)


def record_type(ring: Map[Any, Any], name: str | None, btf: Btf | None) -> Type | None:
    """The type of that ``name``, or the declared one, in ``btf`` or where the kernel has types."""
    sources = [btf] if btf else types_of_users(ring)
    if name is not None:
        return named_type(name, sources if btf else [*sources, pybpf.Btf.kernel()])
    if ring.type != pybpf.MapType.RINGBUF:
        return None  # a perf event array declares the type of the descriptors that it holds
    declared = (declarations.declared_in(each, ring.name) for each in sources)
    return next(filter(None, declared), None)


def types_of_users(ring: Map[Any, Any]) -> list[Btf]:
    try:
        return list(declarations.types_of_users(ring.id))
    except pybpf.PrivilegeError as error:
        message = f"what types {ring.name} has cannot be asked ({error.hint}); --btf FILE has them"
        warnings.warn(message, pybpf.LayoutWarning, stacklevel=1)
        return []
