# SPDX-License-Identifier: BSD-2-Clause
"""What the kinds of maps have, what they never have, and what to do instead.

A kind that is not named here, such as one of a newer kernel, is taken for a hash without batches.
"""

from __future__ import annotations

import errno as _errno

from pybpf.constants import MapType
from pybpf.errors import ENOTSUPP, NotSupportedError

#: Where every index up to ``max_entries`` is a key.
ARRAYS = frozenset(
    {
        MapType.ARRAY,
        MapType.PERCPU_ARRAY,
        MapType.PROG_ARRAY,
        MapType.PERF_EVENT_ARRAY,
        MapType.CGROUP_ARRAY,
        MapType.ARRAY_OF_MAPS,
        MapType.DEVMAP,
        MapType.CPUMAP,
        MapType.XSKMAP,
        MapType.SOCKMAP,
        MapType.REUSEPORT_SOCKARRAY,
        MapType.STRUCT_OPS,
        MapType.INSN_ARRAY,
    }
)
BATCHED_ARRAYS = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})
#: Arrays whose every index always has a value; the slots of others may be empty.
WHOLE_ARRAYS = BATCHED_ARRAYS | {MapType.STRUCT_OPS, MapType.INSN_ARRAY}
#: Where a batch holds each key once: it goes bucket by bucket, each under its lock.
BATCHED_HASHES = frozenset(
    {
        MapType.HASH,
        MapType.LRU_HASH,
        MapType.PERCPU_HASH,
        MapType.LRU_PERCPU_HASH,
        MapType.HASH_OF_MAPS,
    }
)
PER_CPU = frozenset(
    {
        MapType.PERCPU_HASH,
        MapType.PERCPU_ARRAY,
        MapType.LRU_PERCPU_HASH,
        MapType.PERCPU_CGROUP_STORAGE,
    }
)
QUEUES = frozenset({MapType.QUEUE, MapType.STACK})
#: What has no keys, nor a value under None as queues have.
NO_ELEMENTS = frozenset(
    {MapType.RINGBUF, MapType.USER_RINGBUF, MapType.BLOOM_FILTER, MapType.ARENA}
)
#: What values, and keys, are given as: descriptors of something.
DESCRIPTOR_VALUES = frozenset(
    {
        MapType.PROG_ARRAY,
        MapType.PERF_EVENT_ARRAY,
        MapType.CGROUP_ARRAY,
        MapType.ARRAY_OF_MAPS,
        MapType.HASH_OF_MAPS,
        MapType.SOCKMAP,
        MapType.SOCKHASH,
        MapType.XSKMAP,
        MapType.REUSEPORT_SOCKARRAY,
    }
)
#: Where deleting what is not there is no error.
DELETES_NOTHING = frozenset({MapType.DEVMAP, MapType.CPUMAP})
LOCAL_STORAGES = frozenset(
    {
        MapType.SK_STORAGE,
        MapType.INODE_STORAGE,
        MapType.TASK_STORAGE,
        MapType.CGRP_STORAGE,
    }
)
CGROUP_STORAGES = frozenset({MapType.CGROUP_STORAGE, MapType.PERCPU_CGROUP_STORAGE})
_SOCKETS = frozenset(
    {MapType.SOCKMAP, MapType.SOCKHASH, MapType.REUSEPORT_SOCKARRAY, MapType.XSKMAP}
)

# ---- what a kind has instead of what was tried ---------------------------------------------------

_INSTEAD = {
    MapType.RINGBUF: "a RINGBUF holds records; read them with Object.events() or Map.reader()",
    MapType.USER_RINGBUF: "a USER_RINGBUF holds samples for programs, no entries; see Map.writer()",
    MapType.QUEUE: "a QUEUE has push(), peek(), pop() and pop_all() only",
    MapType.STACK: "a STACK has push(), peek(), pop() and pop_all() only",
    MapType.BLOOM_FILTER: "a bloom filter has push(value) and `value in map` only",
    MapType.ARENA: "an arena is memory: see Map.memory()",
    MapType.STACK_TRACE: "programs alone store stacks, by bpf_get_stackid(); read and delete them",
    MapType.STRUCT_OPS: "Object.attach() registers it, and the link's detach() ends that",
    MapType.PERF_EVENT_ARRAY: "its events cannot be read back, only stored and deleted",
    MapType.CGROUP_ARRAY: "its cgroups cannot be read back, only stored and deleted",
    MapType.XSKMAP: "its sockets cannot be read back, only stored and deleted",
}
_INSTEAD_OF_KINDS = (
    (
        LOCAL_STORAGES,
        "an entry is found by the thing of the kernel that it belongs to, and not listed",
    ),
    (CGROUP_STORAGES, "its entries come and go with programs that are attached to the cgroup"),
    (WHOLE_ARRAYS, "an array always has all its entries; store zero instead"),
)
_ONLY = {
    "push to": (QUEUES | {MapType.BLOOM_FILTER}, "queues, stacks and bloom filters have push()"),
    "peek at": (QUEUES, "queues and stacks have peek()"),
    "take frames from": (frozenset({MapType.STACK_TRACE}), "stack traces have frames()"),
    "map as an array the memory of": (frozenset({MapType.ARRAY}), "arrays have array()"),
    "read records of": (
        frozenset({MapType.RINGBUF, MapType.PERF_EVENT_ARRAY}),
        "ring buffers and perf event arrays have reader()",
    ),
    "write samples to": (frozenset({MapType.USER_RINGBUF}), "user ring buffers have writer()"),
    "store one CPU's value in": (PER_CPU, "per-CPU maps have a value for each CPU"),
}


