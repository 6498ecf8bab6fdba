# SPDX-License-Identifier: BSD-2-Clause
"""An object on its way: open -> configure -> load -> attach -> consume -> close.

          open()          load()
    file ────────> OPEN ──────────> LOADED ──┐
                    │ │  refused             │ close()
                    │ └─────────> FAILED ────┤
                    └────────────────────────┴──> CLOSED

Configuring needs OPEN; maps, programs and attach() need LOADED.  libbpf cannot load an object
twice: after FAILED, open the file again.
"""

from __future__ import annotations

import builtins
import os
import sys
from _collections_abc import Mapping  # collections.abc imports all of collections

from pybpf import _native, elf
from pybpf._handles import Handle, warn_unclosed
from pybpf._native import ffi, lib
from pybpf.errors import (
    AttachError,
    ClosedError,
    NotFoundError,
    NotSupportedError,
    ObjectFormatError,
    ObjectNotFoundError,
    PrivilegeError,
    StateError,
)
from pybpf.kernel import explained
from pybpf.link import Link
from pybpf.map import Map, ObjectMap
from pybpf.program import ObjectProgram
from pybpf.variables import Section, Variables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, BinaryIO, TypeVar

    from pybpf.btf import Btf, Type
    from pybpf.events import RingReader

    ObjectSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
    Item = TypeVar("Item", ObjectMap, ObjectProgram)

_EOPNOTSUPP = 95
_OPEN_HINTS = {
    "legacy map definitions": 'hint: define maps as BTF structs in SEC(".maps")',
    "BTF is required": "hint: maps are described by BTF; compile with clang -g",
}
# of MapType, without the enum's import
_STRUCT_OPS = 26
_RINGBUF = 27
_RING_TYPES = (_RINGBUF, 31)  # 31: USER_RINGBUF
_DATA_SECTIONS = (".rodata", ".data", ".bss", ".kconfig")
_REUSE_FIELDS = ("type", "key_size", "value_size", "max_entries", "flags", "map_extra")


class Items(Mapping["str", "Any"]):
    """The maps or programs of an object by name, in the object's order; NotFoundError suggests."""

    def __init__(self, kind: str, items: Iterable[Any]) -> None:
        self._kind = kind
        self._items = {item.name: item for item in items}

    def __getitem__(self, name: str) -> Any:
        try:
            return self._items[name]
        except KeyError:
            raise NotFoundError(self._kind, name, self._items) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"<{self._kind}s: {', '.join(self._items)}>"


def open(
    source: ObjectSource,
    *,
    name: str | None = None,
    btf: str | os.PathLike[str] | None = None,
    pin_root: str | os.PathLike[str] | None = None,
    kconfig: str | None = None,
    token: str | os.PathLike[str] | None = None,
    log_level: int = 0,
) -> Object:
    """Open a compiled BPF object without asking the kernel anything; needs no privilege.

    ``source`` is a path, bytes or a binary file.  ``name`` is the object's name (the file's up to
    its first dot), which the kernel shows in the names of .rodata and the like.  ``btf`` is a BTF
    file to relocate against instead of the running kernel's.  ``pin_root`` is the folder for maps
    declared LIBBPF_PIN_BY_NAME (/sys/fs/bpf).  ``kconfig`` adds CONFIG_X=y lines over those of the
    running kernel.  ``token`` is a BPF file system to take a BPF token from (libbpf 1.4, Linux
    6.9).  ``log_level`` is the verifier's for every program that sets none of its own.

    ObjectFormatError for what is no such object, ObjectNotFoundError for a missing file.  The
    caller owns the Object: close() it, or use ``with``.
    """
    if not 0 <= log_level < 1 << 32:
        raise ValueError(f"log_level is a sum of 1, 2 and 4, not {log_level}")
    if token is not None and _native.version() < (1, 4):
        hint = "BPF tokens need libbpf 1.4; this pybpf is built with {}.{}".format(
            *_native.version()
        )
        raise NotSupportedError("use BPF token of", os.fspath(token), _EOPNOTSUPP, hint=hint)
    data, path = _read(source)
    elf.check_object(data, path, foreign=True)
    if name is None:
        name = os.path.basename(path).partition(".")[0] if path else "object"
    keep = [
        ffi.new("char[]", text)
        for text in (
            os.fsencode(name),
            os.fsencode(pin_root) if pin_root is not None else b"",
            kconfig.encode() if kconfig is not None else b"",
            os.fsencode(btf) if btf is not None else b"",
            os.fsencode(token) if token is not None else b"",
        )
    ]
    options = ffi.new("struct pybpf_open_options *")
    options.log_level = log_level
    for field, text in zip(("name", "pin_root", "kconfig", "btf", "token"), keep, strict=True):
        setattr(options, field, text if len(text) > 1 else ffi.NULL)
    pointer = ffi.new("struct bpf_object **")
    _native.listen()
    code = lib.pybpf_open(ffi.from_buffer(data), len(data), options, pointer)
    messages = _native.take_log()
    if code < 0:
        raise _open_error(-code, path, _native.join_log(messages, 0))
    custom_btf = None if btf is None else os.fspath(btf)
    return Object(pointer[0], path, elf.license(data), _byte_order(data), log_level, custom_btf)


