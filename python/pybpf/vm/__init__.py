# SPDX-License-Identifier: BSD-2-Clause
"""Run commands under other kernels, in QEMU, on top of this machine's files.

    guest = pybpf.vm.Guest("6.12", writable=["results"])
    status = guest.run(["pytest", "tests/"])

Kernels are Debian's, downloaded by apt's own client into a cache and never installed. Nothing has
to be installed in a guest either: it has this machine's programs and libraries, Python included.
Fetching a kernel takes half a minute, once; then no network is needed. A guest starts in seconds.

``Guest(kernel)`` and its ``run()``; ``fetch(name)`` and ``fetched()``: kernels in the cache, a
``Kernel`` each; ``update_qemu()``: a newer QEMU than Debian 12 has, twice as fast.

With ``architecture="arm64"`` a guest has a small root of its own instead of this machine's.

It needs QEMU, busybox and kmod (on Debian ``apt-get install --no-install-recommends
qemu-system-x86 busybox-static kmod zstd lz4``), and apt to fetch kernels.
"""

from __future__ import annotations

from pybpf.vm.guest import Guest
from pybpf.vm.kernels import Kernel, fetch, fetched
from pybpf.vm.qemu import update as update_qemu

__all__ = ["Guest", "Kernel", "fetch", "fetched", "update_qemu"]
