# SPDX-License-Identifier: BSD-2-Clause
"""Compare a class or format of one's own with a BTF type, offset by offset.

Both sides become scalars with places.  Each scalar of the user's must be one of the type's at that
place, or lie in padding, and together they must leave nothing of the type out.
"""

from __future__ import annotations

import ctypes
import re
import struct
import sys
from itertools import zip_longest
from typing import NamedTuple

from pybpf.btf import Composite, Enum, Float, Int, Kind
from pybpf.errors import LayoutError
from pybpf.shape import amount, holes, join, leaves, place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pybpf.btf import Type
    from pybpf.shape import ByteOrder, Leaf

# Rows of a table around the first difference.
_ROWS_BEFORE, _ROWS = 8, 30
# An array of the user's over scalars that are no array is taken apart up to this length.
_SPLIT_LIMIT = 4096

_CTYPES_KINDS = {
    **dict.fromkeys("bhilq", "signed"),
    **dict.fromkeys("BHILQ", "unsigned"),
    **dict.fromkeys("fdg", "float"),
    **dict.fromkeys("PzZO", "pointer"),
    "c": "bytes",
    "?": "bool",
}
_FORMAT_KINDS = {
    **dict.fromkeys("bhilqn", "signed"),
    **dict.fromkeys("BHILQN", "unsigned"),
    **dict.fromkeys("efd", "float"),
    **dict.fromkeys("spc", "bytes"),
    "P": "pointer",
    "?": "bool",
}
_PACK = "set _pack_ = 1 (and, for Python 3.14, _layout_ = 'ms')"
_LETTERS = {8: "bB", 16: "hH", 32: "iI", 64: "qQ"}  # signed, unsigned

# What may stand for each kind of a BTF type.
_ACCEPTED = {
    "char": {"signed", "unsigned", "bytes"},
    "byte": {"unsigned", "bytes"},
    "signed": {"signed"},
    "unsigned": {"unsigned", "pointer"},
    "enum": {"signed", "unsigned"},
    "bool": {"bool", "unsigned"},
    "float": {"float"},
    "pointer": {"pointer", "unsigned"},
}


class Field(NamedTuple):
    """A scalar of the user's, or an array of them: as :class:`~pybpf.shape.Leaf` for BTF."""

    path: str
    bit: int
    width: int
    length: int
    kind: str
    order: str
    spelled: str
    is_bitfield: bool

    @property
    def end(self) -> int:
        return self.bit + self.width * self.length

    @property
    def is_raw(self) -> bool:
        """Whether it is bytes, which may stand for any one member."""
        return self.width == 8 and (
            self.kind == "bytes" or (self.kind == "unsigned" and self.length > 1)
        )


def check_layout(whole: Type, user: Any) -> None:
    """Raise LayoutError, with both layouts side by side, unless ``user`` is laid out as ``whole``.

    ``user`` is a ctypes class, a ``struct`` format or struct.Struct, or a dataclass.  Names may
    differ, except that a name of the type must stand for that very member; those of a dataclass
    must be the members' in their order, and what it annotates with a ctypes class or a dataclass
    is checked as that.
    """
    if isinstance(user, str):
        try:
            user = struct.Struct(user)
        except struct.error as error:
            raise LayoutError(f"{user!r} is no struct format: {error}") from None
    if isinstance(user, struct.Struct):
        title = f"format {user.format!r}"
        _Comparison(whole, title, list(_format_fields(user)), user.size).check(_format_fix)
    elif not isinstance(user, type):
        raise LayoutError(f"a class or a struct format is needed, not {user!r}")
    elif hasattr(user, "__dataclass_fields__"):
        _check_dataclass(whole, user)
    elif hasattr(user, "_codec_"):  # a class that pybpf.layout made of another type
        other = user._codec_.type
        fields = [_field_of_leaf(leaf) for leaf in leaves(other)]
        _Comparison(whole, f"class {other} of other BTF", fields, other.size).check(_ctypes_fix)
    elif _is_ctypes(user):
        fields = list(_ctypes_fields(user, "", 0, whole.btf.byteorder))
        title = f"class {user.__name__}"
        _Comparison(whole, title, fields, ctypes.sizeof(user)).check(_ctypes_fix)
    else:
        raise LayoutError(
            f"{user.__name__} is neither a ctypes class nor a dataclass: its layout is not known"
        )


