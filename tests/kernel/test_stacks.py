# SPDX-License-Identifier: BSD-2-Clause
"""Names for stacks that BPF programs took, and what only root can see or forgo."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pybpf
import pytest
from elftools.elf.elffile import ELFFile
from pybpf import symbols
from traced import GETPPID, Traced, compile_c


def read_kallsyms():
    """[(address, type, name, module)] as the kernel lists them."""
    found = []
    for line in Path("/proc/kallsyms").read_text().splitlines():
        address, kind, name, *module = line.split()
        found.append((int(address, 16), kind, name, module[0].strip("[]") if module else "vmlinux"))
    return found


def function_names(frames):
    return [frame.symbol for frame in frames]


# ---- stacks of BPF programs ----------------------------------------------------------------------


@pytest.fixture
def take_stacks(bpf_object):
    """take_stacks(process): the object after the process called foo() once under its eyes."""
    opened = []

    def take(traced):
        obj = pybpf.open(bpf_object("stacks"))
        opened.append(obj)
        obj.rodata.target_pid = traced.pid
        obj.rodata.target_syscall = GETPPID
        obj.load()
        obj.attach()
        traced.call()
        return obj

    yield take
    for obj in opened:
        obj.close()


def stack(obj, map_name, variable):
    stack_id = obj.data[variable]
    assert stack_id >= 0
    return obj.maps[map_name].lookup_bytes(stack_id)


KINDS = {
    "pie": ("-pie", "-fPIE"),
    "fixed address": ("-no-pie",),
    "static": ("-static",),
    "no symbols but exported ones": ("-pie", "-fPIE", "-rdynamic", "-s"),
}


@pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS.keys())
def test_a_users_stack_names_its_functions(take_stacks, tmp_path, flags):
    program = compile_c(tmp_path / "program", *flags)
    with Traced(program) as traced:
        obj = take_stacks(traced)
        addresses = symbols.decode_addresses(stack(obj, "user_stacks", "user_stack"))
        frames = symbols.resolve(addresses, traced.pid)
        assert [frame.address for frame in frames] == addresses
        assert function_names(frames)[:4] == ["baz", "bar", "foo", "main"]
        assert [frame.module for frame in frames[:4]] == [str(program)] * 4
        assert frames[1].address - frames[1].offset == traced.bar
        assert str(frames[2]) == f"foo+{frames[2].address - traced.foo:#x} (program)"


def test_the_kernels_stack_names_the_system_call_and_the_bpf_program(take_stacks, tmp_path):
    with Traced(compile_c(tmp_path / "program")) as traced:
        obj = take_stacks(traced)
        kernel = symbols.decode_addresses(stack(obj, "kernel_stacks", "kernel_stack"))
        user = symbols.decode_addresses(stack(obj, "user_stacks", "user_stack"))
        frames = symbols.resolve(kernel, None)
        listed = {name for _, _, name, _ in read_kallsyms()}
        assert set(function_names(frames)) <= listed
        assert any("syscall" in name or "el0_svc" in name for name in function_names(frames))
        tag = obj.programs["take_stacks"].tag
        programs = [frame for frame in frames if frame.module == "bpf"]
        assert f"bpf_prog_{tag}_take_stacks" in function_names(programs)
        assert symbols.resolve(kernel + user, traced.pid) == frames + symbols.resolve(
            user, traced.pid
        )


def test_build_ids_tell_the_file_and_the_place_in_it(take_stacks, tmp_path):
    program = compile_c(tmp_path / "program", "-Wl,--build-id=sha1")
    with open(program, "rb") as file:
        elf = ELFFile(file)
        notes = elf.get_section_by_name(".note.gnu.build-id").iter_notes()
        build_id = next(notes)["n_desc"]
    with Traced(program) as traced:
        obj = take_stacks(traced)
        entries = symbols.decode_build_ids(stack(obj, "build_ids", "user_build_ids"))
        addresses = symbols.decode_addresses(stack(obj, "user_stacks", "user_stack"))
        lines = Path(f"/proc/{traced.pid}/maps").read_text().splitlines()
    line = next(line for line in lines if line.endswith(str(program)) and " r-xp " in line)
    bias = int(line.split()[2], 16) - int(line.split("-")[0], 16)
    in_program = [(build_id, address + bias) for address in addresses[:4]]
    assert entries[:4] == in_program
    assert len(entries) == len(addresses)


def test_frames_of_python_itself(take_stacks):
    """Its stack begins in libc's getppid(), which os.getppid() calls."""
    code = "import os\nfor line in open(0): print(os.getppid(), flush=True)"
    command = [sys.executable, "-c", f"print('0 0 0', flush=True)\n{code}"]
    with Traced(*command) as traced:
        obj = take_stacks(traced)
        addresses = symbols.decode_addresses(stack(obj, "user_stacks", "user_stack"))
        top = symbols.resolve(addresses, traced.pid)[0]
        assert top.symbol == "getppid"
        assert "libc" in top.module


# ---- the kernel's symbols ------------------------------------------------------------------------


