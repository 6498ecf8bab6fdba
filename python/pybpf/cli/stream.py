# SPDX-License-Identifier: BSD-2-Clause
"""The streaming of records to stdout, which ``load`` and ``events`` share."""

from __future__ import annotations

import argparse
import sys
import time
from typing import NamedTuple

import pybpf
from pybpf.cli import type_option
from pybpf.cli.lines import parse_format
from pybpf.cli.output import DONE, REFUSED
from pybpf.cli.signals import status_of_interrupt
from pybpf.errors import LayoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from pybpf import Map, Reader, ReaderStats
    from pybpf.btf import Type
    from pybpf.cli.lines import LineMaker

_TICK_SECONDS = 1.0
_MOST_AT_ONCE = 16384  # so that memory and the time between two looks at the clock stay small


class Ring(NamedTuple):
    """What is read: a ring by the name that is shown, and the type of its records."""

    name: str
    map: Map[Any, Any]
    type: Type | None


def add_options(parser: argparse.ArgumentParser) -> None:
    type_option.add_option(parser)
    parser.add_argument("--duration", type=_seconds, metavar="S", help="stop after S seconds")
    parser.add_argument(
        "--format",
        type=parse_format,
        metavar="FORMAT",
        help="text (the default), json, or a template of members and how Python formats them, as "
        "'{comm:16} {pid:>7} {hdr.args[0]:#x}'; {map} is the ring's name, an enumerator is shown "
        "by name and as a number by {kind:d}, and - stands where a record has no such member",
    )
    parser.add_argument(
        "--stats",
        action="store_true",
        help="tell on stderr how many events came, at what rate, how many were lost (where "
        "they are counted: by pybpf/events.bpf.h, or in perf event arrays), and how many bytes "
        "waited in the rings: at the end, and on a terminal every second",
    )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0 on")
    return value


def stream(
    rings: Sequence[Ring], lines: Mapping[str, LineMaker], options: argparse.Namespace
) -> int:
    """Print a line for each record until the duration is over, or Ctrl-C or a signal ends it.

    The exit status: 0, 1 where records did not fit their type, or a signal's.  A signal ends it at
    once: records that were taken out and have no line yet are not printed.
    """
    end = float("inf") if options.duration is None else time.monotonic() + options.duration
    try:
        if not rings:
            _wait(end)
            return DONE
        with make_reader(rings) as reader:
            accounts, printer = Accounts(reader, options.stats), Printer(lines)
            try:
                _follow(reader, printer, end, accounts)
            finally:
                printer.close()
                accounts.close()
    except KeyboardInterrupt as interrupt:
        return status_of_interrupt(interrupt)
    return REFUSED if printer.left_out else DONE


def make_reader(rings: Sequence[Ring]) -> Reader:
    """A reader that gives pairs of a name and a record's bytes."""
    return pybpf.Reader({ring.name: ring.map for ring in rings}, type=bytes)


class Accounts:
    """What ``--stats`` tells on stderr of a reader: at its end, and on a terminal every second."""

    def __init__(self, reader: Reader, wanted: bool) -> None:
        self._reader = reader
        self._wanted = wanted
        self._start = self._last = time.monotonic()
        self._last_received = 0
        self._next = self._start + _TICK_SECONDS
        if not (wanted and sys.stderr.isatty()):
            self._next = float("inf")

    def seconds_to_next(self) -> float:
        """How long until there is something to tell."""
        return max(0, self._next - time.monotonic())

    def tell_when_due(self) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        stats = self._reader.stats
        _tell(stats, (stats.received - self._last_received) / (now - self._last))
        self._last, self._last_received = now, stats.received
        self._next = now + _TICK_SECONDS

    def close(self) -> None:
        if self._wanted:
            stats = self._reader.stats
            _tell(stats, stats.received / (time.monotonic() - self._start))


def _tell(stats: ReaderStats, rate: float) -> None:
    print(statistics_line(stats, rate), file=sys.stderr, flush=True)


def statistics_line(stats: ReaderStats, rate: float) -> str:
    """The accounting of a reader in words; ``rate`` in events per second."""
    lost = f"{stats.lost} lost" if stats.counts_lost else "losses uncounted"
    return (
        f"{stats.received} events, {rate:.0f}/s, {lost}, "
        f"backlog {stats.backlog} bytes, {stats.backlog_highest} at most"
    )


def _wait(end: float) -> None:
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 3600))


def _follow(reader: Reader, printer: Printer, end: float, accounts: Accounts) -> None:
    """Print what comes: a batch at a time, and at once when nothing more is there."""
    while (left := end - time.monotonic()) > 0:
        batch = reader.read_batch(timeout=0, max=_MOST_AT_ONCE)
        if not batch:
            sys.stdout.flush()
            batch = reader.read_batch(
                timeout=min(left, accounts.seconds_to_next()), max=_MOST_AT_ONCE
            )
        printer.print(batch)
        accounts.tell_when_due()
    printer.print(reader.read_batch(timeout=0))
    sys.stdout.flush()


class Printer:
    """Prints records as lines; those that do not fit their type are told of, once for each ring."""

    def __init__(self, lines: Mapping[str, LineMaker]) -> None:
        self._lines = lines
        self.left_out: dict[str, int] = {}

    def print(self, batch: list[tuple[str, bytes]]) -> None:
        made: list[str] = []
        try:
            for name, record in batch:
                try:
                    made.append(self._lines[name](record))
                except LayoutError as error:
                    self._leave_out(name, error)
        finally:  # those before Ctrl-C are not lost
            sys.stdout.write("".join(made))

    def _leave_out(self, ring: str, error: LayoutError) -> None:
        if ring not in self.left_out:
            print(f"pybpf: {error}", file=sys.stderr, flush=True)
        self.left_out[ring] = self.left_out.get(ring, 0) + 1

    def close(self) -> None:
        """Tell how many were left out."""
        for ring, count in self.left_out.items():
            records = "1 record" if count == 1 else f"{count} records"
            print(f"pybpf: {records} of {ring} left out: too short", file=sys.stderr)
