# SPDX-License-Identifier: BSD-2-Clause
"""What the kernel tells about its links, each kind as plain data (``struct bpf_link_info``)."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from pybpf import _native
from pybpf._native import ffi, lib
from pybpf.constants import AttachType, CgroupIterOrder, LinkType
from pybpf.kernel import mount_points

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    _Head: TypeAlias = tuple[int, LinkType, int]

_SIZE = 128  # more than any kernel's struct has yet
_OF_KIND = 16  # where begins what belongs to the kind of link
_TEXT = 4096  # PATH_MAX
_IS_RETURN = 1  # BPF_F_KPROBE_MULTI_RETURN and its like


@dataclass(frozen=True)
class LinkInfo:
    """An attachment as the kernel holds it; a subclass has what belongs to its kind.

    ``program_id`` is 0 for struct_ops, which have a map.
    """

    id: int
    type: LinkType
    program_id: int

    @property
    def where(self) -> str:
        """What it is attached to, in words; "" where the kernel does not tell."""
        return ""


@dataclass(frozen=True)
class RawTracepointLink(LinkInfo):
    """``cookie`` is 0 before Linux 6.18."""

    name: str
    cookie: int

    @property
    def where(self) -> str:
        return f"raw tracepoint {self.name}"


@dataclass(frozen=True)
class TracingLink(LinkInfo):
    """fentry, fexit, fmod_ret, tp_btf, LSM and freplace programs.

    ``target_object_id`` is a program's for freplace and where programs are traced, otherwise that
    of BTF; ``target_type_id`` is the function's type there.
    """

    attach_type: AttachType
    target_object_id: int
    target_type_id: int
    cookie: int

    @property
    def where(self) -> str:
        return f"{self.attach_type.name} of type {self.target_type_id}"


@dataclass(frozen=True)
class CgroupLink(LinkInfo):
    """``cgroup_id`` is 0 once the cgroup is gone."""

    cgroup_id: int
    attach_type: AttachType

    @property
    def path(self) -> str | None:
        """The cgroup's folder; None where it is gone, or below none of the mounted hierarchies."""
        return cgroup_path(self.cgroup_id)

    @property
    def where(self) -> str:
        return f"{self.attach_type.name} of {self.path or f'cgroup {self.cgroup_id}'}"


@dataclass(frozen=True)
class IterLink(LinkInfo):
    """An iterator over each ``target`` ("task"), of which what is not None is the only one."""

    target: str
    map_id: int | None
    cgroup_id: int | None
    order: CgroupIterOrder | None
    tid: int | None
    pid: int | None

    @property
    def where(self) -> str:
        return f"iterator over {self.target}"


@dataclass(frozen=True)
class NetnsLink(LinkInfo):
    """``netns_ino`` is the number in /proc/PID/ns/net; 0 once the namespace is gone."""

    netns_ino: int
    attach_type: AttachType

    @property
    def where(self) -> str:
        return f"{self.attach_type.name} of net:[{self.netns_ino}]"


@dataclass(frozen=True)
class DeviceLink(LinkInfo):
    """XDP, tcx and netkit programs; ``ifindex`` is 0 once the device is gone."""

    ifindex: int
    attach_type: AttachType

    @property
    def where(self) -> str:
        return f"{self.attach_type.name} of {device_name(self.ifindex)}"


@dataclass(frozen=True)
class StructOpsLink(LinkInfo):
    """``map_id`` is 0 once the struct_ops map is unregistered."""

    map_id: int

    @property
    def where(self) -> str:
        return f"struct_ops map {self.map_id}"


@dataclass(frozen=True)
class SockmapLink(LinkInfo):
    map_id: int
    attach_type: AttachType

    @property
    def where(self) -> str:
        return f"{self.attach_type.name} of map {self.map_id}"


@dataclass(frozen=True)
class NetfilterLink(LinkInfo):
    """``family`` is NFPROTO_IPV4 (2) or _IPV6 (10), ``hook`` NF_INET_PRE_ROUTING (0) and so on."""

    family: int
    hook: int
    priority: int
    flags: int

    @property
    def where(self) -> str:
        family = {2: "ip", 10: "ip6"}.get(self.family, str(self.family))
        hooks = ("prerouting", "input", "forward", "output", "postrouting")
        hook = hooks[self.hook] if self.hook < len(hooks) else str(self.hook)
        return f"netfilter {family} {hook} priority {self.priority}"


@dataclass(frozen=True)
class KprobeMultiLink(LinkInfo):
    """``addresses`` are zeros for who may not see kernel addresses (kernel.kptr_restrict)."""

    is_return: bool
    addresses: tuple[int, ...]
    cookies: tuple[int, ...]
    missed: int

    @property
    def where(self) -> str:
        return f"{_probe('kprobe', self.is_return)} of {len(self.addresses)} functions"


