# SPDX-License-Identifier: BSD-2-Clause
"""client.py BUILD_FOLDER --list | --startup | -      (README.md has the protocol)

The client itself is a module, so that its bytecode is cached: a start-up is measured.
"""

from pybpf_client import main

main()
