# SPDX-License-Identifier: BSD-2-Clause
"""Why a load failed: the typed error behind an errno and what libbpf said meanwhile.

libbpf tells the stage, the program and the map at fault only in its messages, so they are read
here; messages that no rule knows still end up whole on a LoadError.
"""

from __future__ import annotations

import errno as _errno
import re

from pybpf import verifier
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
_BTF_REFUSED = re.compile(
    r"Error loading (?:vmlinux BTF|\.BTF into kernel)|failed to find valid kernel BTF"
    r"|failed to parse target BTF|BTF is (?:required|mandatory)"
)
_RELOCATION_FAILED = re.compile(
    r"failed to perform CO-RE relocations|extern '[^']*'[^\n]*not resolved|failed to relocate"
    r"|extern \([^)]*\) '[^']*'|failed to load Kconfig|failed to guess|: relo #\d+: "
)


def load_error(
    target: str, errno: int, warnings: str, log: str, differences: Callable[[str], str]
) -> KernelError:
    """The error of a failed bpf_object__load().

    ``warnings`` is libbpf's decisive part of ``log``; ``differences(path)`` compares the map
    pinned at a path with the object's own, as text.
    """
    if errno == 4003:  # LIBBPF_ERRNO__ENDIAN
        errno = _errno.EINVAL
    mismatch = _PINNED_MISMATCH.search(log)
    if mismatch:
        path = mismatch[1]
        hint = f"unpin {path}, or change the object to what is pinned"
        return PinError("reuse the map pinned at", path, errno, differences(path), log, hint)
    refused = _PROGRAM_REFUSED.search(log)
    if refused:
        return _program_error(target, errno, refused[1], log)
    if errno in (_errno.EPERM, _errno.EACCES):
        lacking = privilege_hint()
        if lacking:
            return PrivilegeError("load", target, errno, warnings, log, lacking)
    map_refused = _MAP_REFUSED.search(log)
    if map_refused:
        return LoadError(
            "create", f"map {map_refused[1]!r} of {target}", errno, warnings, log,
            _map_hint(errno), stage="map",
        )  # fmt: skip
    named = _PROGRAM_NAMED.search(warnings)
    program = named[1] if named else None
    if _BTF_REFUSED.search(warnings):
        hint = "CO-RE needs the kernel's BTF (CONFIG_DEBUG_INFO_BTF), or btf=FILE"
        return LoadError("load", target, errno, warnings, log, hint, stage="btf", program=program)
    if _RELOCATION_FAILED.search(warnings):
        return RelocationError("relocate", target, errno, warnings, log, program=program)
    hint = permission_hint() if errno == _errno.EPERM else ""
    return LoadError("load", target, errno, warnings, log, hint, program=program)


def _program_error(target: str, errno: int, program: str, log: str) -> KernelError:
    what = f"program {program!r} of {target}"
    text = verifier.program_logs(log).get(program, "")
    missing = verifier.missing_field(text)
    if missing:
        absent = f"{missing.type_name}.{missing.field}" if missing.field else missing.type_name
        at = f"\n  at: {missing.source}" if missing.source else ""
        return RelocationError(
            "relocate", what, errno, f"this kernel has no {absent}{at}", log,
            f"guard it with bpf_core_{_guard(missing.kind)}(), or load on a kernel that has it",
            program=program, type_name=missing.type_name, field=missing.field,
            source=missing.source,
        )  # fmt: skip
    lacking = privilege_hint() if errno in (_errno.EPERM, _errno.EACCES) else ""
    if lacking and not text:
        return PrivilegeError("load", what, errno, log, log, lacking)
    if not text:
        hint = permission_hint() if errno == _errno.EPERM else "the kernel gave no reason"
        return LoadError("load", what, errno, "", log, hint, stage="program", program=program)
    hint = lacking or "the whole log: error.verifier_log, or `pybpf load --verbose`"
    return VerifierError(
        "verify",
        what,
        errno,
        verifier.decisive_lines(text),
        log,
        hint,
        program=program,
        verifier_log=text,
    )


def _guard(kind: str) -> str:
    if kind.startswith("enumval"):
        return "enum_value_exists"
    return (
        "type_exists" if kind.startswith(("type", "local_type", "target_type")) else "field_exists"
    )


def _map_hint(errno: int) -> str:
    return {
        _errno.EPERM: permission_hint(),
        _errno.E2BIG: "max_entries or the sizes are beyond what the kernel takes",
        _errno.ENOMEM: "not enough memory for max_entries times the size of an entry",
        _errno.EINVAL: "the kernel takes no such type, size or flag; see the map's definition",
    }.get(errno, "")
