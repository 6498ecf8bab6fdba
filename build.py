#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""One door for building pybpf from a checkout; standard library only.

    build.py demo [--duration S]   set up, then watch this machine's exec events for S seconds
    build.py test [PYTEST ARGS]    set up, then run the whole test suite
    build.py test --kernels 5.10,6.12 [PYTEST ARGS]
                                   the same, then the kernel tests under each of these kernels in a
                                   virtual machine ("all": under each that pybpf is tested with)
    build.py setup                 Debian packages, libbpf, .venv with pybpf and its tests' needs
    build.py libbpf | ext | bpf    one part: the static libbpf, the native module, every *.bpf.c
    build.py clean                 remove all of it

Everything is safe to repeat, and done only where something changed.  Environment:

    PYBPF_LIBBPF=system       link pkg-config's libbpf (1.1 or newer), build none
    PYBPF_LIBBPF_SRC=DIR      build this libbpf source tree instead of Debian's newest
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent
BUILD = ROOT / ".build"
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin/python"
PYTEST = [str(VENV_PYTHON), "-m", "pytest"]
PIP = [str(VENV_PYTHON), "-m", "pip", "--quiet", "--disable-pip-version-check"]
DEMO_OBJECT = ROOT / "examples/execsnoop/execsnoop.bpf.o"
LIBBPF_SUITES = ("sid", "forky")
KERNELS = ("5.10", "6.1", "6.12", "7.2", "7.3")
BPF_FOLDERS = ("c_src", "tests", "examples", "bench")
BPF_ARCH = {"x86_64": "x86", "aarch64": "arm64", "riscv64": "riscv", "s390x": "s390"}


class BuildError(Exception):
    """Something that cannot be had; the message is for the person at the terminal."""


def say(text: str) -> None:
    print(f"==> {text}", flush=True)


def run(what: str, command: list[str], **options: object) -> str:
    """Run ``command`` under the title ``what`` and return its output; a failure shows all of it."""
    say(what)
    started = time.monotonic()
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        **options,  # type: ignore[call-overload]  # cwd and env
    )
    if done.returncode:
        print(done.stdout, end="", flush=True)
        raise BuildError(f"{what}: exit status {done.returncode} of: {shlex.join(command)}")
    seconds = time.monotonic() - started
    if seconds > 1:
        print(f"    {seconds:.0f} s", flush=True)
    return str(done.stdout)


def digest(*parts: object) -> str:
    """A short hash of texts and of files' contents."""
    h = hashlib.sha256()
    for part in parts:
        h.update(part.read_bytes() if isinstance(part, Path) else str(part).encode())
        h.update(b"\0")
    return h.hexdigest()[:16]


def is_current(stamp: Path, key: str) -> bool:
    return stamp.exists() and stamp.read_text() == key


def mark_current(stamp: Path, key: str) -> None:
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(key)


# ---- Debian packages -----------------------------------------------------------------------------


def system_libbpf() -> bool:
    return os.environ.get("PYBPF_LIBBPF") == "system"


def missing_packages() -> list[str]:
    """Debian's names of the packages without which the build cannot go on."""
    include = Path("/usr/include")
    have = {
        "gcc": shutil.which("gcc"),
        "libc6-dev": (include / "stdio.h").exists(),
        "make": shutil.which("make"),
        "libelf-dev": (include / "gelf.h").exists(),
        "zlib1g-dev": (include / "zlib.h").exists(),
        "iproute2": shutil.which("ip") is not None,
        "python3-dev": (Path(sysconfig.get_path("include")) / "Python.h").exists(),
        "python3-venv": importlib.util.find_spec("ensurepip"),
    }
    if system_libbpf():
        have["pkg-config"] = shutil.which("pkg-config")
        have["libbpf-dev"] = (include / "bpf/libbpf.h").exists()
    missing = [name for name, found in have.items() if not found]
    return missing + missing_clang()


def missing_packages_of_guests() -> list[str]:
    """Debian's names of the packages without which no other kernel can be run."""
    emulator = {"x86_64": "qemu-system-x86", "aarch64": "qemu-system-arm"}[os.uname().machine]
    have = {
        emulator: shutil.which(f"qemu-system-{os.uname().machine}"),
        "busybox-static": shutil.which("busybox"),
        "debian-archive-keyring": Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists(),
        "iproute2": shutil.which("ip"),
        "kmod": shutil.which("depmod", path="/usr/sbin:/sbin"),
        "lz4": shutil.which("lz4"),
        "zstd": shutil.which("zstd"),
    }
    return [name for name, found in have.items() if not found]


def missing_clang() -> list[str]:
    """The newest clang that apt has, unless that or a newer one is there.

    Whoever cannot install packages makes do with the clang there is.
    """
    found, packaged = clang_version(find_clang()), newest_packaged_clang()
    if found and (os.geteuid() != 0 or packaged is None or found >= packaged):
        return []
    return [f"clang-{packaged}" if packaged else "clang"]


