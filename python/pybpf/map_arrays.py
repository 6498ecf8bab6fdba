# SPDX-License-Identifier: BSD-2-Clause
"""Elements of maps as numpy arrays; numpy is imported here only when this is."""

from __future__ import annotations

from pybpf import bulk, layout, map_memory
from pybpf.codec import LETTERS, NATIVE, PerCpuCodec
from pybpf.errors import LayoutError

try:
    import numpy
except ImportError:
    raise ImportError("this needs numpy: pip install 'pybpf[numpy]'") from None

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from pybpf.access import Access
    from pybpf.codec import Codec
    from pybpf.map import Map

    Array: TypeAlias = numpy.ndarray[Any, Any]


def dtype(codec: Codec) -> numpy.dtype[Any]:
    """What numpy calls one key or value."""
    if isinstance(codec, PerCpuCodec):
        return dtype(codec.one)
    if codec.type is not None:
        return codec.type.dtype
    letter = LETTERS.get(codec.size)
    return numpy.dtype(NATIVE + letter if letter else f"V{codec.size}")


def _spaced(one: numpy.dtype[Any], stride: int) -> numpy.dtype[Any]:
    """``one`` followed by what fills it up to ``stride`` bytes; the field is called "value"."""
    return numpy.dtype({"names": ["value"], "formats": [one], "offsets": [0], "itemsize": stride})


def _entries(codec: Codec, data: Any, count: int) -> Array:
    """``count`` keys or values of ``data``, with a dimension more where there is one per CPU."""
    if not isinstance(codec, PerCpuCodec):
        return numpy.frombuffer(data, dtype(codec), count)
    spaced = _spaced(dtype(codec), codec.stride)
    return numpy.frombuffer(data, spaced, count * codec.cpus)["value"].reshape(count, codec.cpus)


def read(access: Access) -> tuple[Array, Array]:
    """Map.to_numpy()."""
    bulk.require_keys(access, "iterate")
    keys, values, total = bytearray(), bytearray(), 0  # numpy would join structs without padding
    for raw_keys, raw_values, count in bulk.chunks(access):
        keys += raw_keys[: count * access.key.size]
        values += raw_values[: count * access.value.size]
        total += count
    return _entries(access.key, keys, total), _entries(access.value, values, total)


def write(access: Access, keys: Any, values: Any, flags: int) -> None:
    """Map.update_numpy()."""
    bulk.require_keys(access, "update")
    raw_keys = _cleaned(_converted(keys, access.key), access.key)
    raw_values = _cleaned(_converted(values, access.value), access.value)
    if isinstance(access.value, PerCpuCodec):
        raw_values = _spread(raw_values, access.value)
    if len(raw_keys) != len(raw_values):
        raise ValueError(f"{len(raw_keys)} keys and {len(raw_values)} values")
    bulk.update_raw(
        access,
        numpy.ascontiguousarray(raw_keys).view("B"),
        numpy.ascontiguousarray(raw_values).view("B"),
        len(raw_keys),
        flags,
    )


def _converted(given: Any, codec: Codec) -> Array:
    """``given`` as an array of what ``codec`` says, one for each entry; nothing is cut off."""
    array, wanted = numpy.asarray(given), dtype(codec)
    each: tuple[int, ...] = (codec.cpus,) if isinstance(codec, PerCpuCodec) else ()
    each += wanted.shape  # of keys or values that are arrays themselves
    if array.ndim == 0 or array.shape[1:] != each:
        shape = ", ".join(map(str, ("entries", *each)))
        raise LayoutError(f"a {codec.what} takes arrays of shape ({shape}), not {array.shape}")
    if array.dtype == wanted.base:
        return array
    if wanted.base.names or array.dtype.kind not in "iub":
        raise LayoutError(f"a {codec.what} is of dtype {wanted.base}, not {array.dtype}")
    converted = array.astype(wanted.base)
    if not (converted == array).all():
        raise OverflowError(f"not all of these fit {codec.what} as {wanted.base}")
    return converted


def _cleaned(array: Array, codec: Codec) -> Array:
    """``array`` with zeros for padding, in which numpy leaves what was there."""
    one = codec.one if isinstance(codec, PerCpuCodec) else codec
    if one.type is None or not layout.has_padding(one.type):
        return array
    members = numpy.frombuffer(layout.member_bits(one.type), "B")
    data = numpy.ascontiguousarray(array).view("B").reshape(-1, one.size) & members
    cleaned: Array = data.view(array.dtype).reshape(array.shape)
    return cleaned


def _spread(values: Array, codec: PerCpuCodec) -> Array:
    """Values for each CPU, with what rounds them up to 8 bytes."""
    spread = numpy.zeros((len(values), codec.cpus), _spaced(dtype(codec), codec.stride))
    spread["value"] = values
    return spread


def live(map: Map) -> Array:
    """Map.array()."""
    access = map._elements()
    access.require("map as an array the memory of")
    one, stride = dtype(access.value), map_memory.stride(map.value_size)
    memory = map_memory.raw(map)
    if one.itemsize == stride:
        return numpy.frombuffer(memory, one, map.max_entries)
    return numpy.frombuffer(memory, _spaced(one, stride), map.max_entries)["value"]
