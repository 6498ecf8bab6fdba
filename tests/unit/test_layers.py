# SPDX-License-Identifier: BSD-2-Clause
"""Imports go one way: each module imports only from layers below its own.

What `if TYPE_CHECKING` imports does not count: it never happens at run time.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pybpf
import pytest

PACKAGE = Path(pybpf.__file__).parent

# from the bottom to the top; docs/architecture.md draws and explains it
LAYERS = [
    {
        "errors",
        "constants",
        "_libbpf",
        "_fast",
        "verifier",
        "instructions",
        "accounting",
        "headers",
    },
    {"_native", "elf", "_handles", "kernel", "items"},
    {"btf_source", "btf_dump", "waiting", "tracefs", "streams", "holds", "ids"},
    {"btf"},
    {"shape"},
    {"layout_check", "dtype", "features", "elf_symbols", "demangling"},
    {"go_functions"},
    {"functions"},
    {"hooks.querying", "hooks.rtnetlink"},
    {"hooks.linking"},
    {"hooks.events"},
    {"hooks.perf"},
    {
        "hooks",
        "hooks.network",
        "hooks.kprobes",
        "hooks.tracing",
        "hooks.cgroups",
        "hooks.sockets",
        "hooks.lirc",
    },
    {"hooks.netlink"},
    {
        "type_changes",
        "layout",
        "map_kinds",
        "words",
        "info",
        "link_info",
        "pins",
        "symbols",
        "declarations",
        "availability",
    },
    {"hooks.binaries"},
    {"hooks.uprobes"},
    {"hooks.usdt"},
    {"attach_words"},
    {
        "codec",
        "views",
        "variable_text",
        "load_errors",
        "running",
        "kernel_object",
        "hazards",
        "type_changes",
        "record_types",
        "ring_view",
    },
    {"access", "inventory", "dump"},
    {"bulk", "map_memory", "user_ring"},
    {"map_arrays"},
    {"map"},
    {"object_map"},
    {"link", "attaching", "variables", "drops", "iteration", "record_sources", "cgroup"},
    {"network_query", "link", "attaching", "variables", "drops", "iteration", "cgroup"},
    {"program", "events", "tracing"},
    {"object"},
    {"opening", "pin_folder", "succession"},
    {"reloading"},
    {"takeover"},
    {""},  # the package itself: pybpf/__init__.py
    {"vm.cache", "vm.tools"},
    {"vm.debian"},
    {"vm.kernels"},
    {"vm.modules", "vm.initramfs", "vm.roots"},
    {"vm.qemu"},
    {"vm.guest"},
    {"vm"},
    {"cli.output"},
    {"cli.values", "cli.things", "cli.type_option", "cli.signals"},
    {"cli.template"},
    {"cli.lines"},
    {"cli.stream"},
    {"cli.inspect", "cli.load", "cli.events", "cli.unload", "cli.reload", "cli.vm"},
    {"cli.programs", "cli.maps", "cli.links", "cli.net"},
    {"cli"},
    {"__main__"},
]
# what a module needs besides the standard library; all of these are imported late
OUTSIDE = {
    "map_arrays": {"numpy"},
    "dtype": {"numpy"},
    "ring_view": {"numpy"},
    "record_types": {"numpy"},
    "elf_symbols": {"elftools"},
    "functions": {"elftools"},
    "hooks.usdt": {"elftools"},
    "cli.programs": {"capstone"},
}
# A BTF type knows what it looks like in Python: its properties import, when they are read, what
# makes ctypes classes, numpy dtypes and comparisons of it.
EXCEPTIONS = {("btf", "layout"), ("btf", "dtype"), ("btf", "layout_check")}
# ... and a map of records has a reader of them.
EXCEPTIONS.add(("map", "events"))
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}


def module_name(path: Path) -> str:
    return (
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        .removesuffix("__init__")
        .strip(".")
    )


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def is_type_checking(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def runtime_imports(node: ast.AST) -> set[str]:
    """The modules that a file imports when it runs, anywhere in it."""
    found = set()
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            continue
        if isinstance(child, ast.Import):
            found |= {alias.name for alias in child.names}
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "relative imports hide the layer"
            for alias in child.names:
                inner = f"{child.module}.{alias.name}"
                is_module = inner.removeprefix("pybpf.") in RANK and inner.startswith("pybpf.")
                found.add(inner if is_module else child.module)
        found |= runtime_imports(child)
    return found


def test_every_module_has_its_layer() -> None:
    assert set(MODULES) == set(RANK) - {"_libbpf", "_fast"}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_down(module: str) -> None:
    for imported in runtime_imports(ast.parse(MODULES[module].read_text())):
        if imported == "pybpf" or imported.startswith("pybpf."):
            below = imported.removeprefix("pybpf").removeprefix(".")
            if (module, below) in EXCEPTIONS:
                continue
            assert RANK[below] < RANK[module], f"{module or 'pybpf'} imports {imported}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_the_core_imports_the_standard_library_alone(module: str) -> None:
    allowed = OUTSIDE.get(module, set()) | ({"rich"} if module.startswith("cli") else set())
    outside = {
        name.split(".")[0] for name in runtime_imports(ast.parse(MODULES[module].read_text()))
    }
    assert outside - {"pybpf"} - allowed <= set(sys.stdlib_module_names) | {"_collections_abc"}


def test_one_module_touches_the_binding() -> None:
    users = {
        module
        for module, path in MODULES.items()
        if "pybpf._libbpf" in runtime_imports(ast.parse(path.read_text()))
    }
    assert users == {"_native"}
