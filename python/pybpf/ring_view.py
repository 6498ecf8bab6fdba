# SPDX-License-Identifier: BSD-2-Clause
"""Records as numpy arrays: copies, and views of a ring's own memory that end with their block."""

from __future__ import annotations

import ctypes
import weakref

from pybpf.errors import ClosedError, LayoutError, StateError

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

    _shown: Shown | None

    def __array_finalize__(self, source: Any) -> None:
        self._shown = None
        shown = getattr(source, "_shown", None)
        if shown is not None and shown.has(self):
            shown.adopt(self)

    def __getitem__(self, key: Any) -> Any:
        shown = self._shown
        if shown is None:  # a copy, or computed
            return super().__getitem__(key)
        shown.require_open()
        # Indexed as a plain array, so that the base of plain arrays made from it is the memory.
        found: Any = self.view(np.ndarray)[key]
        if isinstance(found, np.void):
            return found.copy()
        return shown.adopt(found.view(RingArray)) if shown.is_base_of(found) else found


class Shown:
    """Records that follow each other in a ring's memory, and the arrays that show them.

    The memory stays mapped for as long as any of these arrays is there, of use or not.
    """

    def __init__(self, records: Records, run: tuple[Any, ...], dtype: np.dtype[Any]) -> None:
        self._records = records
        self._kept, address, size, offset, count, stride, _ = run
        # ctypes' instances have attributes: who has the memory keeps the ring
        exported: Any = (ctypes.c_char * size).from_address(address)
        exported.kept = self._kept
        self._whole = np.frombuffer(memoryview(exported).toreadonly(), np.uint8)
        self.arrays: weakref.WeakValueDictionary[int, RingArray] = weakref.WeakValueDictionary()
        self._is_open = True
        self.array = self.adopt(RingArray((count,), dtype, self._whole, offset, (stride,)))

    def adopt(self, array: RingArray) -> RingArray:
        array._shown = self
        self.arrays[id(array)] = array
        return array

    def has(self, array: Array) -> bool:
        """Whether an array is in the ring's memory."""
        return self._is_open and np.may_share_memory(array, self._whole)

    def is_base_of(self, found: Any) -> bool:
        return getattr(found, "base", None) is self._whole

    def require_open(self) -> None:
        if not self._is_open:
            raise ClosedError("the view of these records has ended: copy them inside its block")

    def end(self) -> bool:
        """Empty the arrays; whether nothing else shows the memory that numpy knows of."""
        self._is_open = False
        for array in list(self.arrays.values()):
            array.__setstate__(_NOTHING)  # type: ignore[arg-type]
        whole = weakref.ref(self._whole)
        del self.array, self._whole
        return whole() is None

    def consume(self) -> None:
        """Give the records back to the kernel."""
        if not self._records._consume_view(self._kept):
            raise StateError("these records were read by others while the view showed them")


def require_fit(what: str, item: int, size: int) -> None:
    """LayoutError unless records of ``size`` bytes make elements of ``item`` bytes."""
    if not 0 <= size - item < _ROUNDED_UP:
        raise LayoutError(
            f"a record of {what} has {size} bytes, which its type of {item} bytes does not hold; "
            "it is the next one to be read: read_nowait() takes it"
        )


def shown(records: Records, what: str, dtype: np.dtype[Any], most: int) -> Shown | None:
    """The next records that are alike; None where there are none."""
    run = records._view(most)
    if run is None:
        return None
    require_fit(what, dtype.itemsize, run[-1])
    return Shown(records, run, dtype)


def array_of(copied: list[tuple[bytearray, int]], dtype: np.dtype[Any]) -> Array:
    """The array of at most one part."""
    memory, count = copied[0] if copied else (bytearray(dtype.itemsize), 0)
    array: Array = np.ndarray((count,), dtype, memory)
    return array


def parts(copied: list[tuple[bytearray, int]], item: int) -> list[bytes]:
    """The bytes of each record."""
    return [bytes(memory[i * item :][:item]) for memory, count in copied for i in range(count)]


def joined(parts: list[bytes], dtype: np.dtype[Any]) -> Array:
    """An array of the records whose bytes these are."""
    whole = b"".join(part[: dtype.itemsize] for part in parts)
    array: Array = np.frombuffer(whole, dtype).copy()
    return array
