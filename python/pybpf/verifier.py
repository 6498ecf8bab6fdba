# SPDX-License-Identifier: BSD-2-Clause
"""The verifier's text: statistics of a program it accepted, decisive lines of one it refused."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PROCESSED = re.compile(
    r"^processed (?P<processed_insns>\d+) insns \(limit (?P<insn_limit>\d+)\) "
    r"max_states_per_insn (?P<max_states_per_insn>\d+) total_states (?P<total_states>\d+) "
    r"peak_states (?P<peak_states>\d+)(?: mark_read (?P<mark_read>\d+))?",
    re.MULTILINE,
)
_TIME = re.compile(r"^verification time (\d+) usec", re.MULTILINE)
_STACK = re.compile(r"^stack depth ([\d+]+)", re.MULTILINE)
_PROGRAM_LOG = re.compile(
    r"^prog '(?P<program>[^']*)': -- BEGIN PROG LOAD LOG --\n(?P<log>.*?)-- END PROG LOAD LOG --$",
    re.MULTILINE | re.DOTALL,
)
# libbpf's words for "this kernel has no such type or field", written over the kernel's own
_RELOCATION = re.compile(
    r"failed to resolve CO-RE relocation <(?P<kind>[^>]*)> \[\d+\] (?P<spec>[^\n]*)"
)
# Linux 7.3 ends a log with a report; its other sections repeat source and instructions
_REPORT = re.compile(r"^Verification failed: ", re.MULTILINE)
_SECTION = re.compile(r"^(?:Reason|Suggestion):\n(?:  .*\n)+", re.MULTILINE)
_SOURCE_LINE = re.compile(r"^; (?P<text>.*)$")


@dataclass(frozen=True)
class VerifierStats:
    """What accepting a program cost the verifier; None where this kernel does not tell.

    ``processed_insns`` counts instructions over all paths, ``stack_depth`` bytes per subprogram.
    """

    processed_insns: int
    insn_limit: int | None = None
    max_states_per_insn: int | None = None
    total_states: int | None = None
    peak_states: int | None = None
    mark_read: int | None = None
    verification_time_us: int | None = None
    stack_depth: tuple[int, ...] | None = None

    def __str__(self) -> str:
        parts = [f"{self.processed_insns} insns"]
        if self.peak_states is not None:
            parts.append(f"{self.peak_states} peak states")
        if self.verification_time_us is not None:
            parts.append(f"{self.verification_time_us} us")
        return ", ".join(parts)


@dataclass(frozen=True)
class MissingField:
    """A type, field or enumerator that a program wants and the kernel's BTF lacks."""

    kind: str
    type_name: str
    field: str | None
    source: str | None


def parse_stats(log: str) -> VerifierStats | None:
    """The statistics at the end of a verifier log; None where there are none."""
    processed = _PROCESSED.search(log)
    if processed is None:
        return None
    time = _TIME.search(log)
    stack = _STACK.search(log)
    counts = {name: int(number) for name, number in processed.groupdict().items() if number}
    return VerifierStats(
        **counts,
        verification_time_us=int(time[1]) if time else None,
        stack_depth=tuple(int(depth) for depth in stack[1].split("+") if depth) if stack else None,
    )


def summary_line(log: str) -> str:
    """The "processed ... insns ..." line of a log, "" where there is none."""
    processed = _PROCESSED.search(log)
    return processed[0] if processed else ""


def program_logs(messages: str) -> dict[str, str]:
    """The verifier logs inside libbpf's messages, by program."""
    return {found["program"]: found["log"] for found in _PROGRAM_LOG.finditer(messages)}


def decisive_lines(log: str) -> str:
    """The last source line of a refused program's log and what the verifier said after it.

    Where the log ends with a report, that includes its reason and its suggestion.
    """
    report = _REPORT.search(log)
    if report:
        return _last_lines(log[: report.start()]) + "\n" + "".join(_SECTION.findall(log))
    return _last_lines(log)


def _last_lines(log: str) -> str:
    lines = [line for line in log.splitlines() if line and not _is_statistics(line)]
    start = next((i for i in range(len(lines) - 1, -1, -1) if _SOURCE_LINE.match(lines[i])), None)
    if start is None or len(lines) - start > 12:
        return "\n".join(lines[-12:])
    return "\n".join(lines[start:])


def _is_statistics(line: str) -> bool:
    return bool(_PROCESSED.match(line) or _TIME.match(line) or _STACK.match(line))


def missing_field(log: str) -> MissingField | None:
    """What libbpf could not relocate, if that is why the log ends as it does."""
    found = _RELOCATION.search(log)
    if found is None:
        return None
    # "struct task_struct.no_such_field (0:1 @ offset 4)", "enum x::Y = 3", "struct gone"
    spec = found["spec"].partition(" (")[0].partition(" = ")[0].strip()
    type_name, dot, field = spec.partition("::" if "::" in spec else ".")
    type_name = type_name.partition("___")[0]  # a flavour of the type, which means the type itself
    before = [
        m["text"] for line in log[: found.start()].splitlines() if (m := _SOURCE_LINE.match(line))
    ]
    return MissingField(
        found["kind"], type_name, field if dot else None, before[-1] if before else None
    )
