# SPDX-License-Identifier: BSD-2-Clause
"""Bad input and wrong use: each has its typed error, told in one screen with a hint, that pickles.

The errors come from files that are no objects, objects that libbpf or this kernel refuses, pins
where none can be, missing privileges, and use after a load, a failure or close.  That nothing of it
leaves anything behind is checked by the fixture nothing_left.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import pickle
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, MappingView
from functools import partial

import pybpf
import pytest
from bad_objects import (
    AS_NOBODY,
    AS_TRACER,
    LEGACY_MAPS,
    MODULE,
    ONE_MAP,
    PLAIN,
    WITHOUT_BPFFS,
    compile_bpf,
    compile_native,
    pybpf_command,
)
from pybpf import Link, Map, MapType, Program

pytestmark = pytest.mark.native

SCREEN_LINES, SCREEN_COLUMNS = 24, 200
CUTS = 200


def assert_fits_a_screen(text):
    lines = text.splitlines()
    assert 0 < len(lines) <= SCREEN_LINES, text
    assert max(map(len, lines)) <= SCREEN_COLUMNS, text


def public_attributes(error):
    names = [name for name in dir(error) if not name.startswith("_") and hasattr(error, name)]
    return {name: getattr(error, name) for name in names if not callable(getattr(error, name))}


def assert_pickles(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert public_attributes(again) == public_attributes(error)


def assert_told_well(error, kind, *words):
    """``error`` is exactly a ``kind``, and its text fits a screen and matches all of ``words``.

    One of ``words`` is what the call was about, another what its user can do.
    """
    text = str(error)
    assert type(error) is kind, repr(error)
    assert_fits_a_screen(text)
    for word in words:
        assert re.search(word, text), f"{word!r} is not in: {text}"
    if isinstance(error, pybpf.KernelError):
        assert error.operation in text
        assert error.target in text
        assert error.errno_name in text
        assert not error.errno_name.isdigit(), "an errno that no reader knows"
    assert_pickles(error)


# ---- files that are no objects -------------------------------------------------------------------


def no_such_file(folder):
    return folder / "absent.bpf.o"


def a_folder(folder):
    (folder / "folder.bpf.o").mkdir()
    return folder / "folder.bpf.o"


def a_device(folder):
    return "/dev/null"


def an_empty_file(folder):
    (folder / "empty.bpf.o").touch()
    return folder / "empty.bpf.o"


def a_text(folder):
    (folder / "text.bpf.o").write_text("int main(void) { return 0; }\n")
    return folder / "text.bpf.o"


def an_object_for_this_machine(folder):
    return compile_native(folder)


def llvm_bitcode(folder):
    return compile_bpf(folder, "bitcode", PLAIN, "-emit-llvm")


def a_map_without_btf(folder):
    return compile_bpf(folder, "no_btf", ONE_MAP, debug=False)


def a_legacy_maps_section(folder):
    return compile_bpf(folder, "legacy", LEGACY_MAPS)


NO_OBJECTS = [
    (no_such_file, pybpf.ObjectNotFoundError, "No such file"),
    (a_folder, pybpf.ObjectFormatError, "folder"),
    (a_device, pybpf.ObjectFormatError, "no regular file"),
    (an_empty_file, pybpf.ObjectFormatError, "empty"),
    (a_text, pybpf.ObjectFormatError, "text.*clang .*-target bpf"),
    (an_object_for_this_machine, pybpf.ObjectFormatError, "ELF file for .*clang -target bpf"),
    (llvm_bitcode, pybpf.ObjectFormatError, "bitcode.*without -emit-llvm"),
    (a_map_without_btf, pybpf.ObjectFormatError, r"BTF[\s\S]*clang.* -g\b"),
    (a_legacy_maps_section, pybpf.ObjectFormatError, r"legacy[\s\S]*\.maps\b"),
]
each_that_is_no_object = pytest.mark.parametrize(
    ("make", "kind", "words"), NO_OBJECTS, ids=[make.__name__ for make, *_ in NO_OBJECTS]
)


@each_that_is_no_object
def test_what_is_no_object_is_refused_as_such(tmp_path, make, kind, words):
    path = make(tmp_path)
    with pytest.raises(pybpf.Error) as caught:
        pybpf.open(path)
    assert_told_well(caught.value, kind, re.escape(str(path)), words)


@each_that_is_no_object
@pytest.mark.parametrize("command", ["inspect", "load"])
def test_the_commands_tell_of_what_is_no_object(tmp_path, command, make, kind, words):
    path = make(tmp_path)
    done = pybpf_command(command, path)
    assert (done.returncode, done.stdout) == (1, "")
    assert_fits_a_screen(done.stderr)
    assert str(path) in done.stderr
    assert re.search(words, done.stderr)


def test_bytes_that_are_no_object_are_refused_without_a_path():
    with pytest.raises(pybpf.Error) as caught:
        pybpf.open(b"\x7fELF")
    assert_told_well(caught.value, pybpf.ObjectFormatError, "<bytes>", "cut off")
    assert caught.value.path is None


def test_an_object_without_maps_needs_no_btf(tmp_path):
    with pybpf.load(compile_bpf(tmp_path, "plain", PLAIN, debug=False)) as obj:
        assert obj.btf is None
        assert obj.programs["accept_none"].loaded


def test_a_file_name_that_is_no_text_is_a_file_name(bpf_object, tmp_path):
    path = str(tmp_path / "\udcff.bpf.o")
    data = bpf_object("everything").read_bytes()
    with open(path, "wb") as file:
        file.write(data)
    with pybpf.open(path) as obj:
        assert obj.path == path
    assert pybpf_command("inspect", path).returncode == 0


@pytest.fixture
def cut_files(bpf_object, tmp_path):
    """One whole object, cut at CUTS places that are evenly spread."""
    data = bpf_object("everything").read_bytes()
    paths = [tmp_path / f"{number:03}.bpf.o" for number in range(CUTS)]
    for number, path in enumerate(paths):
        path.write_bytes(data[: len(data) * number // CUTS])
    return paths


def test_an_object_cut_anywhere_is_refused(cut_files):
    for path in cut_files:
        with pytest.raises(pybpf.Error) as caught:
            pybpf.open(path)
        assert_told_well(
            caught.value, pybpf.ObjectFormatError, re.escape(str(path)), "cut off|empty"
        )


def test_inspect_tells_of_every_cut_object_and_ends_well(cut_files):
    done = pybpf_command("inspect", "--json", *cut_files)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["object"] for each in found] == list(map(str, cut_files))
    assert {each["error"]["type"] for each in found} == {"ObjectFormatError"}
    assert (done.returncode, done.stderr) == (1, "")


# ---- objects of another machine ------------------------------------------------------------------


def test_a_big_endian_object_can_be_looked_at_but_not_loaded(tmp_path):
    foreign = {"little": "bpfeb", "big": "bpfel"}[sys.byteorder]
    path = compile_bpf(tmp_path, "foreign", ONE_MAP, target=foreign)
    if pybpf.libbpf_version() < (1, 6):  # refuses to open them
        with pytest.raises(pybpf.Error) as caught:
            pybpf.open(path)
        assert_told_well(caught.value, pybpf.ObjectFormatError, "foreign", "endian")
        return
    with pybpf.open(path) as obj:
        assert obj.byte_order != sys.byteorder
        assert obj.programs["look_up"].insn_count > 0
        assert obj.maps["counts"].value_size == 8
        with pytest.raises(pybpf.Error) as caught:
            obj.load()
        assert_told_well(
            caught.value, pybpf.ObjectFormatError, re.escape(str(path)), "endian.*-target bpf"
        )
    (line,) = pybpf_command("inspect", "--json", path).stdout.splitlines()
    assert json.loads(line)["endianness"] != sys.byteorder
    assert pybpf_command("load", path).returncode == 1


# ---- objects that this kernel refuses ------------------------------------------------------------

REFUSED = [
    (
        "unknown_section",
        pybpf.LoadError,
        "program",
        "homeless",
        r"no_such_kind/hook[\s\S]*\nhint: ",
    ),
    ("no_license", pybpf.VerifierError, "verifier", "prints", r"GPL[\s\S]*\nhint: .*license"),
    ("refused", pybpf.VerifierError, "verifier", "unchecked", r"\*value \+= 1[\s\S]*\nhint: "),
    (
        "missing_field",
        pybpf.RelocationError,
        "relocation",
        "reads_future",
        r"struct task_struct.*no_such_field[\s\S]*\nhint: .*bpf_core_field_exists",
    ),
    ("huge_map", pybpf.LoadError, "map", None, r"'huge'[\s\S]*\nhint: .*(memory|max_entries)"),
]
each_refused = pytest.mark.parametrize(
    ("name", "kind", "stage", "program", "words"), REFUSED, ids=[name for name, *_ in REFUSED]
)


@each_refused
def test_what_the_kernel_refuses_is_explained(bpf_object, name, kind, stage, program, words):
    with pytest.raises(pybpf.Error) as caught:
        pybpf.load(bpf_object(name))
    error = caught.value
    assert_told_well(error, kind, name, words)
    assert (error.stage, error.program) == (stage, program)
    assert error.log
    assert "BTF LOAD LOG" not in str(error), "what libbpf tried and got over is not why it failed"


@each_refused
@pytest.mark.parametrize("options", [(), ("--check",), ("--no-attach",)], ids=" ".join)
def test_the_command_tells_what_the_kernel_refuses(
    bpf_object, options, name, kind, stage, program, words
):
    done = pybpf_command("load", *options, bpf_object(name))
    assert (done.returncode, done.stdout) == (1, "")
    assert_fits_a_screen(done.stderr)
    assert re.search(words, done.stderr)


@pytest.mark.parametrize(
    ("btf", "words"),
    [("text", "EHDR|ELF|BTF"), ("folder", "folder|directory|regular")],
)
def test_a_btf_file_that_is_none_is_named(bpf_object, tmp_path, btf, words):
    path = tmp_path / btf
    if btf == "text":
        path.write_text("no types here\n")
    else:
        path.mkdir()
    with pytest.raises(pybpf.Error) as caught:
        pybpf.load(bpf_object("everything"), btf=path)
    assert_told_well(caught.value, pybpf.LoadError, re.escape(str(path)), words, "\nhint: ")
    assert caught.value.stage == "btf"


def test_a_missing_btf_file_is_named(bpf_object, tmp_path):
    path = tmp_path / "absent"
    with pytest.raises(pybpf.Error) as caught:
        pybpf.open(bpf_object("pinned"), btf=path)
    assert_told_well(caught.value, pybpf.ObjectNotFoundError, re.escape(str(path)))


# ---- wrong words on the command line -------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--var", "step23=1"), "variable.*'step23'.*did you mean 'step32'"),
        (("--var", "step8=256"), "step8.*256.*0 to 255"),
        (("--var", "step8=-1"), "step8.*-1.*0 to 255"),
        (("--var", "negative=0x80000000"), "negative.*2147483647"),
        (("--var", "step8=many"), "step8.*'many'"),
        (("--var", "enabled=2"), "enabled.*'2'.*true"),
        (("--var", "label=far too long a label"), "label.*12"),
        (("--var", "limits=1,2"), "limits.*3 elements"),
        (("--var", "limits=1,2,x"), "limits.*'x'"),
        (("--var", "step8"), "step8.*NAME=VALUE"),
        (("--map", "count.max_entries=4"), "map.*'count'.*did you mean 'counts'"),
        (("--map", "counts.max_entries=0"), "counts.*between 1 and"),
        (("--map", "counts.max_entries=4294967296"), "counts.*between 1 and"),
        (("--map", "counts.max_entries=some"), "counts.*'some'"),
        (("--map", "counts.key_size=8"), "counts.*max_entries"),
        (("--map", "counts=8"), "counts.*max_entries"),
        (("--only", "on_exek"), "program.*'on_exek'.*did you mean 'on_exec'"),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_a_wrong_setting_is_wrong_usage(bpf_object, options, words):
    done = pybpf_command("load", "--check", *options, bpf_object("everything"))
    assert (done.returncode, done.stdout) == (2, "")
    assert_fits_a_screen(done.stderr)
    assert re.search(words, done.stderr), done.stderr


@pytest.mark.parametrize(
    ("what", "name"), [("maps", "count"), ("programs", "on_exek"), ("variables", "step23")]
)
def test_an_unknown_name_suggests_the_right_one(bpf_object, what, name):
    with pybpf.open(bpf_object("everything")) as obj, pytest.raises(pybpf.Error) as caught:
        getattr(obj, what)[name]
    assert_told_well(caught.value, pybpf.NotFoundError, repr(name), "did you mean")


# ---- no privilege --------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--check",), ("--no-attach",)], ids=" ".join)
@pytest.mark.parametrize("name", ["everything", "no_license", "pinned", "congestion", "huge_map"])
def test_load_as_nobody_lacks_privilege(bpf_object, name, options):
    done = pybpf_command("load", *options, bpf_object(name), prefix=AS_NOBODY)
    assert (done.returncode, done.stdout) == (3, "")
    assert_fits_a_screen(done.stderr)
    assert re.search(f"{name}[\\s\\S]*EPERM[\\s\\S]*\nhint: .*CAP_BPF.*root", done.stderr)


def test_unload_as_nobody_lacks_privilege(bpf_object, bpffs):
    folder = bpffs / "kept"
    assert pybpf_command("load", "--pin", folder, bpf_object("everything")).returncode == 0
    done = pybpf_command("unload", folder, prefix=AS_NOBODY)
    assert pybpf_command("unload", folder).returncode == 0
    assert (done.returncode, done.stdout) == (3, "")
    assert_fits_a_screen(done.stderr)
    assert str(folder) in done.stderr


# what it raises comes back pickled
RAISE = """
import pickle, sys, pybpf
from pybpf import Link, Map, MapType, Program
try:
    {call}
