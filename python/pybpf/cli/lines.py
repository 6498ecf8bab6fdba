# SPDX-License-Identifier: BSD-2-Clause
"""Records as lines: what ``--format`` names."""

from __future__ import annotations

import argparse
import json
import math

from pybpf.cli.template import Template
from pybpf.cli.values import plain_maker, record_word_maker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeAlias

    from pybpf.btf import Type

    LineMaker: TypeAlias = Callable[[bytes], str]

JSON, TEXT = "json", "text"


def parse_format(text: str) -> str | Template:
    """What ``--format`` names: JSON, TEXT, or a template."""
    if text in (JSON, TEXT):
        return text
    if "{" not in text:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither json nor text nor a template such as '{{comm}} {{pid:>7}}'"
        )
    try:
        return Template(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def line_makers(types: Mapping[str, Type | None], form: str | Template) -> dict[str, LineMaker]:
    """For each ring, by name, what makes a line of a record's bytes, by its type.

    UsageError where a template names what no ring's records have.
    """
    if isinstance(form, Template):
        form.require_members(types)
        return {name: form.line_maker(name, of) for name, of in types.items()}
    make = _json_line if form == JSON else _text_line
    return {name: make(name, of) for name, of in types.items()}


def _text_line(name: str, record_type: Type | None) -> LineMaker:
    plain, word, start = plain_maker(name, record_type), record_word_maker(record_type), f"{name}: "
    return lambda record: f"{start}{word(plain(record))}\n"


def _json_line(name: str, record_type: Type | None) -> LineMaker:
    plain = plain_maker(name, record_type)
    encode = json.JSONEncoder(default=bytes.hex, allow_nan=False).encode
    start = f'{{"map": {json.dumps(name)}, "event": '

    def line(record: bytes) -> str:
        values = plain(record)
        try:
            return f"{start}{encode(values)}}}\n"
        except ValueError:
            return f"{start}{encode(_finite(values))}}}\n"

    return line


def _finite(value: Any) -> Any:
    """``value`` with None for the floats that JSON does not have."""
    if isinstance(value, dict):
        return {name: _finite(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
