# SPDX-License-Identifier: BSD-2-Clause
"""Maps: what the kernel holds, as a mutable mapping; and, before load, what an object asks for.

How keys and values look in Python is told in pybpf.codec.  Imports are late here and few: the time
until a program is attached is measured, and needs none of them.
"""

from __future__ import annotations

import errno as _errno
import os

# collections.abc would import all of collections, which takes 1 ms
from _collections_abc import ItemsView, MutableMapping, ValuesView

from pybpf import _native
from pybpf._native import ffi, lib
from pybpf.errors import (
    ENOTSUPP,
    KernelError,
    MapFullError,
    NotSupportedError,
    PinError,
    StateError,
)
from pybpf.kernel import explained
from pybpf.kernel_object import Declared, FdBorrow, KernelObject

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pybpf._handles import OwnedFd
    from pybpf.btf import Type
    from pybpf.codec import Codecs
    from pybpf.constants import MapFlags, MapType
    from pybpf.info import MapInfo
    from pybpf.object import Object

_NOTHING = object()
_NAME_SIZE = 16  # BPF_OBJ_NAME_LEN, with the NUL


class Map(KernelObject, MutableMapping["Any", "Any"]):
    """A map that the kernel holds, as a mutable mapping.

    Made by Map.create(), .open_pinned(), .from_id() and .from_fd(), which own their descriptor:
    close it, or use ``with``.  The maps of an object are ObjectMaps.

    Iterating reads key by key.  Keys that are added meanwhile may or may not be seen; where the key
    just read is deleted meanwhile, the kernel starts a hash over, and keys may be seen twice.
    """

    _noun = "map"

    def __init__(self, fd: OwnedFd) -> None:
        self._fd = fd
        raw = _native.info(fd.fileno(), "struct bpf_map_info")
        self._name = _native.text(raw.name)
        self._type = int(raw.type)
        self._key_size = int(raw.key_size)
        self._value_size = int(raw.value_size)
        self._max_entries = int(raw.max_entries)
        self._flags = int(raw.map_flags)
        self._bound: Codecs | None = None

    # -- making one --

    @classmethod
    def create(
        cls,
        type: MapType,
        *,
        key_size: int,
        value_size: int,
        max_entries: int,
        name: str = "",
        flags: int = 0,
        inner_map: Map | None = None,
        numa_node: int | None = None,
        ifindex: int = 0,
        map_extra: int = 0,
    ) -> Map:
        """Create a map that no object declares; sizes in bytes, ``name`` at most 15 characters.

        The caller owns it: it ends with close() unless it is pinned or a program uses it.  Needs
        CAP_BPF for most types.  KernelError, PrivilegeError where the kernel refuses.
        """
        from pybpf import constants

        if numa_node is not None:
            flags |= constants.MapFlags.NUMA_NODE
        c_name = ffi.new("char[]", _native.c_string(name, "name"))
        if len(c_name) > _NAME_SIZE:
            raise ValueError(f"a map's name has at most 15 bytes: {name!r}")
        options = ffi.new("struct pybpf_map_options *")
        options.name = c_name
        options.type, options.flags = type, flags
        options.key_size, options.value_size = key_size, value_size
        options.max_entries, options.numa_node = max_entries, numa_node or 0
        options.ifindex, options.extra = ifindex, map_extra
        options.inner_map_fd = inner_map.fileno() if inner_map is not None else -1
        target = f"map {name!r} of type {constants.MapType(type).name}"
        fd = _native.check(lib.pybpf_map_create(options), "create", target, explained(KernelError))
        return cls._owning(fd, target)

    @staticmethod
    def _fd_by_id(id: int) -> int:
        return int(lib.bpf_map_get_fd_by_id(id))

    # -- what it is --

    @property
    def type(self) -> MapType:
        """The kind of map."""
        from pybpf.constants import MapType

        return MapType(self._type)

    @property
    def key_size(self) -> int:
        """Bytes of a key."""
        return self._key_size

    @property
    def value_size(self) -> int:
        """Bytes of a value (of one CPU's value in a per-CPU map)."""
        return self._value_size

    @property
    def max_entries(self) -> int:
        """How many entries it can hold; bytes for a ring buffer."""
        return self._max_entries

    @property
    def flags(self) -> MapFlags:
        """The flags of its creation."""
        from pybpf.constants import MapFlags

        return MapFlags(self._flags)

    @property
    def id(self) -> int:
        """The kernel's number of this map."""
        with self._borrow_fd() as fd:
            return int(_native.info(fd, "struct bpf_map_info").id)

    def info(self) -> MapInfo:
        """What the kernel tells of this map right now."""
        from pybpf import info

        with self._borrow_fd() as fd:
            return info.map_info(fd)

    # a Mapping would compare all entries, and so could not be hashed
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    # -- elements --

    def _codecs(self) -> Codecs:
        if self._bound is None:
            from pybpf.codec import Codecs

            self._bound = Codecs(self, None, None)
        return self._bound

    def lookup(self, key: Any, flags: int = 0) -> bytes | None:
        """The raw bytes of the value under ``key``, None where there is none.

        UpdateFlags.LOCK reads under the value's bpf_spin_lock.  A per-CPU map gives all CPUs'
        values, each rounded up to 8 bytes.
        """
        return self._lookup_raw(self._codecs().key.encode(key), flags)

    def _lookup_raw(self, raw_key: Any, flags: int = 0) -> bytes | None:
        size = self._codecs().value.size
        value = ffi.new("char[]", max(size, 1))
        with self._borrow_fd() as fd:
            code = lib.bpf_map_lookup_elem_flags(fd, raw_key, value, flags)
        if code == -_errno.ENOENT:
            return None
        if code < 0:
            raise self._refused("look up", code)
        return bytes(ffi.buffer(value, size))

    def put(self, key: Any, value: Any, flags: int = 0) -> None:
        """Store ``value`` under ``key``.

        UpdateFlags.NOEXIST only creates (KernelError with EEXIST otherwise), EXIST only replaces
        (KeyError otherwise), LOCK writes under the value's bpf_spin_lock.  MapFullError where there
        is no room, LayoutError and OverflowError where key or value do not fit.
        """
        codecs = self._codecs()
        raw_key, raw_value = codecs.key.encode(key), codecs.value.encode(value)
        with self._borrow_fd() as fd:
            code = lib.bpf_map_update_elem(fd, raw_key, raw_value, flags)
        if code == -_errno.ENOENT:
            raise KeyError(key)
        if code < 0:
            raise self._refused("update", code)

    def _delete_raw(self, raw_key: Any) -> bool:
        """Whether there was such a key."""
        with self._borrow_fd() as fd:
            code = lib.bpf_map_delete_elem_flags(fd, raw_key, 0)
        if code < 0 and code != -_errno.ENOENT:
            raise self._refused("delete from", code)
        return int(code) == 0

    def __getitem__(self, key: Any) -> Any:
        raw = self.lookup(key)
        if raw is None:
            raise KeyError(key)
        return self._codecs().value.decode(raw)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.put(key, value)

    def __delitem__(self, key: Any) -> None:
        if not self._delete_raw(self._codecs().key.encode(key)):
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return self.lookup(key) is not None

    def __iter__(self) -> Iterator[Any]:
        decode = self._codecs().key.decode
        for raw in self._raw_keys():
            yield decode(raw)

    def _raw_keys(self) -> Iterator[bytes]:
        size = self.key_size
        previous, following = ffi.NULL, ffi.new("char[]", max(size, 1))
        while True:
            with self._borrow_fd() as fd:
                code = lib.bpf_map_get_next_key(fd, previous, following)
            if code == -_errno.ENOENT:
                return
            if code < 0:
                raise self._refused("iterate", code)
            previous = bytes(ffi.buffer(following, size))
            yield previous

    def items(self) -> MapItems:
        """The entries; those that vanish while they are read, and empty slots, are left out."""
        return MapItems(self)

    def values(self) -> MapValues:
        """The values, as items() gives them."""
        return MapValues(self)

    def pop(self, key: Any, default: Any = _NOTHING) -> Any:
        """Remove ``key`` and return its value; ``default``, else KeyError, where it is not there.

        Of several that pop a key at once, one gets the value.
        """
        codecs = self._codecs()
        raw_key = codecs.key.encode(key)
        raw_value = self._lookup_raw(raw_key)
        if raw_value is not None and self._delete_raw(raw_key):
            return codecs.value.decode(raw_value)
        if default is _NOTHING:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[Any, Any]:
        """Remove some entry and return it; KeyError where there is none."""
        codecs = self._codecs()
        for raw_key in self._raw_keys():
            raw_value = self._lookup_raw(raw_key)
            if raw_value is not None and self._delete_raw(raw_key):
                return codecs.key.decode(raw_key), codecs.value.decode(raw_value)
        raise KeyError(f"map {self._name!r} is empty")

    def clear(self) -> None:
        """Delete every entry that is there now; KernelError for arrays, which always have all."""
        for raw_key in list(self._raw_keys()):
            self._delete_raw(raw_key)

    def __len__(self) -> int:
        """How many entries: counted key by key in a hash, ``max_entries`` of an array."""
        return self.max_entries if self._codecs().is_array else sum(1 for _ in self._raw_keys())

    def _refused(self, operation: str, code: int) -> KernelError:
        errno, target = -code, f"map {self.name!r}"
        if errno in (_errno.E2BIG, _errno.ENOSPC):
            hint = f"it holds max_entries={self.max_entries} entries already"
            return MapFullError(operation, target, errno, hint=hint)
        if errno in (ENOTSUPP, _errno.EOPNOTSUPP):
            hint = f"maps of type {self.type.name} have no such operation"
            return NotSupportedError(operation, target, _errno.EOPNOTSUPP, hint=hint)
        hints = {
            _errno.EEXIST: "the key is there already, and NOEXIST was asked for",
            _errno.EINVAL: f"a map of type {self.type.name} does not take this key, value or flag",
            _errno.EPERM: "the map is frozen, or read-only for this process",
        }
        error = explained(KernelError, lambda number: hints.get(number, ""))
        return error(operation, target, errno, "", "")

    def freeze(self) -> None:
        """Forbid every further change from user space, for good; Linux 5.2."""
        target = f"map {self._name!r}"
        with self._borrow_fd() as fd:
            _native.check(lib.bpf_map_freeze(fd), "freeze", target, explained(KernelError))


