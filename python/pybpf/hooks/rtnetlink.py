# SPDX-License-Identifier: BSD-2-Clause
"""The filters of a device, as the kernel lists them by netlink; libbpf asks for known ones only."""

from __future__ import annotations

import os
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_MESSAGE = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_FILTER = struct.Struct("=BxxxiIII")  # struct tcmsg: family, ifindex, handle, parent, info
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_ERROR, _ID = struct.Struct("=i"), struct.Struct("=I")
_NEW_FILTER, _GET_FILTER = 44, 46  # RTM_*
_REQUEST, _INTERRUPTED, _DUMP = 0x1, 0x10, 0x300  # NLM_F_*
_IS_ERROR, _IS_DONE = 2, 3  # NLMSG_*
_KIND, _OPTIONS, _BPF_ID = 1, 2, 11  # TCA_KIND, TCA_OPTIONS, TCA_BPF_ID
_TYPE_MASK = 0x3FFF  # without NLA_F_*
_BUFFER = 1 << 16


def bpf_filters(ifindex: int, parent: int) -> list[tuple[int, int, int]]:
    """(priority, handle, program id) of a device's BPF filters below ``parent``, as they run.

    OSError where the kernel refuses.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        while True:
            request = _FILTER.pack(0, ifindex, 0, parent, 0)
            size = _MESSAGE.size + len(request)
            header = _MESSAGE.pack(size, _GET_FILTER, _REQUEST | _DUMP, 1, 0)
            netlink.send(header + request)
            found, is_whole = _read_dump(netlink)
            if is_whole:
                return found


def _read_dump(netlink: socket.socket) -> tuple[list[tuple[int, int, int]], bool]:
    """The filters, and whether they were the same to the end."""
    found: list[tuple[int, int, int]] = []
    is_whole = True
    while True:
        for kind, flags, body in _messages(netlink.recv(_BUFFER)):
            is_whole = is_whole and not flags & _INTERRUPTED
            if kind == _IS_DONE:
                return found, is_whole
            if kind == _IS_ERROR:
                (code,) = _ERROR.unpack_from(body)
                raise OSError(-code, os.strerror(-code))
            if kind == _NEW_FILTER:
                found += _bpf_filter(body)


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    offset = 0
    while offset < len(data):
        length, kind, flags, _, _ = _MESSAGE.unpack_from(data, offset)
        yield kind, flags, data[offset + _MESSAGE.size : offset + length]
        offset += _aligned(length)


def _bpf_filter(body: bytes) -> list[tuple[int, int, int]]:
    """One, or none where it is of another kind, or stands for a priority alone."""
    _, _, handle, _, info = _FILTER.unpack_from(body)
    attributes = dict(_attributes(body[_FILTER.size :]))
    options = dict(_attributes(attributes.get(_OPTIONS, b"")))
    if attributes.get(_KIND) != b"bpf\0" or _BPF_ID not in options:
        return []
    return [(info >> 16, handle, _ID.unpack(options[_BPF_ID])[0])]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        yield kind & _TYPE_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += _aligned(length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
