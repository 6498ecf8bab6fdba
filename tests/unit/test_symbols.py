# SPDX-License-Identifier: BSD-2-Clause
"""Names for addresses: compared with nm and addr2line, on files of every kind, without root."""

from __future__ import annotations

import ctypes
import io
import json
import mmap
import os
import pickle
import platform
import random
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pybpf
import pytest
from elftools.elf.elffile import ELFFile
from pybpf import Frame, elf_symbols, symbols
from pybpf.symbols import KernelSymbols, UserSymbols
from traced import SOURCE, Traced, compile_c

KERNEL = 0xFFFFFFFF_81000000

# ---- frames and values ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (Frame(KERNEL + 0x5A, "do_sys_openat2", 0x5A, "vmlinux"), "do_sys_openat2+0x5a"),
        (Frame(KERNEL + 9, "nft_do_chain", 9, "nf_tables"), "nft_do_chain+0x9 [nf_tables]"),
        (Frame(0x7F12, "malloc", 0x12, "/usr/lib/libc.so.6"), "malloc+0x12 (libc.so.6)"),
        (Frame(0x7F12, None, 0x34, "/usr/lib/libc.so.6"), "0x7f12 [unknown] (libc.so.6+0x34)"),
        (Frame(0x7F12, module="[heap]"), "0x7f12 [unknown] ([heap])"),
        (Frame(0x7F12), "0x7f12 [unknown]"),
        (Frame(KERNEL), "0xffffffff81000000 [unknown]"),
    ],
)
def test_a_frames_text(frame, text):
    assert str(frame) == text


def test_frames_compare_hash_and_pickle_by_what_they_tell():
    frame = Frame(1, "main", 0, "/bin/true")
    assert frame == Frame(1, "main", 0, "/bin/true")
    assert frame != Frame(2, "main", 1, "/bin/true")
    assert len({frame, Frame(1, "main", 0, "/bin/true")}) == 1
    assert pickle.loads(pickle.dumps(frame)) == frame
    assert repr(frame) == "Frame(address=1, symbol='main', offset=0, module='/bin/true')"


def test_the_addresses_of_a_value_end_at_the_first_zero():
    assert symbols.decode_addresses(struct.pack("=5Q", KERNEL, 2, 0, 4, 0)) == [KERNEL, 2]
    assert symbols.decode_addresses(struct.pack("=2Q", 1, 2)) == [1, 2]
    assert symbols.decode_addresses(b"") == []
    with pytest.raises(pybpf.LayoutError, match="12 bytes"):
        symbols.decode_addresses(bytes(12))


def test_the_build_ids_of_a_value_end_at_the_first_empty_one():
    build_id = bytes(range(20))
    valid = struct.pack("=i20sQ", 1, build_id, 0x1234)
    by_address = struct.pack("=i20sQ", 2, bytes(20), 0x7F001234)
    assert symbols.decode_build_ids(valid + by_address + bytes(32) + valid) == [
        (build_id.hex(), 0x1234),
        (None, 0x7F001234),
    ]
    with pytest.raises(pybpf.LayoutError, match="32-byte entries"):
        symbols.decode_build_ids(bytes(33))


# ---- the kernel ----------------------------------------------------------------------------------

LISTING = """\
ffffffff81000000 T first_name
ffffffff81000000 T _stext
ffffffff81000100 t static_function
ffffffff81000180 d some_data
ffffffff81000200 W weak_function
ffffffff81001000 T _etext
ffffffff82000000 D data
ffffffff83000000 t init_function
ffffffffc0002000 t bpf_prog_6deef7357e7b4530_hello\t[bpf]
ffffffffc0001000 t module_function\t[nf_tables]
ffffffffc0001800 d module_data\t[nf_tables]
"""


