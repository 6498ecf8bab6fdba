# SPDX-License-Identifier: BSD-2-Clause
"""The kernel's hooks, a family a module: each attaches one program and gives what holds it.

Imported when something attaches there.  Programs' attach_*() methods, in pybpf.attaching, are what
users call, and what documents them.
"""
