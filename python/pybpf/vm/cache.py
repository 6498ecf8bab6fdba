# SPDX-License-Identifier: BSD-2-Clause
"""Where what was fetched is kept, and how it gets there whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def folder() -> Path:
    """``$PYBPF_CACHE``, or ``pybpf`` in ``$XDG_CACHE_HOME``, which is ``~/.cache`` unless set."""
    own = os.environ.get("PYBPF_CACHE")
    if own:
        return Path(own).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "pybpf"


def once(name: str, make: Callable[[Path], None]) -> Path:
    """The cache's folder ``name``, made by ``make(folder)`` unless it is there.

    Processes that want the same one wait for the one that makes it. What ``make`` leaves after an
    error is removed.
    """
    made = folder() / name
    if made.exists():
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    with _locked(made.with_name(made.name + ".lock")):
        if not made.exists():
            partial = made.with_name(made.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            try:
                make(partial)
                partial.rename(made)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return made


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
