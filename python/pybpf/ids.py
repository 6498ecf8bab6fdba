# SPDX-License-Identifier: BSD-2-Clause
"""The numbers under which the kernel has its programs, maps and links."""

from __future__ import annotations

import errno

from pybpf import _native
from pybpf._native import ffi, lib
from pybpf.errors import KernelError
from pybpf.kernel import explained

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_NEXT = {
    "program": lib.bpf_prog_get_next_id,
    "map": lib.bpf_map_get_next_id,
    "link": lib.bpf_link_get_next_id,
}


def all_ids(noun: str) -> Iterator[int]:
    """The ids of all programs, maps or links ("program"), ascending.

    Those that come or go meanwhile may be among them or not.  PrivilegeError without CAP_SYS_ADMIN.
    """
    refuse = explained(KernelError, needed=("CAP_SYS_ADMIN",))
    id = ffi.new("uint32_t *", 0)
    while (code := _NEXT[noun](id[0], id)) != -errno.ENOENT:
        _native.check(code, "list", f"the kernel's {noun}s", refuse)
        yield int(id[0])
