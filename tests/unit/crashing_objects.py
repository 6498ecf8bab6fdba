# SPDX-License-Identifier: BSD-2-Clause
"""The objects of docs/libbpf-crashes.md: a few lines, compiled, and a lie written into the result.

Each function below that is marked `crash` is one such lie. It gets a sound object, as Patch, and
changes one field of it (two where the crash needs two). CRASHES lists them all.
"""

from __future__ import annotations

import functools
import io
import signal
import struct
import subprocess
from collections.abc import Callable
from typing import Any, NamedTuple

from btf_sources import newest_clang
from elftools.elf.elffile import ELFFile

NATIVE = "bpfel" if struct.pack("=H", 1) == struct.pack("<H", 1) else "bpfeb"
FOREIGN = "bpfeb" if NATIVE == "bpfel" else "bpfel"

(INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST) = range(1, 11)
(RESTRICT, FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64) = range(11, 20)
# BTF kind -> bytes after the twelve of every type, fixed and for each of its items
MORE = {INT: (4, 0), ARRAY: (12, 0), STRUCT: (0, 12), UNION: (0, 12), ENUM: (0, 8)}
MORE |= {FUNC_PROTO: (0, 8), VAR: (4, 0), DATASEC: (0, 12), DECL_TAG: (4, 0), ENUM64: (0, 12)}
REFERRED, ITEMS, ELEMENTS = 8, 12, 20  # bytes from the start of a type

PRELUDE = """
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, value) int (*name)[value]
#define __type(name, value) typeof(value) *name
char LICENSE[] SEC("license") = "GPL";
"""


