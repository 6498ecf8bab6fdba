# SPDX-License-Identifier: BSD-2-Clause
"""Signals that end the command as tidily as Ctrl-C does, with an exit status of their own."""

from __future__ import annotations

import signal

from pybpf.cli.output import INTERRUPTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType


class Stopped(KeyboardInterrupt):
    """Somebody asked the command to end, and not by Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


def status_of_interrupt(interrupt: KeyboardInterrupt) -> int:
    """The exit status of a command that Ctrl-C or another signal has ended."""
    return interrupt.status if isinstance(interrupt, Stopped) else INTERRUPTED


def raise_when_stopped() -> None:
    """Have SIGTERM and SIGHUP raise Stopped, unless they are ignored, as nohup does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # timeout(1) sends it twice: the tidying goes on
    raise Stopped(number)
