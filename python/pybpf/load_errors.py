# SPDX-License-Identifier: BSD-2-Clause
"""Why a load failed: the typed error behind an errno and what libbpf said meanwhile.

libbpf tells the stage, the program and the map at fault only in its messages, so they are read
here; messages that no rule knows still end up whole on a LoadError.
"""

from __future__ import annotations

import errno as _errno
import re
from dataclasses import dataclass

from pybpf import pins, verifier
from pybpf.errors import (
    KernelError,
    LoadError,
    PinError,
    PrivilegeError,
    RelocationError,
    VerifierError,
)
from pybpf.kernel import permission_hint, privilege_hint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PROGRAM_REFUSED = re.compile(r"^prog '([^']*)': BPF program load failed", re.MULTILINE)
_PROGRAM_NAMED = re.compile(r"^prog '([^']*)': ", re.MULTILINE)
_MAP_REFUSED = re.compile(r"^map '([^']*)': failed to create", re.MULTILINE)
_PINNED_MISMATCH = re.compile(r"couldn't reuse pinned map at '([^']*)': parameter mismatch")
_PIN_REFUSED = re.compile(r"^map '([^']*)': failed to auto-pin at '([^']*)'", re.MULTILINE)
_BTF_REFUSED = re.compile(
    r"Error loading vmlinux BTF|failed to find valid kernel BTF|BTF is mandatory, can't proceed"
)
_TARGET_BTF_REFUSED = "failed to parse target BTF"
_RELOCATION_FAILED = re.compile(
    r"failed to perform CO-RE relocations|extern '[^']*'[^\n]*not resolved|failed to relocate"
    r"|extern \([^)]*\) '[^']*'|failed to load Kconfig|failed to guess|: relo #\d+: "
)
_NO_TYPE = "missing BPF prog type"
_GPL_ONLY = "GPL-restricted function"
# libbpf goes on without the object's BTF, so its dump is not why a load failed
_BTF_LOG = re.compile(
    r"-- BEGIN BTF LOAD LOG ---?\n.*?-- END BTF LOAD LOG --\n|^[^\n]*BTF is optional, ignoring\.\n",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Failure:
    """A failed bpf_object__load().

    ``warnings`` is libbpf's decisive part of ``log``; ``btf`` the BTF file that was given, if any;
    ``needed`` the capabilities that the object takes; ``differences(path)`` compares the map
    pinned at a path with the object's own, as text.
    """

    target: str
    errno: int
    warnings: str
    log: str
    btf: str | None
    needed: tuple[str, ...]
    differences: Callable[[str], str]

    def error(self) -> KernelError:
        """The error that tells most about it."""
        for explain in (
            self._pinned_mismatch,
            self._pin_refused,
            self._program_refused,
            self._privilege,
            self._map_refused,
            self._btf_refused,
            self._relocation_failed,
        ):
            error = explain()
            if error is not None:
                return error
        return self._other()

    def _load_error(self, stage: str, hint: str, program: str | None = None) -> LoadError:
        return LoadError(
            "load", self.target, self.errno, self._detail, self.log, hint,
            stage=stage, program=program,
        )  # fmt: skip

    @property
    def _detail(self) -> str:
        return _BTF_LOG.sub("", self.warnings)

    # ---- pins ----

    def _pinned_mismatch(self) -> KernelError | None:
        found = _PINNED_MISMATCH.search(self.log)
        if found is None:
            return None
        path = found[1]
        hint = f"unpin {path}, or change the object to what is pinned"
        table = self.differences(path)
        return PinError("reuse the map pinned at", path, self.errno, table, self.log, hint)

    def _pin_refused(self) -> KernelError | None:
        found = _PIN_REFUSED.search(self.log)
        if found is None or self._lacking():
            return None
        hint = pins.pin_hint(found[2])
        what = f"pin map {found[1]!r} of {self.target}"
        return PinError(what, f"at {found[2]}", self.errno, log=self.log, hint=hint)

    # ---- programs ----

    def _program_refused(self) -> KernelError | None:
        found = _PROGRAM_REFUSED.search(self.log)
        if found is None:
            return None
        program = found[1]
        what = f"program {program!r} of {self.target}"
        text = verifier.program_logs(self.log).get(program, "")
        missing = verifier.missing_field(text)
        if missing is not None:
            return self._poisoned(program, what, missing)
        lacking = self._lacking()
        if text:
            decisive = verifier.decisive_lines(text)
            hint = lacking or _verifier_hint(text)
            return VerifierError(
                "verify", what, self.errno, decisive, self.log, hint,
                program=program, verifier_log=text,
            )  # fmt: skip
        if lacking:
            return PrivilegeError("load", what, self.errno, log=self.log, hint=lacking)
        hint = permission_hint() if self.errno == _errno.EPERM else "the kernel gave no reason"
        return LoadError("load", what, self.errno, log=self.log, hint=hint, program=program)

    def _poisoned(self, program: str, what: str, missing: verifier.MissingField) -> RelocationError:
        absent = f"{missing.type_name}.{missing.field}" if missing.field else missing.type_name
        at = f"\n  at: {missing.source}" if missing.source else ""
        return RelocationError(
            "relocate",
            what,
            self.errno,
            f"this kernel has no {absent}{at}",
            self.log,
            f"guard it with bpf_core_{_guard(missing.kind)}(), or load on a kernel that has it",
            program=program,
            type_name=missing.type_name,
            field=missing.field,
            source=missing.source,
        )

    # ---- privileges, maps, types ----

    def _lacking(self) -> str:
        if self.errno not in (_errno.EPERM, _errno.EACCES):
            return ""
        return privilege_hint(self.needed)

    def _privilege(self) -> KernelError | None:
        lacking = self._lacking()
        if not lacking:
            return None
        return PrivilegeError("load", self.target, self.errno, self._detail, self.log, lacking)

    def _map_refused(self) -> KernelError | None:
        found = _MAP_REFUSED.search(self.log)
        if found is None:
            return None
        what = f"map {found[1]!r} of {self.target}"
        hint = _map_hint(self.errno)
        return LoadError("create", what, self.errno, self._detail, self.log, hint, stage="map")

    def _btf_refused(self) -> KernelError | None:
        if _TARGET_BTF_REFUSED in self.warnings:
            hint = "it takes a file of raw BTF, or an ELF file with a section .BTF"
            what = f"types from {self.btf}"
            return LoadError("read", what, self.errno, self._detail, self.log, hint, stage="btf")
        if not _BTF_REFUSED.search(self.warnings):
            return None
        hint = "CO-RE needs the kernel's BTF (CONFIG_DEBUG_INFO_BTF), or btf=FILE"
        return self._load_error("btf", hint, self._named_program())

    def _relocation_failed(self) -> KernelError | None:
        if not _RELOCATION_FAILED.search(self.warnings):
            return None
        program = self._named_program()
        return RelocationError(
            "relocate", self.target, self.errno, self._detail, self.log, program=program
        )

    def _other(self) -> KernelError:
        hint = permission_hint() if self.errno == _errno.EPERM else ""
        if _NO_TYPE in self.warnings:
            hint = "name its section as libbpf knows it, such as tp/sched/sched_switch, or set type"
        return self._load_error("program", hint, self._named_program())

    def _named_program(self) -> str | None:
        found = _PROGRAM_NAMED.search(self.warnings)
        return found[1] if found else None


def _verifier_hint(log: str) -> str:
    if _GPL_ONLY in log:
        return 'give the object a license: char LICENSE[] SEC("license") = "GPL";'
    return "the whole log: error.verifier_log, or `pybpf load --verbose`"


def _guard(kind: str) -> str:
    if kind.startswith("enumval"):
        return "enum_value_exists"
    is_type = kind.startswith(("type", "local_type", "target_type"))
    return "type_exists" if is_type else "field_exists"


def _map_hint(errno: int) -> str:
    return {
        _errno.EPERM: permission_hint(),
        _errno.E2BIG: "max_entries or the sizes are beyond what the kernel takes",
        _errno.ENOMEM: "not enough memory for max_entries times the size of an entry",
        _errno.EINVAL: "the kernel takes no such type, size or flag; see the map's definition",
    }.get(errno, "")
