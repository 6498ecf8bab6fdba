# SPDX-License-Identifier: BSD-2-Clause
"""Read BTF, the type information of BPF objects and of the kernel.

Bytes in, facts out: only what says so asks the kernel (pybpf.btf_source) or libbpf
(pybpf.btf_dump).  A :class:`Btf` notes where each type starts when it is first asked for one and
decodes a type when that very type is asked for, so that a kernel's hundred thousand types cost
little until they are used.  Whatever is wrong with the bytes is an
:class:`~pybpf.errors.ObjectFormatError` that carries the offset within the BTF.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from bisect import bisect_left
from enum import EnumMeta, IntEnum
from threading import RLock
from weakref import WeakValueDictionary

from pybpf.errors import LayoutError, NotFoundError, ObjectFormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from typing import Any, Literal

    import numpy

_BYTEORDERS: dict[bytes, Literal["little", "big"]] = {b"\x9f\xeb": "little", b"\xeb\x9f": "big"}
_VERSION = 1
# Magic, version, flags, header length; offset (from the header's end) and length of types, strings.
_HEADER = "2sBBIIIII"
_HEADER_LENGTH = 24  # longer ones are of the future and compatible

# The component of a decl tag that marks no single member.
_WHOLE = 0xFFFFFFFF
# The kernel refuses longer chains of types than 32; only damaged BTF has one of this length.
_CHAIN_LIMIT = 64
# Anonymous structs within each other: damaged BTF has one that contains itself.
_MEMBER_LIMIT = 1 << 20
# Parameters may be prototypes: without bounds, damaged BTF spells an endless text.
_SPELLING_LIMIT = 1000
_PROTOTYPE_DEPTH_LIMIT = 16


class Kind(IntEnum):
    """What a type is; the numbers and names are BTF's own."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


class Linkage(IntEnum):
    """Who sees a function or variable."""

    STATIC = 0
    GLOBAL = 1
    EXTERN = 2


# 32-bit words of a type by kind: those that every such type has (0: no such kind), and those that
# follow for each of its vlen members.  A FUNC keeps its linkage in vlen.
_FIXED_WORDS = [0] * 32
_FIXED_WORDS[Kind.INT : Kind.ENUM64 + 1] = [3] * Kind.ENUM64
_FIXED_WORDS[Kind.INT] = _FIXED_WORDS[Kind.VAR] = _FIXED_WORDS[Kind.DECL_TAG] = 4
_FIXED_WORDS[Kind.ARRAY] = 6
_MEMBER_WORDS = [0] * 32
_MEMBER_WORDS[Kind.STRUCT] = _MEMBER_WORDS[Kind.UNION] = 3
_MEMBER_WORDS[Kind.ENUM] = _MEMBER_WORDS[Kind.FUNC_PROTO] = 2
_MEMBER_WORDS[Kind.DATASEC] = _MEMBER_WORDS[Kind.ENUM64] = 3


class _Steps(dict[int, int]):
    """How many words a type takes, by its second word: a kernel has 300 different ones."""

    def __missing__(self, info: int) -> int:
        kind = (info >> 24) & 31
        if not _FIXED_WORDS[kind]:
            raise KeyError(kind)
        self[info] = words = _FIXED_WORDS[kind] + _MEMBER_WORDS[kind] * (info & 0xFFFF)
        return words


# Which kinds a key such as "struct event" or "u32" means, the preferred ones first.
_TAGGED_KINDS: dict[str, tuple[Kind, ...]] = {
    "struct": (Kind.STRUCT, Kind.FWD),
    "union": (Kind.UNION, Kind.FWD),
    "enum": (Kind.ENUM, Kind.ENUM64),
}
_BARE_KINDS = (Kind.INT, Kind.FLOAT, Kind.TYPEDEF, Kind.FUNC, Kind.VAR, Kind.DATASEC)


# What Btf.kernel() gave, by module and its inode; a module that is loaded again has another one.
_kernel_btfs: dict[tuple[str | None, int], Btf] = {}
# What Btf.from_id() gave and somebody still has.
_btfs_by_id: WeakValueDictionary[int, Btf] = WeakValueDictionary()
_ids_lock = RLock()  # a signal handler may come back here


