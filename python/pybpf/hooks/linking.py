# SPDX-License-Identifier: BSD-2-Clause
"""What attaching has in common, whatever the hook: by descriptors, in an order, and refusals."""

from __future__ import annotations

import errno
import os

from pybpf import _native
from pybpf._native import ffi, lib
from pybpf.errors import AttachError, KernelError, NotSupportedError
from pybpf.holds import FdHold, UndoHold
from pybpf.kernel import explained

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from pybpf._native import Refusal
    from pybpf.features import Feature
    from pybpf.link import Link
    from pybpf.program import Program

    Place = tuple[int, dict[str, int]]

_BEFORE, _AFTER, _ID, _LINK = 1 << 3, 1 << 4, 1 << 5, 1 << 13  # BPF_F_*
_NOT_PERMITTED = (errno.EPERM, errno.EACCES)


def require_libbpf(present: bool, words: str, version: str, what: str) -> None:
    """NotSupportedError where the libbpf that pybpf was built with is older than what it takes."""
    if not present:
        built = "{}.{}".format(*_native.version())
        hint = f"{words} need libbpf {version}; this pybpf is built with {built}"
        raise NotSupportedError("attach", what, errno.EOPNOTSUPP, hint=hint)


def refusal(
    feature: Feature | tuple[Feature, ...] = (),
    needed: tuple[str, ...] = ("CAP_BPF", "CAP_NET_ADMIN"),
    hint: Callable[[int], str] | None = None,
) -> Refusal:
    """The error of an attempt at a hook that takes ``feature`` and the ``needed`` capabilities.

    NotSupportedError where this kernel lacks it, or one of several features, PrivilegeError where
    this process lacks a capability, otherwise AttachError with what ``hint`` says of the errno.
    """
    explain = explained(AttachError, hint, needed)
    features = feature if isinstance(feature, tuple) else (feature,)

    def refuse(operation: str, target: str, number: int, detail: str, log: str) -> KernelError:
        for each in () if number in _NOT_PERMITTED else features:
            if each.is_missing():
                return _lacking(each, operation, target, number, detail, log)
        return explain(operation, target, number, detail, log)

    return refuse


def require(feature: Feature, what: str) -> None:
    """NotSupportedError where this kernel lacks what it would otherwise disregard."""
    if feature.is_missing():
        raise _lacking(feature, "attach", what, errno.EOPNOTSUPP)


def _lacking(
    feature: Feature, operation: str, target: str, number: int, detail: str = "", log: str = ""
) -> NotSupportedError:
    advice = f"this kernel has no {feature}, or was built without"
    return NotSupportedError(operation, target, number, detail, log, advice)


def hints(words: Mapping[int, str]) -> Callable[[int], str]:
    """What refusal() takes as a hint: the words for an errno, "" where there are none."""
    return lambda number: words.get(number, "")


def create(
    what: str,
    refuse: Refusal,
    program_fd: int,
    attach_type: int,
    target: int,
    flags: int = 0,
    **more: Any,
) -> FdHold:
    """A link of the kernel's: ``target`` is a descriptor or an interface's number.

    ``more`` is what belongs to the kind of link, as in ``struct pybpf_link_request``.
    """
    hold = FdHold()
    request = ffi.new(
        "struct pybpf_link_request *",
        {
            "prog_fd": program_fd,
            "attach_type": attach_type,
            "target": target,
            "flags": flags,
            **more,
        },
    )
    code = lib.pybpf_link_create(request, hold.place)
    _native.check(code, "attach", what, refuse)
    return hold


def place(
    before: Program | Link | None,
    after: Program | Link | None,
    first: bool,
    revision: int | None,
) -> Place:
    """The flags, and the rest of a request, for a place among what is attached already.

    ValueError for more than one place.
    """
    if sum((before is not None, after is not None, first)) > 1:
        raise ValueError("give one of before, after and first")
    rest = {"expected_revision": revision or 0}
    other = before or after
    if other is None:
        return _BEFORE if first else 0, rest
    flags = (_AFTER if before is None else _BEFORE) | _ID
    if hasattr(other, "update"):  # a link
        flags |= _LINK
    return flags, {"relative": other.id, **rest}


def attach_without_link(
    what: str,
    refuse: Refusal,
    program_fd: int,
    attach_type: int,
    target: int,
    flags: int = 0,
    **more: Any,
) -> UndoHold:
    """Attach by BPF_PROG_ATTACH, where the kernel makes no link; the kernel keeps it in place.

    ``more`` is what belongs to the hook, as in ``struct pybpf_attach_request``.
    """
    kept = FdHold(os.dup(program_fd)), FdHold(os.dup(target))
    program, place = (each.fileno() for each in kept)
    request = ffi.new(
        "struct pybpf_attach_request *",
        {
            "prog_fd": program,
            "attach_type": attach_type,
            "target": place,
            "flags": flags,
            **more,
        },
    )
    is_attached = ffi.new("bool *")

    def undo() -> None:
        try:
            if is_attached[0]:
                _detach(what, refuse, request)
        finally:
            for each in kept:
                each.end()

    hold = UndoHold(undo)
    code = lib.pybpf_prog_attach(request, is_attached)
    _native.check(code, "attach", what, refuse)
    return hold


def _detach(what: str, refuse: Refusal, request: Any) -> None:
    """Detach that program, unless it is not there any more.

    The kernel takes any program for the only one of a hook, so one that has taken its place since
    would go instead.
    """
    number = int(_native.info(request.prog_fd, "struct bpf_prog_info").id)
    if number in _programs_at(request.target, request.attach_type):
        code = lib.pybpf_prog_detach(request)
        _native.check(code, "detach", what, refuse)


def _programs_at(target: int, attach_type: int) -> tuple[int, ...]:
    try:
        from pybpf.hooks import querying

        return querying.query(target, attach_type).programs
    except KernelError as error:
        if error.errno == errno.ENOENT:  # the target itself is gone
            return ()
        raise
