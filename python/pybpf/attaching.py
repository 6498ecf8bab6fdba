# SPDX-License-Identifier: BSD-2-Clause
"""How programs attach: a method for each hook, whose work is done by a module of pybpf.hooks."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    import re
    import socket
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Literal, TypeAlias

    from pybpf.constants import AttachType, CgroupMode, NetfilterHook, ProbeMode, XdpMode
    from pybpf.holds import Hold
    from pybpf.hooks.perf import PerfEvent
    from pybpf.link import Link
    from pybpf.map import Map
    from pybpf.program import Program

    Direction: TypeAlias = Literal["ingress", "egress"]
    Netns: TypeAlias = str | os.PathLike[str] | int


class DescriptorHooks:
    """The hooks that take a program's descriptor: of any program that the kernel holds."""

    def _attached(self, where: str, attach: Callable[[str, int], Hold]) -> Link:
        """The link of what ``attach(what is attempted, the program's descriptor)`` holds."""
        raise NotImplementedError

    def _cgroup_hook(self) -> AttachType:
        """The hook of cgroups that the program is for; AttachError where nobody tells."""
        raise NotImplementedError

    def _sockmap_hook(self) -> AttachType:
        """The hook of sockmaps that the program is for; AttachError where nobody tells."""
        raise NotImplementedError

    def attach_xdp(self, device: str | int, *, mode: XdpMode | None = None) -> Link:
        """Run on every packet that ``device``, by name or number, receives; NotFoundError without.

        ``mode`` asks for the generic one of the kernel (SKB), the driver's (DRV) or the card's (HW,
        for programs loaded with ``ifindex``); unless given, it is the driver's, or else the generic
        one.  A device has one program, AttachError (EBUSY) where there is one.  Programs of section
        "xdp.frags" take packets of more than a page as well (Linux 5.18).  Linux 5.9;
        CAP_NET_ADMIN.
        """
        from pybpf.constants import XdpMode
        from pybpf.hooks import network

        chosen = XdpMode.ANY if mode is None else mode
        return self._attached(
            f"XDP of {device}", lambda what, fd: network.attach_xdp(what, fd, device, chosen)
        )

    def attach_cgroup(
        self,
        cgroup: str | os.PathLike[str] | int,
        *,
        hook: AttachType | None = None,
        mode: CgroupMode | None = None,
        before: Program | Link | None = None,
        after: Program | Link | None = None,
        first: bool = False,
        revision: int | None = None,
    ) -> Link:
        """Run for what the processes in ``cgroup``, a folder or its descriptor, and below it do.

        Of all types for cgroups: cgroup_skb, cgroup/sock*, /connect4 and the other addresses,
        /getsockopt, /setsockopt, /sysctl, /dev, sockops and lsm_cgroup.  ``hook`` is what the
        program's section says unless given, as it must be for a pinned one of several hooks.

        Programs run in the order of attaching, those of cgroups below first.  ``before`` or
        ``after`` another link, or as the ``first``, it takes a place among those of this cgroup,
        and with ``revision`` only where none has come or gone since (see
        Cgroup.attached()).  Linux 6.17.

        With a ``mode`` the kernel makes no link: the program stays when the process ends, unless it
        was detached, and cannot be pinned there or updated; ``before`` and ``after`` take programs.
        In the modes EXCLUSIVE and OVERRIDE it takes the place of one attached in the same mode.
        Other modes in one cgroup, and what a mode above does not admit, are refused.

        Linux 5.7; CAP_NET_ADMIN.  AttachError for what is no cgroup of version 2.
        """
        from pybpf.hooks import cgroups, linking

        chosen = self._cgroup_hook() if hook is None else hook
        place = linking.place(before, after, first, revision)
        return self._attached(
            f"{chosen.name} of {cgroup}",
            lambda what, fd: cgroups.attach(what, fd, cgroup, chosen, mode, place),
        )

    def attach_lirc(self, device: str | os.PathLike[str]) -> Link:
        """Run for each pulse and space that a receiver of remote controls, "/dev/lirc0", gets.

        For programs of section "lirc_mode2"; several can be attached to a device.  The kernel has
        no link for it: as with a ``mode`` of attach_cgroup(), it stays until it is detached.

        AttachError where the device cannot be opened or is another.  Linux 4.18 with
        CONFIG_BPF_LIRC_MODE2, which distributions seldom have (NotSupportedError); CAP_NET_ADMIN.
        """
        from pybpf.hooks import lirc

        return self._attached(
            f"remote controls at {device}", lambda what, fd: lirc.attach(what, fd, device)
        )

    def attach_xdp_netlink(
        self,
        device: str | int,
        *,
        mode: XdpMode | None = None,
        expected: Program | None = None,
        replace: bool = False,
    ) -> Link:
        """As attach_xdp(), without a link of the kernel's.

        So there is nothing to pin, and after disown() or a kill it stays until somebody detaches
        it, as with pybpf.detach_xdp().  It can take the place of what others attached
        without a link (``ip link``), with no gap: of the ``expected`` program or, with ``replace``,
        of any.  Without these, AttachError (EBUSY) where there is one.

        Until it is detached, the link keeps the device's network namespace; it detaches and updates
        there, and no other program than its own.  Linux 5.7; CAP_NET_ADMIN.
        """
        from pybpf.constants import XdpMode
        from pybpf.hooks import netlink

        chosen = XdpMode.ANY if mode is None else mode
        return self._attached(
            f"XDP of {device} by netlink",
            lambda what, fd: netlink.attach_xdp(what, fd, device, chosen, expected, replace),
        )

    def attach_tcx(
        self,
        device: str | int,
        direction: Direction,
        *,
        before: Program | Link | None = None,
        after: Program | Link | None = None,
        first: bool = False,
        revision: int | None = None,
    ) -> Link:
        """Run on every packet that ``device``, by name or number, receives or sends.

        For tc programs (section "tc", "tcx/ingress" ...).  Those of a direction run one after the
        other until one returns other than TCX_NEXT (-1): this one last, unless it is ``before`` or
        ``after`` another that is attached there, a program or link, or ``first``.  With
        ``revision``, only where nothing came or went since query_device() gave that.

        NotFoundError without such a device, AttachError where the neighbour is not attached there,
        the revision is another, or for a second time.  Linux 6.6; CAP_NET_ADMIN.
        """
        from pybpf.hooks import linking, network

        place = linking.place(before, after, first, revision)
        return self._attached(
            f"tcx {direction} of {device}",
            lambda what, fd: network.attach_tcx(what, fd, device, direction, place),
        )

    def attach_clsact(
        self,
        device: str | int,
        direction: Direction,
        *,
        priority: int = 0,
        handle: int = 0,
        replace: bool = False,
    ) -> Link:
        """Run on every packet that ``device``, by name or number, receives or sends.

        The tc program becomes a filter of the device's qdisc clsact, which is created where it is
        not there, and stays.  What it returns is what happens to the packet ("direct action");
        TC_ACT_UNSPEC (-1) leaves it to the next filter: those of lower ``priority`` run first.
        Unless given, the kernel chooses a priority, from 49152 down, and a ``handle``.  With
        ``replace``, it takes the place of the filter of that priority and handle if there is one,
        with no gap.  ``link.filter`` tells what was chosen.

        There is no link in the kernel: nothing to pin, and after disown() or a kill the filter
        stays until somebody removes it.  Until it is detached, the link keeps the device's network
        namespace; it detaches and updates there, and no other program than its own.

        NotFoundError without such a device; AttachError.  Needs CAP_NET_ADMIN.
        """
        from pybpf.hooks import netlink

        return self._attached(
            f"clsact {direction} of {device}",
            lambda what, fd: netlink.attach_clsact(
                what, fd, device, direction, priority=priority, handle=handle, replace=replace
            ),
        )

    def attach_tc(self, device: str | int, direction: Direction) -> Link:
        """As attach_tcx() where this kernel has it (Linux 6.6), as attach_clsact() elsewhere.

        ``link.what`` says which in words, and ``link.filter`` is None for tcx.  Programs of tcx run
        before those of clsact; TC_ACT_UNSPEC (-1) leaves the packet to what is next in both.
        """
        from pybpf.errors import NotSupportedError

        try:
            return self.attach_tcx(device, direction)
        except NotSupportedError:
            pass
        return self.attach_clsact(device, direction)

    def attach_netkit(
        self,
        device: str | int,
        end: Literal["primary", "peer"] = "primary",
        *,
        before: Program | Link | None = None,
        after: Program | Link | None = None,
        first: bool = False,
        revision: int | None = None,
    ) -> Link:
        """Run on every packet that an ``end`` of a pair of netkit devices sends to the other.

        ``device`` is the primary one of the pair, by name or number, for both ends: programs of
        the "peer" cannot be changed from the network namespace that the peer is in.  Order,
        revision and errors are those of attach_tcx().  AttachError for devices of other kinds.
        Linux 6.7; CAP_NET_ADMIN.
        """
        from pybpf.hooks import linking, network

        place = linking.place(before, after, first, revision)
        return self._attached(
            f"netkit {end} of {device}",
            lambda what, fd: network.attach_netkit(what, fd, device, end, place),
        )

    def attach_netfilter(
        self, family: int, hook: NetfilterHook, *, priority: int = 0, defrag: bool = False
    ) -> Link:
        """Run on every packet at a ``hook`` of netfilter, in this thread's network namespace.

        ``family`` is socket.AF_INET or AF_INET6.  What it returns, NF_DROP (0) or NF_ACCEPT (1), is
        a verdict like those of iptables and nftables; those of lower ``priority`` come first, and
        no two BPF programs have the same.  With ``defrag``, packets that came in fragments come
        whole; the priority is then above -400 (Linux 6.6).

        AttachError with the reason.  Linux 6.4; CAP_NET_ADMIN.
        """
        from pybpf.hooks import network

        where = f"netfilter {hook.name} of family {int(family)}, priority {priority}"
        return self._attached(
            where,
            lambda what, fd: network.attach_netfilter(what, fd, family, hook, priority, defrag),
        )

    def attach_sk_lookup(self, netns: Netns | None = None) -> Link:
        """Choose the socket for each new connection, and each UDP packet, to a network namespace.

        The namespace by path, process id or name of ``ip netns``; this thread's where it is None.
        NotFoundError without such a process or name.  Several run one after the other, in the order
        in which they were attached.  Linux 5.9; CAP_NET_ADMIN, there too.
        """
        return self._attached_to_netns("sk_lookup", netns, 36)  # AttachType.SK_LOOKUP

    def attach_flow_dissector(self, netns: Netns | None = None) -> Link:
        """Tell flows apart in a network namespace, given as to attach_sk_lookup().

        A namespace has one such program; that of the initial one is for all others, which have
        none then: AttachError.  Linux 5.8; CAP_NET_ADMIN, there too.
        """
        return self._attached_to_netns("flow dissector", netns, 17)  # AttachType.FLOW_DISSECTOR

    def _attached_to_netns(self, hook: str, netns: Netns | None, attach_type: int) -> Link:
        from pybpf.hooks import network

        whose = "this network namespace" if netns is None else f"network namespace {netns}"
        return self._attached(
            f"{hook} of {whose}",
            lambda what, fd: network.attach_netns(what, fd, netns, attach_type),
        )

    def attach_sockmap(self, map: Map, *, hook: AttachType | None = None) -> Link:
        """Run for what the sockets that come into ``map`` from now on send or receive.

        A socket has the programs that its SOCKMAP or SOCKHASH had when it came into it, for as long
        as it stays there: attaching, update() and detach() change nothing for those inside.

        For sk_msg programs (what is sent) and sk_skb programs (what is received), whose ``hook`` is
        what the section says ("sk_skb/stream_verdict") unless given: SK_SKB_VERDICT (Linux 5.13),
        SK_SKB_STREAM_VERDICT or SK_SKB_STREAM_PARSER.  A map has one program for each of these.

        From Linux 6.10 on by a link, which AttachError (EBUSY) keeps from replacing another program
        that is there.  Before, without one: it takes another's place, stays after disown() or a
        kill for as long as the map is there, cannot be pinned, and can be updated.  CAP_NET_ADMIN.
        """
        from pybpf.hooks import sockets

        chosen = self._sockmap_hook() if hook is None else hook
        return self._attached(
            f"{chosen.name} of map {map.name!r}",
            lambda what, fd: sockets.attach_sockmap(what, fd, map, chosen),
        )

    def attach_socket_filter(self, sock: socket.socket) -> Link:
        """Decide how many bytes of each packet a socket receives; 0 drops it.

        Takes the place of another filter, and needs no privilege of its own.  It goes when the
        socket does; nothing to pin, and detaching ends whatever filter the socket has by then.
        """
        from pybpf.hooks import sockets

        return self._attached(
            f"socket {sock.fileno()}",
            lambda what, fd: sockets.attach_socket(what, fd, sock, sockets.FILTER),
        )

    def attach_reuseport(self, sock: socket.socket) -> Link:
        """Choose among the sockets that share ``sock``'s port (SO_REUSEPORT) for what arrives.

        For programs of section "sk_reuseport", and socket filters, whose result is the number of
        the socket.  ``sock`` has SO_REUSEPORT already; the choice is for all that share its port.
        Otherwise as attach_socket_filter().
        """
        from pybpf.hooks import sockets

        return self._attached(
            f"the sockets that share the port of socket {sock.fileno()}",
            lambda what, fd: sockets.attach_socket(what, fd, sock, sockets.REUSEPORT),
        )

    def attach_tracepoint(self, category: str, name: str, *, cookie: int = 0) -> Link:
        """Run where the kernel passes its tracepoint ``name`` of ``category`` ("sched").

        ``cookie`` is what bpf_get_attach_cookie() gives there (Linux 5.15).  Works where tracefs is
        not mounted, too (Linux 5.2).  AttachError where there is none, or the program reads more
        than it has.  Linux 4.7; CAP_BPF, CAP_PERFMON, and root to read tracefs.
        """
        from pybpf.hooks import tracing

        return self._attached(
            f"tracepoint {category}/{name}",
            lambda what, fd: tracing.attach_tracepoint(what, fd, category, name, cookie),
        )

    def attach_raw_tracepoint(self, name: str, *, cookie: int = 0) -> Link:
        """Run where the kernel passes its tracepoint ``name``, with its arguments as they are.

        For programs of section "raw_tp"; those of "tp_btf" know theirs, see attach_trace().
        ``cookie`` as in attach_tracepoint() (Linux 6.10).  AttachError where there is none, or the
        program reads more than it has.  Linux 4.17; CAP_BPF and CAP_PERFMON.
        """
        from pybpf.hooks import tracing

        return self._attached(
            f"raw tracepoint {name}",
            lambda what, fd: tracing.attach_raw_tracepoint(what, fd, name, cookie),
        )

    def attach_perf_event(
        self,
        event: PerfEvent,
        *,
        frequency: int | None = None,
        period: int | None = None,
        cpu: int | None = None,
        pid: int | None = None,
        inherit: bool = False,
        cookie: int = 0,
    ) -> Link:
        """Run each time that ``event`` has come about so often, on one CPU or for one thread.

        Either ``frequency`` times a second or so, or each ``period`` events.  ``cpu`` alone counts
        all that runs there; ``pid``, a thread's number (0: the one that calls), counts that one
        wherever it runs, or on ``cpu`` alone.  With ``inherit``, threads and processes that it
        starts from then on as well.  ``cookie`` as in attach_tracepoint().

        NotSupportedError where this machine does not count that; AttachError for a process or CPU
        that is not there, or a frequency above kernel.perf_event_max_sample_rate.  Before Linux
        5.15 the link cannot be pinned.  Linux 4.9; CAP_BPF and CAP_PERFMON.
        """
        from pybpf.hooks import perf

        request = perf.request(event, frequency, period) | perf.place(cpu, pid, inherit)
        return self._attached(
            perf.words_for(event, cpu, pid),
            lambda what, fd: perf.attach_perf_event(what, fd, request, cookie),
        )

    def attach_perf_events(
        self,
        event: PerfEvent,
        *,
        frequency: int | None = None,
        period: int | None = None,
        cpus: Iterable[int] | None = None,
        cookie: int = 0,
    ) -> Link:
        """As attach_perf_event(), on each of ``cpus``: unless given, all that are online now.

        They are one link, which cannot be pinned.
        """
        from pybpf.hooks import perf

        request = perf.request(event, frequency, period)
        return self._attached(
            str(event), lambda what, fd: perf.attach_to_each(what, fd, request, cpus, cookie)
        )