class Btf:
    """The types in ``data``, the raw bytes of a .BTF section or of /sys/kernel/btf/vmlinux.

    Btf.kernel(), .from_file() and .from_id() get these bytes by themselves.  ``base`` is the BTF
    that a split BTF (a kernel module's) continues.  Ids run from 0, which is void, to
    ``len(btf) - 1``; those below ``len(base)`` are the base's.  ``path`` is mentioned in errors.

    A type is found by id or by the name that C gives it: ``btf[7]``, ``btf["struct event"]``,
    ``btf["union u"]``, ``btf["enum e"]``, and bare for the rest: ``btf["unsigned int"]``,
    ``btf["u32"]``, ``btf["main"]``.  Where a name occurs twice, the BTF's own comes before its
    base's and the lower id first; a declared struct is found only when none is defined.

    Creating one checks the header, the first look at a type checks that the types are whole, and
    reading a type checks what it refers to.  Each raises ObjectFormatError.
    """

    __slots__ = (
        "__weakref__",
        "_data",
        "_found",
        "_positions",
        "_string_end",
        "_string_start",
        "_tags",
        "_types",
        "_types_end",
        "_types_start",
        "_words",
        "base",
        "byteorder",
        "dtypes",
        "layouts",
        "path",
    )

    byteorder: Literal["little", "big"]
    _types_start: int
    _types_end: int
    _string_start: int
    _string_end: int

    def __init__(self, data: bytes, base: Btf | None = None, path: str | None = None) -> None:
        self._data = data
        self.base = base
        self.path = path
        #: What pybpf.layout made of these types, by type id: shared by all who use this BTF.
        self.layouts: dict[int, object] = {}
        #: Likewise of pybpf.dtype.
        self.dtypes: dict[int, object] = {}
        self._types: dict[int, Type] = {}
        self._found: dict[str, Type] = {}
        self._tags: dict[int, list[tuple[int, str]]] | None = None
        self._words = array("I")
        self._positions: array[int] | None = None
        self._read_header()

    @classmethod
    def kernel(cls, module: str | None = None) -> Btf:
        """The running kernel's types, or those of a loaded module on top of them.

        Every call gives the same Btf, which stays for the life of the process (a module that was
        loaded anew has a new one).  Reading it and finding the first type takes 20 ms and 10 MiB.

        Needs a kernel with CONFIG_DEBUG_INFO_BTF (Linux 5.4, 5.11 for modules), NotSupportedError
        otherwise; no privilege.  NotFoundError where no module of that name has types, also where
        it is built in: the kernel's own types contain its.
        """
        from pybpf import btf_source

        if module == btf_source.VMLINUX:
            module = None
        key = module, btf_source.kernel_inode(module)
        if key not in _kernel_btfs:
            base = None if module is None else cls.kernel()
            data, path = btf_source.of_kernel(module)
            _kernel_btfs.setdefault(key, Btf(data, base, path))
        return _kernel_btfs[key]

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], base: Btf | None = None) -> Btf:
        """The types in a file, of either byte order; each call reads it anew.

        That is raw BTF (also BTFhub's, once unpacked) or a 64-bit ELF file with a section .BTF (a
        BPF object, a kernel module, a vmlinux), of which nothing but that section is read.

        A kernel module's BTF continues its kernel's, the ``base``.  One that was built outside of
        the kernel's tree may bring along what it needs of it (.BTF.base), which then is the base.

        Raises ObjectFormatError where there is no BTF, ObjectNotFoundError where there is no file.
        """
        from pybpf import btf_source

        path = os.fsdecode(path)
        data, own_base = btf_source.of_file(path)
        if own_base is not None:
            base = Btf(own_base, path=path)
        return Btf(data, base, path)

    @classmethod
    def from_id(cls, id: int) -> Btf:
        """The types that the kernel holds under that id, such as ``Map.info().btf_id``.

        As long as somebody has it, another call gives the same Btf.  The kernel's own types, and
        its modules', are those of Btf.kernel().

        KernelError where there are none.  Needs CAP_SYS_ADMIN, PrivilegeError otherwise.
        """
        from pybpf import btf_source

        known = _btfs_by_id.get(id)
        if known is not None:
            return known
        data = btf_source.of_id(id)
        if isinstance(data, str):
            return cls.kernel(data)
        with _ids_lock:
            return _btfs_by_id.setdefault(id, Btf(data))

    def __repr__(self) -> str:
        return f"<Btf of {self.path or f'{len(self._data)} bytes'}>"

    def _read_header(self) -> None:
        data = self._data
        if len(data) < _HEADER_LENGTH:
            raise self._malformed(
                f"BTF has a header of {_HEADER_LENGTH} bytes, this ends after {len(data)}",
                len(data),
            )
        if data[:2] not in _BYTEORDERS:
            raise self._malformed(f"not BTF: it starts with {data[:2].hex()}", 0)
        self.byteorder = _BYTEORDERS[data[:2]]
        if self.base is not None and self.base.byteorder != self.byteorder:
            raise self._malformed(f"{self.byteorder}-endian, and its base is not", 0)
        _, version, _, header_length, type_offset, type_length, string_offset, string_length = (
            struct.unpack_from(("<" if self.byteorder == "little" else ">") + _HEADER, data)
        )
        if version != _VERSION:
            raise self._malformed(f"BTF version {version}; only {_VERSION} is known", 2)
        if not _HEADER_LENGTH <= header_length <= len(data):
            raise self._malformed(f"a BTF header of {header_length} bytes in {len(data)} bytes", 4)
        self._types_start = header_length + type_offset
        self._types_end = self._types_start + type_length
        if self._types_end > len(data) or type_offset % 4 or type_length % 4:
            raise self._malformed(
                f"the types, {type_length} bytes at {self._types_start}, must be 32-bit words "
                f"within the {len(data)} bytes",
                8,
            )
        self._string_start = header_length + string_offset
        self._string_end = self._string_start + string_length
        if self._string_end > len(data):
            raise self._malformed(
                f"the strings, {string_length} bytes at {self._string_start}, end after the "
                f"{len(data)} bytes",
                16,
            )
        if string_length and data[self._string_end - 1]:
            raise self._malformed("the strings do not end with a NUL byte", self._string_end - 1)
        if self.base is None and not (string_length and data[self._string_start] == 0):
            raise self._malformed(
                "the strings do not start with the empty one; a split BTF, as of a kernel module, "
                "needs the base that it continues",
                self._string_start,
            )

    def _index(self) -> array[int]:
        """Where each own type starts, in words; reads them when first called."""
        if self._positions is not None:
            return self._positions
        words = array("I")
        words.frombytes(memoryview(self._data)[self._types_start : self._types_end])
        if self.byteorder != sys.byteorder:
            words.byteswap()
        positions = array("I")
        append, steps, end, position = positions.append, _Steps(), len(words), 0
        try:
            while position < end:
                append(position)
                position += steps[words[position + 1]]
        except KeyError as unknown:
            raise self._malformed(
                f"type {self._first_id + len(positions) - 1} is of the unknown kind {unknown}",
                self._types_start + 4 * position,
            ) from None
        except IndexError:
            position = end + 1
        if position > end:
            raise self._malformed(
                f"the types end within type {self._first_id + len(positions) - 1}",
                self._types_start + 4 * positions[-1],
            )
        self._words = words
        self._positions = positions
        return positions

    def _malformed(self, message: str, offset: int) -> ObjectFormatError:
        return ObjectFormatError(message, self.path, offset=offset)

    @property
    def _first_id(self) -> int:
        return 1 if self.base is None else len(self.base)

    @property
    def _strings_length(self) -> int:
        """How many bytes of strings this BTF and its base have: where a split BTF's begin."""
        own = self._string_end - self._string_start
        return own if self.base is None else own + self.base._strings_length

    def __len__(self) -> int:
        return self._first_id + len(self._index())

    def __iter__(self) -> Iterator[Type]:
        """Every type in the order of ids, void and the base's included."""
        for type_id in range(len(self)):
            yield self._type(type_id)

    def __contains__(self, key: object) -> bool:
        if isinstance(key, str):
            return self._lookup(key) is not None
        return isinstance(key, int) and 0 <= key < len(self)

    def __getitem__(self, key: int | str) -> Type:
        """The type with that id or C name; NotFoundError where there is none."""
        if isinstance(key, int):
            if not 0 <= key < len(self):
                raise NotFoundError("type", str(key), [f"ids 0 to {len(self) - 1}"])
            return self._type(key)
        found = self._lookup(key)
        if found is None:
            raise NotFoundError("type", key, self._similar_keys(key))
        return found

    def find(self, name: str, kind: Kind | None = None) -> Type:
        """The first type called ``name``, which is bare, of that ``kind`` or of any.

        Raises NotFoundError.
        """
        for found in self._named(name):
            if kind is None or found.kind is kind:
                return found
        what = "type" if kind is None else kind.name.lower()
        raise NotFoundError(what, name, self._names(tuple(Kind) if kind is None else (kind,)))

    def _lookup(self, key: str) -> Type | None:
        known = self._found.get(key)
        if known is not None:
            return known
        tag, _, name = key.partition(" ")
        kinds = _TAGGED_KINDS.get(tag, _BARE_KINDS)
        if kinds is _BARE_KINDS:
            name = key
        best: Type | None = None
        for found in self._named(name):
            if found.kind not in kinds or (found.kind is Kind.FWD and str(found) != key):
                continue
            if best is None or kinds.index(found.kind) < kinds.index(best.kind):
                best = found
            if best.kind is kinds[0]:
                break  # none is preferred to it, and searching takes time
        if best is not None:
            self._found[key] = best
        return best

    def _similar_keys(self, key: str) -> list[str]:
        """Keys to offer instead of ``key``: of its tag, or for a bare one what only lacks a tag."""
        tag = key.partition(" ")[0]
        if tag in _TAGGED_KINDS:
            defined = set(_TAGGED_KINDS[tag]) - {Kind.FWD}
            return [f"{tag} {name}" for name in self._names(defined)]
        tagged = [f"{tag} {key}" for tag in _TAGGED_KINDS if f"{tag} {key}" in self]
        return tagged or list(self._names((Kind.INT, Kind.FLOAT, Kind.TYPEDEF)))

    def _names(self, kinds: Container[int]) -> Iterator[str]:
        """The names of all types of these kinds, without making the types."""
        if self.base is not None:
            yield from self.base._names(kinds)
        positions, words = self._index(), self._words
        for position in positions:
            if words[position] and (words[position + 1] >> 24) & 31 in kinds:
                yield self._string(words[position], self._types_start + 4 * position)

    def _named(self, name: str) -> Iterator[Type]:
        """The types called ``name``, own ones first."""
        wanted = name.encode(errors="backslashreplace")
        if not wanted or b"\0" in wanted:
            return
        positions = self._index()
        for offset in self._string_offsets(wanted):
            for word in self._words_equal(offset):
                at = bisect_left(positions, word)
                if at < len(positions) and positions[at] == word:
                    yield self._type(self._first_id + at)
        if self.base is not None:
            yield from self.base._named(name)

    def _words_equal(self, wanted: int) -> Iterator[int]:
        """The positions of the words of that value; searching bytes is faster than comparing."""
        raw, start, end = wanted.to_bytes(4, self.byteorder), self._types_start, self._types_end
        at = self._data.find(raw, start, end)
        while at >= 0:
            word, beside = divmod(at - start, 4)
            if not beside:
                yield word
            at = self._data.find(raw, at + 1, end)

    def _string_offsets(self, wanted: bytes) -> Iterator[int]:
        """Where the string ``wanted`` starts, as types count: a split BTF continues its base."""
        first = 0
        if self.base is not None:
            yield from self.base._string_offsets(wanted)
            first = self.base._strings_length
        start, end = self._string_start, self._string_end
        if self._data.startswith(wanted + b"\0", start, end):
            yield first
        at = self._data.find(b"\0" + wanted + b"\0", start, end)
        while at >= 0:
            yield first + at + 1 - start
            at = self._data.find(b"\0" + wanted + b"\0", at + 1, end)

    def string(self, offset: int) -> str:
        """The string there, which lines of source are told by; ObjectFormatError without one."""
        return self._string(offset, 0)

    def _string(self, offset: int, where: int) -> str:
        """The string at ``offset``; ``where`` is the byte at which ``offset`` was read."""
        first = 0
        if self.base is not None:
            first = self.base._strings_length
            if offset < first:
                return self.base._string(offset, where)
        start = self._string_start + offset - first
        if start >= self._string_end:
            raise self._malformed(f"a name at {offset}, after the last string", where)
        end = self._data.index(0, start)
        return self._data[start:end].decode(errors="backslashreplace")

    def _type(self, type_id: int) -> Type:
        """The type of an id that is known to exist."""
        if self.base is not None and type_id < len(self.base):
            return self.base._type(type_id)
        known = self._types.get(type_id)
        if known is not None:
            return known
        if type_id == 0:
            return self._types.setdefault(0, Void(self, 0, Kind.VOID, 0, "void"))
        position = self._index()[type_id - self._first_id]
        kind = Kind((self._words[position + 1] >> 24) & 31)
        name = self._string(self._words[position], self._types_start + 4 * position)
        return self._types.setdefault(type_id, _CLASSES[kind](self, type_id, kind, position, name))

    def _tags_of(self, type_id: int, component: int) -> tuple[str, ...]:
        """The texts of the decl tags of a member of that type, or of the _WHOLE type."""
        if self._tags is None:
            self._tags = self._all_tags()
        return tuple(text for part, text in self._tags.get(type_id, ()) if part == component)

    def _all_tags(self) -> dict[int, list[tuple[int, str]]]:
        tags: dict[int, list[tuple[int, str]]] = {}
        positions, words = self._index(), self._words
        for position in positions:
            if (words[position + 1] >> 24) & 31 == Kind.DECL_TAG:
                text = self._string(words[position], self._types_start + 4 * position)
                tags.setdefault(words[position + 2], []).append((words[position + 3], text))
        return tags

    def to_c(self) -> str:
        """All types as a C header for CO-RE programs, as ``bpftool btf dump ... format c`` has it.

        Of a split BTF its own types and what they need of the base.  The text is libbpf's, between
        an include guard (__VMLINUX_H__) and the attribute preserve_access_index for each struct
        (unless BPF_NO_PRESERVE_ACCESS_INDEX is defined).  A kernel's takes 0.1 s and is 3 MiB; that
        of Linux 7 needs -fms-extensions: it has members that are just ``struct tag;``.

        Raises ObjectFormatError for types that libbpf refuses or cannot cope with: it works in a
        child process with limits of its own, so that damaged BTF does no harm here.  KernelError
        where that cannot be started.
        """
        from pybpf import btf_dump

        parts: list[bytes] = []
        part: Btf | None = self
        while part is not None:
            part._index()  # whose errors tell more than libbpf's
            parts.insert(0, part._data)
            part = part.base
        try:
            return btf_dump.to_c(parts)
        except ObjectFormatError as bad:
            raise ObjectFormatError(bad.message, self.path) from None

    def to_json(self) -> str:
        """All types as JSON, one a line; of a split BTF only its own.

        ``{"byteorder": "little", "types": [...]}``, each type an object with ``id``, ``kind`` (the
        name of a Kind), ``name`` ("" for none), ``size`` in bytes (null for what has no values) and
        what its class here says besides, by the same names: ``members`` of a STRUCT or UNION is a
        list of objects with ``bit_offset``, ``bitfield_size``, ``name`` and ``type``; ``params`` of
        a FUNC_PROTO and ``variables`` of a DATASEC likewise; ``values`` of an ENUM or ENUM64 an
        object of numbers by name; ``linkage`` the name of a Linkage.  Other types are given by id:
        ``target``, ``type``, ``return_type``.

        The same types always give the same text.  A kernel's takes 2 s, 100 MiB meanwhile, and is
        20 MiB.
        """
        import json

        own = Btf(self._data, self.base, self.path)  # whose types are not kept
        encode = json.JSONEncoder().encode
        types = (encode(own._type(type_id)._facts()) for type_id in range(own._first_id, len(own)))
        return f'{{"byteorder": "{self.byteorder}", "types": [\n' + ",\n".join(types) + "\n]}\n"


