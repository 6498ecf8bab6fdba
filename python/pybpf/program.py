# SPDX-License-Identifier: BSD-2-Clause
"""Programs: what the kernel holds, and, before load, what an object asks for."""

from __future__ import annotations

import errno as _errno
import os

from pybpf import _native
from pybpf._native import Runs, ffi, lib
from pybpf.attaching import DescriptorHooks, KernelHooks, UserspaceHooks
from pybpf.errors import (
    ENOTSUPP,
    AttachError,
    ClosedError,
    KernelError,
    NotSupportedError,
    StateError,
)
from pybpf.holds import LibbpfHold, UsdtHold
from pybpf.kernel import explained, has_tracefs, needed_capabilities
from pybpf.kernel_object import Declared, FdBorrow, KernelObject
from pybpf.link import Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from typing_extensions import Buffer

    from pybpf._handles import OwnedFd
    from pybpf._native import TestRunResult
    from pybpf.btf import Type
    from pybpf.constants import AttachType, CgroupIterOrder, ProgramType
    from pybpf.dump import JitedFunction, XlatedInstruction
    from pybpf.holds import Hold
    from pybpf.info import ProgramInfo
    from pybpf.iteration import Iteration
    from pybpf.map import Map
    from pybpf.object import Object
    from pybpf.record_types import RecordTypeArgument
    from pybpf.running import RunResult
    from pybpf.verifier import VerifierStats

_BPF_INSN_SIZE = 8
# of ProgramType, without the enum's import
_CTX_OUT = {17: 0, 31: 1}  # RAW_TRACEPOINT, SYSCALL


class Runner:
    """What test runs of a program need: a descriptor of their own, and how the context comes back.

    ``ctx_out``: 0 not at all, 1 written in place, 2 written apart.
    """

    __slots__ = ("address", "ctx_out", "handle")

    def __init__(self, fd: int, type: int) -> None:
        self.handle = _native.shared_fd(fd)
        self.address = int(ffi.cast("uintptr_t", self.handle))
        self.ctx_out = _CTX_OUT.get(type, 2)

    def close(self) -> None:
        """Give the descriptor back, at the latest when runs that use it have returned."""
        lib.pybpf_fd_close(self.handle)