# ---- what the user has


def _is_ctypes(user: type) -> bool:
    return issubclass(user, ctypes.Structure.__mro__[1])  # _CData


def _ctypes_fields(user: Any, path: str, bit: int, order: ByteOrder) -> Iterator[Field]:
    if issubclass(user, ctypes.Structure | ctypes.Union):
        anonymous = getattr(user, "_anonymous_", ())
        for cls in reversed(user.__mro__):
            for name, kind, *bits in cls.__dict__.get("_fields_", ()):
                inner = path if name in anonymous else join(path, name)
                if bits:
                    yield _ctypes_bitfield(user, name, kind, inner, bit, order)
                else:
                    start = bit + 8 * getattr(user, name).offset
                    yield from _ctypes_fields(kind, inner, start, order)
        return
    length, element = 1, user
    while issubclass(element, ctypes.Array):
        length, element = length * element._length_, element._type_
    if issubclass(element, ctypes.Structure | ctypes.Union):
        for number in range(length):
            start = bit + 8 * ctypes.sizeof(element) * number
            yield from _ctypes_fields(element, f"{path}[{number}]", start, order)
        return
    code = getattr(element, "_type_", "P")
    kind = _CTYPES_KINDS.get(code, "pointer") if isinstance(code, str) else "pointer"
    width, order = 8 * ctypes.sizeof(element), _ctypes_order(element)
    spelled = _spelled(element, kind, order) + (f" * {length}" if user is not element else "")
    yield Field(path, bit, width, length, kind, order, spelled, False)


def _spelled(element: Any, kind: str, order: ByteOrder) -> str:
    """The type's name; that of an integer with its size, which ``c_long`` leaves open."""
    if kind not in ("signed", "unsigned"):
        return str(element.__name__)
    name = f"c_{'u' * (kind == 'unsigned')}int{8 * ctypes.sizeof(element)}"
    return name if order == sys.byteorder else f"{name}.__ctype_{order[0]}e__"


def _ctypes_order(element: Any) -> ByteOrder:
    if ctypes.sizeof(element) == 1:
        return sys.byteorder
    if getattr(element, "__ctype_be__", None) is element:
        return "big"
    return "little" if getattr(element, "__ctype_le__", None) is element else sys.byteorder


def _ctypes_bitfield(
    user: Any, name: str, kind: Any, path: str, bit: int, order: ByteOrder
) -> Field:
    """Where a bitfield is, seen by setting its bits: how ctypes tells it depends on the version."""
    value = user()
    setattr(value, name, -1)
    number = int.from_bytes(bytes(value), order)
    if not number:
        raise LayoutError(
            f"class {user.__name__}: ctypes keeps nothing of bitfield {name!r}, which it puts "
            "outside of its own type; declare it with the type of the bitfield before it, or use "
            "the class that `type.ctype` gives"
        )
    width = number.bit_count()
    low = (number & -number).bit_length() - 1
    start = low if order == "little" else 8 * ctypes.sizeof(user) - low - width
    sort = _CTYPES_KINDS[kind._type_]
    spelled = f"{_spelled(kind, sort, sys.byteorder)}, {width}"
    return Field(path, bit + start, width, 1, sort, order, spelled, True)


def _format_fields(user: struct.Struct) -> Iterator[Field]:
    text = user.format if isinstance(user.format, str) else user.format.decode()
    prefix = text[0] if text[:1] in tuple("@=<>!") else "@"
    order = {"<": "little", ">": "big", "!": "big"}.get(prefix, sys.byteorder)
    done, number = prefix, 0
    for count, letter in re.findall(r"(\d*)([a-zA-Z?])", text):
        size = struct.calcsize(prefix + letter)
        repeat = int(count or 1)
        if letter in "sp":
            size, repeat = repeat, 1
        for _ in range(repeat):
            one = f"{count}{letter}" if letter in "sp" else letter
            done += one
            if letter != "x":
                start = struct.calcsize(done) - size
                width, length = (8, size) if letter in "sp" else (8 * size, 1)
                kind = _FORMAT_KINDS[letter]
                name, number = f"field {number}", number + 1
                yield Field(name, 8 * start, width, length, kind, order, repr(one), False)


