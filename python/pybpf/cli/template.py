# SPDX-License-Identifier: BSD-2-Clause
"""Lines by a template of the user's: ``'{comm} {pid:>7}'``."""

from __future__ import annotations

import re
import string
from typing import NamedTuple

from pybpf.btf import Array, Composite, Enum, Float, Int, Pointer
from pybpf.cli.output import UsageError
from pybpf.cli.values import is_text, plain_maker, word_maker
from pybpf.errors import NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from pybpf.btf import Type
    from pybpf.cli.values import Word

_FIELD = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*|\[\d+\])*")
_STEP = re.compile(r"([A-Za-z_]\w*)|\[(\d+)\]")
_FILL = re.compile(r".[<>=^]")
_WIDEST = 1000  # a typing error would otherwise take all memory, for each record
_NUMBER = tuple("bcdeEfFgGnoxX%")
_WIDTH = re.compile(r"(?:(.)?([<>=^]))?[-+ ]?z?#?0?(\d*)")
_MAP = "map"


class _Absent:
    """What a template shows in place of a member that a record does not have."""

    def __str__(self) -> str:
        return "-"

    def __format__(self, spec: str) -> str:
        """As wide as ``spec`` says, whatever it says otherwise."""
        fill, align, width = _WIDTH.match(spec).groups()  # type: ignore[union-attr]  # "" matches
        return format("-", f"{fill or ''}{(align or '').replace('=', '>')}{width}")


_ABSENT = _Absent()


class _NoMember(Exception):
    """Records do not have what a template names; the text says what they have instead."""


class _Field(NamedTuple):
    """``{hdr.args[0]:>7}``: the way to the member, and how it is formatted."""

    name: str
    path: tuple[str | int, ...]
    spec: str

    def read_from(self, ring: str, record_type: Type | None) -> Callable[[Any], Any]:
        """What reads it from the plain values of a record; _NoMember where there is none."""
        try:
            member = _member_type(record_type, self.path)
        except _NoMember:
            if self.name == _MAP:
                return lambda values: ring
            raise
        path, word = self.path, _template_word(member, self.spec)

        def read(values: Any) -> Any:
            try:
                for step in path:
                    values = values[step]
            except IndexError:  # of an array that takes what the record has
                return _ABSENT
            return word(values) if word else values

        return read

    def require_format_of(self, value: Any) -> None:
        """UsageError where its format is not one of such values."""
        try:
            format(value, self.spec)
        except (ValueError, OverflowError) as error:
            raise UsageError(f"--format {{{self.name}:{self.spec}}}: {error}") from None


def _widest(spec: str) -> int:
    """The larger one of a format's width and precision."""
    behind_fill = _FILL.sub("", spec, 1) if _FILL.match(spec) else spec
    return max(map(int, re.findall(r"\d+", behind_fill)), default=0)


def _member_type(record_type: Type | None, path: tuple[str | int, ...]) -> Type:
    """The type of the member there; _NoMember where there is none."""
    if record_type is None:
        raise _NoMember("its events have no type; --type names one")
    member = record_type
    for step in path:
        actual = member.resolve()
        if isinstance(step, str) and isinstance(actual, Composite):
            try:
                member = actual.member(step).type
            except NotFoundError as error:
                raise _NoMember(str(error)) from None
        elif isinstance(step, int) and _has_element(actual, step):
            member = actual.type  # type: ignore[attr-defined]  # it is an Array
        elif isinstance(step, int):
            raise _NoMember(f"{member} has no element [{step}]")
        else:
            raise _NoMember(f"{member} has no members, and so no {step!r}")
    return member


def _has_element(array: Type, number: int) -> bool:
    """Whether it can have one; as many as a record brings where the array has no length."""
    if not isinstance(array, Array) or is_text(array):
        return False
    return number < array.nelems or not array.nelems


def _template_word(member_type: Type, spec: str) -> Word | None:
    """What a member passes through before it is formatted; None for a number as it is."""
    actual = member_type.resolve()
    if isinstance(actual, Pointer) or (isinstance(actual, Float) and actual.size in (4, 8)):
        return None
    if isinstance(actual, Int | Enum):
        has_name = isinstance(actual, Enum) or actual.is_bool
        return word_maker(member_type) if has_name and not spec.endswith(_NUMBER) else None
    return word_maker(member_type)


class Template:
    """``'{comm} {pid:>7}'``: text with members of records, each by Python's format specification.

    ``{hdr.pid}`` is a member of a member, ``{args[0]}`` an element, ``{map}`` the ring's name
    (unless records have a member of that name).  Text is shown up to its first NUL, an enumerator
    by name; ``{kind:d}`` is its number.  Where a record has no such member, ``-`` is shown.
    """

    def __init__(self, text: str) -> None:
        """ValueError where it is none."""
        self.fields: list[_Field] = []
        self._form = ""
        for literal, name, spec, conversion in string.Formatter().parse(text):
            self._form += literal.replace("{", "{{").replace("}", "}}")
            if name is None:
                continue
            if not _FIELD.fullmatch(name):
                raise ValueError(f"{{{name}}} names no member, as {{pid}} or {{hdr.args[0]}} do")
            if "{" in spec or conversion:  # type: ignore[operator]  # a str beside a name
                raise ValueError(f"{{{name}}} may have a format, but no braces in it and no '!'")
            if _widest(spec or "") > _WIDEST:
                raise ValueError(f"{{{name}:{spec}}} is wider than {_WIDEST} characters")
            steps = _STEP.findall(name)
            path = tuple(word or int(number) for word, number in steps)
            self.fields.append(_Field(name, path, spec or ""))
            self._form += f"{{:{spec}}}"
        self._form += "\n"

    def require_members(self, types: Mapping[str, Type | None]) -> None:
        """UsageError where no ring's records have a member that is named, with what they have."""
        for field in self.fields:
            missing = []
            for ring, record_type in types.items():
                try:
                    field.read_from(ring, record_type)
                    break
                except _NoMember as error:
                    missing.append(f"\n  {ring}: {error}")
            else:
                if missing:
                    rings = "".join(missing)
                    raise UsageError(f"--format {{{field.name}}}: no event has it{rings}")

    def line_maker(self, ring: str, record_type: Type | None) -> Callable[[bytes], str]:
        """What makes a line of a ring's record; UsageError for formats that its values refuse."""
        plain, form = plain_maker(ring, record_type), self._form
        readers = [_reader(field, ring, record_type) for field in self.fields]
        for values in map(plain, _extremes(record_type)):
            for field, read in zip(self.fields, readers, strict=True):
                field.require_format_of(read(values))
        return lambda record: _filled(form, readers, plain(record))


def _filled(form: str, readers: list[Callable[[Any], Any]], values: Any) -> str:
    return form.format(*[read(values) for read in readers])


def _extremes(record_type: Type | None) -> list[bytes]:
    """Records with all bits clear, and set: numbers at one end of what they can be."""
    size = 0 if record_type is None else record_type.size
    return [bytes(size), b"\xff" * size]


def _reader(field: _Field, ring: str, record_type: Type | None) -> Callable[[Any], Any]:
    try:
        return field.read_from(ring, record_type)
    except _NoMember:
        return lambda values: _ABSENT