def clang_version(clang: str | None) -> int:
    """The major version of that compiler, 0 for none."""
    if clang is None:
        return 0
    out = subprocess.run([clang, "--version"], stdout=subprocess.PIPE, text=True).stdout
    found = re.search(r"clang version (\d+)", out)
    return int(found[1]) if found else 0


def find_clang() -> str | None:
    """The newest clang on PATH: clang-22 before clang-19 before clang."""
    versioned = [
        (int(match[1]), str(path))
        for folder in os.get_exec_path()
        for path in Path(folder).glob("clang-[0-9]*")
        if (match := re.fullmatch(r"clang-(\d+)", path.name))
    ]
    return max(versioned)[1] if versioned else shutil.which("clang")


def newest_packaged_clang() -> int | None:
    if not shutil.which("apt-cache"):
        return None
    command = ["apt-cache", "--names-only", "search", r"^clang-[0-9]+$"]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout
    versions = [int(version) for version in re.findall(r"^clang-(\d+) ", found, re.MULTILINE)]
    return max(versions, default=None)


def packages(find_missing: Callable[[], list[str]] = missing_packages) -> None:
    """Install what is missing; without apt or root, name it."""
    missing = find_missing()
    if not missing:
        return
    by_hand = f"apt-get install --no-install-recommends {' '.join(missing)}"
    if not shutil.which("apt-get"):
        raise BuildError(f"this is not Debian; install what gives these Debian packages: {by_hand}")
    if os.geteuid() != 0:
        raise BuildError(f"packages are missing, and only root can install them: {by_hand}")
    run("apt-get update", ["apt-get", "-q", "update"])
    missing = find_missing()  # the newest clang is known only now
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    run(
        f"installing {' '.join(missing)}",
        ["apt-get", "-q", "-y", "install", "--no-install-recommends", *missing],
        env=environment,
    )
    importlib.invalidate_caches()
    still = find_missing()
    if still:
        raise BuildError(f"installed, yet still not found: {' '.join(still)}")


# ---- libbpf --------------------------------------------------------------------------------------


class Apt:
    """apt with lists, cache and sources of its own below .build: the machine's are only read."""

    def __init__(self, suite: str) -> None:
        self.folder = BUILD / "apt" / suite
        (self.folder / "lists/partial").mkdir(parents=True, exist_ok=True)
        (self.folder / "archives/partial").mkdir(parents=True, exist_ok=True)
        sources = self.folder / "sources.list"
        keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
        signed = f" [signed-by={keyring}]" if keyring.exists() else ""
        sources.write_text(f"deb-src{signed} {debian_mirror()} {suite} main\n")
        self.options = [
            "-oDir::Etc::sourceparts=/dev/null",
            f"-oDir::Etc::sourcelist={sources}",
            f"-oDir::State::lists={self.folder / 'lists'}",
            f"-oDir::Cache={self.folder}",
            "-oAPT::Sandbox::User=",
        ]

    def download_source(self, package: str) -> Path:
        """The folder that then holds the package's .orig.tar.*."""
        run(
            f"reading the {self.folder.name} source list",
            ["apt-get", "-q", *self.options, "update"],
        )
        target = self.folder / "source"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        run(
            f"downloading the source of {package}",
            ["apt-get", "-q", *self.options, "source", "--download-only", package],
            cwd=target,
        )
        return target


def debian_mirror() -> str:
    """The Debian archive that this machine's apt uses."""
    command = [
        "apt-get",
        "indextargets",
        "--format",
        "$(ORIGIN)\t$(LABEL)\t$(REPO_URI)",
        "Created-By: Packages",
    ]
    for line in subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout.splitlines():
        origin, label, uri = line.split("\t")
        if origin == label == "Debian":  # the archive of security updates has a label of its own
            return uri
    raise BuildError(
        "apt's configuration names no Debian archive; set PYBPF_LIBBPF_SRC or PYBPF_LIBBPF=system"
    )


def libbpf_source() -> Path:
    """The libbpf source tree to build: the one asked for, or the newest that Debian has."""
    asked = os.environ.get("PYBPF_LIBBPF_SRC")
    if asked:
        source = Path(asked).resolve()
        if not (source / "src/libbpf.c").exists():
            raise BuildError(f"PYBPF_LIBBPF_SRC={asked} has no src/libbpf.c")
        return source
    if not shutil.which("apt-get"):
        raise BuildError(
            "no apt to get libbpf's source with; set PYBPF_LIBBPF_SRC=DIR or PYBPF_LIBBPF=system"
        )
    target = BUILD / "libbpf-source"
    if (target / "src/libbpf.c").exists():
        return target
    for suite in LIBBPF_SUITES:
        try:
            folder = Apt(suite).download_source("libbpf")
            break
        except BuildError as error:
            print(f"    {error}", flush=True)
    else:
        raise BuildError(f"no source of libbpf from Debian's {' or '.join(LIBBPF_SUITES)}")
    unpack(next(folder.glob("libbpf_*.orig.tar.*")), target)
    return target


