# SPDX-License-Identifier: BSD-2-Clause
"""Many elements of a map in few system calls, and all of them.

Reading all entries gives chunks: keys and values as two buffers and how many there are.  Where the
kernel reads in batches (hashes since Linux 5.6, arrays), it goes bucket by bucket under each
bucket's lock, so a key that is there throughout comes exactly once whatever else happens.  Where it
does not (older kernels, LPM tries, sockets), C goes from key to key, gives none twice, and raises
IterationAborted where the map changes faster than it can be read.
"""

from __future__ import annotations

import errno as _errno
import sys
from itertools import chain

from pybpf._native import ffi, lib
from pybpf.codec import NoKey
from pybpf.errors import ENOTSUPP, IterationAborted, MapFullError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any, TypeAlias

    from pybpf.access import Access

    Chunk: TypeAlias = tuple[memoryview, memoryview, int]

_CHUNK_BYTES = 1 << 20
_CHUNK_ENTRIES = 8192
_NO_BATCHES = (-_errno.EINVAL, -_errno.EOPNOTSUPP, -ENOTSUPP)  # EINVAL before Linux 5.6
# How many steps of a walk may lead to known or vanished keys: every entry some times, and some more
# in a small map.
_IN_VAIN_FACTOR, _IN_VAIN_MORE = 8, 10_000
# How many entries one call takes to C, where Ctrl-C has to wait: some milliseconds.
_CALL_ENTRIES = 1 << 15


