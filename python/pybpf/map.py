# SPDX-License-Identifier: BSD-2-Clause
"""Maps: what the kernel holds, as a mutable mapping typed by BTF.

How keys and values look in Python is told in pybpf.codec, what many at once do in pybpf.bulk.
Reading, storing and deleting one integer or plain struct is C (pybpf._fast): what it does not
take comes here, to _getitem() and the others.  Imports are late here and few: the time until a
program is attached is measured, and needs none of them.
"""

from __future__ import annotations

import errno as _errno

# collections.abc would import all of collections, which takes 1 ms
from _collections_abc import ItemsView, Mapping, MutableMapping, ValuesView

from pybpf import _native
from pybpf._native import Elements, ffi, lib
from pybpf.errors import (
    ClosedError,
    KernelError,
    LayoutError,
    LayoutWarning,
    NotSupportedError,
    PrivilegeError,
)
from pybpf.kernel import explained
from pybpf.kernel_object import KernelObject

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    import numpy
    from typing_extensions import TypeVar

    from pybpf._handles import Borrow, OwnedFd
    from pybpf.access import Access
    from pybpf.btf import Btf, Type
    from pybpf.constants import MapFlags, MapType
    from pybpf.events import Reader
    from pybpf.info import MapInfo
    from pybpf.object import Object
    from pybpf.record_types import RecordTypeArgument
    from pybpf.symbols import Frame
    from pybpf.user_ring import SampleType, UserRing

    K = TypeVar("K", default=Any)
    V = TypeVar("V", default=Any)
    _Elements = Elements
else:
    K = V = object

    class _Elements(Elements):
        """Elements in C, which knows nothing of type parameters."""

        __slots__ = ()

        def __class_getitem__(cls, parameters):
            return cls


_NOTHING = object()
_PERF_EVENT_ARRAY = 4  # of MapType, without the enum's import
_NAME_SIZE = 16  # BPF_OBJ_NAME_LEN, with the NUL
_F_CPU = 8  # BPF_F_CPU, Linux 6.19
_F_STACK_BUILD_ID = 1 << 5  # of MapFlags
_BLOOM_FILTER = 30  # of MapType, without the enum's import


