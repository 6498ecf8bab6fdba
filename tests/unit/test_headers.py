# SPDX-License-Identifier: BSD-2-Clause
"""The header for BPF programs, with every clang on PATH, types of this repository, the kernel or
the UAPI, and the helpers of libbpf built in or installed."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pybpf
import pytest

ROOT = Path(__file__).parents[2]
HELPERS = [
    folder
    for folder in (ROOT / ".build/libbpf/include", Path("/usr/include"))
    if (folder / "bpf/bpf_helpers.h").exists()
]
CLANGS = sorted(
    {
        os.path.realpath(path)
        for folder in os.get_exec_path()
        for path in Path(folder).glob("clang*")
        if re.fullmatch(r"clang(-\d+)?", path.name)
    }
)

INCLUDES = """
#include <bpf/bpf_helpers.h>
#include <pybpf/events.bpf.h>
#include <pybpf/events.bpf.h>
"""
RING = """
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} NAME SEC(".maps");
"""
PROGRAM = """
SEC("raw_tp")
int write(__u64 *args)
{
	__u64 value = args[0], *record = PYBPF_RESERVE(NAME, sizeof(*record));

	if (!record)
		return PYBPF_EMIT(NAME, &value, sizeof(value));
	*record = value;
	if (bpf_ringbuf_query(&NAME, BPF_RB_AVAIL_DATA) > 2048)
		bpf_ringbuf_submit(record, BPF_RB_FORCE_WAKEUP);
	else if (value)
		PYBPF_SUBMIT(record);
	else
		PYBPF_DISCARD(record);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
"""
OWN_TYPES = '#include "vmlinux.h"', [f"-I{ROOT / 'vmlinux'}"]


@pytest.fixture(scope="module")
def kernel_types(tmp_path_factory):
    """As types() returns."""
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "vmlinux.h").write_text(pybpf.Btf.kernel().to_c())
    return '#include "vmlinux.h"', [f"-I{folder}", "-Wno-missing-declarations"]


@pytest.fixture(params=["repository", "kernel", "uapi"])
def types(request):
    """(the line of C that brings the kernel's types, the compiler's options for it)"""
    if request.param == "repository":
        return OWN_TYPES
    if request.param == "kernel":
        request.getfixturevalue("kernel_btf")  # may skip
        return request.getfixturevalue("kernel_types")
    return "#include <linux/bpf.h>", [f"-I/usr/include/{os.uname().machine}-linux-gnu"]


def compiled(clang, types, helpers, ring, *options):
    """The compiler's run on a program that uses all of the header, and its object."""
    include, flags = types
    source = include + INCLUDES + RING.replace("NAME", ring) + PROGRAM.replace("NAME", ring)
    command = [clang, "-target", "bpf", "-O2", "-g", "-Wall", "-Wextra", "-Werror", *flags]
    command += ["-isystem", str(helpers), f"-I{pybpf.get_include()}", *options]
    return subprocess.run(
        [*command, "-xc", "-", "-c", "-o", "-"], input=source.encode(), capture_output=True
    )


@pytest.mark.parametrize("helpers", HELPERS, ids=str)
@pytest.mark.parametrize("clang", CLANGS)
def test_the_header_brings_one_map_and_nothing_else(clang, helpers, types):
    done = compiled(clang, types, helpers, "events", "-mcpu=v3")
    assert done.returncode == 0, done.stderr.decode()
    with pybpf.open(done.stdout) as obj:
        assert sorted(obj.maps) == ["events", "pybpf_drops"]
        counts = obj.maps["pybpf_drops"]
        assert str(counts.key_type) == "char[32]"
        assert counts.value_type.size == 8


@pytest.mark.parametrize("option", ["-mcpu=v1", "-Os"])
@pytest.mark.parametrize("clang", CLANGS)
def test_the_header_takes_other_instructions_and_optimizers(clang, option):
    done = compiled(clang, OWN_TYPES, HELPERS[0], "events", option)
    assert done.returncode == 0, done.stderr.decode()
    with pybpf.open(done.stdout) as obj:
        assert sorted(obj.maps) == ["events", "pybpf_drops"]


@pytest.mark.parametrize("clang", CLANGS)
def test_a_name_that_is_too_long_does_not_compile(clang, types):
    assert compiled(clang, types, HELPERS[0], "r" * 31).returncode == 0
    done = compiled(clang, types, HELPERS[0], "r" * 32)
    assert done.returncode != 0
    assert "at most 31 characters" in done.stderr.decode()
