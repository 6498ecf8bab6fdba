# SPDX-License-Identifier: BSD-2-Clause
"""Random structs and unions have the layout and the values that three compilers give them.

Each definition is compiled by clang for BPF of both byte orders, which gives the BTF, by clang for
arm64 and by gcc for this machine.  What is right is never read from BTF: sizes and offsets are what
sizeof and offsetof say, and which bits a member has is seen in the bytes of constants.

PYBPF_EXAMPLES=N draws N batches of definitions instead of a few; the same N draws the same ones.
"""

from __future__ import annotations

import ctypes
import io
import os
import platform
import re
import struct
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from btf_sources import newest_clang
from c_types import (
    BOOL,
    LONG_DOUBLE,
    PRELUDE,
    Array,
    Composite,
    Member,
    Type,
    composites,
    definition,
    initialiser,
    lone_members,
    named_members,
    random_value,
    refused_values,
)
from elftools.elf.elffile import ELFFile
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from pybpf.btf import Btf
from pybpf.errors import LayoutError
from pybpf.layout import ctype, decode, encode

CLANG = [newest_clang(), "-target"]
COMPILERS = {
    "bpfel": [*CLANG, "bpfel", "-g"],
    "bpfeb": [*CLANG, "bpfeb", "-g"],
    "arm64": [*CLANG, "aarch64-linux-gnu"],
    "host": ["gcc"],
}

properties = settings(
    max_examples=int(os.environ.get("PYBPF_EXAMPLES", 20)),
    derandomize=True,
    database=None,
    deadline=None,
    # to explain a failure takes minutes and says which lines ran
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.large_base_example, HealthCheck.too_slow],
)

# The number is drawn first: lists by themselves stay short, or cannot shrink to one.
batches = st.integers(1, 60).flatmap(lambda n: st.lists(composites(), min_size=n, max_size=n))


class Sample:
    """A definition, values of it, and the questions to a compiler."""

    def __init__(self, number: int, composite: Composite) -> None:
        self.composite = composite
        self.number = number
        self.key = f"{composite.keyword} s{number}"
        self.source = definition(composite, f"s{number}")
        #: the members whose offset C can name
        self.no_bitfields = [m.name for m in named_members(composite) if m.bits is None]
        self.lone = list(lone_members(composite))
        random = Random(self.source)
        self.values = [random_value(composite, random) for _ in range(3)]

    def in_c(self) -> str:
        """The definition; t: size and offsets; v...: a constant of each value."""
        offsets = "".join(f", __builtin_offsetof({self.key}, {n})" for n in self.no_bitfields)
        lines = [
            f"{self.source};",
            f"const u64 t{self.number}[] = {{sizeof({self.key}){offsets}}};",
        ]
        for n, value in enumerate(self.lone + self.values):
            constant = initialiser(self.composite, value)
            lines.append(f"const {self.key} v{self.number}_{n} = {constant};")
        return "\n".join(lines) + "\n"


class Answers:
    """What one compiler makes of all samples."""

    def __init__(self, target: str, samples: list[Sample]) -> None:
        source = PRELUDE + "".join(sample.in_c() for sample in samples)
        with TemporaryDirectory() as folder:
            output = Path(folder, "out.o")
            command = [*COMPILERS[target], "-w", "-x", "c", "-c", "-", "-o", str(output)]
            done = subprocess.run(command, input=source.encode(), stderr=subprocess.PIPE)
            assert done.returncode == 0, done.stderr.decode()
            elf = ELFFile(io.BytesIO(output.read_bytes()))
        self.order = "<" if elf.little_endian else ">"
        data = [section.data() for section in elf.iter_sections()]
        self._constants = {
            symbol.name: data[symbol["st_shndx"]][symbol["st_value"] :][: symbol["st_size"]]
            for symbol in elf.get_section_by_name(".symtab").iter_symbols()
            if symbol["st_info"]["type"] == "STT_OBJECT"
        }
        if "-g" in command:
            self.btf = Btf(elf.get_section_by_name(".BTF").data())

    def table(self, sample: Sample) -> list[int]:
        """The size, and the offset of each member that is no bitfield."""
        data = self._constants[f"t{sample.number}"]
        return list(struct.unpack(f"{self.order}{len(data) // 8}Q", data))

    def images(self, sample: Sample) -> list[bytes]:
        """The bytes of each constant, those of lone members first."""
        count = len(sample.lone) + len(sample.values)
        return [self._constants[f"v{sample.number}_{n}"] for n in range(count)]


@properties
@given(batches)
def test_layouts_and_values_are_those_of_compilers(drawn: list[Composite]) -> None:
    samples = [Sample(number, composite) for number, composite in enumerate(drawn)]
    with ThreadPoolExecutor() as pool:
        made = pool.map(lambda target: Answers(target, samples), COMPILERS)
        answers = dict(zip(COMPILERS, made, strict=True))
    for sample in samples:
        try:
            for target in ("bpfel", "bpfeb"):
                check_layout(sample, answers[target])
                check_values(sample, answers[target])
                check_lone_members(sample, answers[target])
                check_refusals(sample, answers[target])
            for target in ("arm64", "host"):
                if not differs(sample, target):
                    assert answers[target].table(sample) == answers["bpfel"].table(sample), target
                    assert answers[target].images(sample) == answers["bpfel"].images(sample), target
        except BaseException:
            note(f"{PRELUDE}\n{sample.source};")
            raise


def check_layout(sample: Sample, answers: Answers) -> None:
    cls = ctype(answers.btf[sample.key])
    size, *offsets = answers.table(sample)
    assert ctypes.sizeof(cls) == answers.btf[sample.key].size == size
    assert [getattr(cls, name).offset for name in sample.no_bitfields] == offsets


