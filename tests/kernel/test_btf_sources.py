# SPDX-License-Identifier: BSD-2-Clause
"""The running kernel's types, those it holds by id, and both as C that compiles and loads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pybpf
import pytest
from bad_objects import AS_NOBODY, newest_clang
from pybpf import Btf, Map
from pybpf.btf import Composite

pytestmark = pytest.mark.native

KERNEL = Path("/sys/kernel/btf/vmlinux")


def run(code, *arguments, prefix=()):
    """What a fresh process prints that runs ``code`` after importing the usual."""
    code = f"import json, os, sys, time\nimport pybpf\nfrom pybpf import Btf\n{code}"
    command = [*prefix, sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ---- the kernel's own ----------------------------------------------------------------------------


def test_the_kernel_has_one_btf(kernel_btf):
    assert Btf.kernel() is kernel_btf is Btf.kernel("vmlinux")
    assert kernel_btf.base is None
    assert repr(kernel_btf) == f"<Btf of {KERNEL}>"
    assert kernel_btf["struct task_struct"].member("comm").type.size == 16


def test_threads_get_the_same_types(kernel_btf):
    """In a fresh process, where nothing is there yet."""
    code = """
import threading
from pybpf import layout
sys.setswitchinterval(1e-6)
start = threading.Barrier(8)
found = []
def work():
    start.wait()
    task = Btf.kernel()["struct task_struct"]
    found.append((id(Btf.kernel()), id(task), id(layout.ctype(task))))
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(found), len(set(found)))
"""
    assert run(code) == "8 1"


def test_who_has_no_privilege_reads_the_kernels_types(kernel_btf):
    code = "print(Btf.kernel()['struct task_struct'].size)"
    assert run(code, prefix=AS_NOBODY) == str(kernel_btf["struct task_struct"].size)


def test_a_module_that_is_not_there(kernel_btf):
    with pytest.raises(pybpf.NotFoundError, match="no loaded kernel module with types named 'ne'"):
        Btf.kernel("ne")


WITH_OTHER_SYSFS = (
    "unshare",
    "--mount",
    "sh",
    "-ec",
    'mount -t tmpfs none /sys/kernel/btf; cp "$0"/* /sys/kernel/btf; exec "$@"',
)


def test_a_module_continues_the_kernel(kernel_btf, tmp_path):
    """Its BTF as the kernel shows it: ids and strings go on where those of vmlinux end."""
    name = kernel_btf._strings_length
    fields = [
        *(name, 4 << 24 | 1, 8),  # struct of 8 bytes with one member
        *(name + 4, kernel_btf["u64"].id, 0),
    ]
    types = b"".join(field.to_bytes(4, sys.byteorder) for field in fields)
    strings = b"own\0member\0"
    header = [0x0001EB9F, 24, 0, len(types), len(types), len(strings)]
    data = b"".join(field.to_bytes(4, sys.byteorder) for field in header) + types + strings
    (tmp_path / "vmlinux").write_bytes(KERNEL.read_bytes())
    (tmp_path / "toy").write_bytes(data)
    code = """
toy = Btf.kernel("toy")
assert toy is Btf.kernel("toy") and toy.base is Btf.kernel()
own = toy["struct own"]
assert own.member("member").type is Btf.kernel()["u64"]
assert "struct own {" in toy.to_c() and "struct task_struct {" not in toy.to_c()
assert [t["name"] for t in json.loads(toy.to_json())["types"]] == ["own"]
os.rename("/sys/kernel/btf/toy", "/sys/kernel/btf/old")
open("/sys/kernel/btf/toy", "wb").write(open("/sys/kernel/btf/old", "rb").read())
assert Btf.kernel("toy") is not toy, "loaded anew"
try:
    Btf.kernel("ty")
except pybpf.NotFoundError as error:
    print(error)
"""
    said = run(code, prefix=(*WITH_OTHER_SYSFS, tmp_path))
    assert said.endswith("did you mean 'toy'?")


def test_a_kernel_without_types_says_what_it_lacks(tmp_path):
    (tmp_path / "none").write_bytes(b"")
    code = """
for module in (None, "toy"):
    try:
        Btf.kernel(module)
    except pybpf.NotSupportedError as error:
        print(error)
"""
    said = run(code, prefix=(*WITH_OTHER_SYSFS, tmp_path))
    assert said.count("read the types of the running kernel: ENOENT") == 2
    assert said.count("CONFIG_DEBUG_INFO_BTF=y") == 2


def test_the_first_type_is_cheap_and_the_next_ones_cheaper(kernel_btf):
    code = """
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")
before = resident()
def timed(key):
    start = time.perf_counter()
    from pybpf import layout
    layout.ctype(Btf.kernel()[key])
    return time.perf_counter() - start
