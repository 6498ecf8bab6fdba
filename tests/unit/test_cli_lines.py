# SPDX-License-Identifier: BSD-2-Clause
"""Records as lines of the command: JSON, text, and templates."""

from __future__ import annotations

import argparse
import json
from types import SimpleNamespace

import pytest
from btf_sources import compile_bpf, info, raw_btf
from pybpf.btf import Btf, Kind
from pybpf.cli.lines import JSON, TEXT, line_makers, parse_format
from pybpf.cli.output import UsageError
from pybpf.cli.stream import statistics_line
from pybpf.errors import LayoutError
from pybpf.layout import encode

SOURCE = """
enum kind { NONE, OPEN = 1, CLOSE = -2, ALSO_OPEN = 1 };
struct header { unsigned int pid; enum kind kind; };
struct event {
    struct header hdr;
    unsigned long long args[2];
    char comm[16];
    char words[2][4];
    _Bool flag;
    signed char small;
    unsigned int low : 4, high : 28;
    union { unsigned int number; unsigned char bytes[4]; };
    void *address;
    double real;
    enum kind kinds[2];
    struct header headers[1];
} event;
struct other { unsigned long long when; char comm[8]; } other;
struct tail { unsigned int length; unsigned short codes[]; } tail;
struct mapped { unsigned int map; } mapped;
int number;
enum kind kind;
"""

VALUES = {
    "hdr": {"pid": 7, "kind": 1},
    "args": [1, 2**64 - 1],
    "comm": "sh",
    "words": ["ab", "cd"],
    "flag": True,
    "small": -3,
    "low": 5,
    "high": 6,
    "number": 0x04030201,
    "address": 0xFFFF800000000000,
    "real": 1.5,
    "kinds": [-2, 9],
    "headers": [{"pid": 1, "kind": 0}],
}


@pytest.fixture(scope="module")
def btf() -> Btf:
    return Btf(compile_bpf(SOURCE).btf)


@pytest.fixture
def event(btf):
    return btf["struct event"]


def line(record_type, value, form):
    """The line of a record of a ring called "events"."""
    record = value if record_type is None else encode(record_type, value)
    form = parse_format(form)
    return line_makers({"events": record_type}, form)["events"](record)


# ---- JSON ----------------------------------------------------------------------------------------


def test_json_has_every_member_as_what_it_is(event):
    found = line(event, VALUES, JSON)
    assert found.endswith("}\n")
    assert found.count("\n") == 1
    assert json.loads(found) == {"map": "events", "event": VALUES | {"bytes": [1, 2, 3, 4]}}


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_json_says_null_for_floats_that_it_does_not_have(event, number):
    read = json.loads(line(event, VALUES | {"real": float(number)}, JSON))
    assert read["event"]["real"] is None
    assert read["event"]["hdr"] == {"pid": 7, "kind": 1}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("unsigned long long", 2**64 - 1, 2**64 - 1),
        (None, b"\x00\xff", "00ff"),
        ("double", float("nan"), None),
    ],
)
def test_json_of_records_that_are_no_structs(btf, name, value, expected):
    record_type = None if name is None else btf[name]
    assert json.loads(line(record_type, value, JSON)) == {"map": "events", "event": expected}


def test_json_has_the_elements_behind_a_struct(btf):
    makers = line_makers({"events": btf["struct tail"]}, JSON)
    assert json.loads(makers["events"](bytes([2, 0, 0, 0, 5, 0, 6, 0])))["event"] == {
        "length": 2,
        "codes": [5, 6],
    }


def test_what_python_has_no_number_for_is_in_hex():
    half = Btf(raw_btf([(1, info(Kind.FLOAT), 2)], b"\0half\0"))[1]
    assert json.loads(line(half, b"\1\xff", JSON))["event"] == "01ff"
    assert line(half, b"\1\xff", TEXT) == "events: 01ff\n"