except pybpf.Error as error:
    sys.stdout.buffer.write(pickle.dumps(error))
"""


def raised_by(call, *arguments, prefix=()):
    """The pybpf error that the Python text ``call`` raises in a process of its own."""
    words = [
        *prefix,
        sys.executable,
        "-W",
        "error",
        "-c",
        RAISE.format(call=call),
        *map(str, arguments),
    ]
    done = subprocess.run(words, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout, f"{call} raises nothing"
    return pickle.loads(done.stdout)


@pytest.mark.parametrize(
    "call",
    [
        "pybpf.load(sys.argv[1])",
        "Map.create(MapType.HASH, key_size=4, value_size=4, max_entries=1)",
        "Map.from_id(1)",
        "Program.from_id(1)",
        "Map.open_pinned(sys.argv[2])",
    ],
)
def test_the_library_as_nobody_lacks_privilege(bpf_object, bpffs, call):
    with Map.create(MapType.ARRAY, key_size=4, value_size=4, max_entries=1) as other:
        other.pin(bpffs / "map")
        error = raised_by(call, bpf_object("everything"), bpffs / "map", prefix=AS_NOBODY)
        other.unpin(bpffs / "map")
    assert isinstance(error, PermissionError)
    assert_told_well(error, pybpf.PrivilegeError, "uid 65534", "\nhint: .*root")


# ---- some privileges -----------------------------------------------------------------------------

IN_USER_NAMESPACE = ("unshare", "--user", "--map-root-user")
OF_PRIVILEGES = r"CAP_|uid \d|lacks|root\b|privilege"


@pytest.mark.parametrize("name", ["retarget", "typed"])
def test_tracing_takes_no_more_than_cap_bpf_and_cap_perfmon(bpf_object, name):
    done = pybpf_command("load", "--check", "--json", bpf_object(name), prefix=AS_TRACER)
    assert (done.returncode, done.stderr) == (0, "")
    done = pybpf_command("load", "--check", bpf_object("everything"), prefix=AS_TRACER)
    assert (done.returncode, done.stdout) == (3, "")
    assert re.search("hint: uid 65534 lacks CAP_NET_ADMIN:", done.stderr), "two programs need it"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("refused", pybpf.VerifierError), ("missing_field", pybpf.RelocationError)],
)
def test_who_may_trace_is_not_told_of_privileges_where_the_program_is_wrong(bpf_object, name, kind):
    error = raised_by("pybpf.load(sys.argv[1])", bpf_object(name), prefix=AS_TRACER)
    assert_told_well(error, kind, name, "\nhint: ")
    assert not re.search(OF_PRIVILEGES, str(error))


FROZEN = """
    with Map.create(MapType.HASH, key_size=4, value_size=4, max_entries=1, name="ice") as ice:
        ice.freeze()
        {change}