def _field_of_leaf(leaf: Leaf) -> Field:
    kind = _kind(leaf)
    kind = {"char": "bytes", "byte": "unsigned", "enum": "unsigned"}.get(kind, kind)
    place = leaf.path, leaf.bit, leaf.width, leaf.length
    return Field(*place, kind, leaf.order, str(leaf.type), leaf.is_bitfield)


# ---- comparing


def _kind(leaf: Leaf) -> str:
    scalar = leaf.type.resolve()
    if isinstance(scalar, Int):
        if scalar.is_bool:
            return "bool"
        if scalar.name == "char" and leaf.width == 8:
            return "char"
        if scalar.is_signed:
            return "signed"
        return "byte" if leaf.width == 8 and not leaf.is_bitfield else "unsigned"
    if isinstance(scalar, Enum):
        return "signed" if scalar.is_signed else "enum"
    return "float" if isinstance(scalar, Float) else "pointer"


def _fits(leaf: Leaf, field: Field) -> bool:
    """Whether one element of each, of the same width, is the same."""
    if field.width > 8 and field.order != leaf.order:
        return False
    return field.kind in _ACCEPTED[_kind(leaf)]


class _Comparison:
    """A BTF type beside what the user has, which the ``title`` names."""

    def __init__(self, whole: Type, title: str, fields: list[Field], size: int) -> None:
        self.whole = whole
        self.title = title
        self.fields = fields
        self.size = size
        self.leaves = leaves(whole)
        self.used = 0
        self.starts: dict[int, list[Leaf]] = {}
        self.paths: dict[str, Leaf] = {}
        for leaf in self.leaves:
            self.used |= _ones(leaf)
            self.starts.setdefault(leaf.bit, []).append(leaf)
            self.paths[leaf.path] = leaf

    def check(self, fix: Any) -> None:
        covered = 0
        for field in self.fields:
            covered |= _ones(field)
        self.wrong = [field for field in self.fields if not self.is_right(field)]
        self.missing = [leaf for leaf in self.leaves if _ones(leaf) & ~covered]
        if self.wrong or self.missing or self.size != self.whole.size:
            raise LayoutError(
                f"{self.title} ({amount(8 * self.size)}) is not laid out as {self.whole} "
                f"({amount(8 * self.whole.size)}):\n\n{self.table()}\n\nfix: {fix(self)}"
            )

    def is_right(self, field: Field) -> bool:
        named = self.paths.get(field.path)
        if named is not None and (named.bit, named.end) != (field.bit, field.end):
            return False
        if field.end > 8 * self.whole.size:
            return False
        return not _ones(field) & self.used or self.has(field)

    def has(self, field: Field) -> bool:
        """Whether the type has that at that place."""
        if any(_is_same(leaf, field) for leaf in self.starts.get(field.bit, ())):
            return True
        inside = [leaf for leaf in self.leaves if leaf.bit < field.end and field.bit < leaf.end]
        if any(_is_element(leaf, field) for leaf in inside):
            return True
        if any(leaf.bit < field.bit or leaf.end > field.end for leaf in inside):
            return False
        if all(leaf.is_bitfield for leaf in inside):  # what holds them
            return not field.is_bitfield and field.kind in ("signed", "unsigned")
        if field.is_raw:
            return self.are_one(inside, field)
        one = field._replace(length=1)
        return 1 < field.length <= _SPLIT_LIMIT and all(
            self.has(one._replace(bit=field.bit + number * field.width))
            for number in range(field.length)
        )

    def are_one(self, found: list[Leaf], field: Field) -> bool:
        """Whether these are all that one member consists of, or members of one union."""
        path = found[0].path
        ends = [at for at, letter in enumerate(path) if letter in ".["] + [len(path)]
        for end in ends:
            if [leaf for leaf in self.leaves if _is_within(leaf.path, path[:end])] == found:
                return True
        return all(leaf.bit == field.bit for leaf in found)

    # -- showing

    def table(self) -> str:
        wrong, missing = set(self.wrong), set(self.missing)
        left: dict[int, list[tuple[str, int, bool]]] = {}
        right: dict[int, list[tuple[str, int, bool]]] = {}
        for leaf in self.leaves:
            row = spell(leaf), leaf.end - leaf.bit, leaf in missing
            left.setdefault(leaf.bit, []).append(row)
        for hole in holes(self.whole):
            left.setdefault(hole.bit, []).append(("-- padding --", hole.bits, False))
        for field in self.fields:
            text = f"{field.path}: {field.spelled}" if field.path else field.spelled
            right.setdefault(field.bit, []).append((text, field.end - field.bit, field in wrong))
        for start, bits in self.gaps():
            right.setdefault(start, []).append(("-- padding --", bits, False))
        left.setdefault(8 * self.whole.size, []).append(("end", 0, False))
        right.setdefault(8 * self.size, []).append(("end", 0, self.size != self.whole.size))
        rows: list[tuple[str, str, str, str]] = []
        first = -1
        for bit in sorted({*left, *right}):
            nothing = ("", 0, False)
            for mine, other in zip_longest(
                left.get(bit, ()), right.get(bit, ()), fillvalue=nothing
            ):
                differs = mine[2] or other[2]
                if differs and first < 0:
                    first = len(rows)
                rows.append((">" if differs else " ", place(bit), _sized(mine), _sized(other)))
        return _shown(rows, max(first, 0), (str(self.whole), self.title))

    def gaps(self) -> Iterator[tuple[int, int]]:
        """What the user's class has of padding: the first bit, and how many."""
        end = 0
        for field in sorted(self.fields, key=lambda field: field.bit):
            if field.bit > end:
                yield end, field.bit - end
            end = max(end, field.end)
        if 8 * self.size > end:
            yield end, 8 * self.size - end

    def before(self, field: Field) -> str:
        """``after 'x'``: where one writes what comes in front of ``field``."""
        position = self.fields.index(field)
        return f"after {self.fields[position - 1].path!r}" if position else "at the start"