@pytest.fixture
def listing(tmp_path):
    path = tmp_path / "kallsyms"
    path.write_text(LISTING)
    return path


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (KERNEL, "first_name+0x0"),
        (KERNEL + 0xFF, "first_name+0xff"),
        (KERNEL + 0x100, "static_function+0x0"),
        (KERNEL + 0x1F0, "static_function+0xf0"),
        (KERNEL + 0xFFF, "weak_function+0xdff"),
        (0xFFFFFFFF_C0001004, "module_function+0x4 [nf_tables]"),
        (0xFFFFFFFF_C0002010, "bpf_prog_6deef7357e7b4530_hello+0x10 [bpf]"),
    ],
)
def test_kernel_addresses_by_the_listing(listing, address, text):
    assert [str(frame) for frame in KernelSymbols(str(listing)).resolve([address])] == [text]


@pytest.mark.parametrize(
    "address",
    [
        KERNEL - 1,  # before everything
        KERNEL + 0x1000,  # behind the text
        0xFFFFFFFF_82000000,  # data
        0xFFFFFFFF_83000010,  # freed after booting
        0xFFFFFFFF_C0F00000,  # far behind the last module
        2**64 - 1,
    ],
)
def test_kernel_addresses_that_are_no_functions(listing, address):
    assert KernelSymbols(str(listing)).resolve([address]) == [Frame(address)]


def test_a_call_that_never_returns_is_the_callers(listing):
    """Its return address is where the next function starts; the first address is exact."""
    start = KERNEL + 0x100
    frames = KernelSymbols(str(listing)).resolve([start, start])
    assert [str(frame) for frame in frames] == ["static_function+0x0", "first_name+0x100"]


def test_hidden_addresses_tell_their_reason(tmp_path):
    path = tmp_path / "kallsyms"
    path.write_text("0000000000000000 T _stext\n0000000000000000 t other\t[nf_tables]\n")
    kernel = KernelSymbols(str(path))
    assert kernel.resolve([KERNEL, KERNEL + 1]) == [Frame(KERNEL), Frame(KERNEL + 1)]
    assert not kernel.available
    assert "kernel.kptr_restrict is " in kernel.reason
    assert "CAP_SYSLOG" in kernel.reason


def test_a_listing_that_is_not_there_tells_so(tmp_path):
    kernel = KernelSymbols(str(tmp_path / "none"))
    assert not kernel.available
    assert "No such file" in kernel.reason


def test_the_listing_is_read_again_for_modules_once_it_is_old(listing, monkeypatch):
    kernel = KernelSymbols(str(listing))
    place = 0xFFFFFFFF_C0001004
    assert kernel.resolve([place])[0].symbol == "module_function"
    listing.write_text(LISTING.replace("module_function", "other_function"))
    assert kernel.resolve([place])[0].symbol == "module_function"
    monkeypatch.setattr(symbols, "_MAX_AGE", 0)
    assert kernel.resolve([KERNEL])[0].symbol == "first_name"  # for that, nothing is read
    assert kernel._modules.find(place)[1].startswith("module_function")
    assert kernel.resolve([place])[0].symbol == "other_function"


def test_refresh_reads_the_listing_again(listing):
    kernel = KernelSymbols(str(listing))
    assert kernel.available
    listing.write_text(LISTING.replace("first_name", "renamed"))
    kernel.refresh()
    assert kernel.resolve([KERNEL])[0].symbol == "renamed"


# ---- files, compared with binutils ---------------------------------------------------------------


class MappedFile:
    """Any ELF file as executable memory of this process, wherever in it the code is."""

    def __init__(self, path):
        with open(path, "rb") as file:
            flags, protection = mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC
            self.memory = mmap.mmap(file.fileno(), 0, flags=flags, prot=protection)
            self.segments = [
                segment
                for segment in ELFFile(file).iter_segments("PT_LOAD")
                if segment["p_flags"] & 1
            ]
        maps = Path("/proc/self/maps").read_text().splitlines()
        line = next(line for line in maps if line.endswith(str(path)) and "r-xp 00000000" in line)
        self.start = int(line.split("-")[0], 16)

    def address_of(self, value):
        """Where in memory the file's address ``value`` is."""
        for segment in self.segments:
            if 0 <= value - segment["p_vaddr"] < segment["p_filesz"]:
                return self.start + value - segment["p_vaddr"] + segment["p_offset"]
        raise AssertionError(f"no code at {value:#x}")


