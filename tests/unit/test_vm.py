# SPDX-License-Identifier: BSD-2-Clause
"""What guests are made of, without starting one: the cache, packages, images, the command."""

from __future__ import annotations

import gzip
import lzma
import os
import struct
import subprocess
import sys
import threading

import pytest
from pybpf import GuestError
from pybpf.vm import cache, debian, initramfs, kernels, modules, tools


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PYBPF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """programs(NAME, SCRIPT): a program of the machine, before all others."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(name, script):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return make


# ---- the cache -----------------------------------------------------------------------------------


def test_where_the_cache_is(monkeypatch, tmp_path, own_cache):
    assert cache.folder() == own_cache
    monkeypatch.delenv("PYBPF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "pybpf"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.folder() == tmp_path / ".cache/pybpf"


def test_a_folder_is_made_once_however_many_want_it():
    made = []

    def make(folder):
        made.append(folder)
        (folder / "file").write_text("whole")

    threads = [threading.Thread(target=cache.once, args=("a/b", make)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert (cache.once("a/b", make) / "file").read_text() == "whole"
    assert not made[0].exists()


def test_nothing_is_left_of_a_folder_that_cannot_be_made(own_cache):
    def fail(folder):
        (folder / "file").write_text("half")
        raise GuestError("no network")

    with pytest.raises(GuestError, match="no network"):
        cache.once("a/b", fail)
    assert sorted(path.name for path in (own_cache / "a").iterdir()) == ["b.lock"]


# ---- programs and packages -----------------------------------------------------------------------


def test_a_missing_program_names_its_package(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(tools, "_SYSTEM_FOLDERS", "/nonexistent")
    with pytest.raises(GuestError, match="busybox is not on this machine") as refused:
        tools.find("busybox")
    assert "apt-get install --no-install-recommends busybox-static" in refused.value.hint


def test_a_program_that_fails_is_quoted(programs):
    programs("zstd", "echo broken data >&2; exit 3")
    with pytest.raises(GuestError, match=r"exit status 3 of: .*zstd -dcq") as refused:
        tools.run("zstd", "-dcq", input=b"")
    assert refused.value.log == "broken data\n"


TARGETS = {
    "labels": "Other\thttp://a/other/\nDebian\thttp://a/pool/\nDebian-Security\thttp://b/s/",
    "no labels yet": "\thttp://a/debian/\n\thttp://b/debian-security/",
}


@pytest.mark.parametrize("targets", TARGETS.values(), ids=list(TARGETS))
def test_sources_are_the_machines_archives_and_nothing_else(programs, tmp_path, targets):
    answer = f'[ "$1" = indextargets ] && exec printf "%s" "{targets}"'
    programs("apt-get", f'{answer}; cp "$APT_CONFIG" {tmp_path}/seen')
    debian.Packages(tmp_path / "apt", ["trixie", "trixie-security"], "arm64")
    first, second = (tmp_path / "apt/sources.list").read_text().splitlines()
    addresses = [line.partition("\t")[2] for line in targets.splitlines()][-2:]
    assert first.endswith(f"] {addresses[0]} trixie main")
    assert second.endswith(f"] {addresses[1]} trixie-security main")
    configuration = (tmp_path / "seen").read_text()
    assert 'Dir::Etc::sourceparts "/dev/null"' in configuration
    assert 'APT::Architecture "arm64"' in configuration


def test_a_machine_without_an_archive_is_told(programs, tmp_path):
    programs("apt-get", "true")
    with pytest.raises(GuestError, match="names no archive Debian"):
        debian.Packages(tmp_path / "apt", ["trixie"], "amd64")


# ---- kernels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["6", "six", "6.12.3", "../6.1"])
def test_what_names_no_kernel(name):
    with pytest.raises(GuestError, match="names no kernel"):
        kernels.fetch(name)


def test_kernels_in_the_cache_from_old_to_new(own_cache):
    for folder in ("6.12-amd64", "6.1-amd64", "6.1-arm64", "7.2-amd64.partial"):
        (own_cache / "kernels" / folder).mkdir(parents=True)
    (own_cache / "kernels/6.1-amd64.lock").touch()
    found = [(kernel.name, kernel.architecture) for kernel in kernels.fetched()]
    assert found == [("6.1", "amd64"), ("6.12", "amd64"), ("6.1", "arm64")]


def bzimage(payload):
    """An image of x86: two sectors of set-up, some code, the payload."""
    image = bytearray(3 * 512 + 64)
    image[0x1F1] = 2
    struct.pack_into("<II", image, 0x248, 64, len(payload))
    return bytes(image) + payload + b"what comes after"


ELF = b"\x7fELF" + bytes(range(256)) * 40
SIZE = struct.pack("<I", len(ELF))  # the kernel's build appends it, except to what xz has made


@pytest.mark.parametrize(
    "payload", [lzma.compress(ELF), gzip.compress(ELF) + SIZE], ids=["xz", "gzip"]
)
def test_the_kernel_in_an_image(payload):
    assert kernels.elf_image(bzimage(payload)) == ELF


@pytest.fixture
def kernel(tmp_path):
    """A kernel with modules that need one another, and one built in."""
    found = kernels.Kernel("6.1", "amd64", tmp_path)
    (tmp_path / "release").write_text("6.1.0-test")
    found.modules.mkdir(parents=True)
    (found.modules / "modules.builtin").write_text("kernel/fs/over-lay.ko\n")
    (found.modules / "modules.dep").write_text(
        "net/9p.ko: net/transport.ko net/base.ko.xz\nnet/transport.ko: net/base.ko.xz\n"
        "net/base.ko.xz:\nother.ko:\n"
    )
    for path, content in {
        "net/9p.ko": b"9p",
        "net/transport.ko": b"transport",
        "net/base.ko.xz": lzma.compress(b"base"),
    }.items():
        (found.modules / path).parent.mkdir(exist_ok=True)
        (found.modules / path).write_bytes(content)
    return found


def test_modules_come_after_what_they_need(kernel):
    found = modules.contents(kernel, ("9p", "over_lay"))
    assert list(found.items()) == [("base", b"base"), ("transport", b"transport"), ("9p", b"9p")]


def test_a_kernel_without_a_module(kernel):
    with pytest.raises(GuestError, match=r"6\.1\.0-test has no module virtio_pci"):
        modules.contents(kernel, ("virtio_pci",))


def test_the_script_of_a_command_keeps_every_word(tmp_path):
    folder = tmp_path / "a folder's"
    folder.mkdir()
    command = [sys.executable, "-c", "import sys, os; print(sys.argv[1:], os.getcwd())"]
    words = ["two words", "$HOME", "it's", "a;b", ""]
    script = initramfs.command_script(
        ["sh", "-c", 'echo "$TEXT"; exec "$@"', "sh", *command, *words],
        str(folder),
        {"TEXT": "$x 'y"},
    )
    done = subprocess.run(["sh"], input=script, capture_output=True, text=True, check=True)
    assert done.stdout == f"$x 'y\n{words} {folder}\n"


# ---- the command ---------------------------------------------------------------------------------


def pybpf(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "pybpf", "vm", *arguments], capture_output=True, text=True
    )


def test_the_list_of_an_empty_cache():
    assert (pybpf("list").stdout, pybpf("list", "--json").stdout) == ("", "[]\n")


def test_a_guest_that_cannot_be_had_exits_with_125():
    done = pybpf("run", "-k", "new", "--", "true")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("pybpf: 'new' names no kernel\nhint: ")
    assert pybpf("fetch", "new").returncode == 1
