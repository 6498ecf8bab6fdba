# SPDX-License-Identifier: BSD-2-Clause
"""Programs of remote controls, which kernels of distributions do not have."""

from __future__ import annotations

import pybpf
import pytest


def test_the_device_or_the_kernel_is_named(bpf_object, kernel_btf):
    """No program of the right type loads where the kernel lacks them, so another one tries."""
    try:
        kernel_btf.find("lirc_prog_attach", pybpf.btf.Kind.FUNC)
    except pybpf.NotFoundError:
        expected, words = pybpf.NotSupportedError, r"lirc devices \(Linux 4.18\)"
    else:
        expected, words = pybpf.AttachError, "/dev/no-lirc cannot be opened"
    with pybpf.load(bpf_object("iterators")) as obj:
        with pytest.raises(expected, match=words):
            obj.programs["no_iterator"].attach_lirc("/dev/no-lirc")
        assert obj.links == ()
