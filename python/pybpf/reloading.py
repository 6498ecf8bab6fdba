# SPDX-License-Identifier: BSD-2-Clause
"""Putting a newer object in the place of a running one, without a gap: all of it or nothing.

    open -> take maps over -> configure -> load -> migrate -> health -> switch links -> close old

Until the last link is switched the old object is whole, and any exception leaves it as it was.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

from pybpf import succession
from pybpf.errors import AttachError, NotSupportedError, ReloadError, StateError
from pybpf.map import Map
from pybpf.object_map import ObjectMap
from pybpf.opening import open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeAlias

    from pybpf.link import Link
    from pybpf.object import Object
    from pybpf.opening import ObjectSource
    from pybpf.program import Program
    from pybpf.succession import Migration, Succession

    Attachable: TypeAlias = Program | Map

_HEALTH_INTERVAL = 0.05


@dataclass(frozen=True)
class Switch:
    """What became of one attachment.

    ``how`` is "updated": the kernel put the new program in the old one's place, in one step;
    "overlapped": the new one was attached before the old one was detached, so that for moments both
    ran; "added" for a program that the old object did not have; or "ended" for one that the new
    object does not have.
    """

    program: str
    what: str
    how: str


@dataclass(frozen=True)
class Reload:
    """A reload that went well: the new ``object``, which is the caller's, and what became of it."""

    object: Object
    maps: Succession
    links: tuple[Switch, ...]


def reload(
    obj: Object,
    source: ObjectSource,
    *,
    maps: Mapping[str, Migration | None] | None = None,
    configure: Callable[[Object], object] | None = None,
    health: Callable[[Object], object] | None = None,
    timeout: float = 5.0,
) -> Reload:
    """Put the object in ``source`` in the place of ``obj``, which runs; all of it or nothing.

    The new object takes the old one's maps over that have the same name, kind and layout, variables
    (".bss") too, with all that is in them.  For others ``maps`` has a function, which is called
    with the old and the new map, or None where the new one is to begin empty; without, LayoutError
    shows what differs.  Of variables whose section changed, those of the same name and type keep
    their values.  Constants (.rodata) are the new object's own: ``configure(new)`` may set
    them, and whatever else is to be set before load.  Programs keep autoload and autoattach of
    their name.

    ``health(new)`` is asked when it is loaded, until it answers with something true, for at most
    ``timeout`` seconds; then every link is switched.  Where the kernel can, it puts the new program
    in the old one's place in one step, so that no event is missed and none is seen twice (XDP, tcx,
    netkit, cgroups, network namespaces, sockmaps, struct_ops); elsewhere (tracepoints and other
    tracing) the new program is attached before the old one is detached, so that none is missed.
    Programs whose name the old object does not have are attached by their section, where the old
    object had anything attached.

    Where anything fails, or ReloadError says that the health was not good, ``obj`` is, runs and is
    attached as before.  Otherwise it is closed, and its readers with it: what they left in rings
    that were kept is for readers of the new object.
    """
    _require_loaded(obj)
    new = open(source)
    try:
        _adopt_settings(obj, new)
        taken = load_successor(
            new, succession.by_name(obj.maps.values()), maps or {}, configure, health, timeout
        )
        switches = _switch(obj, new)
    except BaseException:
        new.close()
        raise
    obj.close()
    return Reload(new, taken, switches)


def load_successor(
    new: Object,
    old: Mapping[str, Map],
    migrations: Mapping[str, Migration | None],
    configure: Callable[[Object], object] | None,
    health: Callable[[Object], object] | None,
    timeout: float,
) -> Succession:
    """Load an object that is open with an older one's maps, by_name(), and see that it is well."""
    own = succession.by_name(new.maps.values())
    taken = succession.arrange(old, own, migrations)
    if configure is not None:
        configure(new)
    new.load()
    succession.migrate(old, own, taken.migrated, migrations)
    if health is not None:
        _require_healthy(new, health, timeout)
    return taken


def _require_loaded(obj: Object) -> None:
    if obj.state != "loaded":
        raise StateError(f"reload: works after load(); object {obj.name!r} is {obj.state}")


def _adopt_settings(old: Object, new: Object) -> None:
    for name, program in new.programs.items():
        if name in old.programs:
            program.autoload = old.programs[name].autoload
            program.autoattach = old.programs[name].autoattach


def _require_healthy(new: Object, health: Callable[[Object], object], timeout: float) -> None:
    """Ask until the answer is good; ReloadError when the time is over."""
    deadline = time.monotonic() + timeout
    while not health(new):
        if time.monotonic() >= deadline:
            raise ReloadError(
                f"reload {new.name!r}: its health was not good for {timeout} s; "
                "all is as it was before"
            )
        time.sleep(_HEALTH_INTERVAL)


# ---- links ---------------------------------------------------------------------------------------


def _switch(old: Object, new: Object) -> tuple[Switch, ...]:
    """Have the new object's programs attached where the old one's are; all of them, or none."""
    switches: list[Switch] = []
    updated: list[tuple[Link, Attachable, Attachable]] = []
    try:
        for link in old.links:
            before = link.source
            assert before is not None  # an object's link
            after = _successor(before, new)
            if after is None:
                switches.append(Switch(before.name, link.what, "ended"))
                continue
            updated.append((link, before, after))  # first: an interrupt may come between
            if update(link, after, before):
                switches.append(Switch(after.name, link.what, "updated"))
            else:
                updated.pop()
                link._attach_again(after)
                switches.append(Switch(after.name, link.what, "overlapped"))
        if old.links:
            switches += _attach_added(old, new)
    except BaseException:
        for link, before, after in reversed(updated):
            put_back(link, before, after)
        raise
    for link, _, _ in updated:
        link._move_to(new)
    return tuple(switches)


def _successor(before: Attachable, new: Object) -> Attachable | None:
    """What is to be attached in its place; None where the new object has no such thing."""
    kind: Mapping[str, Any] = new.maps if isinstance(before, Map) else new.programs
    after = kind.get(before.name)
    if after is None:
        return None
    is_there = after.autocreate if isinstance(after, ObjectMap) else after.loaded
    return after if is_there else None


def update(link: Link, after: Attachable, before: Attachable) -> bool:
    """Put one in the other's place in one step; whether the kernel can for this kind of link."""
    try:
        if isinstance(after, Map):
            assert isinstance(before, Map)
            link.update_map(after, expected=before)
        else:
            assert not isinstance(before, Map)
            link.update(after, expected=before)
    except NotSupportedError:
        return False
    return True


def put_back(link: Link, before: Attachable, after: Attachable) -> None:
    """Undo update(), which may not have come to pass."""
    with contextlib.suppress(AttachError):
        update(link, before, after)


def _attach_added(old: Object, new: Object) -> list[Switch]:
    """Attach by their sections what the old object did not have."""
    added = [
        each
        for name, each in new.programs.items()
        if name not in old.programs and each.loaded and each.autoattach
    ]
    return [Switch(each.name, link.what, "added") for each in added for link in new._attach(each)]
