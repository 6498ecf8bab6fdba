# SPDX-License-Identifier: BSD-2-Clause
"""What kernels have: the one table behind every skip of a kernel test.

A test that needs more than Linux 5.10 says so, ``@pytest.mark.requires("arena")``. Whether the
running kernel has it is decided by asking it; where it has not, the test is skipped, and the skip
held against this table: one that the kernel's release, its configuration and the machine do not
explain fails.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import os
import re
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pybpf
import pytest
from pybpf import MapType

TESTS = Path(__file__).parent
AF_XDP = 44  # Python has no name for it
JUSTIFIED = "lacks "  # how the reasons of skips begin that this table explains
# set in guests, which are kernels of Debian on a machine that withholds nothing
GUEST = os.environ.get("PYBPF_TEST_GUEST")


@dataclass(frozen=True)
class Feature:
    """Something that not every kernel or machine has.

    ``since`` is the first release that has it; None: not the kernel decides, but the machine.
    ``config``: without this option newer kernels lack it too. ``backported``: older kernels may
    have it by their updates. ``withheld``: why a machine may lack it whose kernel has it.
    """

    what: str
    probe: Callable[[], bool]
    since: tuple[int, int] | None = None
    config: str | None = None
    backported: bool = False
    withheld: str | None = None


def creates(kind: MapType, **sizes: int) -> bool:
    """Whether the kernel makes a map of this type."""
    with contextlib.suppress(pybpf.KernelError):
        pybpf.Map.create(kind, **sizes).close()
        return True
    return False


def loads(name: str, *more: str) -> bool:
    """Whether the kernel takes the object bpf/NAME.bpf.o, ``more`` of its programs as well."""
    with pybpf.open(TESTS / f"bpf/{name}.bpf.o") as obj:
        for program in more:
            obj.programs[program].autoload = True
        with contextlib.suppress(pybpf.LoadError, pybpf.NotSupportedError):
            obj.load()
            return True
    return False


def has_btf() -> bool:
    return os.path.exists("/sys/kernel/btf/vmlinux")


def has_enumerator(enum: str, name: str) -> bool:
    """Whether the kernel's own types have that enumerator."""
    return name in pybpf.Btf.kernel()[enum].values


def has_member(struct: str, name: str) -> bool:
    return any(member.name == name for member in pybpf.Btf.kernel()[struct].members)


def counts_lost_samples() -> bool:
    """Whether perf events can be opened with PERF_FORMAT_LOST."""
    from kernel_objects import perf_event_open  # beside the kernel tests, which alone ask

    with contextlib.suppress(OSError):
        os.close(perf_event_open(0, read_format=1 << 4))
        return True
    return False


def counts_instructions() -> bool:
    from kernel_objects import perf_event_open

    with contextlib.suppress(OSError):
        os.close(perf_event_open(0, event=(0, 1)))  # PERF_COUNT_HW_INSTRUCTIONS
        return True
    return False


def refuses_a_second_reader() -> bool:
    with pybpf.trace_pipe():
        try:
            pybpf.trace_pipe().close()
        except pybpf.KernelError:
            return True
    return False


def opens_xdp_sockets() -> bool:
    with contextlib.suppress(OSError):
        socket.socket(AF_XDP, socket.SOCK_RAW).close()
        return True
    return False


def makes_user_namespaces() -> bool:
    command = ["unshare", "--user", "--map-root-user", "true"]
    return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0


def limits_perf_events() -> bool:
    return int(Path("/proc/sys/kernel/perf_event_paranoid").read_text()) >= 0


