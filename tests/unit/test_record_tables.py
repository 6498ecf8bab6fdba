# SPDX-License-Identifier: BSD-2-Clause
"""Enumerators in tables of record types, looked up in BTF that one compiler does not make."""

from __future__ import annotations

import ctypes
import re

import pybpf
import pytest
from btf_sources import info, raw_btf
from pybpf import record_types
from pybpf.btf import Btf, Kind

STRINGS = b"\0first\0second\0ONE\0TWO\0DIFFERENT\0"
FIRST, SECOND, ONE, TWO, DIFFERENT = (STRINGS.index(name) for name in STRINGS[1:-1].split(b"\0"))
TYPES = [
    (FIRST, info(Kind.ENUM, 2), 4, ONE, 1, DIFFERENT, 3),
    (SECOND, info(Kind.ENUM, 3), 4, ONE, 1, TWO, 2, DIFFERENT, 4),
]


def decoded(table: object, record: bytes) -> object:
    btf = Btf(raw_btf(TYPES, STRINGS))
    return record_types.resolve(table, lambda: btf).decode(record)


def test_enumerators_of_any_enum() -> None:
    for name, number in {"ONE": 1, "TWO": 2}.items():
        assert decoded({name: ctypes.c_uint16}, bytes([number, 0])) == number
        assert decoded({name: ctypes.c_uint16}, bytes(2)) == bytes(2)


def test_an_enumerator_that_is_several_numbers() -> None:
    says = re.escape("enumerator 'DIFFERENT' is 3 and, in enum second, 4: give the number")
    with pytest.raises(pybpf.LayoutError, match=says):
        decoded({"DIFFERENT": ctypes.c_uint16}, bytes(2))


def test_an_enumerator_that_there_is_not() -> None:
    with pytest.raises(pybpf.NotFoundError, match="no enumerator named 'TWOO'; did you mean 'TWO'"):
        decoded({"TWOO": ctypes.c_uint16}, bytes(2))
    with pytest.raises(pybpf.NotFoundError, match="there is no BTF to look it up in"):
        record_types.resolve({"TWO": ctypes.c_uint16}, lambda: None)
