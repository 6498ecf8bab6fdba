# SPDX-License-Identifier: BSD-2-Clause
"""What the programs of tracing.bpf.c are tested with: something to trace, and what they count."""

from __future__ import annotations

import os

FUNCTION = "do_sys_openat2"  # which opening a file calls once


def open_file():
    os.close(os.open("/dev/null", os.O_RDONLY))


def seen(program, act=open_file, counter="hits"):
    """What act() adds to the program's counter."""
    variables = program._owner.bss
    before = variables[counter]
    act()
    return variables[counter] - before


def rename():
    """Give this process the name that it has."""
    with open("/proc/self/comm", "r+") as comm:
        name = comm.read()
        comm.write(name)