def functions_by_nm(path, *options):
    """{(start, size): names} of a file's functions."""
    command = ["nm", "-S", "--defined-only", *options, str(path)]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found = {}
    for line in lines.splitlines():
        fields = line.split()
        if len(fields) == 4 and fields[2] in "tTwWi":
            place = int(fields[0], 16), int(fields[1], 16)
            found.setdefault(place, set()).add(fields[3].partition("@")[0])
    return found


def libc_path():
    maps = Path("/proc/self/maps").read_text().splitlines()
    return next(line.split()[-1] for line in maps if "/libc.so" in line or "/libc-2" in line)


def test_all_of_libcs_functions_are_named_as_nm_names_them(tmp_path, monkeypatch):
    monkeypatch.setattr(elf_symbols, "DEBUG_FILES", "/nonexistent")
    path = shutil.copy(libc_path(), tmp_path / "libc.so")
    mapped = MappedFile(path)
    functions = functions_by_nm(path, "-D")
    assert len(functions) > 1500
    named = {}
    for (start, _), names in functions.items():
        named.setdefault(start, set()).update(names)
    process = UserSymbols(os.getpid())
    for start, names in named.items():
        address = mapped.address_of(start)
        (frame,) = process.resolve([address])
        assert frame.symbol in names
        assert frame == (address, frame.symbol, 0, str(path))


def test_addresses_within_functions_are_named_as_addr2line_names_them(tmp_path):
    path = compile_c(tmp_path / "program", "-static", "-g0")
    mapped = MappedFile(path)
    functions = functions_by_nm(path)
    pick = random.Random(1)
    places = [start + pick.randrange(size) for start, size in pick.sample(list(functions), 1000)]
    asked = "\n".join(map(hex, places))
    command = ["addr2line", "-f", "-e", str(path)]
    answer = subprocess.run(command, input=asked, capture_output=True, text=True, check=True)
    aliases = {}
    for names in functions.values():
        aliases.update(dict.fromkeys(names, names))
    process = UserSymbols(os.getpid())
    for place, name in zip(places, answer.stdout.splitlines()[::2], strict=True):
        (frame,) = process.resolve([mapped.address_of(place)])
        assert frame.symbol in aliases[name]


def test_the_best_known_of_several_names_is_taken():
    for name in ("malloc", "poll"):
        address = ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value
        (frame,) = symbols.resolve([address], os.getpid())
        assert str(frame).startswith(f"{name}+0x0 (libc")


def test_pythons_own_functions_are_named():
    for name in ("PyObject_Repr", "PyLong_FromLong", "Py_Initialize"):
        address = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
        (frame,) = symbols.resolve([address + 1], os.getpid())
        assert (frame.symbol, frame.offset) == (name, 1)
        assert "python" in frame.module


# ---- kinds of files ------------------------------------------------------------------------------

KINDS = {
    "pie": ("-pie", "-fPIE"),
    "fixed address": ("-no-pie",),
    "static": ("-static",),
    "static pie": ("-static-pie", "-fPIE"),
    "exported symbols only": ("-pie", "-fPIE", "-rdynamic", "-s"),
    "code that does not start on a page": ("-no-pie", "-Wl,-z,noseparate-code"),
}


@pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS.keys())
def test_kinds_of_executables(tmp_path, flags):
    path = compile_c(tmp_path / "program", *flags)
    with Traced(path) as traced:
        frames = symbols.resolve([traced.foo, traced.bar + 2, traced.baz + 3], traced.pid)
    assert [(frame.symbol, frame.offset) for frame in frames] == [
        ("foo", 0),
        ("bar", 2),
        ("baz", 3),
    ]
    assert {frame.module for frame in frames} == {str(path)}


