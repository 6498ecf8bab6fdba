# SPDX-License-Identifier: BSD-2-Clause
"""Headers for BPF programs that come with the package: <pybpf/events.bpf.h>."""

from __future__ import annotations

import os


def get_include() -> str:
    """The folder to give to clang as -I, so that ``#include <pybpf/events.bpf.h>`` is found.

    That header writes records into ring buffers and counts those lost (docs/events.md).
    """
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "include")
