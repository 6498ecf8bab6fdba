# SPDX-License-Identifier: BSD-2-Clause
"""Global variables of an object: .rodata, .data, .bss, .kconfig and custom sections by name.

Before load() they are the initial image; afterwards .data and .bss are the live memory of the
programs, read and written without a system call, and .rodata and .kconfig are frozen.

A number of at most 8 bytes that does not cross a multiple of 8 is read and written in one piece,
as a program does it: nobody ever sees half of one.  Larger things are not: a program may write
between two members of a struct that is being read.
"""

from __future__ import annotations

import sys
from _collections_abc import Mapping  # collections.abc imports all of collections

from pybpf import _native
from pybpf._native import ffi, lib
from pybpf.errors import ClosedError, Error, KernelError, LayoutError, NotFoundError, StateError
from pybpf.kernel import explained

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Literal

    from pybpf.btf import Type, Variable
    from pybpf.object import Object
    from pybpf.object_map import ObjectMap

_RDONLY_PROG = 1 << 7  # BPF_F_RDONLY_PROG
_MMAPABLE = 1 << 10  # BPF_F_MMAPABLE
_KCONFIG = ".kconfig"
_WORD = 8  # bytes
# of memoryview.cast, by size
_FORMATS: dict[int, Literal["B", "H", "I", "Q"]] = {1: "B", 2: "H", 4: "I", 8: "Q"}
_SHOWN_LENGTH = 100  # characters of a value in a repr


class GlobalVariable:
    """A global variable of an object: where it is, of what BTF type, and its value.

    ``section`` is the Section that holds it, ``offset`` and ``size`` are in bytes.
    """

    __slots__ = (
        *("_codec", "_format", "_number", "_views"),
        *("name", "offset", "section", "size", "type"),
    )

    name: str
    section: Section
    type: Type
    offset: int
    size: int

    def __init__(self, section: Section, declared: Variable) -> None:
        self.section = section
        self.name = declared.name
        self.type = declared.type
        self.offset = declared.offset
        self.size = declared.size
        self._views: Any = None  # the module, imported when a value is used
        # once it is live, the memory of a number in the machine's own format, as one item
        self._number: memoryview | None = None

    @property
    def value(self) -> Any:
        """The value, typed by BTF: an int, bool, float, text or bytes; of a struct or array a view.

        A view (StructView, ArrayView) reads and writes the same memory, member by member.
        Assigning takes all that pybpf.layout.encode takes, and views besides.

        OverflowError and LayoutError for a value that does not fit, StateError for writing .rodata
        after load() or .kconfig at all, ClosedError after close().
        """
        number = self._number
        if number is None:
            return self._value()
        return self.section._owner._handle.call(number.__getitem__, 0)

    @value.setter
    def value(self, value: Any) -> None:
        number = self._number
        if number is not None:
            try:
                self.section._owner._handle.call(number.__setitem__, 0, value)
                return
            except (TypeError, ValueError):
                pass  # a constant, or no such number: what follows says which
        self._assign(value)

    def _value(self) -> Any:
        self._prepare()
        value = self._views.value_at(self.section, self._codec, self.offset)
        memory = self.section._live
        if memory is not None and self._format:
            self._number = memory[self.offset : self.offset + self.size].cast(self._format)
        return value

    def _assign(self, value: Any) -> None:
        self._prepare()
        try:
            data = self._views.packed(self._codec, value)
        except (OverflowError, LayoutError) as error:
            what = f"{self.section.name} variable {self.name!r} ({self.type})"
            raise self._views.told(error, what) from None
        self.section._write(self.offset, data)

    def _prepare(self) -> None:
        if self._views is None:
            from pybpf import layout, views

            self._codec = layout._codec(self.type)
            self._format = views.number_format(self._codec)
            self._views = views

    def __repr__(self) -> str:
        return f"<GlobalVariable {self.name!r} of {self.section.name}: {self.type}{self._shown()}>"

    def _shown(self) -> str:
        owner = self.section._owner
        if self.section.name == _KCONFIG and owner.state == "open":
            return ", set by load()"
        try:
            value = repr(self.value)
        except Error:
            return ", closed" if owner.closed else ""
        return f" = {value if len(value) <= _SHOWN_LENGTH else value[: _SHOWN_LENGTH - 1] + '…'}"


