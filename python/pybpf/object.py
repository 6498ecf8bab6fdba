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

import errno
import sys
from _thread import RLock

from pybpf import _native
from pybpf._handles import Handle, Uncopyable, warn_unclosed
from pybpf._native import ffi, lib
from pybpf.errors import (
    AttachError,
    ClosedError,
    KernelError,
    NotFoundError,
    ObjectFormatError,
    StateError,
)
from pybpf.items import Items
from pybpf.kernel import needed_capabilities
from pybpf.link import Link
from pybpf.map import Map
from pybpf.object_map import LEAVES_OUT_OPS, RING_TYPES, ObjectMap
from pybpf.program import ObjectProgram
from pybpf.variables import Section, Variables

TYPE_CHECKING = False
if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, TypeVar

    from pybpf.btf import Btf
    from pybpf.errors import NotSupportedError
    from pybpf.events import Reader
    from pybpf.holds import Hold
    from pybpf.record_types import RecordTypeArgument
    from pybpf.user_ring import UserRing

    Item = TypeVar("Item", ObjectMap, ObjectProgram)

# of MapType, without the enum's import
_STRUCT_OPS = 26
_STRUCT_OPS_PROGRAM = 27  # of ProgramType
_PERF_EVENT_ARRAY = 4
_RINGBUF = 27
LOG_STATS = 4  # BPF_LOG_STATS
_REUSE_FIELDS = ("type", "key_size", "value_size", "max_entries", "flags", "map_extra")


