# SPDX-License-Identifier: BSD-2-Clause
"""Programs on functions of the kernel, by kprobes."""

from __future__ import annotations

import pytest
from traced_kernel import FUNCTION, seen

KPROBES = "4.17"


@pytest.mark.parametrize("name", ["kprobe", "kretprobe"])
def test_counts_calls_until_detached(tracer, attempt, name):
    program = tracer(name)
    link = attempt(KPROBES, program.attach_kprobe, FUNCTION)
    assert link.what == f"program {name!r} to {name} {FUNCTION}"
    assert seen(program) == 1
    link.detach()
    assert seen(program) == 0
