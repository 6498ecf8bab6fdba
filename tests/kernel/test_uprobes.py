# SPDX-License-Identifier: BSD-2-Clause
"""Programs on functions of user space: uprobes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import ExitStack

import pybpf
import pytest
import watched
from elftools.elf.elffile import ELFFile
from pybpf import functions

COOKIE = "5.15"


@pytest.fixture
def watcher(bpf_object):
    """watcher(NAME): that program of uprobes.bpf.c, loaded; its object's variables tell."""
    with ExitStack() as objects:

        def load(name):
            obj = objects.enter_context(pybpf.open(bpf_object("uprobes")))
            obj.programs[name].autoload = True
            obj.load()
            return obj.programs[name], obj.bss

        yield load


def offset_of(path, name):
    (offset,) = functions.named(str(path), name)
    return offset


# ---- places --------------------------------------------------------------------------------------


def test_counts_calls_until_detached(watcher, watched_process):
    program, seen = watcher("entry")
    link = program.attach_uprobe(watched.program(), "add_one")
    assert link.what == f"program 'entry' to uprobe {watched.program()}:add_one"
    assert watched_process.call("add_one", 5) == 6
    assert (seen.calls, seen.value) == (1, 5)
    link.detach()
    watched_process.call("add_one", 5)
    assert seen.calls == 1


def test_where_a_function_returns(watcher, watched_process):
    program, seen = watcher("at_return")
    link = program.attach_uprobe(watched.program(), "add_one")
    assert " uretprobe " in link.what
    watched_process.call("add_one", 5)
    assert (seen.calls, seen.value) == (1, 6)


def test_an_instruction_in_a_function(watcher, watched_process):
    """The second one returns: the result is there already, and the argument still."""
    program, seen = watcher("at_return")
    program.attach_uprobe(watched.program(), "add_one", offset=4, retprobe=False)
    watched_process.call("add_one", 5)
    assert (seen.calls, seen.value) == (1, 6)


def test_an_offset_in_the_file(watcher, watched_process):
    program, seen = watcher("entry")
    offset = offset_of(watched.program(), "add_two")
    link = program.attach_uprobe(watched.program(), offset=offset)
    assert link.what.endswith(f":{offset:#x}")
    watched_process.call("add_two", 7)
    assert (seen.calls, seen.value) == (1, 7)


def test_all_that_match_a_regular_expression(watcher, watched_process):
    program, seen = watcher("entry")
    link = program.attach_uprobe(watched.program(), re.compile("add_(one|two)"))
    watched_process.call("add_one", 1)
    watched_process.call("add_two", 2)
    watched_process.call("calls_add_one", 3)  # matches in part only, but calls one that matches
    assert seen.calls == 3
    with pytest.raises(pybpf.NotSupportedError, match="no link for this"):
        link.fileno()
    link.detach()
    watched_process.call("add_one", 1)
    watched_process.call("add_two", 2)
    assert seen.calls == 3


def test_several_places_are_attached_all_or_none(watcher, watched_process):
    program, seen = watcher("entry")
    with pytest.raises(pybpf.AttachError, match="EINVAL"):
        program.attach_uprobe(watched.program(), re.compile("add_.*"), offset=1 << 40)
    assert program._owner.links == ()
    watched_process.call("add_one", 1)
    assert seen.calls == 0


# ---- options -------------------------------------------------------------------------------------


def test_one_process_of_two(watcher, watched_process):
    program, seen = watcher("entry")
    program.attach_uprobe(watched.program(), "add_one", pid=watched_process.pid)
    with watched.Process() as other:
        other.call("add_one", 1)
        assert seen.calls == 0
        watched_process.call("add_one", 2)
    assert (seen.calls, seen.value) == (1, 2)


def test_a_cookie(watcher, attempt, watched_process):
    plain, _ = watcher("entry")
    attempt(COOKIE, plain.attach_uprobe, watched.program(), "add_one", cookie=5)
    program, seen = watcher("with_cookie")
    program.attach_uprobe(watched.program(), "add_one", cookie=1 << 40)
    watched_process.call("add_one", 5)
    assert seen.cookies == 1 << 40


