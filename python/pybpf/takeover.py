# SPDX-License-Identifier: BSD-2-Clause
"""A newer object in the place of one that another process left pinned in a folder of a bpffs.

What is new is pinned beside what is old, under a name of its own, and takes the old name in one
step.  So a process that is killed leaves each hook with the old program or with the new one, and
pins that the next reload removes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os

from pybpf import pins, reloading
from pybpf.errors import BusyError, PinError
from pybpf.link import Link
from pybpf.link_info import StructOpsLink
from pybpf.map import Map
from pybpf.opening import open
from pybpf.pin_folder import pin_name
from pybpf.program import Program
from pybpf.reloading import Reload, Switch
from pybpf.succession import common_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from pybpf.kernel_object import KernelObject
    from pybpf.object import Object
    from pybpf.object_map import ObjectMap
    from pybpf.opening import ObjectSource
    from pybpf.program import ObjectProgram
    from pybpf.succession import Migration

_FOLDERS = ("maps", "programs", "links")
_NEW = "~"  # what the name of a pin begins with until it takes the old one's


def reload_pinned(
    folder: str | os.PathLike[str],
    source: ObjectSource,
    *,
    maps: Mapping[str, Migration | None] | None = None,
    configure: Callable[[Object], object] | None = None,
    health: Callable[[Object], object] | None = None,
    timeout: float = 5.0,
) -> Reload:
    """Put the object in ``source`` in the place of what `pybpf load --pin` left in ``folder``.

    As pybpf.reload() in all else, but the old object is the kernel's, and its process may be gone.
    Programs on hooks whose links the kernel cannot update are attached by their section:
    AttachError where that does not say where.  A process that is killed meanwhile leaves the old
    program or the new one on each hook; the next call, of whatever version, does the rest.

    The new object is the caller's, and may be closed: all of it is pinned.  PinError where the
    folder is not such a one, BusyError while another process does the same, PrivilegeError without
    CAP_SYS_ADMIN, which finding the programs behind links takes.
    """
    top = os.fspath(folder).rstrip("/")
    with _locked(top), contextlib.ExitStack() as opened:
        place = _Folder(top, opened)
        new = open(source)
        try:
            taken = reloading.load_successor(
                new, place.maps, maps or {}, configure, health, timeout
            )
            with _Exchange(place, new) as exchange:
                exchange.pin_objects()
                switches = exchange.switch_links()
                exchange.take_names()
        except BaseException:
            new.close()
            raise
    return Reload(new, taken, tuple(switches))


@contextlib.contextmanager
def _locked(top: str) -> Iterator[None]:
    """Keep other processes that would reload the folder out."""
    try:
        fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise pins.refused("reload", top, error, top) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise BusyError(f"reload {top}: another process does so right now") from None
    try:
        yield
    finally:
        os.close(fd)


class _Folder:
    """What an object left pinned, opened.

    ``maps`` are by their common_name(), ``links`` by the names of their pins, and ``sources`` has
    the program, or struct_ops map, that each link has attached.
    """

    def __init__(self, top: str, opened: contextlib.ExitStack) -> None:
        self.top = top
        if not all(os.path.isdir(self.path(kind)) for kind in _FOLDERS):
            hint = "`pybpf load --pin` did not make this folder"
            raise PinError("reload", top, errno.EINVAL, hint=hint)
        # before what a killed process left is removed: a link may have its program already
        self._names = {
            **self._names_by_id("programs", Program),
            **self._names_by_id("maps", Map),
        }
        self._remove_leftovers()
        self.maps = {}
        for name in os.listdir(self.path("maps")):
            each = opened.enter_context(Map.open_pinned(self.path("maps", name)))
            # the kernel cuts names, but not the sections in them
            self.maps[common_name(each.name if "." in each.name else name)] = each
        self.links = {
            name: opened.enter_context(Link.open_pinned(self.path("links", name)))
            for name in sorted(os.listdir(self.path("links")))
        }
        self.sources: dict[str, Program | Map] = {}
        for name, link in self.links.items():
            source = self.sources[name] = _source(link)
            opened.callback(source.close)

    def path(self, *names: str) -> str:
        return os.path.join(self.top, *names)

    def _names_by_id(self, kind: str, cls: Any) -> dict[tuple[type, int], str]:
        found = {}
        for name in os.listdir(self.path(kind)):
            with cls.open_pinned(self.path(kind, name)) as each:
                found[cls, each.id] = name.removeprefix(_NEW)
        return found

    def _remove_leftovers(self) -> None:
        for kind in _FOLDERS:
            for name in os.listdir(self.path(kind)):
                if name.startswith(_NEW):
                    pins.remove(self.path(kind, name))

    def source_name(self, link: str) -> str:
        """What the program that a link has attached is pinned as; the link's own name else."""
        source = self.sources[link]
        return self._names.get((type(source), source.id), link)

    @property
    def programs(self) -> set[str]:
        """The names of all programs of the old object, as far as they are pinned or attached."""
        pinned = {name for (cls, _), name in self._names.items() if cls is Program}
        return pinned | set(map(self.source_name, self.links))