def _as_json(fact: object) -> object:
    if isinstance(fact, Type):
        return fact.id
    if isinstance(fact, IntEnum):
        return fact.name
    if isinstance(fact, _Record):
        return {name: _as_json(getattr(fact, name)) for name in fact._shown()}
    return [_as_json(part) for part in fact] if isinstance(fact, tuple) else fact


class _Record:
    """What is part of a type: equal to nothing but itself, shown with all it says."""

    __slots__: tuple[str, ...] = ()

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self._shown())
        return f"{type(self).__name__}({', '.join(shown)})"

    @classmethod
    def _shown(cls) -> tuple[str, ...]:
        return tuple(name for name in cls.__slots__ if not name.startswith("_"))


class Member(_Record):
    """A member of a struct or union; an anonymous one has an empty name.

    ``bit_offset`` counts from the start of the struct; ``bitfield_size`` is the number of bits of a
    bitfield and 0 for an ordinary member.  Bits count from the least significant one in
    little-endian BTF and from the most significant one in big-endian BTF.
    """

    __slots__ = ("_number", "_owner", "bit_offset", "bitfield_size", "name", "type")

    def __init__(
        self,
        name: str,
        type: Type,
        bit_offset: int,
        bitfield_size: int,
        owner: Composite,
        number: int,
    ) -> None:
        self.name = name
        self.type = type
        self.bit_offset = bit_offset
        self.bitfield_size = bitfield_size
        self._owner = owner
        self._number = number

    @property
    def decl_tags(self) -> tuple[str, ...]:
        """The texts of its ``btf_decl_tag`` attributes."""
        return self._owner.btf._tags_of(self._owner.id, self._number)

    def _moved(self, bits: int) -> Member:
        owner, number = self._owner, self._number
        return Member(
            self.name, self.type, self.bit_offset + bits, self.bitfield_size, owner, number
        )