class LibbpfHooks:
    """What hooks that take libbpf's program have in common: of programs that an object holds."""

    def _attached(self, where: str, attach: Callable[[str, int], Hold]) -> Link:
        """The link of what ``attach(what is attempted, the program's descriptor)`` holds."""
        raise NotImplementedError

    def _attached_by_libbpf(self, where: str, attach: Callable[[str, Any], Hold]) -> Link:
        """The link of what ``attach(what is attempted, libbpf's program)`` holds."""
        raise NotImplementedError

    def _verified_for(self) -> str:
        """What the verifier was told that the program is for, in words."""
        raise NotImplementedError

    def _at_return(self, retprobe: bool | None) -> bool:
        """Whether to run at a function's return: as said, or else as the section's name says."""
        raise NotImplementedError


class UserspaceHooks(LibbpfHooks):
    """The hooks in programs and libraries of user space."""

    @property
    def expected_attach_type(self) -> AttachType:
        raise NotImplementedError

    def attach_uprobe(
        self,
        binary: str | os.PathLike[str],
        symbol: str | re.Pattern[str] | None = None,
        *,
        offset: int = 0,
        retprobe: bool | None = None,
        pid: int | None = None,
        cookie: int = 0,
        ref_counter: int = 0,
    ) -> Link:
        """Run where the function ``symbol`` of a program or library is entered.

        ``binary`` is a path, or the name of a program on PATH or of a library ("libc",
        "libssl.so.3").  With ``pid`` only that process counts, and files are those that it sees: a
        path in its root folder, so in its container, or the name of a file that it has mapped;
        f"/proc/{pid}/exe" is what it runs.

        ``symbol`` is a name of the symbol table (also "memcpy@GLIBC_2.14"), a C++ name with
        parameters or without, or of a Go program, which may be stripped.  A compiled regular
        expression takes all functions of which it matches a whole name, by one link that cannot be
        pinned.  ``offset`` is that of an instruction in the function, or without a symbol one in
        the file.

        With ``retprobe`` (unless given: where the section is "uretprobe"), where it returns, which
        Go programs do not survive.  ``cookie`` is what bpf_get_attach_cookie() gives there (Linux
        5.15).  ``ref_counter`` is the offset in the file of a 16-bit number that the kernel counts
        up in each process while attached.

        NotFoundError: no such file, telling where was looked, or function.  AttachError: several
        functions have the name, or the offset is no place of code.  NotSupportedError for names
        that stand for another function on each kind of processor.  ObjectFormatError: not an ELF
        file.  Linux 4.17; CAP_BPF and CAP_PERFMON, with a name and ``pid`` also the right to look
        into that process.
        """
        from pybpf.hooks import uprobes

        target = uprobes.one_or_matching(binary, symbol, offset, pid)
        at_return = self._at_return(retprobe)
        return self._attached_by_libbpf(
            f"{'uretprobe' if at_return else 'uprobe'} {target.words}",
            lambda what, program: uprobes.attach(
                what, program, target, at_return, cookie, ref_counter
            ),
        )

    def attach_uprobe_multi(
        self,
        binary: str | os.PathLike[str],
        symbols: str | re.Pattern[str] | Sequence[str | int],
        *,
        retprobe: bool | None = None,
        pid: int | None = None,
        cookies: Sequence[int] | None = None,
    ) -> Link:
        """Run where any of many functions of a program or library is entered: one link.

        ``symbols`` is a pattern ("SSL_*"; * and ? match as in shells), a compiled regular
        expression that matches whole names, or a list of names or offsets in the file, which can
        come with a list of ``cookies``, one for each.  The program's section is "uprobe.multi",
        "uretprobe.multi", which runs where they return, or "uprobe.session", which runs at both, at
        the return unless it returned 1 at the entry.

        All else is as in attach_uprobe(); but kernels older than 6.10 may count only the first
        thread of ``pid``.  ValueError: no functions, or not as many cookies.  Linux 6.6, sessions
        6.13; CAP_BPF and CAP_PERFMON.
        """
        from pybpf.hooks import uprobes

        target = uprobes.many(binary, symbols, pid)
        attach_type, at_return = self.expected_attach_type, self._at_return(retprobe)
        return self._attached(
            f"uprobe.multi {target.words}",
            lambda what, fd: uprobes.attach_multi(
                what, fd, target, attach_type, at_return, cookies
            ),
        )

    def attach_usdt(
        self,
        binary: str | os.PathLike[str],
        provider: str,
        name: str,
        *,
        pid: int | None = None,
        cookie: int = 0,
    ) -> Link:
        """Run where the probe ``provider``:``name`` is that a program or library has in its source.

        ``binary`` and ``pid`` are as in attach_uprobe(), ``cookie`` is what bpf_usdt_cookie()
        gives.  The program's section is "usdt", and it includes <bpf/usdt.bpf.h>.  Its link cannot
        be pinned.

        NotFoundError: no such file, telling where was looked, or no such probe in it.  Before Linux
        5.15 probes of libraries need a ``pid``: NotSupportedError.  CAP_BPF and CAP_PERFMON.
        """
        from pybpf.hooks import usdt

        path = usdt.find(binary, provider, name, pid)
        return self._attached_by_libbpf(
            f"USDT {provider}:{name} of {path}",
            lambda what, program: usdt.attach(what, program, path, pid, provider, name, cookie),
        )


