# SPDX-License-Identifier: BSD-2-Clause
"""What a guest starts from: an archive with busybox, modules and scripts, made for each start.

Two scripts are PID 1 in turn. ``init`` builds the guest's root, the shared folder below a tmpfs
that takes what is written, and ``start`` runs in that root.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# where the guest finds what comes with the archive, once it has its root
RUN = "/run/pybpf"
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
_9P = "trans=virtio,version=9p2000.L,msize=512000"
_DIRECTORY, _FILE, _PROGRAM, _CHARACTER_DEVICE = 0o040755, 0o100644, 0o100755, 0o020600


@dataclass(frozen=True)
class Share:
    """A folder that a guest mounts at ``path``, offered by QEMU under the name ``tag``."""

    tag: str
    source: str
    path: str
    writable: bool = False

    @property
    def mount(self) -> str:
        """The shell's command that mounts it in the guest."""
        options = f"cache=none,{_9P}" if self.writable else f"ro,cache=loose,{_9P}"
        at = shlex.quote(self.path)
        return f"$B mkdir -p {at} && $B mount -t 9p -o {options} {self.tag} {at} || die {at}"


_INIT = """\
#!/bin/busybox sh
B=/bin/busybox
$B mount -t devtmpfs dev /dev
exec </dev/null >/dev/console 2>&1
$B mount -t proc proc /proc
$B mount -t sysfs sys /sys
die() { echo "pybpf: cannot prepare $1"; $B sleep 0.3; $B reboot -f; }
for module in /modules/*; do
    [ ! -e "$module" ] || $B insmod "$module" || die "$module"
done
$B mkdir -p /shared /written /root
$B mount -t 9p -o @9P@ root /shared || die "the root"
$B mount -t tmpfs -o size=75%,mode=755 written /written || die "a tmpfs"
$B mkdir -p /written/upper /written/work
$B mount -t overlay -o lowerdir=/shared,upperdir=/written/upper,workdir=/written/work o /root ||
    die "the overlay"
$B mount -t devtmpfs dev /root/dev
$B mount -t tmpfs -o mode=755 run /root/run
$B mkdir -p /root@RUN@ /root/boot
$B cp /bin/busybox /start /command /root@RUN@/
$B cp /config "/root/boot/config-$($B uname -r)"
$B umount /proc
$B umount /sys
# PID 1 switches and does not chroot: what the kernel starts by itself (modprobe) has the root too
exec $B switch_root -c /dev/console /root @RUN@/busybox sh @RUN@/start
"""

_START = """\
B=@RUN@/busybox
die() { echo "pybpf: cannot mount $1"; $B sleep 0.3; $B reboot -f; }
$B mount -t proc proc /proc
$B mount -t sysfs sys /sys
$B mkdir -p /dev/pts /dev/shm /run/lock
$B mount -t devpts pts /dev/pts
$B mount -t tmpfs -o mode=1777 shm /dev/shm
$B mount -t bpf bpf /sys/fs/bpf
$B mount -t cgroup2 cgroup /sys/fs/cgroup
$B mount -t debugfs debug /sys/kernel/debug
$B mount -t tracefs trace /sys/kernel/tracing
$B mount -t securityfs security /sys/kernel/security
@SHARES@
$B ln -sf /proc/self/fd /dev/fd
$B ln -sf fd/0 /dev/stdin
$B ln -sf fd/1 /dev/stdout
$B ln -sf fd/2 /dev/stderr
$B ip link set lo up
$B hostname pybpf
$B stty -F @OUTPUT@ raw -echo
/bin/sh @RUN@/command </dev/null >@OUTPUT@ 2>&1
status=$?
$B stty -F @OUTPUT@ sane >/dev/null 2>&1  # returns when all output is out
echo "$status" >@STATUS@
$B stty -F @STATUS@ sane >/dev/null 2>&1
$B reboot -f
"""


def command_script(command: Sequence[str], cwd: str, environment: Mapping[str, str]) -> str:
    """What the guest's shell runs."""
    exports = "".join(f"export {name}={shlex.quote(text)}\n" for name, text in environment.items())
    return f"{exports}cd {shlex.quote(cwd)} || exit\nexec {shlex.join(command)}\n"


def archive(
    *,
    busybox: bytes,
    config: bytes,
    modules: Mapping[str, bytes],
    shares: Sequence[Share],
    command: str,
    output: str,
    status: str,
) -> bytes:
    """The initramfs of a guest that writes to the devices ``output`` and ``status``."""
    values = {
        "@9P@": f"ro,cache=loose,{_9P}",
        "@RUN@": RUN,
        "@SHARES@": "\n".join(share.mount for share in shares),
        "@OUTPUT@": output,
        "@STATUS@": status,
    }
    made = Archive()
    for folder in ("bin", "dev", "proc", "sys", "modules"):
        made.add(folder, mode=_DIRECTORY)
    made.add("dev/console", mode=_CHARACTER_DEVICE, device=(5, 1))
    made.add("bin/busybox", busybox, _PROGRAM)
    made.add("init", _filled(_INIT, values), _PROGRAM)
    made.add("start", _filled(_START, values))
    made.add("command", command.encode())
    made.add("config", config)
    for number, (name, content) in enumerate(modules.items()):
        made.add(f"modules/{number:02}-{name}.ko", content)
    return made.finish()


def _filled(script: str, values: Mapping[str, str]) -> bytes:
    for name, value in values.items():
        script = script.replace(name, value)
    return script.encode()


class Archive:
    """A cpio archive as the kernel reads it (format "newc")."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._count = 0

    def add(
        self, name: str, content: bytes = b"", mode: int = _FILE, device: tuple[int, int] = (0, 0)
    ) -> None:
        self._count += 1
        text = name.encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, the file system's device, its own, ...
        numbers = (self._count, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(text), 0)
        header = b"070701" + b"".join(b"%08X" % number for number in numbers)
        for part in (header + text, content):
            self._bytes += part
            self._bytes += b"\0" * (-len(self._bytes) % 4)

    def finish(self) -> bytes:
        """The whole archive."""
        self.add("TRAILER!!!", mode=0)
        return bytes(self._bytes)
