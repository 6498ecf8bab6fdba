# SPDX-License-Identifier: BSD-2-Clause
"""``--type``: what the records of rings are, where declarations do not tell, or not rightly."""

from __future__ import annotations

from pybpf import layout
from pybpf.cli.output import UsageError
from pybpf.errors import LayoutError, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    from pybpf import Btf
    from pybpf.btf import Type


def add_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--type",
        action="append",
        default=[],
        metavar="TYPE",
        help='the type of the events, as "struct event", or of those of one ring, as '
        '"exits=struct exit" (may be repeated); unless given, what the declaration of a ring '
        "says, and else they are shown as bytes",
    )


def names_by_ring(words: Sequence[str], rings: Sequence[str]) -> dict[str, str]:
    """The names of types that ``--type`` gives to ``rings``; UsageError for other rings."""
    parts = [word.rpartition("=") for word in words]
    names = {ring: name for _, equals, name in parts if not equals for ring in rings}
    for ring, equals, name in parts:
        if equals and ring not in rings:
            raise UsageError(f"--type {ring}={name}: {NotFoundError('ring', ring, rings)}")
        if equals:
            names[ring] = name
    return names


def named_type(name: str, places: Iterable[Btf]) -> Type:
    """The type of that name in the first of ``places`` that has one.

    UsageError where none has one, and where records cannot be of that type.
    """
    missing = None
    for btf in places:
        try:
            found = btf[name]
            layout.ctype(found)
            return found
        except NotFoundError as error:
            missing = missing or error
        except LayoutError as error:
            raise UsageError(f"--type {name}: {error}") from None
    raise UsageError(f"--type {name}: {missing}")
