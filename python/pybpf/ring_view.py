# SPDX-License-Identifier: BSD-2-Clause
"""Records as numpy arrays: copies, and views of a ring's own memory that end with their block."""

from __future__ import annotations

import ctypes
import weakref

from pybpf.errors import BusyError, LayoutError

try:
    import numpy as np
except ImportError as error:
    raise ModuleNotFoundError(
        "arrays of records need numpy: pip install pybpf[numpy]", name="numpy"
    ) from error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from pybpf._native import Records

    Array: TypeAlias = np.ndarray[Any, Any]

# The state of an array that has nothing: indexing, iterating, len() and arithmetic are errors.
_NOTHING = (1, (), np.dtype("V1"), False, b"\0")
_ROUNDED_UP = 8  # a record may be longer than its type by less: alignment


class RingArray(np.ndarray):
    """An array, or part of one, in a ring's memory; of no use once its view has ended.

    Single structs that are taken out of it are copies.
    """

    _shown: _Shown | None

    def __array_finalize__(self, source: Any) -> None:
        self._shown = getattr(source, "_shown", None)
        if self._shown is not None:
            self._shown.arrays.append(weakref.ref(self))

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        return found.copy() if isinstance(found, np.void) else found


class _Shown:
    """The ring's memory for as long as arrays show it, and those arrays."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.arrays: list[weakref.ref[RingArray]] = []
        address, size = records._memory()
        exported = (ctypes.c_char * size).from_address(address)
        exported.shown = self  # type: ignore[attr-defined]  # who has the memory has this
        self.memory = memoryview(exported).toreadonly()

    def array(self, dtype: np.dtype[Any], offset: int, count: int, stride: int) -> RingArray:
        made: RingArray = RingArray((count,), dtype, self.memory, offset, (stride,))
        made._shown = self
        self.arrays.append(weakref.ref(made))
        return made

    def end(self) -> None:
        """Empty the arrays; BusyError where others than these still show the memory."""
        for known in self.arrays:
            array = known()
            if array is not None:
                array.__setstate__(_NOTHING)  # type: ignore[arg-type]
        try:
            self.memory.release()
        except BufferError:
            raise BusyError(
                "an array that was made from this view still shows the ring, whose records stay "
                "in it therefore: copy what is needed for longer than the view"
            ) from None

    def __del__(self) -> None:
        self.records._end_view()


def require_fit(what: str, item: int, size: int) -> None:
    """LayoutError unless records of ``size`` bytes make elements of ``item`` bytes."""
    if not 0 <= size - item < _ROUNDED_UP:
        raise LayoutError(
            f"a record of {what} has {size} bytes, which its type of {item} bytes does not hold; "
            "it is the next one to be read: read_nowait() takes it"
        )


class ViewRun:
    """Records that follow each other in the ring, shown by an array until end()."""

    def __init__(self, records: Records, what: str, dtype: np.dtype[Any], most: int) -> None:
        self._records = records
        self._run = records._view(most)
        if self._run is None:
            self.array: Array = np.empty(0, dtype)
            return
        self._shown = _Shown(records)
        offset, count, stride, size, _, _ = self._run
        require_fit(what, dtype.itemsize, size)
        self.array = self._shown.array(dtype, offset, count, stride)

    def __bool__(self) -> bool:
        return self._run is not None

    def end(self, consume: bool) -> bool:
        """No array shows the records any more; whether they were still there to be consumed."""
        if self._run is None:
            return True
        shown = self._shown
        del self._shown
        shown.end()
        if not consume:
            return True
        _, count, _, size, start, end = self._run
        return bool(self._records._consume_view(count, size, start, end) == 0)


def copy(records: Records, what: str, dtype: np.dtype[Any], most: int) -> Array:
    """Up to ``most`` records that wait, as a new array."""
    item = dtype.itemsize
    most = min(most, records._backlog() // (item + _ROUNDED_UP) + 1)
    memory = np.empty(most * item, np.uint8)  # whose address is quickly told, unlike a struct's
    count, size = records._copy(memory.__array_interface__["data"][0], item, most)
    if size and not count:
        require_fit(what, item, size)
    array: Array = np.ndarray((count,), dtype, memory)
    return array


def joined(parts: list[bytes], dtype: np.dtype[Any]) -> Array:
    """An array of the records whose bytes these are."""
    whole = b"".join(part[: dtype.itemsize] for part in parts)
    array: Array = np.frombuffer(whole, dtype).copy()
    return array
