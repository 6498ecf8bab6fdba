# SPDX-License-Identifier: BSD-2-Clause
"""Which method attaches, or runs, what an object has loaded and not attached."""

from __future__ import annotations

from pybpf.availability import struct_ops
from pybpf.constants import AttachType, ProgramType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.object import Object
    from pybpf.program import ObjectProgram

_CGROUP = "attach_cgroup(cgroup)"
_FOR_MAPS = (AttachType.XDP_DEVMAP, AttachType.XDP_CPUMAP)
# of the programs whose sections' names say no more than what kind they are
_METHODS = {
    ProgramType.XDP: "attach_xdp(device)",
    ProgramType.SCHED_CLS: "attach_tc(device, direction)",
    ProgramType.NETFILTER: "attach_netfilter(family, hook)",
    ProgramType.SK_LOOKUP: "attach_sk_lookup(netns)",
    ProgramType.FLOW_DISSECTOR: "attach_flow_dissector(netns)",
    ProgramType.SK_SKB: "attach_sockmap(map)",
    ProgramType.SK_MSG: "attach_sockmap(map)",
    ProgramType.SOCKET_FILTER: "attach_socket_filter(sock)",
    ProgramType.SK_REUSEPORT: "attach_reuseport(sock)",
    ProgramType.CGROUP_SKB: _CGROUP,
    ProgramType.CGROUP_SOCK: _CGROUP,
    ProgramType.CGROUP_DEVICE: _CGROUP,
    ProgramType.CGROUP_SOCK_ADDR: _CGROUP,
    ProgramType.CGROUP_SYSCTL: _CGROUP,
    ProgramType.CGROUP_SOCKOPT: _CGROUP,
    ProgramType.SOCK_OPS: _CGROUP,
    ProgramType.LIRC_MODE2: "attach_lirc(device)",
    ProgramType.SYSCALL: "run(context)",
}

# of those whose sections' names may say where, by what comes before that
_WHERE = {
    "kprobe": "attach_kprobe(function)",
    "kretprobe": "attach_kprobe(function)",
    "kprobe.multi": "attach_kprobe_multi(functions)",
    "kretprobe.multi": "attach_kprobe_multi(functions)",
    "kprobe.session": "attach_kprobe_multi(functions)",
    "ksyscall": "attach_ksyscall(name)",
    "kretsyscall": "attach_ksyscall(name)",
    "uprobe": "attach_uprobe(binary, symbol)",
    "uretprobe": "attach_uprobe(binary, symbol)",
    "uprobe.multi": "attach_uprobe_multi(binary, symbols)",
    "uretprobe.multi": "attach_uprobe_multi(binary, symbols)",
    "uprobe.session": "attach_uprobe_multi(binary, symbols)",
    "usdt": "attach_usdt(binary, provider, name)",
    "tp": "attach_tracepoint(category, name)",
    "tracepoint": "attach_tracepoint(category, name)",
    "raw_tp": "attach_raw_tracepoint(name)",
    "raw_tracepoint": "attach_raw_tracepoint(name)",
    "perf_event": "attach_perf_event(event)",
    "freplace": "attach_freplace(target, function)",
}


def unattached(obj: Object) -> dict[str, str]:
    """What ``obj`` has loaded and no link of it is of, by name, and the method for each."""
    attached = {link.source for link in obj.links}
    found = {
        program.name: _method(program)
        for program in obj.programs.values()
        if program.loaded and program.type != ProgramType.STRUCT_OPS and program not in attached
    }
    found |= {ops.name: "attach()" for ops in struct_ops(obj) if ops not in attached}
    return found


def _method(program: ObjectProgram) -> str:
    if program.expected_attach_type == AttachType.LSM_CGROUP:
        return _CGROUP
    if program.expected_attach_type in _FOR_MAPS:
        return "the program of an element of a devmap or cpumap"
    if program._needs_parameters():
        return "attach_iter(...) or iter(...)"
    kind, _, where = program.section.lstrip("?").partition("/")
    words = "attach()" if where else _WHERE.get(kind.removesuffix(".s"), "attach()")
    return _METHODS.get(program.type, words)