def _source(link: Link) -> Program | Map:
    info = link.info()
    return (
        Map.from_id(info.map_id)
        if isinstance(info, StructOpsLink)
        else Program.from_id(info.program_id)
    )


class _Exchange:
    """The steps from old to new, each of which an exception undoes."""

    def __init__(self, place: _Folder, new: Object) -> None:
        self._place = place
        self._undo = contextlib.ExitStack()
        self._programs = {pin_name(each.name): each for each in new.programs.values()}
        self._maps = {pin_name(each.name): each for each in new.maps.values()}

    def __enter__(self) -> _Exchange:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        if kind is None:
            self._undo.pop_all()
        self._undo.close()

    def pin_objects(self) -> None:
        """Pin the new maps and programs beside the old ones."""
        for name, each in self._maps.items():
            if each.autocreate:
                self._pin(each, "maps", name)
        for name, program in self._programs.items():
            if program.loaded:
                self._pin(program, "programs", name)

    def _pin(self, each: KernelObject | Link, kind: str, name: str) -> None:
        path = self._place.path(kind, _NEW + name)
        self._undo.callback(_remove, path)  # first: an interrupt may come between
        each.pin(path)

    def switch_links(self) -> list[Switch]:
        """Have the new programs on the old ones' hooks, and those on theirs that are added."""
        switches = [self._switch(name, link) for name, link in self._place.links.items()]
        known = self._place.programs
        for name, program in self._programs.items():
            if name not in known and program.loaded and program.autoattach:
                switches += self._add(name, program)
        return switches

    def _switch(self, name: str, link: Link) -> Switch:
        before, after = self._place.sources[name], self._successor(name)
        program, what = self._place.source_name(name), link.info().where or link.what
        if after is None:
            return Switch(program, what, "ended")
        self._undo.callback(reloading.put_back, link, before, after)
        if reloading.update(link, after, before):
            return Switch(program, what, "updated")
        self._replace(name, link, after)
        return Switch(program, what, "overlapped")

    def _successor(self, link: str) -> ObjectProgram | ObjectMap | None:
        name = self._place.source_name(link)
        if isinstance(self._place.sources[link], Map):
            return self._maps.get(name)
        program = self._programs.get(name)
        return program if program is not None and program.loaded else None

    def _replace(self, name: str, link: Link, after: Any) -> None:
        """Attach the program anew, and have its link take the pin of the old one's."""
        anew = after.attach()
        self._pin(anew, "links", name)
        path = self._place.path("links", name)
        self._undo.callback(_pin_again, link, path)
        os.rename(self._place.path("links", _NEW + name), path)

    def _add(self, name: str, program: ObjectProgram) -> list[Switch]:
        links = program._owner._attach(program)
        for link in links:
            self._pin(link, "links", name)
        return [Switch(program.name, link.what, "added") for link in links]

    def take_names(self) -> None:
        """Give what is new the names, and remove what is left of the old object."""
        for kind in _FOLDERS:
            folder = self._place.path(kind)
            fresh = {name for name in os.listdir(folder) if name.startswith(_NEW)}
            for name in fresh:
                os.rename(os.path.join(folder, name), os.path.join(folder, name[len(_NEW) :]))
            if kind != "links":
                kept = {name[len(_NEW) :] for name in fresh}
                for name in set(os.listdir(folder)) - kept:
                    pins.remove(os.path.join(folder, name))
        for name in self._place.links:
            if self._successor(name) is None:
                pins.remove(self._place.path("links", name))


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _pin_again(link: Link, path: str) -> None:
    """Give the old link its pin back, of which another has taken the name."""
    aside = os.path.join(os.path.dirname(path), _NEW + os.path.basename(path))
    _remove(aside)
    link.pin(aside)
    os.rename(aside, path)
