# SPDX-License-Identifier: BSD-2-Clause
"""What pybpf.elf keeps from libbpf and why, what it lets through, and what it reads.

The objects that crash libbpf are made in crashing_objects.py, one or more for each row of the table
in docs/libbpf-crashes.md. Everything here needs clang, nothing needs root.
"""

from __future__ import annotations

import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pybpf
import pytest
from btf_sources import newest_clang
from crashing_objects import (
    CORE,
    CRASHES,
    FOREIGN,
    KCONFIG,
    MAPS,
    NATIVE,
    Crash,
    Patch,
    compile_object,
)
from elftools.elf.elffile import ELFFile
from elftools.elf.enums import ENUM_SH_TYPE_BASE
from pybpf import elf
from pybpf.errors import ObjectFormatError

ROOT = Path(__file__).parents[2]
BPF_SOURCES = sorted((ROOT / "tests/bpf").glob("*.bpf.c"))
HANG_SECONDS = 2
SHT_NOBITS = 8

each_crash = pytest.mark.parametrize("crash", CRASHES, ids=lambda c: f"{c.row}-{c.lie.__name__}")
both_byte_orders = pytest.mark.parametrize("target", [NATIVE, FOREIGN])


def refusal(data: bytes, foreign: bool = False) -> ObjectFormatError:
    with pytest.raises(ObjectFormatError) as caught:
        elf.check_object(data, "prog.o", foreign=foreign)
    assert caught.value.path == "prog.o"
    assert str(caught.value).startswith("prog.o")
    return caught.value


@pytest.fixture
def limited_time() -> Iterator[None]:
    """An object with a circle in it must not stop the whole run."""

    def too_long(*_: object) -> None:
        raise TimeoutError("the check does not return")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


# ---- objects that crash libbpf -------------------------------------------------------------------


def test_each_documented_crash_has_an_object() -> None:
    table = (ROOT / "docs/libbpf-crashes.md").read_text()
    rows = [int(row) for row in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)]
    assert rows
    assert sorted({crash.row for crash in CRASHES}) == rows


@pytest.mark.usefixtures("limited_time")
@both_byte_orders
@each_crash
def test_an_object_that_crashes_libbpf_is_refused_with_the_reason(
    crash: Crash, target: str
) -> None:
    error = refusal(crash.crashing(target), foreign=True)
    assert re.search(crash.says, error.message)
    assert error.section == crash.section
    assert f"section {crash.section}" in str(error)


@both_byte_orders
@each_crash
def test_the_same_object_without_the_lie_is_accepted(crash: Crash, target: str) -> None:
    elf.check_object(crash.sound(target), foreign=True)


@pytest.mark.parametrize("crash", {c.source: c for c in CRASHES}.values(), ids=lambda c: c.row)
def test_libbpf_opens_the_object_without_the_lie(crash: Crash) -> None:
    pybpf.open(crash.sound()).close()


def test_open_refuses_what_the_check_refuses() -> None:
    # one that libbpf survives, so that a failure is a failure and not the end of this process
    survived = next(crash for crash in CRASHES if crash.row == 17)
    with pytest.raises(ObjectFormatError, match=survived.says):
        pybpf.open(survived.crashing())


# These open objects WITHOUT the check, to show that it is needed: libbpf crashes or never returns,
# in a child process. Of the others, some crash in load, which needs root; some crash only some
# versions, or damage memory without a sign; the one of row 8 first fills 4 GiB of memory.
UNGUARDED = f"""
import resource, signal, sys
import pybpf
from pybpf import elf

elf.check_object = lambda *_, **__: None
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
stack = resource.getrlimit(resource.RLIMIT_STACK)[1]
resource.setrlimit(resource.RLIMIT_STACK, (8 << 20, stack))  # an endless recursion ends here
signal.alarm({HANG_SECONDS})
pybpf.open(sys.stdin.buffer.read()).close()
"""


def open_unguarded(data: bytes) -> int:
    """What became of a process that opens this without the check: its exit status."""
    command = [sys.executable, "-c", UNGUARDED]
    return subprocess.run(command, input=data, capture_output=True, timeout=60).returncode


@pytest.mark.parametrize(
    "crash", [c for c in CRASHES if c.kills], ids=lambda c: f"{c.row}-{c.lie.__name__}"
)
def test_without_the_check_the_object_really_ends_the_process(crash: Crash) -> None:
    assert open_unguarded(crash.sound()) == 0
    assert open_unguarded(crash.crashing()) == -crash.kills


# ---- files that are no BPF objects ---------------------------------------------------------------


def compiled(*arguments: str) -> bytes:
    command = [newest_clang(), *arguments, "-x", "c", "-c", "-", "-o", "-"]
    return subprocess.run(command, input=b"int x;", capture_output=True, check=True).stdout