"""


@pytest.mark.parametrize("change", ["ice[1] = 2", "ice.put(1, 2)", "del ice[1]"])
def test_who_may_trace_is_told_that_a_map_is_frozen(change):
    error = raised_by(FROZEN.format(change=change), prefix=AS_TRACER)
    assert_told_well(error, pybpf.KernelError, "'ice'", "\nhint: .*frozen")
    assert not re.search(OF_PRIVILEGES, str(error))


@pytest.mark.parametrize("name", ["everything", "retarget", "pinned"])
@pytest.mark.requires("user_namespaces")
def test_capabilities_of_a_user_namespace_do_not_count(bpf_object, name):
    done = pybpf_command("load", bpf_object(name), prefix=IN_USER_NAMESPACE)
    assert (done.returncode, done.stdout) == (3, "")
    assert_fits_a_screen(done.stderr)
    assert re.search("hint: CAP_BPF.* of a user namespace do.* not count", done.stderr)


@pytest.mark.requires("user_namespaces")
def test_the_library_says_that_capabilities_of_a_user_namespace_do_not_count(bpf_object):
    for call in ("pybpf.load(sys.argv[1])", "Map.from_id(1)"):
        error = raised_by(call, bpf_object("retarget"), prefix=IN_USER_NAMESPACE)
        assert_told_well(error, pybpf.PrivilegeError, "\nhint: CAP_.*user namespace.*not count")


# ---- wrong moment --------------------------------------------------------------------------------


def test_a_second_load_is_refused(bpf_object):
    with pybpf.load(bpf_object("everything")) as obj:
        with pytest.raises(pybpf.Error) as caught:
            obj.load()
        assert_told_well(
            caught.value, pybpf.StateError, "load: .*'everything' is loaded", "open the file again"
        )
        assert obj.state == "loaded"
        assert obj.programs["on_exec"].loaded


def test_a_load_after_a_failed_one_is_refused(bpf_object):
    with pybpf.open(bpf_object("refused")) as obj:
        with pytest.raises(pybpf.VerifierError):
            obj.load()
        with pytest.raises(pybpf.Error) as caught:
            obj.load()
        assert_told_well(
            caught.value, pybpf.StateError, "load: .*'refused' is failed", "open the file again"
        )


def test_a_load_after_close_is_refused(bpf_object):
    obj = pybpf.open(bpf_object("everything"))
    obj.close()
    with pytest.raises(pybpf.Error) as caught:
        obj.load()
    assert_told_well(caught.value, pybpf.ClosedError, "load: .*'everything' is closed")


@pytest.mark.parametrize(
    ("what", "use"),
    [
        ("attach", lambda obj: obj.attach()),
        ("read events", lambda obj: obj.events()),
        ("map 'counts'", lambda obj: obj.maps["counts"][1]),
        ("map 'counts'", lambda obj: len(obj.maps["counts"])),
        ("map 'counts'", lambda obj: obj.maps["counts"].id),
        ("program 'on_exec'", lambda obj: obj.programs["on_exec"].attach()),
        ("program 'on_exec'", lambda obj: obj.programs["on_exec"].tag),
    ],
)
@pytest.mark.parametrize("state", ["open", "failed"])
def test_what_needs_a_loaded_object_says_so(bpf_object, state, what, use):
    with pybpf.open(bpf_object("everything")) as obj:
        if state == "failed":
            fail_to_load(obj)
        with pytest.raises(pybpf.Error) as caught:
            use(obj)
        then = {"open": r"call load\(\) first", "failed": "open the file again"}[state]
        assert_told_well(caught.value, pybpf.StateError, what, rf"after load\(\).*is {state}", then)


def fail_to_load(obj):
    obj.maps["counts"].max_entries = 2**32 - 1
    with pytest.raises(pybpf.LoadError):
        obj.load()


# ---- use after close -----------------------------------------------------------------------------

# Tried after close() are all methods and properties, also those that are added later.
LIFE = {
    *("__init__", "__new__", "__del__", "__init_subclass__", "__subclasshook__"),
    *("__getattribute__", "__class__", "__dir__", "__sizeof__", "__format__"),
    *("__reduce__", "__reduce_ex__", "__getstate__"),
}
NEVER_REFUSED = {"__repr__", "__str__", "__hash__", "closed", "state"}
# what only the kernel or libbpf can tell must not be made up
NEVER_ANSWERED = {
    pybpf.Map: {"fileno", "id", "info", "lookup", "lookup_bytes", "__getitem__", "__len__"},
    pybpf.Program: {"fileno", "id", "info", "tag", "insns"},
    pybpf.Link: {"fileno", "id", "info"},
    pybpf.Reader: {"fileno", "read", "read_nowait", "read_batch", "poll", "drain", "get"},
    pybpf.Section: {"raw", "__getitem__"},
}
# refused before and after close alike
ALWAYS_REFUSED = {
    (pybpf.Object, "kconfig"): pybpf.NotFoundError,
    (pybpf.Section, "__delitem__"): pybpf.LayoutError,
    (pybpf.Reader, "__next__"): StopIteration,
    (pybpf.Reader, "__anext__"): StopAsyncIteration,
    # by what Arguments has for them
    (pybpf.ObjectProgram, "attach_perf_event"): ValueError,
    (pybpf.ObjectProgram, "attach_perf_events"): ValueError,
    (pybpf.ObjectProgram, "attach_usdt"): pybpf.NotFoundError,
    (pybpf.Program, "attach_cgroup"): pybpf.AttachError,
    (pybpf.Program, "attach_perf_event"): ValueError,
    (pybpf.Program, "attach_perf_events"): ValueError,
}


CLOSED_SOCKET = socket.socket()
CLOSED_SOCKET.close()


class Arguments:
    """Values for parameters and properties, by their names."""

    def __init__(self, key, live_map, path):
        path = str(path)
        self.values = {"key": key, "name": key or "on_exec", "value": 1, "data": b""}
        self.values |= {"other": live_map, "fields": ("type",), "path": path}
        self.values |= {"callback": list.append}
        self.values |= {"keys": [key], "values": [1], "entries": {key: 1}, "stack_id": 1}
        self.values |= {"map": live_map, "ops": live_map, "device": "lo", "direction": "ingress"}
        self.values |= {"binary": sys.executable, "function": "main", "functions": ["main"]}
        self.values |= {"symbols": ["main"]}
        self.values |= {"provider": "a", "category": "sched", "cgroup": "/", "sock": CLOSED_SOCKET}
        self.values |= {"program": live_map, "target": live_map, "family": socket.AF_INET}
        self.values |= {"hook": pybpf.NetfilterHook.FORWARD}
        self.values |= {"event": pybpf.PerfEvent.software(pybpf.PerfSoftware.CPU_CLOCK)}
        self.properties = {"inner_map": live_map, "pin_path": path, "raw": b""}

    def call(self, method):
        """The method called with what it cannot be called without; what iterates is exhausted."""
        positional, keywords = [], {}
        for parameter in inspect.signature(method).parameters.values():
            optional = parameter.default is not parameter.empty
            if optional or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            assert parameter.name in self.values, f"Arguments has no {parameter.name} for {method}"
            if parameter.kind is parameter.KEYWORD_ONLY:
                keywords[parameter.name] = self.values[parameter.name]
            else:
                positional.append(self.values[parameter.name])
        result = method(*positional, **keywords)
        if inspect.iscoroutine(result):
            return asyncio.run(result)
        return list(result) if isinstance(result, (Iterator, MappingView)) else result


def uses_of(thing, arguments):
    """Everything that can be done with ``thing``: (name, function) pairs."""
    own = {name for kind in type(thing).__mro__[:-1] for name in vars(kind)}
    public = {name for name in dir(thing) if not name.startswith("_")}
    special = {name for name in own if name.startswith("__") and name.endswith("__")}
    for name in sorted(public | special - LIFE):
        declared = inspect.getattr_static(type(thing), name, None)
        if isinstance(declared, (classmethod, staticmethod)):
            continue  # makes another one
        if isinstance(declared, property) and declared.fset is not None:
            value = arguments.properties.get(name, 1)
            yield f"{name} =", partial(setattr, thing, name, value)
        if callable(declared):
            yield name, lambda name=name: arguments.call(getattr(thing, name))
        elif isinstance(declared, property) or name in public:
            yield name, partial(getattr, thing, name)


def listed(table, thing):
    """The entries of ``table`` for the classes of ``thing``."""
    return set().union(*(names for kind, names in table.items() if isinstance(thing, kind)))


def problem_of(thing, name, use):
    """What is wrong with how a closed ``thing`` takes one use; None where all is well."""
    try:
        result = use()
    except pybpf.StateError as error:
        assert_fits_a_screen(str(error))
        assert_pickles(error)
        return f"raises {error!r}" if name in NEVER_REFUSED else None
    except Exception as error:
        allowed = ALWAYS_REFUSED.get((type(thing), name))
        return None if type(error) is allowed else f"raises {error!r}"
    return f"answers {result!r}" if name in listed(NEVER_ANSWERED, thing) else None


PARTS = {
    "object": (lambda obj: obj, None),
    "map": (lambda obj: obj.maps["counts"], 1),
    "queue": (lambda obj: obj.maps["queue"], None),
    "ring buffer": (lambda obj: obj.maps["readings"], None),
    "map of a section": (lambda obj: obj.rodata.map, 0),
    "program": (lambda obj: obj.programs["on_exec"], None),
    "rodata": (lambda obj: obj.rodata, "step8"),
    "bss": (lambda obj: obj.bss, "runs"),
    "variables": (lambda obj: obj.variables, "step8"),
    "maps": (lambda obj: obj.maps, "counts"),
    "programs": (lambda obj: obj.programs, "on_exec"),
}


def use_once(obj):
    """Fill whatever is kept after its first use."""
    dict(obj.variables)
    repr(obj.rodata)
    if obj.state == "loaded":
        dict(obj.maps["counts"])
        obj.programs["on_exec"].info()


@pytest.fixture
def live_map():
    with Map.create(MapType.HASH, key_size=4, value_size=8, max_entries=8) as bpf_map:
        yield bpf_map


@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
@pytest.mark.parametrize("state", ["open", "loaded", "failed"])
@pytest.mark.parametrize("part", PARTS)
def test_no_part_of_a_closed_object_can_be_used(bpf_object, live_map, bpffs, part, state, used):
    obj = pybpf.open(bpf_object("everything"))
    get, key = PARTS[part]
    if state == "loaded":
        obj.load()
    elif state == "failed":
        fail_to_load(obj)
    if used:
        use_once(obj)
    thing = get(obj)
    obj.close()
    assert_cannot_be_used(thing, Arguments(key, live_map, bpffs / "pin"))


def assert_cannot_be_used(thing, arguments):
    found = {name: problem_of(thing, name, use) for name, use in uses_of(thing, arguments)}
    assert len(found) > 5
    problems = {name: problem for name, problem in found.items() if problem}
    assert not problems, f"of a closed {type(thing).__name__}: {problems}"


@pytest.mark.parametrize("by", ["itself", "its object"])
@pytest.mark.parametrize("kind", ["link", "reader"])
def test_no_closed_link_or_reader_can_be_used(bpf_object, live_map, bpffs, kind, by):
    with pybpf.load(bpf_object("everything")) as obj:
        made = {"link": obj.programs["on_exec"].attach, "reader": partial(obj.events, "readings")}
        thing = made[kind]()
        (thing if by == "itself" else obj).close()
        assert_cannot_be_used(thing, Arguments(None, live_map, bpffs / "pin"))


PINNED = {
    Map: lambda obj: obj.maps["counts"],
    Program: lambda obj: obj.programs["on_exec"],
    Link: lambda obj: obj.attach()[0],
}


@pytest.mark.parametrize("kind", PINNED)
def test_no_closed_handle_of_a_pin_can_be_used(bpf_object, live_map, bpffs, kind):
    path = bpffs / "pin"
    with pybpf.load(bpf_object("everything")) as obj:
        PINNED[kind](obj).pin(path)
    thing = kind.open_pinned(path)
    thing.close()
    try:
        assert_cannot_be_used(thing, Arguments(1 if kind is Map else None, live_map, path))
        assert path.exists(), "a closed handle removes pins"
    finally:
        path.unlink(missing_ok=True)


# ---- what is no descriptor, and what nobody closes -----------------------------------------------


@pytest.mark.parametrize("kind", [Map, Program])
@pytest.mark.parametrize("fd", [9999, -1, 2**31, 2**40, -(2**70)])
def test_what_is_no_descriptor_is_told(kind, fd):
    with pytest.raises(pybpf.Error) as caught:
        kind.from_fd(fd)
    assert_told_well(caught.value, pybpf.KernelError, f"use fd {fd}: EBADF")


@pytest.mark.parametrize("kind", [Map, Program])
def test_a_descriptor_of_something_else_is_told_and_stays_open(kind, tmp_path):
    with open(tmp_path / "file", "wb") as file:
        with pytest.raises(pybpf.Error) as caught:
            kind.from_fd(file.fileno())
        assert_told_well(caught.value, pybpf.LayoutError, f"fd {file.fileno()} is no ", "file")
        file.write(b"data")


# Python tells of a warning that is an error in a __del__, and goes on.
COLLECTED = """
import gc, os, sys, pybpf
from pybpf import Link, Map, MapType, Program, Reader