class MapItems(ItemsView["Any", "Any"]):
    """What Map.items() returns."""

    _mapping: Map

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        decode = self._mapping._codecs().key.decode
        for raw_key, value in _entries(self._mapping):
            yield decode(raw_key), value


class MapValues(ValuesView["Any"]):
    """What Map.values() returns."""

    _mapping: Map

    def __iter__(self) -> Iterator[Any]:
        for _, value in _entries(self._mapping):
            yield value


def _entries(mapping: Map) -> Iterator[tuple[bytes, Any]]:
    """Raw keys and decoded values: by the raw key, so that no key is lost in translation."""
    decode = mapping._codecs().value.decode
    for raw_key in mapping._raw_keys():
        raw_value = mapping._lookup_raw(raw_key)
        if raw_value is not None:
            yield raw_key, decode(raw_value)


class ObjectMap(Declared, Map):
    """A map that an object declares: configurable until load(), then a Map.

    Its descriptor belongs to the object and ends with it.  Setting a property after load() is a
    StateError; what libbpf or the kernel refuses is a KernelError.
    """

    def __init__(self, owner: Object, pointer: Any) -> None:
        self._owner = owner
        self._pointer = pointer
        self._name = _native.text(lib.bpf_map__name(pointer))
        self._bound = None
        self._inner: Map | None = None
        self._loaded_fd: int | None = None
        # as declared: libbpf forgets a type when the size is set
        self._key_type_id = int(lib.bpf_map__btf_key_type_id(pointer))
        self._value_type_id = int(lib.bpf_map__btf_value_type_id(pointer))

    @property
    def type(self) -> MapType:
        """The kind of map."""
        from pybpf.constants import MapType

        return MapType(self._get(lib.bpf_map__type))

    @type.setter
    def type(self, value: MapType) -> None:
        self._set("type", lib.bpf_map__set_type, value)

    @property
    def key_size(self) -> int:
        """Bytes of a key."""
        return int(self._get(lib.bpf_map__key_size))

    @key_size.setter
    def key_size(self, value: int) -> None:
        self._set("key_size", lib.bpf_map__set_key_size, value)

    @property
    def value_size(self) -> int:
        """Bytes of a value (of one CPU's value in a per-CPU map)."""
        return int(self._get(lib.bpf_map__value_size))

    @value_size.setter
    def value_size(self, value: int) -> None:
        self._set("value_size", lib.bpf_map__set_value_size, value)

    @property
    def max_entries(self) -> int:
        """How many entries it can hold; bytes for a ring buffer, rounded up by libbpf at load."""
        return int(self._get(lib.bpf_map__max_entries))

    @max_entries.setter
    def max_entries(self, value: int) -> None:
        self._set("max_entries", lib.bpf_map__set_max_entries, value)

    @property
    def flags(self) -> MapFlags:
        """``map_flags``: BPF_F_* of the map's creation."""
        from pybpf.constants import MapFlags

        return MapFlags(self._get(lib.bpf_map__map_flags))

    @flags.setter
    def flags(self, value: int) -> None:
        self._set("flags", lib.bpf_map__set_map_flags, value)

    @property
    def numa_node(self) -> int:
        """The NUMA node that holds the map's memory, where the flag NUMA_NODE is set."""
        return int(self._get(lib.bpf_map__numa_node))

    @numa_node.setter
    def numa_node(self, value: int) -> None:
        from pybpf import constants

        self._set("numa_node", lib.bpf_map__set_numa_node, value)
        self.flags |= constants.MapFlags.NUMA_NODE

    @property
    def ifindex(self) -> int:
        """The network device that a map is offloaded to, by its index; 0 for none."""
        return int(self._get(lib.bpf_map__ifindex))

    @ifindex.setter
    def ifindex(self, value: int) -> None:
        self._set("ifindex", lib.bpf_map__set_ifindex, value)

    @property
    def map_extra(self) -> int:
        """What only some types use, such as a bloom filter's number of hashes."""
        return int(self._get(lib.bpf_map__map_extra))

    @map_extra.setter
    def map_extra(self, value: int) -> None:
        self._set("map_extra", lib.bpf_map__set_map_extra, value)

    @property
    def autocreate(self) -> bool:
        """Whether load() creates the map; programs that use one left out do not load."""
        return bool(self._get(lib.bpf_map__autocreate))

    @autocreate.setter
    def autocreate(self, value: bool) -> None:
        self._set("autocreate", lib.bpf_map__set_autocreate, value)

    @property
    def pin_path(self) -> str | None:
        """Where load() pins the map, or takes it from if a compatible one is pinned there."""
        return self._get(lambda pointer: _native.text(lib.bpf_map__pin_path(pointer))) or None

    @pin_path.setter
    def pin_path(self, value: str | os.PathLike[str] | None) -> None:
        raw = ffi.NULL if value is None else _native.c_string(value, "pin_path")
        self._set("pin_path", lib.bpf_map__set_pin_path, raw)

    @property
    def inner_map(self) -> Map | None:
        """The map that serves as the pattern of what a map of maps holds, where one was set."""
        return self._inner

    @inner_map.setter
    def inner_map(self, value: Map) -> None:
        self._set("inner_map", lib.bpf_map__set_inner_map_fd, value.fileno())
        self._inner = value  # libbpf reads the descriptor only at load

    @property
    def is_internal(self) -> bool:
        """Whether libbpf made it for global variables: .rodata, .data, .bss, .kconfig."""
        return bool(self._get(lib.bpf_map__is_internal))

    def reuse(self, other: Map | str | os.PathLike[str]) -> None:
        """Let load() take ``other``, a Map or the path of a pinned one, instead of creating a map.

        PinError with both sides, field by field, where they do not agree.  The object takes a
        descriptor of its own; ``other`` stays the caller's.
        """
        if isinstance(other, Map):
            self._reuse(other)
            return
        with Map.open_pinned(other) as pinned:
            self._reuse(pinned)

    def _reuse(self, other: Map) -> None:
        # programs are verified against these; how many entries it holds is the map's own affair
        difference = self.differences(other, ("type", "key_size", "value_size"))
        if difference:
            raise PinError(
                f"reuse map {other.name!r} as", f"map {self._name!r}", _errno.EINVAL, difference
            )
        self._set("fd", lib.bpf_map__reuse_fd, other.fileno())

    def differences(self, other: Map, fields: tuple[str, ...]) -> str:
        """A table of those ``fields`` in which ``other`` is not what is declared here, or ""."""
        found = other.info()
        rows = [
            f"{field:<12} {_shown(getattr(self, field)):<16} {_shown(getattr(found, field))}"
            for field in fields
            if getattr(self, field) != getattr(found, field)
        ]
        header = f"{'':<12} {'this object':<16} existing map"
        return "\n".join([header, *rows]) if rows else ""

    def fileno(self) -> int:
        """The map's descriptor, which the object owns; StateError before load()."""
        with self._borrow_fd() as fd:
            return int(fd)

    def _borrow_fd(self) -> FdBorrow:
        if self._loaded_fd is None:
            self._owner._require_loaded(f"use map {self._name!r}")
            if not self.autocreate:
                raise StateError(f"map {self._name!r} was not created: its autocreate is off")
            self._loaded_fd = int(self._get(lib.bpf_map__fd))
        return FdBorrow(self._owner._handle.borrow(), self._loaded_fd)

    def _codecs(self) -> Codecs:
        if self._bound is None:
            self._owner._require_loaded(f"use map {self._name!r}")
            from pybpf.codec import Codecs

            self._bound = Codecs(self, self._btf_type(self._key_type_id), self.declared_value_type)
        return self._bound

    @property
    def declared_value_type(self) -> Type | None:
        """The BTF type that the map's declaration names as its value, which for a ring buffer is
        the type of its records; None where it names none."""
        return self._btf_type(self._value_type_id)

    def _btf_type(self, type_id: int) -> Type | None:
        types = self._owner.btf
        return types[type_id] if types is not None and type_id else None

    def close(self) -> None:
        """Maps of an object end with it."""
        raise StateError(f"map {self._name!r} belongs to its object; close that")


def _shown(value: object) -> str:
    return getattr(value, "name", None) or str(value)
