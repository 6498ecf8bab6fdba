# SPDX-License-Identifier: BSD-2-Clause
"""What is attached to devices, network namespaces and sockmaps, by whomever."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from pybpf import _native, features
from pybpf._native import ffi, lib
from pybpf.constants import AttachType, XdpMode
from pybpf.errors import KernelError
from pybpf.hooks import linking, querying, rtnetlink
from pybpf.hooks.netlink import ClsactFilter
from pybpf.hooks.network import device_number, open_netns
from pybpf.hooks.querying import Attached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.map import Map

_NOTHING = Attached((), None, 0)
# TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS), and the same for egress
_PARENTS = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
# this kernel lacks the hook, or the device is of another kind (or the peer, which is not to tell)
_NO_SUCH_HOOK = (errno.EINVAL, errno.ENXIO, errno.EACCES, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class XdpProgram:
    """An XDP program of a device, and where it runs: SKB, DRV or HW."""

    mode: XdpMode
    program_id: int


@dataclass(frozen=True)
class DeviceHooks:
    """What is attached to a device, each in the order in which it runs."""

    ifindex: int
    xdp: tuple[XdpProgram, ...]
    tcx_ingress: Attached
    tcx_egress: Attached
    clsact_ingress: tuple[ClsactFilter, ...]
    clsact_egress: tuple[ClsactFilter, ...]
    netkit_primary: Attached
    netkit_peer: Attached


@dataclass(frozen=True)
class NetnsHooks:
    """What is attached to a network namespace; ``ino`` is the number in /proc/PID/ns/net."""

    ino: int
    sk_lookup: Attached
    flow_dissector: Attached


@dataclass(frozen=True)
class SockmapHooks:
    """What the sockets get that come into a sockmap now."""

    sk_msg_verdict: Attached
    sk_skb_verdict: Attached
    sk_skb_stream_verdict: Attached
    sk_skb_stream_parser: Attached


def query_device(device: str | int) -> DeviceHooks:
    """What is attached to ``device``, by name or number, in this thread's network namespace.

    What this kernel or the device lacks is empty.  Programs are given by their ids:
    ``Program.from_id(id)`` opens one.  NotFoundError without such a device.  Needs
    CAP_NET_ADMIN.
    """
    ifindex = device_number(device)
    return DeviceHooks(
        ifindex,
        xdp=_xdp_programs(ifindex),
        tcx_ingress=_at_device(ifindex, AttachType.TCX_INGRESS),
        tcx_egress=_at_device(ifindex, AttachType.TCX_EGRESS),
        clsact_ingress=_filters(ifindex, "ingress"),
        clsact_egress=_filters(ifindex, "egress"),
        netkit_primary=_at_device(ifindex, AttachType.NETKIT_PRIMARY),
        netkit_peer=_at_device(ifindex, AttachType.NETKIT_PEER),
    )


def query_netns(netns: str | os.PathLike[str] | int | None = None) -> NetnsHooks:
    """What is attached to a network namespace, by path, process id or name; None: this thread's.

    NotFoundError without such a process or name.  Needs CAP_NET_ADMIN, there too.
    """
    with open_netns(netns) as file:
        fd = file.fileno()
        return NetnsHooks(
            os.fstat(fd).st_ino,
            sk_lookup=querying.query(fd, AttachType.SK_LOOKUP),
            flow_dissector=querying.query(fd, AttachType.FLOW_DISSECTOR),
        )


def query_sockmap(map: Map) -> SockmapHooks:
    """What is attached to a map of type SOCKMAP or SOCKHASH.

    KernelError for others.  Linux 5.18, NotSupportedError before; needs CAP_NET_ADMIN.
    """
    with map._borrow_fd() as fd:
        try:
            return SockmapHooks(
                sk_msg_verdict=querying.query(fd, AttachType.SK_MSG_VERDICT),
                sk_skb_verdict=querying.query(fd, AttachType.SK_SKB_VERDICT),
                sk_skb_stream_verdict=querying.query(fd, AttachType.SK_SKB_STREAM_VERDICT),
                sk_skb_stream_parser=querying.query(fd, AttachType.SK_SKB_STREAM_PARSER),
            )
        except KernelError as error:
            refuse = linking.refusal(features.SOCKMAP_QUERY)
            what = f"what is attached to map {map.name!r}"
            raise refuse("ask", what, error.errno or 0, "", "") from None


def _xdp_programs(ifindex: int) -> tuple[XdpProgram, ...]:
    found = ffi.new("struct pybpf_xdp_programs *")
    _native.listen()
    code = lib.pybpf_xdp_query(ifindex, found)
    _native.check(code, "ask", f"for XDP programs of device {ifindex}")
    by_mode = {XdpMode.DRV: found.driver, XdpMode.HW: found.card, XdpMode.SKB: found.generic}
    return tuple(XdpProgram(mode, int(id)) for mode, id in by_mode.items() if id)


def _at_device(ifindex: int, hook: AttachType) -> Attached:
    try:
        return querying.query(ifindex, hook)
    except KernelError as error:
        if error.errno in _NO_SUCH_HOOK:
            return _NOTHING
        raise


def _filters(ifindex: int, direction: str) -> tuple[ClsactFilter, ...]:
    try:
        found = rtnetlink.bpf_filters(ifindex, _PARENTS[direction])
    except OSError as error:
        what = f"for filters of device {ifindex}"
        raise KernelError("ask", what, error.errno or 0) from None
    return tuple(ClsactFilter(ifindex, direction, *each) for each in found)
