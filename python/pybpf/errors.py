# SPDX-License-Identifier: BSD-2-Clause
"""Everything that pybpf raises on purpose.

    Error
    ├─ ObjectFormatError (ValueError)        the file is not an object that can be opened
    ├─ NotFoundError (KeyError)              no program, map, variable or type of that name
    ├─ LayoutError (TypeError)               bytes or a value that do not fit the type
    ├─ StateError (RuntimeError)             right call, wrong moment
    │   ├─ ClosedError                       you closed it
    │   └─ BusyError                         somebody uses it right now
    ├─ IterationAborted (RuntimeError)       a map changes faster than it can be read
    ├─ ReloadError (RuntimeError)            a new object was not good; the old one runs on
    ├─ GuestError (RuntimeError)             a virtual machine cannot be had, or died
    │   └─ GuestTimeout (TimeoutError)
    └─ KernelError (OSError)                 the kernel, or libbpf on its behalf, refused
        ├─ ObjectNotFoundError (FileNotFoundError)
        ├─ LoadError                         stage: btf, map, relocation, program
        │   ├─ VerifierError                 stage: verifier
        │   └─ RelocationError               stage: relocation
        ├─ AttachError
        ├─ PinError
        ├─ MapFullError
        ├─ PrivilegeError (PermissionError)
        └─ NotSupportedError

    LayoutWarning (UserWarning)              a layout that is known to go wrong

``str(error)`` fits a screen and says what was attempted, on what, what the kernel said and what to
try; everything raw stays on the exception.  All of them pickle.  A missing map key is a plain
``KeyError``, a value out of range a plain ``OverflowError``.
"""

from __future__ import annotations

import errno as _errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_DETAIL_LINES = 14
# errno.h does not have the kernel's own
ENOTSUPP = 524
_KERNEL_ONLY_NAMES = {ENOTSUPP: "ENOTSUPP"}
_KERNEL_ONLY_WORDS = {ENOTSUPP: "Operation is not supported"}
_LINE_WIDTH = 160


class Error(Exception):
    """The base of every error that pybpf raises on purpose."""

    _fields: tuple[str, ...] = ("message",)

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[object, ...]:
        fields = {name: getattr(self, name) for name in self._fields}
        return _rebuild, (type(self), fields), self.__dict__


def _rebuild(cls: type[Error], fields: dict[str, object]) -> Error:
    return cls(**fields)  # type: ignore[arg-type]  # the subclass's own fields


class ObjectFormatError(Error, ValueError):
    """The bytes are not a BPF object that libbpf can open.

    ``path`` is the file (None for bytes), ``section`` and ``offset`` the place, where known.
    """

    _fields = ("message", "path", "section", "offset")

    def __init__(
        self,
        message: str,
        path: str | None = None,
        section: str | None = None,
        offset: int | None = None,
    ) -> None:
        super().__init__(message)
        self.path = path
        self.section = section
        self.offset = offset

    def __str__(self) -> str:
        where = self.path or "<bytes>"
        if self.section is not None:
            where += f", section {self.section}"
        if self.offset is not None:
            where += f", offset {self.offset:#x}"
        return f"{where}: {self.message}"


class NotFoundError(Error, KeyError):
    """There is no ``kind`` (program, map, type ...) called ``name``; ``available`` lists them."""

    _fields = ("kind", "name", "available")

    def __init__(self, kind: str, name: str, available: Iterable[str] = ()) -> None:
        self.kind = kind
        self.name = name
        self.available = tuple(available)
        super().__init__(f"no {kind} named {name!r}")

    def __str__(self) -> str:
        if not self.available:
            return f"{self.message}; there are none"
        import difflib

        close = difflib.get_close_matches(str(self.name), self.available, n=3)
        if close:
            return f"{self.message}; did you mean {' or '.join(map(repr, close))}?"
        shown = ", ".join(self.available[:12])
        more = len(self.available) - 12
        return f"{self.message}; there are: {shown}" + (f" and {more} more" if more > 0 else "")


class LayoutError(Error, TypeError):
    """Bytes or a Python value that do not fit the type that BTF or the map gives.

    ``record`` is the record of a ring where one was read that does not fit, else None.
    """

    record: bytes | None = None


class LayoutWarning(UserWarning):
    """A layout in C that is known to go wrong, such as a hash key with padding, and its remedy."""


class StateError(Error, RuntimeError):
    """A call that is right, but not now; the message tells the state it needs and the way there."""


class ClosedError(StateError):
    """The thing was closed before."""


class BusyError(StateError):
    """The thing is in use by another call right now."""


class IterationAborted(Error, RuntimeError):
    """The map changes too fast to be read key by key; what was read so far may not be all."""


