# SPDX-License-Identifier: BSD-2-Clause
"""Which of an object's programs and struct_ops maps this kernel has no place for, and since when
kernels have.

Asked of the kernel itself: it is to take the least program of the same kind.
"""

from __future__ import annotations

import errno

from pybpf import _native
from pybpf._native import ffi, lib
from pybpf.btf import Btf, Kind, Var
from pybpf.constants import AttachType, MapFlags, MapType, ProgramType
from pybpf.errors import (
    ENOTSUPP,
    AttachError,
    Error,
    KernelError,
    LoadError,
    NotSupportedError,
    RelocationError,
    VerifierError,
)
from pybpf.kernel import needed_capabilities, privilege_hint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from typing import Any

    from pybpf.object import Object
    from pybpf.object_map import ObjectMap
    from pybpf.program import ObjectProgram

_LEAVES_OUT_OPS = (1, 4)  # libbpf

_SLEEPABLE, _XDP_HAS_FRAGS = 1 << 4, 1 << 5  # BPF_F_*

# the first release of what came after Linux 5.10
_TYPES_SINCE = {ProgramType.SYSCALL: "5.14", ProgramType.NETFILTER: "6.4"}
_ATTACH_TYPES_SINCE = {
    AttachType.SK_SKB_VERDICT: "5.13",
    AttachType.SK_REUSEPORT_SELECT_OR_MIGRATE: "5.14",
    AttachType.TRACE_KPROBE_MULTI: "5.18",
    AttachType.LSM_CGROUP: "6.0",
    AttachType.TCX_INGRESS: "6.6",
    AttachType.TCX_EGRESS: "6.6",
    AttachType.TRACE_UPROBE_MULTI: "6.6",
    AttachType.CGROUP_UNIX_CONNECT: "6.7",
    AttachType.CGROUP_UNIX_SENDMSG: "6.7",
    AttachType.CGROUP_UNIX_RECVMSG: "6.7",
    AttachType.CGROUP_UNIX_GETPEERNAME: "6.7",
    AttachType.CGROUP_UNIX_GETSOCKNAME: "6.7",
    AttachType.NETKIT_PRIMARY: "6.7",
    AttachType.NETKIT_PEER: "6.7",
    AttachType.TRACE_KPROBE_SESSION: "6.10",
    AttachType.TRACE_UPROBE_SESSION: "6.13",
    AttachType.TRACE_FSESSION: "7.0",
}
_OPS_SINCE = {"hid_bpf_ops": "6.11", "sched_ext_ops": "6.12", "Qdisc_ops": "6.16"}

# whose target is one of the kernel's functions or types, by name
_TARGETED = (ProgramType.TRACING, ProgramType.LSM)
# whose least program cannot be told from here: it belongs to another program, or to a map
_UNTOLD = (ProgramType.UNSPEC, ProgramType.EXT, ProgramType.STRUCT_OPS)
# whose verdict may not be 0
_ONES = (ProgramType.CGROUP_SOCK_ADDR,)
# what the kernel says of kinds that it does not have
_REFUSALS = (
    *(errno.EINVAL, errno.E2BIG, errno.EPERM, errno.EACCES, errno.ENOENT),
    *(errno.ESRCH, errno.EOPNOTSUPP, ENOTSUPP),
)
# ... and of hooks
_NO_HOOK = (errno.ENOENT, errno.ESRCH, errno.EOPNOTSUPP)


def missing_program(program: ObjectProgram) -> NotSupportedError | None:
    """Why this kernel cannot have the program, which is not loaded yet; None where it can.

    Also None where nobody can tell: what a program calls and reads is the verifier's affair.
    """
    return _missing_target(program) or missing_kind(program)


def missing_kind(program: ObjectProgram) -> NotSupportedError | None:
    """Why this kernel cannot have any program of this one's kind; None where it can."""
    kind = _kind(program)
    if kind is None:
        return None
    code = lib.pybpf_try_kind(kind)
    _native.take_log()
    number = _native.kernel_errno(code)
    if code >= 0 or number not in _REFUSALS:
        return None
    if number in (errno.EPERM, errno.EACCES) and privilege_hint(
        needed_capabilities([program.type])
    ):
        return None
    what = f"programs of section {program.section.lstrip('?')!r}"
    return _missing(f"program {program.name!r}", number, what, _since(program))


def _since(program: ObjectProgram) -> str | None:
    """The first release with this kind of programs, where it is newer than Linux 5.10."""
    hook = _ATTACH_TYPES_SINCE.get(program.expected_attach_type)
    return hook or _TYPES_SINCE.get(program.type)


def missing_ops(ops: ObjectMap) -> NotSupportedError | None:
    """Why this kernel cannot have the struct_ops map; None where it can or nobody tells."""
    try:
        kernel = Btf.kernel()
    except (Error, OSError):
        return None
    name = _ops_type(ops)
    target = f"struct_ops map {ops.name!r}"
    if name and f"struct bpf_struct_ops_{name}" not in kernel:
        return _missing(target, errno.ESRCH, f"ops of type {name}", _OPS_SINCE.get(name))
    if ops.flags & MapFlags.LINK and "struct bpf_struct_ops_link" not in kernel:
        return _missing(target, errno.EINVAL, 'ops of section ".struct_ops.link"', "6.4")
    return None


def why_refused(obj: Object, error: KernelError) -> KernelError:
    """What a failed load of ``obj`` is due to: the ``error``, or what this kernel lacks."""
    missing = _lacking(obj, error)
    if missing is None:
        return error
    missing.detail, missing.log = error.detail, error.log
    return missing


