# SPDX-License-Identifier: BSD-2-Clause
"""Where everything in a BTF type is: its scalars, its holes, and both as C with offsets."""

from __future__ import annotations

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
# Arrays of structs multiply; what has more scalars than this is nothing to compare one by one.
_LEAF_LIMIT = 100_000

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
    ``length`` how many there are.  ``type`` is the element's, below typedefs.
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
        """What to write in C behind ``after`` to have no padding there: ``__u8 pad[3];``.

        Empty for a union, where the members are of different lengths.
        """
        if self.owner.kind is Kind.UNION:
            return ""
        if self.bits % 8 or self.bit % 8:
            return f"{'__u32' if self.bits <= 32 else '__u64'} pad : {self.bits};"
        return f"__u8 pad[{self.size}];" if self.size > 1 else "__u8 pad;"


def leaves(whole: Type) -> list[Leaf]:
    """The scalars of ``whole`` in the order of declaration; those of a union lie over one another.

    Raises LayoutError for what has no values, and for more than can be looked at one by one.
    """
    found: list[Leaf] = []
    for leaf in _leaves(whole, "", 0, 0):
        if len(found) == _LEAF_LIMIT:
            raise LayoutError(f"{whole} has more than {_LEAF_LIMIT} members to compare")
        found.append(leaf)
    return found


def _leaves(whole: Type, path: str, bit: int, depth: int) -> Iterator[Leaf]:
    _check_depth(whole, depth)
    order = whole.btf.byteorder
    resolved = whole.resolve()
    if isinstance(resolved, Composite):
        for member in resolved.members:
            inner = join(path, member.name)
            start = bit + member.bit_offset
            if not member.bitfield_size:
                yield from _leaves(member.type, inner, start, depth + 1)
            elif member.name:
                integer = member.type.resolve()
                yield Leaf(inner, start, member.bitfield_size, 1, integer, order, True)
        return
    counts, element = dimensions(whole)
    scalar = element.resolve()
    if isinstance(scalar, Composite):
        for position in positions(counts):
            yield from _leaves(element, path + position, bit, depth + 1)
            bit += 8 * scalar.size
        return
    length = 1
    for count in counts:
        length *= count
    yield Leaf(path, bit, 8 * scalar.size, length, scalar, byte_order(element), False)


def holes(whole: Type) -> list[Hole]:
    """The padding within ``whole``, in structs nested in it too, by offset.

    Of a union only what no member covers is padding.  An unnamed bitfield is padding as well: C
    initialises neither.
    """
    return list(_holes(whole, "", 0))


def _holes(whole: Type, path: str, depth: int) -> Iterator[Hole]:
    _check_depth(whole, depth)
    counts, element = dimensions(whole)
    composite = element.resolve()
    if not isinstance(composite, Composite):
        return
    if counts:
        within = list(_holes(composite, "", depth + 1))
        start = 0
        for position in positions(counts):
            yield from (_moved(hole, start, path + position) for hole in within)
            start += 8 * composite.size
    elif composite.kind is Kind.UNION:
        yield from _holes_of_union(composite, path, depth)
    else:
        yield from _holes_of_struct(composite, path, depth)


def _holes_of_struct(composite: Composite, path: str, depth: int) -> Iterator[Hole]:
    end, after = 0, ""
    for member in composite.members:
        size = _bits(member)
        if not size or (member.bitfield_size and not member.name):
            continue
        if member.bit_offset > end:
            yield _hole(end, member.bit_offset, join(path, after), composite)
        yield from _holes_of_member(member, path, depth)
        end = max(end, member.bit_offset + size)
        after = member.name or _last_name(member)
    if 8 * composite.size > end:
        yield _hole(end, 8 * composite.size, join(path, after), composite)


def _holes_of_union(composite: Composite, path: str, depth: int) -> Iterator[Hole]:
    """What is a hole, or behind the end, in every member of the union."""
    common: list[Hole] | None = None
    for member in composite.members:
        if member.bitfield_size and not member.name:
            continue
        own = list(_holes_of_member(member, path, depth))
        end, name = _bits(member), member.name or _last_name(member)
        if end < 8 * composite.size:
            own.append(_hole(end, 8 * composite.size, join(path, name), composite))
        if common is None:
            common = own
        else:
            common = [
                _hole(later.bit, end, later.after, later.owner)
                for mine in common
                for other in own
                if (later := max(mine, other, key=_bit)).bit
                < (end := min(mine.bit + mine.bits, other.bit + other.bits))
            ]
    yield from common or ()


def _bit(hole: Hole) -> int:
    return hole.bit


def _holes_of_member(member: Member, path: str, depth: int) -> Iterator[Hole]:
    if not member.bitfield_size:
        for hole in _holes(member.type, join(path, member.name), depth + 1):
            yield _moved(hole, member.bit_offset, "")


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
    inner = member.type.resolve()
    members = inner.members if isinstance(inner, Composite) else ()
    return (members[-1].name or _last_name(members[-1])) if members else ""


def _check_depth(whole: Type, depth: int) -> None:
    if depth > DEPTH_LIMIT:
        raise LayoutError(f"{whole} is nested more than {DEPTH_LIMIT} deep")


def definition(composite: Composite) -> str:
    """The C definition, with the place and size of each member and the padding told.

    Places count bytes, and bits within one where need be: ``1:4``.
    """
    lines = [(f"{composite} {{", ""), *_definition(composite, 0, 1)]
    lines.append(("};", f"size {composite.size}"))
    width = max(len(code) for code, _ in lines)
    return "\n".join(f"{code:<{width}}  /* {note} */" if note else code for code, note in lines)


def _definition(composite: Composite, start: int, depth: int) -> Iterator[tuple[str, str]]:
    """The members as lines of code and a note on each."""
    _check_depth(composite, depth)
    margin = "    " * depth
    gaps = {} if composite.kind is Kind.UNION else _gaps(composite)
    for member in composite.members:
        if member.bit_offset in gaps:
            yield "", f"{amount(gaps.pop(member.bit_offset))} of padding"
        bit = start + member.bit_offset
        inner = member.type.resolve()
        if isinstance(inner, Composite) and not inner.name:
            yield f"{margin}{inner.kind.name.lower()} {{", ""
            yield from _definition(inner, bit, depth + 1)
            yield f"{margin}}}{' ' * bool(member.name)}{member.name};", note(bit, 8 * inner.size)
        else:
            bits = f" : {member.bitfield_size}" if member.bitfield_size else ""
            yield f"{margin}{member.type.declare(member.name)}{bits};", note(bit, _bits(member))
    for size in gaps.values():
        yield "", f"{amount(size)} of padding"


def _gaps(composite: Composite) -> dict[int, int]:
    """The bits of padding in front of what begins at a bit, the struct's end included."""
    own = (hole for hole in _holes_of_struct(composite, "", 0) if hole.owner is composite)
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


def positions(counts: list[int]) -> Iterator[str]:
    """Each element of an array of those dimensions, as C writes it: ``[0][1]``."""
    if not counts:
        yield ""
        return
    for number in range(counts[0]):
        for rest in positions(counts[1:]):
            yield f"[{number}]{rest}"


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
