# SPDX-License-Identifier: BSD-2-Clause
"""The kernel's functions and tracepoints: kprobes, trampolines and what is like them."""

from __future__ import annotations

import errno

from pybpf import _native, features
from pybpf._native import lib
from pybpf.holds import LibbpfHold
from pybpf.hooks import linking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from pybpf.features import Feature
    from pybpf.holds import Hold

_NEEDED = ("CAP_BPF", "CAP_PERFMON")
_SHOWN = 5


# ---- functions of the kernel ---------------------------------------------------------------------


def functions() -> Iterator[str]:
    """The names of the kernel's functions; those of modules as "module:function"."""
    with open("/proc/kallsyms", encoding="utf-8", errors="replace") as listing:
        for line in listing:
            _, kind, name, *module = line.split()
            if kind in "tTwW":
                yield f"{module[0][1:-1]}:{name}" if module else name


def first_known(names: str | Sequence[str]) -> str:
    """The first of the names that a function of the kernel has; the first one if none has."""
    if isinstance(names, str):
        return names
    known = set(names).intersection(functions())
    return next((name for name in names if name in known), names[0])


def similar(name: str) -> list[str]:
    """Functions named so and a suffix of the compiler's, or nearly so."""
    import difflib

    stem = name[: (len(name) + 1) // 2]
    alike = [other for other in functions() if other.startswith(stem) and other != name]
    variants = [other for other in alike if other.startswith(f"{name}.")]
    return variants[:_SHOWN] or difflib.get_close_matches(name, alike, n=_SHOWN)


def _missing(name: str) -> str:
    hint = f"this kernel has no function {name!r}: it was renamed, or the compiler inlined it"
    alike = similar(name)
    return f"{hint}; there is {', '.join(alike)}" if alike else hint


# ---- kprobes -------------------------------------------------------------------------------------


def _probe_features(cookie: int) -> tuple[Feature, ...]:
    return (features.KPROBE, features.PERF_COOKIE) if cookie else (features.KPROBE,)


def _kprobe_hint(name: str) -> Callable[[int], str]:
    def hint(number: int) -> str:
        if number == errno.ENOENT:
            return _missing(name)
        if number == errno.EADDRNOTAVAIL:
            return f"several functions are named {name!r}, see /proc/kallsyms"
        if number == errno.EILSEQ:
            return "the offset is in the midst of an instruction"
        if number == errno.EINVAL:
            return (
                "the kernel lets nobody probe this place (/sys/kernel/debug/kprobes/blacklist), "
                "and a return only from a function's start"
            )
        return ""

    return hint


def attach_kprobe(
    what: str, program: Any, name: str, offset: int, at_return: bool, cookie: int, mode: int
) -> Hold:
    if mode:
        linking.require_libbpf(bool(lib.PYBPF_HAS_PROBE_MODES), "modes of probes", "1.2", what)
    function = _native.c_string(name, "function")
    hold = LibbpfHold()
    code = lib.pybpf_attach_kprobe(program, function, offset, at_return, cookie, mode, hold.place)
    refuse = linking.refusal(_probe_features(cookie), _NEEDED, _kprobe_hint(name))
    _native.check(code, "attach", what, refuse)
    return hold
