# SPDX-License-Identifier: BSD-2-Clause
"""What a type checker knows of maps; tests/unit/test_typing.py has mypy check it, nothing runs."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import numpy
import pybpf
from typing_extensions import assert_type


class Event:
    pid: int


def is_a_mapping(counts: pybpf.Map[int, Event]) -> None:
    mapping: MutableMapping[int, Event] = counts
    assert_type(mapping[1], Event)


def elements(counts: pybpf.Map[int, Event], event: Event) -> None:
    assert_type(counts[1], Event)
    assert_type(counts.get(1), Event | None)
    assert_type(counts.get(1, event), Event)
    assert_type(counts.lookup(1), Event | None)
    assert_type(counts.lookup_bytes(1), bytes | None)
    assert_type(counts.setdefault(1, event), Event)
    assert_type(counts.popitem(), tuple[int, Event])
    assert_type(1 in counts, bool)
    counts[1] = event
    del counts[1]
    counts["one"] = event  # type: ignore[index]
    counts[1] = "event"  # type: ignore[assignment]


def all_of_them(counts: pybpf.Map[int, Event]) -> None:
    assert_type(iter(counts), Iterator[int])
    for key, value in counts.items():
        assert_type(key, int)
        assert_type(value, Event)
    for value in counts.values():
        assert_type(value, Event)
    assert_type(counts.to_dict(), dict[int, Event])
    assert_type(counts.pop_all(), list[tuple[int, Event]])
    assert_type(counts.to_numpy()[0], numpy.ndarray[Any, Any])
    assert_type(counts.delete_many([1, 2]), int)
    counts.update_many({1: Event()})
    counts.update_many([1, 2], [Event(), Event()])


def queue(values: pybpf.Map[None, int]) -> None:
    values.push(1)
    assert_type(values.peek(), int)


def of_an_object(obj: pybpf.Object) -> None:
    counts: pybpf.ObjectMap[int, int] = obj.maps["counts"]
    assert_type(counts[1], int)
    untyped: pybpf.Map = obj.maps["counts"]
    assert_type(untyped[1], Any)
    with pybpf.Map.open_pinned("/sys/fs/bpf/counts") as pinned:
        assert_type(len(pinned), int)


def test_runs(program: pybpf.Program) -> None:
    result = program.test_run(b"", repeat=2)
    assert_type(result.retval, int)
    assert_type(result.data_out, bytes)
