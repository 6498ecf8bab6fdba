# SPDX-License-Identifier: BSD-2-Clause
"""What this kernel has and this process may do, and from it the reason behind an errno."""

from __future__ import annotations

import errno as _errno
import os

from pybpf.errors import KernelError, PrivilegeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable

# <linux/capability.h>
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}
_INITIAL_USER_NAMESPACE = ["0", "0", "4294967295"]

# Numbers of ProgramType whose loading asks for more than CAP_BPF: kernel/bpf/syscall.c,
# is_perfmon_prog_type() and is_net_admin_prog_type()
_TRACING_TYPES = frozenset((2, 5, 7, 17, 24, 26, 27, 28, 29))
_NETWORK_TYPES = frozenset((3, 4, 6, 9, 10, 11, 12, 13, 14, 15, 16, 18, 19, 22, 23, 25, 28, 30, 32))


# ---- privileges ----------------------------------------------------------------------------------


def needed_capabilities(program_types: Iterable[int] = ()) -> tuple[str, ...]:
    """What loading and attaching programs of those types takes; CAP_SYS_ADMIN stands for all."""
    types = set(program_types)
    needed = ["CAP_BPF"]
    if types & _TRACING_TYPES:
        needed.append("CAP_PERFMON")
    if types & _NETWORK_TYPES:
        needed.append("CAP_NET_ADMIN")
    return tuple(needed)


def effective_capabilities() -> frozenset[str]:
    """Which of the capabilities that bpf(2) asks for this thread has.

    None in a user namespace: the capabilities there do not count for bpf(2).
    """
    if in_user_namespace():
        return frozenset()
    with open("/proc/thread-self/status", encoding="ascii", errors="replace") as status:
        mask = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    return frozenset(name for name, bit in _CAPABILITIES.items() if mask >> bit & 1)


def in_user_namespace() -> bool:
    """Whether this process is in another user namespace than the initial one."""
    with open("/proc/self/uid_map", encoding="ascii") as uid_map:
        return uid_map.read().split() != _INITIAL_USER_NAMESPACE


def privilege_hint(needed: tuple[str, ...] = ("CAP_BPF",)) -> str:
    """Which of those this process lacks and how to get them; "" where it lacks none."""
    held = effective_capabilities()
    missing = [] if "CAP_SYS_ADMIN" in held else [name for name in needed if name not in held]
    if not missing:
        return ""
    if in_user_namespace():
        return f"{', '.join(missing)} of a user namespace do not count; run outside of it"
    who = f"uid {os.geteuid()} lacks {', '.join(missing)}"
    return f"{who}: run as root, or grant it (setcap, or AmbientCapabilities= of a systemd unit)"


def lockdown() -> str:
    """The kernel's lockdown mode: "none", "integrity", "confidentiality", or "" where unknown."""
    try:
        with open("/sys/kernel/security/lockdown", encoding="ascii") as modes:
            return modes.read().partition("[")[2].partition("]")[0]
    except OSError:
        return ""


def permission_hint() -> str:
    """Why a process that holds every capability may still get EPERM."""
    causes = []
    mode = lockdown()
    if mode not in ("", "none"):
        causes.append(f"kernel lockdown is {mode}")
    if _seccomp_filters():
        causes.append("a seccomp filter is active, as in most containers, and may forbid bpf(2)")
    causes.append(
        "a kernel built without what this program type needs (trampolines, LSM) says EPERM too"
    )
    causes.append("before Linux 5.11 a low `ulimit -l` does")
    return "no capability is missing; other causes: " + "; ".join(causes)


def _seccomp_filters() -> bool:
    with open("/proc/thread-self/status", encoding="ascii", errors="replace") as status:
        return any(line.startswith("Seccomp:") and line.split()[1] == "2" for line in status)


def explained(
    error: type[KernelError],
    hint: Callable[[int], str] | None = None,
    needed: tuple[str, ...] = ("CAP_BPF",),
) -> Callable[[str, str, int, str, str], KernelError]:
    """A refusal for _native.check(): ``error`` with a hint.

    PrivilegeError instead where the kernel says EPERM or EACCES and the process lacks one of the
    ``needed`` capabilities.
    """

    def refusal(operation: str, target: str, errno: int, detail: str, log: str) -> KernelError:
        advice = hint(errno) if hint else ""
        if errno in (_errno.EPERM, _errno.EACCES):
            lacking = privilege_hint(needed)
            if lacking:
                return PrivilegeError(operation, target, errno, detail, log, lacking)
            advice = advice or permission_hint()
        return error(operation, target, errno, detail, log, advice)

    return refusal


# ---- processors ----------------------------------------------------------------------------------


def online_cpus() -> list[int]:
    """The numbers of the CPUs that run."""
    with open("/sys/devices/system/cpu/online", encoding="ascii") as file:
        return cpu_numbers(file.read())


def cpu_numbers(text: str) -> list[int]:
    """Those in the kernel's lists, such as "0,2-3"."""
    parts = [part.split("-") for part in text.strip().split(",")]
    return [cpu for part in parts for cpu in range(int(part[0]), int(part[-1]) + 1)]


# ---- file systems --------------------------------------------------------------------------------


def mount_points(kind: str) -> list[str]:
    """Where file systems of that kind ("bpf", "tracefs", "cgroup2") are mounted."""
    import re

    points = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            fields, _, rest = line.partition(" - ")
            if rest.split(" ", 1)[0] == kind:
                points.append(re.sub(r"\\([0-7]{3})", _octal, fields.split()[4]))
    return points


def _octal(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 8))


def has_tracefs() -> bool:
    """Whether libbpf finds tracepoints' numbers where it looks for them."""
    # libbpf looks below debugfs first, and only there if it is mounted
    debugfs = "/sys/kernel/debug/tracing"
    return os.path.isdir(f"{debugfs if os.path.exists(debugfs) else '/sys/kernel/tracing'}/events")


def on_bpffs(folder: str) -> bool:
    """Whether ``folder`` lies on a BPF file system, where alone things can be pinned."""
    try:
        device = os.stat(folder).st_dev
    except OSError:
        return False
    return any(_device(point) == device for point in mount_points("bpf"))


def _device(path: str) -> int | None:
    try:
        return os.stat(path).st_dev
    except OSError:
        return None
