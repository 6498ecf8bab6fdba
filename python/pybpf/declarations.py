# SPDX-License-Identifier: BSD-2-Clause
"""The declared type of a ring's records, for rings that were opened by pin or id.

The kernel keeps no types with a ring buffer, but with the programs that use it those of the whole
object, the declaration of its maps among them.
"""

from __future__ import annotations

import errno
import os

from pybpf import _native
from pybpf._native import ffi, lib
from pybpf.btf import Btf, Composite, DataSec, Kind, Pointer
from pybpf.errors import KernelError, NotFoundError
from pybpf.ids import all_ids
from pybpf.kernel import explained

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybpf.btf import Type

_NAME_LENGTH = 15  # what the kernel keeps of a map's name
_REFUSAL = explained(KernelError, needed=("CAP_SYS_ADMIN",))


def declared_in(btf: Btf, map_name: str) -> Type | None:
    """The type of values that the declaration of that map in an object's BTF names.

    ``map_name`` may be cut off as the kernel does.  None where no map is called so, or several.
    """
    try:
        section = btf.find(".maps", Kind.DATASEC)
    except NotFoundError:
        return None
    assert isinstance(section, DataSec)
    short = map_name[:_NAME_LENGTH]
    found = [each for each in section.variables if each.name[:_NAME_LENGTH] == short]
    found = [each for each in found if each.name == map_name] or found
    return _value_type(found[0].type) if len(found) == 1 else None


def _value_type(declaration: Type) -> Type | None:
    """T of ``__type(value, T)``, which declares a pointer to T."""
    struct = declaration.resolve()
    if not isinstance(struct, Composite):
        return None
    for member in struct.members:
        if member.name == "value" and isinstance(member.type, Pointer):
            return member.type.target
    return None


def types_of_users(map_id: int) -> Iterator[Btf]:
    """For each loaded program that uses the map: the types of its object, where it has any.

    Needs CAP_SYS_ADMIN, PrivilegeError otherwise.
    """
    for program_id in all_ids("program"):
        try:
            types = _types_of_user(program_id, map_id)
        except KernelError as gone:
            if gone.errno != errno.ENOENT:
                raise
            continue
        if types is not None:
            yield types


def _types_of_user(program_id: int, map_id: int) -> Btf | None:
    code = lib.bpf_prog_get_fd_by_id(program_id)
    fd = _native.check(code, "open program", f"of id {program_id}", _REFUSAL)
    try:
        count = _native.info(fd, "struct bpf_prog_info").nr_map_ids
        ids = ffi.new("uint32_t[]", count)
        address = int(ffi.cast("uintptr_t", ids))
        info = _native.info(fd, "struct bpf_prog_info", nr_map_ids=count, map_ids=address)
        return Btf.from_id(info.btf_id) if info.btf_id and map_id in list(ids) else None
    finally:
        os.close(fd)