def _ones(part: Leaf | Field) -> int:
    return ((1 << part.end - part.bit) - 1) << part.bit


def _is_same(leaf: Leaf, field: Field) -> bool:
    if leaf.end != field.end:
        return False
    if leaf.width == field.width:
        return _fits(leaf, field)
    # ctypes has no integers of 128 bits, and not every float
    return leaf.width == 128 and leaf.length == 1 and field.kind in ("unsigned", "bytes")


def _is_element(leaf: Leaf, field: Field) -> bool:
    """Whether ``field`` is one or more elements of an array."""
    return (
        leaf.width == field.width
        and leaf.bit <= field.bit
        and field.end <= leaf.end
        and (field.bit - leaf.bit) % leaf.width == 0
        and not leaf.is_bitfield
        and _fits(leaf, field)
    )


def _is_within(path: str, outer: str) -> bool:
    return path == outer or path.startswith((f"{outer}.", f"{outer}["))


def spell(leaf: Leaf) -> str:
    """The member as C declares it."""
    if leaf.is_bitfield:
        return f"{leaf.type.declare(leaf.path)} : {leaf.width}"
    return leaf.type.declare(leaf.path + (f"[{leaf.length}]" if leaf.length != 1 else ""))


def _sized(row: tuple[str, int, bool]) -> str:
    text, bits, _ = row
    if text in ("", "end"):
        return f"{'':>5}  {text}"
    return f"{bits // 8 if bits % 8 == 0 else f'{bits} b':>5}  {text}"