def with_header_field(offset: int, what: str, value: int) -> bytes:
    patch = Patch(compile_object(MAPS))
    patch.put(offset, what, value)
    return bytes(patch.data)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(lambda: b"", "the file is empty", id="empty"),
        pytest.param(MAPS.encode, "is text, .* compile C with clang .*-target bpf", id="source"),
        pytest.param("naïve\r\n".encode, "is text", id="text in UTF-8"),
        pytest.param(
            lambda: compiled("-target", "bpf", "-emit-llvm"),
            "is LLVM bitcode; .* without -emit-llvm",
            id="bitcode",
        ),
        pytest.param(
            lambda: compiled("-target", "x86_64-apple-macos", "-emit-llvm"),
            "is LLVM bitcode; .* without -emit-llvm",
            id="wrapped bitcode",
        ),
        pytest.param(lambda: b"!<arch>\n" + bytes(60), "is an archive; .* ar x", id="archive"),
        pytest.param(lambda: b"!<thin>\n" + bytes(60), "is an archive; .* ar x", id="thin archive"),
        pytest.param(lambda: b"\x1f\x8b\x08\x00", "not an ELF file: .* 1f 8b 08 00", id="gzip"),
        pytest.param(
            lambda: compiled("-target", "x86_64-linux-gnu"),
            r"ELF file for x86-64 \(relocatable object\); .* clang -target bpf",
            id="x86-64 object",
        ),
        pytest.param(
            Path(sys.executable).read_bytes,
            r"ELF file for \S+ \((executable|shared object)\); .* clang -target bpf",
            id="this Python",
        ),
        pytest.param(
            lambda: with_header_field(16, "H", 2),
            "is an ELF executable, not a relocatable object; .* bpftool gen object",
            id="BPF executable",
        ),
        pytest.param(
            lambda: with_header_field(16, "H", 77), "is an ELF type 77, not", id="unknown ELF type"
        ),
        pytest.param(
            lambda: with_header_field(18, "H", 999), "for machine 999", id="unknown machine"
        ),
        pytest.param(
            lambda: with_header_field(4, "B", 1),
            "is a 32-bit ELF file; BPF objects are 64-bit",
            id="32-bit",
        ),
        pytest.param(
            lambda: with_header_field(5, "B", 3), "byte order 3 .* is unknown", id="byte order 3"
        ),
    ],
)
@pytest.mark.parametrize("foreign", [False, True])
def test_what_is_no_bpf_object_is_refused_by_name_with_advice(
    make: Callable[[], bytes], says: str, foreign: bool
) -> None:
    data = make()
    assert re.search(says, refusal(data, foreign).message)
    with pytest.raises(ObjectFormatError, match=says):
        list(elf.sections(data))
    with pytest.raises(ObjectFormatError, match=says):
        elf.license(data)


def test_an_object_of_the_other_byte_order_is_refused_unless_foreign() -> None:
    data = compile_object(CORE, FOREIGN)
    there, here = ("big", "little") if FOREIGN == "bpfeb" else ("little", "big")
    says = f"this object is {there}-endian ({FOREIGN}), this machine is {here}-endian"
    error = refusal(data)
    assert says in error.message
    assert f"clang -target {NATIVE}" in error.message
    elf.check_object(data, foreign=True)
    elf.check_object(compile_object(CORE, NATIVE))


@both_byte_orders
def test_an_object_cut_off_anywhere_is_refused_as_cut_off(target: str) -> None:
    data = compile_object(CORE, target)
    for size in range(16, len(data), 16):
        error = refusal(data[:size], foreign=True)
        assert "cut off" in error.message, size
        assert error.offset is not None
        with pytest.raises(ObjectFormatError, match="cut off"):
            list(elf.sections(data[:size]))


@both_byte_orders
@pytest.mark.parametrize("field", ["offset", "size"])
@pytest.mark.parametrize("name", [".BTF", ".BTF.ext", ".symtab", ".text", ".rel.text", "license"])
def test_a_section_beyond_the_end_is_refused_by_name(name: str, field: str, target: str) -> None:
    patch = Patch(compile_object(CORE, target))
    patch.put(patch.header(name) + (24 if field == "offset" else 32), "Q", len(patch.data))
    error = refusal(bytes(patch.data), foreign=True)
    assert f"cut off: section {name} has" in error.message
    assert error.section == name


@pytest.mark.parametrize("field", [24, 32], ids=["offset", "size"])
def test_section_names_beyond_the_end_are_refused(field: int) -> None:
    patch = Patch(compile_object(CORE))
    names = patch.file["e_shoff"] + 64 * patch.file["e_shstrndx"]
    patch.put(names + field, "Q", len(patch.data))
    assert "cut off: the section names end" in refusal(bytes(patch.data)).message


def test_a_section_of_names_that_does_not_exist_is_refused() -> None:
    data = with_header_field(62, "H", 500)
    assert "section 500 should hold the section names" in refusal(data).message


