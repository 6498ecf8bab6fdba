# SPDX-License-Identifier: BSD-2-Clause
"""Variables: what Python writes the program reads, and the other way round, in place and live."""

from __future__ import annotations

import copy
import os
import signal
import threading
import time
from array import array
from enum import IntEnum
from functools import partial
from pathlib import Path

import pybpf
import pytest
from pybpf import layout
from pybpf.views import ArrayView, StructView
from test_concurrency import HANG_SECONDS, Worker, close_when_free

# their object has LINUX_KERNEL_VERSION
pytestmark = pytest.mark.requires("kernel_version")


def text(value):
    """What a value of a char array says, be it str or bytes."""
    value = value if isinstance(value, str) else bytes(value).decode()
    return value.rstrip("\0")


def read_all(obj):
    """What the program reads in its variables, the numbers signed where it makes them so."""
    assert obj.programs["read_all"].test_run(ctx=bytes(8)).retval == 40
    numbers = obj.maps["reports"][0].numbers
    return [number - (1 << 64) if number >> 63 else number for number in numbers]


def write_all(obj):
    assert obj.programs["write_all"].test_run(ctx=bytes(8)).retval == 0


@pytest.fixture
def opened(bpf_object):
    with pybpf.open(bpf_object("variables")) as obj:
        yield obj


@pytest.fixture
def loaded(bpf_object):
    with pybpf.load(bpf_object("variables")) as obj:
        yield obj


class Mode(IntEnum):
    OFF = 0
    FAST = 7


def write_from_python(obj):
    """A value of its own for each variable that the program tells of and Python may write."""
    cfg = obj.data.cfg
    cfg.pid = 42
    cfg.mode = "FAST"
    cfg.port = 443
    cfg.address = 0x0A0B0C0D
    cfg.strict = True
    cfg.offset = -300
    cfg.name = "xy"
    cfg.limits[3] = 7
    cfg.table[-1].kind = 8
    cfg.table[1].most = 9
    cfg.halves = [1, 2]
    cfg["asdict"] = 10
    cfg.inner = -11
    cfg.distance = "BEHIND"
    bits = obj.bss.bits
    bits.low, bits.middle, bits.high = 5, -33, 0x3FFFFF
    bits.wide, bits.mode = 1 << 39, Mode.FAST
    obj.data.record.tag, obj.data.record.value, obj.data.record.tail = 12, 1 << 63 - 1, 13
    obj.bss.hist[2][5] = 14
    obj.bss.counter = 15
    obj.data.names[1] = b"python"
    obj.sections[".data.custom"].custom = 16
    obj.sections[".data.custom"].custom_limits[1] = {"kind": 1, "most": 17}
    obj.sections[".bss.custom"].custom_counter = 18
    obj.sections[".data.custom"]["read_all.once"] = 19
    obj.data.own_only = 20
    obj.data.mode = "FAST"
    obj.data.negative = -21
    obj.data.network = 0x01020304
    obj.bss.small, obj.bss.medium = 255, 65535


WRITTEN = [
    *(42, 7, 443, 0x0A0B0C0D, 1, -300, ord("x"), ord("y"), 7, 8, 9, 1 + (2 << 32), 10, -11, -1),
    *(5, -33, 0x3FFFFF, 1 << 39, 7),
    *(12, 1 << 62, 13, 14, 15, ord("p"), 16, 17, 18),
    *(3, 5, 6),  # constants
    *(19, 20 + 10 + 200 + 3000, 7, -21, 0x01020304, 255 + 65535),
]


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_program_reads_what_python_writes(opened, when):
    if when == "before":
        write_from_python(opened)
        opened.load()
    else:
        opened.load()
        write_from_python(opened)
    assert read_all(opened)[:38] == WRITTEN


