# SPDX-License-Identifier: BSD-2-Clause
"""Functions of programs and libraries in user space: uprobes, one or many at once."""

from __future__ import annotations

import errno
import re
from typing import NamedTuple

from pybpf import _native, features, functions
from pybpf._native import NULL, ffi, lib
from pybpf.constants import AttachType
from pybpf.errors import AttachError
from pybpf.holds import LibbpfHold, SeveralHolds
from pybpf.hooks import binaries, linking

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from pybpf._native import Refusal
    from pybpf.holds import Hold

NEEDED = ("CAP_BPF", "CAP_PERFMON")
_AT_RETURN = 1  # BPF_F_UPROBE_MULTI_RETURN
_SHOWN = 5


class Target(NamedTuple):
    """Places in the code of a file: ``offsets`` count from its start, ``words`` name them."""

    path: str
    pid: int | None
    offsets: list[int]
    words: str


def _target(path: str, pid: int | None, places: Iterable[tuple[int, str]]) -> Target:
    offsets, names = zip(*places, strict=True)
    more = len(names) - _SHOWN
    words = f"{path}:{', '.join(names[:_SHOWN])}{f' and {more} more' if more > 0 else ''}"
    return Target(path, pid, list(offsets), words)


def one_or_matching(
    binary: str | os.PathLike[str],
    symbol: str | re.Pattern[str] | None,
    offset: int,
    pid: int | None,
) -> Target:
    """Where a function is, or all that match, or with ``symbol`` None the offset in the file."""
    path = binaries.find(binary, pid)
    if symbol is None:
        return _target(path, pid, [(offset, f"{offset:#x}")])
    found = [_only(path, symbol)] if isinstance(symbol, str) else _matching(path, symbol)
    more = f"+{offset:#x}" if offset else ""
    return _target(path, pid, ((start + offset, name + more) for start, name in found))


def many(
    binary: str | os.PathLike[str],
    symbols: str | re.Pattern[str] | Sequence[str | int],
    pid: int | None,
) -> Target:
    """Where all functions are that match, or those of a list, in its order."""
    path = binaries.find(binary, pid)
    if isinstance(symbols, (str, re.Pattern)):
        return _target(path, pid, _matching(path, symbols))
    if not symbols:
        raise ValueError("no functions to attach to")
    return _target(path, pid, (_place(path, each) for each in symbols))


def _matching(path: str, pattern: str | re.Pattern[str]) -> list[tuple[int, str]]:
    if isinstance(pattern, re.Pattern):
        return list(functions.matching(path, pattern.pattern, pattern.fullmatch).items())
    # * and ? alone mean others: brackets are part of names of C++
    regex = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return list(functions.matching(path, pattern, re.compile(regex).fullmatch).items())


def _place(path: str, symbol: str | int) -> tuple[int, str]:
    return (symbol, f"{symbol:#x}") if isinstance(symbol, int) else _only(path, symbol)


def _only(path: str, name: str) -> tuple[int, str]:
    found = functions.named(path, name)
    if len(found) > 1:
        detail = "\n".join(f"{text} at {offset:#x}" for offset, text in found.items())
        hint = "tell which by its parameters or its offset in the file, or attach to all by pattern"
        target = f"{name!r} in {path}, which has {len(found)} of that name"
        raise AttachError("attach to", target, errno.EINVAL, detail, hint=hint)
    return next(iter(found.items()))


# ---- uprobes -------------------------------------------------------------------------------------


def one_or_all(pid: int | None) -> int:
    """The number of a process, and that of all of them, as libbpf takes it."""
    return -1 if pid is None else pid


def refusal(code: int, hint: Callable[[int], str]) -> Refusal:
    """The error of libbpf's ``code``: only EOPNOTSUPP is due to a kernel without cookies."""
    if code == -errno.EOPNOTSUPP:
        return linking.refusal(features.PERF_LINK, NEEDED, hint)
    return linking.refusal(needed=NEEDED, hint=hint)


def _hint(number: int) -> str:
    if number == errno.ESRCH:
        return "there is no such process"
    if number == errno.EINVAL:
        return "that is no place of code in the file, or the program's section is of another kind"
    return ""


def attach(
    what: str, program: Any, target: Target, at_return: bool, cookie: int, counter: int
) -> Hold:
    """One probe for each place; they end together."""
    values = {"cookie": cookie, "counter": counter, "is_return": at_return}
    options = ffi.new("struct pybpf_uprobe_options *", values)
    if len(target.offsets) == 1:
        return _attach_one(what, program, target, target.offsets[0], options)
    return SeveralHolds.made_of(
        _attach_one(what, program, target, offset, options) for offset in target.offsets
    )


def _attach_one(what: str, program: Any, target: Target, offset: int, options: Any) -> LibbpfHold:
    hold = LibbpfHold()
    path, pid = _native.c_string(target.path, "path"), one_or_all(target.pid)
    code = lib.pybpf_attach_uprobe(program, pid, path, offset, options, hold.place)
    _native.check(code, "attach", what, refusal(code, _hint))
    return hold


# ---- uprobe.multi --------------------------------------------------------------------------------


def attach_multi(
    what: str,
    program_fd: int,
    target: Target,
    attach_type: int,
    at_return: bool,
    cookies: Sequence[int] | None,
) -> Hold:
    is_session = attach_type == AttachType.TRACE_UPROBE_SESSION
    feature = features.UPROBE_SESSION if is_session else features.UPROBE_MULTI
    if cookies is not None and len(cookies) != len(target.offsets):
        raise ValueError(f"{len(cookies)} cookies for {len(target.offsets)} functions")
    path = ffi.new("char[]", _native.c_string(target.path, "path"))
    offsets = ffi.new("uint64_t[]", target.offsets)
    raw_cookies = NULL if cookies is None else ffi.new("uint64_t[]", cookies)
    request = {
        "path": _address(path),
        "offsets": _address(offsets),
        "cookies": _address(raw_cookies),
        "count": len(target.offsets),
        "flags": _AT_RETURN if at_return else 0,
        "pid": target.pid or 0,
    }
    kind = AttachType.TRACE_UPROBE_SESSION if is_session else AttachType.TRACE_UPROBE_MULTI
    refuse = linking.refusal(feature, NEEDED, _multi_hint)
    return linking.create(what, refuse, program_fd, kind, 0, uprobe_multi=request)


def _address(memory: Any) -> int:
    return int(ffi.cast("uintptr_t", memory))


def _multi_hint(number: int) -> str:
    if number == errno.EINVAL:
        return "the program's section is none of uprobe.multi, uretprobe.multi and uprobe.session"
    return _hint(number)
