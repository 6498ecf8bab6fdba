# SPDX-License-Identifier: BSD-2-Clause
"""Perf events: what they count, and programs that run when they have counted so much."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from pybpf import features
from pybpf.constants import PerfCache, PerfCacheOp, PerfCacheResult, PerfHardware, PerfSoftware
from pybpf.errors import KernelError, NotSupportedError
from pybpf.holds import SeveralHolds
from pybpf.hooks import linking
from pybpf.hooks.events import ANY, NEEDED, attach
from pybpf.kernel import online_cpus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from pybpf.holds import Hold

_HARDWARE, _SOFTWARE, _CACHE, _RAW = 0, 1, 3, 4  # enum perf_type_id


@dataclass(frozen=True)
class PerfEvent:
    """Something that perf counts: ``type`` and ``config`` of ``struct perf_event_attr``.

    Made by hardware(), software(), cache() and raw(), or, for what /sys/bus/event_source/devices
    lists, with the number in the file ``type`` there.
    """

    type: int
    config: int

    @classmethod
    def hardware(cls, what: PerfHardware) -> PerfEvent:
        """What the processor counts, by a name that is common to many."""
        return cls(_HARDWARE, what)

    @classmethod
    def software(cls, what: PerfSoftware) -> PerfEvent:
        """What the kernel counts by itself; CPU_CLOCK is what profilers use in virtual machines."""
        return cls(_SOFTWARE, what)

    @classmethod
    def cache(
        cls,
        cache: PerfCache,
        operation: PerfCacheOp = PerfCacheOp.READ,
        result: PerfCacheResult = PerfCacheResult.MISS,
    ) -> PerfEvent:
        """What the processor counts of a cache of its own."""
        return cls(_CACHE, cache | operation << 8 | result << 16)

    @classmethod
    def raw(cls, config: int) -> PerfEvent:
        """A number of the processor's own, as its manual has it."""
        return cls(_RAW, config)

    def __str__(self) -> str:
        if self.type == _HARDWARE:
            return f"hardware event {PerfHardware(self.config).name}"
        if self.type == _SOFTWARE:
            return f"software event {PerfSoftware(self.config).name}"
        return f"event {self.config:#x} of type {self.type}"


def request(event: PerfEvent, frequency: int | None, period: int | None) -> dict[str, Any]:
    """What a ``struct pybpf_perf_request`` has of all processes; ValueError for neither or both."""
    if (frequency is None) == (period is None):
        raise ValueError("either frequency or period says how often the program runs")
    return {
        "type": event.type,
        "config": event.config,
        "sample": period if frequency is None else frequency,
        "is_frequency": frequency is not None,
        "pid": ANY,
    }


def place(cpu: int | None, pid: int | None, inherit: bool) -> dict[str, Any]:
    """What it has of where to count; ValueError where that is nowhere."""
    if cpu is None and pid is None:
        raise ValueError("cpu or pid says where it counts; attach_perf_events() takes all CPUs")
    return {
        "cpu": ANY if cpu is None else cpu,
        "pid": ANY if pid is None else pid,
        "inherit": inherit,
    }


def words_for(event: PerfEvent, cpu: int | None, pid: int | None) -> str:
    where = "" if cpu is None else f" on CPU {cpu}"
    return f"{event}{where}{'' if pid is None else f' of process {pid}'}"


def attach_perf_event(what: str, program_fd: int, request: dict[str, Any], cookie: int) -> Hold:
    explain = linking.refusal(features.PERF_LINK if cookie else (), NEEDED, _hint)

    def refuse(operation: str, target: str, number: int, detail: str, log: str) -> KernelError:
        if number in (errno.ENOENT, errno.EOPNOTSUPP):
            hint = "this machine does not count that, as virtual ones often do not, or cannot tell"
            return NotSupportedError(operation, target, number, detail, log, hint)
        return explain(operation, target, number, detail, log)

    return attach(what, program_fd, request, cookie, refuse)


def _hint(number: int) -> str:
    if number == errno.EINVAL:
        return (
            "the program is no perf_event program, or there is no such event, or the frequency is "
            "above that in /proc/sys/kernel/perf_event_max_sample_rate"
        )
    if number in (errno.ENODEV, errno.ENXIO):
        return "that CPU is offline, or there is none"
    if number == errno.ESRCH:
        return "there is no such process"
    return ""


def attach_to_each(
    what: str, program_fd: int, request: dict[str, Any], cpus: Iterable[int] | None, cookie: int
) -> Hold:
    return SeveralHolds.made_of(
        attach_perf_event(f"{what} on CPU {cpu}", program_fd, {**request, "cpu": cpu}, cookie)
        for cpu in (online_cpus() if cpus is None else cpus)
    )
