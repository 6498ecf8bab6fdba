# SPDX-License-Identifier: BSD-2-Clause
"""The QEMU of this machine, or a newer one in the cache, and what it is told to emulate."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pybpf.errors import GuestError
from pybpf.vm import cache, debian, tools
from pybpf.vm.kernels import machine_architecture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

    from pybpf.vm.initramfs import Share
    from pybpf.vm.kernels import Kernel

# Debian 12 has QEMU 7.2, half as fast as this one and with an error (see _cpu)
NEWER_SUITES = ("bookworm-backports", "bookworm")
NEWER_PACKAGES = (
    "qemu-system-x86",
    "qemu-system-arm",
    "qemu-system-common",
    "qemu-system-data",
    "seabios",
)
_KERNEL_OPTIONS = (
    "panic=-1 oops=panic nokaslr mitigations=off random.trust_cpu=on nowatchdog audit=0 "
    # 5.10 has no bpf among its own
    "lsm=landlock,lockdown,yama,bpf rcupdate.rcu_expedited=1 8250.nr_uarts=4 loglevel=4"
)
MEMORY_MIB = 512
_GOOD_VERSION = 8
_TRIAL_SECONDS = 10


@dataclass(frozen=True)
class Machine:
    """What differs between the architectures that guests can have."""

    binary: str
    options: tuple[str, ...]
    console: str
    #: serial ports besides the console, and what the guest calls them
    serial: str
    devices: tuple[str, str]
    #: a program that ends QEMU at once, how it is started, and QEMU's exit status then
    trial: bytes
    trial_options: tuple[str, ...]
    trial_status: int


MACHINES = {
    "amd64": Machine(
        binary="qemu-system-x86_64",
        options=("-M", "q35"),
        console="console=ttyS0 tsc=reliable no_timer_check",
        serial="isa-serial",
        devices=("/dev/ttyS1", "/dev/ttyS2"),
        # firmware, whose last 16 bytes run first: mov al, 0x10; mov dx, 0xf4; out dx, al; hlt
        trial=bytes(65536 - 16) + bytes.fromhex("b010baf400eef4").ljust(16, b"\0"),
        trial_options=("-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-bios"),
        trial_status=0x10 << 1 | 1,
    ),
    "arm64": Machine(
        binary="qemu-system-aarch64",
        options=("-M", "virt,gic-version=max"),
        console="console=ttyAMA0",
        serial="pci-serial",
        devices=("/dev/ttyS0", "/dev/ttyS1"),
        # a call to power off: movz w0, #8; movk w0, #0x8400, lsl #16; hvc #0
        trial=bytes.fromhex("000180520080b072020000d4"),
        trial_options=("-kernel",),
        trial_status=0,
    ),
}


@dataclass(frozen=True)
class Qemu:
    """A QEMU that emulates ``architecture``: how it is called, and its major version."""

    architecture: str
    command: tuple[str, ...]
    version: int

    @property
    def machine(self) -> Machine:
        return MACHINES[self.architecture]

    def has_kvm(self) -> bool:
        """Whether guests run on this machine's processor itself, found out by running one.

        /dev/kvm alone says little: there are hypervisors whose KVM takes no ordinary kernel.
        """
        if self.architecture != machine_architecture() or not Path("/dev/kvm").exists():
            return False
        return self.runs_trial("kvm", "host")

    def runs_trial(self, accelerator: str, cpu: str) -> bool:
        """Whether a program of a few instructions runs to its end."""
        machine = self.machine
        with memory_file("trial", machine.trial) as trial:
            command = [*self.command, *_bare(machine), "-accel", accelerator, "-cpu", cpu]
            command += [*machine.trial_options, path_of(trial)]
            try:
                done = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(trial.fileno(),),
                    timeout=_TRIAL_SECONDS,
                )
            except subprocess.TimeoutExpired:
                return False
            return done.returncode == machine.trial_status

    def cpu(self, kvm: bool) -> str:
        """What processor guests see."""
        if kvm:
            return "host"
        if self.architecture == "arm64":
            return "cortex-a72"
        # before QEMU 8 emulation spoils the flags after cmpxchg16b, and kernels die at random
        return "max,la57=off" if self.version >= _GOOD_VERSION else "max,la57=off,cx16=off"


def find(architecture: str) -> Qemu:
    """The cache's QEMU, else the machine's; GuestError where there is neither."""
    if architecture not in MACHINES:
        known = " and ".join(MACHINES)
        raise GuestError(
            f"guests cannot have the architecture {architecture!r}", hint=f"only {known}"
        )
    binary = MACHINES[architecture].binary
    newer = cache.folder() / "qemu"
    if newer.exists():
        data = [newer / "usr/share/qemu", newer / "usr/share/seabios", Path("/usr/share/qemu")]
        options = [option for folder in data for option in ("-L", str(folder))]
        command = (str(newer / "usr/bin" / binary), *options)
    else:
        command = (tools.find(binary),)
    return Qemu(architecture, command, _version(command[0]))


def _version(binary: str | Path) -> int:
    """The major version of that QEMU; GuestError where it does not run here."""
    said = subprocess.run([binary, "--version"], capture_output=True, text=True)
    found = re.search(r"version (\d+)", said.stdout)
    if not found:
        raise GuestError(f"{binary} does not run", log=said.stderr)
    return int(found[1])


def update() -> None:
    """Get QEMU 10 from Debian 12's backports into the cache where this machine's is older than 8.

    It is twice as fast, and guests use it from then on. It needs the libraries of Debian 12's own,
    so that has to be installed. GuestError where there is none, no apt or no network, or where it
    does not run.
    """
    if find(machine_architecture()).version >= _GOOD_VERSION:
        return

    def download(folder: Path) -> None:
        packages = debian.Packages(folder / "apt", NEWER_SUITES, machine_architecture())
        files = folder / "packages"
        files.mkdir()
        packages.download([f"{name}/{NEWER_SUITES[0]}" for name in NEWER_PACKAGES], files)
        debian.unpack(files.iterdir(), folder)
        shutil.rmtree(folder / "apt")
        shutil.rmtree(files)
        _version(folder / "usr/bin" / MACHINES[machine_architecture()].binary)

    cache.once("qemu", download)


@dataclass(frozen=True)
class Boot:
    """One start of a guest: descriptors that QEMU reads the archive from and writes to."""

    kernel: Kernel
    archive: IO[bytes]
    console: IO[bytes]
    status: IO[bytes]
    shares: Sequence[Share]
    kvm: bool

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What QEMU inherits; its stdout is the output of the guest."""
        return tuple(file.fileno() for file in (self.archive, self.console, self.status))


