# SPDX-License-Identifier: BSD-2-Clause
"""The program, and the libraries, whose functions tests of uprobes watch."""

from __future__ import annotations

import atexit
import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent


@functools.cache
def folder():
    """Where they are, compiled once; it ends with the tests."""
    folder = Path(tempfile.mkdtemp(prefix="pybpf-watched-"))
    atexit.register(shutil.rmtree, folder)
    compile_as(folder / "watched", "-DPROGRAM", "watched.c", "watched_twin.c")
    library = folder / "libwatched.so.1"
    compile_as(library, "-shared", "-fPIC", "watched.c", "watched_twin.c")
    compile_as(folder / "libshapes.so", "-shared", "-fPIC", "watched.cpp")
    return folder


def compile_as(path, *arguments):
    subprocess.run(["gcc", "-O1", "-o", str(path), *arguments], cwd=SOURCES, check=True)
    return path


def program():
    return folder() / "watched"


def library():
    return folder() / "libwatched.so.1"


def shapes():
    return folder() / "libshapes.so"


def function(path, name):
    """A function of a library, loaded into this process, of one number that gives one."""
    function = getattr(ctypes.CDLL(str(path)), name)
    function.argtypes, function.restype = [ctypes.c_long], ctypes.c_long
    return function


class Process:
    """The program, running; what ``command`` is, if it is not the program itself."""

    def __init__(self, *command):
        command = list(map(str, command)) or [str(program())]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.call("add_one", 0)  # it runs now

    @property
    def pid(self):
        return self.process.pid

    def call(self, name, number):
        """What the function of that name gives for that number."""
        self.process.stdin.write(f"{name} {number}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.communicate()
