# SPDX-License-Identifier: BSD-2-Clause
"""Functions of files by name, and the files by name: compared with nm, without root."""

from __future__ import annotations

import contextlib
import os
import random
import re
import struct
import subprocess

import pybpf
import pytest
from elftools.elf.elffile import ELFFile
from pybpf import demangling, functions
from pybpf.hooks import binaries, usdt
from traced import SOURCE, compile_c

TWO_VERSIONS = """
__asm__(".symver first, thing@V1\\n.symver second, thing@@V2");
int first(void) { return 1; }
int second(void) { return 2; }
int hidden_only(void) { return 3; }
__asm__(".symver hidden_only, gone@V1");
"""


@pytest.fixture
def library(tmp_path):
    versions = tmp_path / "versions"
    versions.write_text("V1 { global: thing; gone; }; V2 { global: thing; local: *; } V1;")
    flags = ("-shared", "-fPIC", f"-Wl,--version-script={versions}")
    return compile_c(tmp_path / "libthing.so.1", *flags, source=TWO_VERSIONS)


def offsets_by_nm(path, *options):
    """{name: offset in the file} of functions, for files whose code has the offset as address."""
    command = ["nm", "--defined-only", *options, str(path)]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found = (line.split() for line in lines.splitlines())
    return {name: int(address, 16) for address, kind, name in found if kind in "tT"}


# ---- symbols -------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_stripped", [False, True])
def test_versions_of_a_function(library, is_stripped):
    by_nm = offsets_by_nm(library)
    if is_stripped:
        subprocess.run(["strip", str(library)], check=True)
    first, second = by_nm["thing@V1"], by_nm["thing@@V2"]
    assert first != second
    assert functions.named(str(library), "thing") == {second: "thing"}
    assert functions.named(str(library), "thing@V1") == {first: "thing"}
    assert functions.named(str(library), "thing@@V2") == {second: "thing"}
    assert functions.named(str(library), "gone") == {by_nm["gone@V1"]: "gone"}
    assert set(functions.matching(str(library), "t.*", re.compile("t.*").fullmatch)) == {
        first,
        second,
    }
    with pytest.raises(pybpf.NotFoundError, match="did you mean 'thing'"):
        functions.named(str(library), "thing@V3")


def test_offsets_are_those_in_the_file_whatever_the_address_is(tmp_path):
    path = compile_c(tmp_path / "program", "-no-pie", "-Wl,-Ttext-segment=0x7000000")
    (offset,) = functions.named(str(path), "foo")
    with open(path, "rb") as file:
        text = ELFFile(file).get_section_by_name(".text")
        shift = text["sh_addr"] - text["sh_offset"]
    assert shift >= 0x7000000
    assert offset == offsets_by_nm(path)["foo"] - shift


def test_a_file_is_read_again_when_it_changed(tmp_path):
    path = compile_c(tmp_path / "lib.so", "-shared", source="int one(void) { return 1; }")
    functions.named(str(path), "one")
    path.unlink()
    compile_c(
        path, "-shared", source="int two(void) { return 2; } int one_more(void) { return 1; }"
    )
    functions.named(str(path), "two")


def test_damaged_files_are_refused_or_read(tmp_path):
    content = compile_c(tmp_path / "program").read_bytes()
    pick = random.Random(1)
    headers = (*range(0x400), *range(len(content) - 0x800, len(content)))
    path = tmp_path / "damaged"
    for _ in range(100):
        damaged = bytearray(content)
        for place in pick.sample(headers, 3):
            damaged[place] = pick.choice((0, 1, 0x7F, 0xFF))
        path.write_bytes(damaged)
        with contextlib.suppress(pybpf.ObjectFormatError, pybpf.NotFoundError):
            functions.named(str(path), "foo")
        with contextlib.suppress(pybpf.ObjectFormatError):
            list(usdt.probes(str(path)))


# ---- C++ -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "short"),
    [
        ("_Z4areaRK5Shape", "area(Shape const&)", "area"),
        ("_ZNK6shapes6Square4areaEv", "shapes::Square::area() const", "shapes::Square::area"),
        ("_ZN1AclEi", "A::operator()(int)", "A::operator()"),
        ("_ZN12_GLOBAL__N_11fEPFivE", "(anonymous namespace)::f(int (*)())", None),
        ("_ZGVZ1fvE1x", "guard variable for f()::x", None),
        ("main", None, None),
        ("_Znonsense", None, None),
        ("_Z" + "1a" * 5000, None, None),
    ],
)
def test_names_as_in_the_source(name, text, short):
    assert demangling.demangle(name) == text
    if short is not None:
        assert demangling.without_parameters(text) == short


def test_parameters_with_parentheses():
    text = "(anonymous namespace)::f(int (*)())"
    assert demangling.without_parameters(text) == "(anonymous namespace)::f"
    assert demangling.without_parameters("no_parameters") == "no_parameters"


