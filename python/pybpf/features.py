# SPDX-License-Identifier: BSD-2-Clause
"""Features of kernels: since which release there are, and whether this kernel has them.

Every attachment imports this, and few ask: what probes need is imported by them.
"""

from __future__ import annotations

import os

from pybpf.errors import Error, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pybpf.btf import Btf

_EVENT_SOURCES = "/sys/bus/event_source/devices"


class Feature:
    """Something that not every kernel has.

    ``words`` name it, ``since`` is the first release that has it where it is configured.  ``probe``
    asks the running kernel: True, False, or None where it cannot tell.
    """

    def __init__(self, words: str, since: str, probe: Callable[[], bool | None]) -> None:
        self.words = words
        self.since = since
        self._probe = probe
        self._answers: list[bool | None] = []

    def is_missing(self) -> bool:
        """Whether this kernel certainly lacks it; asked once."""
        if not self._answers:
            self._answers.append(self._probe())
        return self._answers[0] is False

    def __str__(self) -> str:
        return f"{self.words} (Linux {self.since})"


def _kernel_btf() -> Btf | None:
    from pybpf.btf import Btf

    try:
        return Btf.kernel()
    except (Error, OSError):
        return None


def has_type(*names: str) -> Callable[[], bool | None]:
    """A probe: whether the kernel's BTF has one of these types, such as "struct tcx_link"."""

    def probe() -> bool | None:
        btf = _kernel_btf()
        return None if btf is None else any(name in btf for name in names)

    return probe


def has_member(structure: str, name: str) -> Callable[[], bool | None]:
    """A probe: whether the kernel's BTF has that member of "struct tcx_link" or others."""

    def probe() -> bool | None:
        from pybpf.btf import Composite

        btf = _kernel_btf()
        if btf is None:
            return None
        if structure not in btf or not isinstance(found := btf[structure], Composite):
            return False
        return any(member.name == name for member in found.members)

    return probe


def has_enumerator(enum: str, name: str) -> Callable[[], bool | None]:
    """A probe: whether the kernel's BTF has that enumerator of "enum bpf_attach_type" or others."""

    def probe() -> bool | None:
        from pybpf.btf import Enum

        btf = _kernel_btf()
        if btf is None:
            return None
        if enum not in btf:
            return False
        kind = btf[enum]
        return isinstance(kind, Enum) and name in kind.values

    return probe


def has_event_source(name: str) -> Callable[[], bool | None]:
    """A probe: whether perf can open events of that source, such as "kprobe"."""

    def probe() -> bool | None:
        if not os.path.exists(_EVENT_SOURCES):
            return None  # no sysfs here
        return os.path.exists(f"{_EVENT_SOURCES}/{name}")

    return probe


def has_function(name: str) -> Callable[[], bool | None]:
    """A probe: whether the kernel's BTF has that function of its own."""

    def probe() -> bool | None:
        from pybpf.btf import Kind

        btf = _kernel_btf()
        if btf is None:
            return None
        try:
            btf.find(name, Kind.FUNC)
        except NotFoundError:
            return False
        return True

    return probe


KPROBE = Feature("kprobes", "4.17", has_event_source("kprobe"))
KPROBE_MULTI = Feature(
    "kprobes of many functions", "5.18", has_type("struct bpf_kprobe_multi_link")
)
KPROBE_SESSION = Feature(
    "sessions of kprobes",
    "6.10",
    has_enumerator("enum bpf_attach_type", "BPF_TRACE_KPROBE_SESSION"),
)
RAW_TRACEPOINT_COOKIE = Feature(
    "cookies of raw tracepoints", "6.10", has_member("struct bpf_raw_tp_link", "cookie")
)
TRAMPOLINE_COOKIE = Feature(
    "cookies of fentry, fexit, fmod_ret and LSM programs", "5.19", has_type("struct bpf_tramp_link")
)
PERF_LINK = Feature(
    "links and cookies of tracepoints, probes and perf events",
    "5.15",
    has_type("struct bpf_perf_link"),
)
UPROBE_MULTI = Feature("links of many uprobes", "6.6", has_type("struct bpf_uprobe_multi_link"))
UPROBE_SESSION = Feature(
    "sessions of uprobes",
    "6.13",
    has_enumerator("enum bpf_attach_type", "BPF_TRACE_UPROBE_SESSION"),
)
LIRC = Feature("programs of lirc devices", "4.18", has_function("lirc_prog_attach"))
XDP_LINK = Feature("links of XDP programs", "5.9", has_type("struct bpf_xdp_link"))
TCX = Feature("tcx", "6.6", has_type("struct tcx_link"))
NETKIT = Feature("netkit devices", "6.7", has_type("struct netkit_link"))
DEFRAG = Feature(
    "netfilter programs with defragmentation", "6.6", has_type("struct nf_defrag_hook")
)
SOCKMAP_LINK = Feature("links of sockmaps", "6.10", has_type("struct sockmap_link"))
SOCKMAP_QUERY = Feature("queries of sockmaps", "5.18", has_type("sock_map_bpf_prog_query"))
CGROUP_ORDER = Feature(
    "an order of a cgroup's programs", "6.17", has_member("struct cgroup_bpf", "revisions")
)