class Param(_Record):
    """A parameter of a function prototype; the name is empty where BTF has none."""

    __slots__ = ("name", "type")

    def __init__(self, name: str, type: Type) -> None:
        self.name = name
        self.type = type


class Variable(_Record):
    """A variable, or an extern function, and its place in a section, in bytes.

    A compiler leaves places and sizes of an unlinked object for the loader to fill in.
    """

    __slots__ = ("linkage", "name", "offset", "size", "type")

    def __init__(self, name: str, linkage: Linkage, type: Type, offset: int, size: int) -> None:
        self.name = name
        self.linkage = linkage
        self.type = type
        self.offset = offset
        self.size = size


class Type:
    """One type of a :class:`Btf`; ``str()`` spells it as C does.

    ``id`` is its number in ``btf``, ``name`` is empty for what has none.  The same type is always
    the same object.
    """

    __slots__ = ("_position", "btf", "id", "kind", "name")
    # The attributes that to_json() shows besides those that every type has.
    _own_facts: tuple[str, ...] = ()

    def __init__(self, btf: Btf, id: int, kind: Kind, position: int, name: str) -> None:
        self.btf = btf
        self.id = id
        self.kind = kind
        self.name = name
        self._position = position

    def __repr__(self) -> str:
        return f"<BTF type {self.id}: {self.kind.name} {self}>"

    def __str__(self) -> str:
        return _spell(self, "", iter(range(_SPELLING_LIMIT)))

    def declare(self, name: str) -> str:
        """C's declaration of ``name`` as one of this type: ``char comm[16]``."""
        return _spell(self, name, iter(range(_SPELLING_LIMIT)))

    @property
    def size(self) -> int:
        """Bytes that a value takes; LayoutError for what has no values."""
        raise LayoutError(f"{self} has no size: {self._why_no_size}")

    @property
    def _why_no_size(self) -> str:
        return f"it is a {self.kind.name}"

    @property
    def decl_tags(self) -> tuple[str, ...]:
        """The texts of the ``btf_decl_tag`` attributes that mark all of it, in BTF's order.

        A member tells its own; what marks a function's parameter is a DeclTag with ``component``.
        """
        return self.btf._tags_of(self.id, _WHOLE)

    def _facts(self) -> dict[str, object]:
        """What to_json() says about it."""
        facts: dict[str, object] = {"id": self.id, "kind": self.kind.name, "name": self.name}
        facts["size"] = self._known_size()
        return facts | {name: _as_json(getattr(self, name)) for name in self._own_facts}

    def _known_size(self) -> int | None:
        if type(self).size is Type.size:  # which raises; its message takes time
            return None
        try:
            return self.size
        except LayoutError:
            return None

    def resolve(self) -> Type:
        """The type below typedefs, const, volatile, restrict and type tags."""
        resolved = self
        for _ in range(_CHAIN_LIMIT):
            if not isinstance(resolved, Modifier):
                return resolved
            resolved = resolved.target
        raise self._malformed(2, f"more than {_CHAIN_LIMIT} typedefs and qualifiers in a row")

    # A type knows what it looks like in Python, which modules above this one make.

    @property
    def ctype(self) -> type[Any]:
        """The ctypes class with exactly its size and offsets: :func:`pybpf.layout.ctype`."""
        from pybpf.layout import ctype

        return ctype(self)

    @property
    def dtype(self) -> numpy.dtype[Any]:
        """The same as a numpy dtype: :func:`pybpf.dtype.dtype`; ImportError without numpy."""
        from pybpf.dtype import dtype

        return dtype(self)

    def check_layout(self, user_class: Any) -> None:
        """Raise LayoutError, showing both layouts, unless ``user_class`` is laid out like this.

        A ctypes class, a ``struct`` format or a dataclass:
        :func:`pybpf.layout_check.check_layout`.
        """
        from pybpf.layout_check import check_layout

        check_layout(self, user_class)

    def _malformed(self, word: int, message: str) -> ObjectFormatError:
        return self.btf._malformed(f"type {self.id}: {message}", self._where(word))

    def _where(self, word: int) -> int:
        return self.btf._types_start + 4 * (self._position + word)

    def _word(self, word: int) -> int:
        return self.btf._words[self._position + word]

    @property
    def _member_count(self) -> int:
        return self._word(1) & 0xFFFF

    @property
    def _flag(self) -> bool:
        return bool(self._word(1) >> 31)

    def _type_at(self, word: int) -> Type:
        type_id = self._word(word)
        if type_id >= len(self.btf):
            raise self._malformed(
                word, f"it refers to type {type_id}, the last one is {len(self.btf) - 1}"
            )
        return self.btf._type(type_id)

    def _name_at(self, word: int) -> str:
        return self.btf._string(self._word(word), self._where(word))

    def _linkage(self, value: int, word: int) -> Linkage:
        try:
            return Linkage(value)
        except ValueError:
            raise self._malformed(word, f"unknown linkage {value}") from None