def test_a_stripped_file_gives_what_addr2line_wants(tmp_path):
    whole = compile_c(tmp_path / "whole")
    stripped = tmp_path / "stripped"
    subprocess.run(["strip", str(whole), "-o", str(stripped)], check=True)
    foo = next(start for (start, _), names in functions_by_nm(whole).items() if "foo" in names)
    with Traced(stripped) as traced:
        (frame,) = symbols.resolve([traced.foo + 4], traced.pid)
    assert frame == (traced.foo + 4, None, foo + 4, str(stripped))


def test_a_debug_file_is_found_by_build_id(tmp_path, monkeypatch):
    program = compile_c(tmp_path / "program", "-g", "-Wl,--build-id=sha1")
    with open(program, "rb") as file:
        notes = ELFFile(file).get_section_by_name(".note.gnu.build-id").iter_notes()
        build_id = next(notes)["n_desc"]
    debug_file = tmp_path / "debug" / build_id[:2] / f"{build_id[2:]}.debug"
    debug_file.parent.mkdir(parents=True)
    subprocess.run(["objcopy", "--only-keep-debug", str(program), str(debug_file)], check=True)
    subprocess.run(["strip", str(program)], check=True)
    monkeypatch.setattr(elf_symbols, "DEBUG_FILES", str(tmp_path / "debug"))
    with Traced(program) as traced:
        (frame,) = symbols.resolve([traced.bar + 1], traced.pid)
    assert frame == (traced.bar + 1, "bar", 1, str(program))


ASSEMBLY = """
    .text
    .globl outer, weak_alias, unsized, version_1
    .weak weak_alias
    .type outer, @function
    .type weak_alias, @function
    .type local_alias, @function
    .type inner, @function
    .type unsized, @function
    .type "$mangled", @function
    .type version_1, @function
local_alias: weak_alias: outer: .skip 16
label: .skip 16
inner: .skip 16
    .size inner, 16
    .skip 16
    .size outer, 64
    .size weak_alias, 64
    .size local_alias, 64
    .skip 64
unsized: .skip 64
"$d": .skip 16
"$mangled": .skip 16
    .size "$mangled", 16
version_1: .skip 16
    .size version_1, 16
    .symver version_1, versioned@@VERSION_1, remove
"""


def test_nested_aliased_and_unsized_symbols(tmp_path):
    versions = tmp_path / "versions"
    versions.write_text("VERSION_1 { global: *; };")
    flags = ("-shared", "-nostdlib", f"-Wl,--version-script={versions}")
    source = f"asm({json.dumps(ASSEMBLY)});"
    path = compile_c(tmp_path / "library.so", *flags, source=source)
    mapped = MappedFile(path)
    functions = functions_by_nm(path)
    outer = next(start for (start, _), names in functions.items() if "outer" in names)
    expected = {
        0: "outer+0x0",  # global before weak and local
        20: "outer+0x14",  # no label within a function
        32: "inner+0x0",
        47: "inner+0xf",
        48: "outer+0x30",  # behind the inner one, still in the outer
        130: "unsized+0x2",  # up to the next symbol or the end of its section
        192: "unsized+0x40",  # no mark of arm64's
        208: "$mangled+0x0",
        224: "versioned+0x0",
    }
    process = UserSymbols(os.getpid())
    for offset, text in expected.items():
        (frame,) = process.resolve([mapped.address_of(outer + offset)])
        assert str(frame) == f"{text} (library.so)"
    (gap,) = process.resolve([mapped.address_of(outer + 64)])
    assert gap == (gap.address, None, outer + 64, str(path))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="gcc's -m32 is of x86")
