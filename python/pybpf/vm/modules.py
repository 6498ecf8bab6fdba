# SPDX-License-Identifier: BSD-2-Clause
"""The modules of a kernel that a guest needs before it has its files."""

from __future__ import annotations

import lzma

from pybpf.errors import GuestError
from pybpf.vm import tools

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from pybpf.vm.kernels import Kernel


def contents(kernel: Kernel, wanted: tuple[str, ...]) -> dict[str, bytes]:
    """The contents of the modules that are not built in, by name, each after what it needs."""
    lines = (kernel.modules / "modules.dep").read_text().splitlines()
    needs = {path: rest.split() for path, _, rest in (line.partition(":") for line in lines)}
    paths = {_name(path): path for path in needs}
    built_in = {_name(path) for path in _built_in(kernel)}
    ordered: dict[str, bytes] = {}

    def add(path: str) -> None:
        for need in reversed(needs[path]):
            add(need)
        ordered.setdefault(_name(path), _module(kernel.modules / path))

    for name in wanted:
        if name in paths:
            add(paths[name])
        elif name not in built_in:
            raise GuestError(f"{kernel.release} has no module {name}, which guests need")
    return ordered


def _name(path: str) -> str:
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def _built_in(kernel: Kernel) -> list[str]:
    return (kernel.modules / "modules.builtin").read_text().split()


def _module(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    return tools.run("zstd", "-dcq", input=data) if path.suffix == ".zst" else data