class Void(Type):
    """``void``: the type 0, which no BTF contains."""

    __slots__ = ()

    @property
    def _why_no_size(self) -> str:
        return "there is no value of it"


class _Sized(Type):
    __slots__ = ()

    @property
    def size(self) -> int:
        """Bytes that a value takes."""
        return self._word(2)


class Int(_Sized):
    """An integer, a character or a bool."""

    __slots__ = ()
    _own_facts = ("bits", "bit_offset", "is_signed", "is_bool")

    @property
    def bits(self) -> int:
        """How many bits of the ``size`` bytes hold the value: all, but for old bitfields."""
        return self._word(3) & 0xFF

    @property
    def bit_offset(self) -> int:
        """Where these bits start: 0, but for old bitfields."""
        return (self._word(3) >> 16) & 0xFF

    @property
    def is_signed(self) -> bool:
        """Whether the highest bit is a sign."""
        return bool(self._word(3) & 1 << 24)

    @property
    def is_bool(self) -> bool:
        """Whether it is ``_Bool``."""
        return bool(self._word(3) & 4 << 24)


class Float(_Sized):
    """A floating-point number."""

    __slots__ = ()


class Pointer(Type):
    """A pointer; BPF's are 64 bits wide."""

    __slots__ = ()
    _own_facts = ("target",)

    @property
    def size(self) -> int:
        """Bytes that a pointer takes."""
        return 8

    @property
    def target(self) -> Type:
        """What it points to."""
        return self._type_at(2)


