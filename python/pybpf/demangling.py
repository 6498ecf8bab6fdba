# SPDX-License-Identifier: BSD-2-Clause
"""C++ names as they are in the source, by the C++ runtime of the machine."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LIBRARIES = ("libstdc++.so.6", "libc++abi.so.1")
_LONGEST = 4096  # bytes; what a name stands for can be longer by far


def demangle(name: str) -> str | None:
    """ "area(Shape const&)" for "_Z4areaRK5Shape"; None for others, and without a C++ runtime."""
    if not name.startswith("_Z") or len(name) > _LONGEST:
        return None
    runtime = _runtime()
    address = runtime.demangle(name.encode(), None, None, None) if runtime else None
    if not runtime or address is None:
        return None
    try:
        return runtime.text_at(address).decode("utf-8", "replace")
    finally:
        runtime.free(address)


def without_parameters(readable: str) -> str:
    """ "ns::Shape::area" for "ns::Shape::area(int) const"."""
    depth = 0
    for place in range(readable.rfind(")"), -1, -1):
        depth += {")": 1, "(": -1}.get(readable[place], 0)
        if depth == 0:
            return readable[:place]
    return readable


class _Runtime(NamedTuple):
    demangle: Callable[[bytes, None, None, None], int | None]
    text_at: Callable[[int], bytes]
    free: Callable[[int], None]


@cache
def _runtime() -> _Runtime | None:
    """The C++ library of this machine: nearly every machine has one."""
    import ctypes

    for name in _LIBRARIES:
        try:
            demangle = ctypes.CDLL(name).__cxa_demangle
        except (OSError, AttributeError):
            continue
        demangle.restype = ctypes.c_void_p
        demangle.argtypes = [ctypes.c_char_p, *[ctypes.c_void_p] * 3]
        free = ctypes.CDLL(None).free
        free.argtypes = [ctypes.c_void_p]
        return _Runtime(demangle, ctypes.string_at, free)
    return None
