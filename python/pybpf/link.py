# SPDX-License-Identifier: BSD-2-Clause
"""Links: programs (or struct_ops maps) attached to their hooks."""

from __future__ import annotations

import errno as _errno
import os
import sys

from pybpf import _native, pins
from pybpf._handles import Handle, warn_unclosed
from pybpf._native import lib
from pybpf.errors import AttachError, StateError
from pybpf.kernel import explained

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf.info import LinkInfo
    from pybpf.map import ObjectMap
    from pybpf.object import Object
    from pybpf.program import ObjectProgram


class Link:
    """An attachment.

    One that ``attach()`` returned belongs to its object and lasts until detach() or the object's
    close(), whatever becomes of this variable.  One from open_pinned() belongs to the caller; its
    pin keeps it attached after close().  ``with link:`` detaches at the end.
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

    @classmethod
    def open_pinned(cls, path: str | os.PathLike[str]) -> Link:
        """The link pinned at ``path``; PinError without one.  The caller owns the handle."""
        os.close(pins.open_pinned(path, "link"))  # says well what is wrong with the path
        pointer = lib.bpf_link__open(_native.path_bytes(path))
        what = f"link pinned at {os.fspath(path)}"
        return cls(_native.check_pointer(pointer, "open", what, explained(AttachError)), what)

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

        return info.link_info(self.fileno())

    @property
    def id(self) -> int:
        """The kernel's number of this link."""
        return int(_native.info(self.fileno(), "struct bpf_link_info").id)

    def pin(self, path: str | os.PathLike[str]) -> None:
        """Give the link a name on a bpffs, so that it stays attached without this process."""
        pins.pin(self.fileno(), path, self._what)

    def unpin(self, path: str | os.PathLike[str]) -> None:
        """Remove the pin at ``path``; PinError where there is none."""
        self.fileno()
        pins.unpin(path, self._what)

    def detach(self) -> None:
        """Detach now, even where the link is pinned, and close.  Does nothing after close()."""
        if self._handle.closed:
            return
        self._require_own_process("detach")
        if self._owner is None:
            with self._handle.borrow() as pointer:
                code = lib.bpf_link__detach(pointer)
            if code != -_errno.EOPNOTSUPP:  # tracing links end with their last descriptor only
                _native.check(code, "detach", self._what, explained(AttachError))
        self.close()

    def close(self) -> None:
        """Give the handle up: the attachment ends unless it is pinned.  Harmless to repeat."""
        if self._process != os.getpid():
            self._handle.abandon()  # destroying would switch the parent's perf event off
            return
        self._handle.close()
        if self._owner is not None:
            self._owner._forget_link(self)

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
        self.detach()

    def __repr__(self) -> str:
        return f"<Link {self._what}{' closed' if self.closed else ''}>"

    def __del__(self) -> None:
        handle = getattr(self, "_handle", None)
        if handle is None or handle.closed or sys.is_finalizing():
            return
        warn_unclosed(self._what, self)
        self.close()