def test_the_kernel_counts_in_the_process_who_watches(watcher, watched_process):
    with open(watched.program(), "rb") as file:
        elf = ELFFile(file)
        (symbol,) = elf.get_section_by_name(".symtab").get_symbol_by_name("watchers")
        section = elf.get_section(symbol["st_shndx"])
        counter = symbol["st_value"] - section["sh_addr"] + section["sh_offset"]
    program, _ = watcher("entry")
    assert watched_process.call("count_watchers", 10) == 10
    link = program.attach_uprobe(watched.program(), "add_one", ref_counter=counter)
    assert watched_process.call("count_watchers", 10) == 11
    link.detach()
    assert watched_process.call("count_watchers", 10) == 10


# ---- files ---------------------------------------------------------------------------------------


def test_a_program_on_path(watcher, watched_process, monkeypatch):
    monkeypatch.setenv("PATH", str(watched.program().parent), prepend=os.pathsep)
    program, seen = watcher("entry")
    program.attach_uprobe("watched", "add_one")
    watched_process.call("add_one", 5)
    assert seen.calls == 1


def test_a_library_of_the_system(watcher):
    program, seen = watcher("entry")
    program.attach_uprobe("libc", "labs")
    assert watched.function("libc.so.6", "labs")(-123456) == 123456
    assert seen.value == -123456


def test_a_library_that_a_process_has_mapped(watcher):
    add_one = watched.function(watched.library(), "add_one")
    program, seen = watcher("entry")
    program.attach_uprobe("libwatched", "add_one", pid=os.getpid())
    add_one(8)
    assert (seen.calls, seen.value) == (1, 8)