@functools.cache
def compile_object(source: str, target: str = NATIVE, language: str = "c") -> bytes:
    """The object that clang makes for bpfel or bpfeb; C gets PRELUDE in front of it."""
    if language == "c":
        source = PRELUDE + source
    command = [newest_clang(), "-target", target, "-mcpu=v3", "-g", "-O2", "-x", language]
    done = subprocess.run(
        [*command, "-c", "-", "-o", "-"], input=source.encode(), capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


class Patch:
    """An object, where its symbols and types are, and `put` to change a field."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.order = ">" if data[5] == 2 else "<"
        self.file = ELFFile(io.BytesIO(data))
        self.types: list[tuple[int, int, str]] = [(0, 0, "void")]  # offset, kind, name
        if self.file.get_section_by_name(".BTF"):
            self._find_types(self.section(".BTF"))

    def put(self, offset: int, what: str, *values: int | bytes) -> None:
        struct.pack_into(self.order + what, self.data, offset, *values)

    def get(self, offset: int, what: str) -> tuple[Any, ...]:
        return struct.unpack_from(self.order + what, self.data, offset)

    def section(self, name: str) -> int:
        """Where the contents of a section are."""
        return self.file.get_section_by_name(name)["sh_offset"]

    def header(self, name: str) -> int:
        """Where the header of a section is."""
        return self.file["e_shoff"] + 64 * self.file.get_section_index(name)

    def symbol(self, name: str) -> int:
        """Where the symbol is; its value is 8 bytes further on, its size 16."""
        names = [symbol.name for symbol in self.file.get_section_by_name(".symtab").iter_symbols()]
        return self.section(".symtab") + 24 * names.index(name)

    def type_id(self, kind: int, name: str = "") -> int:
        return next(i for i, (_, *found) in enumerate(self.types) if found == [kind, name])

    def type(self, kind: int, name: str = "") -> int:
        """Where the type is: its name, info and size (or type) first, then its items."""
        return self.types[self.type_id(kind, name)][0]

    def array(self, elements: int) -> int:
        """Where the array type of that many elements is."""
        return next(
            offset
            for offset, kind, _ in self.types
            if kind == ARRAY and self.get(offset + ELEMENTS, "I") == (elements,)
        )

    def member(self, name: str, number: int) -> int:
        """Where a member of a struct is: name, type and bit offset."""
        return self.type(STRUCT, name) + ITEMS + 12 * number

    def string(self, text: str) -> int:
        """Where that string of the BTF is."""
        return self.data.index(b"\0" + text.encode() + b"\0", self.strings) + 1

    def _find_types(self, start: int) -> None:
        header, types, size, strings = self.get(start + 4, "4I")
        self.strings = start + header + strings
        offset = start + header + types
        while offset < start + header + types + size:
            name, info = self.get(offset, "2I")
            kind = info >> 24 & 31
            end = self.data.index(b"\0", self.strings + name)
            self.types.append((offset, kind, self.data[self.strings + name : end].decode()))
            fixed, each = MORE.get(kind, (0, 0))
            offset += 12 + fixed + each * (info & 0xFFFF)


class Crash(NamedTuple):
    """One object that libbpf must not get."""

    row: int  # of the table in docs/libbpf-crashes.md
    lie: Callable[[Patch], None]
    source: str
    language: str
    section: str  # that the refusal names
    says: str  # a regular expression for the reason that it gives
    kills: signal.Signals | None  # what ends a process that opens it, with every libbpf from 1.1

    def sound(self, target: str = NATIVE) -> bytes:
        return compile_object(self.source, target, self.language)

    def crashing(self, target: str = NATIVE) -> bytes:
        patch = Patch(self.sound(target))
        self.lie(patch)
        return bytes(patch.data)


CRASHES: list[Crash] = []


def crash(
    row: int,
    source: str,
    says: str,
    section: str = ".BTF",
    language: str = "c",
    kills: signal.Signals | None = None,
) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    def add(lie: Callable[[Patch], None]) -> Callable[[Patch], None]:
        CRASHES.append(Crash(row, lie, source, language, section, says, kills))
        return lie

    return add


# The types and functions named here are those of the kernel, so that load gets as far as the crash.
STRUCT_OPS = """
struct tcp_congestion_ops { char name[16]; unsigned (*ssthresh)(void *); };
SEC("struct_ops/ssthresh") unsigned ssthresh(void *context) { return 2; }
SEC(".struct_ops") struct tcp_congestion_ops variable = { .ssthresh = ssthresh, .name = "test" };
"""
MAPS = """
typedef struct { __uint(type, 2); __uint(max_entries, 7); __type(key, int); __type(value, long); }
    array_map;
array_map counts SEC(".maps");
array_map more SEC(".maps");
"""
TAIL_CALLS = """
SEC("socket") int program(void *context) { return 0; }
struct {
    __uint(type, 3); __uint(max_entries, 2); __uint(key_size, 4); int (*values[])(void *);
} calls SEC(".maps") = { .values = { [1] = program } };
"""
KCONFIG = """
struct list { struct list *next; long number; };
struct list head;
extern long CONFIG_HZ __attribute__((section(".kconfig"), weak));
extern char CONFIG_DEFAULT_HOSTNAME[32] __attribute__((section(".kconfig"), weak));
extern char CONFIG_LOCALVERSION[32] __attribute__((section(".kconfig"), weak));
extern char CONFIG_CC_VERSION_TEXT[32] __attribute__((section(".kconfig"), weak));
struct task_struct { int pid; };
extern void bpf_task_release(struct task_struct *task) __attribute__((section(".ksyms"), weak));
SEC("socket") int program(void *context)
{
    return CONFIG_HZ + CONFIG_DEFAULT_HOSTNAME[0] + CONFIG_LOCALVERSION[0] +
           CONFIG_CC_VERSION_TEXT[0] + head.number + (bpf_task_release ? 1 : 0);
}
"""
CORE = """
struct deep {
    int a;
    struct { int b; struct { int c; struct { int d; struct { int e, f[9]; } s; } s; } s; } s;
} __attribute__((preserve_access_index));
struct task_struct {
    unsigned short in_execve : 1, in_iowait : 1;
} __attribute__((preserve_access_index));
long result;
static __attribute__((noinline)) int twice(int number) { return number + result; }
SEC("raw_tp/sched_switch") int program(struct deep *context)
{
    struct task_struct *task = (void *)context;
    return twice(context->s.s.s.s.f[7]) + __builtin_preserve_field_info(task->in_iowait, 0);
}
"""
ACCESS_PATH = "0:1:1:1:1:1:7"
JUMP_TABLE = """
SEC(".jumptables") long table[4] = { 8, 16, 24, 32 };
SEC("socket") int program(void *context) { return 0; }
"""
MOST_FUNCTIONS = 32768
# each calls the next; the last one is not marked as a function
FUNCTIONS = f"""
.macro function
    .type f\\@, @function
    .size f\\@, 16
f\\@:
1:  call 1f
    exit
.endm
.text
.rept {MOST_FUNCTIONS}
    function
.endr
last:
1:  r0 = 0
    exit
    .size last, 16
"""


@crash(1, STRUCT_OPS, r"variable has 24 bytes at offset 4294967280", kills=signal.SIGSEGV)
def struct_ops_variable_ends_after_4_gib(o: Patch) -> None:
    o.put(o.symbol("variable") + 8, "Q", 0xFFFFFFF0)


@crash(1, STRUCT_OPS, r"variable has 24 bytes at offset 4294967281")
def linked_struct_ops_variable_ends_after_4_gib(o: Patch) -> None:
    o.put(o.type(DATASEC, ".struct_ops") + REFERRED, "I", 24)  # sizes are filled in by linking
    o.put(o.type(DATASEC, ".struct_ops") + ITEMS + 4, "I", 0xFFFFFFF1)


@crash(2, MAPS, r"type \d+ array_map refers to itself", kills=signal.SIGALRM)
def typedef_of_itself(o: Patch) -> None:
    o.put(o.type(TYPEDEF, "array_map") + REFERRED, "I", o.type_id(TYPEDEF, "array_map"))


@crash(
    2,
    "typedef int inner; typedef const inner middle; typedef volatile middle outer; outer number;",
    r"type \d+ \w* ?refers to itself",
)
def circle_of_typedefs(o: Patch) -> None:
    o.put(o.type(TYPEDEF, "inner") + REFERRED, "I", o.type_id(TYPEDEF, "outer"))


@crash(3, KCONFIG, r"CONFIG_HZ in \.kconfig is not an integer", kills=signal.SIGSEGV)
def kconfig_variable_of_a_struct_that_contains_itself(o: Patch) -> None:
    o.put(o.type(VAR, "CONFIG_HZ") + REFERRED, "I", o.type_id(STRUCT, "list"))
    o.put(o.member("list", 0) + 4, "I", o.type_id(STRUCT, "list"))


@crash(4, KCONFIG, r"CONFIG_\w+ in \.kconfig has 2147483648 bytes", kills=signal.SIGSEGV)
def kconfig_variable_of_2_gib(o: Patch) -> None:
    o.put(o.array(32) + ELEMENTS, "I", 0x80000000)


@crash(5, KCONFIG, r"CONFIG_\w+ in \.kconfig has 1610612736 bytes")
def three_kconfig_variables_of_1536_mib(o: Patch) -> None:
    o.put(o.array(32) + ELEMENTS, "I", 0x60000000)


@crash(6, STRUCT_OPS, r"member ssthresh of tcp_congestion_ops ends at byte 24 of 23")
def struct_ops_struct_smaller_than_its_members(o: Patch) -> None:
    o.put(o.type(STRUCT, "tcp_congestion_ops") + REFERRED, "I", 23)


@crash(7, STRUCT_OPS, r"member name of tcp_congestion_ops ends at byte 268435464 of 24")
def struct_ops_member_far_after_its_struct(o: Patch) -> None:
    o.put(o.member("tcp_congestion_ops", 0) + 8, "I", 0x7FFFFFC0)


@crash(8, TAIL_CALLS, r"byte 18446744073709551608 of a \.maps section", section=".rel.maps")
def initial_value_of_a_map_before_its_section(o: Patch) -> None:
    o.put(o.section(".rel.maps"), "Q", 2**64 - 8)


@crash(8, TAIL_CALLS, r"byte \d+ of a \.maps section of \d+ bytes", section=".rel.maps")
def initial_value_of_a_map_across_the_end_of_its_section(o: Patch) -> None:
    o.put(o.section(".rel.maps"), "Q", o.file.get_section_by_name(".maps")["sh_size"] - 7)


@crash(9, MAPS, r"map counts has the type struct_ops", section=".maps")
def map_of_type_struct_ops(o: Patch) -> None:
    o.put(o.array(2) + ELEMENTS, "I", 26)


@crash(10, KCONFIG, r"a type refers to type 2147483647 of \d+")
def return_type_that_does_not_exist(o: Patch) -> None:
    (prototype,) = o.get(o.type(FUNC, "bpf_task_release") + REFERRED, "I")
    o.put(o.types[prototype][0] + REFERRED, "I", 0x7FFFFFFF)


@crash(11, KCONFIG, r"a type refers to type (\d+) of \1$")
def variable_of_the_first_type_that_does_not_exist(o: Patch) -> None:
    o.put(o.type(VAR, "CONFIG_HZ") + REFERRED, "I", len(o.types))


@crash(11, KCONFIG, r"a type refers to type 4294967295 of \d+")
def member_of_a_type_that_does_not_exist(o: Patch) -> None:
    o.put(o.member("list", 1) + 4, "I", 0xFFFFFFFF)


@crash(11, KCONFIG, r"a type refers to type 77777 of \d+")
def array_of_a_type_that_does_not_exist(o: Patch) -> None:
    o.put(o.array(32) + ITEMS, "I", 77777)


@crash(11, KCONFIG, r"a name lies at byte 65536 of \d+")
def type_name_outside_of_the_strings(o: Patch) -> None:
    o.put(o.type(VAR, "CONFIG_HZ"), "I", 65536)


@crash(11, KCONFIG, r"a name lies at byte (\d+) of \1$")
def member_name_just_after_the_strings(o: Patch) -> None:
    (size,) = o.get(o.section(".BTF") + 20, "I")
    o.put(o.member("list", 1), "I", size)


@crash(11, KCONFIG, r"the type of a function is not a function prototype")
def function_without_prototype(o: Patch) -> None:
    o.put(o.type(FUNC, "program") + REFERRED, "I", o.type_id(STRUCT, "list"))


@crash(11, KCONFIG, r"the type of a variable is not a type")
def variable_of_a_variable(o: Patch) -> None:
    o.put(o.type(VAR, "CONFIG_HZ") + REFERRED, "I", o.type_id(VAR, "head"))


@crash(12, CORE, r"access path '0:-99999999'", section=".BTF.ext")
def negative_number_in_an_access_path(o: Patch) -> None:
    o.put(o.string(ACCESS_PATH), "13s", b"0:-99999999")


@crash(12, CORE, r"access path '0:4294967287'", section=".BTF.ext")
def access_path_that_wraps_to_a_negative_number(o: Patch) -> None:
    o.put(o.string(ACCESS_PATH), "13s", b"0:4294967287")


@crash(13, CORE, r"bitfield in_execve of task_struct has a type without size")
def bitfield_of_a_type_without_size(o: Patch) -> None:
    o.put(o.type(INT, "unsigned short") + REFERRED, "I", 0)


@crash(14, CORE, r"function twice ends in the middle of a 16-byte load", section=".text")
def function_that_ends_with_half_an_instruction(o: Patch) -> None:
    (offset,) = o.get(o.section(".rel.text"), "Q")
    start, _ = o.get(o.symbol("twice") + 8, "2Q")
    o.put(o.symbol("twice") + 16, "Q", offset + 8 - start)


@crash(15, FUNCTIONS, r"more than 32768 functions", section=".symtab", language="assembler")
def one_function_more_than_libbpf_can_recurse_into(o: Patch) -> None:
    o.put(o.symbol("last") + 4, "B", 2)


@crash(16, KCONFIG, r"long in \.kconfig is no variable or function")
def kconfig_entry_that_is_no_variable(o: Patch) -> None:
    o.put(o.type(DATASEC, ".kconfig") + ITEMS, "I", o.type_id(INT, "long"))


@crash(16, KCONFIG, r"list in \.ksyms is no variable or function")
def ksyms_entry_that_is_no_function(o: Patch) -> None:
    o.put(o.type(DATASEC, ".ksyms") + ITEMS, "I", o.type_id(STRUCT, "list"))


@crash(17, JUMP_TABLE, r"jump table ends at byte 40 of a section of 32", section=".jumptables")
def jump_table_that_ends_after_its_section(o: Patch) -> None:
    o.put(o.symbol("table") + 16, "Q", 40)


@crash(17, JUMP_TABLE, r"jump table ends at byte 4294967312 of", section=".jumptables")
def jump_table_whose_end_exceeds_32_bits(o: Patch) -> None:
    o.put(o.symbol("table") + 8, "2Q", 0x18, 0xFFFFFFF8)
