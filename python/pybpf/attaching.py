# SPDX-License-Identifier: BSD-2-Clause
"""How programs attach: a method for each hook, whose work is done by a module of pybpf.hooks."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    import re
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from pybpf.constants import AttachType, ProbeMode, XdpMode
    from pybpf.holds import Hold
    from pybpf.hooks.perf import PerfEvent
    from pybpf.link import Link
    from pybpf.program import Program


class DescriptorHooks:
    """The hooks that take a program's descriptor: of any program that the kernel holds."""

    def _attached(self, where: str, attach: Callable[[str, int], Hold]) -> Link:
        """The link of what ``attach(what is attempted, the program's descriptor)`` holds."""
        raise NotImplementedError

    def attach_xdp(self, device: str | int, *, mode: XdpMode | None = None) -> Link:
        """Run on every packet that ``device``, by name or number, receives; NotFoundError without.

        ``mode`` asks for the generic one of the kernel (SKB), the driver's (DRV) or the card's
        (HW), and is the driver's, or else the generic one, unless given.  Linux 5.9; CAP_NET_ADMIN.
        """
        from pybpf.constants import XdpMode
        from pybpf.hooks import network

        chosen = XdpMode.ANY if mode is None else mode
        return self._attached(
            f"XDP of {device}", lambda what, fd: network.attach_xdp(what, fd, device, chosen)
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
