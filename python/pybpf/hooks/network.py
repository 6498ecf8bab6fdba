# SPDX-License-Identifier: BSD-2-Clause
"""Network devices: XDP, tcx, netkit and traffic control's clsact."""

from __future__ import annotations

import socket

from pybpf import features
from pybpf.constants import AttachType, XdpMode
from pybpf.errors import NotFoundError
from pybpf.hooks import linking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.holds import Hold


def device_number(device: str | int) -> int:
    """The number of a device of this thread's network namespace; NotFoundError without one."""
    if isinstance(device, int):
        return device
    known = {name: number for number, name in socket.if_nameindex()}
    if device not in known:
        raise NotFoundError("network device", device, known)
    return known[device]


def attach_xdp(what: str, program_fd: int, device: str | int, mode: XdpMode) -> Hold:
    refuse = linking.refusal(features.XDP_LINK)
    return linking.create(
        what, refuse, program_fd, AttachType.XDP, device_number(device), flags=mode
    )
