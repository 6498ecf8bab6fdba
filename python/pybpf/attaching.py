# SPDX-License-Identifier: BSD-2-Clause
"""How programs attach: a method for each hook, whose work is done by a module of pybpf.hooks."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pybpf.constants import XdpMode
    from pybpf.holds import Hold
    from pybpf.link import Link


class DescriptorHooks:
    """The hooks that take a program's descriptor: of any program that the kernel holds."""

    def _attached(self, where: str, attach: Callable[[str, int], Hold]) -> Link:
        """The link of what ``attach(what is attempted, the program's descriptor)`` holds."""
        raise NotImplementedError

    def attach_xdp(self, device: str | int, *, mode: XdpMode | None = None) -> Link:
        """Run on every packet that ``device``, by name or number, receives; NotFoundError without.

        ``mode`` asks for the generic one of the kernel (SKB), the driver's (DRV) or the card's
        (HW), and is the driver's, or else the generic one, unless given.  Linux 5.9; CAP_NET_ADMIN.
        """
        from pybpf.constants import XdpMode
        from pybpf.hooks import network

        chosen = XdpMode.ANY if mode is None else mode
        return self._attached(
            f"XDP of {device}", lambda what, fd: network.attach_xdp(what, fd, device, chosen)
        )