def chunks(
    access: Access, entries: int | None = None, remove: bool = False, values: bool = True
) -> Iterator[Chunk]:
    """All entries, by ``entries`` in a system call (1: key by key), with ``remove`` taken out.

    The buffers of a chunk are used again for the next one.  Without ``values``, those need not be
    read: some maps of sockets have keys only.
    """
    if entries is not None and entries < 1:
        raise ValueError(f"batch_size is at least 1, not {entries}")
    require_keys(access, "iterate")
    usual = max(1, min(_CHUNK_ENTRIES, _CHUNK_BYTES // (_entry_size(access) or 1)))
    if entries != 1 and (access.can_pop_batches if remove else access.has_batches):
        batches = _batches(access, min(entries or usual, access.max_entries), remove)
        first = next(batches)
        if first is not None:
            return chain((first,), batches)  # type: ignore[arg-type]  # only the first is None
    if remove:
        if access.is_array and not access.has_slots:
            raise access.refusal("pop from")
        return _popped(access, usual)
    return _slots(access, usual) if access.is_array else _walk(access, usual, values)


def require_keys(access: Access, operation: str) -> None:
    """NotSupportedError where there are none, and so nothing to list or to name."""
    if isinstance(access.key, NoKey):
        raise access.refusal(operation)


def _entry_size(access: Access) -> int:
    return access.key_size + access.value.size


class _Buffers:
    """Room for the keys and values of one chunk."""

    def __init__(self, access: Access, capacity: int) -> None:
        self.capacity = capacity
        self.keys = ffi.new("char[]", max(1, capacity * access.key_size))
        self.values = ffi.new("char[]", max(1, capacity * access.value.size))

    def chunk(self, count: int) -> Chunk:
        return memoryview(ffi.buffer(self.keys)), memoryview(ffi.buffer(self.values)), count


def _batches(access: Access, capacity: int, remove: bool) -> Iterator[Chunk | None]:
    """Chunks by batch commands; None first where the kernel has none for this map."""
    buffers = _Buffers(access, capacity)
    # the kernel's own cursor: a bucket's number for hashes, a key for arrays
    size = max(access.key_size, 4)
    position, following = ffi.NULL, ffi.new("char[]", size)
    spare = ffi.new("char[]", size)
    count = ffi.new("uint32_t *")
    started = False
    while True:
        count[0] = buffers.capacity
        code = lib.pybpf_map_read_batch(
            access.handle, remove, position, following, buffers.keys, buffers.values, count, 0
        )
        if code == -_errno.ENOSPC:  # a bucket holds more than there is room for
            buffers = _Buffers(access, 2 * buffers.capacity)
            continue
        if not started and code in _NO_BATCHES:
            yield None
            return
        if code != -_errno.ENOENT:
            access.check(code, "read")
        started = True
        yield buffers.chunk(count[0])
        if code == -_errno.ENOENT:  # the end
            return
        position, following, spare = following, spare, following


def _slots(access: Access, capacity: int) -> Iterator[Chunk]:
    """The entries of an array that are not empty, index by index."""
    for start in range(0, access.max_entries, capacity):
        indexes = range(start, min(start + capacity, access.max_entries))
        keys = b"".join(number.to_bytes(4, sys.byteorder) for number in indexes)
        values, found = lookup_raw(access, keys, len(indexes), 0)
        if 0 not in found:
            yield memoryview(keys), values, len(indexes)
        else:
            yield _only(access, keys, values, [at for at, there in enumerate(found) if there])


def _only(access: Access, keys: bytes, values: memoryview, places: list[int]) -> Chunk:
    """A chunk of some places of another."""

    def picked(data: Any, size: int) -> memoryview:
        return memoryview(b"".join(bytes(data[at * size : (at + 1) * size]) for at in places))

    return picked(keys, access.key_size), picked(values, access.value.size), len(places)


def _walk(access: Access, capacity: int, values: bool = True) -> Iterator[Chunk]:
    buffers = _Buffers(access, capacity)
    limit = _IN_VAIN_FACTOR * access.max_entries + _IN_VAIN_MORE
    walk = ffi.gc(
        lib.pybpf_walk_new(access.handle, access.key_size, access.max_entries, limit),
        lib.pybpf_walk_free,
    )
    into = buffers.values if values else ffi.NULL
    while True:
        count = lib.pybpf_walk_next(walk, buffers.keys, into, access.value.size, capacity)
        if count == -_errno.EAGAIN:
            continue  # after a moment for signals
        if count == -_errno.ELOOP:
            raise IterationAborted(
                f"map {access.name!r} changes faster than it can be read key by key; a loop that "
                "deletes from it should go over a list of its keys"
            )
        access.check(count, "iterate")
        if count == 0:
            return
        yield buffers.chunk(count)


def _popped(access: Access, capacity: int) -> Iterator[Chunk]:
    """What _walk() gives, of which this removed each entry itself."""
    for keys, _, count in _walk(access, capacity, values=False):
        size = access.key_size
        raw_keys = [bytes(keys[at : at + size]) for at in range(0, count * size, size)]
        popped = [(raw_key, access.pop(raw_key)) for raw_key in raw_keys]
        there = [(raw_key, value) for raw_key, value in popped if value is not None]
        yield (
            memoryview(b"".join(raw_key for raw_key, _ in there)),
            memoryview(b"".join(value for _, value in there)),
            len(there),
        )


def pop_one(access: Access) -> tuple[bytes, bytes] | None:
    """Remove some entry; its key and value, None where there is none."""
    require_keys(access, "iterate")
    for key, value, count in _popped(access, 1):
        if count:
            return bytes(key), bytes(value)
    return None


# ---- all entries in Python -----------------------------------------------------------------------


def keys(access: Access) -> Iterator[Any]:
    """Every key."""
    if access.is_array:
        return iter(range(access.max_entries))
    decode = access.key.iterate_many
    return chain.from_iterable(
        decode(keys, count) for keys, _, count in chunks(access, values=False)
    )


def values(access: Access, entries: int | None) -> Iterator[Any]:
    """Every value."""
    decode = access.value.iterate_many
    return chain.from_iterable(
        decode(values, count) for _, values, count in chunks(access, entries)
    )


def items(access: Access, entries: int | None, remove: bool = False) -> Iterator[tuple[Any, Any]]:
    """Every key with its value."""
    return chain.from_iterable(_pairs(access, entries, remove))


def _pairs(
    access: Access, entries: int | None, remove: bool
) -> Iterator[Iterable[tuple[Any, Any]]]:
    decode_value = access.value.iterate_many
    for keys, values, count in chunks(access, entries, remove):
        decode_key = access.key.iterate_many
        yield zip(decode_key(keys, count), decode_value(values, count), strict=True)


def count(access: Access) -> int:
    """How many entries there are."""
    if access.is_array:
        return access.max_entries
    return sum(count for _, _, count in chunks(access, values=False))


# ---- many chosen entries -------------------------------------------------------------------------


def _calls(count: int) -> Iterator[tuple[int, int]]:
    """How ``count`` entries are shared out to calls of C: (the first, how many)."""
    return ((at, min(_CALL_ENTRIES, count - at)) for at in range(0, count, _CALL_ENTRIES))


def lookup_raw(access: Access, keys: Any, count: int, flags: int) -> tuple[memoryview, bytes]:
    """The values under ``count`` keys, one after the other, and a byte for each: is it there?"""
    key_size, value_size = access.key_size, access.value.size
    start = ffi.from_buffer(keys)
    values = ffi.new("char[]", max(1, count * value_size))
    found = ffi.new("char[]", max(1, count))
    for at, many in _calls(count):
        code = lib.pybpf_map_lookup_many(
            access.handle,
            start + at * key_size,
            key_size,
            values + at * value_size,
            value_size,
            found + at,
            many,
            flags,
        )
        access.check(code, "look up in")
    return memoryview(ffi.buffer(values)), bytes(ffi.buffer(found, count))


def lookup_many(access: Access, keys: Sequence[Any], default: Any, flags: int) -> list[Any]:
    """The values under ``keys``, ``default`` for each that is not there."""
    require_keys(access, "look up in")
    raw_keys = access.key.encode_many(keys)
    values, found = lookup_raw(access, raw_keys, len(keys), flags)
    decoded = list(access.value.decode_many(values, len(keys)))
    if 0 in found:
        for at, there in enumerate(found):
            if not there:
                decoded[at] = default
    return decoded


def update_raw(access: Access, keys: Any, values: Any, count: int, flags: int) -> None:
    """Store ``count`` values under as many keys."""
    key_size, value_size = access.key_size, access.value.size
    start, values = ffi.from_buffer(keys), ffi.from_buffer(values)
    done = ffi.new("uint32_t *")
    for at, many in _calls(count):
        code = lib.pybpf_map_update_many(
            access.handle,
            start + at * key_size,
            key_size,
            values + at * value_size,
            value_size,
            many,
            flags,
            done,
        )
        if code < 0:
            error = access.refusal("update", -code)
            if isinstance(error, MapFullError):
                error.hint += f"; {at + done[0]} of the {count} were stored"
            raise error


def update_many(access: Access, keys: Sequence[Any], values: Sequence[Any], flags: int) -> None:
    """Store each of ``values`` under the key at its place in ``keys``."""
    if len(keys) != len(values):
        raise ValueError(f"{len(keys)} keys and {len(values)} values")
    require_keys(access, "update")
    raw_keys = access.key.encode_many(keys)
    raw_values = access.value.encode_many(values)
    update_raw(access, raw_keys, raw_values, len(keys), flags)


def delete_many(access: Access, keys: Sequence[Any]) -> int:
    """Delete ``keys``; how many of them were there."""
    require_keys(access, "delete from")
    if access.has_slots:
        return sum(access.delete(access.key.encode(key)) for key in keys)
    return _delete_raw(access, access.key.encode_many(keys), len(keys))


def _delete_raw(access: Access, keys: Any, count: int) -> int:
    start = ffi.from_buffer(keys)
    removed, total = ffi.new("uint32_t *"), 0
    for at, many in _calls(count):
        place = start + at * access.key_size
        code = lib.pybpf_map_delete_many(access.handle, place, access.key_size, many, removed)
        access.check(code, "delete from")
        total += removed[0]
    return total


def clear(access: Access) -> None:
    """Delete every entry that is there now."""
    if access.is_array:  # not by what can be read: some kinds cannot be
        for number in range(access.max_entries):
            access.delete(number.to_bytes(4, sys.byteorder))
        return
    size = access.key_size
    entries = chunks(access, values=False)
    found = [(bytes(keys[: count * size]), count) for keys, _, count in entries]
    for keys, count in found:
        _delete_raw(access, keys, count)
