# SPDX-License-Identifier: BSD-2-Clause
"""Global variables of an object: .rodata, .data, .bss, .kconfig and custom sections by name.

Before load() they are the initial image; afterwards .data and .bss are the live memory of the
programs, read and written without a system call, and .rodata is frozen.
"""

from __future__ import annotations

from _collections_abc import Mapping  # collections.abc imports all of collections

from pybpf._native import ffi, lib
from pybpf.errors import LayoutError, NotFoundError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pybpf.btf import Variable
    from pybpf.object import Object
    from pybpf.object_map import ObjectMap


class Section(Mapping["str", "Any"]):
    """The variables of one section, as attributes and as a mapping from name to value.

    A variable whose name the class uses itself (map, raw, keys, values ...) is reached as an item
    only: ``section["keys"]``.

    Values are typed by BTF: ints, bools, floats, text for char arrays, lists, and Struct for
    structs.  What is read is a copy: to change a member, assign the whole variable.
    NotFoundError for an unknown name, OverflowError and LayoutError for a value that does not fit,
    StateError for writing .rodata or .kconfig after load().
    """

    _map: ObjectMap
    _owner: Object
    _section: str
    _layout: dict[str, Variable] | None

    def __init__(self, owner: Object, memory: ObjectMap, section: str) -> None:
        for name, value in (
            ("_owner", owner),
            ("_map", memory),
            ("_section", section),
            ("_layout", None),
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
        with self._owner._handle.borrow():
            return bytes(self._memory())

    @raw.setter
    def raw(self, data: bytes | bytearray | memoryview) -> None:
        self._write(0, bytes(data), len(self.raw))

    def variable(self, name: str) -> Variable:
        """Name, BTF type, offset and size of a variable; NotFoundError with the nearest names."""
        variables = self._variables()
        if name not in variables:
            raise NotFoundError(f"variable in {self._section}", name, variables)
        return variables[name]

    def _variables(self) -> dict[str, Variable]:
        if self._layout is None:
            from pybpf.btf import DataSec

            btf = self._owner.btf
            section = btf.find(self._section) if btf is not None and self._section in btf else None
            found = section.variables if isinstance(section, DataSec) else ()
            object.__setattr__(self, "_layout", {variable.name: variable for variable in found})
        assert self._layout is not None
        return self._layout

    def _memory(self) -> Any:
        """The section's bytes in libbpf's hands, which load() maps onto the live map."""
        size = ffi.new("size_t *")
        start = lib.bpf_map__initial_value(self._map._pointer, size)
        if start == ffi.NULL:
            raise StateError(f"{self._section} has no memory of its own: the kernel cannot map it")
        return ffi.buffer(start, size[0])

    def _write(self, offset: int, data: bytes, size: int) -> None:
        if len(data) != size:
            raise LayoutError(f"{size} bytes are needed, not {len(data)}")
        if self._section.startswith((".rodata", ".kconfig")):
            self._owner._require_open(f"write {self._section}")
        with self._owner._handle.borrow():
            self._memory()[offset : offset + size] = data

    def __getitem__(self, name: str) -> Any:
        from pybpf import layout

        variable = self.variable(name)
        with self._owner._handle.borrow():
            data = self._memory()[variable.offset : variable.offset + variable.size]
        return layout.decode(variable.type, data)

    def __setitem__(self, name: str, value: Any) -> None:
        from pybpf import layout

        variable = self.variable(name)
        try:
            data = layout.encode(variable.type, value)
        except (OverflowError, LayoutError) as error:
            raise type(error)(
                f"{self._section} variable {name!r} ({variable.type}): {error}"
            ) from None
        self._write(variable.offset, data, variable.size)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self[name]
        except NotFoundError as error:
            raise AttributeError(str(error)) from error

    def __setattr__(self, name: str, value: Any) -> None:
        own = getattr(type(self), name, None)
        if isinstance(own, property) and own.fset is not None:
            own.fset(self, value)
            return
        if own is not None:
            raise AttributeError(f"Section.{name} is no variable; for one, use section[{name!r}]")
        try:
            self[name] = value
        except NotFoundError as error:
            raise AttributeError(str(error)) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables())

    def __len__(self) -> int:
        return len(self._variables())

    def __repr__(self) -> str:
        inside = "closed" if self._owner.closed else ", ".join(self)
        return f"<Section {self._section} of {self._owner.name!r}: {inside}>"


class Variables(Mapping["str", "Any"]):
    """All variables of an object by name, over its sections; assign as in a dict."""

    def __init__(self, sections: dict[str, Section]) -> None:
        self._sections = sections

    def section_of(self, name: str) -> Section:
        """The section that holds the variable; NotFoundError with the nearest names."""
        for section in self._sections.values():
            if name in section._variables():
                return section
        raise NotFoundError("variable", name, self)

    def __getitem__(self, name: str) -> Any:
        return self.section_of(name)[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.section_of(name)[name] = value

    def __iter__(self) -> Iterator[str]:
        for section in self._sections.values():
            yield from section

    def __len__(self) -> int:
        return sum(map(len, self._sections.values()))
