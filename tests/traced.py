# SPDX-License-Identifier: BSD-2-Clause
"""A small C program of known functions, foo() -> bar() -> baz(), to take and name stacks of."""

from __future__ import annotations

import platform
import subprocess

GETPPID = {"x86_64": 110, "aarch64": 173}[platform.machine()]
SYSTEM_CALL = {
    "x86_64": 'asm volatile("syscall" : "=a"(result) : "a"(GETPPID) : "rcx", "r11", "memory");',
    "aarch64": 'register long number asm("x8") = GETPPID; register long returned asm("x0");'
    'asm volatile("svc #0" : "=r"(returned) : "r"(number) : "memory"); result = returned;',
}[platform.machine()]

# the system call is made in baz() itself: libc's wrapper keeps no frame pointer
SOURCE = f"""
#include <stdio.h>
#define GETPPID {GETPPID}
#define FUNCTION __attribute__((noinline, noclone, visibility("default")))
FUNCTION long baz(void) {{ long result; {SYSTEM_CALL} return result + 1; }}
FUNCTION long bar(void) {{ return baz() + 1; }}
FUNCTION long foo(void) {{ return bar() + 1; }}
int main(void)
{{
    printf("%p %p %p\\n", foo, bar, baz);
    fflush(stdout);
    while (getchar() == '\\n') {{
        long result = foo();
        printf("%ld\\n", result);
        fflush(stdout);
    }}
    return 0;
}}
"""


def compile_c(path, *flags, source=SOURCE):
    """Compile C to the executable or library at ``path``, which is returned."""
    # unoptimized, each function keeps a frame pointer
    command = ["gcc", "-O0", "-fno-omit-frame-pointer", *flags, "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input=source.encode(), check=True)
    return path


class Traced:
    """The program, running: ``foo``, ``bar`` and ``baz`` are where its functions are."""

    def __init__(self, *command):
        self.process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        addresses = self.process.stdout.readline().split()
        self.foo, self.bar, self.baz = (int(address, 16) for address in addresses)

    @property
    def pid(self):
        return self.process.pid

    def call(self):
        """Have it call foo() once."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.process.stdout.readline()

    def end(self):
        """Have it end, and wait until it has."""
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.end()
