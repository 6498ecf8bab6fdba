# SPDX-License-Identifier: BSD-2-Clause
"""Cgroups of version 2: all program types that run for what the processes in one do."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager

from pybpf import features
from pybpf.constants import AttachType, CgroupMode, ProgramType
from pybpf.errors import AttachError
from pybpf.hooks import linking
from pybpf.kernel import mount_points

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybpf.holds import Hold

# of the types that have one hook in cgroups
_ONLY_HOOKS = {
    ProgramType.SOCK_OPS: AttachType.CGROUP_SOCK_OPS,
    ProgramType.CGROUP_DEVICE: AttachType.CGROUP_DEVICE,
    ProgramType.CGROUP_SYSCTL: AttachType.CGROUP_SYSCTL,
    ProgramType.LSM: AttachType.LSM_CGROUP,
}


def attach(
    what: str,
    program_fd: int,
    cgroup: str | os.PathLike[str] | int,
    hook: AttachType,
    mode: CgroupMode | None,
    place: linking.Place,
) -> Hold:
    flags, rest = place
    refuse = linking.refusal(features.CGROUP_ORDER if flags else (), hint=_hint)
    if rest["expected_revision"]:  # which older kernels would disregard
        linking.require(features.CGROUP_ORDER, what)
    with opened(cgroup, "attach", what) as fd:
        if mode is None:
            return linking.create(what, refuse, program_fd, hook, fd, flags, order=rest)
        flags |= mode
        return linking.attach_without_link(what, refuse, program_fd, hook, fd, flags, **rest)


def only_hook(what: str, type: ProgramType) -> AttachType:
    """Where programs of that type attach; AttachError where the type has several hooks."""
    if type not in _ONLY_HOOKS:
        hint = "the kernel does not tell which hook it was loaded for: give hook=AttachType...."
        raise AttachError("attach", what, errno.EINVAL, hint=hint)
    return _ONLY_HOOKS[type]


@contextmanager
def opened(cgroup: str | os.PathLike[str] | int, operation: str, what: str) -> Iterator[int]:
    """A descriptor of the cgroup inside the block; AttachError where there is none at a path."""
    if isinstance(cgroup, int):
        yield cgroup
        return
    try:
        fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        hint = f"there is no cgroup {os.fspath(cgroup)}"
        raise AttachError(operation, what, error.errno or errno.ENOENT, hint=hint) from None
    try:
        yield fd
    finally:
        os.close(fd)


def _hint(number: int) -> str:
    if number == errno.EBADF:
        mounted = ", ".join(mount_points("cgroup2")) or "nowhere (mount -t cgroup2 none FOLDER)"
        return f"programs attach to folders of a cgroup2 file system; one is mounted at {mounted}"
    if number == errno.EPERM:
        return "this cgroup, or one above it, has a program at this hook that admits no others"
    if number == errno.EINVAL:
        return (
            "the program is not made for this hook, or is attached there already; links take "
            "places before and after links, programs with a mode before and after such programs"
        )
    if number == errno.ENOENT:
        return "what it should come before or after is not attached there"
    if number == errno.ESTALE:
        return "what is attached there has changed since: another revision than the expected one"
    if number == errno.E2BIG:
        return "a hook of a cgroup takes 64 programs"
    return ""
