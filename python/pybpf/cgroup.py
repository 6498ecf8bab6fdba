# SPDX-License-Identifier: BSD-2-Clause
"""Cgroups of version 2, to which programs attach: made, filled, asked and removed."""

from __future__ import annotations

import errno as _errno
import os
from contextlib import contextmanager

from pybpf.errors import KernelError
from pybpf.hooks import cgroups, querying
from pybpf.kernel import mount_points

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybpf.constants import AttachType
    from pybpf.hooks.querying import Attached


class Cgroup(os.PathLike[str]):
    """A cgroup by its folder on a cgroup2 file system.

    It goes wherever a path of a cgroup does, and holds nothing open.  At the end of a ``with`` the
    cgroup is removed.  What the file system refuses is a KernelError.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)

    @classmethod
    def create(cls, name: str, *, parent: str | os.PathLike[str] | None = None) -> Cgroup:
        """Make a cgroup of that name below ``parent``, which is the root of all unless given.

        KernelError where it is there already, or no cgroup2 file system is mounted.  It is the
        caller's to remove().
        """
        cgroup = cls(os.path.join(_root() if parent is None else parent, name))
        with _refusals("create", cgroup):
            os.mkdir(cgroup.path)
        return cgroup

    @property
    def id(self) -> int:
        """The kernel's number of it, which programs see as bpf_get_current_cgroup_id()."""
        with _refusals("number", self):
            return os.stat(self.path).st_ino

    @property
    def processes(self) -> list[int]:
        """The numbers of the processes in it, without those in cgroups below."""
        with _refusals("read", self), open(self._processes, encoding="ascii") as file:
            return [int(line) for line in file]

    @property
    def _processes(self) -> str:
        return f"{self.path}/cgroup.procs"

    def add(self, pid: int = 0) -> None:
        """Move a process into it, this one unless another is given; also its children to come."""
        with (
            _refusals(f"move process {pid or os.getpid()} to", self),
            open(self._processes, "w", encoding="ascii") as file,
        ):
            file.write(str(pid))

    def attached(self, hook: AttachType, *, effective: bool = False) -> Attached:
        """What is attached to it at that hook, in the order in which it runs.

        ``effective``: what runs for processes in it, which includes what is attached above it.
        Needs CAP_NET_ADMIN.
        """
        with cgroups.opened(self, "ask", f"what is attached to {self}") as fd:
            return querying.query(fd, hook, effective=effective)

    def remove(self) -> None:
        """Remove it, with what is attached to it; processes in it go to the cgroup above.

        KernelError (EBUSY) where there are cgroups below it.
        """
        above = Cgroup(os.path.dirname(self.path))
        for pid in self.processes:
            try:
                above.add(pid)
            except KernelError as error:
                if error.errno != _errno.ESRCH:  # it has ended meanwhile
                    raise
        with _refusals("remove", self):
            os.rmdir(self.path)

    def __fspath__(self) -> str:
        return self.path

    def __str__(self) -> str:
        return self.path

    def __repr__(self) -> str:
        return f"<Cgroup {self.path}>"

    def __enter__(self) -> Cgroup:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


@contextmanager
def _refusals(operation: str, cgroup: Cgroup) -> Iterator[None]:
    """Inside the block, an OSError is a KernelError about the cgroup."""
    try:
        yield
    except OSError as error:
        number = error.errno or _errno.EIO
        raise KernelError(operation, f"cgroup {cgroup}", number, hint=_hint(number)) from None


def _hint(number: int) -> str:
    if number == _errno.ENOENT:
        return "there is no such cgroup, or its folder is not on a cgroup2 file system"
    if number == _errno.EBUSY:
        return "it has cgroups below it, or controllers are handed down and keep processes out"
    return ""


def _root() -> str:
    """Where the cgroups of version 2 are mounted."""
    mounted = mount_points("cgroup2")
    if not mounted:
        hint = "no cgroup2 file system is mounted here; try: mount -t cgroup2 none FOLDER"
        raise KernelError("create", "cgroup", _errno.ENOENT, hint=hint)
    return mounted[0]