def test_by_the_sections_name(watcher, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", str(watched.library().parent))
    program, seen = watcher("by_section")
    program.attach()
    watched.function(watched.library(), "add_one")(5)
    assert seen.calls == 1
    wrong, _ = watcher("by_wrong_section")
    with pytest.raises(pybpf.AttachError, match="no such function in it: attach_uprobe"):
        wrong.attach()


@pytest.fixture
def container(tmp_path):
    """The program in a root and mounts of its own, which nobody else can see."""
    static = watched.compile_as(
        tmp_path / "watched", "-static", "-DPROGRAM", "watched.c", "watched_twin.c"
    )
    root = tmp_path / "root"
    root.mkdir()
    script = (
        f"mount -t tmpfs none {root} && mkdir {root}/opt && cp {static} {root}/opt/tool "
        f"&& exec chroot {root} /opt/tool"
    )
    with watched.Process("unshare", "--mount", "sh", "-c", script) as process:
        assert not any(root.iterdir())
        yield process


@pytest.mark.parametrize("binary", ["/opt/tool", "tool"])
def test_a_file_in_a_container(watcher, container, binary):
    program, seen = watcher("entry")
    program.attach_uprobe(binary, "add_one", pid=container.pid)
    container.call("add_one", 5)
    assert (seen.calls, seen.value) == (1, 5)


def test_a_file_that_was_deleted_since(watcher, tmp_path):
    path = shutil.copy(watched.program(), tmp_path / "updated")
    program, seen = watcher("entry")
    with watched.Process(path) as process:
        path.unlink()
        program.attach_uprobe("updated", "add_one", pid=process.pid)
        process.call("add_one", 5)
    assert seen.calls == 1


def test_what_a_process_runs(watcher, watched_process):
    program, seen = watcher("entry")
    program.attach_uprobe(f"/proc/{watched_process.pid}/exe", "add_one", pid=watched_process.pid)
    watched_process.call("add_one", 5)
    assert seen.calls == 1


# ---- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shapes::Square::area", "shapes::Square::scale(long)"])
def test_names_of_c_plus_plus(watcher, name):
    area_of_scaled = watched.function(watched.shapes(), "area_of_scaled")
    program, seen = watcher("entry")
    program.attach_uprobe(watched.shapes(), name)
    assert area_of_scaled(3) == 9
    assert seen.calls == 1


def test_several_functions_of_one_name(watcher):
    program, _ = watcher("entry")
    with pytest.raises(pybpf.AttachError, match="which has 2 of that name") as refused:
        program.attach_uprobe(watched.shapes(), "shapes::Square::scale")
    assert "shapes::Square::scale(double) at 0x" in str(refused.value)
    assert "shapes::Square::scale(long) at 0x" in str(refused.value)
    with pytest.raises(pybpf.AttachError, match="which has 2 of that name"):
        program.attach_uprobe(watched.program(), "twin")


def test_a_stripped_program_in_go(watcher, tmp_path):
    path = watched.compile_as(
        tmp_path / "gopher",
        "-DPROGRAM",
        "-no-pie",
        "-s",
        "watched.c",
        "watched_twin.c",
        "go_table.S",
    )
    program, seen = watcher("entry")
    program.attach_uprobe(path, "main.(*Counter).Add")
    with watched.Process(path) as process:
        process.call("add_two", 5)
    assert (seen.calls, seen.value) == (1, 5)


# ---- refusals ------------------------------------------------------------------------------------


def test_no_such_function(watcher):
    program, _ = watcher("entry")
    with pytest.raises(pybpf.NotFoundError, match="did you mean 'add_one'"):
        program.attach_uprobe(watched.program(), "add_onne")
    with pytest.raises(pybpf.NotFoundError, match="did you mean 'shapes::Square::area"):
        program.attach_uprobe(watched.shapes(), "shapes::Square::aera() const")
    with pytest.raises(pybpf.NotFoundError, match=re.escape("'nothing.*'")):
        program.attach_uprobe(watched.program(), re.compile("nothing.*"))


def test_no_such_file(watcher, watched_process):
    program, _ = watcher("entry")
    with pytest.raises(pybpf.NotFoundError, match=r"in PATH, /etc/ld.so.cache, .*'libc.so.6'"):
        program.attach_uprobe("libcc.so.6", "malloc")
    with pytest.raises(
        pybpf.NotFoundError, match=f"no file in {watched.program().parent} .*'watched'"
    ):
        program.attach_uprobe(watched.program().parent / "watchd", "add_one")
    with pytest.raises(pybpf.NotFoundError, match=f"mapped by process {watched_process.pid} "):
        program.attach_uprobe("libwatched", "add_one", pid=watched_process.pid)


def test_what_is_no_elf_file(watcher):
    program, _ = watcher("entry")
    with pytest.raises(pybpf.ObjectFormatError, match="/etc/passwd: cannot be read as an ELF file"):
        program.attach_uprobe("/etc/passwd", "main")


def test_a_name_whose_function_is_chosen_at_the_start(watcher):
    program, _ = watcher("entry")
    with pytest.raises(pybpf.NotSupportedError, match="add_three is chosen for the processor"):
        program.attach_uprobe(watched.program(), "add_three")


def test_no_such_process(watcher):
    program, _ = watcher("entry")
    with pytest.raises(ValueError, match="pid 0"):
        program.attach_uprobe(watched.program(), "add_one", pid=0)
    with subprocess.Popen("true") as ended:
        pass
    with pytest.raises(pybpf.NotFoundError):
        program.attach_uprobe(watched.program(), "add_one", pid=ended.pid)


def test_an_offset_behind_the_end(watcher):
    program, _ = watcher("entry")
    with pytest.raises(pybpf.AttachError, match="no place of code in the file"):
        program.attach_uprobe(watched.program(), offset=1 << 40)


def test_a_fork_leaves_several_places_attached(watcher, watched_process):
    program, seen = watcher("entry")
    link = program.attach_uprobe(watched.program(), re.compile("add_(one|two)"))
    if os.fork() == 0:
        link.close()
        os._exit(0)
    os.wait()
    watched_process.call("add_one", 1)
    assert seen.calls == 1
