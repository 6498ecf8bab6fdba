# SPDX-License-Identifier: BSD-2-Clause
"""Sockets: programs of sockmaps, socket filters and the choice in a group that shares a port."""

from __future__ import annotations

import errno
import os

from pybpf import _native, features
from pybpf._native import ffi, lib
from pybpf.constants import AttachType, ProgramType
from pybpf.errors import AttachError, NotSupportedError
from pybpf.holds import FdHold, Hold
from pybpf.hooks import linking

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

# <asm-generic/socket.h>: how to attach, and how to detach
FILTER = 50, 27  # SO_ATTACH_BPF, SO_DETACH_BPF
REUSEPORT = 52, 68  # SO_ATTACH_REUSEPORT_EBPF, SO_DETACH_REUSEPORT_BPF
_NO_SOCKMAP = "sk_skb and sk_msg programs attach to maps of type SOCKMAP and SOCKHASH"
_SOCKMAP_HINTS = {
    errno.EINVAL: _NO_SOCKMAP,
    errno.EOPNOTSUPP: _NO_SOCKMAP,
    errno.EBUSY: "a link is attached there: update or detach that",
}
_SOCKET_HINTS = {
    errno.EINVAL: "the program is of another type, or the socket does not share its port yet: "
    "set SO_REUSEPORT first",
    errno.EBADF: "the socket is closed",
}


class SockmapHold(Hold):
    """A program of a sockmap, before the kernel has links for these."""

    is_updatable = True

    def __init__(self, what: str, program_fd: int, map_fd: int, attach_type: int) -> None:
        super().__init__()
        self._what = what
        # which the caller may close before
        self._program, self._map = FdHold(os.dup(program_fd)), FdHold(os.dup(map_fd))
        self._is_attached = ffi.new("bool *")
        self._request = ffi.new(
            "struct pybpf_attach_request *",
            {
                "prog_fd": self._program.fileno(),
                "target": self._map.fileno(),
                "attach_type": attach_type,
            },
        )

    def attach(self) -> int:
        return int(lib.pybpf_prog_attach(self._request, self._is_attached))

    def detach(self) -> int:
        return 0  # _end() does; there is nobody else who holds it

    def update(self, new_fd: int, old_fd: int) -> int:
        if old_fd and _id(old_fd) != _id(self._program.fileno()):
            return -errno.EPERM
        return int(lib.pybpf_prog_replace(self._request, new_fd))

    def _end(self) -> None:
        if self._is_attached[0]:
            code = lib.pybpf_prog_detach(self._request)
            if code != -errno.ENOENT:  # another program has taken its place
                _native.check(code, "detach", self._what, linking.refusal())


class SocketHold(Hold):
    """A program of a socket, of which nobody can tell whether it is still the one."""

    is_updatable = True

    def __init__(self, sock: socket.socket, options: tuple[int, int]) -> None:
        super().__init__()
        self._socket = sock
        self._attach, self._detach = options
        self._is_attached = ffi.new("bool *")
        self._program_id = 0

    def attach(self, program_fd: int) -> int:
        code = lib.pybpf_socket_attach(
            self._socket.fileno(), self._attach, program_fd, self._is_attached
        )
        if code >= 0:
            self._program_id = _id(program_fd)
        return int(code)

    def detach(self) -> int:
        return 0  # _end() does; there is nobody else who holds it

    def update(self, new_fd: int, old_fd: int) -> int:
        if old_fd and _id(old_fd) != self._program_id:
            return -errno.EPERM
        return self.attach(new_fd)

    def _end(self) -> None:
        if not self._is_attached[0] or self._socket.fileno() < 0:
            return  # or it went with the socket
        try:
            self._socket.setsockopt(1, self._detach, 0)  # SOL_SOCKET
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise


def _id(program_fd: int) -> int:
    return int(_native.info(program_fd, "struct bpf_prog_info").id)


def attach_sockmap(what: str, program_fd: int, bpf_map: Any, hook: int) -> Hold:
    hint = linking.hints(_SOCKMAP_HINTS)
    with bpf_map._borrow_fd() as map_fd:
        try:
            refuse = linking.refusal(features.SOCKMAP_LINK, hint=hint)
            return linking.create(what, refuse, program_fd, hook, map_fd)
        except NotSupportedError:
            pass  # and an error from here on is no consequence of that one
        hold = SockmapHold(what, program_fd, map_fd, hook)
        _native.check(hold.attach(), "attach", what, linking.refusal(hint=hint))
        return hold


def sockmap_hook(what: str, type: ProgramType) -> AttachType:
    """Where programs of that type attach; AttachError where the type has several hooks."""
    if type != ProgramType.SK_SKB:
        return AttachType.SK_MSG_VERDICT
    hint = (
        "its section does not say, or the kernel does not tell, what it does: give "
        "hook=AttachType.SK_SKB_VERDICT, .SK_SKB_STREAM_VERDICT or .SK_SKB_STREAM_PARSER"
    )
    raise AttachError("attach", what, errno.EINVAL, hint=hint)


def attach_socket(
    what: str, program_fd: int, sock: socket.socket, options: tuple[int, int]
) -> Hold:
    hold = SocketHold(sock, options)
    refuse = linking.refusal(hint=linking.hints(_SOCKET_HINTS))
    _native.check(hold.attach(program_fd), "attach", what, refuse)
    return hold