first = timed("struct task_struct")
new = min(timed(f"struct {name}") for name in ("sk_buff", "file", "inode", "mm_struct"))
again = min(timed("struct task_struct") for _ in range(9))
print(json.dumps([first, new, again, resident() - before]))
"""
    first, new, again, grown = json.loads(run(code))
    assert grown < 40 << 20
    assert new < first
    assert again < first / 50


# ---- as C, as JSON -------------------------------------------------------------------------------

PROGRAM = """
#include "vmlinux.h"

#define SEC(name) __attribute__((section(name), used))

char LICENSE[] SEC("license") = "Dual BSD/GPL";
int parent;

SEC("tp_btf/sched_switch")
int on_switch(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[1];

	parent = task->real_parent->tgid;
	return 0;
}
"""


def test_the_kernels_types_as_c_make_a_program_that_loads(kernel_btf, tmp_path):
    (tmp_path / "vmlinux.h").write_text(kernel_btf.to_c())
    subprocess.run(["gcc", "-fsyntax-only", tmp_path / "vmlinux.h"], check=True)
    path = tmp_path / "program.bpf.o"
    command = [newest_clang(), "-target", "bpf", "-g", "-O2", "-Wall", "-Werror", f"-I{tmp_path}"]
    command += ["-xc", "-", "-c", "-o", path]
    subprocess.run(command, input=PROGRAM, text=True, check=True)
    with pybpf.load(path) as obj:
        assert obj.bss.parent == 0
    again = Btf.from_file(path)["struct task_struct"]
    assert again.size == kernel_btf["struct task_struct"].size


def test_every_type_is_in_the_json(kernel_btf):
    types = json.loads(kernel_btf.to_json())["types"]
    assert [entry["id"] for entry in types] == list(range(1, len(kernel_btf)))
    for key in ("struct task_struct", "union bpf_attr", "enum pid_type"):
        found = kernel_btf[key]
        entry = types[found.id - 1]
        assert (entry["name"], entry["size"]) == (found.name, found.size)
        if isinstance(found, Composite):
            assert [m["bit_offset"] for m in entry["members"]] == [
                m.bit_offset for m in found.members
            ]


def test_ctrl_c_ends_the_dump_and_leaves_no_process(kernel_btf):
    """The dumper is stopped in the middle: by a limit of its own it would go on for a second."""
    endless = (0).to_bytes(4, "little") + (10 << 24).to_bytes(4, "little")  # const of itself
    types = endless + (1).to_bytes(4, "little")
    header = [0x0001EB9F, 24, 0, len(types), len(types), 1]
    data = b"".join(field.to_bytes(4, "little") for field in header) + types + b"\0"
    timer = threading.Timer(
        0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)
    )
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        Btf(data).to_c()
    timer.join()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_c_is_written_where_children_are_reaped_by_the_kernel(bpf_object):
    with pybpf.open(bpf_object("typed")) as obj:
        previous = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            assert "typedef __u32 __be32;" in obj.btf.to_c()
        finally:
            signal.signal(signal.SIGCHLD, previous)


def test_every_object_as_c(bpf_objects, tmp_path):
    for path in bpf_objects:
        (tmp_path / "types.h").write_text(Btf.from_file(path).to_c())
        command = ["gcc", "-fsyntax-only", "-w", tmp_path / "types.h"]
        subprocess.run(command, check=True)


# ---- by id ---------------------------------------------------------------------------------------


def test_the_types_of_a_map_by_their_id(bpf_object):
    with pybpf.load(bpf_object("typed")) as obj:
        told = obj.maps["routes"].info()
        btf = Btf.from_id(told.btf_id)
        assert str(btf[told.btf_key_type_id]) == "__be32"
        assert btf is Btf.from_id(told.btf_id)
        with Map.from_id(obj.maps["names"].id) as names:
            told = names.info()
            assert Btf.from_id(told.btf_id) is btf
            assert str(btf[told.btf_key_type_id]) == "char[16]"
        assert btf.to_json() == Btf.from_id(told.btf_id).to_json()


def test_threads_get_the_same_types_by_id(bpf_object):
    with pybpf.load(bpf_object("typed")) as obj:
        id = obj.maps["routes"].info().btf_id
        start, found = threading.Barrier(8), []

        def work():
            start.wait()
            found.append(Btf.from_id(id))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8
        assert len(set(found)) == 1


def test_the_kernels_types_by_id_are_the_kernels_types(kernel_btf):
    release = tuple(map(int, os.uname().release.split(".")[:2]))
    if release >= (5, 11):  # before, it had no id
        assert Btf.from_id(1) is kernel_btf


def test_ids_that_are_not_there():
    with pytest.raises(pybpf.KernelError, match="open types of id 4294967295: ENOENT"):
        Btf.from_id(0xFFFFFFFF)
    for id in (-1, 1 << 32):
        with pytest.raises(OverflowError, match="32 bits"):
            Btf.from_id(id)


def test_by_id_takes_privilege():
    code = """
try:
    Btf.from_id(1)
except pybpf.PrivilegeError as error:
    print(error)
"""
    said = run(code, prefix=AS_NOBODY)
    assert said.startswith("open types of id 1: EPERM")
    assert "CAP_SYS_ADMIN" in said