FEATURES = {
    "btf": Feature("types of its own", has_btf, (5, 4), "DEBUG_INFO_BTF"),
    "af_xdp": Feature("AF_XDP sockets", opens_xdp_sockets, (4, 18), "XDP_SOCKETS"),
    "lsm": Feature(
        "LSM programs",
        lambda: loads("kinds_lsm"),
        (5, 7),
        "BPF_LSM",
        withheld="hypervisors that do not let the kernel change its code",
    ),
    "trampolines": Feature(
        "trampolines",
        lambda: loads("tracing", "fentry"),
        (5, 5),
        withheld="hypervisors that do not let the kernel change its code",
    ),
    "task_storage": Feature(
        "TASK_STORAGE maps",
        lambda: has_enumerator("enum bpf_map_type", "BPF_MAP_TYPE_TASK_STORAGE"),
        (5, 11),
    ),
    "syscall_programs": Feature(
        "syscall programs",
        lambda: has_enumerator("enum bpf_prog_type", "BPF_PROG_TYPE_SYSCALL"),
        (5, 14),
    ),
    "perf_event_links": Feature(
        "links to perf events",
        lambda: has_enumerator("enum bpf_link_type", "BPF_LINK_TYPE_PERF_EVENT"),
        (5, 15),
    ),
    "bloom_filter": Feature(
        "BLOOM_FILTER maps",
        lambda: creates(MapType.BLOOM_FILTER, key_size=0, value_size=4, max_entries=1),
        (5, 16),
    ),
    "bpf_loop": Feature("bpf_loop()", lambda: loads("rings"), (5, 17)),
    "xdp_frags": Feature(
        "XDP programs for packets in fragments", lambda: loads("xdp", "measure"), (5, 18)
    ),
    "xdp_live_frames": Feature(
        "BPF_F_TEST_XDP_LIVE_FRAMES",
        lambda: "struct xdp_test_data" in pybpf.Btf.kernel(),
        (5, 18),
    ),
    "perf_lost": Feature("PERF_FORMAT_LOST", counts_lost_samples, (6, 0), backported=True),
    "user_ringbuf": Feature(
        "USER_RINGBUF maps",
        lambda: creates(MapType.USER_RINGBUF, key_size=0, value_size=0, max_entries=4096),
        (6, 1),
    ),
    "cgroup_iter": Feature("iterators over cgroups", lambda: loads("iterators", "cgroups"), (6, 1)),
    "task_iter": Feature(
        "iterators over one task",
        lambda: "enum bpf_iter_task_type" in pybpf.Btf.kernel(),
        (6, 1),
    ),
    "cgrp_storage": Feature("CGRP_STORAGE maps", lambda: loads("kinds_cgrp"), (6, 2)),
    "one_trace_pipe": Feature(
        "refusing a second trace_pipe", refuses_a_second_reader, (6, 6), backported=True
    ),
    "perf_event_names": Feature(
        "what a link to a perf event is attached to",
        lambda: "enum bpf_perf_event_type" in pybpf.Btf.kernel(),
        (6, 6),
    ),
    "arena": Feature(
        "ARENA maps",
        lambda: creates(
            MapType.ARENA,
            key_size=0,
            value_size=0,
            max_entries=1,
            flags=pybpf.MapFlags.MMAPABLE,
        ),
        (6, 9),
    ),
    "streams": Feature(
        "streams of programs",
        lambda: has_enumerator("enum bpf_cmd", "BPF_PROG_STREAM_READ_BY_FD"),
        (6, 17),
    ),
    "lsm_cgroup": Feature(
        "lsm_cgroup programs",
        lambda: has_enumerator("enum bpf_attach_type", "BPF_LSM_CGROUP"),
        (6, 0),
    ),
    "struct_ops_links": Feature(
        "links of struct_ops maps",
        lambda: "struct bpf_struct_ops_link" in pybpf.Btf.kernel(),
        (6, 4),
    ),
    "netkit": Feature(
        "netkit devices", lambda: "struct netkit_link" in pybpf.Btf.kernel(), (6, 7), "NETKIT"
    ),
    "cgroup_unix": Feature(
        "programs for unix sockets of cgroups",
        lambda: has_enumerator("enum bpf_attach_type", "BPF_CGROUP_UNIX_CONNECT"),
        (6, 7),
    ),
    "sched_ext": Feature(
        "schedulers in BPF",
        lambda: "struct sched_ext_ops" in pybpf.Btf.kernel(),
        (6, 12),
        "SCHED_CLASS_EXT",
    ),
    "cgroup_order": Feature(
        "an order of a cgroup's programs",
        lambda: has_member("struct cgroup_bpf", "revisions"),
        (6, 17),
        backported=True,  # by 6.12.117
    ),
    "insn_array": Feature(
        "INSN_ARRAY maps",
        lambda: creates(MapType.INSN_ARRAY, key_size=4, value_size=16, max_entries=1),
        (6, 19),
    ),
    "fsession": Feature(
        "sessions of fentry",
        lambda: has_enumerator("enum bpf_attach_type", "BPF_TRACE_FSESSION"),
        (7, 0),
    ),
    "stream_printk": Feature("bpf_stream_printk()", lambda: loads("streams"), (7, 0)),
    "kernel_version": Feature(
        "a release that libbpf can read: those of Debian's release candidates have two numbers",
        lambda: loads("kconfig"),
    ),
    "two_cpus": Feature("a second CPU", lambda: len(os.sched_getaffinity(0)) > 1),
    "struct_ops_links_of_libbpf": Feature(
        "maps of section .struct_ops.link in libbpf", lambda: pybpf.libbpf_version() >= (1, 2)
    ),
    "module_types": Feature(
        "overlayfs as a module with types of its own",
        lambda: os.path.exists("/sys/kernel/btf/overlay"),
    ),
    "hardware_events": Feature("counters of the processor", counts_instructions),
    "user_namespaces": Feature("user namespaces", makes_user_namespaces),
    "perf_limits": Feature("limits on perf events", limits_perf_events),
}