def test_names_are_those_of_the_listing():
    by_address = {}
    for address, kind, name, module in read_kallsyms():
        if kind in "tTwW":
            by_address.setdefault(address, (name, module))
    kernel = symbols.kernel_symbols()
    assert kernel.available
    assert kernel.reason == ""
    end = next(address for address, (name, _) in by_address.items() if name == "_etext")
    text = [
        (address, *place)
        for address, place in by_address.items()
        if address < end or place[1] != "vmlinux"
    ]
    for address, name, module in random.Random(1).sample(text, 2000):
        assert kernel.resolve([address]) == [(address, name, 0, module)]


def address_of(program):
    name = f"bpf_prog_{program.tag}_{program.name}"
    return next(address for address, _, listed, _ in read_kallsyms() if listed == name)


@pytest.mark.native
def test_programs_that_come_and_go_are_named_at_once(bpf_object):
    kernel = symbols.KernelSymbols()
    with pybpf.load(bpf_object("stacks")) as first:
        program = first.programs["take_stacks"]
        (frame,) = kernel.resolve([address_of(program) + 4])
        assert str(frame) == f"bpf_prog_{program.tag}_take_stacks+0x4 [bpf]"
        with pybpf.load(bpf_object("everything")) as second:
            for name in ("count_packet", "set_mark"):
                program = second.programs[name]
                (frame,) = kernel.resolve([address_of(program)])
                assert frame.symbol == f"bpf_prog_{program.tag}_{name}"


# ---- less privilege ------------------------------------------------------------------------------


def run_without(capabilities, code):
    """What Python ``code`` prints as JSON when run as root without those capabilities."""
    lacking = ",".join(f"-{name}" for name in capabilities)
    command = ["setpriv", f"--bounding-set={lacking}", sys.executable, "-c", code]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def test_hidden_addresses_leave_numbers_and_tell_why():
    """They are hidden unless kernel.perf_event_paranoid is below 2; the child itself tells."""
    address = read_kallsyms()[100][0]
    first_line, frames, available, reason = run_without(
        ["syslog"],
        "import json; from pybpf import symbols; kernel = symbols.kernel_symbols();"
        "first_line = open('/proc/kallsyms').readline(); "
        f"frames = kernel.resolve([{address}]);"
        "print(json.dumps([first_line, frames, kernel.available, kernel.reason]))",
    )
    hidden = first_line.startswith("0" * 16)
    assert available is not hidden
    assert ("CAP_SYSLOG" in reason) is hidden
    assert (frames == [[address, None, None, None]]) is hidden


def test_a_process_that_may_not_be_looked_into_is_a_privilegeerror():
    message = run_without(
        ["sys_ptrace", "perfmon", "sys_admin"],  # newer kernels let perfmon read mappings
        "import json, pybpf\n"
        "from pybpf import symbols\n"
        f"try: symbols.resolve([4096], {os.getpid()})\n"
        "except pybpf.PrivilegeError as error: print(json.dumps(str(error)))",
    )
    assert f"process {os.getpid()}" in message
    assert "CAP_SYS_PTRACE" in message


# ---- files that are not at their path ------------------------------------------------------------


def test_a_deleted_file_is_still_read(tmp_path):
    program = compile_c(tmp_path / "program")
    with Traced(program) as traced:
        program.unlink()
        compile_c(program, source="int main(void) { return 0; }")
        (frame,) = symbols.resolve([traced.bar + 1], traced.pid)
        assert frame == (traced.bar + 1, "bar", 1, str(program))


@pytest.fixture
def hidden_program(tmp_path):
    """The program in a mount namespace of its own: its path leads nowhere from here."""
    program = compile_c(tmp_path / "program")
    folder = tmp_path / "folder"
    folder.mkdir()
    script = f"mount -t tmpfs none {folder} && cp {program} {folder} && exec {folder}/program"
    with Traced("unshare", "--mount", "sh", "-c", script) as traced:
        assert not (folder / "program").exists()
        yield traced, str(folder / "program")


def test_a_file_of_another_mount_namespace_is_found(hidden_program):
    traced, path = hidden_program
    assert symbols.resolve([traced.baz], traced.pid) == [(traced.baz, "baz", 0, path)]


def test_such_a_file_is_found_without_the_right_to_map_files(hidden_program):
    traced, path = hidden_program
    code = (
        "import json; from pybpf import symbols;"
        f"print(json.dumps(symbols.resolve([{traced.baz}], {traced.pid})))"
    )
    frames = run_without(["sys_admin", "checkpoint_restore"], code)
    assert frames == [[traced.baz, "baz", 0, path]]


JIT = """
import mmap, os
flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
memory = mmap.mmap(-1, 4096, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
mapping = next(line for line in open("/proc/self/maps") if " rwxp 00000000 00:00 0" in line)
start = mapping.partition("-")[0]
with open(f"/tmp/perf-{os.getpid()}.map", "w") as file:
    file.write(f"{start} 20 compiled code")
print(start, flush=True)
input()
"""


def test_a_jit_in_a_container_is_read_by_its_own_pid_in_its_own_tmp():
    python = os.path.realpath(sys.executable)  # whose .venv may be below /tmp
    script = 'mount -t tmpfs none /tmp; exec "$@"'
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh"]
    process = subprocess.Popen(
        [*namespaces, python, "-c", JIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        start = int(process.stdout.readline(), 16)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        frames = symbols.resolve([start + 4], int(children))
        process.communicate(b"\n")
    assert frames == [(start + 4, "compiled code", 4, "/tmp/perf-1.map")]
