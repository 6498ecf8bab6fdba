# SPDX-License-Identifier: BSD-2-Clause
"""What became of the records that programs wrote."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReaderStats:
    """What a reader did, since it was made.

    ``received`` is how many records were taken out of the rings, and ``bytes`` their size, less
    what the kernel puts around each.  ``batches`` is how often there was something, after nothing
    or one call before; ``wakeups`` how often a wait ended because there was something.

    ``lost`` is how many records found no room, as far as somebody counts them: the kernel for perf
    event arrays, programs for ring buffers where they use ``pybpf/events.bpf.h``.  ``counts_lost``
    is whether that is so for all of the reader's maps, and so ``lost`` is all.

    ``backlog`` is how many bytes wait in the rings now, with what the kernel puts around records;
    ``backlog_highest`` the most bytes that one ring held when the reader looked.
    """

    received: int
    bytes: int
    batches: int
    wakeups: int
    lost: int
    counts_lost: bool
    backlog: int
    backlog_highest: int
