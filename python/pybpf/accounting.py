# SPDX-License-Identifier: BSD-2-Clause
"""What became of the records that programs wrote."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReaderStats:
    """What a reader did, since it was made."""

    received: int
    """Records that were taken out of the rings."""
    bytes: int
    """The size of those, less what the kernel puts around them."""
    batches: int
    """How often there was something, after nothing or one call before."""
    wakeups: int
    """How often a wait ended because there was something."""
    lost: int
    """Records that found no room, as far as somebody counts them: the kernel for perf event arrays,
    programs for ring buffers where they use ``pybpf/events.bpf.h``."""
    counts_lost: bool
    """Whether that is so for all of the reader's maps, and so ``lost`` is all."""
    backlog: int
    """Bytes that wait in the rings now, with what the kernel puts around records."""
    backlog_highest: int
    """The most that one ring held when the reader looked."""
