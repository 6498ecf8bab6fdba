# SPDX-License-Identifier: BSD-2-Clause
"""What maps and programs have in common: a descriptor of the kernel's, or a place in an object."""

from __future__ import annotations

import errno as _errno
import os

from pybpf import _native, pins
from pybpf._handles import OwnedFd, Uncopyable
from pybpf.errors import KernelError, LayoutError
from pybpf.kernel import explained

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from typing_extensions import Self

    from pybpf._handles import Borrow
    from pybpf.object import Object


class KernelObject(Uncopyable):
    """A map or program that the kernel holds, by a descriptor that this object owns."""

    _fd: OwnedFd
    _name: str
    _noun: str  # "map" or "program"
    _pin: str | None = None  # the path where it was opened

    @classmethod
    def _owning(cls, fd: int, what: str) -> Self:
        """The object behind ``fd``, which is closed where that fails."""
        owned = OwnedFd(fd, what)
        try:
            return cls(owned)  # type: ignore[call-arg]  # subclasses take the descriptor
        except BaseException:
            owned.close_when_unused()
            raise

    @classmethod
    def open_pinned(cls, path: str | os.PathLike[str]) -> Self:
        """What is pinned at ``path``; PinError where there is none, or something of another kind.

        The caller owns the handle; the pin keeps what it holds alive after close().
        """
        fd = pins.open_pinned(path, cls._noun)
        pinned = cls._owning(fd, f"{cls._noun} pinned at {os.fspath(path)}")
        pinned._pin = os.path.abspath(os.fsdecode(path))
        return pinned

    @classmethod
    def from_id(cls, id: int) -> Self:
        """The one with that kernel id; KernelError where there is none.  Needs CAP_SYS_ADMIN.

        The caller owns the handle.
        """
        if not 0 <= id < 1 << 32:
            raise OverflowError(f"a kernel id has 32 bits, {id} has not")
        refusal = explained(KernelError, needed=("CAP_SYS_ADMIN",))
        fd = _native.check(cls._fd_by_id(id), f"open {cls._noun}", f"of id {id}", refusal)
        return cls._owning(fd, f"{cls._noun} of id {id}")

    @staticmethod
    def _fd_by_id(id: int) -> int:
        raise NotImplementedError

    @classmethod
    def from_fd(cls, fd: int) -> Self:
        """The one behind a descriptor that the caller keeps: pybpf duplicates it.

        LayoutError where the descriptor is of something else, KernelError where it is closed.
        """
        try:
            copy = os.dup(fd)
        except (OSError, OverflowError) as failed:
            error = failed if isinstance(failed, OSError) else OSError(_errno.EBADF, "")
            raise KernelError("use", f"fd {fd}", error.errno or _errno.EBADF) from None
        kind = pins.fd_kind(copy)
        if kind != cls._noun:
            os.close(copy)
            raise LayoutError(f"fd {fd} is no {cls._noun} but: {kind}")
        return cls._owning(copy, f"{cls._noun} of fd {fd}")

    @property
    def name(self) -> str:
        """Its name; the kernel keeps 15 characters of it."""
        return self._name

    def fileno(self) -> int:
        """The descriptor, which stays this object's own; ClosedError after close()."""
        return self._fd.fileno()

    def _borrow_fd(self) -> Borrow | FdBorrow:
        """``with self._borrow_fd() as fd``: a descriptor that nobody closes meanwhile."""
        return self._fd.borrow()

    def pin(self, path: str | os.PathLike[str]) -> None:
        """Give it a name on a bpffs, where it lives on without this process.

        PinError where there is no bpffs, no folder or something else by that name.
        """
        with self._borrow_fd() as fd:
            pins.pin(fd, path, f"{self._noun} {self._name!r}")

    def unpin(self, path: str | os.PathLike[str]) -> None:
        """Remove its pin at ``path``; PinError where nothing or something else is pinned."""
        with self._borrow_fd() as fd:
            pins.unpin(path, f"{self._noun} {self._name!r}", fd)

    def close(self) -> None:
        """Give the descriptor back, at the latest when calls that use it have returned.

        What it names ends unless a pin, a program or a hook holds it.  Harmless to repeat.
        """
        self._fd.close_when_unused()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}>"


class FdBorrow:
    """Borrows an object while a descriptor of it is used."""

    __slots__ = ("_borrow", "_fd")

    def __init__(self, borrow: Borrow, fd: int) -> None:
        self._borrow = borrow
        self._fd = fd

    def __enter__(self) -> int:
        self._borrow.__enter__()
        return self._fd

    def __exit__(self, *exception: object) -> None:
        self._borrow.__exit__()


class Declared:
    """A map or program of an object: libbpf's pointer, usable while the object is open."""

    _owner: Object
    _pointer: Any
    _name: str
    _noun: str

    def _get(self, getter: Callable[[Any], Any]) -> Any:
        with self._owner._handle.borrow():
            return getter(self._pointer)

    def _set(self, what: str, setter: Callable[..., int], *values: Any) -> None:
        # a size moves the memory of variables, which nobody may use or load meanwhile
        with self._owner._loading:
            self._owner._require_open(f"set {what} of {self._noun} {self._name!r}")
            with self._owner._handle.borrow():
                code = setter(self._pointer, *values)
        _native.check(code, f"set {what} of", f"{self._noun} {self._name!r}")
