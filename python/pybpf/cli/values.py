# SPDX-License-Identifier: BSD-2-Clause
"""Records as plain values, and plain values as text.

What a type needs is worked out once; streams have a million records of it.
"""

from __future__ import annotations

from pybpf import layout
from pybpf.btf import Array, Composite, Enum, Int
from pybpf.errors import LayoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from pybpf.btf import Type

    Plain: TypeAlias = Callable[[bytes], Any]
    Word: TypeAlias = Callable[[Any], str]

_HEX_BYTES = 64


def plain_maker(ring: str, record_type: Type | None) -> Plain:
    """What makes plain values of a record's bytes: numbers, text, lists, dicts for structs.

    Untyped records stay bytes.  LayoutError for one that is shorter than its type.
    """
    if record_type is None:
        return bytes

    def plain(record: bytes) -> Any:
        try:
            return layout.plain(record_type, record)
        except LayoutError as error:
            raise LayoutError(f"a record of {ring}: {error}") from None

    return plain


def record_word_maker(record_type: Type | None) -> Word:
    """What makes text of the plain values of a record: a=1 b=2, the first bytes where untyped."""
    if record_type is None:
        return _hex
    struct = record_type.resolve()
    return _members_word(struct) if isinstance(struct, Composite) else word_maker(record_type)


def _hex(data: bytes) -> str:
    """The first bytes in hex."""
    more = f" ... ({len(data)} bytes)" if len(data) > _HEX_BYTES else ""
    return data[:_HEX_BYTES].hex(" ", 4) + more


def word_maker(value_type: Type) -> Word:
    """What makes text of plain values of that type: an enumerator's name, {a=1 b=2}, [1, 2]."""
    actual = value_type.resolve()
    if isinstance(actual, Enum):
        return _enumerator_word(actual)
    if isinstance(actual, Composite):
        members = _members_word(actual)
        return lambda values: f"{{{members(values)}}}"
    if isinstance(actual, Array) and not is_text(actual):
        element = word_maker(actual.type)
        return lambda values: f"[{', '.join(map(element, values))}]"
    return _printable


def _enumerator_word(enum: Enum) -> Word:
    words: dict[int, str] = {}
    for name, number in enum.values.items():
        words.setdefault(number, name)
    return lambda number: words.get(number) or str(number)


def _members_word(struct: Composite) -> Word:
    members = [(name, f"{name}=", word_maker(struct.member(name).type)) for name in _names(struct)]
    return lambda values: " ".join([start + word(values[name]) for name, start, word in members])


def _names(struct: Composite) -> list[str]:
    """The members of a struct's records, those of anonymous members included."""
    return list(layout.plain(struct, bytes(struct.size)))


def is_text(array: Array) -> bool:
    """Whether its plain value is text."""
    element = array.type.resolve()
    return isinstance(element, Int) and element.name == "char"


def _printable(value: object) -> str:
    """``value`` on one line and without what commands a terminal: a program chooses its name."""
    text = value.hex() if isinstance(value, bytes) else str(value)
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
