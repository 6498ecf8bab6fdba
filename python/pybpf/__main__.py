# SPDX-License-Identifier: BSD-2-Clause
"""``python -m pybpf``: the command line of pybpf.cli."""

import sys

try:
    from pybpf.cli import main

    status = main()
except KeyboardInterrupt:  # while it was still importing
    status = 130
sys.exit(status)