class ReloadError(Error, RuntimeError):
    """A new object was not good enough to take the place of the old one, which is as before."""


class GuestError(Error, RuntimeError):
    """A virtual machine that cannot be had, or died under its command (``pybpf.vm``).

    ``log`` is what it, or the program that failed, said; ``hint`` what to try.
    """

    _fields = ("message", "log", "hint")

    def __init__(self, message: str, log: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.log = log
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.message, *(f"  {line}" for line in _excerpt(self.log))]
        return "\n".join([*lines, f"hint: {self.hint}"] if self.hint else lines)


class GuestTimeout(GuestError, TimeoutError):
    """The command in a virtual machine did not end in the time it was given."""


class KernelError(Error, OSError):
    """The kernel, or libbpf on its behalf, refused.

    ``errno`` is the positive error number, ``operation`` what was attempted ("load"), ``target`` on
    what ("program 'on_exec'"), ``detail`` the decisive lines, ``log`` everything libbpf and the
    verifier said during the call, ``hint`` what to try.
    """

    _fields = ("operation", "target", "errno", "detail", "log", "hint")
    _more: tuple[tuple[str, object], ...] = ()  # what a subclass has besides, and the defaults

    def __init__(
        self,
        operation: str,
        target: str,
        errno: int,
        detail: str = "",
        log: str = "",
        hint: str = "",
        **more: object,
    ) -> None:
        unknown = more.keys() - dict(self._more)
        if unknown:
            raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(unknown))}")
        OSError.__init__(self, errno, _KERNEL_ONLY_WORDS.get(errno) or os.strerror(errno))
        self.message = f"{operation} {target}".strip()
        self.operation = operation
        self.target = target
        self.detail = detail
        self.log = log
        self.hint = hint
        for name, default in self._more:
            setattr(self, name, more.get(name, default))

    def __reduce__(self) -> tuple[object, ...]:
        fields = {name: getattr(self, name) for name in (*self._fields, *dict(self._more))}
        return _rebuild, (type(self), fields), self.__dict__

    @property
    def errno_name(self) -> str:
        """The kernel's name of ``errno``, such as ``"EPERM"``."""
        return {**_errno.errorcode, **_KERNEL_ONLY_NAMES}.get(self.errno or 0, str(self.errno))

    def __str__(self) -> str:
        lines = [f"{self.message}: {self.errno_name} ({self.strerror})"]
        lines += [f"  {line}" for line in _excerpt(self.detail)]
        if self.hint:
            lines += [f"hint: {self.hint}"]
        return "\n".join(lines)


def _excerpt(text: str) -> list[str]:
    """The last lines of ``text`` that fit a screen: logs put what matters at their end."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    if len(lines) > _DETAIL_LINES:
        left_out = len(lines) - _DETAIL_LINES + 1
        lines = [f"[{left_out} lines above]", *lines[left_out:]]
    return [line if len(line) <= _LINE_WIDTH else line[: _LINE_WIDTH - 1] + "…" for line in lines]


class ObjectNotFoundError(KernelError, FileNotFoundError):
    """There is no file at the path that should hold an object."""


class LoadError(KernelError):
    """Loading an object failed at ``stage``: "btf", "map", "relocation", "verifier" or "program".

    ``program`` is the program it failed on, None where no single one is to blame.
    """

    stage: str
    program: str | None
    _more: tuple[tuple[str, object], ...] = (("stage", "program"), ("program", None))


class VerifierError(LoadError):
    """The verifier refused ``program``; ``verifier_log`` is its whole log."""

    verifier_log: str
    _more = (("stage", "verifier"), ("program", None), ("verifier_log", ""))


class RelocationError(LoadError):
    """This kernel's types lack what ``program`` reads.

    ``type_name`` and ``field`` name what the kernel's BTF does not have ("struct task_struct",
    "no_such_field"), ``source`` is the line of C that wanted it, where the verifier log tells it.
    """

    type_name: str | None
    field: str | None
    source: str | None
    _more = (
        ("stage", "relocation"),
        ("program", None),
        ("type_name", None),
        ("field", None),
        ("source", None),
    )


class AttachError(KernelError):
    """A program could not be attached to its hook."""


class PinError(KernelError):
    """A map, program or link could not be pinned, unpinned, opened from its pin or reused."""


class MapFullError(KernelError):
    """The map holds ``max_entries`` entries already, or a user ring buffer has no room now."""


class PrivilegeError(KernelError, PermissionError):
    """This process may not do that; ``hint`` names the capability or setting that is missing."""


class NotSupportedError(KernelError):
    """This kernel, the libbpf that pybpf was built with, or this kind of thing does not have it."""
