# SPDX-License-Identifier: BSD-2-Clause
"""Syscall programs called with a struct."""

from __future__ import annotations

import features
import pybpf
import pytest


@pytest.fixture
def obj(bpf_object):
    features.require("syscall_programs")
    with pybpf.load(bpf_object("syscalls")) as loaded:
        yield loaded


@pytest.fixture
def add(obj):
    return obj.programs["add_two_numbers"]


def test_a_struct_goes_in_and_comes_back(add):
    retval, request = add.run({"a": 7, "b": -3, "name": "sum"})
    assert retval == -3
    assert (request.a, request.b, request.sum) == (7, -3, 4)
    assert request.name.text == "<um"


def test_what_comes_back_can_go_in_again(add):
    first = add.run({"a": 1, "b": 2}).context
    first.a = 10
    assert add.run(first).context.sum == 12


def test_without_a_context_all_is_zero(add):
    assert add.run().context.sum == 0


def test_what_does_not_fit_is_refused(add):
    with pytest.raises(pybpf.LayoutError, match="c"):
        add.run({"c": 1})
    with pytest.raises(OverflowError):
        add.run({"a": 1 << 32})
    with pytest.raises(pybpf.LayoutError):
        add.run(b"short")


def test_a_program_that_takes_bytes(obj):
    assert obj.programs["take_bytes"].run(b"\7\0\0\0") == (8, b"\x08\0\0\0")


def test_a_pinned_program_tells_what_it_takes(add, bpffs):
    add.pin(bpffs / "add")
    with pybpf.Program.open_pinned(bpffs / "add") as program:
        assert program.run({"a": 2, "b": 3}).context.sum == 5
        program.unpin(bpffs / "add")


def test_a_program_of_another_type(obj):
    with pytest.raises(pybpf.KernelError, match="packets take data"):
        obj.programs["no_system_call"].run()


def test_before_load(bpf_object):
    with (
        pybpf.open(bpf_object("syscalls")) as obj,
        pytest.raises(pybpf.StateError, match=r"call load\(\) first"),
    ):
        obj.programs["add_two_numbers"].run({"a": 1})
