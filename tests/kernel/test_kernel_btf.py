# SPDX-License-Identifier: BSD-2-Clause
"""Every struct and union of a kernel's BTF has the right size, and every member its bits.

What is right says libbpf (btf_members.c); where a member's bits are is not asked of the class but
seen in memory when they are cleared and set again.  PYBPF_BTF=DIR walks a folder of other kernels'
BTF, raw files or ELF with a .BTF section, instead of the running kernel's:

    PYBPF_BTF=DIR python -m pytest -s tests/kernel/test_kernel_btf.py
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from pybpf.btf import Btf, Composite
from pybpf.layout import ctype

pytestmark = pytest.mark.native

RUNNING = Path("/sys/kernel/btf/vmlinux")


def files():
    folder = os.environ.get("PYBPF_BTF")
    return [RUNNING] if folder is None else sorted(filter(Path.is_file, Path(folder).iterdir()))


def read_btf(path):
    with path.open("rb") as file:
        if file.read(4) != b"\x7fELF":
            return Btf(path.read_bytes())
        return Btf(ELFFile(file).get_section_by_name(".BTF").data())


@pytest.fixture(scope="module")
def libbpf_members(compiled_with_libbpf):
    """libbpf_members(FILE): {id: (size, [(name, bit offset, bits, is a bitfield, sign), ...])}."""
    program = compiled_with_libbpf("btf_members.c")

    def ask(path):
        out = subprocess.run([str(program), str(path)], stdout=subprocess.PIPE, check=True).stdout
        found = {}
        for line in out.decode().splitlines():
            kind, *fields = line.split("\t")
            if kind == "struct":
                members = []
                found[int(fields[0])] = (int(fields[1]), members)
            else:
                name, offset, bits, is_bitfield, sign = fields
                members.append((name, int(offset), int(bits), is_bitfield == "1", sign))
        return found

    return ask


@pytest.mark.parametrize("path", files(), ids=str)
def test_every_struct_and_union(libbpf_members, path):
    started = time.monotonic()
    expected, btf = libbpf_members(path), read_btf(path)
    assert {found.id for found in btf if isinstance(found, Composite)} == expected.keys()
    wrong = []
    for type_id, (size, members) in expected.items():
        wrong += differences(btf[type_id], size, members, btf.byteorder)
    seconds = time.monotonic() - started
    bitfields = [member for _, members in expected.values() for member in members if member[3]]
    print(
        f"\n{path}: {len(expected)} structs and unions, "
        f"{sum(len(members) for _, members in expected.values())} members, "
        f"{len(bitfields)} of them bitfields; {len(wrong)} wrong; {seconds:.1f} s"
    )
    assert not wrong, "\n".join(map(str, wrong[:20]))
    assert len(expected) > 1000


def differences(composite, size, members, byteorder):
    """What the class of ``composite`` does otherwise, as (type, member, what, found, right)."""
    cls = ctype(composite)
    if ctypes.sizeof(cls) != size:
        yield composite, "", "size", ctypes.sizeof(cls), size
        return
    memory = bytearray(b"\xff" * size)
    value = cls.from_buffer(memory)
    names = [name for name, *_ in members]
    if list(value.asdict()) != names:
        yield composite, "", "members", list(value.asdict()), names
        return
    all_ones = (1 << 8 * size) - 1
    for name, offset, bits, is_bitfield, sign in members:
        ones = (1 << bits) - 1
        right = ones << (offset if byteorder == "little" else 8 * size - offset - bits)
        highest = -1 if sign == "s" else ones
        if is_bitfield or sign != "-":
            read = getattr(value, name)
            if read != (True if isinstance(read, bool) else highest):
                yield composite, name, "value", read, highest
        setattr(value, name, 0 if is_bitfield else bytes(bits // 8))
        cleared = int.from_bytes(memory, byteorder) ^ all_ones
        setattr(value, name, highest if is_bitfield else b"\xff" * (bits // 8))
        if cleared != right or int.from_bytes(memory, byteorder) != all_ones:
            yield composite, name, "bits", hex(cleared), hex(right)
            memory[:] = b"\xff" * size