def load(source: ObjectSource, **options: Any) -> Object:
    """open() with ``options`` and Object.load() in one go; where that fails nothing is left."""
    obj = open(source, **options)
    try:
        obj.load()
    except BaseException:
        obj.close()
        raise
    return obj


def _read(source: ObjectSource) -> tuple[bytes, str | None]:
    """The object's bytes, and its path where it has one."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source), None
    if hasattr(source, "read"):
        data = source.read()
        if not isinstance(data, bytes):
            raise ObjectFormatError("the file is open in text mode; open it in binary mode")
        name = getattr(source, "name", None)
        return data, name if isinstance(name, str) else None
    path = os.fspath(source)
    try:
        with _open_file(path) as file:
            return file.read(), path
    except IsADirectoryError:
        raise ObjectFormatError("is a folder, not a BPF object", path) from None
    except FileNotFoundError as error:
        raise ObjectNotFoundError("open object", path, error.errno or 0) from None
    except PermissionError as error:
        hint = "this user may not read the file"
        raise PrivilegeError("open object", path, error.errno or 0, hint=hint) from None


def _open_file(path: str) -> BinaryIO:
    import stat

    if not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path):
        raise ObjectFormatError("is no regular file", path)
    return builtins.open(path, "rb")


def _byte_order(data: bytes) -> str:
    return "big" if data[5] == 2 else "little"  # EI_DATA, which elf.check_object() has seen


def _open_error(errno: int, path: str | None, warnings: str) -> Exception:
    lines = [line for line in warnings.splitlines() if line.strip()]
    lines = lines[-8:] or [os.strerror(errno)]
    lines += [hint for words, hint in _OPEN_HINTS.items() if words in warnings]
    return ObjectFormatError("libbpf cannot open it: " + "\n  ".join(lines), path)


class Object:
    """A BPF object: its programs, maps, variables and what is attached of it.

    It owns everything in it: programs and maps end with close() unless pinned, and so do links.
    Made by open() and load().
    """

    def __init__(
        self,
        pointer: Any,
        path: str | None,
        license: str | None,
        byte_order: str,
        log_level: int,
        custom_btf: str | None,
    ) -> None:
        self.path = path
        self.license = license
        self.byte_order = byte_order
        self.name = _native.text(lib.bpf_object__name(pointer))
        self._handle = Handle(pointer, lib.bpf_object__close, f"object {self.name!r}")
        self._state = "open"
        self._log_level = log_level
        self._custom_btf = custom_btf
        self._log = ""
        self._links: list[Link] = []
        self._readers: list[RingReader] = []
        self._btf: Btf | None = None
        self.programs = Items("program", self._walk(lib.bpf_object__next_program, ObjectProgram))
        self.maps = Items("map", self._walk(lib.bpf_object__next_map, ObjectMap))
        self.sections = {
            section: Section(self, memory, section)
            for memory in self.maps.values()
            if (section := _section_name(memory))
        }
        self.variables = Variables(self.sections)

    def _walk(self, following: Callable[..., Any], item: type[Item]) -> Iterator[Item]:
        with self._handle.borrow() as pointer:
            current = following(pointer, ffi.NULL)
            while current != ffi.NULL:
                yield item(self, current)
                current = following(pointer, current)

    # -- state --

    @property
    def state(self) -> str:
        """Where the object is on its way: "open", "loaded", "failed" or "closed"."""
        return self._state

    @property
    def closed(self) -> bool:
        return self._state == "closed"

    def _require_open(self, what: str) -> None:
        if self._state != "open":
            self._wrong_state(what, "before load()", "open the file again to change it")

    def _require_loaded(self, what: str) -> None:
        if self._state != "loaded":
            then = "open the file again" if self._state == "failed" else "call load() first"
            self._wrong_state(what, "after load()", then)

    def _wrong_state(self, what: str, needed: str, then: str) -> None:
        if self.closed:
            raise ClosedError(f"{what}: object {self.name!r} is closed")
        raise StateError(f"{what}: works {needed}; object {self.name!r} is {self._state}; {then}")

    # -- what it holds --

    @property
    def btf(self) -> Btf | None:
        """The object's own types; None where it was compiled without -g."""
        if self._btf is None:
            from pybpf.btf import Btf

            with self._handle.borrow() as pointer:
                types = lib.bpf_object__btf(pointer)
                if types != ffi.NULL:
                    size = ffi.new("uint32_t *")
                    start = lib.btf__raw_data(types, size)
                    self._btf = Btf(bytes(ffi.buffer(start, size[0])))
        return self._btf

    @property
    def links(self) -> tuple[Link, ...]:
        """What is attached of this object, in the order of attaching."""
        return tuple(self._links)

    @property
    def log(self) -> str:
        """What libbpf said during load(), with the verifier's logs where log_level asked."""
        return self._log

    @property
    def rodata(self) -> Section:
        """Constants (``const volatile``): settable until load(); NotFoundError without any."""
        return self._section(".rodata")

    @property
    def data(self) -> Section:
        """Initialised globals; live after load()."""
        return self._section(".data")

    @property
    def bss(self) -> Section:
        """Zero-initialised globals; live after load()."""
        return self._section(".bss")

    @property
    def kconfig(self) -> Section:
        """``extern ... __kconfig`` values; they have their values after load()."""
        return self._section(".kconfig")

    def _section(self, name: str) -> Section:
        if name not in self.sections:
            raise NotFoundError("section", name, self.sections)
        return self.sections[name]

    # -- load --

    def load(self) -> None:
        """Create the maps, relocate against the kernel's types and have the verifier check all.

        All or nothing: after a LoadError (VerifierError, RelocationError), PinError or
        PrivilegeError nothing is left in the kernel, and the object must be opened again.  Needs
        CAP_BPF, and CAP_PERFMON or CAP_NET_ADMIN by program type, or root.
        """
        self._require_open("load")
        self._require_native_order()
        expected = self._untype_rings()
        wants_log = self._ask_for_statistics()
        _native.listen(debug=wants_log)
        with self._handle.borrow() as pointer:
            code = lib.pybpf_load(pointer)
        messages = _native.take_log(drop=expected)
        self._log = _native.join_log(messages)
        try:
            if code < 0:
                self._state = "failed"
                raise self._why_load_failed(
                    _native.kernel_errno(code), _native.join_log(messages, 0)
                )
            self._state = "loaded"
            self._keep_verifier_output(wants_log)
        finally:
            lib.pybpf_load_stats_clear()

    def _why_load_failed(self, errno: int, warnings: str) -> Exception:
        from pybpf.load_errors import Failure

        target = f"object {self.name!r}"
        difference = self._pinned_difference
        return Failure(target, errno, warnings, self._log, self._custom_btf, difference).error()

    def _require_native_order(self) -> None:
        if self.byte_order != sys.byteorder:
            target = {"little": "bpfel", "big": "bpfeb"}[sys.byteorder]
            message = f"is {self.byte_order}-endian; this machine needs clang -target {target}"
            raise ObjectFormatError(message, self.path)

    def _untype_rings(self) -> tuple[str, ...]:
        """Let a ring buffer's ``__type(value, T)`` just tell: the kernel wants sizes of 0.

        libbpf still tries to create such a map with T first; how it begins to say that this failed.
        """
        expected = []
        for ring in self.maps.values():
            if lib.bpf_map__type(ring._pointer) not in _RING_TYPES:
                continue
            if ring.value_size or ring.key_size:
                ring.key_size = ring.value_size = 0
                expected.append(f"Error in bpf_create_map_xattr({ring.name})")
        return tuple(expected)

    def _ask_for_statistics(self) -> bool:
        """Have every program that asks for a log also ask for statistics; whether any asks."""
        levels = {
            program: program.log_level or self._log_level for program in self.programs.values()
        }
        for program, level in levels.items():
            if level:
                program.log_level = level | 4  # BPF_LOG_STATS
        return any(levels.values())

    def _keep_verifier_output(self, wants_log: bool) -> None:
        logs: dict[str, str] = {}
        if wants_log:
            from pybpf import verifier

            logs = verifier.program_logs(self._log)
        for program in self.programs.values():
            program._verifier_log = logs.get(program.name, "")
            if program.loaded:
                program._statistics = _native.text(lib.pybpf_load_stats(program.fileno()))

    def _pinned_difference(self, path: str) -> str:
        for declared in self.maps.values():
            if declared.pin_path == path:
                with Map.open_pinned(path) as pinned:
                    return str(declared.differences(pinned, _REUSE_FIELDS))
        return ""

    # -- attach --

    def attach(self) -> list[Link]:
        """Attach every loaded program whose section names its hook, and register struct_ops maps.

        Programs with autoattach off, attached already or without a hook in their section's name
        are left out.  Returns the new links, which belong to the object; where one is refused,
        those before it are detached and AttachError is raised.
        """
        self._require_loaded("attach")
        attached: list[Link] = []
        done = {link.source for link in self._links}
        try:
            for program in self.programs.values():
                if program.loaded and program.autoattach and program not in done:
                    attached += self._attach_program(program)
            for ops in self.maps.values():
                kind = lib.bpf_map__type(ops._pointer)
                if kind == _STRUCT_OPS and ops.autocreate and ops not in done:
                    attached.append(self._attach_struct_ops(ops))
        except BaseException:
            for link in reversed(attached):
                link.detach()
            raise
        return attached

    def _attach_program(self, program: ObjectProgram) -> list[Link]:
        try:
            return [program.attach()]
        except AttachError as error:
            if error.errno == _EOPNOTSUPP:
                return []
            raise

    def _attach_struct_ops(self, ops: ObjectMap) -> Link:
        what = f"struct_ops map {ops.name!r}"
        with self._handle.borrow():
            pointer = lib.bpf_map__attach_struct_ops(ops._pointer)
            pointer = _native.check_pointer(pointer, "register", what, explained(AttachError))
        return self._adopt_link(pointer, what, ops)

    def _adopt_link(self, pointer: Any, what: str, source: ObjectProgram | ObjectMap) -> Link:
        link = Link(pointer, what, self, source)
        self._links.append(link)
        return link

    def _forget_link(self, link: Link) -> None:
        if link in self._links:
            self._links.remove(link)

    # -- consume --

    def events(
        self,
        name: str | Sequence[str] | None = None,
        *,
        type: str | Type | None = None,
        timeout: float | None = None,
    ) -> RingReader:
        """A reader of the ring buffer ``name``, or of several as (name, record) pairs.

        Without a name, all ring buffers of the object.  ``type`` is a BTF type of the object
        ("struct event") for the records; unless given, what the map's declaration names as its
        value, and bytes where it names none.  ``timeout`` in seconds ends iterating when nothing
        comes for so long.  The reader ends with the object; close() it to end it before.
        """
        from pybpf.events import RingReader, Source

        self._require_loaded("read events")
        if name is None:
            name = [ring.name for ring in self.maps.values() if ring.type == _RINGBUF]
            if not name:
                raise NotFoundError("ring buffer in object", self.name)
        names = [name] if isinstance(name, str) else list(name)
        record = self._record_type(type)
        sources = [
            Source(self.maps[each], record or self.maps[each].declared_value_type) for each in names
        ]
        reader = RingReader(sources, tagged=not isinstance(name, str), timeout=timeout, owner=self)
        self._readers.append(reader)
        return reader

    def _record_type(self, type: str | Type | None) -> Type | None:
        if not isinstance(type, str):
            return type
        if self.btf is None:
            raise NotFoundError("type", type)
        return self.btf[type]

    def _forget_reader(self, reader: RingReader) -> None:
        if reader in self._readers:
            self._readers.remove(reader)

    # -- close --

    def close(self) -> None:
        """End it all: readers, then links in reverse, then programs and maps that are not pinned.

        Every step is taken; the first error is raised afterwards.  Harmless to repeat.
        """
        if self.closed:
            return
        first: BaseException | None = None
        steps: list[Any] = [*reversed(self._readers), *reversed(self._links), self._handle]
        for step in steps:
            try:
                step.close()
            except BaseException as error:
                first = first or error
        if self._handle.closed:
            self._state = "closed"
        if first is not None:
            raise first

    def __enter__(self) -> Object:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Object {self.name!r} {self._state}>"

    def __del__(self) -> None:
        if getattr(self, "_state", "closed") == "closed" or sys.is_finalizing():
            return
        warn_unclosed(f"object {self.name!r}", self)
        self.close()


def _section_name(memory: ObjectMap) -> str:
    """The ELF section behind a map of globals ("prog.rodata" -> ".rodata"), "" for other maps."""
    if not memory.is_internal:
        return ""
    for section in _DATA_SECTIONS:
        if memory.name.endswith(section):
            return section
    return memory.name if memory.name.startswith(".") else ""