def test_debug_information_beyond_the_end_is_accepted_as_libbpf_does_not_read_it() -> None:
    patch = Patch(compile_object(CORE))
    patch.put(patch.header(".debug_info") + 32, "Q", len(patch.data))
    elf.check_object(bytes(patch.data))
    assert open_unguarded(bytes(patch.data)) == 0


# ---- what it reads -------------------------------------------------------------------------------


def assert_sections_as_pyelftools_has_them(data: bytes) -> None:
    expected = list(ELFFile(BytesIO(data)).iter_sections())
    found = list(elf.sections(data))
    assert [section.name for section in found] == [section.name for section in expected]
    for ours, theirs in zip(found, expected, strict=True):
        header = theirs.header
        kind = header["sh_type"]
        assert ours.type == ENUM_SH_TYPE_BASE.get(kind, kind)
        for field in ("flags", "offset", "size", "link", "info"):
            assert getattr(ours, field) == header["sh_" + field], (ours, field)
        assert ours.contents(data) == (b"" if ours.type == SHT_NOBITS else theirs.data())
        assert ours.name in repr(ours)


def license_by_pyelftools(data: bytes) -> str | None:
    section = ELFFile(BytesIO(data)).get_section_by_name("license")
    return section.data().split(b"\0")[0].decode() if section else None


def test_sections_and_license_are_those_that_pyelftools_finds(bpf_objects: list[Path]) -> None:
    licenses = set()
    for path in bpf_objects:
        data = path.read_bytes()
        assert_sections_as_pyelftools_has_them(data)
        licenses.add(elf.license(data))
        assert elf.license(data) == license_by_pyelftools(data)
    assert None in licenses  # no_license.bpf.c
    assert "Dual BSD/GPL" in licenses


@pytest.mark.parametrize("source", BPF_SOURCES, ids=lambda path: path.name)
def test_big_endian_objects_are_read_and_accepted_like_the_others(source: Path) -> None:
    folders = [ROOT / "vmlinux", ROOT / ".build/libbpf/include", pybpf.get_include()]
    includes = [f"-I{folder}" for folder in folders]
    command = [newest_clang(), "-target", "bpfeb", "-mcpu=v3", "-g", "-O2", *includes]
    command += ["-D__TARGET_ARCH_x86", "-c", str(source), "-o", "-"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    assert data[5] == 2
    assert_sections_as_pyelftools_has_them(data)
    assert elf.license(data) == license_by_pyelftools(data)
    elf.check_object(data, foreign=True)


def test_numbers_too_large_for_the_elf_header_are_read_from_the_first_section() -> None:
    data = compile_object(CORE)
    patch = Patch(data)
    table = patch.file["e_shoff"]
    patch.put(table + 32, "Q", patch.file["e_shnum"])
    patch.put(table + 40, "I", patch.file["e_shstrndx"])
    patch.put(60, "2H", 0, 0xFFFF)
    extended = bytes(patch.data)
    assert [s.name for s in elf.sections(extended)] == [s.name for s in elf.sections(data)]
    elf.check_object(extended)


def test_an_object_without_sections_has_none_and_no_license() -> None:
    data = bytearray(compile_object(CORE)[:64])
    struct.pack_into("=Q", data, 40, 0)
    assert list(elf.sections(bytes(data))) == []
    assert elf.license(bytes(data)) is None


def test_a_license_that_is_no_utf8_is_still_text() -> None:
    data = compile_object(KCONFIG).replace(b"GPL\0", b"G\xff\0\0", 1)
    assert elf.license(data) == "G\ufffd"


# ---- what it costs -------------------------------------------------------------------------------


def seconds(call: Callable[[], object]) -> float:
    """The shortest of many runs, which other processes have disturbed the least."""
    shortest = float("inf")
    for _ in range(30):
        start = time.perf_counter()
        call()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest


def test_the_check_costs_no_more_than_a_few_times_what_libbpf_itself_takes(
    bpf_objects: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = max((path.read_bytes() for path in bpf_objects), key=len)
    check = seconds(lambda: elf.check_object(data))
    monkeypatch.setattr(elf, "check_object", lambda *_, **__: None)
    unguarded = seconds(lambda: pybpf.open(data).close())
    assert check < 3 * unguarded  # measured: 0.7


def test_the_check_of_eight_times_as_many_types_takes_about_eight_times_as_long() -> None:
    def chain(length: int) -> bytes:
        types = "".join(f"typedef t{i} t{i + 1};" for i in range(length))
        return compile_object(f"typedef int t0; {types} t{length} variable;")

    short, long = chain(250), chain(2000)
    ratio = seconds(lambda: elf.check_object(long)) / seconds(lambda: elf.check_object(short))
    assert ratio < 24  # 64 if it were quadratic
