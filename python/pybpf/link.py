# SPDX-License-Identifier: BSD-2-Clause
"""Links: programs (or struct_ops maps) attached to their hooks."""

from __future__ import annotations

import os
import sys

from pybpf import _native, pins
from pybpf._handles import Handle, Uncopyable, warn_unclosed
from pybpf._native import lib
from pybpf.errors import AttachError, NotSupportedError, StateError
from pybpf.kernel import explained

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf.info import LinkInfo
    from pybpf.object import Object
    from pybpf.object_map import ObjectMap
    from pybpf.program import ObjectProgram


class Link(Uncopyable):
    """An attachment.

    One that ``attach()`` returned belongs to its object and lasts until detach() or the object's
    close(), whatever becomes of this variable.  One from open_pinned() belongs to the caller; its
    pin keeps it attached after close().  ``with`` detaches the former and closes the latter.
    """

    def __init__(
        self,
        pointer: Any,
        what: str,
        owner: Object | None = None,
        source: ObjectProgram | ObjectMap | None = None,
    ) -> None:
        self._handle = Handle(pointer, lib.bpf_link__destroy, what)
        self._what = what
        self._source = source
        self._owner = owner  # libbpf's USDT links touch their object when they are destroyed
        self._process = os.getpid()
        self._pins: set[str] = set()

    @classmethod
    def open_pinned(cls, path: str | os.PathLike[str]) -> Link:
        """The link pinned at ``path``; PinError without one.  The caller owns the handle."""
        os.close(pins.open_pinned(path, "link"))  # says well what is wrong with the path
        pointer = lib.bpf_link__open(_native.c_string(path, "the path"))
        what = f"link pinned at {os.fspath(path)}"
        link = cls(_native.check_pointer(pointer, "open", what, explained(AttachError)), what)
        link._pins.add(os.fspath(path))
        return link

    @property
    def closed(self) -> bool:
        """Whether it was detached, closed or disowned here."""
        return self._handle.closed

    @property
    def what(self) -> str:
        """What is attached where, in words."""
        return self._what

    @property
    def source(self) -> ObjectProgram | ObjectMap | None:
        """The program, or struct_ops map, of an object that is attached; None for a pinned link."""
        return self._source

    def fileno(self) -> int:
        """The link's descriptor, which stays this object's own; ClosedError after close()."""
        with self._handle.borrow() as pointer:
            return int(lib.bpf_link__fd(pointer))

    def info(self) -> LinkInfo:
        """What the kernel tells of this link right now; Linux 5.15 for perf-event based ones."""
        from pybpf import info

        with self._handle.borrow() as pointer:
            return info.link_info(lib.bpf_link__fd(pointer))

    @property
    def id(self) -> int:
        """The kernel's number of this link."""
        with self._handle.borrow() as pointer:
            return int(_native.info(lib.bpf_link__fd(pointer), "struct bpf_link_info").id)

    def pin(self, path: str | os.PathLike[str]) -> None:
        """Give the link a name on a bpffs, so that it stays attached without this process.

        PinError where there is no bpffs, no folder or something else by that name.  Links of
        tracepoints, kprobes, uprobes and perf events can be pinned from Linux 5.15 on.
        """
        with self._handle.borrow() as pointer:
            pins.pin(lib.bpf_link__fd(pointer), path, self._what)
        self._pins.add(os.fspath(path))

    def unpin(self, path: str | os.PathLike[str]) -> None:
        """Remove its pin at ``path``; PinError where nothing or something else is pinned."""
        with self._handle.borrow() as pointer:
            pins.unpin(path, self._what, lib.bpf_link__fd(pointer))
        self._pins.discard(os.fspath(path))

    def detach(self) -> None:
        """Detach now, even where the link is pinned, and close.  Does nothing after close().

        NotSupportedError for a pinned link of a kind that the kernel detaches only with its last
        reference (tracing, tracepoints, kprobes): unpin it, and close.
        """
        if self._handle.closed:
            return
        self._require_own_process("detach")
        with self._handle.borrow() as pointer:
            code = lib.bpf_link__detach(pointer)
        if code < 0 and self._pins:
            hint = f"unpin it ({', '.join(sorted(self._pins))}) and close it instead"
            raise NotSupportedError("detach", self._what, _native.kernel_errno(code), hint=hint)
        self.close()  # which detaches where there is no pin

    def close(self) -> None:
        """Give the handle up: the attachment ends unless it is pinned.  Harmless to repeat."""
        if self._handle.closed:
            return
        if self._process == os.getpid():
            self._handle.close()
        else:
            self._close_in_fork()
        if self._owner is not None:
            self._owner._forget_link(self)

    def _close_in_fork(self) -> None:
        """Close the child's descriptor; destroying would switch the parent's perf event off."""
        with self._handle.borrow() as pointer:
            lib.bpf_link__disconnect(pointer)
            fd = lib.bpf_link__fd(pointer)
        self._handle.abandon()
        os.close(fd)

    def disown(self) -> None:
        """Leave the attachment as it is and give it up: it lasts as long as this process does.

        To outlast the process, pin() it first.
        """
        self._require_own_process("disown")
        with self._handle.borrow() as pointer:
            lib.bpf_link__disconnect(pointer)
        self._handle.abandon()
        if self._owner is not None:
            self._owner._forget_link(self)

    def _require_own_process(self, what: str) -> None:
        if self._process != os.getpid():
            raise StateError(
                f"{what} {self._what}: it belongs to process {self._process}, not to its fork"
            )

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._owner is None:
            self.close()
        else:
            self.detach()

    def __repr__(self) -> str:
        return f"<Link {self._what}{' closed' if self.closed else ''}>"

    def __del__(self) -> None:
        handle = getattr(self, "_handle", None)
        if handle is None or handle.closed or sys.is_finalizing() or self._owner is not None:
            return  # the object, which is collected with it, closes a link of its own
        try:
            warn_unclosed(self._what, self)
        finally:
            self.close()