@dataclass(frozen=True)
class UprobeMultiLink(LinkInfo):
    """``offsets`` are those in the file; ``pid`` is None where all processes are meant."""

    is_return: bool
    path: str
    offsets: tuple[int, ...]
    ref_counter_offsets: tuple[int, ...]
    cookies: tuple[int, ...]
    pid: int | None

    @property
    def where(self) -> str:
        return f"{_probe('uprobe', self.is_return)} at {len(self.offsets)} places of {self.path}"


@dataclass(frozen=True)
class KprobeLink(LinkInfo):
    is_return: bool
    function: str
    offset: int
    address: int
    missed: int
    cookie: int

    @property
    def where(self) -> str:
        function = self.function or hex(self.address)
        return f"{_probe('kprobe', self.is_return)} {function}+{self.offset:#x}"


@dataclass(frozen=True)
class UprobeLink(LinkInfo):
    is_return: bool
    path: str
    offset: int
    cookie: int
    ref_counter_offset: int

    @property
    def where(self) -> str:
        return f"{_probe('uprobe', self.is_return)} {self.path}+{self.offset:#x}"


@dataclass(frozen=True)
class TracepointLink(LinkInfo):
    name: str
    cookie: int

    @property
    def where(self) -> str:
        return f"tracepoint {self.name}"


@dataclass(frozen=True)
class PerfEventLink(LinkInfo):
    """``event_type`` and ``config`` are those of ``struct perf_event_attr``."""

    event_type: int
    config: int
    cookie: int

    @property
    def where(self) -> str:
        return f"perf event {self.event_type}:{self.config:#x}"


def link_info(fd: int) -> LinkInfo:
    """What the kernel tells of a link's fd."""
    raw = _ask(fd)
    kind, id, program_id = struct.unpack_from("=III", raw)
    known = _KINDS.get(kind)
    head = id, LinkType(kind), program_id
    return known(fd, raw, head) if known else LinkInfo(*head)


def cgroup_path(id: int) -> str | None:
    """The folder of the cgroup with that id; None where there is none."""
    for root in mount_points("cgroup2"):
        for folder, _, _ in os.walk(root):
            try:
                if os.stat(folder).st_ino == id:
                    return folder
            except OSError:
                continue  # removed meanwhile
    return None


def device_name(ifindex: int) -> str:
    """Its name in this thread's network namespace, or its number."""
    import socket

    try:
        return socket.if_indextoname(ifindex)
    except OSError:
        return f"device {ifindex}"


# ---- reading -------------------------------------------------------------------------------------


def _probe(what: str, is_return: bool) -> str:
    return what.replace("probe", "retprobe") if is_return else what


def _ask(fd: int, format: str = "", *values: int) -> bytes:
    """``struct bpf_link_info``, with what its kind takes filled in before."""
    memory = ffi.new("char[]", _SIZE)
    struct.pack_into("=" + format, ffi.buffer(memory), _OF_KIND, *values)
    size = ffi.new("uint32_t *", _SIZE)
    _native.check(lib.bpf_obj_get_info_by_fd(fd, memory, size), "get information", f"of fd {fd}")
    return bytes(ffi.buffer(memory))


def _fields(raw: bytes, format: str) -> tuple[Any, ...]:
    return struct.unpack_from("=" + format, raw, _OF_KIND)


def _address(memory: Any) -> int:
    return int(ffi.cast("uintptr_t", memory))


def _raw_tracepoint(fd: int, raw: bytes, head: _Head) -> LinkInfo:
    name = ffi.new("char[]", _TEXT)
    *_, cookie = _fields(_ask(fd, "QI", _address(name), _TEXT), "QI4xQ")
    return RawTracepointLink(*head, _native.text(name), cookie)


def _tracing(fd: int, raw: bytes, head: _Head) -> LinkInfo:
    attach_type, target, type_id, cookie = _fields(raw, "III4xQ")
    return TracingLink(*head, AttachType(attach_type), target, type_id, cookie)


def _cgroup(fd: int, raw: bytes, head: _Head) -> LinkInfo:
    id, attach_type = _fields(raw, "QI")
    return CgroupLink(*head, id, AttachType(attach_type))


def _iter(fd: int, raw: bytes, head: _Head) -> LinkInfo:
    memory = ffi.new("char[]", _TEXT)
    _, _, map_id, first, second = _fields(_ask(fd, "QI", _address(memory), _TEXT), "QIIQI")
    target = _native.text(memory)
    is_cgroup, is_task = target == "cgroup", target.startswith("task")
    tid, pid = first & 0xFFFFFFFF, first >> 32
    return IterLink(
        *head,
        target,
        map_id or None,
        first if is_cgroup else None,
        CgroupIterOrder(second) if is_cgroup else None,
        tid or None if is_task else None,
        pid or None if is_task else None,
    )