def _shown(rows: list[tuple[str, str, str, str]], first: int, titles: tuple[str, str]) -> str:
    """The rows around the first difference, as a table."""
    start = max(0, min(first - _ROWS_BEFORE, len(rows) - _ROWS))
    head = [(" ", "offset", f"{'size':>5}  {titles[0]}", f"{'size':>5}  {titles[1]}")]
    if start:
        head.append((" ", "...", "", ""))
    tail = [(" ", "...", "", "")] if start + _ROWS < len(rows) else []
    shown = [*head, *rows[start : start + _ROWS], *tail]
    width = max(len(row[2]) for row in shown)
    return "\n".join(
        f"{mark} {offset:>6} {left:<{width}} {right}".rstrip()
        for mark, offset, left, right in shown
    )


# ---- fixes


def _ctypes_fix(found: _Comparison) -> str:
    own = {field.path for field in found.fields}
    missing = [leaf for leaf in found.missing if leaf.path not in own]
    if missing and not (found.wrong and found.wrong[0].bit <= missing[0].bit):
        return _fix_of_missing(found, missing[0])
    if not found.wrong:
        return _fix_of_size(found.whole.size - found.size)
    field = found.wrong[0]
    leaf = found.paths.get(field.path) or _leaf_meant(found, field)
    if leaf is None:
        return f"remove {field.path!r}: {found.whole} has nothing like it there"
    if leaf.bit == field.bit:
        what = f"make {field.path!r}" if field.path else "use"
        return f"{what} {ctypes_name(leaf)}"
    size = amount(abs(leaf.bit - field.bit))
    if leaf.bit > field.bit:
        pad = f"('_pad', c_uint8 * {(leaf.bit - field.bit) // 8})"
        return f"insert {size} of padding {found.before(field)}: {pad}"
    if any(other.is_bitfield and other.end <= field.bit for other in found.fields):
        return (
            f"there are {size} too many in front of {field.path!r}: give bitfields before it a "
            "smaller type, c_uint8"
        )
    return (
        f"there are {size} too many in front of {field.path!r}: {_PACK} and write padding out "
        "where it is meant, or remove a member"
    )


def _leaf_meant(found: _Comparison, field: Field) -> Leaf | None:
    """The member that the user's field is most likely meant to be."""
    if field.bit in found.starts:
        return found.starts[field.bit][0]
    later = [leaf for leaf in found.leaves if leaf.bit >= field.bit]
    return later[0] if later else None


def _fix_of_missing(found: _Comparison, leaf: Leaf) -> str:
    earlier = [field for field in found.fields if field.end <= leaf.bit]
    where = f"after {earlier[-1].path!r}" if earlier else "at the start"
    name = leaf.path.rpartition(".")[2].partition("[")[0]
    return f"add ({name!r}, {ctypes_name(leaf)}) {where}"


def _fix_of_size(more: int) -> str:
    """What to do where the type has so many bytes more, negative for less."""
    if more > 0:
        return f"add {amount(8 * more)} of padding at the end: ('_pad', c_uint8 * {more})"
    return f"there are {amount(-8 * more)} too many at the end: {_PACK}"


def ctypes_name(leaf: Leaf) -> str:
    """What ctypes calls it."""
    kind = _kind(leaf)
    scalar = leaf.type.resolve()
    size = leaf.width // 8 if not leaf.is_bitfield else scalar.size
    if kind == "bool":
        name = "c_bool"
    elif kind == "char":
        name = "c_char"
    elif kind == "float":
        name = {4: "c_float", 8: "c_double"}.get(size, f"c_uint8 * {size}")
    elif size > 8:
        name = f"c_uint8 * {size}"
    else:
        name = f"c_{'' if kind == 'signed' else 'u'}int{8 * size}"
    if size > 1 and kind not in ("bool", "char") and leaf.order != sys.byteorder:
        name += ".__ctype_be__" if leaf.order == "big" else ".__ctype_le__"
    if leaf.is_bitfield:
        return f"{name}, {leaf.width}"
    return f"{name} * {leaf.length}" if leaf.length != 1 else name


def _format_fix(found: _Comparison) -> str:
    text = format_of(found.whole)
    if text is None:
        return (
            "no struct format says it: it has bitfields, members over one another, integers of 128 "
            "bits or two byte orders; use type.ctype"
        )
    return f"use {text!r}"


