# SPDX-License-Identifier: BSD-2-Clause
"""A whole object in one folder of a bpffs: links, programs and maps, pinned together."""

from __future__ import annotations

import errno as _errno
import os

from pybpf import pins
from pybpf.errors import PinError
from pybpf.kernel import on_bpffs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.object import Object

_FOLDERS = ("links", "programs", "maps")


def store(obj: Object, folder: str | os.PathLike[str]) -> list[str]:
    """Pin the maps, loaded programs and links of ``obj`` below ``folder``; the pins' paths.

    They go to links/, programs/ and maps/, which are made where missing; a dot in a name, which a
    bpffs refuses, becomes "_".  All or nothing: where one fails, those before it are removed and
    PinError is raised.  The object may be closed then: what is pinned stays attached.
    """
    top = os.fspath(folder)
    wanted = [("maps", each.name, each) for each in obj.maps.values() if each.autocreate]
    wanted += [("programs", each.name, each) for each in obj.programs.values() if each.loaded]
    wanted += [
        ("links", each.source.name if each.source else str(each.id), each) for each in obj.links
    ]
    made: list[str] = []
    done: list[str] = []
    try:
        for name in ("", *_FOLDERS):
            _make_folder(os.path.join(top, name), made)
        for kind, name, item in wanted:
            path = os.path.join(top, kind, name.replace(".", "_"))
            item.pin(path)
            done.append(path)
    except BaseException:
        for path in reversed(done):
            os.unlink(path)
        for path in reversed(made):
            os.rmdir(path)
        raise
    return done


def _make_folder(path: str, made: list[str]) -> None:
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

    PinError where it is no folder of a bpffs, or holds anything else (nothing is removed then).
    """
    top = os.fspath(folder)
    if not os.path.isdir(top) or not on_bpffs(top):
        raise PinError("unload", top, _errno.ENOENT, hint=f"{top} is no folder on a bpffs")
    strangers = sorted(set(os.listdir(top)) - set(_FOLDERS))
    if strangers or not os.listdir(top):
        what = f"it holds {', '.join(strangers)}" if strangers else "it is empty"
        raise PinError(
            "unload",
            top,
            _errno.EINVAL,
            hint=f"`pybpf load --pin` did not make this folder: {what}",
        )
    removed = []
    for kind in _FOLDERS:
        inner = os.path.join(top, kind)
        for name in sorted(os.listdir(inner)) if os.path.isdir(inner) else ():
            pins.unpin(os.path.join(inner, name), kind)
            removed.append(os.path.join(inner, name))
    for kind in _FOLDERS:
        if os.path.isdir(os.path.join(top, kind)):
            os.rmdir(os.path.join(top, kind))
    os.rmdir(top)
    return removed