def has(kind: MapType, operation: str) -> bool:
    """Whether maps of that kind have ``operation``, where that is one that few have."""
    return operation not in _ONLY or kind in _ONLY[operation][0]


def not_supported(kind: MapType, name: str, operation: str) -> NotSupportedError:
    """The error of an operation that maps of that kind do not have."""
    hint = _instead(kind, operation)
    return NotSupportedError(operation, f"map {name!r}", _errno.EOPNOTSUPP, hint=hint)


def _instead(kind: MapType, operation: str) -> str:
    if kind in _INSTEAD:
        return _INSTEAD[kind]
    if operation in _ONLY:
        return f"{_ONLY[operation][1]}; this is a {kind.name}"
    for kinds, hint in _INSTEAD_OF_KINDS:
        if kind in kinds:
            return hint
    return f"maps of type {kind.name} have no such operation"


def never(kind: MapType, operation: str, errno: int) -> bool:
    """Whether maps of that kind have no such operation at all, whatever the arguments."""
    if errno in (ENOTSUPP, _errno.EOPNOTSUPP):
        # what the kernel says of sockets of the wrong kind or state
        return not (kind in _SOCKETS and operation == "update")
    if errno != _errno.EINVAL:
        return False
    if operation in ("delete from", "pop from"):
        return kind in WHOLE_ARRAYS | QUEUES | CGROUP_STORAGES
    return operation == "update" and kind == MapType.STACK_TRACE


def says_absent(kind: MapType, errno: int) -> bool:
    """Whether that errno of a deletion says that there was no such key."""
    if errno == _errno.ENOENT:
        return True
    # of an empty slot or an index beyond the last, as the kind has it
    return kind in ARRAYS - WHOLE_ARRAYS and errno in (_errno.EINVAL, _errno.E2BIG)


# ---- why a key or value is refused ---------------------------------------------------------------

_SOCKET_STATES = "TCP sockets that are connected or listen, bound UDP and connected Unix ones"
_TAKES = {
    MapType.SOCKMAP: _SOCKET_STATES,
    MapType.SOCKHASH: _SOCKET_STATES,
    MapType.REUSEPORT_SOCKARRAY: "bound UDP and listening TCP sockets with SO_REUSEPORT",
    MapType.XSKMAP: "sockets of the family AF_XDP with a ring to receive by (XDP_RX_RING)",
    MapType.ARRAY_OF_MAPS: "maps of the type, sizes and flags of its inner_map",
    MapType.HASH_OF_MAPS: "maps of the type, sizes and flags of its inner_map",
    MapType.PROG_ARRAY: "programs of the type of those that call them",
    MapType.PERF_EVENT_ARRAY: "descriptors of perf_event_open(2)",
    MapType.CGROUP_ARRAY: "cgroups of version 2: folders, or descriptors of such",
    MapType.DEVMAP: 'interfaces, with programs of SEC("xdp/devmap")',
    MapType.DEVMAP_HASH: 'interfaces, with programs of SEC("xdp/devmap")',
    MapType.CPUMAP: 'sizes of queues up to 16384, with programs of SEC("xdp/cpumap")',
}
_STORED_FOR = {
    MapType.SK_STORAGE: "sockets or descriptors of such",
    MapType.INODE_STORAGE: "files: paths, or what has a descriptor",
    MapType.TASK_STORAGE: "processes: pids, or pidfds as objects with a fileno()",
    MapType.CGRP_STORAGE: "cgroups of version 2: folders, or descriptors of such",
}
_BAD_VALUES = (
    _errno.EBADF,
    _errno.EINVAL,
    _errno.ENOTSOCK,
    _errno.EOPNOTSUPP,
    _errno.EPROTOTYPE,
    _errno.EOVERFLOW,
    _errno.ENOBUFS,
)


def hint(kind: MapType, operation: str, errno: int) -> str:
    """Why the kernel may have refused this key, value or flag; "" where only it knows."""
    # a cpumap says ENOMEM of any program that it does not take
    if errno in _BAD_VALUES or (kind, errno) == (MapType.CPUMAP, _errno.ENOMEM):
        if kind in _STORED_FOR:
            return f"{kind.name} has values for {_STORED_FOR[kind]}"
        if kind in _TAKES and operation == "update":
            return f"{kind.name} takes {_TAKES[kind]}"
    if errno == _errno.ENOSPC and kind in _SOCKETS:
        return "sockets are read as cookies, which need values of 8 bytes"
    hints = {
        _errno.EEXIST: "the key is there already, and NOEXIST was asked for",
        _errno.EINVAL: f"a map of type {kind.name} does not take this key, value or flag",
        _errno.EPERM: "the map is frozen, or read-only for this process",
    }
    return hints.get(errno, "")


def full(kind: MapType, max_entries: int) -> str:
    """Why there is no room in a map."""
    if kind in ARRAYS:
        return f"its keys are 0 to {max_entries - 1}"
    return f"it holds max_entries={max_entries} entries already"
