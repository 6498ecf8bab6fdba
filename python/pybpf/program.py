# SPDX-License-Identifier: BSD-2-Clause
"""Programs: what the kernel holds, and, before load, what an object asks for."""

from __future__ import annotations

import errno as _errno
import os

from pybpf import _native, pins
from pybpf._handles import OwnedFd
from pybpf._native import ffi, lib
from pybpf.errors import AttachError, KernelError, LayoutError, StateError
from pybpf.kernel import explained, has_tracefs
from pybpf.link import Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pybpf.constants import AttachType, ProgramType
    from pybpf.info import ProgramInfo, TestRunResult
    from pybpf.object import Object
    from pybpf.verifier import VerifierStats

_BPF_INSN_SIZE = 8
_TRACEPOINT = 5  # ProgramType.TRACEPOINT, without the enum's import


class Program:
    """A program that the kernel holds.

    Made by Program.open_pinned(), .from_id() and .from_fd(), which own their descriptor: close it,
    or use ``with``.  The programs of an object are ObjectPrograms.
    """

    def __init__(self, fd: OwnedFd) -> None:
        self._fd = fd
        raw = _native.info(fd.fileno(), "struct bpf_prog_info")
        self._name = _native.text(raw.name)
        self._type = int(raw.type)

    @classmethod
    def open_pinned(cls, path: str | os.PathLike[str]) -> Program:
        """The program pinned at ``path``; PinError without one.  The caller owns the handle."""
        return cls(OwnedFd(pins.open_pinned(path, "prog"), f"program pinned at {os.fspath(path)}"))

    @classmethod
    def from_id(cls, id: int) -> Program:
        """The program with that kernel id; needs CAP_SYS_ADMIN.  The caller owns the handle."""
        fd = lib.bpf_prog_get_fd_by_id(id)
        fd = _native.check(fd, "open program", f"of id {id}", explained(KernelError))
        return cls(OwnedFd(fd, f"program of id {id}"))

    @classmethod
    def from_fd(cls, fd: int) -> Program:
        """The program behind a descriptor that the caller keeps: pybpf duplicates it."""
        kind = pins.fd_kind(fd)
        if kind != "prog":
            raise LayoutError(f"fd {fd} is no program but: {kind}")
        return cls(OwnedFd(os.dup(fd), f"program of fd {fd}"))

    @property
    def name(self) -> str:
        """The program's name; the kernel keeps 15 characters of it."""
        return self._name

    @property
    def type(self) -> ProgramType:
        """The kind of program."""
        from pybpf.constants import ProgramType

        return ProgramType(self._type)

    @property
    def id(self) -> int:
        """The kernel's number of this program."""
        return int(_native.info(self.fileno(), "struct bpf_prog_info").id)

    @property
    def tag(self) -> str:
        """The kernel's hash of the instructions, 16 hex digits."""
        return self.info().tag

    def info(self) -> ProgramInfo:
        """What the kernel tells of this program right now."""
        from pybpf import info

        return info.program_info(self.fileno())

    def fileno(self) -> int:
        """The program's descriptor, which stays this object's own; ClosedError after close()."""
        return self._fd.fileno()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}>"

    def test_run(
        self,
        data: bytes | None = None,
        *,
        ctx: bytes | None = None,
        repeat: int = 1,
        data_out_size: int | None = None,
        flags: int = 0,
        cpu: int = 0,
        batch_size: int = 0,
    ) -> TestRunResult:
        """Run the program in the kernel on given input (BPF_PROG_TEST_RUN).

        ``data`` is a packet for network programs, ``ctx`` the context structure as bytes.  Up to
        ``data_out_size`` bytes of the packet afterwards come back (256 more than ``data`` unless
        given) and as many bytes of context as went in.  NotSupportedError is what the kernel's
        EOPNOTSUPP means: this type has no test run.  Needs what loading the program needs.
        """
        from pybpf.constants import ProgramType
        from pybpf.info import TestRunResult

        if data is None:
            out_size = 0
        else:
            out_size = len(data) + 256 if data_out_size is None else data_out_size
        data_out = ffi.new("char[]", max(out_size, 1))
        run = ffi.new("struct pybpf_test_run *")
        # 0 runs once too, and is all that syscall and raw tracepoint programs take
        run.repeat = 0 if repeat == 1 else repeat
        run.flags, run.cpu, run.batch_size = flags, cpu, batch_size
        data_in = ffi.new("char[]", data or b"\0")
        ctx_in, ctx_out = ffi.new("char[]", ctx or b"\0"), ffi.new("char[]", len(ctx or b"\0"))
        if data is not None:
            run.data_in, run.data_size_in = data_in, len(data)
        if out_size:
            run.data_out, run.data_size_out = data_out, out_size
        if ctx is not None:
            run.ctx_in, run.ctx_size_in = ctx_in, len(ctx)
            if self.type == ProgramType.SYSCALL:
                ctx_out = ctx_in  # where the kernel writes it back
            elif self.type != ProgramType.RAW_TRACEPOINT:
                run.ctx_out, run.ctx_size_out = ctx_out, len(ctx)
        code = lib.pybpf_test_run(self.fileno(), run)
        _native.check(
            code, "test-run", f"program {self.name!r}", explained(KernelError, self._run_hint)
        )
        return TestRunResult(
            retval=run.retval,
            data_out=bytes(ffi.buffer(data_out, run.data_size_out)) if out_size else b"",
            ctx_out=bytes(ffi.buffer(ctx_out, len(ctx))) if ctx is not None else b"",
            duration_ns=run.duration,
        )

    def _run_hint(self, errno: int) -> str:
        if errno in (_errno.EOPNOTSUPP, 524):
            return f"programs of type {self.type.name} have no test run on this kernel"
        if errno == _errno.EINVAL:
            return "the input does not suit the program's type: packets take data, others take ctx"
        if errno == _errno.ENOSPC:
            return "the packet afterwards is longer than data_out_size"
        return ""

    def pin(self, path: str | os.PathLike[str]) -> None:
        """Give the program a name on a bpffs, where it lives on without this process; PinError."""
        pins.pin(self.fileno(), path, f"program {self.name!r}")

    def unpin(self, path: str | os.PathLike[str]) -> None:
        """Remove the pin at ``path``; PinError where there is none."""
        self.fileno()
        pins.unpin(path, f"program {self.name!r}")

    def close(self) -> None:
        """Give the descriptor back; the program ends unless a pin, link or hook holds it."""
        self._fd.close()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class ObjectProgram(Program):
    """A program that an object holds: configurable until load(), then a Program that can attach.

    Its descriptor belongs to the object and ends with it.  Setting a property after load() is a
    StateError.
    """

    def __init__(self, owner: Object, pointer: Any) -> None:
        self._owner = owner
        self._pointer = pointer
        self._name = _native.text(lib.bpf_program__name(pointer))
        self._section = _native.text(lib.bpf_program__section_name(pointer))
        self._verifier_log = ""
        self._statistics = ""

    def _get(self, getter: Callable[[Any], Any]) -> Any:
        with self._owner._handle.borrow():
            return getter(self._pointer)

    def _set(self, what: str, setter: Callable[..., int], *values: Any) -> None:
        self._owner._require_open(f"set {what} of program {self._name!r}")
        with self._owner._handle.borrow():
            code = setter(self._pointer, *values)
        _native.check(code, f"set {what} of", f"program {self._name!r}")

    @property
    def section(self) -> str:
        """The ELF section's name, from which libbpf takes type and hook ("tp/sched/...")."""
        return self._section

    @property
    def type(self) -> ProgramType:
        """The kind of program."""
        from pybpf.constants import ProgramType

        return ProgramType(self._get(lib.bpf_program__type))

    @type.setter
    def type(self, value: ProgramType) -> None:
        self._set("type", lib.bpf_program__set_type, value)

    @property
    def expected_attach_type(self) -> AttachType:
        """Which of its type's hooks the program is verified for."""
        from pybpf.constants import AttachType

        return AttachType(self._get(lib.bpf_program__expected_attach_type))

    @expected_attach_type.setter
    def expected_attach_type(self, value: AttachType) -> None:
        self._set("expected_attach_type", lib.bpf_program__set_expected_attach_type, value)

    @property
    def autoload(self) -> bool:
        """Whether load() loads it; ``SEC("?...")`` starts as False."""
        return bool(self._get(lib.bpf_program__autoload))

    @autoload.setter
    def autoload(self, value: bool) -> None:
        self._set("autoload", lib.bpf_program__set_autoload, value)

    @property
    def autoattach(self) -> bool:
        """Whether the object's attach() attaches it; may be set at any time."""
        return bool(self._get(lib.bpf_program__autoattach))

    @autoattach.setter
    def autoattach(self, value: bool) -> None:
        with self._owner._handle.borrow():
            lib.bpf_program__set_autoattach(self._pointer, value)

    @property
    def log_level(self) -> int:
        """What the verifier writes: 0 only if it refuses, 1 the last path, 2 all, +4 statistics."""
        return int(self._get(lib.bpf_program__log_level))

    @log_level.setter
    def log_level(self, value: int) -> None:
        self._set("log_level", lib.bpf_program__set_log_level, value)

    @property
    def flags(self) -> int:
        """``prog_flags`` of BPF_PROG_LOAD (BPF_F_SLEEPABLE and so on)."""
        return int(self._get(lib.bpf_program__flags))

    @flags.setter
    def flags(self, value: int) -> None:
        self._set("flags", lib.bpf_program__set_flags, value)

    def set_attach_target(self, name: str | None, program: Program | None = None) -> None:
        """Set, before load(), what a program hooks that is verified for one target: fentry, fexit,
        fmod_ret, freplace, LSM, iter and tp_btf programs.

        ``name`` is a function of the kernel, or of ``program`` where one is given.
        """
        fd = program.fileno() if program is not None else 0
        raw = ffi.NULL if name is None else name.encode()
        self._set("attach target", lib.bpf_program__set_attach_target, fd, raw)

    @property
    def insns(self) -> bytes:
        """The instructions, 8 bytes each: before load() as compiled, afterwards as relocated."""
        with self._owner._handle.borrow():
            count = lib.bpf_program__insn_cnt(self._pointer)
            start = lib.bpf_program__insns(self._pointer)
            return bytes(ffi.buffer(ffi.cast("char *", start), count * _BPF_INSN_SIZE))

    @property
    def insn_count(self) -> int:
        """How many instructions of 8 bytes."""
        return int(self._get(lib.bpf_program__insn_cnt))

    @property
    def loaded(self) -> bool:
        """Whether the kernel holds it: after load(), with autoload on, until close."""
        return not self._owner.closed and self._get(lib.bpf_program__fd) >= 0

    @property
    def verifier_log(self) -> str:
        """What the verifier wrote while accepting the program, where ``log_level`` asked for it."""
        return self._verifier_log

    @property
    def verifier_summary(self) -> str:
        """The verifier's statistics in its own words; "" where the kernel gave none."""
        return self._statistics or self._verifier_log

    @property
    def verifier_stats(self) -> VerifierStats | None:
        """What accepting the program cost the verifier; None before load().

        Whole with pybpf's own libbpf; with the system's only ``processed_insns`` (Linux 5.16),
        unless ``log_level`` has the bit 4.
        """
        if not self.loaded:
            return None
        from pybpf import verifier

        stats = verifier.parse_stats(self.verifier_summary)
        if stats is not None:
            return stats
        count = self.info().verified_insns
        return verifier.VerifierStats(count) if count else None

    def fileno(self) -> int:
        """The program's descriptor, which the object owns; StateError before load()."""
        self._owner._require_loaded(f"use program {self._name!r}")
        fd = int(lib.bpf_program__fd(self._pointer))
        if fd < 0:
            raise StateError(f"program {self._name!r} was not loaded: its autoload is off")
        return fd

    def attach(self) -> Link:
        """Attach to the hook that the section's name gives; the link belongs to the object.

        AttachError where the kernel refuses or the name gives no hook.  Needs the privileges of
        the hook: CAP_PERFMON for tracing, CAP_NET_ADMIN for networking.  Works for tracepoints
        where tracefs is not mounted, too (Linux 5.2).
        """
        self.fileno()
        what = f"program {self._name!r} to {self._section}"
        _native.listen()
        with self._owner._handle.borrow():
            kind = lib.bpf_program__type(self._pointer)
            if kind == _TRACEPOINT and not has_tracefs():
                pointer = self._attach_hidden_tracepoint(what)
            else:
                pointer = lib.bpf_program__attach(self._pointer)
            refusal = explained(AttachError, self._attach_hint)
            pointer = _native.check_pointer(pointer, "attach", what, refusal)
        return self._owner._adopt_link(pointer, what, self)

    def _attach_hidden_tracepoint(self, what: str) -> Any:
        """What libbpf does for tracepoints, through a tracefs that is mounted nowhere."""
        hook = self._section.lstrip("?").split("/", 1)[-1]
        refusal = explained(AttachError, self._attach_hint)
        tracefs = _native.check(lib.pybpf_tracefs_open(), "open a tracefs for", what, refusal)
        try:
            event = os.open(f"events/{hook}/id", os.O_RDONLY | os.O_CLOEXEC, dir_fd=tracefs)
        except OSError as error:
            errno = error.errno or 0
            raise AttachError("attach", what, errno, hint=self._attach_hint(errno)) from None
        finally:
            os.close(tracefs)
        try:
            number = int(os.read(event, 32))
        finally:
            os.close(event)
        fd = _native.check(lib.pybpf_perf_tracepoint(number), "attach", what, refusal)
        pointer = lib.bpf_program__attach_perf_event(self._pointer, fd)
        if pointer == _native.NULL:
            errno = ffi.errno
            os.close(fd)
            ffi.errno = errno
        return pointer

    def _attach_hint(self, errno: int) -> str:
        if errno == _errno.EOPNOTSUPP:
            return f"section {self._section!r} does not say where to attach"
        if errno in (_errno.ENOENT, _errno.ESRCH, _errno.EINVAL):
            return f"this kernel may not have the hook that section {self._section!r} names"
        return ""

    def close(self) -> None:
        """Programs of an object end with it."""
        raise StateError(f"program {self._name!r} belongs to its object; close that")