@functools.cache
def has(name: str) -> bool:
    """Whether the running kernel has that feature, by asking it once."""
    return FEATURES[name].probe()


def require(*names: str) -> None:
    """Skip the running test where the kernel lacks one of the features.

    The test fails where the kernel should have it.
    """
    for name in names:
        if not has(name):
            skip_without(FEATURES[name])


# the options of what errors say that a kernel lacks, and the first releases of
OPTIONS = {
    "kprobes": "KPROBES",
    "kprobes of many functions": "FPROBE",
    "sessions of kprobes": "FPROBE",
    "netkit devices": "NETKIT",
}


def skip_as_told(error: pybpf.NotSupportedError) -> None:
    """Skip the running test, or fail it, by the first release that the error tells."""
    told = re.search(r"no (.*) \(Linux (\d+)\.(\d+)\)", error.hint)
    if told is None:
        pytest.fail(f"tells no release: {error}")
    since = int(told[2]), int(told[3])
    skip_without(Feature(error.hint, lambda: False, since, OPTIONS.get(told[1])))


def skip_without(feature: Feature) -> None:
    reason = excuse(feature)
    if reason is None:
        pytest.fail(f"Linux {os.uname().release} should have this and refuses it: {feature.what}")
    pytest.skip(f"{JUSTIFIED}{feature.what} ({reason})")


def excuse(feature: Feature) -> str | None:
    """Why the running kernel may lack the feature; None where it should have it."""
    if feature.since is None:
        return "this machine"
    if release() < feature.since:
        return f"Linux {feature.since[0]}.{feature.since[1]}"
    if feature.config and not is_configured(feature.config):
        return f"CONFIG_{feature.config}"
    return None if GUEST else feature.withheld


def release() -> tuple[int, int]:
    """(6, 12) of the running kernel."""
    major, minor = os.uname().release.split("-")[0].split(".")[:2]
    return int(major), int(minor)


@functools.cache
def configuration() -> frozenset[str]:
    """The options that the running kernel was built with; empty where they are nowhere."""
    with contextlib.suppress(OSError):
        return _options(gzip.decompress(Path("/proc/config.gz").read_bytes()).decode())
    with contextlib.suppress(OSError):
        return _options(Path(f"/boot/config-{os.uname().release}").read_text())
    return frozenset()


def is_configured(option: str) -> bool:
    """Whether the kernel has that option, as far as can be told."""
    return not configuration() or option in configuration()


def _options(text: str) -> frozenset[str]:
    lines = (line.removeprefix("CONFIG_").partition("=") for line in text.splitlines())
    return frozenset(name for name, _, value in lines if value in ("y", "m"))
