# SPDX-License-Identifier: BSD-2-Clause
"""Programs of the machine that guests need, and the Debian packages that have them."""

from __future__ import annotations

import shlex
import shutil
import subprocess

from pybpf.errors import GuestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PACKAGES = {
    "apt-get": "apt",
    "apt-cache": "apt",
    "busybox": "busybox-static",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "lz4": "lz4",
    "qemu-system-aarch64": "qemu-system-arm",
    "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux",
    "zstd": "zstd",
}
# administrators' programs are not on everybody's PATH
_SYSTEM_FOLDERS = "/usr/sbin:/sbin"


def find(tool: str) -> str:
    """The path of that program; GuestError names the Debian package of one that is missing."""
    found = shutil.which(tool) or shutil.which(tool, path=_SYSTEM_FOLDERS)
    if found is None:
        package = PACKAGES[tool]
        raise GuestError(
            f"{tool} is not on this machine",
            hint=f"Debian has it in a package: apt-get install --no-install-recommends {package}",
        )
    return found


def run(
    tool: str,
    *arguments: object,
    input: bytes | None = None,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> bytes:
    """What the program prints; GuestError with what it complains about if it fails."""
    command = [find(tool), *map(str, arguments)]
    done = subprocess.run(command, input=input, capture_output=True, env=environment, cwd=cwd)
    if done.returncode:
        raise GuestError(
            f"exit status {done.returncode} of: {shlex.join(command)}",
            log=done.stderr.decode(errors="replace"),
        )
    return done.stdout
