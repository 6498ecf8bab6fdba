# SPDX-License-Identifier: BSD-2-Clause
"""Describes the native module pybpf._libbpf to cffi; setup.py has setuptools build it.

Environment: PYBPF_LIBBPF=system links the libbpf that pkg-config finds; otherwise ``build.py
libbpf`` has put headers and a static library into .build/libbpf (or PYBPF_LIBBPF_PREFIX).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent


def libbpf_options() -> dict[str, list[str]]:
    """How to compile and link against the chosen libbpf."""
    if os.environ.get("PYBPF_LIBBPF") == "system":
        return {
            "include_dirs": [str(HERE)],
            "extra_compile_args": pkg_config("--cflags"),
            "extra_link_args": pkg_config("--libs"),
        }
    prefix = Path(os.environ["PYBPF_LIBBPF_PREFIX"])
    return {
        # libbpf's own copies of the kernel headers come first: they match its code
        "include_dirs": [str(HERE), str(prefix / "include"), str(prefix / "include/uapi")],
        "define_macros": [("PYBPF_WRAP_SYSCALL", "1")],  # type: ignore[list-item]
        "extra_objects": [str(prefix / "lib/libbpf.a")],
        "libraries": ["elf", "z"],
        "extra_link_args": ["-Wl,--wrap=syscall", "-Wl,--exclude-libs,ALL"],
    }


def pkg_config(what: str) -> list[str]:
    command = ["pkg-config", what, "libbpf >= 1.1"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()


ffibuilder = FFI()
ffibuilder.cdef((HERE / "libbpf.cdef.h").read_text())
ffibuilder.set_source(
    "pybpf._libbpf",
    '#include "shim.h"\n#include <linux/bpf.h>\n',
    sources=[
        "c_src/shim.c",
        "c_src/map.c",
        "c_src/btf_dump.c",
        "c_src/user_ring.c",
        "c_src/hooks.c",
    ],
    py_limited_api=True,
    **libbpf_options(),
)
