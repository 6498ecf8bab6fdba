# SPDX-License-Identifier: BSD-2-Clause
"""A command under another kernel, on top of this machine's files."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from pathlib import Path

from pybpf.errors import GuestError, GuestTimeout
from pybpf.vm import initramfs, kernels, modules, qemu, roots, tools
from pybpf.vm.initramfs import Share

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import IO

    from pybpf.vm.kernels import Kernel

# what of this process's environment a guest has too
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV")
_FOREIGN = {"PATH": "/usr/sbin:/usr/bin", "HOME": "/root"}
_LAST_SECONDS = 10


class Guest:
    """A virtual machine that runs one command after the other, each after a fresh start.

    ``kernel`` is a series of Debian's kernels ("6.12"), fetched unless it is in the cache. Its
    files are this machine's: commands run as root in the same folder and find the same programs.
    What they write is gone afterwards, but in the folders ``writable``, which are the
    machine's own. It has one CPU and 512 MiB, is emulated where KVM does not work, and then ten
    times slower. It needs no privilege here, but can read no more than this process.

    With another ``architecture`` ("arm64", "amd64") a guest has a small root of Debian's packages
    instead, fetched as well, with Python, and this machine's current folder.

    GuestError where the kernel, QEMU or busybox cannot be had.
    """

    def __init__(
        self,
        kernel: str,
        *,
        architecture: str | None = None,
        writable: Iterable[str | os.PathLike[str]] = (),
    ) -> None:
        self.kernel: Kernel = kernels.fetch(kernel, architecture)
        self._foreign = self.kernel.architecture != kernels.machine_architecture()
        self._root = roots.fetch(self.kernel.architecture) if self._foreign else Path("/")
        self._writable = [_folder(path) for path in writable]
        self._qemu = qemu.find(self.kernel.architecture)
        self._kvm: bool | None = None

    @property
    def kvm(self) -> bool:
        """Whether it runs on the processor itself; False: it is emulated in software."""
        if self._kvm is None:
            self._kvm = self._qemu.has_kvm()
        return self._kvm

    def run(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        output: IO[bytes] | None = None,
        timeout: float | None = None,
    ) -> int:
        """Start the guest, run ``command`` in it, and return its exit status.

        What the command prints, its stderr too, goes to ``output`` (stdout unless given) as it
        comes; it reads nothing. It has PATH, HOME, LANG, LC_ALL, PYTHONPATH and VIRTUAL_ENV of
        this process's environment, and ``environment``.

        GuestTimeout after ``timeout`` seconds, the start included; GuestError with the guest's
        console in its ``log`` where it ends without a status, as after a panic.
        """
        deadline = time.monotonic() + timeout if timeout is not None else None
        shares = self._shares()
        with (
            qemu.memory_file(
                "archive", self._archive(command, environment or {}, shares)
            ) as archive,
            qemu.memory_file("console") as console,
            qemu.memory_file("status") as status,
        ):
            boot = qemu.Boot(self.kernel, archive, console, status, shares, self.kvm)
            # QEMU ends with this process, however that ends
            prefix = [tools.find("setpriv"), "--pdeathsig", "KILL"]
            process = subprocess.Popen(
                [*prefix, *qemu.command(self._qemu, boot)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=console,
                pass_fds=boot.descriptors,
            )
            try:
                ended = _forward(process, output or sys.stdout.buffer, deadline)
            finally:
                process.kill()
                process.communicate()
            log = _contents(console)
            if not ended:
                raise GuestTimeout(f"{self}: no end of {command[0]} within {timeout:g} s", log=log)
            said = _contents(status).split()
            if not said:
                raise GuestError(f"{self}: it ended without {command[0]} having ended", log=log)
            return int(said[0])

    def __repr__(self) -> str:
        return f"<Guest with Linux {self.kernel.release}>"

    def _shares(self) -> list[Share]:
        modules_at = f"/usr/lib/modules/{self.kernel.release}"
        shares = [
            Share("root", str(self._root), "/"),
            Share("modules", str(self.kernel.modules), modules_at),
        ]
        if self._foreign:
            shares.append(Share("here", os.getcwd(), os.getcwd()))
        for number, path in enumerate(self._writable):
            shares.append(Share(f"writable{number}", str(path), str(path), writable=True))
        return shares

    def _archive(
        self, command: Sequence[str], environment: Mapping[str, str], shares: Sequence[Share]
    ) -> bytes:
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        busybox = tools.find("busybox")
        if self._foreign:
            inherited, busybox = _FOREIGN, str(self._root / "usr/bin/busybox")
        all_of_it = {**inherited, "PYTHONUNBUFFERED": "1", "TERM": "dumb", **environment}
        output, status = self._qemu.machine.devices
        return initramfs.archive(
            busybox=Path(busybox).read_bytes(),
            config=self.kernel.config.read_bytes(),
            modules=modules.contents(self.kernel, initramfs.MODULES),
            shares=shares[1:],
            command=initramfs.command_script(command, os.getcwd(), all_of_it),
            output=output,
            status=status,
        )


def _folder(path: str | os.PathLike[str]) -> Path:
    if not os.path.isdir(path):
        raise GuestError(f"{os.fspath(path)} is no folder that a guest could write to")
    return Path(path).resolve()


def _forward(process: subprocess.Popen[bytes], output: IO[bytes], deadline: float | None) -> bool:
    """Copy the guest's output until QEMU has ended; False if it has not by the deadline."""
    source = process.stdout
    assert source is not None
    with selectors.DefaultSelector() as selector:
        selector.register(source, selectors.EVENT_READ)
        while True:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            if not selector.select(left):
                return False
            data = os.read(source.fileno(), 65536)
            if not data:
                process.wait(_LAST_SECONDS)
                return True
            output.write(data)
            output.flush()


def _contents(file: IO[bytes]) -> str:
    """What others have written to the file."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")
