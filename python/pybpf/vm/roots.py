# SPDX-License-Identifier: BSD-2-Clause
"""Small roots of other architectures, of Debian's packages, with Python and what wheels need."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from pybpf.vm import cache, debian, tools

SUITE = "trixie"
PACKAGES = (
    "base-files",
    "bash",
    "busybox-static",
    "coreutils",
    "iproute2",
    "kmod",
    "libelf1t64",
    "mount",
    "python3",
    "zlib1g",
)
_FOLDERS = (
    "usr/bin",
    "usr/sbin",
    "usr/lib",
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "root",
    "var",
    "etc",
)


def fetch(architecture: str) -> Path:
    """The root of that architecture, from the cache if it is there.

    No script of a package is run. GuestError where there is no apt or no network.
    """

    def make(folder: Path) -> None:
        packages = debian.Packages(folder / "apt", [SUITE], architecture)
        files = packages.download_all(PACKAGES)
        for name in _FOLDERS:
            (folder / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib"):
            (folder / name).symlink_to(f"usr/{name}")
        for file in files:
            _unpack(file, folder)
        shutil.rmtree(folder / "apt")
        (folder / "usr/bin/sh").unlink(missing_ok=True)
        (folder / "usr/bin/sh").symlink_to("bash")
        (folder / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")

    return cache.once(f"roots/{architecture}", make)


def _unpack(package: Path, root: Path) -> None:
    # dpkg-deb -x would put folders where /bin, /sbin and /lib are links
    archive = tools.run("dpkg-deb", "--fsys-tarfile", package)
    subprocess.run(
        ["tar", "-C", str(root), "--keep-directory-symlink", "-xf", "-"], input=archive, check=True
    )
