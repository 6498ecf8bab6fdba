# SPDX-License-Identifier: BSD-2-Clause
"""Values of variables as people write them on a command line."""

from __future__ import annotations

from pybpf.btf import Array, Enum, Float, Int
from pybpf.errors import LayoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf.btf import Type

_BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def parse_value(btf_type: Type, text: str) -> Any:
    """``text`` as a value of that type.

    Numbers (also 0x.., 0b..), true or false, an enumerator, text for char arrays, values with
    commas between for other arrays, hex digits for structs.

    LayoutError where it cannot be read as one.
    """
    resolved = btf_type.resolve()
    if isinstance(resolved, Int) and resolved.is_bool:
        if text.lower() not in _BOOLS:
            raise LayoutError(f"{text!r} is neither true nor false")
        return _BOOLS[text.lower()]
    if isinstance(resolved, Enum) and text in resolved.values:
        return resolved.values[text]
    if isinstance(resolved, Array):
        element = resolved.type.resolve()
        if isinstance(element, Int) and element.name == "char":
            return text
        return [parse_value(element, part) for part in text.split(",")]
    try:
        if isinstance(resolved, Float):
            return float(text)
        return int(text, 0) if isinstance(resolved, (Int, Enum)) else bytes.fromhex(text)
    except ValueError:
        raise LayoutError(f"{text!r} is no value of type {btf_type}") from None