def test_a_file_of_32_bits_is_read(tmp_path):
    source = "int second(void) { return 2; } int first(void) { return second(); }"
    flags = ("-m32", "-nostdlib", "-static", "-Wl,-e,first")
    path = compile_c(tmp_path / "program", *flags, source=source)
    with open(path, "rb") as file:
        image = elf_symbols.read_image(file)
    functions = {names.pop(): place for place, names in functions_by_nm(path).items()}
    for name in ("first", "second"):
        start, size = functions[name]
        assert image.symbols.find(start + size - 1) == (start, name)


def test_damaged_files_are_no_files(tmp_path):
    content = compile_c(tmp_path / "program").read_bytes()
    pick = random.Random(1)
    for length in pick.sample(range(len(content)), 100):
        elf_symbols.read_image(io.BytesIO(content[:length]))
    headers = (*range(0x400), *range(len(content) - 0x800, len(content)))
    for _ in range(500):
        damaged = bytearray(content)
        for place in pick.sample(headers, 3):
            damaged[place] = pick.choice((0, 1, 0x7F, 0xFF))
        image = elf_symbols.read_image(io.BytesIO(damaged))
        if image:
            image.symbols.find(pick.randrange(0x5000))
    assert elf_symbols.read_image(io.BytesIO(b"#!/bin/sh\n")) is None


def test_the_vdso_is_read_from_memory(tmp_path):
    maps = Path("/proc/self/maps").read_text().splitlines()
    line = next(line for line in maps if line.endswith("[vdso]"))
    start, end = (int(number, 16) for number in line.split()[0].split("-"))
    content = tmp_path / "vdso"
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        memory.seek(start)
        content.write_bytes(memory.read(end - start))
    functions = functions_by_nm(content, "-D")
    assert functions
    for (place, size), names in functions.items():
        (frame,) = symbols.resolve([start + place + size - 1], os.getpid())
        assert frame.symbol in names
        assert frame.module == "[vdso]"


# ---- processes -----------------------------------------------------------------------------------


def test_a_process_that_has_ended_leaves_numbers(tmp_path):
    with Traced(compile_c(tmp_path / "program")) as traced:
        pass
    assert symbols.resolve([traced.foo, 5], traced.pid) == [Frame(traced.foo), Frame(5)]
    process = UserSymbols(traced.pid)
    assert not process.available
    assert f"process {traced.pid}" in process.reason


def test_what_was_opened_in_time_names_a_process_that_has_ended(tmp_path):
    program = compile_c(tmp_path / "program")
    with Traced(program) as traced:
        process = UserSymbols(traced.pid)
        assert (process.available, process.reason) == (True, "")
    assert process.resolve([traced.foo]) == [Frame(traced.foo, "foo", 0, str(program))]
    assert process.resolve([5]) == [Frame(5)]  # looks for new mappings in vain
    assert process.pid == traced.pid


def test_a_file_that_was_replaced_since_is_not_taken_for_the_old_one(tmp_path):
    program = compile_c(tmp_path / "program")
    with Traced(program) as traced:
        process = UserSymbols(traced.pid)
    renamed = SOURCE.replace("foo", "zed")
    compile_c(tmp_path / "other", source=renamed).replace(program)
    assert process.resolve([traced.foo]) == [Frame(traced.foo, module=str(program))]


def test_a_zombie_leaves_numbers():
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert symbols.resolve([4096], process.pid) == [Frame(4096)]


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1])
def test_a_number_that_is_no_pid_is_refused(pid):
    with pytest.raises(ValueError, match=f"pid {pid}"):
        symbols.resolve([4096], pid)


def test_addresses_of_no_process_stay_numbers():
    assert symbols.resolve([4096]) == [Frame(4096)]
    assert symbols.resolve([]) == []


def test_addresses_in_no_mapping_and_in_data_stay_numbers():
    data = ctypes.create_string_buffer(8)
    addresses = [8, ctypes.addressof(data), 2**63 - 1]
    assert symbols.resolve(addresses, os.getpid()) == [Frame(address) for address in addresses]


