# SPDX-License-Identifier: BSD-2-Clause
"""Guests that are started: for machines with QEMU and a kernel in the cache.

``build.py test --kernels`` has both, and sets PYBPF_VM_TESTS=required, with which none is skipped.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pybpf
import pytest
from pybpf import vm
from pybpf.vm import kernels, qemu

SECONDS = 120


@pytest.fixture(scope="module")
def kernel():
    """The name of a kernel in the cache."""
    here = [each for each in vm.fetched() if each.architecture == kernels.machine_architecture()]
    try:
        qemu.find(kernels.machine_architecture())
    except pybpf.GuestError as error:
        unable(error)
    if not here:
        unable("no kernel in the cache: pybpf vm fetch 6.12")
    return here[0].name


def unable(reason):
    if os.environ.get("PYBPF_VM_TESTS") == "required":
        pytest.fail(str(reason))
    pytest.skip(str(reason))


class Answering(io.BytesIO):
    """An output that puts a file into a folder once something has come."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def write(self, data):
        (self.folder / "heard").touch()
        return super().write(data)


LOOK = """
echo begun
while [ ! -e shared/heard ]; do sleep 0.1; done
uname -r; id -u; nproc; echo "$WORD $PWD" >&2
grep -c CONFIG_BPF= /boot/config-$(uname -r)
modprobe veth && [ -d /sys/module/veth ] && echo module
echo kept >shared/file
echo lost >other/file && cat other/file
exit 43
"""


def test_a_command_finds_this_machine_and_another_kernel(kernel, tmp_path, monkeypatch):
    """What it prints comes at once; only what it writes to the one folder stays."""
    shared, other = tmp_path / "shared", tmp_path / "other"
    shared.mkdir()
    other.mkdir()
    monkeypatch.chdir(tmp_path)
    guest = vm.Guest(kernel, writable=["shared"])
    output = Answering(shared)
    status = guest.run(
        ["sh", "-c", LOOK], environment={"WORD": "a word"}, output=output, timeout=SECONDS
    )
    lines = output.getvalue().decode().splitlines()
    expected = [guest.kernel.release, "0", "1", f"a word {tmp_path}", "1", "module", "lost"]
    assert (status, lines) == (43, ["begun", *expected])
    assert (shared / "file").read_text() == "kept\n"
    assert not (other / "file").exists()


def test_a_guest_that_dies_shows_its_console(kernel):
    with pytest.raises(pybpf.GuestError, match="ended without sh having ended") as died:
        vm.Guest(kernel).run(
            ["sh", "-c", "echo c >/proc/sysrq-trigger"], output=io.BytesIO(), timeout=SECONDS
        )
    assert "Kernel panic" in died.value.log
    assert not isinstance(died.value, pybpf.GuestTimeout)


def test_the_command_passes_the_status_on_and_ends_in_time(kernel):
    def run(*command):
        return subprocess.run(
            [sys.executable, "-m", "pybpf", "vm", "run", "-k", kernel, *command],
            capture_output=True,
            text=True,
        )

    done = run("--", "no-such-program", "-x")
    assert (done.returncode, done.stderr) == (127, "")
    assert "no-such-program: not found" in done.stdout
    done = run("--timeout", "1", "--", "sleep", "1000")
    assert (done.returncode, done.stdout) == (124, "")
    assert "no end of sleep within 1 s" in done.stderr


@pytest.mark.skipif(
    not any(each.architecture == "arm64" for each in vm.fetched()),
    reason="no arm64 kernel in the cache: pybpf vm fetch --arch arm64 6.12",
)
def test_another_architecture_has_a_root_of_its_own_and_this_folder(tmp_path, monkeypatch):
    (name, *_) = [each.name for each in vm.fetched() if each.architecture == "arm64"]
    (tmp_path / "script.py").write_text("import os; print(os.uname().machine, os.getcwd())")
    monkeypatch.chdir(tmp_path)
    output = io.BytesIO()
    guest = vm.Guest(name, architecture="arm64")
    assert guest.run(["python3", "script.py"], output=output, timeout=SECONDS) == 0
    assert output.getvalue().decode() == f"aarch64 {tmp_path}\n"


def test_what_is_no_folder_is_refused_before_the_start(kernel, tmp_path):
    with pytest.raises(pybpf.GuestError, match="missing is no folder"):
        vm.Guest(kernel, writable=[tmp_path / "missing"])


@pytest.mark.parametrize("architecture", qemu.MACHINES)
def test_the_trial_of_an_accelerator_runs_where_there_is_one(kernel, architecture):
    """By emulation, which is everywhere; an accelerator that QEMU does not know is refused."""
    try:
        emulator = qemu.find(architecture)
    except pybpf.GuestError as error:
        if architecture == kernels.machine_architecture():
            raise
        pytest.skip(str(error))
    assert emulator.runs_trial("tcg", emulator.cpu(kvm=False))
    assert not emulator.runs_trial("hax", emulator.cpu(kvm=False))
