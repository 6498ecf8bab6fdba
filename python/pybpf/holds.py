# SPDX-License-Identifier: BSD-2-Clause
"""What holds an attachment in place: a link of libbpf's, one of the kernel's, or neither.

A hold is there before what it holds: attaching stores into it, so that an exception that comes
between finds an owner, who ends it.
"""

from __future__ import annotations

import errno
import os
import sys

from pybpf._native import NULL, ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from pybpf.hooks.netlink import ClsactFilter

_REPLACE = 4  # BPF_F_REPLACE


class Hold:
    """One attachment: at most one of end() and keep() is called, once."""

    is_updatable = False  # where there is no link, whose kind tells

    def __init__(self) -> None:
        self._process = os.getpid()
        self._is_over = False

    def fileno(self) -> int:
        """The link's descriptor; -1 where there is none."""
        return -1

    @property
    def filter(self) -> ClsactFilter | None:
        """The filter of a device's clsact that this is."""
        return None

    def detach(self) -> int:
        """Have the kernel detach it, whoever else holds the link; 0 or a negative errno."""
        return -errno.EOPNOTSUPP

    def update(self, new_fd: int, old_fd: int) -> int:
        """Put another program, or struct_ops map, in place of its own; 0 or a negative errno.

        Of ``old_fd``, unless that is 0.
        """
        return -errno.EOPNOTSUPP

    def end(self) -> None:
        """Give it up: what nothing else holds is detached.  In a fork only what is the fork's."""
        if not self._is_over:
            self._is_over = True
            self._end() if self._process == os.getpid() else self._end_in_fork()

    def keep(self) -> None:
        """Leave it in place for as long as this process lives."""
        self._is_over = True

    def _end(self) -> None:
        raise NotImplementedError

    def _end_in_fork(self) -> None:
        """Nothing is the child's."""

    def __del__(self) -> None:
        if not sys.is_finalizing():
            self.end()


def _update(link_fd: int, new_fd: int, old_fd: int) -> int:
    if link_fd < 0:
        return -errno.EOPNOTSUPP
    return int(lib.pybpf_link_update(link_fd, new_fd, old_fd, _REPLACE if old_fd else 0))


class LibbpfHold(Hold):
    """A ``struct bpf_link``, which libbpf stores at ``place``."""

    def __init__(self) -> None:
        super().__init__()
        self.place: Any = ffi.new("struct bpf_link **")

    def fileno(self) -> int:
        return int(lib.bpf_link__fd(self.place[0]))

    def detach(self) -> int:
        return int(lib.bpf_link_detach(self.fileno()))

    def update(self, new_fd: int, old_fd: int) -> int:
        return _update(self.fileno(), new_fd, old_fd)

    def keep(self) -> None:
        super().keep()
        lib.bpf_link__disconnect(self.place[0])

    def _end(self) -> None:
        if self.place[0] != NULL:
            lib.bpf_link__destroy(self.place[0])

    def _end_in_fork(self) -> None:
        """Close the child's descriptor; destroying would switch the parent's perf event off."""
        if self.place[0] != NULL:
            lib.bpf_link__disconnect(self.place[0])
            os.close(self.fileno())


class UsdtHold(LibbpfHold):
    """A ``struct bpf_link`` of several links that are libbpf's own, and no descriptor."""

    def fileno(self) -> int:
        return -1

    def _end_in_fork(self) -> None:
        """The descriptors are libbpf's: the child keeps them as long as it lives."""


class RegistrationHold(LibbpfHold):
    """Ops that are registered without a link of the kernel's, until a map's element is deleted.

    The descriptor that libbpf has for them is the map's own.
    """

    def fileno(self) -> int:
        return -1

    def detach(self) -> int:
        return 0  # there is nobody else who holds it

    def _end_in_fork(self) -> None:
        """Free the child's memory of it, and leave the ops as they are."""
        if self.place[0] != NULL:
            lib.bpf_link__disconnect(self.place[0])
            lib.bpf_link__destroy(self.place[0])


class FdHold(Hold):
    """A link's descriptor, which C stores at ``place``."""

    def __init__(self, fd: int = -1) -> None:
        super().__init__()
        self.place: Any = ffi.new("int *", fd)

    def fileno(self) -> int:
        return int(self.place[0])

    def detach(self) -> int:
        return int(lib.bpf_link_detach(self.fileno()))

    def update(self, new_fd: int, old_fd: int) -> int:
        return _update(self.fileno(), new_fd, old_fd)

    def _end(self) -> None:
        if self.place[0] >= 0:
            os.close(self.place[0])

    def _end_in_fork(self) -> None:
        self._end()


class UndoHold(Hold):
    """An attachment without a link, which ``undo()`` ends; the kernel keeps it past the process."""

    def __init__(self, undo: Callable[[], object]) -> None:
        super().__init__()
        self._undo = undo

    def detach(self) -> int:
        return 0  # there is nobody else who holds it

    def _end(self) -> None:
        self._undo()


class SeveralHolds(Hold):
    """Attachments that end together, also where one of them is refused."""

    def __init__(self) -> None:
        super().__init__()
        self._holds: list[Hold] = []

    @classmethod
    def made_of(cls, holds: Iterable[Hold]) -> SeveralHolds:
        """Those that are made one after the other; none where an exception comes between."""
        several = cls()
        try:
            for hold in holds:
                several._holds.append(hold)
        except BaseException:
            several.end()
            raise
        return several

    def detach(self) -> int:
        return 0  # there is no one link of the kernel's that something else could hold

    def keep(self) -> None:
        super().keep()
        for hold in self._holds:
            hold.keep()

    def _end(self) -> None:
        while self._holds:
            self._holds.pop().end()

    def _end_in_fork(self) -> None:
        self._end()


class EventHold(FdHold):
    """A perf event's descriptor, with which a program on it ends.

    That is all where the kernel has no links of events, before Linux 5.15.
    """

    def fileno(self) -> int:
        return -1
