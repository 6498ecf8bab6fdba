# SPDX-License-Identifier: BSD-2-Clause
"""Where everything in a BTF type is: its scalars, its holes, and both as C with offsets."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from pybpf.btf import Array, Composite, Int, Kind, Modifier
from pybpf.errors import LayoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal, TypeAlias

    from pybpf.btf import Member, Type

    ByteOrder: TypeAlias = Literal["little", "big"]

# C nests no deeper in practice; only damaged BTF does, which may even contain itself.
DEPTH_LIMIT = 64
# Arrays of structs multiply; what has more parts than this is nothing to look at one by one.
_PART_LIMIT = 100_000

# Integers whose byte order is their own, whatever the machine's.
ORDERED_TYPEDEFS: dict[str, ByteOrder] = {
    "__be16": "big",
    "__be32": "big",
    "__be64": "big",
    "__le16": "little",
    "__le32": "little",
    "__le64": "little",
}


class Leaf(NamedTuple):
    """A scalar, or an array of scalars, and its place within the whole type.

    ``bit`` counts as BTF's members do; ``width`` is the bits of one element and
    ``length`` how many there are; ``type`` is the element's.
    """

    path: str
    bit: int
    width: int
    length: int
    type: Type
    order: ByteOrder
    is_bitfield: bool

    @property
    def end(self) -> int:
        """The first bit behind it."""
        return self.bit + self.width * self.length


class Hole(NamedTuple):
    """Padding: ``size`` bytes at ``offset``, behind the member ``after`` of ``owner``.

    ``after`` is a path from the outermost type ("pairs[1].c"), empty at the very start.  Beside
    bitfields padding may be less than bytes: it is the ``bits`` from ``bit`` on, and ``size``
    counts each byte that they touch.
    """

    offset: int
    size: int
    after: str
    bit: int
    bits: int
    owner: Composite

    @property
    def fix(self) -> str:
        """What to write in C behind the member to have no padding there: ``__u8 x_pad[3];``.

        Empty for a union, where the members are of different lengths.
        """
        if self.owner.kind is Kind.UNION:
            return ""
        name = f"{self.member}_pad".lstrip("_")
        if self.bits % 8 or self.bit % 8:
            return f"{'__u32' if self.bits <= 32 else '__u64'} {name} : {self.bits};"
        return f"__u8 {name}[{self.size}];" if self.size > 1 else f"__u8 {name};"

    @property
    def member(self) -> str:
        """The member of ``owner`` that the padding is behind: the last one on the path."""
        return self.after.rpartition(".")[2]


class _Walk:
    """A walk through a whole type, which ends where damaged BTF would have it go on and on."""

    def __init__(self, whole: Type) -> None:
        self.whole = whole
        self.parts = 0

    def step(self, depth: int) -> None:
        """One more part of the type, nested that deep."""
        self.parts += 1
        if depth > DEPTH_LIMIT:
            raise LayoutError(f"{self.whole} is nested more than {DEPTH_LIMIT} deep")
        if self.parts > _PART_LIMIT:
            raise LayoutError(f"{self.whole} has more than {_PART_LIMIT} members")


def leaves(whole: Type) -> list[Leaf]:
    """The scalars of ``whole`` in the order of declaration; those of a union lie over one another.

    Raises LayoutError for what has no values, and for more than can be looked at one by one.
    """
    return list(_leaves(whole, 0, _Walk(whole)))


def _leaves(part: Type, depth: int, walk: _Walk) -> Iterator[Leaf]:
    """The leaves as seen from the start of ``part``."""
    walk.step(depth)
    counts, element = dimensions(part)
    scalar = element.resolve()
    if not isinstance(scalar, Composite):
        yield Leaf("", 0, 8 * scalar.size, prod(counts), element, byte_order(element), False)
    elif counts:
        within = list(_leaves(scalar, depth + 1, walk))
        for start, position in elements(counts, scalar.size) if within else ():
            for leaf in within:
                walk.step(depth)
                yield leaf._replace(path=join(position, leaf.path), bit=leaf.bit + start)
    else:
        for member in scalar.members:
            for leaf in _leaves_of_member(member, depth, walk):
                path = join(member.name, leaf.path)
                yield leaf._replace(path=path, bit=leaf.bit + member.bit_offset)


def _leaves_of_member(member: Member, depth: int, walk: _Walk) -> Iterator[Leaf]:
    if not member.bitfield_size:
        yield from _leaves(member.type, depth + 1, walk)
    elif member.name:
        order = member.type.btf.byteorder
        yield Leaf("", 0, member.bitfield_size, 1, member.type, order, True)


def holes(whole: Type) -> list[Hole]:
    """The padding within ``whole``, in structs nested in it too, by offset.

    Of a union only what no member covers is padding.  An unnamed bitfield is padding as well: C
    initialises neither.  Raises LayoutError for more than can be looked at one by one.
    """
    return list(_holes(whole, 0, _Walk(whole)))


def _holes(part: Type, depth: int, walk: _Walk) -> Iterator[Hole]:
    """The holes as seen from the start of ``part``."""
    walk.step(depth)
    counts, element = dimensions(part)
    composite = element.resolve()
    if not isinstance(composite, Composite):
        return
    if counts:
        within = list(_holes(composite, depth + 1, walk))
        for start, position in elements(counts, composite.size) if within else ():
            for hole in within:
                walk.step(depth)
                yield _moved(hole, start, position)
    elif composite.kind is Kind.UNION:
        yield from _holes_of_union(composite, depth, walk)
    else:
        yield from _holes_of_struct(composite, depth, walk)


def _holes_of_struct(composite: Composite, depth: int, walk: _Walk) -> Iterator[Hole]:
    end, after = 0, ""
    for member in composite.members:
        size = _bits(member)
        if not size or (member.bitfield_size and not member.name):
            continue
        if member.bit_offset > end:
            yield _hole(end, member.bit_offset, after, composite)
        yield from _holes_of_member(member, depth, walk)
        end = max(end, member.bit_offset + size)
        after = member.name or _last_name(member)
    if 8 * composite.size > end:
        yield _hole(end, 8 * composite.size, after, composite)


def _holes_of_union(composite: Composite, depth: int, walk: _Walk) -> Iterator[Hole]:
    """What is a hole, or behind the end, in every member of the union."""
    common = [_hole(0, 8 * composite.size, "", composite)] if composite.size else []
    for member in composite.members:
        if member.bitfield_size and not member.name:
            continue
        own = list(_holes_of_member(member, depth, walk))
        end, name = _bits(member), member.name or _last_name(member)
        if end < 8 * composite.size:
            own.append(_hole(end, 8 * composite.size, name, composite))
        common = [
            _hole(later.bit, end, later.after, later.owner)
            for mine in common
            for other in own
            if (later := max(other, mine, key=_bit)).bit
            < (end := min(mine.bit + mine.bits, other.bit + other.bits))
        ]
    yield from common


def _bit(hole: Hole) -> int:
    return hole.bit


def _holes_of_member(member: Member, depth: int, walk: _Walk) -> Iterator[Hole]:
    if not member.bitfield_size:
        for hole in _holes(member.type, depth + 1, walk):
            yield _moved(hole, member.bit_offset, member.name)


def _hole(start: int, end: int, after: str, owner: Composite) -> Hole:
    """The hole from the bit ``start`` up to the bit ``end``."""
    size = (end + 7) // 8 - start // 8
    return Hole(start // 8, size, after, start, end - start, owner)


def _moved(hole: Hole, bits: int, path: str) -> Hole:
    """The hole within a type that starts at that bit and has that path."""
    return _hole(hole.bit + bits, hole.bit + bits + hole.bits, join(path, hole.after), hole.owner)


def _bits(member: Member) -> int:
    return member.bitfield_size or 8 * member.type.size


def _last_name(member: Member) -> str:
    """The last name in an anonymous struct or union, behind which one may write."""
    for _ in range(DEPTH_LIMIT):
        inner = member.type.resolve()
        if member.name or not (isinstance(inner, Composite) and inner.members):
            break
        member = inner.members[-1]
    return member.name


def definition(composite: Composite) -> str:
    """The C definition, with the place and size of each member and the padding told.

    Places count bytes, and bits within one where need be: ``1:4``.
    """
    lines = [(f"{composite} {{", ""), *_definition(composite, 0, 1, _Walk(composite))]
    lines.append(("};", f"size {composite.size}"))
    width = max(len(code) for code, _ in lines)
    return "\n".join(f"{code:<{width}}  /* {note} */" if note else code for code, note in lines)


def _definition(
    composite: Composite, start: int, depth: int, walk: _Walk
) -> Iterator[tuple[str, str]]:
    """The members as lines of code and a note on each."""
    walk.step(depth)
    margin = "    " * depth
    gaps = {} if composite.kind is Kind.UNION else _gaps(composite)
    for member in composite.members:
        if member.bit_offset in gaps:
            yield "", f"{amount(gaps.pop(member.bit_offset))} of padding"
        bit = start + member.bit_offset
        inner = member.type.resolve()
        if isinstance(inner, Composite) and not inner.name:
            yield f"{margin}{inner.kind.name.lower()} {{", ""
            yield from _definition(inner, bit, depth + 1, walk)
            yield f"{margin}}}{' ' * bool(member.name)}{member.name};", note(bit, 8 * inner.size)
        else:
            bits = f" : {member.bitfield_size}" if member.bitfield_size else ""
            yield f"{margin}{member.type.declare(member.name)}{bits};", note(bit, _bits(member))
    for size in gaps.values():
        yield "", f"{amount(size)} of padding"


def _gaps(composite: Composite) -> dict[int, int]:
    """The bits of padding in front of what begins at a bit, the struct's end included."""
    own = (hole for hole in holes(composite) if hole.owner is composite)
    return {hole.bit + hole.bits: hole.bits for hole in own}