def format_of(whole: Type) -> str | None:
    """The struct format of ``whole``, padding written out; None where there is none."""
    members = leaves(whole)
    orders = {leaf.order for leaf in members if leaf.width > 8} or {whole.btf.byteorder}
    text, end = ">" if orders == {"big"} else "<", 0
    if len(orders) > 1:
        return None
    for leaf in members:
        kind = _kind(leaf)
        if leaf.bit < end or leaf.is_bitfield or leaf.width > 64:
            return None
        if leaf.bit > end:
            text += f"{(leaf.bit - end) // 8}x"
        if kind == "bool":
            letter = "?"
        elif kind == "float":
            letter = {32: "f", 64: "d"}.get(leaf.width, "")
        else:
            letter = _LETTERS[leaf.width][kind != "signed"]
        if not letter:
            return None
        if leaf.length != 1:
            letter = f"{leaf.length}{'s' if kind in ('char', 'byte') else letter}"
        elif kind == "char":
            letter = "c"
        text += letter
        end = leaf.end
    tail = 8 * whole.size - end
    return text + (f"{tail // 8}x" if tail else "")


# ---- dataclasses


class _Named(NamedTuple):
    """A member by name; those of a union may be left out."""

    name: str
    type: Type
    bit: int
    is_bitfield: bool
    is_optional: bool


def _named_members(composite: Composite, bit: int, is_optional: bool) -> Iterator[_Named]:
    is_optional = is_optional or composite.kind is Kind.UNION
    for member in composite.members:
        start = bit + member.bit_offset
        inner = member.type.resolve()
        if member.name:
            yield _Named(member.name, member.type, start, member.bitfield_size > 0, is_optional)
        elif isinstance(inner, Composite):
            yield from _named_members(inner, start, is_optional)


def _check_dataclass(whole: Type, user: Any) -> None:
    composite = whole.resolve()
    if not isinstance(composite, Composite):
        raise LayoutError(f"{whole} is no struct, {user.__name__} is a dataclass")
    members = list(_named_members(composite, 0, False))
    names = list(user.__dataclass_fields__)
    wanted = [member for member in members if member.name in names or not member.is_optional]
    if [member.name for member in wanted] != names:
        raise LayoutError(_names_differ(whole, user, members, wanted, names))
    hints = _hints(user)
    for member in wanted:
        hint = hints.get(member.name)
        is_own = isinstance(hint, type) and (
            _is_ctypes(hint) or hasattr(hint, "__dataclass_fields__")
        )
        if is_own and not member.is_bitfield:
            try:
                check_layout(member.type, hint)
            except LayoutError as error:
                raise LayoutError(f"{user.__name__}.{member.name}: {error}") from None


def _names_differ(
    whole: Type, user: Any, members: list[_Named], wanted: list[_Named], names: list[str]
) -> str:
    right = [member.name for member in wanted]
    first = next((at for at, (one, two) in enumerate(zip_longest(right, names)) if one != two), 0)
    rows = []
    for member, name in zip_longest(wanted, names):
        mark = ">" if member is None or name != member.name else " "
        offset = "" if member is None else place(member.bit)
        left = "" if member is None else f"       {member.type.declare(member.name)}"
        rows.append((mark, offset, left, f"       {name or ''}"))
    table = _shown(rows, first, (str(whole), f"dataclass {user.__name__}"))
    extra = [name for name in names if name not in {member.name for member in members}]
    if extra:
        fix = f"remove or rename {', '.join(map(repr, extra))}; the members are {', '.join(right)}"
    else:
        fix = f"the members are, in this order: {', '.join(right)}"
    return f"dataclass {user.__name__} has not the members of {whole}:\n\n{table}\n\nfix: {fix}"


def _hints(user: Any) -> dict[str, Any]:
    from typing import get_type_hints

    try:
        return get_type_hints(user)
    except NameError:  # an annotation for type checkers alone
        return dict(user.__annotations__)
