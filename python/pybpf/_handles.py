# SPDX-License-Identifier: BSD-2-Clause
"""Who owns what: resources with one owner, that nobody uses after close and nobody frees in use."""

from __future__ import annotations

import os
import sys

from pybpf.errors import BusyError, ClosedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from typing_extensions import Self

    from pybpf.object import Object


def warn_unclosed(what: str, thing: object) -> None:
    """The ResourceWarning of something that is collected while open."""
    import warnings

    warnings.warn(f"unclosed {what}", ResourceWarning, source=thing, stacklevel=3)


class Uncopyable:
    """A base of what owns something: a copy or a pickle of it would own it again."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} cannot be copied or pickled: it stands for something that "
            "this process holds in the kernel; pass its id or a pin's path on"
        )


class Closable(Uncopyable):
    """A base of what close() ends, or a ``with`` block, or collection with a ResourceWarning."""

    _owner: Object | None = None  # which closes it as well, so that it may be dropped

    @property
    def closed(self) -> bool:
        """Whether close() was called; AttributeError where it was never whole."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def _words(self) -> str:
        """What its repr() says."""
        return type(self).__name__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{self._words()}{' closed' if self.closed else ''}>"

    def __del__(self) -> None:
        try:
            is_closed = self.closed
        except AttributeError:  # what __init__ has not made cannot be closed
            return
        if is_closed or sys.is_finalizing():
            return
        try:
            if self._owner is None:
                warn_unclosed(repr(self), self)
        finally:
            self.close()


class Handle(Uncopyable):
    """A resource of C or the kernel (a pointer, a descriptor) with its destructor.

    cffi drops the GIL inside calls, so another thread may close while one is inside, and a signal
    handler may close between any two steps.  borrow() notes each user, and nothing is destroyed
    under one.  There is no lock that a handler could find taken: every step is one atomic
    operation on a set or a list, in an order that is right wherever it is interrupted.
    """

    __slots__ = ("__weakref__", "_closed", "_destroy", "_resource", "_users", "what")

    def __init__(self, resource: Any, destroy: Callable[[Any], object], what: str) -> None:
        self._resource = [resource]
        self._destroy = destroy
        self._users: set[object] = set()
        self._closed = False
        self.what = what

    @property
    def closed(self) -> bool:
        return self._closed

    def borrow(self) -> Borrow:
        """``with handle.borrow() as resource``: valid inside the block; ClosedError after close."""
        return Borrow(self)

    def is_shared(self) -> bool:
        """Whether it is borrowed more than once."""
        return len(self._users) > 1

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """``function(*arguments)`` within a borrow, for what is itself quicker than a Borrow is.

        Interrupts come when a call begins or has returned.  So none comes between the borrow's end
        and what is done before it, and the outer ``finally`` follows even one that comes after it.
        """
        user = object()
        try:
            try:
                self._users.add(user)  # before looking, as in Borrow
                if self._closed:
                    raise ClosedError(f"{self.what} is closed")
                return function(*arguments)
            finally:
                self._users.discard(user)
        finally:
            if self._closed:
                self._destroy_unused()

    def close(self) -> None:
        """Destroy the resource, once; BusyError while it is borrowed."""
        if self._users and not self._closed:
            raise BusyError(f"{self.what} is in use by another call; close it afterwards")
        self.close_when_unused()

    def close_when_unused(self) -> None:
        """Refuse new users from now on, and destroy the resource when the last one has left."""
        self._closed = True
        self._destroy_unused()

    def abandon(self) -> None:
        """Forget the resource without destroying it."""
        self._closed = True
        self._resource.clear()

    def _destroy_unused(self) -> None:
        if not self._closed or self._users:
            return
        try:
            resource = self._resource.pop()
        except IndexError:
            return  # somebody else came first
        self._destroy(resource)


class Borrow:
    """The context manager that Handle.borrow() returns."""

    __slots__ = ("_handle",)

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def __enter__(self) -> Any:
        handle = self._handle
        handle._users.add(id(self))  # before looking: who closes from here on sees a user
        if handle._closed:
            self._leave()
            raise ClosedError(f"{handle.what} is closed")
        return handle._resource[0]

    def __exit__(self, *exception: object) -> None:
        self._leave()

    def __del__(self) -> None:
        # an interrupt inside __enter__ means that there is no __exit__; inside __init__, no handle
        if hasattr(self, "_handle"):
            self._leave()

    def _leave(self) -> None:
        self._handle._users.discard(id(self))
        self._handle._destroy_unused()


class OwnedFd(Handle):
    """A descriptor that close_when_unused() closes or, with a ResourceWarning, collection."""

    __slots__ = ()

    def __init__(self, fd: int, what: str) -> None:
        super().__init__(fd, os.close, what)

    def fileno(self) -> int:
        """The number itself, which means nothing once the descriptor is closed."""
        with self.borrow() as fd:
            return int(fd)

    def __del__(self) -> None:
        # an interrupt inside __init__ leaves nothing to look at
        if getattr(self, "_closed", True) or sys.is_finalizing():
            return
        try:
            warn_unclosed(self.what, self)
        finally:
            self.close_when_unused()
