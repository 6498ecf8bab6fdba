# SPDX-License-Identifier: BSD-2-Clause
"""BTF types as numpy dtypes of exactly their size and offsets; the only importer of numpy."""

from __future__ import annotations

from pybpf.btf import Composite, Enum, Float, Int, Pointer
from pybpf.errors import LayoutError
from pybpf.shape import DEPTH_LIMIT, byte_order, dimensions

try:
    import numpy as np
except ImportError as error:
    raise ModuleNotFoundError(
        "dtypes need numpy: pip install pybpf[numpy]", name="numpy"
    ) from error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf.btf import Member, Type

_INTEGER_SIZES = (1, 2, 4, 8)
_FLOAT_SIZES = (4, 8)
_SIZE_LIMIT = (1 << 31) - 1  # numpy keeps sizes in an int


def dtype(btf_type: Type) -> np.dtype[Any]:
    """The numpy dtype of ``btf_type``; always the same one.

    Structs and unions are structured, members of anonymous ones being their own; arrays are
    subarrays, ``char[N]`` is "S"; a ``_Bool`` is bool.  What numpy has no numbers for, integers of
    128 bits and a ``long double``, is bytes ("V16").  Bitfields that share bytes are one field of
    unsigned bytes, named "a,b"; :func:`bits` reads one of them.

    Raises LayoutError where :func:`pybpf.layout.ctype` does, ImportError without numpy.
    """
    return _dtype(btf_type, 0)


def bits(array: np.ndarray[Any, Any], btf_type: Type, name: str) -> np.ndarray[Any, Any]:
    """The bitfield ``name`` of each struct in ``array``, whose dtype is that of ``btf_type``.

    A new array of the same shape, of int64, uint64 or, for ``_Bool``, bool.
    """
    composite = btf_type.resolve()
    if array.dtype != dtype(btf_type):
        raise LayoutError(f"the array is of {array.dtype}, not of the dtype of {btf_type}")
    found = dict(_bitfields(composite, 0)) if isinstance(composite, Composite) else {}
    if name not in found:
        raise LayoutError(f"{btf_type} has no bitfield {name!r}; it has {', '.join(found)}")
    start, member = found[name]
    integer = member.type.resolve()
    width = member.bitfield_size
    first, end = start // 8, (start + width + 7) // 8
    raw = np.ascontiguousarray(array).view(np.uint8).reshape(*array.shape, composite.size)
    is_little = btf_type.btf.byteorder == "little"
    values = np.zeros(array.shape, np.uint64)
    # how far each byte's lowest bit is above that of the bitfield
    for at in range(first, end):
        shift = 8 * at - start if is_little else start + width - 8 * (at + 1)
        byte = raw[..., at].astype(np.uint64)
        values |= byte << np.uint64(shift) if shift >= 0 else byte >> np.uint64(-shift)
    values &= np.uint64((1 << width) - 1)
    if isinstance(integer, Int) and integer.is_bool:
        return values.astype(bool)
    if isinstance(integer, Int | Enum) and integer.is_signed:
        unused = np.int64(64 - width)
        signed: np.ndarray[Any, Any] = values.view(np.int64) << unused >> unused
        return signed
    return values


def _dtype(btf_type: Type, depth: int) -> np.dtype[Any]:
    known = btf_type.btf.dtypes.get(btf_type.id)
    if known is None:
        if depth > DEPTH_LIMIT:
            raise LayoutError(f"{btf_type} is nested more than {DEPTH_LIMIT} deep")
        if btf_type.size > _SIZE_LIMIT:
            raise LayoutError(f"{btf_type} takes {btf_type.size} bytes")
        known = btf_type.btf.dtypes.setdefault(btf_type.id, _new_dtype(btf_type, depth))
    return known  # type: ignore[return-value]  # btf cannot name what this module keeps there


def _new_dtype(btf_type: Type, depth: int) -> np.dtype[Any]:
    counts, element = dimensions(btf_type)
    scalar = element.resolve()
    if counts:
        if isinstance(scalar, Int) and scalar.name == "char":
            *counts, length = counts
            one: np.dtype[Any] = np.dtype(f"S{length}") if length else np.dtype("V0")
        else:
            one = _dtype(element, depth + 1)
        return np.dtype((one, tuple(counts))) if counts else one
    if isinstance(scalar, Composite):
        return _structured(scalar, depth)
    if isinstance(scalar, Float):
        letter = "f" if scalar.size in _FLOAT_SIZES else "V"
    elif isinstance(scalar, Int | Enum | Pointer):
        letter = "V" if scalar.size not in _INTEGER_SIZES else _integer(scalar)
    else:
        raise LayoutError(f"{btf_type} is a section; its variables have a layout each")
    if letter == "?" and scalar.size > 1:
        letter = "u"
    sized = "?" if letter == "?" else f"{letter}{scalar.size}"
    if letter != "V":
        sized = ("<" if byte_order(element) == "little" else ">") + sized
    return np.dtype(sized)


def _integer(scalar: Int | Enum | Pointer) -> str:
    if isinstance(scalar, Int) and scalar.is_bool:
        return "?"
    return "i" if not isinstance(scalar, Pointer) and scalar.is_signed else "u"


def _structured(composite: Composite, depth: int) -> np.dtype[Any]:
    fields: dict[str, tuple[np.dtype[Any], int]] = {}
    _add_members(fields, composite, 0, depth)
    for names, first, end in _runs(composite):
        order = "<" if composite.btf.byteorder == "little" else ">"
        size = end - first
        kind = f"{order}u{size}" if size in _INTEGER_SIZES else f"V{size}"
        fields[names] = np.dtype(kind), first
    try:
        return np.dtype(
            {
                "names": list(fields),
                "formats": [kind for kind, _ in fields.values()],
                "offsets": [offset for _, offset in fields.values()],
                "itemsize": composite.size,
            }
        )
    except ValueError as error:  # members beyond its end, in BTF that contradicts itself
        raise LayoutError(f"{composite}: {error}") from None


def _add_members(
    fields: dict[str, tuple[np.dtype[Any], int]], composite: Composite, start: int, depth: int
) -> None:
    for member in composite.members:
        if member.bitfield_size:
            continue
        offset = start + member.bit_offset // 8
        inner = member.type.resolve()
        if member.name:
            fields.setdefault(member.name, (_dtype(member.type, depth + 1), offset))
        elif isinstance(inner, Composite):
            if depth > DEPTH_LIMIT:
                raise LayoutError(f"{composite} is nested more than {DEPTH_LIMIT} deep")
            _add_members(fields, inner, offset, depth + 1)


def _bitfields(composite: Composite, start: int) -> list[tuple[str, tuple[int, Member]]]:
    """Name, first bit and member of each, in anonymous members too."""
    found: list[tuple[str, tuple[int, Member]]] = []
    for member in composite.members:
        inner = member.type.resolve()
        bit = start + member.bit_offset
        if member.bitfield_size and member.name:
            found.append((member.name, (bit, member)))
        elif not member.name and isinstance(inner, Composite):
            found += _bitfields(inner, bit)
    return found


def _runs(composite: Composite) -> list[tuple[str, int, int]]:
    """The bytes that bitfields share: their names, the first byte and the one behind the last."""
    runs: list[tuple[str, int, int]] = []
    for name, (bit, member) in _bitfields(composite, 0):
        first, end = bit // 8, (bit + member.bitfield_size + 7) // 8
        if runs and first < runs[-1][2]:
            names, start, last = runs.pop()
            runs.append((f"{names},{name}", min(start, first), max(last, end)))
        else:
            runs.append((name, first, end))
    return runs
