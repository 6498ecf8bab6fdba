# SPDX-License-Identifier: BSD-2-Clause
"""``python -m pybpf``: the command line of pybpf.cli."""

import sys

from pybpf.cli import main

sys.exit(main())