class Program(KernelObject, DescriptorHooks, Runs):
    """A program that the kernel holds.

    Made by Program.open_pinned(), .from_id() and .from_fd(), which own their descriptor: close it,
    or use ``with``.  The programs of an object are ObjectPrograms.
    """

    _noun = "program"
    _runner: Runner | None = None

    def __init__(self, fd: OwnedFd) -> None:
        self._fd = fd
        raw = _native.info(fd.fileno(), "struct bpf_prog_info")
        self._name = _native.text(raw.name)
        self._type = int(raw.type)

    @staticmethod
    def _fd_by_id(id: int) -> int:
        return int(lib.bpf_prog_get_fd_by_id(id))

    @property
    def type(self) -> ProgramType:
        """The kind of program."""
        from pybpf.constants import ProgramType

        return ProgramType(self._type)

    @property
    def id(self) -> int:
        """The kernel's number of this program."""
        with self._borrow_fd() as fd:
            return int(_native.info(fd, "struct bpf_prog_info").id)

    @property
    def tag(self) -> str:
        """The kernel's hash of the instructions, 16 hex digits."""
        return self.info().tag

    def info(self) -> ProgramInfo:
        """What the kernel tells of this program right now."""
        from pybpf import info

        with self._borrow_fd() as fd:
            return info.program_info(fd)

    def _attached(self, where: str, attach: Callable[[str, int], Hold]) -> Link:
        what = f"program {self._name!r} to {where}"
        with self._borrow_fd() as fd:
            hold = attach(what, fd)
        return self._new_link(hold, what, lambda other: other._attached(where, attach))

    def _cgroup_hook(self) -> AttachType:
        from pybpf.hooks import cgroups

        return cgroups.only_hook(f"program {self._name!r}", self.type)

    def _sockmap_hook(self) -> AttachType:
        from pybpf.hooks import sockets

        return sockets.sockmap_hook(f"program {self._name!r}", self.type)

    def _new_link(self, hold: Hold, what: str, again: Callable[[Any], Link]) -> Link:
        """The link that has the hold, the caller's own; ``again`` attaches others there."""
        return Link(hold, what, source=self, again=again)

    def xlated(self) -> list[XlatedInstruction]:
        """Its instructions as the verifier rewrote them, with their text and lines of C.

        Empty where the kernel does not show them: that takes CAP_SYS_ADMIN, as do the lines.
        """
        from pybpf import dump

        with self._borrow_fd() as fd:
            return dump.xlated(fd)

    def jited(self) -> list[JitedFunction]:
        """The machine code of each of its functions, with the lines of C that it stems from.

        Empty where there is no JIT, and where the kernel hides addresses (CAP_SYS_ADMIN,
        net.core.bpf_jit_harden).  To disassemble it, give ``code`` and ``address`` to capstone.
        """
        from pybpf import dump

        with self._borrow_fd() as fd:
            return dump.jited(fd)

    def _test_run(
        self,
        data: Buffer | None = None,
        *,
        ctx: Buffer | None = None,
        repeat: int = 1,
        data_out_size: int | None = None,
        flags: int = 0,
        cpu: int = 0,
        batch_size: int = 0,
    ) -> TestRunResult:
        """test_run(), whose simplest calls C answers; all others come here."""
        if repeat < 1:
            raise ValueError(f"repeat is at least 1, not {repeat}")
        runner = self._runner or self._make_runner()
        if data is None:
            data_out_size = 0
        else:
            data = data if type(data) is bytes else bytes(memoryview(data))
            if data_out_size is None:
                data_out_size = len(data) + 256
        if ctx is not None and type(ctx) is not bytes:
            ctx = bytes(memoryview(ctx))
        # 0 runs once too, and is all that syscall and raw tracepoint programs take
        times = 0 if repeat == 1 else repeat
        result = _native.test_run(
            runner.address, data, data_out_size, ctx, runner.ctx_out, times, flags, cpu, batch_size
        )
        if type(result) is int:
            raise self._run_refused(result)
        return result  # type: ignore[return-value]  # which is no int

    def run(self, context: Any = None) -> RunResult:
        """Call a syscall program with a struct: its return value, and the struct as it left it.

        ``context`` is anything that fits the struct that the program's function takes a pointer to,
        as in maps: a dict, tuple, ctypes instance, bytes of its size.  Members that are not given
        are zero, and so is all without it.  A program that takes ``void *`` is given and gives back
        bytes.  LayoutError for what does not fit, StateError before load(); PrivilegeError for one
        that is not of an object, whose types take CAP_SYS_ADMIN.

        Linux 5.14; needs CAP_BPF.
        """
        from pybpf import running

        return running.run(self, context, self._context_type())

    def _context_type(self) -> Type | None:
        """The struct that the program takes; None where it takes none or nobody tells."""
        from pybpf import running

        with self._borrow_fd() as fd:
            return running.context_type_of_loaded(fd)

    def _make_runner(self) -> Runner:
        with self._borrow_fd() as fd:
            made = Runner(fd, int(self.type))
        # in one step: of threads that come at once, all use the one of the first
        runner: Runner = vars(self).setdefault("_runner", made)
        if runner is made:
            self._accelerate(runner.handle, runner.address, runner.ctx_out)
        else:
            made.close()
        try:
            with self._borrow_fd():
                return runner
        except ClosedError:  # who closed the program in between has seen no runner to close
            runner.close()
            raise

    def _run_refused(self, errno: int) -> Exception:
        if errno == lib.PYBPF_CLOSED:
            return ClosedError(f"program {self.name!r} is closed")
        refuse = explained(KernelError, self._run_hint)
        return refuse("test-run", f"program {self.name!r}", errno, "", "")

    def read_stdout(self) -> str:
        """Take what the program printed with bpf_stream_printk(BPF_STDOUT) and nobody took yet.

        It does not wait: "" where there is nothing.  The kernel keeps 100,000 bytes and refuses
        what the program prints beyond.  NotSupportedError before Linux 6.17.
        """
        return self._read_stream(1)  # BPF_STREAM_STDOUT

    def read_stderr(self) -> str:
        """Take what it printed with bpf_stream_printk(BPF_STDERR), and what the kernel reported.

        These are faults that it survived, such as a loop that took too long or a deadlock, with the
        stack.  As read_stdout() otherwise.
        """
        return self._read_stream(2)  # BPF_STREAM_STDERR

    def _read_stream(self, number: int) -> str:
        from pybpf import streams

        with self._borrow_fd() as fd:
            return streams.read(fd, number, f"program {self._name!r}")

    def close(self) -> None:
        """Give the descriptor back, at the latest when calls that use it have returned.

        What it names ends unless a pin, a link or another program holds it.  Harmless to repeat.
        """
        super().close()
        self._end_runs()

    def _end_runs(self) -> None:
        if self._runner is not None:
            self._runner.close()

    def _run_hint(self, errno: int) -> str:
        if errno in (_errno.EOPNOTSUPP, ENOTSUPP):
            return f"programs of type {self.type.name} have no test run on this kernel"
        if errno == _errno.EINVAL:
            return "the input does not suit the program's type: packets take data, others take ctx"
        if errno == _errno.ENOSPC:
            return "the packet afterwards is longer than data_out_size"
        return ""


