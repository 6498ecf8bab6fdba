# SPDX-License-Identifier: BSD-2-Clause
"""Network devices, without links: XDP, and filters of clsact."""

from __future__ import annotations

import errno
import os
from contextlib import nullcontext
from dataclasses import dataclass

from pybpf import _native
from pybpf._native import ffi, lib
from pybpf.holds import FdHold, Hold
from pybpf.hooks import linking
from pybpf.hooks.network import XDP_HINTS, device_number, one_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf.constants import XdpMode
    from pybpf.program import Program

# enum bpf_tc_attach_point
_ATTACH_POINT = {"ingress": 1, "egress": 2}
_DIRECTION = {point: direction for direction, point in _ATTACH_POINT.items()}
# the device, its clsact or the filter is gone, or another program has taken its place
_FILTER_GONE = (errno.ENODEV, errno.EINVAL, errno.ENOENT, errno.EEXIST)
_XDP_GONE = (errno.ENODEV, errno.EEXIST, errno.EBUSY)
_FILTER_HINTS = {
    errno.EEXIST: "another has that priority and handle; replace=True puts this one in its place",
}
_ONLY_IF_NONE = 1  # XDP_FLAGS_UPDATE_IF_NOEXIST


@dataclass(frozen=True)
class ClsactFilter:
    """A tc program that is attached to a device as a filter of its clsact.

    Of a direction the lowest ``priority`` runs first, and of a priority the newest; these have
    different handles.
    """

    ifindex: int
    direction: str
    priority: int
    handle: int
    program_id: int


class NetlinkHold(Hold):
    """What C attached by netlink, as noted at ``place``, in this thread's network namespace."""

    is_updatable = True

    def __init__(self, what: str, place: Any) -> None:
        super().__init__()
        self.place = place
        self._what = what
        self._netns = own_netns()
        place.netns = self._netns.fileno()

    def detach(self) -> int:
        return 0  # _end() does; there is nobody else who holds it

    def _end(self) -> None:
        if self.place.attached:
            _native.listen()
            self._undo()

    def _undo(self) -> None:
        raise NotImplementedError


class ClsactHold(NetlinkHold):
    @property
    def filter(self) -> ClsactFilter:
        raw = self.place
        direction = _DIRECTION[raw.attach_point]
        return ClsactFilter(raw.ifindex, direction, raw.priority, raw.handle, raw.program_id)

    def update(self, new_fd: int, old_fd: int) -> int:
        return int(lib.pybpf_tc_update(self.place, new_fd, old_fd))

    def _undo(self) -> None:
        require_undone(lib.pybpf_tc_detach(self.place), self._what, _FILTER_GONE)


class XdpHold(NetlinkHold):
    def __init__(self, what: str, place: Any, program_fd: int) -> None:
        super().__init__(what, place)
        # to be named when it is detached, when the caller's own may be closed
        self._program = FdHold(os.dup(program_fd))
        place.program_fd = self._program.fileno()

    def update(self, new_fd: int, old_fd: int) -> int:
        return int(lib.pybpf_xdp_update(self.place, new_fd, old_fd))

    def _undo(self) -> None:
        require_undone(lib.pybpf_xdp_detach(self.place), self._what, _XDP_GONE)


def own_netns() -> FdHold:
    """The network namespace that this thread is in."""
    return FdHold(os.open("/proc/thread-self/ns/net", os.O_RDONLY))


def require_undone(code: int, what: str, gone: tuple[int, ...]) -> None:
    """Raise where detaching failed, unless that was in vain."""
    if -code in gone:
        _native.take_log(drop=("",))  # libbpf warns of what is no trouble here
    else:
        _native.check(code, "detach", what, linking.refusal())


# ---- XDP -----------------------------------------------------------------------------------------


def attach_xdp(
    what: str,
    program_fd: int,
    device: str | int,
    mode: XdpMode,
    expected: Program | None,
    replace: bool,
) -> Hold:
    flags = mode if replace or expected else mode | _ONLY_IF_NONE
    place = ffi.new("struct pybpf_xdp *", {"ifindex": device_number(device), "flags": flags})
    hold = XdpHold(what, place, program_fd)
    with expected._borrow_fd() if expected else nullcontext(0) as expected_fd:
        place.expected_fd = expected_fd
        _native.listen()
        code = lib.pybpf_xdp_attach(place)
        _native.check(code, "attach", what, linking.refusal(hint=linking.hints(XDP_HINTS)))
    return hold


def detach_xdp(
    device: str | int, *, mode: XdpMode | None = None, expected: Program | None = None
) -> None:
    """Detach what XDP program is attached to ``device``, by name or number, without a link.

    In the ``mode`` that it was attached in; with ``expected``, only if it is that program.  It may
    be another process's.  Does nothing where none is attached.  NotFoundError without such a
    device; AttachError (EBUSY) where it is attached by a link, (EEXIST) where it is not
    ``expected``.  Needs CAP_NET_ADMIN.
    """
    netns = own_netns()
    request = {"netns": netns.fileno(), "ifindex": device_number(device), "flags": mode or 0}
    place = ffi.new("struct pybpf_xdp *", request)
    with expected._borrow_fd() if expected else nullcontext(0) as expected_fd:
        place.program_fd = expected_fd
        _native.listen()
        code = lib.pybpf_xdp_detach(place)
        _native.check(code, "detach", f"XDP of {device}", linking.refusal())


# ---- clsact --------------------------------------------------------------------------------------


def attach_clsact(
    what: str, program_fd: int, device: str | int, direction: str, **chosen: int
) -> ClsactHold:
    """``chosen``: priority, handle and replace."""
    attach_point = one_of(_ATTACH_POINT, direction)
    ifindex = device_number(device)
    create_clsact(ifindex)
    request = {"program_fd": program_fd, "ifindex": ifindex, "attach_point": attach_point}
    place = ffi.new("struct pybpf_tc_filter *", request | chosen)
    hold = ClsactHold(what, place)
    _native.listen()
    code = lib.pybpf_tc_attach(hold.place)
    _native.check(code, "attach", what, linking.refusal(hint=linking.hints(_FILTER_HINTS)))
    return hold


def create_clsact(device: str | int) -> None:
    """Give ``device``, by name or number, the qdisc clsact, to which filters attach.

    attach_clsact() does so as well.  Does nothing where it is there.  NotFoundError without such a
    device.  Needs CAP_NET_ADMIN.
    """
    _native.listen()
    code = lib.pybpf_clsact_create(device_number(device))
    if code == -errno.EEXIST:
        _native.take_log(drop=("",))  # libbpf warns of what is no trouble here
    else:
        _native.check(code, "create", f"clsact of {device}", linking.refusal())


def destroy_clsact(device: str | int) -> None:
    """Take the qdisc clsact from ``device``, by name or number, with all filters of everybody.

    Links to these filters have nothing to detach any more.  Does nothing where there is none.
    NotFoundError without such a device.  Needs CAP_NET_ADMIN.
    """
    _native.listen()
    code = lib.pybpf_clsact_destroy(device_number(device))
    require_undone(code, f"clsact of {device}", (errno.ENOENT, errno.EINVAL))