def unpack(archive: Path, target: Path) -> None:
    """The archive's single top folder becomes ``target``, whole or not at all."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(partial, filter="data")
        else:
            tar.extractall(partial)
    (top,) = partial.iterdir()
    top.rename(target)
    partial.rmdir()


def libbpf() -> Path:
    """Build libbpf statically and return the prefix that holds its include/ and lib/."""
    prefix = BUILD / "libbpf"
    source = libbpf_source()
    makefile = (source / "src/Makefile").read_text()
    version = ".".join(
        re.findall(rf"LIBBPF_{part}_VERSION := (\d+)", makefile)[0]
        for part in ("MAJOR", "MINOR", "PATCH")
    )
    key = digest(version, *sorted((source / "src").glob("*.[ch]")))
    stamp = prefix / "stamp"
    if is_current(stamp, key):
        return prefix
    shutil.rmtree(prefix, ignore_errors=True)
    objects = BUILD / "libbpf-objects"
    shutil.rmtree(objects, ignore_errors=True)
    run(
        f"building libbpf {version} from {os.path.relpath(source)}",
        ["make", f"-j{os.cpu_count()}", "-C", str(source / "src"), "BUILD_STATIC_ONLY=1",
         f"OBJDIR={objects}", "CFLAGS=-O2 -g -fPIC -fvisibility=hidden", f"DESTDIR={prefix}",
         "LIBDIR=/lib", "INCLUDEDIR=/include", "UAPIDIR=/include/uapi", "LIBSUBDIR=lib",
         "install", "install_uapi_headers"],
    )  # fmt: skip
    mark_current(stamp, key)
    return prefix


# ---- Python --------------------------------------------------------------------------------------


def setup() -> None:
    packages()
    ext()
    bpf()


def venv() -> None:
    if not VENV_PYTHON.exists():
        version = sys.version.split()[0]
        run(f"making .venv with Python {version}", [sys.executable, "-m", "venv", str(VENV)])


def ext() -> None:
    """The native module, by an editable install of pybpf with its tests' needs into .venv."""
    venv()
    variant = "system" if system_libbpf() else (libbpf() / "stamp").read_text()
    sources = sorted((ROOT / "c_src").glob("*.*"))
    key = digest(
        variant, ROOT / "pyproject.toml", ROOT / "setup.py", *sources, VENV_PYTHON.resolve()
    )
    stamp = VENV / "pybpf-stamp"
    native = list((ROOT / "python/pybpf").glob("_libbpf*.so"))
    if native and is_current(stamp, key):
        return
    # setuptools' own folder, where a stale variant could linger
    shutil.rmtree(ROOT / "build", ignore_errors=True)
    run(
        "building the native module and installing pybpf (editable) into .venv",
        [*PIP, "install", "-e", f"{ROOT}[test]"],
    )
    mark_current(stamp, key)


# ---- BPF programs --------------------------------------------------------------------------------


def bpf_sources() -> list[Path]:
    return sorted(path for top in BPF_FOLDERS for path in (ROOT / top).rglob("*.bpf.c"))


def bpf() -> None:
    """Compile each *.bpf.c to the .bpf.o beside it where it, a header or the compiler changed."""
    clang = find_clang()
    if clang is None:
        raise BuildError("no clang on PATH")
    version = subprocess.run([clang, "--version"], stdout=subprocess.PIPE, text=True).stdout
    compiler = version.splitlines()[0]
    flags = bpf_flags()
    key = digest(compiler, *flags)
    stale = [source for source in bpf_sources() if needs_compiling(source, key)]
    if not stale:
        return
    say(f"compiling {len(stale)} BPF programs with {compiler}")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for output in pool.map(lambda source: compile_bpf(clang, flags, source), stale):
            print(output, end="", flush=True)
    for source in stale:
        if not bpf_object(source).exists():
            raise BuildError(f"clang failed on {source.relative_to(ROOT)} (above)")
        mark_current(bpf_record(source, ".key"), key)


def bpf_flags() -> list[str]:
    machine = os.uname().machine
    libbpf_headers = [] if system_libbpf() else [f"-I{libbpf() / 'include'}"]
    return [
        *("-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror"),
        f"-D__TARGET_ARCH_{BPF_ARCH.get(machine, machine)}",
        f"-I{ROOT / 'vmlinux'}",
        f"-I{ROOT / 'python/pybpf/include'}",
        *libbpf_headers,
    ]