class KernelHooks(LibbpfHooks):
    """The hooks in the kernel's functions."""

    def attach_kprobe(
        self,
        function: str | Sequence[str],
        *,
        offset: int = 0,
        retprobe: bool | None = None,
        cookie: int = 0,
        mode: ProbeMode | None = None,
    ) -> Link:
        """Run where the kernel's ``function`` is entered, or at the instruction ``offset`` in it.

        Of several names, the first that this kernel has counts; a module's is "module:function".
        With ``retprobe`` (unless given: where the section is "kretprobe"), where it returns.
        ``cookie`` is what bpf_get_attach_cookie() gives there (Linux 5.15).  ``mode`` is the newest
        that the kernel has unless given; it takes libbpf 1.2.

        AttachError: no function of that name, several, or none that can be probed.  Linux 4.17;
        CAP_BPF and CAP_PERFMON.
        """
        from pybpf.hooks import kprobes

        name, at_return = kprobes.first_known(function), self._at_return(retprobe)
        return self._attached_by_libbpf(
            f"{'kretprobe' if at_return else 'kprobe'} {name}",
            lambda what, program: kprobes.attach_kprobe(
                what, program, name, offset, at_return, cookie, mode or 0
            ),
        )

    def attach_kprobe_multi(
        self,
        functions: str | Sequence[str],
        *,
        retprobe: bool | None = None,
        cookies: Sequence[int] | None = None,
    ) -> Link:
        """Run where any of many functions of the kernel is entered: one link, made in one step.

        ``functions`` is a pattern ("tcp_*"; * and ? match as in shells) or a list of names, which
        can come with a list of ``cookies``, one for each.  What counts is what ftrace can trace.
        With ``retprobe`` (unless given: where the section is "kretprobe.multi"), where they return.
        A program of section "kprobe.session" runs at both, at the return unless it returned 1 at
        the entry; it takes libbpf 1.5.

        AttachError where a name is none, or nothing matches.  Linux 5.18, sessions 6.10; CAP_BPF
        and CAP_PERFMON.
        """
        from pybpf.hooks import kprobes

        at_return = self._at_return(retprobe)
        return self._attached_by_libbpf(
            kprobes.words_for(functions),
            lambda what, program: kprobes.attach_kprobe_multi(
                what, program, functions, at_return, cookies
            ),
        )

    def attach_ksyscall(self, name: str, *, retprobe: bool | None = None, cookie: int = 0) -> Link:
        """Run where the system call ``name`` ("openat") is entered, whatever its function is named.

        With ``retprobe`` (unless given: where the section is "kretsyscall"), where it returns.
        Calls of 32-bit programs are others, and not seen.  ``cookie`` and the rest as in
        attach_kprobe().
        """
        from pybpf.hooks import kprobes

        at_return = self._at_return(retprobe)
        return self._attached_by_libbpf(
            f"{'kretsyscall' if at_return else 'ksyscall'} {name}",
            lambda what, program: kprobes.attach_ksyscall(what, program, name, at_return, cookie),
        )

    def attach_trace(self, *, cookie: int = 0) -> Link:
        """Run at what the program is verified for: tp_btf, fentry, fexit, fmod_ret, fsession, LSM.

        That is a function or tracepoint of the kernel, of a module ("module:function") or a
        function of another program; the section names it, or, before load(), set_attach_target().
        ``cookie`` is what bpf_get_attach_cookie() gives there (Linux 5.19; tp_btf 6.10).  What was
        detached can be attached again (Linux 5.13).

        NotSupportedError where this kernel has no such cookies, AttachError where the program is
        of another section, or the function has as many programs as it can.  Linux 5.5, fmod_ret
        and LSM 5.7, fsession 7.0; CAP_BPF and CAP_PERFMON.
        """
        from pybpf.hooks import tracing

        return self._attached_by_libbpf(
            self._verified_for(),
            lambda what, program: tracing.attach_trace(what, program, cookie),
        )

    def attach_freplace(self, target: Program, function: str) -> Link:
        """Take the place of a global ``function`` of another program, until detached.

        The program (section "freplace/...") was loaded for such a function, by set_attach_target():
        that one, or one of the same type in another program.  AttachError where the function is
        none, of another type, or replaced already.  Linux 5.10; CAP_BPF and CAP_PERFMON.
        """
        from pybpf.hooks import tracing

        return self._attached_by_libbpf(
            f"function {function} of program {target.name!r}",
            lambda what, program: tracing.attach_freplace(what, program, target, function),
        )
