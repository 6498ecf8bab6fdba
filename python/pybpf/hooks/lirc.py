# SPDX-License-Identifier: BSD-2-Clause
"""Receivers of infrared remote controls, /dev/lirc*."""

from __future__ import annotations

import errno
import os

from pybpf import features
from pybpf.constants import AttachType
from pybpf.errors import AttachError
from pybpf.hooks import linking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.holds import Hold


def attach(what: str, program_fd: int, device: str | os.PathLike[str]) -> Hold:
    linking.require(features.LIRC, what)
    try:
        fd = os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        hint = f"{os.fspath(device)} cannot be opened for reading and writing"
        raise AttachError("attach", what, error.errno or errno.EIO, hint=hint) from None
    try:
        refuse = linking.refusal(features.LIRC)
        return linking.attach_without_link(what, refuse, program_fd, AttachType.LIRC_MODE2, fd)
    finally:
        os.close(fd)
