# SPDX-License-Identifier: BSD-2-Clause
"""What pyproject.toml cannot say: the native modules, that libbpf is built first, and the ABI."""

import os
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

sys.path.insert(0, str(Path(__file__).resolve().parent))
import build

if os.environ.get("PYBPF_LIBBPF") != "system":
    os.environ["PYBPF_LIBBPF_PREFIX"] = str(build.libbpf())

# One wheel serves every CPython by the stable ABI, which a free-threaded one does not have: that
# needs a wheel of its own.  In the module that cffi makes, cffi sees to it.
stable_abi = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    cffi_modules=["c_src/ffibuilder.py:ffibuilder"],
    ext_modules=[
        Extension(
            "pybpf._fast",
            [
                "c_src/fast.c",
                "c_src/elements.c",
                "c_src/test_run.c",
                "c_src/records.c",
                "c_src/bpf_ring.c",
                "c_src/perf_ring.c",
            ],
            depends=["c_src/fast.h", "c_src/instances.h", "c_src/rings.h", "c_src/shared_fd.h"],
            define_macros=[("Py_LIMITED_API", "0x030a0000")] if stable_abi else [],
            py_limited_api=stable_abi,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if stable_abi else {},
)
