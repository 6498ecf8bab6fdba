# SPDX-License-Identifier: BSD-2-Clause
"""Links: programs (or struct_ops maps) attached to their hooks."""

from __future__ import annotations

import errno
import os
import sys

from pybpf import _native, pins
from pybpf._handles import Handle, Uncopyable, warn_unclosed
from pybpf._native import lib
from pybpf.errors import AttachError, KernelError, NotSupportedError, StateError
from pybpf.holds import FdHold, Hold
from pybpf.kernel import explained

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pybpf.hooks.netlink import ClsactFilter
    from pybpf.link_info import LinkInfo
    from pybpf.map import Map
    from pybpf.object import Object
    from pybpf.program import Program

# of LinkType, those whose program, or struct_ops map, can be another one later:
# CGROUP, ITER, NETNS, XDP, STRUCT_OPS, TCX, NETKIT, SOCKMAP
_UPDATABLE = (3, 4, 5, 6, 9, 11, 13, 14)


class Link(Uncopyable):
    """An attachment.

    One that ``attach()`` returned belongs to its object and lasts until detach() or the object's
    close(), whatever becomes of this variable.  One from open_pinned() belongs to the caller; its
    pin keeps it attached after close().  ``with`` detaches the former and closes the latter.
    """

    def __init__(
        self,
        hold: Hold,
        what: str,
        owner: Object | None = None,
        source: Program | Map | None = None,
        again: Callable[[Any], Link] | None = None,
    ) -> None:
        self._handle = Handle(hold, Hold.end, what)
        self._what = what
        self._source = source
        self._again = again
        self._owner = owner  # libbpf's USDT links touch their object when they are destroyed
        self._process = os.getpid()
        self._pins: set[str] = set()

    @classmethod
    def open_pinned(cls, path: str | os.PathLike[str]) -> Link:
        """The link pinned at ``path``; PinError without one.  The caller owns the handle."""
        hold = FdHold(pins.open_pinned(path, "link"))
        link = cls(hold, f"link pinned at {os.fspath(path)}")
        link._pins.add(os.fspath(path))
        return link

    @classmethod
    def from_id(cls, id: int) -> Link:
        """The link with that number; KernelError without one.  The caller owns the handle.

        Linux 5.8; needs CAP_SYS_ADMIN.
        """
        what = f"link {id}"
        hold = FdHold()
        hold.place[0] = _native.check(
            lib.bpf_link_get_fd_by_id(id),
            "open",
            what,
            explained(AttachError, None, ("CAP_SYS_ADMIN",)),
        )
        return cls(hold, what)

    @property
    def closed(self) -> bool:
        """Whether it was detached, closed or disowned here."""
        return self._handle.closed

    @property
    def what(self) -> str:
        """What is attached where, in words."""
        return self._what

    @property
    def source(self) -> Program | Map | None:
        """What is attached, a program or struct_ops map; None where only the kernel knows."""
        return self._source

    @property
    def filter(self) -> ClsactFilter | None:
        """The filter of a device's clsact that this is; None for what is attached otherwise."""
        with self._handle.borrow() as hold:
            return hold.filter  # type: ignore[no-any-return]

    def fileno(self) -> int:
        """The link's descriptor, which stays this object's own; ClosedError after close().

        NotSupportedError for what is attached without a link of the kernel's.
        """
        with self._handle.borrow() as hold:
            return self._fd_of(hold, "give the descriptor of")

    def _fd_of(self, hold: Hold, operation: str) -> int:
        fd = hold.fileno()
        if fd < 0:
            hint = "the kernel has no link for this, so it can be neither described nor pinned"
            raise NotSupportedError(operation, self._what, errno.EOPNOTSUPP, hint=hint)
        return fd

    def info(self) -> LinkInfo:
        """What the kernel tells of this link right now, as the subclass of its kind.

        ``info().where`` has it in words.  Linux 5.8, for links of perf events 5.15; what these are
        attached to from 6.6 on, and what only later kernels tell is 0 or empty before.
        """
        from pybpf.link_info import link_info

        with self._handle.borrow() as hold:
            return link_info(self._fd_of(hold, "describe"))

    @property
    def id(self) -> int:
        """The kernel's number of this link."""
        with self._handle.borrow() as hold:
            return int(_native.info(self._fd_of(hold, "number"), "struct bpf_link_info").id)

    def update(self, program: Program, *, expected: Program | None = None) -> None:
        """Put ``program`` in the place of the one that is attached, with no gap between them.

        With ``expected``, only where that is the one attached now; AttachError (EPERM) otherwise.
        The new program must be of the old one's type, and loaded.  For links of XDP, tcx, netkit,
        cgroups, network namespaces, iterators and (Linux 6.10) sockmaps, and for what is attached
        to devices and sockets without a link of the kernel's; NotSupportedError for others, which
        keep the program they were made with: attach the new one, then detach this.
        Linux 5.7.  Needs the privilege that attaching does.
        """
        self._replace(f"program {program.name!r}", program, expected)
        self._source = program

    def update_map(self, ops: Map, *, expected: Map | None = None) -> None:
        """Put another struct_ops map in the place of the one that is registered, in one step.

        As update() otherwise.  Both maps are of sections ".struct_ops.link"; whether there can be
        others is up to the ops: those of TCP congestion control of the same name, yes, schedulers
        not.  Linux 6.4.
        """
        ops._fill_struct_ops()
        self._replace(f"struct_ops map {ops.name!r}", ops, expected)
        self._source = ops

    def _replace(self, what: str, new: Program | Map, expected: Program | Map | None) -> None:
        with self._handle.borrow() as hold, new._borrow_fd() as new_fd:
            _native.listen()
            if expected is None:
                code = hold.update(new_fd, 0)
            else:
                with expected._borrow_fd() as old_fd:
                    code = hold.update(new_fd, old_fd)
            _native.check(code, "put", f"{what} in the place of {self._what}", self._update_refused)

    def _update_refused(
        self, operation: str, target: str, number: int, detail: str, log: str
    ) -> KernelError:
        if number in (errno.EOPNOTSUPP, errno.EINVAL) and not self._is_updatable():
            hint = "links of this kind keep their program: attach the new one, then detach this"
            return NotSupportedError(operation, target, number, detail, log, hint)
        return explained(AttachError, _update_hint)(operation, target, number, detail, log)

    def _is_updatable(self) -> bool:
        with self._handle.borrow() as hold:
            return hold.is_updatable if hold.fileno() < 0 else self.info().type in _UPDATABLE

    def _attach_again(self, other: Program | Map) -> Link:
        """Attach another program, or struct_ops map, to the same hook in the same way."""
        assert self._again is not None  # links of objects know
        return self._again(other)

    def _move_to(self, owner: Object) -> None:
        """Have another object own the link, one of whose programs it has now."""
        owner._links.append(self)
        if self._owner is not None:
            self._owner._forget_link(self)
        self._owner = owner

    def pin(self, path: str | os.PathLike[str]) -> None:
        """Give the link a name on a bpffs, so that it stays attached without this process.

        PinError where there is no bpffs, no folder or something else by that name.  Links of
        tracepoints, kprobes, uprobes and perf events can be pinned from Linux 5.15 on.
        NotSupportedError for what is attached without a link of the kernel's.
        """
        with self._handle.borrow() as hold:
            pins.pin(self._fd_of(hold, "pin"), path, self._what)
        self._pins.add(os.fspath(path))

    def unpin(self, path: str | os.PathLike[str]) -> None:
        """Remove its pin at ``path``; PinError where nothing or something else is pinned."""
        with self._handle.borrow() as hold:
            pins.unpin(path, self._what, self._fd_of(hold, "unpin"))
        self._pins.discard(os.fspath(path))

    def detach(self) -> None:
        """Detach now, even where the link is pinned, and close.  Does nothing after close().

        NotSupportedError for a pinned link of a kind that the kernel detaches only with its last
        reference (tracing, tracepoints, kprobes): unpin it, and close.
        """
        if self._handle.closed:
            return
        self._require_own_process("detach")
        with self._handle.borrow() as hold:
            code = hold.detach()
        if code < 0 and self._pins:
            hint = f"unpin it ({', '.join(sorted(self._pins))}) and close it instead"
            raise NotSupportedError("detach", self._what, _native.kernel_errno(code), hint=hint)
        self.close()  # which detaches where there is no pin

    def close(self) -> None:
        """Give the handle up: the attachment ends unless it is pinned.  Harmless to repeat."""
        if self._handle.closed:
            return
        self._handle.close()
        if self._owner is not None:
            self._owner._forget_link(self)

    def disown(self) -> None:
        """Leave the attachment as it is and give it up: it lasts as long as this process does.

        To outlast the process, pin() it first.
        """
        self._require_own_process("disown")
        with self._handle.borrow() as hold:
            hold.keep()
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


def _update_hint(number: int) -> str:
    if number in (errno.EPERM, errno.EEXIST):
        return "another program than the expected one is attached"
    if number == errno.EINVAL:
        return "the new one is of another type than the old one, or not made for this hook"
    if number == errno.ENOLINK:
        return "the link was detached, or what it was attached to is gone"
    return ""
