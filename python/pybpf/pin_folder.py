# SPDX-License-Identifier: BSD-2-Clause
"""A whole object in one folder of a bpffs: links, programs and maps, pinned together."""

from __future__ import annotations

import errno as _errno
import os

from pybpf import pins
from pybpf.errors import Error, PinError
from pybpf.kernel import on_bpffs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from pybpf.object import Object

_FOLDERS = ("links", "programs", "maps")


def store(obj: Object, folder: str | os.PathLike[str]) -> list[str]:
    """Pin the maps, loaded programs and links of ``obj`` below ``folder``; the pins' paths.

    They go to links/, programs/ and maps/, which are made where missing; a dot in a name, which a
    bpffs refuses, becomes "_".  All or nothing: where one fails, those before it are removed and
    PinError is raised.  The object may be closed then: what is pinned stays attached.
    """
    top = os.fspath(folder).rstrip("/")
    wanted = [("maps", each.name, each) for each in obj.maps.values() if each.autocreate]
    wanted += [("programs", each.name, each) for each in obj.programs.values() if each.loaded]
    wanted += [
        ("links", each.source.name if each.source else str(each.id), each) for each in obj.links
    ]
    made: list[str] = []
    done: list[str] = []
    try:
        for path in (top, *(os.path.join(top, name) for name in _FOLDERS)):
            make_folder(path, made)
        for kind, name, item in wanted:
            path = os.path.join(top, kind, pin_name(name))
            item.pin(path)
            done.append(path)
    except BaseException:
        for path in reversed(done):
            os.unlink(path)
        for path in reversed(made):
            os.rmdir(path)
        raise
    return done


def pin_name(name: str) -> str:
    """A name as a bpffs takes it: without a dot."""
    return name.replace(".", "_")


def make_folder(path: str, made: list[str]) -> None:
    """Make a folder of a bpffs where it is missing, and note it in ``made``; PinError."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(os.path.abspath(path))
    if not on_bpffs(parent):
        raise PinError("make folder", path, _errno.EPERM, hint=pins.pin_hint(path))
    try:
        os.mkdir(path, 0o700)
    except OSError as error:
        raise PinError("make folder", path, error.errno or 0, hint=pins.pin_hint(path)) from None
    made.append(path)


def remove(folder: str | os.PathLike[str]) -> list[str]:
    """Remove what store() left below ``folder``, links first, and the folder; the pins' paths.

    A folder of nothing but such folders is removed with them.  PinError where it is no folder of
    a bpffs or holds anything else (nothing is removed then), PrivilegeError without permission.
    """
    top = os.fspath(folder).rstrip("/")
    try:
        pinned, folders = _contents(top)
        for path in pinned:
            pins.remove(path)
        for path in folders:
            os.rmdir(path)
    except OSError as error:
        if isinstance(error, Error):
            raise
        raise pins.refused("unload", top, error, top) from None
    return pinned


def _contents(top: str) -> tuple[list[str], list[str]]:
    """All pins and folders below ``top``, in the order of their removal."""
    if not os.path.isdir(top) or not on_bpffs(top):
        hint = f"{top} is no folder on a bpffs"
        raise PinError("unload", top, _errno.ENOENT, hint=hint)
    names = sorted(os.listdir(top))
    if set(names) <= set(_FOLDERS) and names:
        inner = [os.path.join(top, kind) for kind in _FOLDERS if kind in names]
        pinned = [os.path.join(path, name) for path in inner for name in sorted(os.listdir(path))]
        folders = [path for path in pinned if os.path.isdir(path)]
        if folders:
            _not_ours(top, f"it holds {', '.join(folders)}")
        return pinned, [*inner, top]
    below = [os.path.join(top, name) for name in names]
    strangers = [path for path in below if not os.path.isdir(path) or not os.listdir(path)]
    if strangers or not names:
        _not_ours(top, f"it holds {', '.join(strangers)}" if strangers else "it is empty")
    parts = [_contents(path) for path in below]
    pinned = [path for part in parts for path in part[0]]
    return pinned, [*(path for part in parts for path in part[1]), top]


def _not_ours(top: str, why: str) -> NoReturn:
    hint = f"`pybpf load --pin` did not make this folder: {why}"
    raise PinError("unload", top, _errno.EINVAL, hint=hint)
