# SPDX-License-Identifier: BSD-2-Clause
"""What a reader is asked to read: its maps, the types of their records, and options."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from itertools import combinations
from operator import index

from pybpf import map_kinds, record_types
from pybpf.constants import MapType
from pybpf.errors import LayoutError, NotFoundError, NotSupportedError
from pybpf.kernel import online_cpus
from pybpf.map import Map
from pybpf.object_map import ObjectMap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TypeAlias

    from pybpf.record_types import RecordTypeArgument

    PerfOptions: TypeAlias = tuple[int, int, bool, bool, bool]

_READ = "read records of"
_PERF_PAGES = 64
_WITHOUT_PERF = (
    "perf event arrays have that option; a ring buffer has max_entries bytes, its programs say "
    "when it wakes, and its records have no time to order them by"
)


class Source:
    """One map of a reader, and what its records are."""

    def __init__(
        self, name: str, map: Map, type: RecordTypeArgument | None, is_tagged: bool
    ) -> None:
        map.fileno()  # which says whether it is closed
        if not map_kinds.has(map.type, _READ):
            raise map_kinds.not_supported(map.type, name, _READ)
        self.name = name
        self.map = map
        self.is_tagged = is_tagged
        given = map._record_type() if type is None else type
        self.type = record_types.resolve(given, map._record_btf)
        if type is not None and isinstance(map, ObjectMap) and (declared := map._record_type()):
            self.type.require_like(declared)

    def decode(self, data: bytes) -> Any:
        """The value of a record that C does not know; a LayoutError has the record with it."""
        try:
            return self.type.decode(data)
        except LayoutError as error:
            wrong = LayoutError(f"a record of map {self.name!r}: {error}")
            wrong.record = data
            raise wrong from None

    def value_of(self, data: bytes) -> Any:
        """What a reader gives for a record."""
        value = self.decode(data)
        return (self.name, value) if self.is_tagged else value

    def bytes_of(self, value: Any) -> bytes:
        """A record again, from what a reader gave for it."""
        return self.type.encode(value[1] if self.is_tagged else value)

    @property
    def is_ring(self) -> bool:
        return self.map.type == MapType.RINGBUF


def sources(maps: Any, type: Any) -> list[Source]:
    """What stands for each map; TypeError or ValueError for what are none, or not distinct."""
    if isinstance(maps, Map):
        return [Source(maps.name, maps, type, is_tagged=False)]
    named = _named(maps)
    _require_distinct(named)
    types = _type_of_each([name for name, _ in named], type)
    return [Source(name, each, types.get(name), is_tagged=True) for name, each in named]


def _named(maps: Mapping[str, Any] | Iterable[Any]) -> list[tuple[str, Map]]:
    pairs = maps.items() if isinstance(maps, Mapping) else ((None, each) for each in maps)
    named = []
    for name, each in pairs:
        if not isinstance(each, Map):
            raise TypeError(f"a reader takes a Map, or several, not {each!r}")
        named.append((each.name if name is None else name, each))
    if not named:
        raise LayoutError("a reader needs at least one map")
    return named


def _require_distinct(named: list[tuple[str, Map]]) -> None:
    for (name, each), (other_name, other) in combinations(named, 2):
        if each.id == other.id:
            raise ValueError(f"map {each.name!r} is given twice: a reader reads it once")
        if name == other_name:
            raise ValueError(
                f"two maps are named {name!r}: give a mapping, with a name of your own for each"
            )


def _type_of_each(names: list[str], type: Any) -> dict[str, Any]:
    """What is given for each map: one type for all, or types by the maps' names.

    A table of record types has no such name: C has no enumerator that is named like a map.
    """
    if not isinstance(type, Mapping) or type.keys().isdisjoint(names):
        return dict.fromkeys(names, type)
    for name in type:
        if name not in names:
            raise NotFoundError("map of this reader", name, names)
    return dict(type)


# ---- options for perf event arrays ---------------------------------------------------------------


def require_perf(sources: list[Source], **options: bool) -> None:
    """NotSupportedError where one of ``options`` is given and no map is a perf event array.

    Records of ring buffers have no time, so that for "ordered" each map has to be one.
    """
    rings = [source.name for source in sources if source.is_ring]
    for name, is_given in options.items():
        if is_given and rings and (name == "ordered" or len(rings) == len(sources)):
            raise NotSupportedError(
                f"read with {name}=", f"map {rings[0]!r}", errno.EOPNOTSUPP, hint=_WITHOUT_PERF
            )


def perf_options(
    pages: int | None,
    wakeup_events: int | None,
    watermark: int | None,
    overwrite: bool,
    ordered: bool,
) -> PerfOptions:
    """What _add_perf() takes; ValueError for what the kernel refuses, or would never wake at."""
    pages = _PERF_PAGES if pages is None else whole("pages", pages)
    if pages < 1 or pages & (pages - 1) or pages >= 1 << 32:
        raise ValueError(f"pages is a power of two that the kernel has memory for, not {pages}")
    half = pages * os.sysconf("SC_PAGESIZE") // 2
    if watermark is None:
        wakeup_events = 1 if wakeup_events is None else whole("wakeup_events", wakeup_events)
        if not 1 <= wakeup_events < 1 << 32:
            raise ValueError(f"wakeup_events is at least 1, not {wakeup_events}")
        return pages, wakeup_events, False, overwrite, ordered
    if wakeup_events is not None:
        raise ValueError("a reader is woken by wakeup_events or by watermark, not by both")
    if not 1 <= whole("watermark", watermark) <= half:
        raise ValueError(f"watermark is from 1 to {half} bytes, half a ring, not {watermark}")
    return pages, watermark, True, overwrite, ordered


def perf_needs() -> tuple[str, ...]:
    """The capabilities that opening perf events of all processes takes."""
    with open("/proc/sys/kernel/perf_event_paranoid") as setting:
        # above 2 only in distributions' kernels, which do not know CAP_PERFMON there
        return ("CAP_SYS_ADMIN",) if int(setting.read()) > 2 else ("CAP_BPF", "CAP_PERFMON")


def memory_hint(number: int, pages: int) -> str:
    """Why the kernel may have refused so many pages."""
    if number not in (errno.EPERM, errno.ENOMEM):
        return ""
    size = pages * os.sysconf("SC_PAGESIZE") >> 10
    return (
        f"{pages} pages are {size} KiB of locked memory for each CPU: read with fewer pages=, "
        "raise `ulimit -l` or the sysctl kernel.perf_event_mlock_kb, or hold CAP_IPC_LOCK"
    )


def whole(name: str, number: int) -> int:
    """``number`` where it is a whole one; TypeError otherwise."""
    try:
        return index(number)
    except TypeError:
        raise TypeError(f"{name} is a whole number, not {number!r}") from None


def cpus_with_a_place(most: int) -> list[int]:
    """The numbers of the CPUs that run, as far as a map of ``most`` entries has places for them."""
    return [cpu for cpu in online_cpus() if cpu < most]