def _netns(fd: int, raw: bytes, head: _Head) -> LinkInfo:
    number, attach_type = _fields(raw, "II")
    return NetnsLink(*head, number, AttachType(attach_type))


def _xdp(fd: int, raw: bytes, head: _Head) -> LinkInfo:
    (ifindex,) = _fields(raw, "I")
    return DeviceLink(*head, ifindex, AttachType.XDP)


def _device(fd: int, raw: bytes, head: _Head) -> LinkInfo:
    ifindex, attach_type = _fields(raw, "II")
    return DeviceLink(*head, ifindex, AttachType(attach_type))


def _struct_ops(fd: int, raw: bytes, head: _Head) -> LinkInfo:
    return StructOpsLink(*head, *_fields(raw, "I"))


def _sockmap(fd: int, raw: bytes, head: _Head) -> LinkInfo:
    map_id, attach_type = _fields(raw, "II")
    return SockmapLink(*head, map_id, AttachType(attach_type))


def _netfilter(fd: int, raw: bytes, head: _Head) -> LinkInfo:
    return NetfilterLink(*head, *_fields(raw, "IIiI"))


def _kprobe_multi(fd: int, raw: bytes, head: _Head) -> LinkInfo:
    _, count, flags, missed, _ = _fields(raw, "QIIQQ")
    addresses, cookies = ffi.new("uint64_t[]", count), ffi.new("uint64_t[]", count)
    _ask(fd, "QIIQQ", _address(addresses), count, 0, 0, _address(cookies))
    return KprobeMultiLink(
        *head, bool(flags & _IS_RETURN), tuple(addresses), tuple(cookies), missed
    )


def _uprobe_multi(fd: int, raw: bytes, head: _Head) -> LinkInfo:
    *_, count, flags, pid = _fields(raw, "QQQQIIII")
    path = ffi.new("char[]", _TEXT)
    arrays = [ffi.new("uint64_t[]", count) for _ in range(3)]
    _ask(fd, "QQQQII", _address(path), *map(_address, arrays), _TEXT, count)
    offsets, ref_counters, cookies = map(tuple, arrays)
    is_return = bool(flags & _IS_RETURN)
    text = _native.text(path)
    return UprobeMultiLink(*head, is_return, text, offsets, ref_counters, cookies, pid or None)


def _perf_event(fd: int, raw: bytes, head: _Head) -> LinkInfo:
    text = ffi.new("char[]", _TEXT)
    raw = _ask(fd, "8xQI", _address(text), _TEXT)
    (kind,) = _fields(raw, "I")
    if kind in (1, 2):  # BPF_PERF_EVENT_UPROBE, _URETPROBE
        offset, cookie, ref_counter = _fields(raw, "8xQIIQQ")[2:]
        return UprobeLink(*head, kind == 2, _native.text(text), offset, cookie, ref_counter)
    if kind in (3, 4):  # BPF_PERF_EVENT_KPROBE, _KRETPROBE
        offset, address, missed, cookie = _fields(raw, "8xQIIQQQ")[2:]
        return KprobeLink(*head, kind == 4, _native.text(text), offset, address, missed, cookie)
    if kind == 5:  # BPF_PERF_EVENT_TRACEPOINT
        *_, cookie = _fields(raw, "8xQI4xQ")
        return TracepointLink(*head, _native.text(text), cookie)
    if kind == 6:  # BPF_PERF_EVENT_EVENT
        config, event_type, cookie = _fields(raw, "8xQI4xQ")
        return PerfEventLink(*head, event_type, config, cookie)
    return LinkInfo(*head)  # before Linux 6.6


_KINDS: dict[int, Callable[[int, bytes, _Head], LinkInfo]] = {
    LinkType.RAW_TRACEPOINT: _raw_tracepoint,
    LinkType.TRACING: _tracing,
    LinkType.CGROUP: _cgroup,
    LinkType.ITER: _iter,
    LinkType.NETNS: _netns,
    LinkType.XDP: _xdp,
    LinkType.PERF_EVENT: _perf_event,
    LinkType.KPROBE_MULTI: _kprobe_multi,
    LinkType.STRUCT_OPS: _struct_ops,
    LinkType.NETFILTER: _netfilter,
    LinkType.TCX: _device,
    LinkType.UPROBE_MULTI: _uprobe_multi,
    LinkType.NETKIT: _device,
    LinkType.SOCKMAP: _sockmap,
}
