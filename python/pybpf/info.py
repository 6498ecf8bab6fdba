# SPDX-License-Identifier: BSD-2-Clause
"""What the kernel tells about its maps, programs and links, as plain data.

Apart from the classes that return these, because dataclasses are slow to import and a program that
only loads and attaches never needs them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from pybpf import _native
from pybpf._native import ffi
from pybpf.constants import MapFlags, MapType, ProgramType


@dataclass(frozen=True)
class MapInfo:
    """A map as the kernel holds it (``struct bpf_map_info``); sizes in bytes.

    ``memory`` is what the kernel charges for it.
    """

    id: int
    name: str
    type: MapType
    key_size: int
    value_size: int
    max_entries: int
    flags: MapFlags
    map_extra: int
    ifindex: int
    btf_id: int
    btf_key_type_id: int
    btf_value_type_id: int
    memory: int


@dataclass(frozen=True)
class ProgramInfo:
    """A program as the kernel holds it (``struct bpf_prog_info``); sizes in bytes.

    ``load_time`` is in nanoseconds since boot.  ``run_time_ns`` and ``run_cnt`` count only while
    pybpf.enable_stats() or the sysctl kernel.bpf_stats_enabled asks for it; ``recursion_misses``
    are runs that were left out because the program ran already (Linux 5.12).  ``verified_insns`` is
    0 before Linux 5.16.  ``memory`` is what the kernel charges for it.
    """

    id: int
    name: str
    type: ProgramType
    tag: str
    xlated_size: int
    jited_size: int
    verified_insns: int
    load_time: int
    created_by_uid: int
    map_ids: tuple[int, ...]
    btf_id: int
    run_time_ns: int
    run_cnt: int
    recursion_misses: int
    memory: int

    @property
    def loaded_at(self) -> datetime:
        """When it was loaded, in local time."""
        since_boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        age = timedelta(microseconds=(since_boot - self.load_time) / 1000)
        return datetime.now().astimezone() - age


def map_info(fd: int) -> MapInfo:
    """MapInfo of a map's fd."""
    raw = _native.info(fd, "struct bpf_map_info")
    return MapInfo(
        id=raw.id,
        name=_native.text(raw.name),
        type=MapType(raw.type),
        key_size=raw.key_size,
        value_size=raw.value_size,
        max_entries=raw.max_entries,
        flags=MapFlags(raw.map_flags),
        map_extra=raw.map_extra,
        ifindex=raw.ifindex,
        btf_id=raw.btf_id,
        btf_key_type_id=raw.btf_key_type_id,
        btf_value_type_id=raw.btf_value_type_id,
        memory=_memory(fd),
    )


def program_info(fd: int) -> ProgramInfo:
    """ProgramInfo of a program's fd."""
    count = _native.info(fd, "struct bpf_prog_info").nr_map_ids
    map_ids = ffi.new("uint32_t[]", count)
    address = int(ffi.cast("uintptr_t", map_ids))
    raw = _native.info(fd, "struct bpf_prog_info", nr_map_ids=count, map_ids=address)
    return ProgramInfo(
        id=raw.id,
        name=_native.text(raw.name),
        type=ProgramType(raw.type),
        tag=bytes(ffi.buffer(raw.tag)).hex(),
        xlated_size=raw.xlated_prog_len,
        jited_size=raw.jited_prog_len,
        verified_insns=raw.verified_insns,
        load_time=raw.load_time,
        created_by_uid=raw.created_by_uid,
        map_ids=tuple(map_ids),
        btf_id=raw.btf_id,
        run_time_ns=raw.run_time_ns,
        run_cnt=raw.run_cnt,
        recursion_misses=raw.recursion_misses,
        memory=_memory(fd),
    )


def _memory(fd: int) -> int:
    """Bytes by the kernel's reckoning; 0 where /proc is not mounted."""
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:
            return next((int(line.split()[1]) for line in lines if line.startswith("memlock:")), 0)
    except OSError:
        return 0
