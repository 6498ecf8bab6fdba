# SPDX-License-Identifier: BSD-2-Clause
"""What attaching has in common, whatever the hook: links by descriptors, and their refusal."""

from __future__ import annotations

import errno

from pybpf import _native
from pybpf._native import ffi, lib
from pybpf.errors import AttachError, KernelError, NotSupportedError
from pybpf.holds import FdHold
from pybpf.kernel import explained

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pybpf._native import Refusal
    from pybpf.features import Feature

_NOT_PERMITTED = (errno.EPERM, errno.EACCES)


def refusal(
    feature: Feature | None = None,
    needed: tuple[str, ...] = ("CAP_BPF", "CAP_NET_ADMIN"),
    hint: Callable[[int], str] | None = None,
) -> Refusal:
    """The error of an attempt at a hook that takes ``feature`` and the ``needed`` capabilities.

    NotSupportedError where this kernel lacks the feature, PrivilegeError where this process lacks a
    capability, otherwise AttachError with what ``hint`` says of the errno.
    """
    explain = explained(AttachError, hint, needed)

    def refuse(operation: str, target: str, number: int, detail: str, log: str) -> KernelError:
        if feature is not None and number not in _NOT_PERMITTED and feature.is_missing():
            advice = f"this kernel has no {feature}, or was built without"
            return NotSupportedError(operation, target, number, detail, log, advice)
        return explain(operation, target, number, detail, log)

    return refuse


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
