# SPDX-License-Identifier: BSD-2-Clause
"""The public surface: exports, docstrings, annotations, and what importing costs."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pybpf
import pytest

CLASSES = [value for name in pybpf.__all__ if inspect.isclass(value := getattr(pybpf, name))]


def public_members():
    for cls in CLASSES:
        for name, member in vars(cls).items():
            if name.startswith("_"):
                continue
            function = member.fget if isinstance(member, property) else member
            function = getattr(function, "__func__", function)
            if inspect.isfunction(function):
                yield pytest.param(function, id=f"{cls.__name__}.{name}")
    for name in pybpf.__all__:
        if inspect.isfunction(getattr(pybpf, name)):
            yield pytest.param(getattr(pybpf, name), id=name)


def test_exports_are_sorted_and_complete():
    assert sorted(pybpf.__all__) == sorted(set(pybpf.__all__))
    for name in pybpf.__all__:
        assert getattr(pybpf, name) is not None
    assert set(pybpf.__all__) <= set(dir(pybpf))


def test_an_unknown_attribute_is_an_attributeerror():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = pybpf.no_such_name


@pytest.mark.parametrize("cls", CLASSES)
def test_public_classes_have_docstrings(cls):
    assert inspect.getdoc(cls)


@pytest.mark.parametrize("function", list(public_members()))
def test_public_functions_have_docstrings_and_annotations(function):
    assert function.__name__ in ("closed", "name") or function.__doc__
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    for name, parameter in signature.parameters.items():
        assert name in ("self", "cls") or parameter.annotation is not inspect.Parameter.empty


def test_importing_brings_in_no_slow_module_and_prints_nothing():
    """Each of these costs more than the whole of pybpf; the start of a process is measured."""
    code = f"import sys; sys.path[:] = {sys.path!r}; import pybpf; print(*sorted(sys.modules))"
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    slow = {
        "enum",
        "dataclasses",
        "typing",
        "logging",
        "re",
        "ctypes",
        "collections",
        "inspect",
        "numpy",
        "rich",
    }
    assert not loaded & slow
    assert done.stderr == ""


def test_kernel_numbers_without_their_enum_are_right():
    from pybpf import MapType, ProgramType, object, object_map

    assert object._STRUCT_OPS == MapType.STRUCT_OPS
    assert object._STRUCT_OPS_PROGRAM == ProgramType.STRUCT_OPS
    assert object._RINGBUF == MapType.RINGBUF
    assert object_map.RING_TYPES == (MapType.RINGBUF, MapType.USER_RINGBUF)


def test_unknown_kernel_numbers_become_unknown_members():
    from pybpf import MapType

    newer = MapType(4000)
    assert newer == 4000
    assert newer.name == "UNKNOWN_4000"
    with pytest.raises(ValueError, match="text"):
        MapType("text")
