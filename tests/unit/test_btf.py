# SPDX-License-Identifier: BSD-2-Clause
"""BTF as clang writes it for every kind of type, as the kernel has it, and damaged in many ways."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import tracemalloc
from pathlib import Path

import pytest
from btf_sources import compile_bpf, info, raw_btf
from pybpf import btf as btf_module
from pybpf.btf import Btf, Kind, Linkage
from pybpf.errors import (
    LayoutError,
    NotFoundError,
    ObjectFormatError,
    ObjectNotFoundError,
)

KERNEL = Path("/sys/kernel/btf/vmlinux")

SOURCE = """
#define tag(x) __attribute__((btf_type_tag(x)))
typedef unsigned int u32;
typedef u32 pid_type;
struct declared;
union declared_union;
enum color { RED, GREEN = 5, BLUE = -3 };
enum plain { ONE = 1, ALL = 0xffffffff };
enum wide { LOW = -2, HIGH = 0x7fffffffffffffff };
enum huge { TOP = 0xffffffffffffffff };
struct inner { char c; short s; } __attribute__((packed));
struct event {
    const volatile pid_type pid;
    char comm[16];
    int low : 3;
    unsigned high : 5;
    struct inner inner;
    union { long a; struct { int b __attribute__((btf_decl_tag("deep"))); int c; }; };
    struct declared *next;
    union declared_union *other;
    int matrix[2][3];
    int (*call)(const char *, u32, ...);
    const char *const *names;
    void (*table[4])(void);
    int tag("user") *tagged;
    double real;
    _Bool flag __attribute__((btf_decl_tag("first"), btf_decl_tag("second")));
    enum color color;
} __attribute__((btf_decl_tag("marked")));
union number { int i; float f; };
struct event event;
union number number = {1};
enum plain plain = ONE;
enum wide wide = LOW;
enum huge huge;
static volatile int hidden = 3;
extern int printf(const char *format, ...);
int *restrict_me(int *restrict p) { return p; }
__attribute__((section("prog"))) int main_program(struct event *ctx) { return ctx->pid + hidden; }
"""


@pytest.fixture(params=["little", "big"])
def btf(request: pytest.FixtureRequest) -> Btf:
    return Btf(compile_bpf(SOURCE, request.param).btf)


@pytest.fixture(scope="module")
def kernel() -> Btf:
    if not KERNEL.exists():
        pytest.skip("this kernel has no BTF")
    return Btf(KERNEL.read_bytes())


def read_everything(btf: Btf) -> None:
    """Ask every type for all it knows."""
    for found in btf:
        str(found)
        for name in dir(type(found)):
            if name.startswith("_") or name in ("resolve", "member"):
                continue
            try:
                getattr(found, name)
            except LayoutError:
                assert name in ("size", "ctype", "dtype")
        found.resolve()


def test_members_of_a_struct(btf: Btf) -> None:
    event = btf["struct event"]
    assert isinstance(event, btf_module.Composite)
    members = {member.name: member for member in event.members}
    assert [str(member.type) for member in event.members] == [
        "const volatile pid_type",
        "char[16]",
        "int",
        "unsigned int",
        "struct inner",
        "union {...}",
        "struct declared *",
        "union declared_union *",
        "int[2][3]",
        "int (*)(const char *, u32, ...)",
        "const char *const *",
        "void (*[4])(void)",
        "int *",
        "double",
        "_Bool",
        "enum color",
    ]
    assert members["comm"].bit_offset == 32
    assert (members["low"].bit_offset, members["low"].bitfield_size) == (160, 3)
    assert (members["high"].bit_offset, members["high"].bitfield_size) == (163, 5)
    assert members["inner"].bit_offset == 168
    assert members["pid"].type.size == 4
    assert members["pid"].type.resolve() is btf["unsigned int"]
    assert members["matrix"].type.size == 24
    assert members["next"].type.size == 8
    assert event.size % 8 == 0
    assert "name='comm'" in repr(members["comm"])
    assert repr(event) == f"<BTF type {event.id}: STRUCT struct event>"


def test_array(btf: Btf) -> None:
    event = btf["struct event"]
    assert isinstance(event, btf_module.Composite)
    matrix = next(member.type for member in event.members if member.name == "matrix")
    assert isinstance(matrix, btf_module.Array)
    assert (matrix.nelems, str(matrix.type)) == (2, "int[3]")


def test_enums(btf: Btf) -> None:
    def values(key: str) -> dict[str, int]:
        enum = btf[key]
        assert isinstance(enum, btf_module.Enum)
        return enum.values

    assert values("enum color") == {"RED": 0, "GREEN": 5, "BLUE": -3}
    assert values("enum plain") == {"ONE": 1, "ALL": 0xFFFFFFFF}
    assert values("enum wide") == {"LOW": -2, "HIGH": 0x7FFFFFFFFFFFFFFF}
    assert values("enum huge") == {"TOP": 0xFFFFFFFFFFFFFFFF}
    assert (btf["enum color"].kind, btf["enum wide"].kind) == (Kind.ENUM, Kind.ENUM64)
    assert (btf["enum color"].size, btf["enum huge"].size) == (4, 8)


def test_section_variables(btf: Btf) -> None:
    data = btf[".data"]
    assert isinstance(data, btf_module.DataSec)
    variables = {variable.name: variable for variable in data.variables}
    assert variables["number"].linkage is Linkage.GLOBAL
    assert variables["hidden"].linkage is Linkage.STATIC
    assert variables["number"].type is btf["union number"]
    assert variables["number"].size == 4
    assert str(btf["number"]) == "union number number"


def test_functions(btf: Btf) -> None:
    program = btf["main_program"]
    assert isinstance(program, btf_module.Func)
    assert program.linkage is Linkage.GLOBAL
    assert str(program) == "int main_program(struct event *)"
    assert isinstance(program.type, btf_module.FuncProto)
    assert [(p.name, str(p.type)) for p in program.type.params] == [("ctx", "struct event *")]
    assert program.type.return_type is btf["int"]
    assert str(btf["restrict_me"]) == "int *restrict_me(int *restrict)"
    with pytest.raises(LayoutError, match="FUNC"):
        program.size  # noqa: B018


def test_tags(btf: Btf) -> None:
    marked = btf.find("marked", Kind.DECL_TAG)
    assert isinstance(marked, btf_module.DeclTag)
    assert marked.target is btf["struct event"]
    assert marked.component is None
    assert btf.find("user").kind is Kind.TYPE_TAG


def test_decl_tags_of_types_and_members(btf: Btf) -> None:
    event = btf["struct event"]
    assert isinstance(event, btf_module.Composite)
    assert event.decl_tags == ("marked",)
    assert event.member("flag").decl_tags == ("first", "second")
    assert event.member("b").decl_tags == ("deep",)
    assert event.member("pid").decl_tags == btf["u32"].decl_tags == btf[0].decl_tags == ()


def test_a_member_by_name(btf: Btf) -> None:
    event = btf["struct event"]
    assert isinstance(event, btf_module.Composite)
    assert event.member("comm") is event.members[1]
    union = next(member for member in event.members if not member.name)
    offset = union.bit_offset
    assert [event.member(name).bit_offset - offset for name in "abc"] == [0, 0, 32]
    assert event.member("c").type is btf["int"]
    low = event.member("low")
    assert (low.bit_offset, low.bitfield_size) == (160, 3)
    with pytest.raises(NotFoundError, match=r"no member of struct event named 'clr'.*'color'"):
        event.member("clr")
    with pytest.raises(NotFoundError, match="'s'"):
        event.member("s")  # of the member inner, which has a name


def test_a_struct_that_contains_itself_has_no_end() -> None:
    btf = Btf(raw_btf([(1, info(Kind.STRUCT, 2), 4, 0, 1, 0, 0, 1, 0)], b"\0x\0"))
    struct_x = btf["struct x"]
    assert isinstance(struct_x, btf_module.Composite)
    with pytest.raises(ObjectFormatError, match="more than 1048576 members"):
        struct_x.member("y")


def test_json_says_what_the_types_say(btf: Btf) -> None:
    text = btf.to_json()
    assert text == btf.to_json()
    whole = json.loads(text)
    assert whole["byteorder"] == btf.byteorder
    types = whole["types"]
    assert [(t["id"], t["kind"], t["name"]) for t in types] == [
        (found.id, found.kind.name, found.name) for found in list(btf)[1:]
    ]
    by_key = {str(btf[t["id"]]): t for t in types}
    event, inner = btf["struct event"], btf["struct inner"]
    assert isinstance(event, btf_module.Composite)
    assert by_key["struct event"]["size"] == event.size
    assert by_key["struct event"]["members"][4] == {
        "bit_offset": event.member("inner").bit_offset,
        "bitfield_size": 0,
        "name": "inner",
        "type": inner.id,
    }
    assert by_key["struct event"]["members"][3]["bitfield_size"] == 5
    assert by_key["enum color"]["values"] == {"RED": 0, "GREEN": 5, "BLUE": -3}
    assert by_key["enum color"]["is_signed"] is True
    assert by_key["enum huge"]["values"] == {"TOP": 0xFFFFFFFFFFFFFFFF}
    assert by_key["_Bool"]["is_bool"] is True
    assert by_key["int[2][3]"]["size"] == 24
    assert by_key["int[2][3]"]["nelems"] == 2
    assert by_key["u32"]["size"] == 4
    assert by_key["u32"]["target"] == btf["unsigned int"].id
    assert by_key["struct declared"]["size"] is None
    program = btf["main_program"]
    assert isinstance(program, btf_module.Func)
    assert by_key[str(program)]["linkage"] == "GLOBAL"
    prototype = types[program.type.id - 1]
    assert prototype["return_type"] == btf["int"].id
    assert [param["name"] for param in prototype["params"]] == ["ctx"]
    (data,) = (t for t in types if t["name"] == ".data")
    assert {v["name"]: v["size"] for v in data["variables"]}["number"] == 4
    tags = {t["name"]: t["component"] for t in types if t["kind"] == "DECL_TAG"}
    assert tags["marked"] is None
    assert event.members[tags["first"]].name == "flag"


def recompiled(header: str, name: str, byteorder: str, folder: Path) -> btf_module.Composite:
    """The struct as clang compiles it from a header, which also gcc takes where it is native."""
    (folder / "vmlinux.h").write_text(header)
    source = f'#include "{folder}/vmlinux.h"\nstruct {name} {name};'
    if byteorder == "little":
        subprocess.run(
            ["gcc", "-fsyntax-only", "-x", "c", "-"], input=source, text=True, check=True
        )
    found = Btf(compile_bpf(source, byteorder).btf)[f"struct {name}"]
    assert isinstance(found, btf_module.Composite)
    return found


def test_c_compiles_to_the_same_layout(btf: Btf, tmp_path: Path) -> None:
    event = btf["struct event"]
    assert isinstance(event, btf_module.Composite)
    again = recompiled(btf.to_c(), "event", btf.byteorder, tmp_path)
    assert again.size == event.size

    def layout(of: btf_module.Composite) -> list[tuple[str, int, int]]:
        return [(m.name, m.bit_offset, m.bitfield_size) for m in of.members]

    assert layout(again) == layout(event)


def test_c_of_a_split_has_what_it_needs_of_the_base(tmp_path: Path) -> None:
    base = Btf(
        raw_btf(
            [
                (1, info(Kind.INT), 4, 1 << 24 | 32),
                (5, info(Kind.STRUCT, 1), 4, 7, 1, 0),  # struct a { int m; }
                (9, info(Kind.STRUCT, 1), 4, 7, 1, 0),  # struct b { int m; }
            ],
            b"\0int\0a\0m\0b\0",
        )
    )
    split = Btf(raw_btf([(11, info(Kind.STRUCT, 1), 4, 7, 2, 0)], b"own\0"), base)
    header = split.to_c()
    assert "struct b" not in header
    assert recompiled(header, "own", "little", tmp_path).member("m").type.size == 4


# Each passes the parser; the comments tell what libbpf's dumper makes of it.
HOSTILE = {
    "pointer to itself: endless recursion": [(0, info(Kind.PTR), 1)],
    "const of itself: an endless list": [(0, info(Kind.CONST), 1), (1, info(Kind.TYPEDEF), 1)],
    "array of itself: endless recursion": [(0, info(Kind.ARRAY), 0, 1, 1, 2)],
    "prototype that takes itself: endless recursion": [(0, info(Kind.FUNC_PROTO, 1), 0, 0, 1)],
    "struct within itself: refused": [(1, info(Kind.STRUCT, 1), 4, 0, 1, 0)],
    "padding of 4 GiB: endless text": [(1, info(Kind.STRUCT), size) for size in (0x0FFFFFFF,) * 9],
    "prototypes by the thousand in each other: exponential text": [
        (0, info(Kind.FUNC_PROTO, 2), 0, 0, i, 0, i) for i in range(50)
    ]
    + [(1, info(Kind.TYPEDEF), 50)],
}


@pytest.mark.parametrize("types", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_libbpf_cannot_write_as_c_is_an_error(types: list[tuple[int, ...]]) -> None:
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(ObjectFormatError, match="libbpf cannot write these types as C: "):
        Btf(raw_btf(types, b"\0x\0")).to_c()
    assert os.listdir("/proc/self/fd") == descriptors
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_types_that_do_not_parse_are_an_error_with_its_offset_before_libbpf_sees_them() -> None:
    with pytest.raises(ObjectFormatError, match="unknown kind 20") as caught:
        Btf(raw_btf([(0, info(20), 0)])).to_c()
    assert caught.value.offset == 24


def test_flipped_bytes_are_c_or_an_error() -> None:
    data = compile_bpf(SOURCE).btf
    chance = random.Random(2)
    outcomes = set()
    for _ in range(100):
        damaged = bytearray(data)
        damaged[chance.randrange(24, len(data))] ^= 1 << chance.randrange(8)
        try:
            outcomes.add(Btf(bytes(damaged)).to_c()[:8])
        except ObjectFormatError:
            outcomes.add("error")
    assert outcomes == {"#ifndef ", "error"}


# ---- files ---------------------------------------------------------------------------------------


@pytest.fixture(params=["little", "big"])
def compiled(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, bytes]:
    """A BPF object of either byte order, and the BTF in it."""
    found = compile_bpf(SOURCE, request.param)
    (tmp_path / "prog.bpf.o").write_bytes(found.elf)
    return tmp_path / "prog.bpf.o", found.btf


def test_from_an_object_and_from_its_raw_btf(compiled: tuple[Path, bytes]) -> None:
    path, data = compiled
    raw = path.with_suffix(".btf")
    raw.write_bytes(data)
    texts = {Btf.from_file(source).to_json() for source in (path, str(path), os.fsencode(raw))}
    assert texts == {Btf(data).to_json()}
    assert repr(Btf.from_file(path)) == f"<Btf of {path}>"


def host_elf(folder: Path, **sections: bytes) -> Path:
    """A relocatable of this machine with these sections: what a vmlinux or a module looks like."""
    path = folder / "host.o"
    subprocess.run(["gcc", "-x", "c", "-c", "-", "-o", path], input=b"int x = 1;", check=True)
    for name, contents in sections.items():
        (folder / "section").write_bytes(contents)
        name = "." + name.replace("_", ".")
        change = f"--add-section={name}={folder / 'section'}"
        subprocess.run(["objcopy", change, path], check=True)
    return path


def test_from_a_vmlinux_reads_no_more_than_it_needs(tmp_path: Path) -> None:
    path = host_elf(tmp_path, BTF=compile_bpf(SOURCE).btf)
    os.truncate(path, 4 << 30)  # a hole after the end
    tracemalloc.start()
    btf = Btf.from_file(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert btf["struct event"].size
    assert peak < 1 << 20


def test_from_a_module_with_its_base(tmp_path: Path) -> None:
    base = raw_btf([(1, info(Kind.INT), 4, 32)], b"\0int\0")
    own = raw_btf([(5, info(Kind.STRUCT, 1), 4, 1, 1, 0)], b"own\0")
    path = host_elf(tmp_path, BTF=own)
    with pytest.raises(ObjectFormatError, match=r"host\.o, .*a split BTF.*needs the base"):
        Btf.from_file(path)
    split = Btf.from_file(path, base=Btf(base))
    assert str(split["struct own"]) == "struct own"
    assert len(split) == 3
    path = host_elf(tmp_path, BTF=own, BTF_base=base)
    assert Btf.from_file(path)["int"].id == 1


def test_what_holds_no_btf_is_an_error_with_its_path(tmp_path: Path) -> None:
    path = host_elf(tmp_path)
    wrong = tmp_path / "wrong"
    for contents, message in (
        (path.read_bytes(), "no section .BTF: .*clang -g.*CONFIG_DEBUG_INFO_BTF"),
        (b"", "not an ELF file"),
        (b"#include <stdio.h>", "not an ELF file: it starts with 23 69 6e 63"),
        (b"\x7fELF", "not an ELF file"),
        (path.read_bytes()[:100], "cut off"),
        (path.read_bytes()[:4] + b"\1" + path.read_bytes()[5:], "not a 64-bit ELF file"),
        (b"\x1f\x8b\x08\0", r"compressed \(gzip\); decompress it"),
        (b"\xfd7zXZ\0", r"compressed \(xz\)"),
        (b"\x9f\xeb", "a header of 24 bytes"),
    ):
        wrong.write_bytes(contents)
        with pytest.raises(ObjectFormatError, match=message) as caught:
            Btf.from_file(wrong)
        assert caught.value.path == str(wrong)
    with pytest.raises(ObjectFormatError, match="no regular file"):
        Btf.from_file(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ObjectFormatError, match="no regular file"):
        Btf.from_file(tmp_path / "fifo")
    with pytest.raises(ObjectNotFoundError, match="missing"):
        Btf.from_file(tmp_path / "missing")


def test_damage_that_shows_later_has_the_path_too(tmp_path: Path) -> None:
    path = tmp_path / "bad.btf"
    path.write_bytes(raw_btf([(0, info(Kind.PTR), 9)]))
    pointer = Btf.from_file(path)[1]
    assert isinstance(pointer, btf_module.Pointer)
    with pytest.raises(ObjectFormatError, match=f"{path}, offset 0x20: "):
        pointer.target  # noqa: B018


def test_every_truncation_of_an_object_is_an_error_or_whole(tmp_path: Path) -> None:
    found = compile_bpf(SOURCE)
    path = tmp_path / "cut.bpf.o"
    for length in range(0, len(found.elf), 29):
        path.write_bytes(found.elf[:length])
        with pytest.raises(ObjectFormatError):
            Btf.from_file(path)


def test_lookup(btf: Btf) -> None:
    assert btf["u32"].kind is Kind.TYPEDEF
    assert btf["unsigned int"].kind is Kind.INT
    assert btf["struct declared"].kind is Kind.FWD
    assert btf["union declared_union"].kind is Kind.FWD
    assert btf["struct event"] is btf.find("event") is btf[btf["struct event"].id]
    assert btf.find("event", Kind.VAR) is btf["event"]
    assert btf[0].kind is Kind.VOID
    assert "struct event" in btf
    assert "union event" not in btf
    assert "union declared" not in btf
    assert "" not in btf
    assert "u32\0" not in btf
    assert "\ud800" not in btf
    assert len(btf) - 1 in btf
    assert len(btf) not in btf
    assert [found.id for found in btf] == list(range(len(btf)))


def test_missing_names_are_suggested(btf: Btf) -> None:
    with pytest.raises(NotFoundError, match="'struct event'"):
        btf["struct evnt"]
    with pytest.raises(NotFoundError, match="'enum color'"):
        btf["color"]
    with pytest.raises(NotFoundError, match="'u32'"):
        btf["u23"]
    with pytest.raises(NotFoundError, match="no union named 'numbr'; did you mean 'number'"):
        btf.find("numbr", Kind.UNION)
    with pytest.raises(NotFoundError, match=f"ids 0 to {len(btf) - 1}"):
        btf[len(btf)]
    with pytest.raises(NotFoundError):
        btf[-1]


@pytest.mark.parametrize(
    ("key", "why"), [(0, "no value"), ("struct declared", "not defined"), ("event", "variable")]
)
def test_what_has_no_size_says_why(btf: Btf, key: int | str, why: str) -> None:
    with pytest.raises(LayoutError, match=why):
        btf[key].size  # noqa: B018


def test_everything_can_be_read_and_found(btf: Btf) -> None:
    read_everything(btf)
    for found in list(btf)[1:]:
        assert not found.name or btf.find(found.name, found.kind)


def test_split_btf_continues_its_base() -> None:
    base = Btf(raw_btf([(1, info(Kind.INT), 4, 32)], b"\0int\0"))
    split = Btf(
        raw_btf(
            [
                (5, info(Kind.STRUCT, 1), 4, 1, 1, 0),  # struct own { int int; }
                (0, info(Kind.PTR), 2),
                (1, info(Kind.TYPEDEF), 1),  # typedef int int
            ],
            b"own\0",
        ),
        base,
    )
    assert (len(base), len(split)) == (2, 5)
    own = split["struct own"]
    assert isinstance(own, btf_module.Composite)
    assert own.id == 2
    assert own.members[0].type is base[1] is split[1]
    assert own.members[0].name == "int"
    assert str(split[3]) == "struct own *"
    assert split["int"] is base["int"]
    assert split.find("int").kind is Kind.TYPEDEF
    assert "struct own" not in base
    read_everything(split)


def test_a_base_of_the_other_byte_order_is_refused() -> None:
    base = Btf(raw_btf([], byteorder="big"))
    with pytest.raises(ObjectFormatError, match="little-endian, and its base is not"):
        Btf(raw_btf([], b""), base)


def test_bitfields_of_old_btf_are_in_the_integer() -> None:
    btf = Btf(
        raw_btf(
            [
                (1, info(Kind.INT), 4, 2 << 16 | 3),  # 3 bits from bit 2
                (1, info(Kind.STRUCT, 1), 4, 1, 1, 8),
            ],
            b"\0x\0",
        )
    )
    struct_x = btf["struct x"]
    assert isinstance(struct_x, btf_module.Composite)
    assert (struct_x.members[0].bit_offset, struct_x.members[0].bitfield_size) == (10, 3)


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"", 0),
        (b"\x9f\xeb\x01", 3),
        (b"\x7fELF" + bytes(60), 0),
        (b"\x9f\xeb\x02" + bytes(30), 2),
        (struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 23, 0, 0, 0, 1) + b"\0", 4),
        (struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 4, 0, 1) + b"\0", 8),
        (struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 1, 0, 0, 1) + b"\0", 8),
        (struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 0, 0, 2) + b"\0", 16),
        (raw_btf([], b""), 24),
        (raw_btf([], b"a\0"), 24),
        (raw_btf([], b"\0a"), 25),
        (raw_btf([(0, info(Kind.INT), 4)]), 24),
        (raw_btf([(0,)]), 24),
        (raw_btf([(0, info(Kind.STRUCT, 65535), 4)]), 24),
        (raw_btf([(0, info(Kind.PTR), 0), (0, info(20), 0)]), 36),
        (raw_btf([(1, info(Kind.PTR), 0)]), 24),
        (raw_btf([(0, info(Kind.PTR), 9)]), 32),
        (raw_btf([(0, info(Kind.CONST), 1)]), 24),
        (raw_btf([(0, info(Kind.PTR), 1)]), 24),
        (raw_btf([(0, info(Kind.ARRAY), 0, 1, 1, 2)]), 24),
        (raw_btf([(0, info(Kind.FUNC_PROTO, 2), 1, 0, 1, 0, 1)]), 24),
        (raw_btf([(0, info(Kind.FUNC, 7), 0)]), 28),
        (raw_btf([(0, info(Kind.DATASEC, 1), 0, 1, 0, 0)]), 36),
    ],
    ids=str,
)
def test_damage_is_an_error_with_its_offset(data: bytes, offset: int) -> None:
    with pytest.raises(ObjectFormatError) as caught:
        read_everything(Btf(data))
    assert caught.value.offset == offset


def test_endless_chains_are_errors() -> None:
    btf = Btf(raw_btf([(0, info(Kind.CONST), 1), (0, info(Kind.ARRAY), 0, 2, 1, 1)]))
    for chain in (lambda: btf[1].resolve(), lambda: btf[1].size, lambda: btf[2].size):
        with pytest.raises(ObjectFormatError, match="more than 64"):
            chain()


def readable(data: bytes) -> bool:
    try:
        read_everything(Btf(data))
    except ObjectFormatError:
        return False
    return True


def test_every_truncation_is_an_error() -> None:
    data = compile_bpf(SOURCE).btf
    assert readable(data)
    assert not any(readable(data[:length]) for length in range(len(data)))


def test_every_shorter_list_of_types_is_an_error_or_whole() -> None:
    data = compile_bpf(SOURCE).btf
    (length,) = struct.unpack_from("<I", data, 12)
    for shorter in range(length):
        readable(data[:12] + struct.pack("<I", shorter) + data[16:])


def test_flipped_bytes_raise_nothing_else() -> None:
    data = compile_bpf(SOURCE).btf
    chance = random.Random(1)
    for _ in range(500):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(len(data))] = chance.choice([0, 1, 255, chance.randrange(256)])
        readable(bytes(damaged))


def test_kernel(kernel: Btf) -> None:
    task = kernel["struct task_struct"]
    assert isinstance(task, btf_module.Composite)
    members = {member.name: member.type for member in task.members}
    assert str(members["comm"]) == "char[16]"
    assert members["pid"] is kernel["pid_t"]
    assert members["pid"].resolve() is kernel["int"]
    with pytest.raises(NotFoundError, match="'struct task_struct'"):
        kernel["struct task_strct"]
    assert sum(1 for found in kernel if str(found)) == len(kernel)