def make():
    {make}

def count():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))

with pybpf.load(sys.argv[1]) as kept:
    Reader(kept.maps["readings"]).close()
    (link,) = kept.attach()
    link.pin(sys.argv[2])
    before = count()
    make()
    left = count() - before
    link.unpin(sys.argv[2])
print("left open:", left)
"""


@pytest.mark.parametrize(
    ("make", "what"),
    [
        ("Map.create(MapType.HASH, key_size=4, value_size=4, max_entries=1, name='lost')", "lost"),
        ("Map.from_fd(kept.maps['counts'].fileno())", "map of fd"),
        ("Program.from_id(kept.programs['on_exec'].id)", "program of id"),
        ("Link.open_pinned(sys.argv[2])", "link pinned at"),
        ("Reader(kept.maps['readings'])", "Reader of readings"),
        ("pybpf.open(sys.argv[1])", "object 'everything'"),
        ("pybpf.load(sys.argv[1])", "object 'everything'"),
        ("obj = pybpf.load(sys.argv[1]); obj.attach(); obj.events()", "object 'everything'"),
    ],
)
def test_what_is_collected_is_closed_though_the_warning_is_an_error(bpf_object, bpffs, make, what):
    words = [sys.executable, "-W", "error", "-c", COLLECTED.format(make=make)]
    words += [bpf_object("everything"), bpffs / "link"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "left open: 0\n"
    assert re.search(f"ResourceWarning: unclosed .*{what}", done.stderr)


# ---- pins where none can be ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", PINNED)
@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("outside", "\nhint: .*not on a bpffs; one is mounted at "),
        ("taken", "\nhint: .*is taken"),
        ("missing/pin", "\nhint: there is no folder .*missing"),
        ("with.dot", "\nhint: .*dot"),
    ],
)
def test_a_pin_where_none_can_be_is_refused(bpf_object, bpffs, tmp_path, kind, place, words):
    path = (tmp_path if place == "outside" else bpffs) / place
    with pybpf.load(bpf_object("everything")) as obj:
        if place == "taken":
            obj.maps["levels"].pin(path)
        with pytest.raises(pybpf.Error) as caught:
            PINNED[kind](obj).pin(path)
        if place == "taken":
            obj.maps["levels"].unpin(path)
    assert_told_well(caught.value, pybpf.PinError, "pin ", re.escape(str(path)), words)


@pytest.mark.parametrize("kind", [Map, Program, Link])
@pytest.mark.parametrize(
    ("place", "words"),
    [("nothing", "nothing is pinned"), ("file", "no BPF pin"), ("folder", "no BPF pin")],
)
def test_what_is_no_pin_cannot_be_opened(tmp_path, bpffs, kind, place, words):
    path = {"nothing": bpffs / "nothing", "file": tmp_path / "file", "folder": bpffs}[place]
    if place == "file":
        path.touch()
    with pytest.raises(pybpf.Error) as caught:
        kind.open_pinned(path)
    assert_told_well(
        caught.value, pybpf.PinError, "open", re.escape(str(path)), f"\nhint: .*{words}"
    )


@pytest.mark.parametrize("place", ["outside", "missing"])
def test_a_map_pinned_by_name_where_none_can_be_is_refused(bpf_object, bpffs, tmp_path, place):
    root = {"outside": tmp_path, "missing": bpffs / "missing/folder"}[place]
    with pytest.raises(pybpf.Error) as caught:
        pybpf.load(bpf_object("pinned"), pin_root=root)
    words = {"outside": "not on a bpffs", "missing": "there is no folder"}[place]
    assert_told_well(
        caught.value, pybpf.PinError, re.escape(f"{root}/shared"), f"\nhint: .*{words}"
    )


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("outside", "not on a bpffs"),
        ("missing/pin", "no folder"),
        ("taken", "taken"),
        ("with.dot", "dot"),
    ],
)
def test_the_command_refuses_to_pin_where_it_cannot(
    bpf_object, bpffs, tmp_path, live_map, place, words
):
    folder = (tmp_path if place == "outside" else bpffs) / place
    if place == "taken":
        live_map.pin(folder)
    done = pybpf_command("load", "--pin", folder, bpf_object("everything"))
    if place == "taken":
        live_map.unpin(folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert_fits_a_screen(done.stderr)
    assert str(folder) in done.stderr
    assert re.search(f"\nhint: .*{words}", done.stderr), done.stderr


def test_the_command_unloads_no_folder_that_it_did_not_make(bpffs, tmp_path):
    (bpffs / "other").mkdir()
    for folder in (tmp_path, tmp_path / "missing", bpffs, bpffs / "missing"):
        done = pybpf_command("unload", folder)
        assert (done.returncode, done.stdout) == (1, "")
        assert re.search(f"{re.escape(str(folder))}[\\s\\S]*\nhint: ", done.stderr)
    (bpffs / "other").rmdir()


def test_a_bpffs_may_be_mounted_anywhere(live_map, tmp_path):
    folder = tmp_path / "b\u00e9 pf"
    folder.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", folder], check=True)
    try:
        live_map.pin(folder / "pin")
        with pytest.raises(pybpf.PinError, match="is taken"):
            live_map.pin(folder / "pin")
        with pytest.raises(pybpf.PinError, match=f"mounted at .*{folder}"):
            live_map.pin(tmp_path / "pin")
        live_map.unpin(folder / "pin")
    finally:
        subprocess.run(["umount", folder], check=True)


MOUNT = "\nhint: .*mount -t bpf bpf /sys/fs/bpf"


def test_the_command_tells_how_to_mount_a_missing_bpffs(bpf_object):
    words = ("load", "--pin", "/sys/fs/bpf/everything", bpf_object("everything"))
    done = pybpf_command(*words, command=(*WITHOUT_BPFFS, *MODULE))
    assert (done.returncode, done.stdout) == (1, "")
    assert_fits_a_screen(done.stderr)
    assert re.search(f"/sys/fs/bpf/everything[\\s\\S]*{MOUNT}", done.stderr)


@pytest.mark.parametrize(
    "call",
    [
        "with pybpf.load(sys.argv[1]) as obj: obj.maps['counts'].pin('/sys/fs/bpf/pin')",
        "with pybpf.load(sys.argv[1]) as obj: obj.programs['on_exec'].pin('/sys/fs/bpf/pin')",
        "with pybpf.load(sys.argv[1]) as obj: obj.attach()[0].pin('/sys/fs/bpf/pin')",
        "pybpf.load(sys.argv[2])",
        "Map.open_pinned('/sys/fs/bpf/pin')",
        "Link.open_pinned('/sys/fs/bpf/pin')",
    ],
    ids=["map", "program", "link", "map pinned by name", "open map", "open link"],
)
def test_the_library_tells_how_to_mount_a_missing_bpffs(bpf_object, call):
    error = raised_by(call, bpf_object("everything"), bpf_object("pinned"), prefix=WITHOUT_BPFFS)
    assert_told_well(error, pybpf.PinError, "pin", "/sys/fs/bpf/", MOUNT)


def test_two_incompatible_maps_are_compared(bpf_object, live_map):
    with pybpf.open(bpf_object("everything")) as obj:
        with pytest.raises(pybpf.Error) as caught:
            obj.maps["levels"].reuse(live_map)
        assert_told_well(caught.value, pybpf.PinError, "'levels'", "value_size +4 +8")


# ---- all errors pickle ---------------------------------------------------------------------------


def test_every_class_of_error_pickles_with_all_it_holds():
    errors = [
        error
        for error in vars(pybpf).values()
        if inspect.isclass(error) and issubclass(error, pybpf.Error)
    ]
    assert pybpf.VerifierError in errors
    for kind in errors:
        names = [*kind._fields, *dict(getattr(kind, "_more", ()))]
        values = {name: 2 if name in ("errno", "offset") else f"<{name}>" for name in names}
        error = kind(**values)
        assert_pickles(error)
