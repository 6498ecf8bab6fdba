# SPDX-License-Identifier: BSD-2-Clause
"""What this kernel has and this process may do, and from it the reason behind an errno."""

from __future__ import annotations

import errno as _errno
import os

from pybpf.errors import KernelError, PrivilegeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Callable

# <linux/capability.h>
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}


# ---- privileges ----------------------------------------------------------------------------------


def effective_capabilities() -> frozenset[str]:
    """Which of the capabilities that bpf(2) asks for this thread has."""
    with open("/proc/thread-self/status", encoding="ascii", errors="replace") as status:
        mask = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    return frozenset(name for name, bit in _CAPABILITIES.items() if mask >> bit & 1)


def missing_capabilities() -> tuple[str, ...]:
    """The capabilities without which some program type cannot load: none with CAP_SYS_ADMIN."""
    held = effective_capabilities()
    if "CAP_SYS_ADMIN" in held:
        return ()
    return tuple(sorted(set(_CAPABILITIES) - held - {"CAP_SYS_ADMIN"}))


def privilege_hint() -> str:
    """What this process lacks and how to get it; "" where no capability is missing."""
    missing = missing_capabilities()
    if not missing:
        return ""
    who = f"uid {os.geteuid()} lacks {', '.join(missing)}"
    return f"{who}: run as root, or grant them (setcap, or AmbientCapabilities= of a systemd unit)"


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
    error: type[KernelError], hint: Callable[[int], str] | None = None
) -> Callable[[str, str, int, str, str], KernelError]:
    """A refusal for _native.check(): ``error`` with a hint, or PrivilegeError where that is why."""

    def refusal(operation: str, target: str, errno: int, detail: str, log: str) -> KernelError:
        advice = hint(errno) if hint else ""
        if errno in (_errno.EPERM, _errno.EACCES):
            lacking = privilege_hint()
            if lacking:
                return PrivilegeError(operation, target, errno, detail, log, lacking)
            advice = advice or permission_hint()
        return error(operation, target, errno, detail, log, advice)

    return refusal


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
