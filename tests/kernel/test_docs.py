# SPDX-License-Identifier: BSD-2-Clause
"""What README.md and docs/events.md show of events compiles and runs as it stands there.

C is written to the file that its first line names and compiled by the command that is shown, Python
runs beside it.  Examples that go on for ever end when they have printed enough.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import features
import pybpf
import pytest
from bad_objects import newest_clang

pytestmark = pytest.mark.native

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/events.md"
HELPERS = ROOT / ".build/libbpf/include"
ENOUGH = 3


def blocks(text, language):
    """The code blocks of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def sections(path):
    """{heading: text} of what is below the headings of the second level."""
    parts = re.split(r"^## (.*)\n", path.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


RUNNABLE = {title: text for title, text in sections(GUIDE).items() if blocks(text, "python")}
SOURCES = {text.split()[1]: text for text in blocks(GUIDE.read_text(), "c")}


def test_nothing_is_shown_in_a_language_that_is_not_run():
    languages = re.findall(r"^```(\w+)$", GUIDE.read_text(), re.MULTILINE)
    assert set(languages) == {"c", "sh", "python"}
    assert languages.count("sh") == 1


@pytest.fixture
def shown(kernel_btf, tmp_path_factory):
    """A folder with all the C, and what the shell makes of it as shown."""
    folder = tmp_path_factory.getbasetemp() / "shown"
    if not folder.exists():
        fill(folder)
    return folder


def fill(folder):
    tools = folder / "bin"
    tools.mkdir(parents=True)
    (tools / "clang").symlink_to(shutil.which(newest_clang()))
    path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.defpath])
    environment = {"PATH": path, "C_INCLUDE_PATH": str(HELPERS)}
    (commands,) = blocks(GUIDE.read_text(), "sh")
    for name, text in SOURCES.items():
        (folder / name).write_text(text)
        words = ["sh", "-ec", commands.replace("execs.bpf.c", name)]
        subprocess.run(words, cwd=folder, env=environment, check=True)


@pytest.mark.parametrize("name", SOURCES)
def test_the_programs_compile_with_this_repositorys_types(name):
    folders = [f"-I{ROOT / 'vmlinux'}", f"-I{pybpf.get_include()}", "-isystem", str(HELPERS)]
    flags = ["-O2", "-g", "-target", "bpf", "-Wall", "-Werror", *folders]
    command = [newest_clang(), *flags, "-xc", "-", "-c", "-o", os.devnull]
    subprocess.run(command, input=SOURCES[name].encode(), check=True)


class Enough(Exception):
    """An example has shown that it works."""


def run(code, names):
    """Run an example until its end, or until it has printed enough lines; what it printed."""
    printed = []

    def show(*values, **options):
        builtins.print(*values, **options)
        printed.append(values)
        if len(printed) == ENOUGH:
            raise Enough

    names["print"] = show
    compiled = compile(code, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    try:
        result = eval(compiled, names)
        if inspect.iscoroutine(result):
            asyncio.run(result)
    except Enough:
        pass
    return printed


@pytest.fixture
def busy_machine():
    """Programs start and end."""
    with subprocess.Popen(["sh", "-c", "while :; do /bin/true; done"]) as shell:
        yield
        shell.kill()


@pytest.mark.parametrize("title", RUNNABLE)
def test_the_examples_run(shown, busy_machine, monkeypatch, title):
    monkeypatch.chdir(shown)
    for code in blocks(RUNNABLE[title], "python"):
        try:
            assert run(code, {})
        except pybpf.NotSupportedError as error:
            features.skip_as_told(error)


# ---- README --------------------------------------------------------------------------------------

EXAMPLE = ROOT / "examples/execsnoop/execsnoop.bpf.o"
OF_EVENTS = [
    code for code in blocks((ROOT / "README.md").read_text(), "python") if "events" in code
]
REPEATING = 'sleep 0.2; exec sh -c "$0" "$0"'


@pytest.fixture
def restarting():
    """The id of a process that starts another program in its place, again and again."""
    with subprocess.Popen(["sh", "-c", REPEATING, REPEATING]) as shell:
        yield shell.pid
        shell.kill()


def test_readme_begins_with_an_example_that_runs(busy_machine, monkeypatch):
    monkeypatch.chdir(EXAMPLE.parent)
    assert len(run(OF_EVENTS[0], {})) == ENOUGH


def test_readme_shows_events_as_they_are(restarting):
    assert len(OF_EVENTS) == 2
    with pybpf.open(EXAMPLE) as obj:
        obj.rodata.only_pid = restarting
        obj.load()
        obj.attach()
        code = OF_EVENTS[1].replace("timeout=1", "timeout=0.1")
        names = {"obj": obj}
        assert run(code, names)
    assert {"event", "batch", "failed"} <= names.keys()