class Array(Type):
    """An array of ``nelems`` elements of ``type``; 0 for a flexible one.

    More than one dimension is an array of arrays, the outermost first as in C.
    """

    __slots__ = ()
    _own_facts = ("type", "nelems")

    @property
    def type(self) -> Type:
        """What an element is."""
        return self._type_at(3)

    @property
    def nelems(self) -> int:
        """How many elements it has."""
        return self._word(5)

    @property
    def size(self) -> int:
        """Bytes of all elements; LayoutError where an element has no size."""
        size = 1
        inner: Type = self
        for _ in range(_CHAIN_LIMIT):
            if not isinstance(inner, Array):
                return size * inner.size
            size *= inner.nelems
            inner = inner.type.resolve()
        raise self._malformed(3, f"more than {_CHAIN_LIMIT} dimensions")


class Composite(_Sized):
    """A struct or a union."""

    __slots__ = ("_members",)
    _own_facts = ("members",)

    @property
    def members(self) -> tuple[Member, ...]:
        """The members in the order of declaration, an anonymous struct or union as one."""
        try:
            return self._members
        except AttributeError:
            self._members: tuple[Member, ...] = tuple(map(self._member, range(self._member_count)))
            return self._members

    def _member(self, number: int) -> Member:
        word = 3 + 3 * number
        name = self._name_at(word)
        member_type = self._type_at(word + 1)
        offset = self._word(word + 2)
        bits = 0
        if self._flag:
            offset, bits = offset & 0xFFFFFF, offset >> 24
        else:
            integer = member_type.resolve()
            if isinstance(integer, Int) and (
                integer.bits != 8 * integer.size or integer.bit_offset
            ):
                # Without the flag a bitfield has an integer type of its own that is this narrow.
                offset, bits = offset + integer.bit_offset, integer.bits
        return Member(name, member_type, offset, bits, self, number)

    def member(self, name: str) -> Member:
        """The member called ``name``, also one of an anonymous struct or union within this one.

        Its ``bit_offset`` counts from the start of this one.  NotFoundError where there is none.
        """
        for member in self._named_members():
            if member.name == name:
                return member
        names = [member.name for member in self._named_members()]
        raise NotFoundError(f"member of {self}", name, names)

    def _named_members(self) -> Iterator[Member]:
        """The members, and instead of an anonymous struct or union those within."""
        waiting = list(reversed(self.members))
        count = len(waiting)
        while waiting:
            member = waiting.pop()
            inner = member.type.resolve()
            if member.name:
                yield member
            elif isinstance(inner, Composite):
                count += len(inner.members)
                if count > _MEMBER_LIMIT:
                    raise self._malformed(0, f"it has more than {_MEMBER_LIMIT} members")
                waiting += [part._moved(member.bit_offset) for part in reversed(inner.members)]