def note(bit: int, size: int) -> str:
    """Where something is and how long, both in bits, as people read it."""
    return f"at {place(bit)}, {amount(size)}"


def place(bit: int) -> str:
    return f"{bit // 8}:{bit % 8}" if bit % 8 else str(bit // 8)


def amount(bits: int) -> str:
    if bits % 8:
        return f"{bits} bit{'s' * (bits > 1)}"
    return f"{bits // 8} byte{'s' * (bits != 8)}"


def join(path: str, name: str) -> str:
    """The path of ``name`` within ``path``; an anonymous one adds nothing."""
    if not path or not name or name.startswith("["):
        return path + name
    return f"{path}.{name}"


def dimensions(whole: Type) -> tuple[list[int], Type]:
    """The lengths of an array, the outermost first, and its element; no lengths for the rest."""
    counts: list[int] = []
    element = whole
    for _ in range(DEPTH_LIMIT):
        resolved = element.resolve()
        if not isinstance(resolved, Array):
            return counts, element
        counts.append(resolved.nelems)
        element = resolved.type
    raise LayoutError(f"{whole} has more than {DEPTH_LIMIT} dimensions")


def elements(counts: list[int], size: int) -> Iterator[tuple[int, str]]:
    """The first bit of each element of an array of those dimensions, and its place: ``[0][1]``."""
    for number in range(prod(counts)):
        place, rest = "", number
        for count in reversed(counts):
            rest, position = divmod(rest, count)
            place = f"[{position}]{place}"
        yield 8 * size * number, place


def byte_order(scalar: Type) -> ByteOrder:
    """The order of an integer's bytes: that of its typedef, or that of the BTF."""
    current = scalar
    for _ in range(DEPTH_LIMIT):
        if not isinstance(current, Modifier):
            break
        if current.name in ORDERED_TYPEDEFS and isinstance(current.resolve(), Int):
            return ORDERED_TYPEDEFS[current.name]
        current = current.target
    return scalar.btf.byteorder