def test_constants_reach_the_program_and_are_frozen_by_load(opened):
    preset = opened.rodata.preset
    preset.limits[2] = 33
    preset.name = "changed"
    opened.rodata.wanted = 34
    opened.sections[".rodata.custom"].custom_constant = 35
    opened.load()
    assert read_all(opened)[29:32] == [33, 34, 35]
    for write in (
        partial(setattr, preset, "pid", 1),
        partial(preset.limits.__setitem__, 0, 1),
        partial(setattr, opened.rodata, "wanted", 1),
        partial(setattr, opened.rodata, "wanted", 1),  # when its memory is known
        partial(setattr, opened.variables["wanted"], "value", 1),
        partial(setattr, opened.sections[".rodata.custom"], "custom_constant", 1),
        partial(setattr, opened.rodata, "raw", opened.rodata.raw),
    ):
        with pytest.raises(pybpf.StateError, match=r"write \.rodata.*before load\(\)"):
            write()
        assert opened.rodata.wanted == 34
    assert preset.limits == [1, 2, 33, 4]
    assert text(preset.name) == "changed"


def test_python_reads_what_the_program_writes_live(loaded):
    data, bss, custom = loaded.data, loaded.bss, loaded.sections[".data.custom"]
    cfg, bits, record, hist = data.cfg, bss.bits, data.record, bss.hist
    assert (cfg.pid, cfg.limits[3], hist[2][5], record.value) == (10, 40, 0, 2)
    write_all(loaded)
    assert (cfg.pid, cfg.mode, cfg.port, cfg.address) == (4242, 7, 8080, 0x0A000001)
    assert (cfg.strict, cfg.offset, text(cfg.name)) == (True, -7, "program")
    assert cfg.limits == [10, 20, 30, 77]
    assert cfg.table[1] == {"kind": 8, "most": 88}
    assert (cfg.whole, cfg.halves, cfg["asdict"], cfg.inner) == (0x100000002, [2, 1], 9, -9)
    assert cfg.distance == -1
    assert (bits.low, bits.middle, bits.high) == (5, -33, 0x3FFFFF)
    assert (bits.wide, bits.mode) == (1 << 39, 7)
    assert record == {"tag": 11, "value": 1 << 60, "tail": 12}
    assert hist[2] == [0, 0, 0, 0, 0, 25, 0, 0]
    assert bss.counter == 1
    assert list(map(text, data.names)) == ["one", "second", "three"]
    assert (custom.custom, custom.custom_limits[1].most) == (70, 71)
    assert loaded.sections[".bss.custom"].custom_counter == 72
    assert (data.own_only, data.mode, data.distance, data.negative) == (73, 7, -1, -3)
    assert data.network == 0x01020304
    assert bss.seen is True
    assert bss.pointer > 1 << 63
    assert (bss.small, bss.medium) == (255, 65535)
    write_all(loaded)
    assert bss.counter == 2


def test_a_view_from_before_load_is_live_afterwards(opened):
    limits, row = opened.data.cfg.limits, opened.bss.hist[2]
    limits[0], row[0] = 1, 2
    opened.load()
    assert (limits[0], row[0]) == (1, 2)
    write_all(opened)
    assert (limits[3], row[5]) == (77, 25)
    limits[3] = 5
    assert read_all(opened)[8] == 5


# ---- views ---------------------------------------------------------------------------------------


