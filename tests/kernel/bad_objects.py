# SPDX-License-Identifier: BSD-2-Clause
"""Files that are no good BPF objects, made by the compilers when a test wants them, and the means
to try them: pybpf's command as root and as nobody, and a machine without a bpffs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PRELUDE = """
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, value) int (*name)[value]
#define __type(name, value) typeof(value) *name
static void *(*bpf_map_lookup_elem)(void *, const void *) = (void *)1;
static unsigned long long (*bpf_get_current_pid_tgid)(void) = (void *)14;
static long (*bpf_ringbuf_output)(void *, void *, unsigned long long, long) = (void *)130;
char LICENSE[] SEC("license") = "Dual BSD/GPL";
"""

PLAIN = """
SEC("socket")
int accept_none(void *ctx)
{
	return 0;
}
"""

ONE_MAP = """
struct {
	__uint(type, 1);
	__uint(max_entries, 8);
	__type(key, unsigned int);
	__type(value, unsigned long long);
} counts SEC(".maps");

SEC("socket")
int look_up(void *ctx)
{
	unsigned int key = 0;

	return bpf_map_lookup_elem(&counts, &key) != 0;
}
"""

LEGACY_MAPS = """
struct bpf_map_def {
	unsigned int type, key_size, value_size, max_entries, map_flags;
};

struct bpf_map_def SEC("maps") counts = {1, 4, 8, 16, 0};

SEC("socket")
int look_up(void *ctx)
{
	unsigned int key = 0;

	return bpf_map_lookup_elem(&counts, &key) != 0;
}
"""

# what runs as nobody keeps the one capability that lets it read an interpreter below /root
AS_NOBODY = (
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=-all,+dac_read_search",
)
TRACING_CAPABILITIES = "-all,+bpf,+perfmon,+dac_read_search"
AS_TRACER = (
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    f"--bounding-set={TRACING_CAPABILITIES}",
    f"--inh-caps={TRACING_CAPABILITIES}",
    f"--ambient-caps={TRACING_CAPABILITIES}",
)
WITHOUT_BPFFS = (
    "unshare",
    "--mount",
    "--propagation=unchanged",
    "sh",
    "-ec",
    'umount -a -t bpf; if grep " - bpf " /proc/self/mountinfo >&2; then exit 99; fi; exec "$@"',
    "sh",
)
MODULE = (sys.executable, "-W", "error", "-m", "pybpf")
SCRIPT = (str(Path(sys.executable).with_name("pybpf")),)


def newest_clang():
    """clang-22 before clang-19 before clang."""
    folders = [Path(folder) for folder in os.get_exec_path()]
    found = [path for folder in folders for path in folder.glob("clang-[0-9]*")]
    versions = {int(path.name[6:]): str(path) for path in found if path.name[6:].isdigit()}
    return versions[max(versions)] if versions else "clang"


def compile_bpf(folder, name, source, *options, target="bpf", debug=True):
    """The object folder/NAME.bpf.o that clang makes of ``source`` behind PRELUDE."""
    path = folder / f"{name}.bpf.o"
    flags = ["-O2", *(["-g"] if debug else []), f"--target={target}", "-mcpu=v3", *options]
    run_compiler([newest_clang(), *flags, "-xc", "-", "-c", "-o", str(path)], PRELUDE + source)
    return path


def compile_native(folder):
    """The object file that gcc makes of a function for this machine."""
    path = folder / "native.o"
    run_compiler(["gcc", "-xc", "-", "-c", "-o", str(path)], "int f(void) { return 0; }\n")
    return path


def run_compiler(command, source):
    done = subprocess.run(command, input=source, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr


def pybpf_command(*arguments, command=MODULE, prefix=()):
    """Run ``pybpf ARGUMENTS`` to its end; no outcome is an excuse for a traceback."""
    words = [*prefix, *command, *map(str, arguments)]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert_no_traceback(done.stderr)
    return done


def assert_no_traceback(stderr):
    assert not re.search("Traceback|Exception ignored|Warning:", stderr), stderr