class Section(Mapping["str", "Any"]):
    """The variables of one section, as attributes and as a mapping from name to value.

    Made by the object: ``obj.data``, ``obj.sections[".data.custom"]``.  What values look like is
    told in GlobalVariable.value.  A variable whose name the class uses itself (map, raw, keys,
    values ...) is reached as an item only: ``section["keys"]``.  Where several static variables of
    a section have the same name, as in a linked object, their offset is added: ``section["x@8"]``.

    NotFoundError for an unknown name, AttributeError where it is an attribute; both suggest.
    """

    _live: memoryview | None
    _map: ObjectMap
    _owner: Object
    _section: str
    _table: dict[str, GlobalVariable] | None

    def __init__(self, owner: Object, memory: ObjectMap, section: str) -> None:
        for name, value in (
            ("_owner", owner),
            ("_map", memory),
            ("_section", section),
            ("_table", None),
            ("_live", None),
        ):
            object.__setattr__(self, name, value)

    @property
    def name(self) -> str:
        """The ELF section's name, such as ".rodata"."""
        return self._section

    @property
    def map(self) -> ObjectMap:
        """The map that holds the section."""
        return self._map

    @property
    def raw(self) -> bytes:
        """The whole section as bytes; assign bytes of the same length to replace it."""
        data: bytes = self._use(lambda memory: bytes(memory[: self._map.value_size]))
        return data

    @raw.setter
    def raw(self, data: bytes | bytearray | memoryview) -> None:
        data, size = bytes(data), self._map.value_size
        if len(data) != size:
            raise LayoutError(f"{size} bytes are needed, not {len(data)}")
        self._write(0, data)

    def variable(self, name: str) -> GlobalVariable:
        """The variable itself, with its type and place; NotFoundError with the nearest names."""
        table = self._variables()
        if name in table:
            return table[name]
        what = f"variable in {self._section}"
        if self._owner.btf is None:
            what += " (the object has no BTF: compile with clang -g, or use .raw)"
        raise NotFoundError(what, name, table)

    def _variables(self) -> dict[str, GlobalVariable]:
        if self._table is None:
            from pybpf.btf import DataSec

            btf = self._owner.btf
            section = btf.find(self._section) if btf is not None and self._section in btf else None
            declared = section.variables if isinstance(section, DataSec) else ()
            table = _by_unique_name(
                (f"{variable.name}@{variable.offset}", variable)
                for variable in (GlobalVariable(self, each) for each in declared)
            )
            object.__setattr__(self, "_table", table)
        assert self._table is not None
        return self._table

    # -- the memory --

    def _read(self, offset: int, size: int) -> bytes:
        """Those bytes, numbers among them in one piece."""
        return self._use(_loaded, offset, size)  # type: ignore[no-any-return]

    def _use(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """``function(memory, *arguments)``, during which the memory stays where it is."""
        live, owner = self._live, self._owner
        if live is not None:
            return owner._handle.call(function, live, *arguments)
        with owner._loading:  # before load(), what moves it holds this
            return owner._handle.call(lambda: function(self._memory(), *arguments))

    def _write(self, offset: int, data: bytes) -> None:
        """Store those bytes, a number in one piece, and no byte beside them."""
        live, owner = self._live, self._owner
        if live is not None and not live.readonly:
            owner._handle.call(_stored, live, offset, data)
            return
        with owner._loading:
            owner._handle.call(self._store, offset, data)

    def _modify(self, offset: int, size: int, change: Callable[[bytes], bytes]) -> None:
        """Replace bytes by what ``change`` makes of them, one thread after the other."""
        with self._owner._loading:
            self._write(offset, change(self._read(offset, size)))

    def _store(self, offset: int, data: bytes) -> None:
        if self._section == _KCONFIG:
            raise StateError(
                "write .kconfig: load() fills it in with the kernel's configuration; "
                "open(kconfig='CONFIG_X=y\\n') overrides that"
            )
        memory = self._memory()
        end = _end(memory, offset, len(data))
        if not self._is_constant():
            _stored(memory, offset, data)
        elif self._owner._state == "open":
            # Right after the question: without a call between, no signal handler can come and
            # load(), after which the kernel protects the memory.
            memory[offset:end] = data
        else:
            self._owner._require_open(f"write {self._section}")

    def _is_constant(self) -> bool:
        if self._live is not None:
            return self._live.readonly
        return bool(lib.bpf_map__map_flags(self._map._pointer) & _RDONLY_PROG)

    def _memory(self) -> memoryview:
        """The section's bytes: libbpf's image of them, over which load() maps the live map.

        From load() to close() they are in one place; read-only where the kernel protects them.
        """
        state = self._owner._state
        if not self._can_be_mapped():
            raise StateError(f"{self._section} has no memory of its own: the kernel cannot map it")
        if state == "loaded":
            code = lib.pybpf_map_variables(self._map._pointer)
            _native.check(code, "map the memory of", self._section, explained(KernelError))
        size = ffi.new("size_t *")
        start = lib.bpf_map__initial_value(self._map._pointer, size)
        if start == ffi.NULL:
            raise StateError(f"{self._section} has no memory of its own: the kernel cannot map it")
        # whole words: there are as many, for the kernel rounds up, too
        memory = memoryview(ffi.buffer(start, -(-size[0] // _WORD) * _WORD))
        if state != "open" and self._is_constant():
            memory = memory.toreadonly()
        if state == "loaded":
            object.__setattr__(self, "_live", memory)
        return memory

    def _can_be_mapped(self) -> bool:
        """Whether the memory is the live map's after load; libbpf before 1.7 keeps an image."""
        flags = lib.bpf_map__map_flags(self._map._pointer)
        return self._owner._state != "loaded" or bool(flags & _MMAPABLE)

    # -- as a mapping and as attributes --

    def __getitem__(self, name: str) -> Any:
        return self.variable(name).value

    def __setitem__(self, name: str, value: Any) -> None:
        self.variable(name).value = value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        table = self._variables() if self._table is None else self._table
        variable = table.get(name)
        if variable is None:
            raise self._no_attribute(name)
        return variable.value

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN_NAMES:
            if name != "raw":
                raise AttributeError(
                    f"Section.{name} is no variable; for one, use section[{name!r}]"
                )
            object.__setattr__(self, name, value)
            return
        table = self._variables() if self._table is None else self._table
        variable = table.get(name)
        if variable is None:
            raise self._no_attribute(name)
        variable.value = value

    def _no_attribute(self, name: str) -> AttributeError:
        try:
            self.variable(name)
        except NotFoundError as error:
            return AttributeError(str(error))
        raise AssertionError(name)

    def __contains__(self, name: object) -> bool:
        return name in self._variables()

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables())

    def __len__(self) -> int:
        return len(self._variables())

    def __dir__(self) -> list[str]:
        names = () if self._owner.closed else self._variables()
        return sorted({*super().__dir__(), *names})

    def __repr__(self) -> str:
        inside = "closed" if self._owner.closed else ", ".join(self)
        return f"<Section {self._section} of {self._owner.name!r}: {inside}>"


_OWN_NAMES = frozenset(dir(Section))


class Variables(Mapping["str", "GlobalVariable"]):
    """All variables of an object by name, over its sections; NotFoundError suggests.

    Where sections have static variables of the same name, the section's name comes before it:
    ``obj.variables[".bss:x"]``.
    """

    def __init__(self, sections: Mapping[str, Section]) -> None:
        self._sections = sections
        self._table: dict[str, GlobalVariable] | None = None

    def _variables(self) -> dict[str, GlobalVariable]:
        if self._table is None:
            self._table = _by_unique_name(
                (f"{section.name}:{name}", variable)
                for section in self._sections.values()
                for name, variable in section._variables().items()
            )
        return self._table

    def __getitem__(self, name: str) -> GlobalVariable:
        table = self._variables()
        if name not in table:
            raise NotFoundError("variable", name, table)
        return table[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables())

    def __len__(self) -> int:
        return len(self._variables())

    def __repr__(self) -> str:
        try:
            return f"<variables: {', '.join(self)}>"
        except ClosedError:
            return "<variables: closed>"


def _by_unique_name(
    variables: Iterable[tuple[str, GlobalVariable]],
) -> dict[str, GlobalVariable]:
    """Variables by their names or, where several have the same, by the longer ones given here."""
    pairs = list(variables)
    count: dict[str, int] = {}
    for _, variable in pairs:
        count[variable.name] = count.get(variable.name, 0) + 1
    return {
        longer if count[variable.name] > 1 else variable.name: variable
        for longer, variable in pairs
    }


# ---- memory that programs use at the same time ---------------------------------------------------
#
# How memcpy moves a few bytes is the C library's affair: musl's moves four of them one by one.  An
# item of a memoryview, however, is copied by its size, which the compiler knows, in one load or
# store.  (struct would not do: pack_into() clears the bytes first.)


def _loaded(memory: memoryview, offset: int, size: int) -> bytes:
    """Bytes of the memory, no number among them half-written."""
    end = _end(memory, offset, size)
    if size in _FORMATS:
        number = memory[offset:end].cast(_FORMATS[size])[0]
        return int.to_bytes(number, size, sys.byteorder)
    from array import array

    first, last = offset // _WORD, -(-end // _WORD)
    words = array("Q", memory[first * _WORD : last * _WORD].cast("Q"))  # one after the other
    start = offset - first * _WORD
    return words.tobytes()[start : start + size]


def _stored(memory: memoryview, offset: int, data: bytes) -> None:
    """Replace bytes of the memory, those of a number at once."""
    size = len(data)
    end = _end(memory, offset, size)
    if size in _FORMATS:
        memory[offset:end].cast(_FORMATS[size])[0] = int.from_bytes(data, sys.byteorder)
    else:
        memory[offset:end] = data


def _end(memory: memoryview, offset: int, size: int) -> int:
    """``offset + size``; LayoutError where the memory ends before."""
    end = offset + size
    if end > len(memory):
        raise LayoutError(f"{size} bytes at {offset} are beyond the section's {len(memory)}")
    return end
