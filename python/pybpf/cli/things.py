# SPDX-License-Identifier: BSD-2-Clause
"""Programs, maps and links as people name them on a command line, and as they are shown."""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
import json

import pybpf
from pybpf.cli.output import UsageError, print_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from pybpf.inventory import Owner

THING = "its id, its name (of one alone), or the path of its pin"


def open_thing(cls: Any, text: str, infos: Callable[[], Iterator[Any]]) -> Any:
    """The program, map or link that ``text`` names; the caller closes it.

    ``cls`` is Program, Map or Link, ``infos`` lists all of them.  UsageError where no thing or
    several have the name.
    """
    if text.isdigit():
        return cls.from_id(int(text))
    if "/" in text:
        return cls.open_pinned(text)
    found = [info.id for info in infos() if getattr(info, "name", None) == text[:15]]
    if not found:
        raise UsageError(f"the kernel has nothing named {text!r}; a path has a slash, as ./{text}")
    if len(found) > 1:
        raise UsageError(
            f"{text!r} is the name of several: {', '.join(map(str, found))}; say which"
        )
    return cls.from_id(found[0])


def as_json(info: Any, owners: Mapping[int, Sequence[Owner]]) -> dict[str, Any]:
    """What the kernel tells of a thing, and the processes that hold it."""
    values = {each.name: plain(getattr(info, each.name)) for each in dataclasses.fields(info)}
    held = [dataclasses.asdict(owner) for owner in owners.get(info.id, ())]
    return {**values, "owners": held}


def owner_names(id: int, owners: Mapping[int, Sequence[Owner]]) -> str:
    """The processes that hold a thing: "agent (812), python (4711)"."""
    return ", ".join(f"{owner.name} ({owner.pid})" for owner in owners.get(id, ()))


def plain(value: Any) -> Any:
    """A value as JSON has it: structs as objects, enumerators by name, bytes in hex."""
    if isinstance(value, pybpf.Struct):
        return plain(value.asdict())
    if isinstance(value, pybpf.Chars):
        return value.text
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, (bytes, bytearray, memoryview)):
        return value.hex()
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, (ipaddress.IPv4Network, ipaddress.IPv6Network)):
        return str(value)
    return value if isinstance(value, (bool, int, float, str)) or value is None else str(value)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def print_things(columns: Sequence[str], rows: Iterable[Any]) -> None:
    """A table; where there is nothing to show, nothing."""
    shown = list(rows)
    if shown:
        print_table(columns, shown)


def print_fields(fields: Mapping[str, Any]) -> None:
    """One thing, a line for each field that says something."""
    told = {name: value for name, value in fields.items() if value not in (None, "", [], 0)}
    width = max(map(len, told))
    for name, value in told.items():
        text = value if isinstance(value, str) else json.dumps(value)
        print(f"{name.replace('_', ' '):<{width}}  {text}")


def parse_plain(text: str) -> Any:
    """A key or value: JSON, or else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