def _given(**parameters: Any) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in parameters.items() if value is not None}


class ObjectProgram(Declared, Program, KernelHooks, UserspaceHooks):
    """A program that an object holds: configurable until load(), then a Program that can attach.

    Its descriptor belongs to the object and ends with it.  Setting a property after load() is a
    StateError.
    """

    def __init__(self, owner: Object, pointer: Any) -> None:
        self._owner = owner
        self._pointer = pointer
        self._name = _native.text(lib.bpf_program__name(pointer))
        self._section = _native.text(lib.bpf_program__section_name(pointer))
        self._log_level = int(lib.bpf_program__log_level(pointer))
        self._ifindex = 0
        self._loaded_fd: int | None = None
        self._attach_target: Program | None = None
        self._attach_name = ""
        self._verifier_log = ""
        self._statistics = ""

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
        return self._log_level

    @log_level.setter
    def log_level(self, value: int) -> None:
        self._set("log_level", lib.bpf_program__set_log_level, value)
        self._log_level = value

    @property
    def flags(self) -> int:
        """``prog_flags`` of BPF_PROG_LOAD (BPF_F_SLEEPABLE and so on)."""
        return int(self._get(lib.bpf_program__flags))

    @flags.setter
    def flags(self, value: int) -> None:
        self._set("flags", lib.bpf_program__set_flags, value)

    @property
    def ifindex(self) -> int:
        """The device that an XDP or tc program is loaded for, by its index; 0 for none.

        The device's card then runs it, attached with ``mode=XdpMode.HW``: set its maps' ``ifindex``
        as well.  load() fails where the driver does not take programs.
        """
        return self._ifindex

    @ifindex.setter
    def ifindex(self, value: int) -> None:
        self._set("ifindex", lib.pybpf_program_set_ifindex, value)
        self._ifindex = value

    def set_attach_target(self, name: str | None, program: Program | None = None) -> None:
        """Set, before load(), what a program hooks that is verified for one target.

        These are fentry, fexit, fmod_ret, freplace, LSM, iter and tp_btf programs.  ``name`` is a
        function of the kernel, or of ``program`` where one is given; it is looked up in the
        kernel's BTF now, and KernelError raised where it is not there.
        """
        raw = ffi.NULL if name is None else _native.c_string(name, "name")
        setter = lib.bpf_program__set_attach_target
        if program is None:
            self._set("attach target", setter, 0, raw)
        else:
            self._set("attach target", setter, program.fileno(), raw)
        self._attach_target = program  # libbpf uses the descriptor only at load
        self._attach_name = name or ""

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
        return self._owner.state == "loaded" and self._get(lib.bpf_program__fd) >= 0

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
        with self._borrow_fd() as fd:
            return int(fd)

    def _borrow_fd(self) -> FdBorrow:
        if self._loaded_fd is None:
            self._owner._require_loaded(f"use program {self._name!r}")
            fd = int(self._get(lib.bpf_program__fd))
            if fd < 0:
                raise StateError(f"program {self._name!r} was not loaded: its autoload is off")
            self._loaded_fd = fd
        return FdBorrow(self._owner._handle.borrow(), self._loaded_fd)

    def _context_type(self) -> Type | None:
        from pybpf import running

        return running.context_type(self._owner.btf, self._name)

    def attach(self) -> Link:
        """Attach to the hook that the section's name gives; the link belongs to the object.

        AttachError where the kernel refuses or the name gives no hook, NotSupportedError where
        this kernel has no such hook.  Needs the privileges of the hook: CAP_PERFMON for tracing,
        CAP_NET_ADMIN for networking.  Works for tracepoints where tracefs is not mounted, too
        (Linux 5.2).
        """
        if (tracepoint := self._tracepoint()) and not has_tracefs():
            return self.attach_tracepoint(*tracepoint)
        what = f"program {self._name!r} to {self._section}"
        is_usdt = self._section.lstrip("?").startswith("usdt")
        hold = UsdtHold() if is_usdt else LibbpfHold()
        with self._owner._attaching, self._borrow_fd():
            self._require_whole_hook(what)
            _native.listen()
            code = lib.pybpf_attach(self._pointer, hold.place)
            _native.check(code, "attach", what, self._attach_refused)
        return self._new_link(hold, what, lambda other: other.attach())

    def _attached_by_libbpf(self, where: str, attach: Callable[[str, Any], Hold]) -> Link:
        what = f"program {self._name!r} to {where}"
        with self._owner._attaching, self._borrow_fd():
            _native.listen()
            hold = attach(what, self._pointer)
        return self._new_link(hold, what, lambda other: other._attached_by_libbpf(where, attach))

    def _verified_for(self) -> str:
        kind, _, target = self._section.lstrip("?").partition("/")
        return f"{kind} {self._attach_name or target}"

    def _at_return(self, retprobe: bool | None) -> bool:
        kinds = ("kret", "uret")
        return self._section.lstrip("?").startswith(kinds) if retprobe is None else retprobe

    def _cgroup_hook(self) -> AttachType:
        return self.expected_attach_type

    def _sockmap_hook(self) -> AttachType:
        return self.expected_attach_type or super()._sockmap_hook()

    def _new_link(self, hold: Hold, what: str, again: Callable[[Any], Link]) -> Link:
        """The link that has the hold: its object's."""
        return self._owner._adopt_link(hold, what, self, again)

    def _require_whole_hook(self, what: str) -> None:
        if self._needs_parameters():
            hint = (
                "its section does not say what it goes over; give that to attach_iter() or iter()"
            )
            raise AttachError("attach", what, _errno.EOPNOTSUPP, hint=hint)

    def _needs_parameters(self) -> bool:
        """Whether it is an iterator whose section does not say what it goes over."""
        target = self._iter_target()
        if not target:
            return False
        from pybpf import iteration

        return iteration.needs_parameters(target)

    def _iter_target(self) -> str:
        """What an iterator goes over ("task" for section iter/task), "" for other programs."""
        kind, _, target = self._section.lstrip("?").partition("/")
        return self._attach_name or target if kind in ("iter", "iter.s") else ""

    def iter(
        self,
        *,
        type: RecordTypeArgument | None = None,
        map: Map | None = None,
        cgroup: str | os.PathLike[str] | int | None = None,
        order: CgroupIterOrder | None = None,
        pid: int | None = None,
        tid: int | None = None,
    ) -> Iteration:
        """Run an iterator program (section "iter/...") and read what it writes, line by line.

        With ``type``, records instead, as it writes them with bpf_seq_write(): a BTF type of the
        object ("struct entry"), a ctypes class or a numpy dtype.  LayoutError where the output ends
        in the midst of one.

        What it goes over: ``map`` for iter/bpf_map_elem, iter/sockmap and iter/bpf_sk_storage_map;
        for iter/cgroup the ``cgroup``, a folder or its descriptor (unless given the root of all),
        and the ``order`` (descendants, each before its own); for iter/task, task_file and task_vma
        all, one process ``pid`` or one thread ``tid`` (Linux 6.1), where one that does not exist
        gives nothing.  LayoutError for others than these.

        The Iteration belongs to the caller and does not need the object any more.  StateError
        before load(), AttachError where the kernel refuses.  Linux 5.8; CAP_BPF and CAP_PERFMON.
        """
        from pybpf import iteration

        given = _given(map=map, cgroup=cgroup, order=order, pid=pid, tid=tid)
        with self._borrow_fd() as fd:
            what, target = f"program {self._name!r}", self._iter_target()
            return iteration.run(fd, what, target, given, type, lambda: self._owner.btf)

    def attach_iter(
        self,
        *,
        map: Map | None = None,
        cgroup: str | os.PathLike[str] | int | None = None,
        order: CgroupIterOrder | None = None,
        pid: int | None = None,
        tid: int | None = None,
    ) -> Link:
        """Attach an iterator program to what it goes over: a link that can be pinned.

        Whoever opens and reads the pinned link, with ``cat`` for one, runs the program and gets
        what it writes.  To read it here, iter() is enough.  What it goes over is that of iter(),
        with the same errors.  The link belongs to the object.  Linux 5.8; CAP_BPF and CAP_PERFMON.
        """
        from pybpf import iteration

        given = _given(map=map, cgroup=cgroup, order=order, pid=pid, tid=tid)
        target = self._iter_target()
        return self._attached(
            f"iter/{target}", lambda what, fd: iteration.link_over(fd, what, target, given)
        )

    def _tracepoint(self) -> tuple[str, str] | None:
        """("sched", "sched_switch") for one of section tp/sched/sched_switch, None for others."""
        parts = self._section.lstrip("?").split("/")
        is_one = len(parts) == 3 and parts[0] in ("tp", "tracepoint")
        return (parts[1], parts[2]) if is_one else None

    def _attach_refused(
        self, operation: str, target: str, errno: int, detail: str, log: str
    ) -> KernelError:
        # libbpf says EOPNOTSUPP without a word where the section's name gives no hook
        if errno == _errno.EOPNOTSUPP and detail:
            hint = "this kernel has no such hook, or was built without it"
            return NotSupportedError(operation, target, errno, detail, log, hint)
        needed = needed_capabilities([self.type])
        refuse = explained(AttachError, self._attach_hint, needed)
        return refuse(operation, target, errno, detail, log)

    def _attach_hint(self, errno: int) -> str:
        if errno == _errno.EOPNOTSUPP:
            return f"section {self._section!r} does not say where to attach"
        if errno == _errno.ENOENT and self._section.lstrip("?").startswith(("uprobe", "uretprobe")):
            return "no such file, or no such function in it: attach_uprobe() tells what there is"
        if errno in (_errno.ENOENT, _errno.ESRCH, _errno.EINVAL):
            return f"this kernel may not have the hook that section {self._section!r} names"
        return ""

    def close(self) -> None:
        """Programs of an object end with it."""
        raise StateError(f"program {self._name!r} belongs to its object; close that")