class Map(KernelObject, _Elements[K, V], MutableMapping[K, V]):
    """A map that the kernel holds, as a mutable mapping.

    Made by Map.create(), .open_pinned(), .from_id() and .from_fd(), which own their descriptor:
    close it, or use ``with``.  The maps of an object are ObjectMaps.

    Keys and values have the types that BTF gives them: ints (also for enums, pointers and bools),
    Chars for ``char[N]``, Struct for structs and unions, lists for arrays (tuples where they are
    keys), PerCpu (a list) for per-CPU maps, ``ipaddress`` networks for the keys of LPM tries;
    without BTF, ints for 1, 2, 4 and 8 bytes and bytes for other sizes.  Also accepted are
    enumerators' names, tuples and dicts for structs, ``ipaddress`` objects where the order is the
    network's, dataclasses and ctypes structs of the same layout, and bytes of the right length for
    everything.  What does not fit is a LayoutError or OverflowError, never cut off.

    What stands for something of the kernel is given as that: a Map, Program, socket or whatever
    has a fileno(), or the number of a descriptor; an interface by name or number, with a program as
    (interface, program); a cgroup or file by its path; a process by its pid.  What was opened for
    that is closed again.  Values that are maps, programs or sockets are read as the kernel's ids of
    them and as cookies (Map.from_id(), Program.from_id()).

    What is read is a copy: after ``value = m[key]; value.count = 1``, store it again.  A key that
    comes from the map goes back with its padding as it was, and so finds its entry; as keys of a
    dict, structs that differ in padding alone are one.

    A missing key is a KeyError, a map without room a MapFullError, an operation that this type of
    map does not have a NotSupportedError.  Threads may share a map; after close() everything is a
    ClosedError.

    Iterating a hash or array reads in batches where the kernel can (Linux 5.6): every key that is
    there throughout comes exactly once, whatever comes and goes meanwhile.  Other maps are read
    key by key, and twice where they are seen to change: what nobody touches comes exactly once (but
    for a race within the kernel's own step, to be lost in both rounds), no key comes twice, one
    that is replaced meanwhile may be left out, and a map that changes faster than it is read gives
    IterationAborted.
    """

    _noun = "map"
    _access: Access | None = None
    _memory: Any = None  # of an arena, once it is mapped

    def __init__(self, fd: OwnedFd) -> None:
        self._fd = fd
        raw = _native.info(fd.fileno(), "struct bpf_map_info")
        self._name = _native.text(raw.name)
        self._type = int(raw.type)
        self._key_size = int(raw.key_size)
        self._value_size = int(raw.value_size)
        self._max_entries = int(raw.max_entries)
        self._flags = int(raw.map_flags)
        self._key_type: Type | None = None
        self._value_type: Type | None = None
        self._given_types: tuple[Type | None, Type | None] | None = None

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

    @property
    def key_type(self) -> Type | None:
        """The BTF type of keys, None where it is not known.

        May be set before the first element is read or written: LayoutError for a type of another
        size, StateError afterwards.
        """
        return self._key_type or self._types()[0]

    @key_type.setter
    def key_type(self, value: Type) -> None:
        self._require_unused("key_type")
        _require_size(value, self.key_size, f"key of map {self._name!r}")
        self._key_type = value

    @property
    def value_type(self) -> Type | None:
        """The BTF type of values (of one CPU's), None where it is not known; set as key_type."""
        return self._value_type or self._types()[1]

    @value_type.setter
    def value_type(self, value: Type) -> None:
        self._require_unused("value_type")
        _require_size(value, self.value_size, f"value of map {self._name!r}")
        self._value_type = value

    def _require_unused(self, what: str) -> None:
        with self._borrow_life():
            pass  # ClosedError comes first
        if self._access is not None:
            from pybpf.errors import StateError

            raise StateError(
                f"set {what} of map {self._name!r}: before its first use; it is in use"
            )

    def _borrow_life(self) -> Borrow:
        """What fails once the map is closed, and only then."""
        return self._fd.borrow()

    def _types(self) -> tuple[Type | None, Type | None]:
        """The types of keys and values that others gave, asked for once."""
        if self._given_types is None:
            self._given_types = self._declared_types()
        return self._given_types

    def _declared_types(self) -> tuple[Type | None, Type | None]:
        """The types that the kernel knows the map's keys and values by."""
        from pybpf.btf import Btf

        with self._borrow_fd() as fd:
            info = _native.info(fd, "struct bpf_map_info")
        kernel_id = info.btf_vmlinux_value_type_id
        if kernel_id:  # of struct_ops; those of modules are beyond the kernel's own types
            types = Btf.kernel()
            return None, types[kernel_id] if kernel_id < len(types) else None
        if not info.btf_id:
            return None, None
        try:
            btf = Btf.from_id(info.btf_id)
        except PrivilegeError as error:
            then = "keys and values are ints and bytes", "set key_type and value_type"
            self._warn_untyped(error, *then)
            return None, None
        ids = info.btf_key_type_id, info.btf_value_type_id
        key, value = (btf[type_id] if type_id else None for type_id in ids)
        return key, value

    def _warn_untyped(self, error: PrivilegeError, then: str, remedy: str) -> None:
        import warnings

        from pybpf.hazards import outside

        message = (
            f"map {self._name!r} has types that this process may not read, so its {then}: "
            f"{error.hint}; or {remedy}"
        )
        warnings.warn(message, LayoutWarning, stacklevel=outside())

    # a Mapping would compare all entries, and so could not be hashed
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    # -- one element --

    def _elements(self) -> Access:
        """The access to elements, made at first use."""
        access = self._access or self._begin_access()
        access.require_open()
        return access

    def _begin_access(self) -> Access:
        from pybpf.access import Access

        with self._borrow_fd() as fd:
            made = Access(self, fd, self.key_type, self.value_type)
        # in one step: of threads that come at once, all use the one of the first
        access: Access = vars(self).setdefault("_access", made)
        if access is made:
            access.accelerate(self)
        else:
            made.close()
        try:
            with self._borrow_life():
                return access
        except ClosedError:  # who closed the map in between has seen no access to close
            access.close()
            raise

    def _getitem(self, key: Any) -> Any:
        raw = self.lookup_bytes(key)
        if raw is None:
            raise KeyError(key)
        return self._decode(raw)

    def _setitem(self, key: Any, value: Any) -> None:
        self.put(key, value)

    def _delitem(self, key: Any) -> None:
        access = self._elements()
        if not access.delete(access.key.encode(key)):
            raise KeyError(key)

    def _contains(self, key: Any) -> bool:
        access = self._elements()
        if access.type == _BLOOM_FILTER:
            return access.contains(access.value.encode(key))
        return access.lookup(access.key.encode(key)) is not None

    def lookup(self, key: K, flags: int = 0) -> V | None:
        """The value under ``key``, None where there is none.

        UpdateFlags.LOCK reads under the value's bpf_spin_lock.
        """
        raw = self.lookup_bytes(key, flags)
        return None if raw is None else self._decode(raw)

    def _decode(self, raw: bytes) -> V:
        value: V = self._elements().value.decode(raw)
        return value

    def lookup_bytes(self, key: K, flags: int = 0) -> bytes | None:
        """The bytes of the value under ``key``, None where there is none.

        A per-CPU map gives all CPUs' values, each rounded up to 8 bytes.
        """
        access = self._elements()
        return access.lookup(access.key.encode(key), flags)

    def put(self, key: K, value: V | Any, flags: int = 0, cpu: int | None = None) -> None:
        """Store ``value`` under ``key``.

        UpdateFlags.NOEXIST only creates (KernelError with EEXIST otherwise), EXIST only replaces
        (KeyError otherwise), LOCK writes under the value's bpf_spin_lock.  ``cpu`` stores one CPU's
        value of a per-CPU map and leaves the others; before Linux 6.19, and with flags, by reading
        and writing all of them, which undoes what programs write in between.  MapFullError where
        there is no room, LayoutError and OverflowError where key or value do not fit.
        """
        access = self._elements()
        raw_key = access.key.encode(key)
        if cpu is not None:
            stored = self._put_on_cpu(access, raw_key, value, flags, cpu)
        else:
            stored = access.update(raw_key, access.value.encode(value), flags)
        if not stored:
            raise KeyError(key)

    def _put_on_cpu(self, access: Access, raw_key: Any, value: Any, flags: int, cpu: int) -> bool:
        from pybpf import codec

        access.require("store one CPU's value in")
        assert isinstance(access.value, codec.PerCpuCodec)
        if not 0 <= cpu < access.value.cpus:
            raise IndexError(f"CPU {cpu}: the possible ones are 0 to {access.value.cpus - 1}")
        raw_value = access.value.encode_one(value)
        if not flags:  # the kernel takes others beside that, and does not heed them
            try:
                return access.update(raw_key, raw_value, _F_CPU | cpu << 32)
            except KernelError as error:
                if error.errno != _errno.EINVAL:
                    raise
        return access.update(raw_key, _with_cpu(access, raw_key, raw_value, cpu), flags)

    def setdefault(self, key: K, default: V = None) -> V:  # type: ignore[assignment]
        """The value under ``key``, which becomes ``default`` where there is none.

        Of several that do so at once, one stores its default and all get that one.
        """
        from pybpf.constants import UpdateFlags

        access = self._elements()
        raw_key = access.key.encode(key)
        while True:
            raw = access.lookup(raw_key)
            if raw is not None:
                return self._decode(raw)
            try:
                access.update(raw_key, access.value.encode(default), UpdateFlags.NOEXIST)
            except KernelError as error:
                if error.errno != _errno.EEXIST:
                    raise

    def pop(self, key: Any = None, default: Any = _NOTHING) -> Any:
        """Remove ``key`` and return its value; ``default``, else KeyError, where it is not there.

        A queue's or stack's next value, which has no key.  Of several that pop a key at once, one
        gets the value.
        """
        access = self._elements()
        raw = access.pop(access.key.encode(key))
        if raw is not None:
            return access.value.decode(raw)
        if default is _NOTHING:
            raise KeyError(f"map {self._name!r} is empty" if key is None else key)
        return default

    def popitem(self) -> tuple[K, V]:
        """Remove some entry and return it; KeyError where there is none."""
        from pybpf import bulk

        access = self._elements()
        found = bulk.pop_one(access)
        if found is None:
            raise KeyError(f"map {self._name!r} is empty")
        raw_key, raw_value = found
        return access.key.decode(raw_key), access.value.decode(raw_value)

    # -- all of them --

    def __iter__(self) -> Iterator[K]:
        from pybpf import bulk

        return bulk.keys(self._elements())

    def items(self, *, batch_size: int | None = None) -> MapItems[K, V]:
        """The entries; empty slots of an array of maps, programs or the like are left out.

        ``batch_size`` is how many entries one system call reads, unless given some thousands; 1
        reads key by key.
        """
        return MapItems(self, batch_size)

    def values(self, *, batch_size: int | None = None) -> MapValues[V]:
        """The values, as items() gives them."""
        return MapValues(self, batch_size)

    def to_dict(self) -> dict[K, V]:
        """All entries, as items() gives them."""
        return dict(self.items())

    def pop_all(self) -> list[tuple[K, V]]:
        """Remove all entries and return them.

        In batches (Linux 5.6) each entry is read and removed in one step, so that what a program
        stores meanwhile is returned or still there; only what it adds through a pointer that it
        looked up before goes with the entry.  A queue or stack is emptied in its order.  What an
        exception such as Ctrl-C interrupts has removed entries that nobody gets.
        """
        from pybpf import bulk

        access = self._elements()
        if access.key_size:
            return list(bulk.items(access, None, remove=True))
        found: list[Any] = []
        while (raw := access.pop(_native.NULL)) is not None:
            found.append((None, access.value.decode(raw)))
        return found

    def clear(self) -> None:
        """Delete every entry that is there now; NotSupportedError for an array, which keeps all."""
        from pybpf import bulk

        bulk.clear(self._elements())

    def __len__(self) -> int:
        """How many entries: those of a hash are read and counted, an array has ``max_entries``."""
        from pybpf import bulk

        return bulk.count(self._elements())

    # -- many of them --

    def lookup_many(self, keys: Iterable[K], default: Any = None, flags: int = 0) -> list[V | Any]:
        """The values under ``keys``, in their order, ``default`` where there is none."""
        from pybpf import bulk

        return bulk.lookup_many(self._elements(), _sequence(keys), default, flags)

    def update_many(
        self,
        entries: Mapping[K, V] | Iterable[K],
        values: Iterable[V] | None = None,
        flags: int = 0,
    ) -> None:
        """Store the entries of a mapping, or ``values`` under the keys ``entries``.

        In few system calls where the kernel has batches (Linux 5.6).  MapFullError says how many
        were stored; what an error or Ctrl-C interrupts is stored up to some entry.
        """
        from pybpf import bulk

        if values is not None:
            keys: Sequence[Any] = _sequence(entries)
            values = _sequence(values)
        elif isinstance(entries, Mapping):
            # in one go: keys() and values() of a map that changes would not fit together
            pairs = entries if isinstance(entries, dict) else dict(entries.items())
            keys, values = list(pairs), list(pairs.values())
        else:
            raise TypeError("update_many() takes a mapping, or keys and values")
        bulk.update_many(self._elements(), keys, values, flags)

    def delete_many(self, keys: Iterable[K]) -> int:
        """Delete ``keys``; how many of them were there."""
        from pybpf import bulk

        return bulk.delete_many(self._elements(), _sequence(keys))

    def update(self, other: Any = (), /, **more: Any) -> None:
        """Store the entries of a mapping or of (key, value) pairs, as update_many() does."""
        # a Map as other may lose a key while dict() asks for one after the other
        entries = other.items() if isinstance(other, Mapping) else other
        self.update_many(dict(entries, **more))

    def to_numpy(self) -> tuple[numpy.ndarray[Any, Any], numpy.ndarray[Any, Any]]:
        """All keys and all values as two arrays: structured ones for structs (``Type.dtype``).

        Values of a per-CPU map have a second dimension, the CPUs.  Needs numpy.
        """
        from pybpf import map_arrays

        return map_arrays.read(self._elements())

    def update_numpy(self, keys: Any, values: Any, flags: int = 0) -> None:
        """Store arrays such as to_numpy() gives; other dtypes are converted where that is safe."""
        from pybpf import map_arrays

        map_arrays.write(self._elements(), keys, values, flags)

    # -- what only some types have --

    def push(self, value: V, flags: int = 0) -> None:
        """Add ``value`` to a queue, stack or bloom filter.

        UpdateFlags.EXIST lets a full queue or stack forget its oldest value, where otherwise it is
        a MapFullError.
        """
        access = self._elements()
        access.require("push to")
        access.push(access.value.encode(value), flags)

    def peek(self) -> V:
        """The next value of a queue or stack, which stays; KeyError where there is none."""
        self._elements().require("peek at")
        raw = self.lookup_bytes(None)  # type: ignore[arg-type]  # it has no keys
        if raw is None:
            raise KeyError(f"map {self._name!r} is empty")
        return self._decode(raw)

    def frames(self, stack_id: int, pid: int | None = None) -> list[Frame]:
        """The frames of a stack trace, the innermost first, with the names of their functions.

        Names are the kernel's, and with ``pid`` also those of that process, which must still run.
        KeyError where there is no such stack, NotSupportedError where the map holds build ids (flag
        STACK_BUILD_ID) instead of addresses: those are named by the files that have them.
        """
        self._elements().require("take frames from")
        if self.flags & _F_STACK_BUILD_ID:
            hint = "it holds build ids with offsets in files, which `m[stack_id]` gives"
            what = f"map {self._name!r}"
            raise NotSupportedError("take frames from", what, _errno.EOPNOTSUPP, hint=hint)
        addresses: Any = self[stack_id]  # type: ignore[index]
        from pybpf import symbols

        return symbols.resolve(addresses, pid)

    def memory(self) -> memoryview:
        """The live memory of an array with BPF_F_MMAPABLE, or of an arena; no system calls.

        A view of items where values are integers, else of bytes, in which each value begins at a
        multiple of 8.  Read-only where the map is frozen.  It stays
        valid after close(); what an arena's object maps ends with the object, which cannot be
        closed while such a view exists (BusyError).  Pages of an arena come into being when they
        are touched; with the flag SEGV_ON_FAULT that kills the process instead.

        NotSupportedError for other maps, KernelError where an arena is mapped at another address.
        """
        with self._borrow_life():
            from pybpf import map_memory

            return map_memory.view(self)

    def _lend_arena(self) -> tuple[Any, Borrow, object] | None:
        """Where an arena is mapped already, who keeps it so, and whose it is."""
        return None

    def array(self) -> numpy.ndarray[Any, Any]:
        """memory() as a numpy array of ``max_entries`` values, structured for structs."""
        with self._borrow_life():
            from pybpf import map_arrays

            return map_arrays.live(self)

    def freeze(self) -> None:
        """Forbid every further change from user space, for good; Linux 5.2.

        KernelError with EBUSY while a memory() or array() of it exists that can be written.
        """

        def hint(number: int) -> str:
            return (
                "a memory() or array() that can be written exists" if number == _errno.EBUSY else ""
            )

        target = f"map {self._name!r}"
        with self._borrow_fd() as fd:
            _native.check(lib.bpf_map_freeze(fd), "freeze", target, explained(KernelError, hint))

    def reader(
        self,
        *,
        type: RecordTypeArgument | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Reader:
        """A reader of this ring buffer or perf event array: see :class:`pybpf.Reader`.

        NotSupportedError for other maps.  Close it, or use ``with``; the map may be closed before,
        but the reader of an object's map ends with the object.  For a ring buffer that was opened
        by pin or id, the kernel has types only in the programs that use it, and tells them to
        CAP_SYS_ADMIN alone.
        """
        from pybpf.events import Reader

        reader = Reader(self, type=type, timeout=timeout, **options)
        reader._owner = self._adopt(reader)
        return reader

    def writer(self, type: SampleType | None = None) -> UserRing:
        """Gives samples to programs through a user ring buffer; Linux 6.1.

        ``type`` is a BTF type for UserRing.submit(), or its name, or ``bytes``; unless given, what
        the map's declaration in its object names as its value, else bytes.  The caller closes it;
        that of an object's map ends with the object as well.

        NotSupportedError for other maps, NotFoundError for a type that the object does not have,
        LayoutError for what is no type, BusyError where this process has a writer of the map
        already.
        """
        from pybpf.user_ring import UserRing

        return UserRing(self, type)

    def _record_type(self) -> Type | None:
        """What a ring buffer's records are, where that is known."""
        from pybpf.declarations import declared_in

        btf = self._record_btf() if self.type != _PERF_EVENT_ARRAY else None
        return declared_in(btf, self.name) if btf is not None else None

    def _record_btf(self) -> Btf | None:
        """Where the types of its records are looked up by name: that of a program that uses it."""
        from pybpf.declarations import types_of_users

        try:
            return next(types_of_users(self.id), None)
        except PrivilegeError as error:
            self._warn_untyped(error, "records are bytes", "name their type")
            return None

    def _fill_struct_ops(self) -> None:
        """Have the kernel take what an object declares as the value of a struct_ops map."""

    def _adopt(self, ring: Reader | UserRing) -> Object | None:
        """The object that closes a reader or writer, where the map belongs to one."""
        return None

    def close(self) -> None:
        """Give the descriptor back, at the latest when calls that use it have returned.

        What it names ends unless a pin, a program or a hook holds it.  Harmless to repeat.
        """
        super().close()
        if self._access is not None:
            self._access.close()
        self._memory = None


def _sequence(values: Iterable[Any]) -> Sequence[Any]:
    return values if isinstance(values, (list, tuple, range)) else list(values)


def _with_cpu(access: Access, raw_key: Any, raw_value: bytes, cpu: int) -> bytes:
    """All CPUs' values with one replaced; the others are zero where there is no such key."""
    values = bytearray(access.lookup(raw_key) or access.value.size)
    stride = len(raw_value)
    values[cpu * stride : (cpu + 1) * stride] = raw_value
    return bytes(values)


def _require_size(btf_type: Type, size: int, what: str) -> None:
    if btf_type.size != size:
        raise LayoutError(f"a {what} takes {size} bytes, {btf_type} has {btf_type.size}")


class MapItems(ItemsView[K, V]):
    """What Map.items() returns."""

    _mapping: Map[K, V]

    def __init__(self, mapping: Map[K, V], batch_size: int | None) -> None:
        super().__init__(mapping)
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[tuple[K, V]]:
        from pybpf import bulk

        return bulk.items(self._mapping._elements(), self._batch_size)


class MapValues(ValuesView[V]):
    """What Map.values() returns."""

    _mapping: Map[Any, V]

    def __init__(self, mapping: Map[Any, V], batch_size: int | None) -> None:
        super().__init__(mapping)
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[V]:
        from pybpf import bulk

        return bulk.values(self._mapping._elements(), self._batch_size)