def test_without_a_runtime_of_c_plus_plus_names_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(demangling, "_LIBRARIES", ("libnothing.so",))
    demangling._runtime.cache_clear()
    try:
        assert demangling.demangle("_Z1fv") is None
    finally:
        demangling._runtime.cache_clear()


# ---- Go ------------------------------------------------------------------------------------------

NAMES = b"main.main\0main.(*T).Run\0"
SECOND_NAME = len("main.main") + 1


def go_1_2(text):
    header = struct.pack("<I4B", 0xFFFFFFFB, 0, 0, 1, 8)
    names = 16 + 40 + 32  # behind all else
    places = struct.pack("<5Q", text, 56, text + 16, 72, text + 32)
    infos = struct.pack("<QiI", text, names, 0) + struct.pack("<QiI", text, names + SECOND_NAME, 0)
    return header + struct.pack("<Q", 2) + places + infos + NAMES


def go_1_16(text):
    header = struct.pack("<I4B", 0xFFFFFFFA, 0, 0, 1, 8)
    places = 64 + len(NAMES)
    words = struct.pack("<7Q", 2, 0, 64, 0, 0, 0, places)
    table = struct.pack("<5Q", text, 40, text + 16, 56, text + 32)
    infos = struct.pack("<QiI", text, 0, 0) + struct.pack("<QiI", text, SECOND_NAME, 0)
    return header + words + NAMES + table + infos


def go_1_18(text, number=0xFFFFFFF0, start=None):
    header = struct.pack("<I4B", number, 0, 0, 1, 8)
    places = 72 + len(NAMES)
    words = struct.pack("<8Q", 2, 0, text if start is None else start, 72, 0, 0, 0, places)
    table = struct.pack("<5I", 0, 20, 16, 28, 32)
    infos = struct.pack("<Ii", 0, 0) + struct.pack("<Ii", 0, SECOND_NAME)
    return header + words + NAMES + table + infos


GO = {
    "1.2": go_1_2,
    "1.16": go_1_16,
    "1.18": go_1_18,
    "1.20": lambda text: go_1_18(text, number=0xFFFFFFF1),
    "1.26": lambda text: go_1_18(text, number=0xFFFFFFF1, start=0),
}


def go_program(tmp_path, table, source, *flags):
    """A stripped program with that table, and where in the file its code begins."""
    path = compile_c(tmp_path / "gopher", "-no-pie", *flags, source=source)
    with open(path, "rb") as file:
        section = ELFFile(file).get_section_by_name(".text")
        text, offset = section["sh_addr"], section["sh_offset"]
    content = tmp_path / "table"
    content.write_bytes(table(text))
    command = ["objcopy", "--strip-all", "--add-section", f".gopclntab={content}", str(path)]
    subprocess.run(command, check=True)
    return str(path), offset


ALL_GO = 'void _start(void) { for (;;) asm(".skip 64, 0x90"); }'


@pytest.mark.parametrize("table", GO.values(), ids=GO.keys())
def test_stripped_programs_in_go(tmp_path, table):
    path, text = go_program(tmp_path, table, ALL_GO, "-nostdlib", "-static")
    assert functions.named(path, "main.main") == {text: "main.main"}
    assert functions.named(path, "main.(*T).Run") == {text + 16: "main.(*T).Run"}


def test_where_gos_code_begins_is_not_guessed_in_a_program_that_has_others(tmp_path):
    path, _ = go_program(tmp_path, GO["1.26"], SOURCE)
    with pytest.raises(pybpf.NotFoundError, match="there are none"):
        functions.named(path, "main.main")


# ---- files ---------------------------------------------------------------------------------------


def test_libraries_of_the_path_of_the_linker(library, monkeypatch):
    monkeypatch.setattr(binaries, "_CACHE", "/nonexistent")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nonexistent:{library.parent}")
    for name in ("libthing.so.1", "libthing.so", "libthing"):
        assert binaries.find(name, None) == str(library)
    with pytest.raises(
        pybpf.NotFoundError, match=rf"{library.parent}.*did you mean 'libthing.so.1'"
    ):
        binaries.find("libthings.so.1", None)


def test_a_library_for_another_processor_is_none(library, monkeypatch, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    content = bytearray(library.read_bytes())
    content[18:20] = b"\xff\xff"  # e_machine
    (other / library.name).write_bytes(content)
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{other}:{library.parent}")
    assert binaries.find("libthing", None) == str(library)


def test_the_linkers_cache_has_the_c_library():
    path = binaries.find("libc.so.6", None)
    assert os.path.samefile(path, next(line.split()[-1] for line in maps() if "libc.so.6" in line))


def maps():
    with open("/proc/self/maps") as file:
        return file.readlines()


def test_of_names_a_process_has_mapped_the_file(library):
    assert os.path.samefile(binaries.find("libc", os.getpid()), binaries.find("libc", None))