class _OpenMeta(EnumMeta):
    """Lets a number without a name stay a plain int, as C does."""

    def __call__(cls, value: Any, *more: Any, **options: Any) -> Any:
        try:
            return super().__call__(value, *more, **options)
        except ValueError:
            if more or options or not isinstance(value, int):
                raise
            return value


class Enumerators(IntEnum, metaclass=_OpenMeta):
    """Base of the classes that :attr:`Enum.enum` makes."""


class Enum(_Sized):
    """An enumeration of 32 or (kind ENUM64) 64-bit values; ``size`` may be 1, 2, 4 or 8."""

    __slots__ = ("_enum",)
    _enum: type[Enumerators]
    _own_facts = ("is_signed", "values")

    @property
    def is_signed(self) -> bool:
        """Whether BTF calls the values signed; BTF from before 2022 never does."""
        return self._flag

    @property
    def values(self) -> dict[str, int]:
        """The enumerators by name, in the order of declaration."""
        wide = self.kind is Kind.ENUM64
        sign = 1 << (63 if wide else 31)
        values = {}
        for number in range(self._member_count):
            word = 3 + (3 if wide else 2) * number
            value = self._word(word + 1)
            if wide:
                value |= self._word(word + 2) << 32
            if self._flag and value & sign:
                value -= 2 * sign
            values[self._name_at(word)] = value
        return values

    @property
    def enum(self) -> type[Enumerators]:
        """An IntEnum class of the enumerators; always the same one.

        A number that has no name stays an int: ``enum(99)`` is 99.  Names that Python's enum keeps
        for itself ("mro", "_x_"), and those of damaged BTF that are none, are not members.
        """
        try:
            return self._enum
        except AttributeError:
            name = self.name or "enum"
            members = {
                word: number
                for word, number in self.values.items()
                if word.isidentifier()
                and word != "mro"
                and not (word.startswith("_") and word.endswith("_"))
                and not word.startswith(f"_{name}__")
            }
            make: Any = Enumerators
            self._enum = make(name, members, module=__name__)
            return self._enum


class Fwd(Type):
    """A struct or union that is declared and not defined."""

    __slots__ = ()
    _own_facts = ("is_union",)

    @property
    def is_union(self) -> bool:
        """Whether a union was declared."""
        return self._flag

    @property
    def _why_no_size(self) -> str:
        return "it is declared here and not defined"


class Modifier(Type):
    """A typedef, const, volatile, restrict or type tag; ``name`` is the typedef's or the tag's."""

    __slots__ = ()
    _own_facts = ("target",)

    @property
    def target(self) -> Type:
        """What it names or qualifies."""
        return self._type_at(2)

    @property
    def size(self) -> int:
        """Bytes of the type below; LayoutError where that has no size."""
        return self.resolve().size


class Func(Type):
    """A function."""

    __slots__ = ()
    _own_facts = ("type", "linkage")

    @property
    def type(self) -> Type:
        """Its prototype."""
        return self._type_at(2)

    @property
    def linkage(self) -> Linkage:
        """Who sees it."""
        return self._linkage(self._member_count, 1)


class FuncProto(Type):
    """What a function takes and returns."""

    __slots__ = ()
    _own_facts = ("return_type", "params")

    @property
    def return_type(self) -> Type:
        """What it returns, void included."""
        return self._type_at(2)

    @property
    def params(self) -> tuple[Param, ...]:
        """The parameters; ``...`` is a last one of type void without a name."""
        words = range(3, 3 + 2 * self._member_count, 2)
        return tuple(Param(self._name_at(word), self._type_at(word + 1)) for word in words)


