# SPDX-License-Identifier: BSD-2-Clause
"""Network devices and namespaces, by links: XDP, tcx, netkit, netfilter, sk_lookup ..."""

from __future__ import annotations

import errno
import os
import socket

from pybpf import features
from pybpf.constants import AttachType, XdpMode
from pybpf.errors import AttachError, NotFoundError
from pybpf.hooks import linking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

    from pybpf.features import Feature
    from pybpf.holds import Hold

_TCX = {"ingress": AttachType.TCX_INGRESS, "egress": AttachType.TCX_EGRESS}
_NETKIT = {"primary": AttachType.NETKIT_PRIMARY, "peer": AttachType.NETKIT_PEER}
# what an errno says of a place among others, or of a device that is no netkit
_ORDER_HINTS = {
    errno.ESTALE: "programs came or went there since that revision; query it again",
    errno.ENOENT: "what it should come before or after is not attached there",
    errno.EEXIST: "the program is attached there already",
    errno.ERANGE: "as many programs as the kernel allows, 64, are attached there already",
    errno.ENXIO: "the device is no netkit",
    errno.EACCES: "both ends are given by the primary one of the pair",
}
_NETNS_FOLDER = "/run/netns"  # of ip netns
_NETFILTER_HINTS = {
    errno.EAFNOSUPPORT: "families are NFPROTO_IPV4 (2, AF_INET) and NFPROTO_IPV6 (10, AF_INET6)",
    errno.ERANGE: "defragmenting needs a priority above -400, NF_IP_PRI_CONNTRACK_DEFRAG",
    errno.EBUSY: "another BPF program has that hook and priority",
}
_NETNS_HINTS = {
    errno.E2BIG: "another flow dissector, or 64 programs of sk_lookup, are attached there already",
    errno.EEXIST: "a flow dissector is attached to the initial namespace, for all",
}
# what an errno says of attaching XDP programs
XDP_HINTS = {
    errno.EBUSY: "another program is attached there; pybpf.query_device() tells which",
    errno.EEXIST: "another program is attached there, not the expected one, or in another mode",
    errno.EOPNOTSUPP: "the device does not run XDP programs in this mode",
    errno.EINVAL: "the program is of another type, or loaded for a card (ifindex) and not by HW, "
    "or the reverse",
    errno.ERANGE: "the MTU is too large for programs that do not take packets in parts (xdp.frags)",
}


def device_number(device: str | int) -> int:
    """The number of a device of this thread's network namespace; NotFoundError without one."""
    known = {name: number for number, name in socket.if_nameindex()}
    if isinstance(device, int) and device in known.values():
        return device
    if device not in known:
        raise NotFoundError("network device", str(device), known)
    return known[str(device)]


def one_of(choices: Mapping[str, int], given: str) -> int:
    """What ``given`` stands for; ValueError with the choices otherwise."""
    if given not in choices:
        raise ValueError(f"{' or '.join(map(repr, choices))}, not {given!r}")
    return choices[given]


def attach_xdp(what: str, program_fd: int, device: str | int, mode: XdpMode) -> Hold:
    refuse = linking.refusal(features.XDP_LINK, hint=linking.hints(XDP_HINTS))
    return linking.create(
        what, refuse, program_fd, AttachType.XDP, device_number(device), flags=mode
    )


def attach_tcx(
    what: str, program_fd: int, device: str | int, direction: str, place: linking.Place
) -> Hold:
    attach_type = one_of(_TCX, direction)
    return _attach_in_order(features.TCX, attach_type, what, program_fd, device, place)


def attach_netkit(
    what: str, program_fd: int, device: str | int, end: str, place: linking.Place
) -> Hold:
    attach_type = one_of(_NETKIT, end)
    return _attach_in_order(features.NETKIT, attach_type, what, program_fd, device, place)


def _attach_in_order(
    feature: Feature,
    attach_type: int,
    what: str,
    program_fd: int,
    device: str | int,
    place: linking.Place,
) -> Hold:
    refuse = linking.refusal(feature, hint=linking.hints(_ORDER_HINTS))
    flags, order = place
    number = device_number(device)
    return linking.create(what, refuse, program_fd, attach_type, number, flags, order=order)


def attach_netfilter(
    what: str, program_fd: int, family: int, hook: int, priority: int, defrag: bool
) -> Hold:
    feature = features.DEFRAG if defrag else ()  # kernels without such programs load none
    refuse = linking.refusal(feature, hint=linking.hints(_NETFILTER_HINTS))
    request = {"pf": family, "hook": hook, "priority": priority, "flags": int(defrag)}
    return linking.create(
        what, refuse, program_fd, AttachType.NETFILTER, target=0, netfilter=request
    )


def attach_netns(
    what: str, program_fd: int, netns: str | os.PathLike[str] | int | None, attach_type: int
) -> Hold:
    refuse = linking.refusal(hint=linking.hints(_NETNS_HINTS))
    with open_netns(netns) as target:
        return linking.create(what, refuse, program_fd, attach_type, target.fileno())


def open_netns(netns: str | os.PathLike[str] | int | None) -> BinaryIO:
    """A network namespace by path, process or name of ``ip netns``; None: this thread's.

    NotFoundError where there is no such process or name.
    """
    path = _netns_path(netns)
    try:
        return open(path, "rb", buffering=0)
    except FileNotFoundError:
        raise NotFoundError("network namespace", str(netns), _netns_names()) from None
    except OSError as error:
        hint = "other users' processes take CAP_SYS_PTRACE to look at"
        raise AttachError("open", path, error.errno or 0, hint=hint) from None


def _netns_path(netns: str | os.PathLike[str] | int | None) -> str:
    if netns is None:
        return "/proc/thread-self/ns/net"
    if isinstance(netns, int):
        return f"/proc/{netns}/ns/net"
    path = os.fspath(netns)
    return path if "/" in path else os.path.join(_NETNS_FOLDER, path)


def _netns_names() -> list[str]:
    try:
        return sorted(os.listdir(_NETNS_FOLDER))
    except FileNotFoundError:
        return []