def test_writing_a_member_touches_no_byte_beside_it(loaded):
    for section in (loaded.data, loaded.bss):
        section.raw = b"\xff" * len(section.raw)
    raw = {section.name: bytearray(section.raw) for section in (loaded.data, loaded.bss)}

    def write(section, variable, offset, size, write):
        write()
        start = section.variable(variable).offset + offset
        raw[section.name][start : start + size] = bytes(size)
        assert section.raw == raw[section.name], variable

    data, bss = loaded.data, loaded.bss
    cfg, config = data.cfg, layout._codec(data.variable("cfg").type).slots
    members = {"pid": 0, "port": 0, "strict": False, "name": "", "limits": [0] * 4, "inner": 0}
    for name, zero in members.items():
        slot = config[name]
        write(data, "cfg", slot.offset, slot.size, partial(setattr, cfg, name, zero))
    write(data, "cfg", config["table"].offset + 8, 1, partial(setattr, cfg.table[1], "kind", 0))
    write(data, "record", 1, 8, partial(setattr, data.record, "value", 0))
    write(bss, "hist", 8 * (8 + 3), 8, partial(bss.hist[1].__setitem__, 3, 0))
    write(bss, "hist", 8 * 2, 16, partial(bss.hist[0].__setitem__, slice(2, 4), [0, 0]))
    bss.bits.middle = 0
    start = bss.variable("bits").offset
    before = int.from_bytes(raw[bss.name][start : start + 16], "little")
    after = before & ~(0x7F << 3)
    raw[bss.name][start : start + 16] = after.to_bytes(16, "little")
    assert bss.raw == raw[bss.name]


def test_what_does_not_fit_is_refused_whole(loaded):
    cfg, before = loaded.data.cfg, loaded.data.raw
    for error, match, write in (
        (OverflowError, "config member 'pid'.*4294967296", partial(setattr, cfg, "pid", 1 << 32)),
        (OverflowError, "element 1.*-1", partial(cfg.limits.__setitem__, 1, -1)),
        (OverflowError, "element 3", partial(cfg.limits.__setitem__, slice(2, 4), [1, -1])),
        (OverflowError, "bits member 'low'.*3 bits", partial(setattr, loaded.bss.bits, "low", 8)),
        (pybpf.LayoutError, "member 'name'.*12 bytes", partial(setattr, cfg, "name", "x" * 13)),
        (pybpf.LayoutError, "member 'pid'", partial(setattr, cfg, "pid", "12")),
        (pybpf.LayoutError, "member 'mode'.*'FSAT'.*'FAST'", partial(setattr, cfg, "mode", "FSAT")),
        (pybpf.LayoutError, "4 elements", partial(setattr, cfg, "limits", [1])),
        (pybpf.LayoutError, "1 values for 2", partial(cfg.limits.__setitem__, slice(2), [1])),
        (pybpf.LayoutError, "'pdi'.*'pid'", partial(setattr, loaded.data, "cfg", {"pdi": 1})),
        (OverflowError, r"\.bss variable 'counter'", partial(setattr, loaded.bss, "counter", -1)),
        (pybpf.LayoutError, r"'counter'", partial(setattr, loaded.bss, "counter", 1.5)),
        (IndexError, "no element 4", partial(cfg.limits.__setitem__, 4, 0)),
        (IndexError, "no element -5", partial(cfg.limits.__getitem__, -5)),
        (AttributeError, "did you mean 'limits'", partial(setattr, cfg, "limit", 1)),
        (AttributeError, "did you mean 'limits'", partial(getattr, cfg, "limit")),
        (AttributeError, r"view\['asdict'\]", partial(setattr, cfg, "asdict", 1)),
        (pybpf.NotFoundError, "did you mean 'limits'", partial(cfg.__getitem__, "limit")),
        (pybpf.NotFoundError, "did you mean 'limits'", partial(cfg.__setitem__, "limit", 1)),
    ):  # fmt: skip
        with pytest.raises(error, match=match):
            write()
        assert loaded.data.raw == before
        assert loaded.bss.counter == 0


