# SPDX-License-Identifier: BSD-2-Clause
"""Functions of the kernel: kprobes at one or many of them, and at system calls."""

from __future__ import annotations

import errno

from pybpf import _native, features
from pybpf._native import NULL, ffi, lib
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
    if not names:
        raise ValueError("no function is named")
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


_LINK = 3  # of ProbeMode


def _wanted(cookie: int, mode: int = 0) -> tuple[Feature, ...]:
    wants_link = cookie or mode == _LINK
    return (features.KPROBE, features.PERF_LINK) if wants_link else (features.KPROBE,)


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
    refuse = linking.refusal(_wanted(cookie, mode), _NEEDED, _kprobe_hint(name))
    _native.check(code, "attach", what, refuse)
    return hold


def attach_ksyscall(what: str, program: Any, name: str, at_return: bool, cookie: int) -> Hold:
    def hint(number: int) -> str:
        return f"this kernel has no system call {name!r}" if number == errno.ENOENT else ""

    call = _native.c_string(name, "name")
    hold = LibbpfHold()
    code = lib.pybpf_attach_ksyscall(program, call, at_return, cookie, hold.place)
    _native.check(code, "attach", what, linking.refusal(_wanted(cookie), _NEEDED, hint))
    return hold


# ---- kprobe.multi --------------------------------------------------------------------------------

_KPROBE_SESSION = 56  # of AttachType


def words_for(functions: str | Sequence[str]) -> str:
    if isinstance(functions, str):
        return f"kprobe.multi {functions}"
    more = len(functions) - _SHOWN
    return f"kprobe.multi {', '.join(functions[:_SHOWN])}{f' and {more} more' if more > 0 else ''}"


def attach_kprobe_multi(
    what: str,
    program: Any,
    functions: str | Sequence[str],
    at_return: bool,
    cookies: Sequence[int] | None,
) -> Hold:
    session = lib.bpf_program__expected_attach_type(program) == _KPROBE_SESSION
    if session:
        has_sessions = bool(lib.PYBPF_HAS_KPROBE_SESSION)
        linking.require_libbpf(has_sessions, "sessions of kprobes", "1.5", what)
    request, _memory = _functions(functions, cookies)
    hold = LibbpfHold()
    code = lib.pybpf_attach_kprobe_multi(program, request, at_return, session, hold.place)
    feature = features.KPROBE_SESSION if session else features.KPROBE_MULTI
    refuse = linking.refusal((feature, features.KPROBE_MULTI), _NEEDED, _multi_hint(functions))
    _native.check(code, "attach", what, refuse)
    return hold


def _functions(
    functions: str | Sequence[str], cookies: Sequence[int] | None
) -> tuple[Any, list[Any]]:
    """A ``struct pybpf_functions``, and what it points to."""
    if isinstance(functions, str):
        if cookies is not None:
            raise ValueError("cookies go with a list of functions, and not with a pattern")
        memory = [ffi.new("char[]", _native.c_string(functions, "pattern"))]
        return ffi.new("struct pybpf_functions *", {"pattern": memory[0]}), memory
    if not functions:
        raise ValueError("no function is named")
    if cookies is not None and len(cookies) != len(functions):
        raise ValueError(f"{len(cookies)} cookies for {len(functions)} functions")
    memory = [ffi.new("char[]", _native.c_string(name, "function")) for name in functions]
    names = ffi.new("char *[]", memory)
    values = NULL if cookies is None else ffi.new("unsigned long long[]", cookies)
    request = {"names": names, "cookies": values, "count": len(functions)}
    return ffi.new("struct pybpf_functions *", request), [*memory, names, values]


def _multi_hint(wanted: str | Sequence[str]) -> Callable[[int], str]:
    def hint(number: int) -> str:
        if number == errno.EINVAL:
            return 'the program has to be of section "kprobe.multi" or "kprobe.session"'
        if number not in (errno.ENOENT, errno.ESRCH):
            return ""
        if isinstance(wanted, str):
            return f"no function that ftrace can trace matches {wanted!r}"
        known = set(wanted).intersection(functions())
        unknown = [name for name in wanted if name not in known]
        return _missing(unknown[0]) if unknown else "ftrace cannot trace each of them"

    return hint
