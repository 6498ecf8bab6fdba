# SPDX-License-Identifier: BSD-2-Clause
"""libbpf's short words for the kernel's numbers: "xdp", "hash", "cgroup_inet4_connect"."""

from __future__ import annotations

from pybpf import _native
from pybpf._native import lib


def program_type(number: int) -> str | None:
    """The word for a ProgramType; None for one that this libbpf does not know."""
    return _native.text(lib.libbpf_bpf_prog_type_str(number)) or None


def attach_type(number: int) -> str | None:
    """The word for an AttachType; None for one that this libbpf does not know."""
    return _native.text(lib.libbpf_bpf_attach_type_str(number)) or None


def map_type(number: int) -> str | None:
    """The word for a MapType; None for one that this libbpf does not know."""
    return _native.text(lib.libbpf_bpf_map_type_str(number)) or None


def link_type(number: int) -> str | None:
    """The word for a LinkType; None for one that this libbpf does not know."""
    return _native.text(lib.libbpf_bpf_link_type_str(number)) or None
