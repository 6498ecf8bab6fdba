# SPDX-License-Identifier: BSD-2-Clause
"""What pyproject.toml cannot say: the native module, and that its libbpf is built first."""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup

sys.path.insert(0, str(Path(__file__).resolve().parent))
import build

if os.environ.get("PYBPF_LIBBPF") != "system":
    os.environ["PYBPF_LIBBPF_PREFIX"] = str(build.libbpf())

setup(
    cffi_modules=["c_src/ffibuilder.py:ffibuilder"],
    ext_modules=[
        Extension(
            "pybpf._fast",
            ["c_src/fast.c", "c_src/elements.c", "c_src/test_run.c"],
            depends=["c_src/fast.h", "c_src/shared_fd.h"],
            define_macros=[("Py_LIMITED_API", "0x030a0000")],
            py_limited_api=True,
        )
    ],
)