def bpf_object(source: Path) -> Path:
    return source.with_suffix(".o")


def bpf_record(source: Path, suffix: str) -> Path:
    return BUILD / "bpf" / source.relative_to(ROOT).with_suffix(suffix)


def needs_compiling(source: Path, key: str) -> bool:
    output, dependencies = bpf_object(source), bpf_record(source, ".d")
    if (
        not output.exists()
        or not dependencies.exists()
        or not is_current(bpf_record(source, ".key"), key)
    ):
        return True
    names = dependencies.read_text().replace("\\\n", " ").partition(":")[2].split()
    built = output.stat().st_mtime
    return any(not os.path.exists(name) or os.path.getmtime(name) > built for name in names)


def compile_bpf(clang: str, flags: list[str], source: Path) -> str:
    """clang's messages; there is a fresh object exactly if it succeeded."""
    output, dependencies = bpf_object(source), bpf_record(source, ".d")
    dependencies.parent.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)
    command = [clang, *flags, "-MD", "-MF", str(dependencies), "-c", str(source), "-o", str(output)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )
    if done.returncode:
        output.unlink(missing_ok=True)
    return done.stdout


# ---- what people call ----------------------------------------------------------------------------


def demo(duration: float) -> int:
    setup()
    if os.geteuid() != 0:
        raise BuildError(
            "everything is built, but loading BPF programs needs root: sudo python3 build.py demo"
        )
    say(f"pybpf load {DEMO_OBJECT.relative_to(ROOT)} --duration {duration:g}")
    print("    (run something in another terminal; this demo runs `date` every second)", flush=True)
    loader = subprocess.Popen(
        [str(VENV_PYTHON), "-m", "pybpf", "load", str(DEMO_OBJECT), "--duration", f"{duration:g}"],
        cwd=ROOT,
    )
    try:
        while loader.poll() is None:
            time.sleep(1)
            subprocess.run(["date"], stdout=subprocess.DEVNULL)
    except KeyboardInterrupt:
        pass  # the loader has the same Ctrl-C and ends by itself
    return loader.wait()


def test(kernels: str | None, arguments: list[str]) -> int:
    setup()
    os.chdir(ROOT)
    runner = PYTEST
    if kernels:
        packages(missing_packages_of_guests)
        names = ",".join(KERNELS) if kernels == "all" else kernels
        runner = [str(VENV_PYTHON), "tests/matrix.py", names]
    if os.geteuid() == 0:
        os.environ["PYBPF_KERNEL_TESTS"] = "required"
        if not arguments:
            return test_everything(runner)
    else:
        say("not root: unit and fuzz tests only; the kernel tests need root")
        # not among the arguments, which guests get too, where everybody is root
        os.environ["PYTEST_ADDOPTS"] = "--ignore=tests/kernel"
    say("running the tests")
    return subprocess.call([*runner, *arguments])


def test_everything(runner: list[str]) -> int:
    """The kernel tests, which mostly wait, and all others beside them; 0 where all pass."""
    say("running the tests on the kernel, and meanwhile the others, whose report comes last")
    others = ["nice", *PYTEST, "-p", "no:cacheprovider", "--ignore=tests/kernel"]
    with (
        tempfile.TemporaryFile() as report,
        subprocess.Popen(others, stdout=report, stderr=report) as beside,
    ):
        status = subprocess.call([*runner, "tests/kernel"])
        status = beside.wait() or status
        report.seek(0)
        say("the other tests")
        print(report.read().decode(errors="replace"), end="", flush=True)
    return status


def clean() -> None:
    outputs = [path for top in BPF_FOLDERS for path in (ROOT / top).rglob("*.bpf.o")]
    outputs += [*(ROOT / "python").rglob("_libbpf*"), *(ROOT / "python").glob("*.egg-info")]
    for path in [BUILD, VENV, ROOT / "build", ROOT / ".pytest_cache", *outputs]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo_parser = commands.add_parser("demo")
    demo_parser.add_argument("--duration", type=float, default=10, metavar="S")
    test_parser = commands.add_parser("test", allow_abbrev=False)
    test_parser.add_argument("--kernels", metavar="KERNEL,...", help=f"all: {','.join(KERNELS)}")
    parts = {"setup": setup, "libbpf": libbpf, "ext": ext, "bpf": bpf, "clean": clean}
    for name in parts:
        commands.add_parser(name)
    options, rest = parser.parse_known_args()
    if rest and options.command != "test":
        parser.error(f"unknown: {shlex.join(rest)}")
    try:
        if options.command == "demo":
            return demo(options.duration)
        if options.command == "test":
            return test(options.kernels, rest)
        if options.command in ("libbpf", "ext", "bpf"):
            packages()
        parts[options.command]()
    except BuildError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
