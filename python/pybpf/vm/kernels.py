# SPDX-License-Identifier: BSD-2-Clause
"""Debian's kernels, fetched into the cache and never installed."""

from __future__ import annotations

import gzip
import lzma
import os
import re
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

from pybpf.errors import GuestError
from pybpf.vm import cache, debian, tools

# stable suites keep their kernel
STABLE = {
    "5.10": ("bullseye", "bullseye-security"),
    "6.1": ("bookworm", "bookworm-security"),
    "6.12": ("trixie", "trixie-security"),
}
# these go on to newer ones; the kernel asked for is the first's that has it
MOVING = ("forky", "sid", "experimental")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def machine_architecture() -> str:
    """Debian's name of this machine's architecture."""
    machine = os.uname().machine
    return _MACHINES.get(machine, machine)


@dataclass(frozen=True)
class Kernel:
    """A kernel in the cache: ``name`` as asked for ("6.12"), and the ``folder`` of its files."""

    name: str
    architecture: str
    folder: Path

    @property
    def release(self) -> str:
        """What ``uname -r`` says in it, as "6.12.95+deb13-amd64"."""
        return (self.folder / "release").read_text()

    @property
    def image(self) -> Path:
        """What boots."""
        return self.folder / "image"

    @property
    def config(self) -> Path:
        """What it was built with, as Debian puts it into /boot."""
        return self.folder / "config"

    @property
    def modules(self) -> Path:
        """The folder of its modules, with depmod's indexes."""
        return self.folder / "lib/modules" / self.release


def fetched() -> list[Kernel]:
    """The kernels in the cache, by architecture and from old to new."""
    found = [
        Kernel(name, architecture, path)
        for path in (cache.folder() / "kernels").glob("*-*")
        if path.is_dir() and not path.name.endswith(".partial")
        for name, architecture in [path.name.rsplit("-", 1)]
    ]
    return sorted(found, key=lambda kernel: (kernel.architecture, version(kernel.name)))


def version(name: str) -> tuple[int, ...]:
    """ "6.12" as numbers, to be compared."""
    return tuple(map(int, name.split(".")))


def fetch(name: str, architecture: str | None = None) -> Kernel:
    """The newest Debian kernel of the series ``name`` ("6.12"), from the cache if it is there.

    ``architecture`` is Debian's name of one ("amd64", "arm64"), this machine's unless given. The
    packages come by apt's own client from the archive that this machine's apt uses; nothing of its
    configuration, lists or installed packages changes. Needs no privilege. GuestError where no
    suite has that kernel, or where there is no apt or no network.
    """
    architecture = architecture or machine_architecture()
    if not re.fullmatch(r"\d+\.\d+", name):
        raise GuestError(f"{name!r} names no kernel", hint='the first two numbers do: "6.12"')
    folder = cache.once(
        f"kernels/{name}-{architecture}", lambda folder: _download(name, architecture, folder)
    )
    return Kernel(name, architecture, folder)


def _download(name: str, architecture: str, folder: Path) -> None:
    seen = []
    choices = [STABLE[name]] if name in STABLE else [(suite,) for suite in MOVING]
    for suites in choices:
        apt_folder = folder / "apt"
        packages = debian.Packages(apt_folder, suites, architecture)
        parts = _packages_of_kernel(packages, architecture)
        if any(_is_of_series(part, name) for part in parts):
            _unpack(packages, parts, folder)
            shutil.rmtree(apt_folder)
            _prepare(folder, architecture)
            return
        shutil.rmtree(apt_folder)
        seen += [f"{suites[0]}: {part}" for part in parts if part.startswith("linux-image")]
    raise GuestError(
        f"none of Debian's suites has a kernel {name} for {architecture}",
        hint=f"there are {', '.join(STABLE)}, and now in {', '.join(seen)}",
    )


def _packages_of_kernel(packages: debian.Packages, architecture: str) -> list[str]:
    # one package until 7.x has the binary and the modules in packages of their own
    parts = re.compile(r"linux-(image|base|binary|modules)-\d")
    return [name for name in packages.needed_by(f"linux-image-{architecture}") if parts.match(name)]


def _is_of_series(package: str, name: str) -> bool:
    return re.match(rf"linux-image-{re.escape(name)}(?!\d)", package) is not None


def _unpack(packages: debian.Packages, parts: list[str], folder: Path) -> None:
    files = folder / "packages"
    files.mkdir()
    packages.download(parts, files)
    debian.unpack(files.iterdir(), folder / "root")
    shutil.rmtree(files)


def _prepare(folder: Path, architecture: str) -> None:
    """Put what a guest needs where Kernel has it, and forget the rest of the packages."""
    root = folder / "root"
    (modules,) = (path.parent for path in root.glob("**/lib/modules/*/kernel"))
    release = modules.name
    (folder / "release").write_text(release)
    (folder / "lib/modules").mkdir(parents=True)
    modules = modules.rename(folder / "lib/modules" / release)
    image = _one_of(root / f"boot/vmlinuz-{release}", modules / "vmlinuz", modules / "vmlinux")
    if architecture == "amd64":
        (folder / "image").write_bytes(elf_image(image.read_bytes()))
    else:
        shutil.move(image, folder / "image")
    shutil.move(_one_of(root / f"boot/config-{release}", modules / "config"), folder / "config")
    shutil.rmtree(root)
    tools.run("depmod", "-b", folder, release)


def _one_of(*paths: Path) -> Path:
    for path in paths:
        if path.exists():
            return path
    raise GuestError(f"the kernel's packages have none of {', '.join(map(str, paths))}")


def elf_image(bzimage: bytes) -> bytes:
    """The ELF kernel in a bzImage of x86: QEMU boots that at once, and no guest decompresses it."""
    sectors = bzimage[0x1F1] or 4
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    payload = bzimage[(sectors + 1) * 512 + offset :][:length]
    if payload.startswith(b"\xfd7zXZ"):
        return lzma.LZMADecompressor().decompress(payload)
    payload = payload[:-4]  # the size of the ELF file
    if payload.startswith(b"\x1f\x8b"):
        return gzip.decompress(payload)
    tool = "zstd" if payload.startswith(b"\x28\xb5\x2f\xfd") else "lz4"
    return tools.run(tool, "-dcq", input=payload)