def command(qemu: Qemu, boot: Boot) -> list[str]:
    """QEMU's command line."""
    machine = qemu.machine
    # one thread is faster than two that wait for each other
    accelerator = "kvm" if boot.kvm else "tcg,tb-size=512,thread=single"
    arguments = [*qemu.command, *_bare(machine), "-accel", accelerator, "-cpu", qemu.cpu(boot.kvm)]
    arguments += ["-m", f"{MEMORY_MIB}", "-smp", "1", "-kernel", str(boot.kernel.image)]
    arguments += ["-initrd", path_of(boot.archive)]
    arguments += ["-append", f"{_KERNEL_OPTIONS} {machine.console}", "-device", "virtio-rng-pci"]
    arguments += ["-chardev", f"file,id=console,path={path_of(boot.console)}"]
    arguments += ["-serial", "chardev:console"]
    # not "stdio", which would make the descriptor non-blocking for all who share it
    arguments += _serial_port(machine, "output", "/proc/self/fd/1")
    arguments += _serial_port(machine, "status", path_of(boot.status))
    for share in boot.shares:
        arguments += _share(share)
    return arguments


def _bare(machine: Machine) -> list[str]:
    return [*machine.options, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]


def _serial_port(machine: Machine, name: str, path: str) -> list[str]:
    return [
        "-chardev",
        f"file,id={name},path={path}",
        "-device",
        f"{machine.serial},chardev={name}",
    ]


def _share(share: Share) -> list[str]:
    offered = (
        f"local,id={share.tag},path={_escaped(share.source)},security_model=none,multidevs=remap"
    )
    if not share.writable:
        offered += ",readonly=on"
    device = f"virtio-9p-pci,fsdev={share.tag},mount_tag={share.tag}"
    return ["-fsdev", offered, "-device", device]


def _escaped(path: str) -> str:
    return path.replace(",", ",,")


def memory_file(name: str, content: bytes = b"") -> IO[bytes]:
    """A file without a name, which nothing has to remove."""
    file = os.fdopen(os.memfd_create(name), "w+b")
    file.write(content)
    file.flush()
    return file


def path_of(file: IO[bytes]) -> str:
    """Where a child that inherits the file finds it."""
    return f"/proc/self/fd/{file.fileno()}"