@pytest.mark.parametrize("form", [JSON, TEXT, "{comm}"])
def test_a_record_that_is_too_short_is_an_error_and_a_longer_one_is_not(btf, form):
    (make,) = line_makers({"events": btf["struct other"]}, parse_format(form)).values()
    with pytest.raises(LayoutError, match="record of events: struct other takes 16 bytes, 15 are"):
        make(bytes(15))
    assert make(bytes(20)) == make(bytes(16))


# ---- text ----------------------------------------------------------------------------------------


def test_text_names_enumerators_wherever_they_are(event):
    assert line(event, VALUES, TEXT) == (
        "events: hdr={pid=7 kind=OPEN} args=[1, 18446744073709551615] comm=sh words=[ab, cd] "
        "flag=True small=-3 low=5 high=6 number=67305985 bytes=[1, 2, 3, 4] "
        "address=18446603336221196288 real=1.5 kinds=[CLOSE, 9] headers=[{pid=1 kind=NONE}]\n"
    )


def test_text_keeps_to_its_line_and_commands_no_terminal(btf):
    other = {"when": 1, "comm": b"a\n\x1b[\xc3\xa9\xff"}
    assert line(btf["struct other"], other, TEXT) == "events: when=1 comm=a\\n\\x1b[é�\n"
    assert line(btf["struct other"], other, "{comm}") == "a\\n\\x1b[é�\n"


def test_text_of_records_that_are_no_structs(btf):
    assert line(None, b"\1\2\3\4\5", TEXT) == "events: 01 02030405\n"
    assert line(None, bytes(65), TEXT).endswith("00000000 ... (65 bytes)\n")
    assert line(btf["int"], -1, TEXT) == "events: -1\n"
    assert line(btf["enum kind"], 1, TEXT) == "events: OPEN\n"


# ---- templates -----------------------------------------------------------------------------------

TEMPLATES = [
    ("{comm} {small:>5}|", "sh    -3|"),
    ("{comm:>4}{comm:4}|", "  shsh  |"),
    ("{hdr.pid:03}/{args[1]:#x}", "007/0xffffffffffffffff"),
    ("{hdr.kind:>6} {hdr.kind:d} {hdr.kind:>4d}", "  OPEN 1    1"),
    ("{kinds[0]} {kinds[1]} {kinds[0]:+d}", "CLOSE 9 -2"),
    ("{headers[0].kind:.2}", "NO"),
    ("{flag} {flag:>6} {flag:d}", "True   True 1"),
    ("{low}{high} {number:#010x} {bytes[3]}", "56 0x04030201 4"),
    ("{address:x} {real:.3f}", "ffff800000000000 1.500"),
    ("{hdr} {kinds:>12} {words}", "{pid=7 kind=OPEN}   [CLOSE, 9] [ab, cd]"),
    ("{words[1]:>3}", " cd"),
    ("{{{map}}} {map:>7}", "{events}  events"),
    ("{small:9>4}|{real:01000.1f}", "99-3|" + "1.5".rjust(1000, "0")),
]


@pytest.mark.parametrize(("template", "expected"), TEMPLATES, ids=[each[0] for each in TEMPLATES])
def test_a_template_shows_members_in_pythons_formats(event, template, expected):
    assert line(event, VALUES, template) == expected + "\n"


def test_a_member_called_map_comes_before_the_rings_name(btf):
    assert line(btf["struct mapped"], {"map": 3}, "{map}") == "3\n"


def test_an_array_without_a_length_has_what_the_record_brings(btf):
    makers = line_makers({"events": btf["struct tail"]}, parse_format("{codes[1]:>4x}|{length}"))
    for data, expected in (
        ([2, 0, 0, 0, 5, 0, 10, 0], "   a|2\n"),
        ([1, 0, 0, 0, 5, 0], "   -|1\n"),
    ):
        assert makers["events"](bytes(data)) == expected