class Object(Uncopyable):
    """A BPF object: its programs, maps, variables and what is attached of it.

    It owns everything in it: programs and maps end with close() unless pinned, and so do links.
    Made by open() and load().  ``programs``, ``maps`` and ``sections`` (".data.custom") hold it by
    name, ``variables`` those of all sections.  ``skipped`` tells, by name, why load() or attach()
    left out what was optional.
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
        self.skipped: dict[str, NotSupportedError] = {}
        self._links: list[Link] = []
        self._readers: dict[int, weakref.ref[Reader | UserRing]] = {}
        self.path = path
        self.license = license
        self.byte_order = byte_order
        self.name = _native.text(lib.bpf_object__name(pointer))
        self._handle = Handle(pointer, lib.bpf_object__close, f"object {self.name!r}")
        self._state = "open"
        self._log_level = log_level
        self._custom_btf = custom_btf
        self._log = ""
        self._loading = RLock()
        self._attaching = RLock()
        self._btf: Btf | None = None
        self.programs = Items("program", self._walk(lib.bpf_object__next_program, ObjectProgram))
        self.maps = Items("map", self._walk(lib.bpf_object__next_map, ObjectMap))
        self.sections = Items(
            "section",
            (
                Section(self, memory, section)
                for memory in self.maps.values()
                if (section := _section_name(memory))
            ),
        )
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
        """``extern ... __kconfig`` values: load() sets them, to zero where weak and unknown."""
        return self._section(".kconfig")

    def _section(self, name: str) -> Section:
        section: Section = self.sections[name]
        return section

    # -- load --

    def load(self, *, optional: bool | str | Iterable[str] = False) -> None:
        """Create the maps, relocate against the kernel's types and have the verifier check all.

        All or nothing: after a LoadError (VerifierError, RelocationError), PinError,
        NotSupportedError or PrivilegeError nothing is left in the kernel, and the object must be
        opened again.  Needs CAP_BPF, and CAP_PERFMON or CAP_NET_ADMIN by program type, or root.

        Of the programs and struct_ops maps whose names are ``optional`` (True: all) those are left
        out that this kernel cannot have, because it has no such kind, nor the function or type that
        a program's section names; ``skipped`` tells which and why.  What the verifier refuses, such
        as a helper that this kernel lacks, is an error nevertheless.
        """
        with self._loading:  # a second thread comes after the first, and finds it loaded
            self._require_open("load")
            self._require_native_order()
            if names := self._chosen(optional):
                from pybpf import availability

                self.skipped.update(availability.leave_out(self, names))
            if _native.version() < LEAVES_OUT_OPS and self._has_struct_ops():
                from pybpf import availability

                availability.require_struct_ops(self)
            self._load()

    def _has_struct_ops(self) -> bool:
        return any(
            lib.bpf_program__type(each._pointer) == _STRUCT_OPS_PROGRAM
            for each in self.programs.values()
        ) or any(lib.bpf_map__type(each._pointer) == _STRUCT_OPS for each in self.maps.values())

    def _chosen(self, optional: bool | str | Iterable[str]) -> set[str]:
        """The names that ``optional`` stands for; NotFoundError for one that is nowhere."""
        known = {*self.programs, *self.maps}
        if isinstance(optional, bool):
            return known if optional else set()
        chosen = {optional} if isinstance(optional, str) else set(optional)
        for name in chosen - known:
            raise NotFoundError("program or map", name, known)
        return chosen

    def _load(self) -> None:
        expected = self._untype_rings()
        wants_log = self._set_log_levels()
        _native.listen(debug=wants_log)
        with self._handle.borrow() as pointer:
            self._state = "failed"  # which it is where anything, Ctrl-C too, comes between
            code = lib.pybpf_load(pointer)
            if code >= 0:
                self._state = "loaded"
        messages = _native.take_log(drop=expected)
        self._log = _native.join_log(messages)
        try:
            if code < 0:
                warnings = _native.join_log(messages, 0)
                raise self._why_load_failed(_native.kernel_errno(code), warnings)
            self._keep_verifier_output(wants_log)
        finally:
            lib.pybpf_load_stats_clear()

    def _why_load_failed(self, number: int, warnings: str) -> Exception:
        from pybpf import availability
        from pybpf.load_errors import Failure

        target = f"object {self.name!r}"
        difference = self._pinned_difference
        needed = needed_capabilities([p.type for p in self.programs.values() if p.autoload])
        error = Failure(
            target, number, warnings, self._log, self._custom_btf, needed, difference
        ).error()
        return availability.why_refused(self, error)

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
            if lib.bpf_map__type(ring._pointer) not in RING_TYPES:
                continue
            if ring.value_size or ring.key_size:
                ring.key_size = ring.value_size = 0
                expected.append(f"Error in bpf_create_map_xattr({ring.name})")
        return tuple(expected)

    def _set_log_levels(self) -> bool:
        """Have every program that asks for a log also ask for statistics; whether any asks.

        Statistics alone come with every load where libbpf is built in; asked for through libbpf
        they would take the place of a refused program's log.
        """
        wanted = False
        for program in self.programs.values():
            level = program.log_level or self._log_level
            if level == LOG_STATS:
                level = 0 if lib.PYBPF_HAS_LOAD_STATS else LOG_STATS | 1
            elif level:
                level |= LOG_STATS
            wanted = wanted or level != 0
            with self._handle.borrow():
                lib.bpf_program__set_log_level(program._pointer, level)
        return wanted

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

    def attach(self, *, optional: bool | str | Iterable[str] = False) -> list[Link]:
        """Attach every loaded program whose section names its hook, and register struct_ops maps.

        Programs with autoattach off, attached already or without a hook in their section's name
        are left out; ``unattached`` lists these with what they need.  Returns the new links, which
        belong to the object; where one is refused, those before it are detached and AttachError or
        NotSupportedError is raised.

        Those whose names are ``optional`` (True: all) are left out as well where this kernel has no
        such hook, a function or tracepoint of that name for one; ``skipped`` tells which and why.

        A struct_ops map of section ".struct_ops" is unregistered by detach() or close(), but not
        by the kernel when the process is killed; one of ".struct_ops.link" is.
        """
        self._require_loaded("attach")
        chosen = self._chosen(optional)
        attached: list[Link] = []
        with self._attaching:
            try:
                for each in self._attachable():
                    attached += self._attach(each, each.name in chosen)
            except BaseException:
                for link in reversed(attached):
                    link.detach()
                raise
        return attached

    def _attachable(self) -> Iterator[ObjectProgram | ObjectMap]:
        """What attach() tries: what is loaded, may be attached by itself, and is not yet."""
        done = {link.source for link in self._links}
        for program in self.programs.values():
            if program.loaded and program.autoattach and program not in done:
                yield program
        for ops in self.maps.values():
            kind = ops._get(lib.bpf_map__type)
            if kind == _STRUCT_OPS and ops.autocreate and ops not in done:
                yield ops

    def _attach(self, each: ObjectProgram | ObjectMap, is_optional: bool = False) -> list[Link]:
        """Its link; none where its section names no hook, or the kernel lacks what is optional."""
        try:
            return [each.attach()]
        except KernelError as error:
            if _names_no_hook(each, error) or (is_optional and self._skip(each.name, error)):
                return []
            raise

    def _skip(self, name: str, error: KernelError) -> bool:
        """Note what is left out; False where ``error`` does not say that the kernel lacks it."""
        from pybpf import availability

        missing = availability.missing_hook(error)
        if missing is not None:
            self.skipped[name] = missing
        return missing is not None

    @property
    def unattached(self) -> dict[str, str]:
        """What is loaded and not attached, by name, and the method that attaches or runs it.

        {"count": "attach_xdp(device)", "on_exec": "attach()"}: programs and struct_ops maps that
        no link of this object is of.
        """
        from pybpf import attach_words

        self._require_loaded("list what is unattached")
        return attach_words.unattached(self)

    def _adopt_link(
        self,
        hold: Hold,
        what: str,
        source: ObjectProgram | ObjectMap,
        again: Callable[[Any], Link],
    ) -> Link:
        """A link of this object's; ``again`` attaches another source to the same hook."""
        link = Link(hold, what, self, source, again)
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
        type: RecordTypeArgument | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> Reader:
        """A reader of the ring buffer or perf event array ``name``, or of several by name.

        Without a name, of all ring buffers and perf event arrays of the object.  ``type``,
        ``timeout`` and the options for perf event arrays are those of :class:`pybpf.Reader`.  The
        reader ends with the object or its last reference, or by close().
        """
        from pybpf.events import Reader

        self._require_loaded("read events")
        if isinstance(name, str):
            reader = Reader(self.maps[name], type=type, timeout=timeout, **options)
        else:
            names = self._streams() if name is None else name
            maps = [self.maps[each] for each in names]
            reader = Reader(maps, type=type, timeout=timeout, **options)
        reader._owner = self
        self._adopt(reader)
        return reader

    def _streams(self) -> list[str]:
        """The names of the maps that programs write records into."""
        kinds = {_RINGBUF, _PERF_EVENT_ARRAY}
        streams = [each for each in self.maps.values() if each.autocreate and each.type in kinds]
        if not streams:
            raise NotFoundError("ring buffer or perf event array in object", self.name)
        return [each.name for each in streams]

    def _adopt(self, reader: Reader | UserRing) -> None:
        """Have close() end it, where it is still there."""
        import weakref

        self._readers[id(reader)] = weakref.ref(reader)

    def _forget_reader(self, reader: Reader | UserRing) -> None:
        self._readers.pop(id(reader), None)

    # -- close --

    def close(self) -> None:
        """End it all: what reads and writes rings, links in reverse, programs, maps; pins stay.

        Every step is taken; the first error is raised afterwards.  Harmless to repeat.
        """
        if self.closed:
            return
        first: BaseException | None = None
        readers = [reader for ref in list(self._readers.values()) if (reader := ref())]
        steps: list[Any] = [*readers, *reversed(self._links), self._handle]
        for step in steps:
            try:
                step.close()
            except BaseException as error:
                first = first or error
        if self._handle.closed:
            self._state = "closed"
            for each in self.maps.values():
                each._end_access()
            for each in self.programs.values():
                each._end_runs()
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
        try:
            warn_unclosed(f"object {self.name!r}", self)
        finally:
            self.close()


def _names_no_hook(each: ObjectProgram | ObjectMap, error: KernelError) -> bool:
    """Whether that is why it was refused: libbpf cannot attach it by its section's name."""
    is_attaching = isinstance(each, ObjectProgram) and isinstance(error, AttachError)
    return is_attaching and error.errno == errno.EOPNOTSUPP


def _section_name(memory: ObjectMap) -> str:
    """The ELF section behind a map of globals ("prog.rodata" -> ".rodata"), "" for other maps."""
    if not memory.is_internal:
        return ""
    if memory.name.startswith("."):  # a custom section keeps its whole name
        return memory.name
    return memory.name[memory.name.rfind(".") :]
