# SPDX-License-Identifier: BSD-2-Clause
"""What the kernel tells about its maps, programs and links, as plain data.

Apart from the classes that return these, because dataclasses are slow to import and a program that
only loads and attaches never needs them.
"""

from __future__ import annotations

from dataclasses import dataclass

from pybpf import _native
from pybpf._native import ffi
from pybpf.constants import LinkType, MapFlags, MapType, ProgramType


@dataclass(frozen=True)
class MapInfo:
    """A map as the kernel holds it (``struct bpf_map_info``); sizes in bytes."""

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


@dataclass(frozen=True)
class ProgramInfo:
    """A program as the kernel holds it (``struct bpf_prog_info``); sizes in bytes.

    ``load_time`` is in nanoseconds since boot.  ``run_time_ns`` and ``run_cnt`` count only while
    the sysctl kernel.bpf_stats_enabled is on.  ``verified_insns`` is 0 before Linux 5.16.
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
    map_count: int
    btf_id: int
    run_time_ns: int
    run_cnt: int


@dataclass(frozen=True)
class LinkInfo:
    """An attachment as the kernel holds it (``struct bpf_link_info``)."""

    id: int
    type: LinkType
    program_id: int


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
    )


def program_info(fd: int) -> ProgramInfo:
    """ProgramInfo of a program's fd."""
    raw = _native.info(fd, "struct bpf_prog_info")
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
        map_count=raw.nr_map_ids,
        btf_id=raw.btf_id,
        run_time_ns=raw.run_time_ns,
        run_cnt=raw.run_cnt,
    )


def link_info(fd: int) -> LinkInfo:
    """LinkInfo of a link's fd."""
    raw = _native.info(fd, "struct bpf_link_info")
    return LinkInfo(id=raw.id, type=LinkType(raw.type), program_id=raw.prog_id)