def test_a_struct_view_is_like_its_values(loaded):
    cfg, table = loaded.data.cfg, loaded.data.cfg.table
    assert isinstance(cfg, StructView)
    table[0] = (1, 2)
    assert table[0].asdict() == {"kind": 1, "most": 2}
    assert table[0] == {"kind": 1, "most": 2} != {"kind": 1}
    kept = table[0].copy()
    assert table[0] == kept == table[0]
    assert table[0] != table[1]
    table[1] = table[0]  # a view is a value, too
    assert table[0] == table[1] != loaded.sections[".data.custom"].custom_limits[1]
    table[1].most = 3
    assert table[0] != table[1]
    assert (kept.kind, kept.most) == (1, 2)
    table[0].most = 4
    assert kept.most == 2
    assert table[0] != kept
    assert table[0] != 1
    loaded.data.cfg = {"pid": 5, "table": [kept, table[0]]}
    assert (cfg.pid, cfg.limits, cfg.table[0].most, cfg.table[1].most) == (5, [0] * 4, 2, 4)
    assert "pid=5" in repr(cfg)
    assert "pid=5" in repr(loaded.variables["cfg"])
    assert {"pid", "halves", "inner", "copy"} <= set(dir(cfg))
    for refused in (hash, iter, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            refused(cfg)


def test_an_array_view_is_like_its_values(loaded):
    limits, hist, names = loaded.data.cfg.limits, loaded.bss.hist, loaded.data.names
    assert isinstance(limits, ArrayView)
    assert len(limits) == 4
    assert list(limits) == limits.copy() == [10, 20, 30, 40]
    assert limits == [10, 20, 30, 40] == limits
    assert limits == (10, 20, 30, 40)
    assert limits != [10, 20, 30] != limits
    assert limits != [10, 20, 30, 41]
    assert limits != "text"
    assert (limits[-1], limits[1:3], limits[::-2]) == (40, [20, 30], [40, 20])
    assert limits[4:] == []
    assert 30 in limits
    assert (limits.index(30), limits.count(10)) == (2, 1)
    limits[1:3] = [21, 31]
    limits[::-3] = (41, 11)
    assert list(reversed(limits)) == [41, 31, 21, 11]
    assert repr(limits) == "<ArrayView [11, 21, 31, 41]>"
    hist[1] = range_of_eight = list(range(8))
    assert [list(row) for row in hist] == [[0] * 8, range_of_eight, [0] * 8]
    assert hist == [[0] * 8, range_of_eight, [0] * 8]
    hist[2] = hist[1]
    assert hist[1:] == [range_of_eight, range_of_eight]
    hist[1:][0][7] = 70  # a slice of rows is a list of views
    assert hist[1][7] == 70
    assert names[0] == layout.decode(loaded.variables["names"].type, b"one".ljust(24, b"\0"))[0]
    names[0] = "exactly8"
    assert text(names[0]) == "exactly8"
    loaded.bss.hist = [[number] * 8 for number in range(3)]
    assert hist.copy() == [[0] * 8, [1] * 8, [2] * 8]
    loaded.bss.hist = array("Q", range(24)).tobytes()
    assert hist[2][7] == 23


def test_enumerators_and_numbers_are_one(loaded):
    data = loaded.data
    for value in (7, "FAST", Mode.FAST):
        data.mode = "OFF"
        assert data.mode == Mode.OFF
        data.mode = value
        assert data.mode == 7
        data.cfg.mode = value
        assert data.cfg.mode == 7
        loaded.bss.bits.mode = "OFF"
        loaded.bss.bits.mode = value
        assert loaded.bss.bits.mode == 7
    data.mode = 5  # programs combine them
    assert data.mode == 5
    data.distance = "FAR"
    assert data.distance == 1 << 40


# ---- obj.variables -------------------------------------------------------------------------------


def test_variables_tell_their_type_place_and_value(loaded):
    counter, cfg = loaded.variables["counter"], loaded.variables["cfg"]
    assert isinstance(counter, pybpf.GlobalVariable)
    assert (counter.name, counter.section.name, counter.size) == ("counter", ".bss", 8)
    assert (str(counter.type), str(cfg.type)) == ("__u64", "struct config")
    assert counter is loaded.bss.variable("counter")
    assert cfg.size == cfg.type.size == len(bytes(cfg.value.copy()))
    counter.value = 5
    assert counter.value == loaded.bss.counter == 5
    counter.value += 1
    assert loaded.bss.raw[counter.offset : counter.offset + 8] == (6).to_bytes(8, "little")
    assert repr(counter) == "<GlobalVariable 'counter' of .bss: __u64 = 6>"
    assert len(repr(loaded.variables["hist"])) < 200
    assert dict(loaded.bss)["counter"] == 6
    assert {name: variable.section.name for name, variable in loaded.variables.items()}.items() >= {
        ("preset", ".rodata"),
        ("cfg", ".data"),
        ("custom", ".data.custom"),
        ("custom_counter", ".bss.custom"),
        ("LINUX_KERNEL_VERSION", ".kconfig"),
    }
    assert len(loaded.variables) == sum(len(section) for section in loaded.sections.values())


def test_unknown_names_suggest(loaded):
    for use, error, match in (
        (lambda: loaded.variables["conter"], pybpf.NotFoundError, "did you mean 'counter'"),
        (lambda: loaded.bss.conter, AttributeError, "did you mean 'counter'"),
        (lambda: loaded.bss.variable("conter"), pybpf.NotFoundError, "did you mean 'counter'"),
        (lambda: loaded.sections[".data.costum"], pybpf.NotFoundError, "'.data.custom'"),
        (lambda: loaded.sections[".ksyms"], pybpf.NotFoundError, "no section named '.ksyms'"),
        (lambda: loaded.sections[".rodata.str1.1"].x, AttributeError, "no variable in .rodata.str"),
    ):
        with pytest.raises(error, match=match):
            use()
    assert "conter" not in loaded.bss
    assert "counter" in loaded.bss
    assert "counter" in dir(loaded.bss)


def test_variables_of_one_name_are_told_apart(bpf_object):
    linked = Path(bpf_object("variables")).read_bytes()
    linked = linked.replace(b"twin_b\0", b"twin_a\0").replace(b"twin_c\0", b"twin_a\0")
    with pybpf.open(linked) as obj:
        first, second = (name for name in obj.data if name.startswith("twin_a@"))
        with pytest.raises(pybpf.NotFoundError, match="twin_a"):
            obj.variables["twin_a"]
        custom = obj.sections[".data.custom"]
        assert (obj.data[first], obj.data[second], custom.twin_a) == (10, 200, 3000)
        obj.variables[f".data:{second}"].value = 400
        custom.twin_a = 5000
        obj.load()
        assert read_all(obj)[33] == 2 + 10 + 400 + 5000


def test_names_of_two_sections_are_told_apart(bpf_object):
    linked = Path(bpf_object("variables")).read_bytes().replace(b"twin_c\0", b"twin_a\0")
    with pybpf.open(linked) as obj:
        assert obj.data.twin_a == 10
        assert obj.variables[".data:twin_a"].value == 10
        assert obj.variables[".data.custom:twin_a"].value == 3000
        assert "twin_a" not in obj.variables


def test_an_object_without_btf_has_raw_sections_alone(bpf_object):
    stripped = Path(bpf_object("sections")).read_bytes().replace(b".BTF", b".XYZ")
    with pybpf.open(stripped) as obj:
        assert obj.btf is None
        assert dict(obj.bss) == {}
        obj.bss.raw = b"\x01" * len(obj.bss.raw)
        assert obj.bss.raw[:1] == b"\x01"
        with pytest.raises(AttributeError, match=r"no BTF: compile with clang -g, or use \.raw"):
            _ = obj.bss.zero


def test_kconfig_is_shown_and_never_written(bpf_object):
    release = Path("/proc/sys/kernel/osrelease").read_text().split(".")
    kconfig = 'CONFIG_PYBPF_TEST=42\nCONFIG_PYBPF_NAME="set"\n'
    with pybpf.open(bpf_object("variables"), kconfig=kconfig) as obj:
        assert "set by load()" in repr(obj.variables["LINUX_KERNEL_VERSION"])
        assert obj.kconfig.LINUX_KERNEL_VERSION == 0
        for _ in range(2):
            with pytest.raises(pybpf.StateError, match=r"write \.kconfig.*open\(kconfig="):
                obj.kconfig.CONFIG_PYBPF_TEST = 1
            if obj.state == "open":
                obj.load()
        version = obj.kconfig.LINUX_KERNEL_VERSION
        assert [version >> 16, version >> 8 & 255] == list(map(int, release[:2]))
        assert obj.kconfig.CONFIG_PYBPF_TEST == 42
        assert text(obj.kconfig.CONFIG_PYBPF_NAME) == "set"
        assert read_all(obj)[38] == version
    with pybpf.load(bpf_object("variables")) as obj:
        assert obj.kconfig.CONFIG_PYBPF_TEST == 0  # weak, and no kernel has it
        assert text(obj.kconfig.CONFIG_PYBPF_NAME) == ""


# ---- whose memory --------------------------------------------------------------------------------


def test_variables_of_a_map_that_was_there_before_are_its_own(bpf_object, bpffs):
    pin = bpffs / "bss"
    with pybpf.open(bpf_object("variables")) as first:
        first.bss.map.pin_path = pin
        first.load()
        first.bss.counter = 5
        with pybpf.open(bpf_object("variables")) as second:
            second.bss.map.pin_path = pin
            second.bss.counter = 1
            second.load()
            assert second.bss.counter == 5
            second.bss.hist[2][5] = 6
            assert first.bss.hist[2][5] == 6
            write_all(first)
            assert second.bss.counter == 6
        with pybpf.open(bpf_object("variables")) as third:
            third.bss.map.reuse(first.bss.map)
            third.load()
            assert third.bss.counter == 6
        assert first.bss.counter == 6
        first.bss.map.unpin(pin)


def test_memory_that_cannot_be_mapped_says_so(opened):
    opened.bss.counter = 3
    opened.bss.map.flags = 0
    opened.load()
    with pytest.raises(pybpf.StateError, match="cannot map"):
        _ = opened.bss.counter


def test_a_section_that_is_protected_by_its_flags_is_a_constant(opened):
    opened.sections[".bss.custom"].map.flags |= pybpf.MapFlags.RDONLY_PROG
    with pytest.raises(pybpf.VerifierError):  # write_all writes it
        opened.load()
    with pytest.raises(pybpf.StateError, match=r"write \.bss\.custom"):
        opened.sections[".bss.custom"].custom_counter = 1
    assert opened.sections[".bss.custom"].custom_counter == 0


def test_a_resized_section_keeps_its_values(opened):
    section = opened.sections[".bss.custom"]
    if pybpf.libbpf_version() < (1, 3):
        with pytest.raises(pybpf.NotSupportedError, match=r"since 1\.3"):
            section.map.value_size = 1 << 20
        return
    view = opened.data.cfg
    section.custom_counter = 9
    section.map.value_size = 1 << 20
    assert section.custom_counter == 9
    assert len(section.raw) == 1 << 20
    opened.load()
    assert read_all(opened)[28] == 9
    assert view.pid == 10


def test_a_section_has_one_entry(opened):
    with pytest.raises(ValueError, match="one entry, not 2"):
        opened.bss.map.max_entries = 2
    opened.bss.map.max_entries = 1
    opened.load()


@pytest.mark.parametrize("state", ["open", "loaded"])
def test_nothing_of_a_closed_object_is_touched(bpf_object, state):
    obj = pybpf.open(bpf_object("variables"))
    if state == "loaded":
        obj.load()
    cfg, limits, counter = obj.data.cfg, obj.data.cfg.limits, obj.variables["counter"]
    assert (cfg.pid, limits[0], counter.value) == (10, 10, 0)
    counter.value = 1
    obj.close()
    for use in (
        lambda: cfg.pid,
        lambda: cfg.limits,
        lambda: cfg.copy(),
        lambda: cfg == {"pid": 10},
        lambda: limits[0],
        lambda: limits[:],
        lambda: list(limits),
        lambda: counter.value,
        lambda: obj.bss.counter,
        lambda: obj.data.cfg,
        lambda: obj.data.raw,
        partial(setattr, cfg, "pid", 1),
        partial(setattr, cfg, "name", "x"),
        partial(limits.__setitem__, 0, 1),
        partial(setattr, counter, "value", 1),
        partial(setattr, obj.bss, "counter", 1),
        partial(setattr, obj.data, "raw", bytes(8)),
    ):
        with pytest.raises(pybpf.ClosedError):
            use()
    for closed in (cfg, limits, counter, obj.data):
        assert "closed" in repr(closed)


# ---- at the same time ----------------------------------------------------------------------------


TURNS = {0x1111111111111111, 0x2222222222222222}


def run_until(stop, program, repeat=2000):
    runs = 0
    while not stop.is_set():
        program.test_run(bytes(64), repeat=repeat)
        runs += repeat
    return runs


@pytest.mark.native
def test_no_number_is_ever_seen_half_written(loaded):
    stop, program = threading.Event(), loaded.programs["turn"]
    program.test_run(bytes(64))
    bss, hist, seen = loaded.bss, loaded.bss.hist, set()
    worker = Worker(partial(run_until, stop, program))
    begin = time.monotonic()
    while time.monotonic() < begin + 2 or len(seen) < 2:
        assert time.monotonic() < begin + HANG_SECONDS, f"only {seen} seen"
        for _ in range(500):
            seen |= {bss.counter, hist[1][1], list(hist[1])[1], hist.copy()[1][1]}
    stop.set()
    assert worker.outcome()[1] is None
    assert seen == TURNS


@pytest.mark.native
def test_what_a_program_counts_beside_a_member_is_not_lost(loaded):
    """A write that took more than its member along would put an old count back."""
    stop, program = threading.Event(), loaded.programs["count"]
    limits = loaded.data.cfg.limits
    limits[1] = 0
    worker = Worker(partial(run_until, stop, program, 100))
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        for number in range(500):
            limits[0], limits[2] = number, number
            loaded.data.cfg.offset = number
    stop.set()
    runs, error = worker.outcome()
    assert error is None
    assert limits[1] == runs * 1000 % (1 << 32)


@pytest.mark.usefixtures("switch_often")
def test_threads_that_set_bits_beside_each_other_lose_none(loaded):
    bits = loaded.bss.bits

    def toggle(name):
        for number in range(2000):
            setattr(bits, name, number % 2)
            assert getattr(bits, name) == number % 2

    workers = [Worker(partial(toggle, name)) for name in ("low", "middle", "high")]
    assert [worker.outcome()[1] for worker in workers] == [None] * 3


def use_until_refused(begun, use):
    while True:
        use()
        begun.set()


@pytest.mark.native
@pytest.mark.parametrize("state", ["open", "loaded"])
@pytest.mark.usefixtures("switch_often")
def test_close_under_use_is_busy_or_comes_between(bpf_object, state):
    for _ in range(20):
        obj = pybpf.open(bpf_object("variables"))
        if state == "loaded":
            obj.load()
        cfg, hist = obj.data.cfg, obj.bss.hist
        uses = (
            lambda obj=obj: obj.bss.counter,
            lambda obj=obj: setattr(obj.bss, "counter", 1),
            lambda hist=hist: hist.copy(),
            lambda cfg=cfg: setattr(cfg, "limits", [1, 2, 3, 4]),
        )
        begun = [threading.Event() for _ in uses]
        workers = [
            Worker(partial(use_until_refused, *each)) for each in zip(begun, uses, strict=True)
        ]
        for each in begun:
            assert each.wait(HANG_SECONDS)
        close_when_free(obj, state)
        for worker in workers:
            assert type(worker.outcome()[1]) is pybpf.ClosedError


@pytest.mark.native
@pytest.mark.usefixtures("switch_often")
def test_load_under_writers_freezes_constants_without_a_crash(bpf_object):
    for _ in range(20):
        with pybpf.open(bpf_object("variables")) as obj:
            begun = [threading.Event() for _ in range(2)]
            counts = [0]

            def count(obj=obj, counts=counts):
                obj.bss.counter = counts[0] + 1
                counts[0] += 1

            uses = (
                lambda obj=obj: setattr(obj.rodata, "wanted", 1),
                lambda obj=obj: setattr(obj.rodata.preset, "pid", 1),
            )
            workers = [
                Worker(partial(use_until_refused, *each)) for each in zip(begun, uses, strict=True)
            ]
            counting = Worker(lambda count=count: [count() for _ in range(3000)])
            for each in begun:
                assert each.wait(HANG_SECONDS)
            obj.load()
            for worker in workers:
                assert type(worker.outcome()[1]) is pybpf.StateError
            assert counting.outcome()[1] is None
            assert obj.bss.counter == counts[0]  # nothing was written into an image left behind
            assert read_all(obj)[30] == 1


@pytest.mark.native
@pytest.mark.usefixtures("switch_often")
def test_resizing_under_readers_moves_no_memory_from_under_them(bpf_object):
    with pybpf.open(bpf_object("variables")) as obj:
        section, stop = obj.sections[".bss.custom"], threading.Event()
        section.custom_counter = 9

        def read():
            while not stop.is_set():
                assert section.custom_counter == 9
                assert section.raw[:8] == (9).to_bytes(8, "little")

        workers = [Worker(read) for _ in range(2)]
        for number in range(300):
            try:
                section.map.value_size = 8 if number % 2 else 1 << 16
            except pybpf.NotSupportedError:
                assert pybpf.libbpf_version() < (1, 3)
        stop.set()
        assert [worker.outcome()[1] for worker in workers] == [None, None]


def test_interrupts_at_any_moment_leave_the_object_closable(bpf_object):
    """An access that Ctrl-C cuts off is no user of the object any more."""

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    caught = 0
    try:
        with pybpf.load(bpf_object("variables")) as obj:
            cfg, hist = obj.data.cfg, obj.bss.hist
            obj.bss.counter = 0
            for number in range(400):
                try:
                    signal.setitimer(signal.ITIMER_REAL, 1e-5 + number % 40 * 2e-6)
                    while True:
                        obj.bss.counter += 1
                        cfg.limits[3] = obj.bss.counter % 100
                        _ = hist.copy(), cfg.name, obj.bss.bits.low
                        obj.bss.bits.low = 3
                except KeyboardInterrupt:
                    caught += 1
                assert not obj._handle._users
            obj.close()
            assert obj.closed
    finally:
        signal.signal(signal.SIGALRM, before)
    assert caught == 400


@pytest.mark.native
def test_a_handler_that_closes_during_an_access_is_refused_or_comes_between(bpf_object):
    outcomes = []

    def close(*_):
        try:
            obj.close()
            outcomes.append("closed")
        except pybpf.BusyError:
            outcomes.append("busy")
            signal.setitimer(signal.ITIMER_REAL, 1e-5)

    before = signal.signal(signal.SIGALRM, close)
    try:
        for number in range(50):
            with pybpf.load(bpf_object("variables")) as obj:
                cfg = obj.data.cfg
                signal.setitimer(signal.ITIMER_REAL, 2e-5 + number * 1e-6)

                def use(obj=obj, cfg=cfg):
                    while True:
                        cfg.limits[3] = obj.bss.counter
                        obj.bss.counter = 1

                with pytest.raises(pybpf.ClosedError):
                    use()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert outcomes.count("closed") == 50


def test_a_forked_child_shares_the_memory(loaded):
    obj = loaded
    _ = obj.bss.counter
    child = os.fork()
    if not child:
        obj.bss.counter = 77
        obj.data.cfg.limits[3] = 78
        os._exit(obj.bss.counter - 77)
    assert os.waitpid(child, 0)[1] == 0
    assert (obj.bss.counter, obj.data.cfg.limits[3]) == (77, 78)
    assert read_all(obj)[24] == 77