class Var(Type):
    """A global variable."""

    __slots__ = ()
    _own_facts = ("type", "linkage")

    @property
    def _why_no_size(self) -> str:
        return "it is a variable, only its type has one"

    @property
    def type(self) -> Type:
        """What it holds."""
        return self._type_at(2)

    @property
    def linkage(self) -> Linkage:
        """Who sees it."""
        return self._linkage(self._word(3), 3)


class DataSec(_Sized):
    """A section of an object, such as ``.bss``, and the variables in it."""

    __slots__ = ()
    _own_facts = ("variables",)

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The variables and extern functions, in BTF's order."""
        variables = []
        for word in range(3, 3 + 3 * self._member_count, 3):
            var = self._type_at(word)
            if not isinstance(var, Var | Func):
                raise self._malformed(word, f"a section cannot hold type {var.id}, {var}")
            offset, size = self._word(word + 1), self._word(word + 2)
            variables.append(Variable(var.name, var.linkage, var.type, offset, size))
        return tuple(variables)


class DeclTag(Type):
    """A ``btf_decl_tag`` attribute; ``name`` is its text."""

    __slots__ = ()
    _own_facts = ("target", "component")

    @property
    def target(self) -> Type:
        """The struct, union, function, variable or typedef that it marks."""
        return self._type_at(2)

    @property
    def component(self) -> int | None:
        """The number of the member or parameter that it marks, None for the whole ``target``."""
        number = self._word(3)
        return None if number == _WHOLE else number


_CLASSES: dict[Kind, type[Type]] = {
    Kind.INT: Int,
    Kind.PTR: Pointer,
    Kind.ARRAY: Array,
    Kind.STRUCT: Composite,
    Kind.UNION: Composite,
    Kind.ENUM: Enum,
    Kind.FWD: Fwd,
    Kind.TYPEDEF: Modifier,
    Kind.VOLATILE: Modifier,
    Kind.CONST: Modifier,
    Kind.RESTRICT: Modifier,
    Kind.FUNC: Func,
    Kind.FUNC_PROTO: FuncProto,
    Kind.VAR: Var,
    Kind.DATASEC: DataSec,
    Kind.FLOAT: Float,
    Kind.DECL_TAG: DeclTag,
    Kind.TYPE_TAG: Modifier,
    Kind.ENUM64: Enum,
}

_QUALIFIERS = (Kind.CONST, Kind.VOLATILE, Kind.RESTRICT)


def _spell(spelled: Type, declarator: str, budget: Iterator[int], depth: int = 0) -> str:
    """``spelled`` in C around ``declarator``; each type on the way takes one from ``budget``.

    ``depth`` is how many prototypes it is a parameter within.

    C writes a type from the inside out: the declarator grows by ``*``, ``[n]`` and ``(...)`` until
    a type with a name is reached.
    """
    qualifiers = ""
    current = spelled
    for _ in budget:
        if isinstance(current, Modifier) and current.kind is not Kind.TYPEDEF:
            if current.kind in _QUALIFIERS:
                qualifiers += current.kind.name.lower() + " "
            current = current.target
        elif isinstance(current, Pointer):
            declarator = ("*" + qualifiers + declarator).rstrip()
            qualifiers = ""
            current = current.target
        elif isinstance(current, Array):
            declarator = f"{_grouped(declarator)}[{current.nelems or ''}]"
            current = current.type
        elif isinstance(current, FuncProto):
            declarator = f"{_grouped(declarator)}({_spell_params(current, budget, depth + 1)})"
            current = current.return_type
        elif isinstance(current, Func | Var):
            declarator = current.name + declarator
            current = current.type
        else:
            space = "" if declarator[:1] in ("", "[") else " "
            return qualifiers + _spell_name(current) + space + declarator
    raise spelled._malformed(0, f"it takes more than {_SPELLING_LIMIT} types to spell")


def _grouped(declarator: str) -> str:
    """``declarator`` so that ``[]`` or ``()`` behind it binds to all of it."""
    return f"({declarator})" if declarator.startswith("*") else declarator


def _spell_params(proto: FuncProto, budget: Iterator[int], depth: int) -> str:
    if depth > _PROTOTYPE_DEPTH_LIMIT:
        raise proto._malformed(0, f"it is nested in more than {_PROTOTYPE_DEPTH_LIMIT} prototypes")
    params = proto.params
    spelled = [_spell(param.type, "", budget, depth) for param in params]
    if params and params[-1].type.kind is Kind.VOID:
        spelled[-1] = "..."
    return ", ".join(spelled) or "void"


def _spell_name(named: Type) -> str:
    if isinstance(named, Fwd):
        return f"{'union' if named.is_union else 'struct'} {named.name}"
    if isinstance(named, Composite | Enum):
        tag = "enum" if isinstance(named, Enum) else named.kind.name.lower()
        return f"{tag} {named.name or '{...}'}"
    return named.name