def _lacking(obj: Object, error: KernelError) -> NotSupportedError | None:
    if not isinstance(error, LoadError) or isinstance(error, RelocationError):
        return None
    if error.program is None:
        return next(filter(None, map(missing_ops, struct_ops(obj))), None)
    program = obj.programs[error.program]
    if isinstance(error, VerifierError) and not _since(program):
        return None  # the verifier knows better what is wrong with it
    return missing_kind(program)


def leave_out(obj: Object, names: Container[str]) -> dict[str, NotSupportedError]:
    """Have load() leave out those of ``names`` that this kernel cannot have, and say why."""
    return _leave_programs_out(obj, names) | _leave_ops_out(obj, names)


def _leave_programs_out(obj: Object, names: Container[str]) -> dict[str, NotSupportedError]:
    skipped = {}
    for program in obj.programs.values():
        if program.name in names and program.autoload and (missing := missing_program(program)):
            program.autoload = False
            skipped[program.name] = missing
    return skipped


def _leave_ops_out(obj: Object, names: Container[str]) -> dict[str, NotSupportedError]:
    skipped = {}
    if _native.version() >= _LEAVES_OUT_OPS:
        for ops in struct_ops(obj):
            if ops.name in names and (missing := missing_ops(ops)):
                ops.autocreate = False
                skipped[ops.name] = missing
    return skipped


def require_struct_ops(obj: Object) -> None:
    """NotSupportedError for what libbpf before 1.4 would mistake, or crash on.

    It looks for the kernel's types, which all struct_ops maps need, only where a program needs
    them, and before 1.2 knows no section ".struct_ops.link".
    """
    has_programs = any(
        each.type == ProgramType.STRUCT_OPS and each.autoload for each in obj.programs.values()
    )
    has_maps = bool(list(struct_ops(obj)))
    if has_programs and not has_maps:
        _refuse_ops(obj, 'maps of section ".struct_ops.link" need libbpf 1.2')
    if has_maps and not has_programs:
        _refuse_ops(obj, "loading struct_ops maps without their programs needs libbpf 1.4")


def _refuse_ops(obj: Object, needs: str) -> None:
    hint = "{}; this pybpf is built with {}.{}".format(needs, *_native.version())
    raise NotSupportedError("load", f"object {obj.name!r}", errno.EOPNOTSUPP, hint=hint)


def struct_ops(obj: Object) -> Iterator[ObjectMap]:
    """The struct_ops maps that the object is to have."""
    return (ops for ops in obj.maps.values() if ops.type == MapType.STRUCT_OPS and ops.autocreate)


def _ops_type(ops: ObjectMap) -> str:
    """The name of the struct that the map's variable is, which libbpf before 1.4 does not tell."""
    types = ops._record_btf()
    variable = None if types is None else types.find(ops.name, Kind.VAR)
    return variable.type.resolve().name if isinstance(variable, Var) else ""


def missing_hook(error: KernelError) -> NotSupportedError | None:
    """What a refused attach says of a kernel that has no such hook; None where it has one."""
    if isinstance(error, NotSupportedError):
        return error
    if not isinstance(error, AttachError) or error.errno not in _NO_HOOK:
        return None
    return NotSupportedError(
        error.operation, error.target, error.errno, error.detail, error.log, error.hint
    )


def _missing(target: str, number: int, what: str, since: str | None) -> NotSupportedError:
    first = f" (Linux {since})" if since else ""
    return NotSupportedError(
        "load", target, number, hint=f"this kernel has no {what}{first}, or was built without"
    )


def _missing_target(program: ObjectProgram) -> NotSupportedError | None:
    name = _target(program)
    if not name:
        return None
    # which looks in the modules, too
    code = lib.bpf_program__set_attach_target(program._pointer, 0, name.encode())
    _native.take_log()
    if code not in (-errno.ESRCH, -errno.ENOENT):
        return None
    return _missing(f"program {program.name!r}", -code, f"{name!r} to attach to", None)


def _target(program: ObjectProgram) -> str:
    """What of the kernel a program traces or guards, "" for those that do neither."""
    if program.type not in _TARGETED or program._attach_target is not None:
        return ""
    return program._attach_name or program.section.partition("/")[2]


def _kind(program: ObjectProgram) -> Any:
    """The kind of a program as C takes it; None where it cannot be told."""
    target = 0
    if program.type in _TARGETED:
        name = _target(program).encode()
        target = lib.libbpf_find_vmlinux_btf_id(name, program.expected_attach_type)
        _native.take_log()
    if target < 0 or program.type in _UNTOLD:
        return None
    is_one = program.type in _ONES or program.expected_attach_type == AttachType.LSM_CGROUP
    return ffi.new(
        "struct pybpf_kind *",
        {
            "type": program.type,
            "attach_type": program.expected_attach_type,
            "flags": _flags(program),
            "target": target,
            "result": int(is_one),
        },
    )


def _flags(program: ObjectProgram) -> int:
    """``prog_flags``, also those that the section's name stands for ("lsm.s", "xdp.frags")."""
    flags = program.flags & (_SLEEPABLE | _XDP_HAS_FRAGS)
    suffix = program.section.partition("/")[0].rpartition(".")[2]
    if suffix == "s" or program.type == ProgramType.SYSCALL:
        flags |= _SLEEPABLE
    if suffix == "frags":
        flags |= _XDP_HAS_FRAGS
    return flags
