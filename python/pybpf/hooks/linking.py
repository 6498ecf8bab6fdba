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


def require(feature: Feature, what: str) -> None:
    """NotSupportedError where this kernel lacks what it would otherwise disregard."""
    if feature.is_missing():
        raise NotSupportedError("attach", what, errno.EOPNOTSUPP, hint=_advice(feature))


def _advice(feature: Feature) -> str:
    return f"this kernel has no {feature}, or was built without"


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
                return NotSupportedError(operation, target, number, detail, log, _advice(each))
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
