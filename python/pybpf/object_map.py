# SPDX-License-Identifier: BSD-2-Clause
"""The maps of an object: what it asks for before load, and what the kernel holds afterwards."""

from __future__ import annotations

import errno as _errno
import os

from pybpf import _native
from pybpf._native import ffi, lib
from pybpf.errors import AttachError, NotSupportedError, PinError, StateError
from pybpf.holds import LibbpfHold, RegistrationHold
from pybpf.kernel import explained
from pybpf.kernel_object import Declared, FdBorrow
from pybpf.map import K, Map, V

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf._handles import Borrow
    from pybpf.btf import Btf, Type
    from pybpf.constants import MapFlags, MapType
    from pybpf.events import Reader
    from pybpf.link import Link
    from pybpf.object import Object
    from pybpf.user_ring import UserRing


# of MapType, without the enum's import
_PERF_EVENT_ARRAY = 4
_STRUCT_OPS = 26
RING_TYPES = (27, 31)  # RINGBUF, USER_RINGBUF
_LINK = 1 << 13  # of MapFlags

# libbpf
_RESIZES_SECTIONS = (1, 3)
LEAVES_OUT_OPS = (1, 4)


class ObjectMap(Declared, Map[K, V]):
    """A map that an object declares: configurable until load(), then a Map.

    Its descriptor belongs to the object and ends with it.  Setting a property after load() is a
    StateError; what libbpf or the kernel refuses is a KernelError.
    """

    def __init__(self, owner: Object, pointer: Any) -> None:
        self._owner = owner
        self._pointer = pointer
        self._name = _native.text(lib.bpf_map__name(pointer))
        self._key_type = self._value_type = None
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
        if self.is_internal and _native.version() < _RESIZES_SECTIONS:
            hint = "libbpf resizes sections of variables since 1.3"
            target = f"map {self._name!r}"
            raise NotSupportedError("set value_size of", target, _errno.EOPNOTSUPP, hint=hint)
        self._set("value_size", lib.bpf_map__set_value_size, value)

    @property
    def max_entries(self) -> int:
        """How many entries it can hold; bytes for a ring buffer, rounded up by libbpf at load."""
        return int(self._get(lib.bpf_map__max_entries))

    @max_entries.setter
    def max_entries(self, value: int) -> None:
        if self.is_internal and value != 1:  # libbpf would map more than it has made room for
            raise ValueError(f"map {self._name!r} holds variables: it has one entry, not {value}")
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
        """Whether load() creates the map; programs that use one left out do not load.

        Leaving out a struct_ops map takes libbpf 1.4: NotSupportedError before.
        """
        return bool(self._get(lib.bpf_map__autocreate))

    @autocreate.setter
    def autocreate(self, value: bool) -> None:
        # older ones make it all the same, and crash where no program needs the kernel's types
        if not value and self.type == _STRUCT_OPS and _native.version() < LEAVES_OUT_OPS:
            hint = "libbpf leaves struct_ops maps out since 1.4"
            target = f"map {self._name!r}"
            raise NotSupportedError("leave out", target, _errno.EOPNOTSUPP, hint=hint)
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
        difference = self.differences(other, self.kind_fields)
        if difference:
            raise PinError(
                f"reuse map {other.name!r} as", f"map {self._name!r}", _errno.EINVAL, difference
            )
        self._set("fd", lib.bpf_map__reuse_fd, other.fileno())

    @property
    def kind_fields(self) -> tuple[str, ...]:
        """What another map must have in common to take its place: programs are verified for it.

        How many entries it holds is the map's own affair, and sizes of rings just tell a type.
        """
        if self._get(lib.bpf_map__type) in RING_TYPES:
            return ("type",)
        return ("type", "key_size", "value_size")

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

    def attach(self) -> Link:
        """Register a struct_ops map: have the kernel call its programs; the link is the object's.

        One of section ".struct_ops.link" (Linux 6.4, libbpf 1.2) can be pinned, and another put in
        its place by link.update_map().  One of section ".struct_ops" cannot, and the kernel keeps
        it where the process is killed before detach() or close().

        StateError before load(), AttachError for another kind of map and where the kernel refuses.
        Linux 5.6; CAP_BPF and CAP_NET_ADMIN or, for schedulers, CAP_SYS_ADMIN.
        """
        what = f"struct_ops map {self._name!r}"
        has_link = self._get(lib.bpf_map__map_flags) & _LINK
        hold = LibbpfHold() if has_link else RegistrationHold()
        with self._owner._attaching, self._borrow_fd():
            _native.listen()
            code = lib.pybpf_register(self._pointer, hold.place)
            refuse = explained(AttachError, _register_hint, ("CAP_BPF", "CAP_NET_ADMIN"))
            _native.check(code, "register", what, refuse)
        return self._owner._adopt_link(hold, what, self, lambda other: other.attach())

    def _fill_struct_ops(self) -> None:
        with self._borrow_fd():
            lib.pybpf_fill_struct_ops(self._pointer)

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

    def _borrow_life(self) -> Borrow:
        return self._owner._handle.borrow()

    def _types(self) -> tuple[Type | None, Type | None]:
        return self._declared_types()  # which load() may change

    def _declared_types(self) -> tuple[Type | None, Type | None]:
        if self._owner.state == "loaded" and self.type == _STRUCT_OPS:
            return super()._declared_types()  # the kernel's type is around the declared one
        return self._btf_type(self._key_type_id), self.declared_value_type

    @property
    def declared_value_type(self) -> Type | None:
        """The BTF type that the map's declaration names as its value, which for a ring buffer is
        the type of its records; None where it names none."""
        return self._btf_type(self._value_type_id)

    def _record_type(self) -> Type | None:
        # the values of a perf event array are descriptors
        return self.declared_value_type if self.type != _PERF_EVENT_ARRAY else None

    def _record_btf(self) -> Btf | None:
        return self._owner.btf

    def _btf_type(self, type_id: int) -> Type | None:
        types = self._owner.btf
        return types[type_id] if types is not None and type_id else None

    def _adopt(self, ring: Reader | UserRing) -> Object:
        self._owner._adopt(ring)
        return self._owner

    def _lend_arena(self) -> tuple[Any, Borrow, object] | None:
        # libbpf has mapped it, and the kernel allows one mapping per process
        self._owner._require_loaded(f"use map {self._name!r}")
        borrow = self._owner._handle.borrow()
        borrow.__enter__()
        start = lib.bpf_map__initial_value(self._pointer, ffi.new("size_t *"))
        if start == ffi.NULL:  # libbpf before 1.4 knows no arenas
            borrow.__exit__()
            return None
        return start, borrow, self._owner

    def _end_access(self) -> None:
        """What Object.close() does with the descriptor that element access has of its own."""
        if self._access is not None:
            self._access.close()

    def close(self) -> None:
        """Maps of an object end with it."""
        raise StateError(f"map {self._name!r} belongs to its object; close that")


def _register_hint(errno: int) -> str:
    if errno == _errno.EEXIST:
        return "ops of this name are registered already"
    if errno == _errno.EBUSY:
        return "these are registered already, or others where the kernel takes one alone"
    return ""


def _shown(value: object) -> str:
    return getattr(value, "name", None) or str(value)