def check_values(sample: Sample, answers: Answers) -> None:
    """What we write is what C writes, by all ways of writing; what C writes we read."""
    btf_type = answers.btf[sample.key]
    images = answers.images(sample)
    for value, image in zip(sample.lone + sample.values, images, strict=True):
        assert encode(btf_type, value) == image, value
        assigned = ctype(btf_type)()
        assign(assigned, value)
        assert bytes(assigned) == image, value
        read = decode(btf_type, image)
        assert_holds(read.asdict(), value)
        assert encode(btf_type, read) == image, value
    for value, image in zip(sample.values, images[len(sample.lone) :], strict=True):
        assert_attributes(ctype(btf_type).from_buffer_copy(image), value)


def check_lone_members(sample: Sample, answers: Answers) -> None:
    """Clearing a member clears its bits and no others; what no member has is padding, and zero."""
    btf_type = answers.btf[sample.key]
    cls, size = ctype(btf_type), btf_type.size
    used = 0
    for value, image in zip(sample.lone, answers.images(sample), strict=False):
        memory = bytearray(b"\xff" * size)
        clear(cls.from_buffer(memory), value)
        cleared = int.from_bytes(memory, "big") ^ (1 << 8 * size) - 1
        bits = int.from_bytes(image, "big")
        used |= cleared
        # of a _Bool's eight bits C sets one
        extra = 0 if uses(sample.composite, BOOL) else cleared & ~bits
        assert bits & ~cleared == extra == 0, (value, hex(cleared), hex(bits))
    dirty = decode(btf_type, b"\xff" * size)
    assert int.from_bytes(encode(btf_type, dirty), "big") == used


def check_refusals(sample: Sample, answers: Answers) -> None:
    """What does not fit is refused, and nothing is changed by trying."""
    btf_type = answers.btf[sample.key]
    for value in refused_values(sample.composite):
        with pytest.raises((OverflowError, LayoutError)):
            encode(btf_type, value)
        kept = ctype(btf_type)()
        with pytest.raises((OverflowError, LayoutError)):
            assign(kept, value)
        assert not any(bytes(kept)), value


def assign(view: Any, value: dict[str, Any]) -> None:
    """Assign the members one by one, those of nested structs through views of them."""
    for name, part in value.items():
        if isinstance(part, dict):
            assign(getattr(view, name), part)
        else:
            setattr(view, name, part)


def clear(view: Any, value: dict[str, Any] | list[Any]) -> None:
    """Set to zero the one member that ``value`` has."""
    for where, part in value.items() if isinstance(value, dict) else enumerate(value):
        if holds_dict(part):
            clear(view[where] if isinstance(value, list) else getattr(view, where), part)
        elif isinstance(value, dict):
            setattr(view, where, zero(part))


def holds_dict(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(map(holds_dict, value)))


def zero(value: Any) -> Any:
    if isinstance(value, list):
        return [zero(element) for element in value]
    return b"" if isinstance(value, bytes) else 0


def assert_holds(found: Any, value: Any) -> None:
    """``found`` is what a struct was decoded to, whose unions have more members than ``value``."""
    if isinstance(value, dict):
        for name, part in value.items():
            assert_holds(found[name], part)
    elif isinstance(value, list):
        for element, part in zip(found, value, strict=True):
            assert_holds(element, part)
    elif isinstance(value, bytes):
        assert found == value.decode(errors="replace")
    else:
        assert type(found) is type(value)
        assert found == value or (found != found and value != value)


def assert_attributes(view: Any, value: dict[str, Any]) -> None:
    for name, part in value.items():
        found = getattr(view, name)
        if isinstance(part, dict):
            assert_attributes(found, part)
        elif isinstance(part, list):
            assert_elements(found, part)
        elif isinstance(part, str):
            assert found == part.encode()
        else:
            assert type(found) is type(part)
            assert found == part


def assert_elements(view: Any, value: list[Any]) -> None:
    assert len(view) == len(value)
    for found, part in zip(view, value, strict=True):
        if isinstance(part, dict):
            assert_attributes(found, part)
        elif isinstance(part, list) and holds_dict(part):
            assert_elements(found, part)
        elif isinstance(part, str):
            assert found.value == part.encode()
        else:
            assert found == part


# ---- where compilers differ ----------------------------------------------------------------------


def differs(sample: Sample, target: str) -> bool:
    """Whether ``target`` may lay out the sample in another way than BPF does."""
    # BPF's has 8 bytes, arm64's 16, and x86-64's 16 of another kind
    if uses(sample.composite, LONG_DOUBLE):
        return True
    bitfields = [member for member in all_members(sample.composite) if member.bits is not None]
    if target == "arm64":
        # its ABI aligns a struct to the types of unnamed bitfields too
        return any(not member.name for member in bitfields)
    # gcc and clang do not agree on bitfields that are aligned to less than their type
    return platform.machine() != "x86_64" or any(
        int(number) * 8 < member.type.bits
        for member in bitfields
        for number in re.findall(r"ALIGNED\((\d+)\)", member.attributes)
    )


def all_members(type: Type) -> Iterator[Member]:
    if isinstance(type, Array):
        yield from all_members(type.element)
    elif isinstance(type, Composite):
        for member in type.members:
            yield member
            yield from all_members(member.type)


def uses(composite: Composite, wanted: Type) -> bool:
    def innermost(type: Type) -> Type:
        return innermost(type.element) if isinstance(type, Array) else type

    return any(innermost(member.type) is wanted for member in all_members(composite))