@pytest.mark.parametrize(
    ("spec", "expected"), [("", "-"), (":>4", "   -"), (":*^5,d", "**-**"), (":=+6x", "     -")]
)
def test_what_a_rings_records_lack_is_a_dash_as_wide(btf, event, spec, expected):
    types = {"events": event, "others": btf["struct other"], "raw": None, "ints": btf["int"]}
    makers = line_makers(types, parse_format(f"{{map}} {{hdr.pid{spec}}} {{comm:4}}|"))
    other = encode(types["others"], {"comm": "ls"})
    assert makers["others"](other) == f"others {expected} ls  |\n"
    assert makers["raw"](b"123") == f"raw {expected} -   |\n"
    assert makers["ints"](bytes(4)) == f"ints {expected} -   |\n"


UNKNOWN = [
    ("{com}", "did you mean 'comm'?"),
    ("{hdr.pdi}", "no member of struct header named 'pdi'; did you mean 'pid'?"),
    ("{args[2]}", r"unsigned long long\[2\] has no element \[2\]"),
    ("{comm[0]}", r"char\[16\] has no element \[0\]"),
    ("{hdr.pid.low}", "unsigned int has no members, and so no 'low'"),
    ("{hdr[0]}", r"struct header has no element \[0\]"),
]


@pytest.mark.parametrize(("template", "message"), UNKNOWN, ids=[each[0] for each in UNKNOWN])
def test_what_no_record_has_is_wrong_usage(event, template, message):
    with pytest.raises(UsageError, match=message):
        line_makers({"events": event, "raw": None}, parse_format(template))


def test_each_ring_is_told_of_with_what_it_has(btf):
    types = {"others": btf["struct other"], "raw": None, "mapped": btf["struct mapped"]}
    with pytest.raises(UsageError) as refused:
        line_makers(types, parse_format("{nope}"))
    assert str(refused.value).splitlines() == [
        "--format {nope}: no event has it",
        "  others: no member of struct other named 'nope'; there are: when, comm",
        "  raw: its events have no type; --type names one",
        "  mapped: no member of struct mapped named 'nope'; there are: map",
    ]


def test_a_template_without_rings_names_what_it_likes():
    assert line_makers({}, parse_format("{anything}")) == {}


@pytest.mark.parametrize(
    "template", ["{comm:d}", "{hdr.pid:c}", "{small:c}", "{hdr.pid:.3}", "{hdr:x}", "{map:d}"]
)
def test_a_format_that_does_not_fit_the_member_is_wrong_usage(event, template):
    with pytest.raises(UsageError, match=template.replace("{", "{{?")):
        line_makers({"events": event}, parse_format(template))


def test_a_format_that_does_not_fit_the_rings_name_is_wrong_usage():
    with pytest.raises(UsageError, match="map:d"):
        line_makers({"raw": None}, parse_format("{map:d}"))


@pytest.mark.parametrize(
    "form",
    [
        *("", "yaml", "pid", "{", "{pid", "pid}{pid}", "{}", "{0}", "{pid!r}", "{pid:{comm}}"),
        *("{a.}", "{pid:>999999999999}", "{pid:01001}", "{real:.1001f}", "{pid:9>1001}"),
        *("{pid:>٩٩٩٩}", f"{{pid:>{'9' * 5000}}}"),
    ],
)
def test_what_is_no_format_is_told(form):
    with pytest.raises(argparse.ArgumentTypeError, match=r"^'"):
        parse_format(form)


# ---- statistics ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("counts_lost", "lost"), [(True, "3 lost"), (False, "losses uncounted")])
def test_the_statistics_fit_a_line(counts_lost, lost):
    stats = SimpleNamespace(
        received=12, lost=3, counts_lost=counts_lost, backlog=64, backlog_highest=4096
    )
    expected = f"12 events, 6/s, {lost}, backlog 64 bytes, 4096 at most"
    assert statistics_line(stats, 5.6) == expected
