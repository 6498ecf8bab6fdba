# SPDX-License-Identifier: BSD-2-Clause
"""Calling a syscall program as a function: a struct goes in, and comes back with a number."""

from __future__ import annotations

import ctypes
import struct
from typing import NamedTuple

from pybpf import _native, layout
from pybpf._native import ffi
from pybpf.btf import Btf, Composite, Func, FuncProto, Kind, Pointer
from pybpf.errors import LayoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf.btf import Type
    from pybpf.program import Program


class RunResult(NamedTuple):
    """What a program returned, as C's int, and the context as it left it."""

    retval: int
    context: Any


def run(program: Program, context: Any, taken: Type | None) -> RunResult:
    """Run ``program`` once on a ``context`` of the type that it has ``taken``, or on bytes."""
    if taken is not None:
        zeros = bytes(ctypes.sizeof(taken.ctype))
        context = zeros if context is None else layout.encode(taken, context)
    result = program.test_run(ctx=context)
    left = result.ctx_out if taken is None else layout.decode(taken, result.ctx_out)
    (retval,) = struct.unpack("=i", struct.pack("=I", result.retval))
    return RunResult(retval, left)


def context_type(types: Btf | None, name: str) -> Type | None:
    """The struct that the function of that name takes; None where it is not known or none."""
    if types is None:
        return None
    return _parameter(types.find(name, Kind.FUNC))


def context_type_of_loaded(fd: int) -> Type | None:
    """The struct that a program of the kernel takes, by its own types; None as above."""
    info = _native.info(fd, "struct bpf_prog_info")
    if not info.nr_func_info:
        return None
    size = info.func_info_rec_size
    first = ffi.new("char[]", size)
    address = int(ffi.cast("uintptr_t", first))
    _native.info(
        fd, "struct bpf_prog_info", nr_func_info=1, func_info_rec_size=size, func_info=address
    )
    _, function = struct.unpack_from("=II", bytes(ffi.buffer(first)))
    return _parameter(Btf.from_id(info.btf_id)[function])


def _parameter(function: Type) -> Type | None:
    if not isinstance(function, Func):
        raise LayoutError(f"{function} is no function")
    prototype = function.type
    if not isinstance(prototype, FuncProto) or not prototype.params:
        return None
    pointer = prototype.params[0].type.resolve()
    target = pointer.target if isinstance(pointer, Pointer) else None
    return target if target is not None and isinstance(target.resolve(), Composite) else None
