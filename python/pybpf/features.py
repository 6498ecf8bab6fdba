# SPDX-License-Identifier: BSD-2-Clause
"""Features of kernels: since which release there are, and whether this kernel has them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from pybpf.btf import Btf
from pybpf.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Feature:
    """Something that not every kernel has.

    ``words`` name it, ``since`` is the first release that has it where it is configured.  ``probe``
    asks the running kernel: True, False, or None where it cannot tell.
    """

    words: str
    since: str
    probe: Callable[[], bool | None]

    def is_missing(self) -> bool:
        """Whether this kernel certainly lacks it; asked once."""
        return _asked(self.probe) is False

    def __str__(self) -> str:
        return f"{self.words} (Linux {self.since})"


@cache
def _asked(probe: Callable[[], bool | None]) -> bool | None:
    return probe()


@cache
def _kernel_btf() -> Btf | None:
    try:
        return Btf.kernel()
    except (Error, OSError):
        return None


def has_type(*names: str) -> Callable[[], bool | None]:
    """A probe: whether the kernel's BTF has one of these types, such as "struct tcx_link"."""

    def probe() -> bool | None:
        btf = _kernel_btf()
        return None if btf is None else any(name in btf for name in names)

    return probe


XDP_LINK = Feature("links of XDP programs", "5.9", has_type("struct bpf_xdp_link"))