def test_a_library_that_is_loaded_later_is_found(tmp_path):
    process = UserSymbols(os.getpid())
    source = "int late_function(void) { return 1; }"
    path = compile_c(tmp_path / "late.so", "-shared", "-fPIC", source=source)
    function = ctypes.CDLL(str(path)).late_function
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert process.resolve([address]) == [Frame(address, "late_function", 0, str(path))]


# ---- JIT compilers -------------------------------------------------------------------------------


@pytest.fixture
def compiled_code():
    """Executable memory of this process that belongs to no file, and the file that names it."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    protection = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    memory = mmap.mmap(-1, 4096, flags=flags, prot=protection)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    path = Path(f"/tmp/perf-{os.getpid()}.map")
    yield start, path
    path.unlink(missing_ok=True)


def test_a_perf_map_names_compiled_code(compiled_code):
    start, path = compiled_code
    path.write_text(
        f"{start:x} 40 first\n{start + 0x40:x} 20 second /app/@web/main.js:7\n"
        f"{start:x} 10 compiled anew\nnonsense\n{start + 0x80:x} 8"
    )
    expected = {0x8: "compiled anew+0x8", 0x5F: "second /app/@web/main.js:7+0x1f"}
    process = UserSymbols(os.getpid())
    for offset, text in expected.items():
        (frame,) = process.resolve([start + offset])
        assert str(frame) == f"{text} ({path.name})"
        assert frame.module == str(path)
    behind, unfinished = start + 0x60, start + 0x80
    assert process.resolve([behind]) == [Frame(behind)]
    assert process.resolve([unfinished]) == [Frame(unfinished)]
    with path.open("a") as file:  # the compiler goes on
        file.write(" third\n")
    assert process.resolve([unfinished])[0].symbol == "third"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_perf_map_that_others_wrote_is_not_believed(compiled_code):
    start, path = compiled_code
    path.write_text(f"{start:x} 40 forged\n")
    os.chown(path, 12345, 12345)
    assert symbols.resolve([start], os.getpid()) == [Frame(start)]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python has perf support since 3.12")
def test_pythons_perf_support_names_python_functions():
    code = "def spin():\n print(1, flush=True)\n input()\nspin()"
    command = [sys.executable, "-X", "perf", "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        path = Path(f"/tmp/perf-{process.pid}.map")
        lines = path.read_text().splitlines()
        start = next(int(line.split()[0], 16) for line in lines if "py::spin" in line)
        (frame,) = symbols.resolve([start], process.pid)
        process.communicate(b"\n")
    path.unlink()
    assert frame.symbol.startswith("py::spin:")


# ---- what is kept --------------------------------------------------------------------------------


def test_a_file_is_read_once_and_again_when_it_changed(tmp_path, monkeypatch):
    read = []
    original = elf_symbols.read_image
    monkeypatch.setattr(symbols, "read_image", lambda file: read.append(1) or original(file))
    program = compile_c(tmp_path / "program")
    for _ in range(2):
        with Traced(program) as traced:
            assert symbols.resolve([traced.foo], traced.pid)[0].symbol == "foo"
    assert len(read) == 1
    time.sleep(0.01)
    compile_c(program)
    with Traced(program) as traced:
        assert symbols.resolve([traced.foo], traced.pid)[0].symbol == "foo"
    assert len(read) == 2


def test_what_is_kept_is_bounded(monkeypatch):
    class Entry:
        size = 1 << 20

    cache = elf_symbols.Cache()
    monkeypatch.setattr(elf_symbols, "CACHE_BYTES", 4 << 20)
    cache.get((0,), Entry)
    for number in range(1, 10):
        cache.get((number,), Entry)
        kept = cache.get((0,), Entry)  # used all the time
        assert cache.get((0,), Entry) is kept
    assert len(cache._entries) == 3
    assert set(cache._entries) == {(0,), (8,), (9,)}
