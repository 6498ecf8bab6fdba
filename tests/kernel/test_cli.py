# SPDX-License-Identifier: BSD-2-Clause
"""The command ``pybpf`` as its users meet it: processes of their own, their output and exit status.

The object WATCH is compiled here: it counts every program that starts on the machine, and for one
process id puts a record with all its variables into a ring buffer, so that what the command set is
seen in what it prints.
"""

from __future__ import annotations

import json
import re
import subprocess

import pybpf
import pytest
from bad_objects import (
    AS_NOBODY,
    MODULE,
    SCRIPT,
    assert_no_traceback,
    compile_bpf,
    pybpf_command,
)
from cli_process import json_lines
from pybpf import Map

pytestmark = pytest.mark.native

WATCH = """
enum mood { CALM = 1, LOUD = 2 };

struct event {
	unsigned int pid;
	enum mood mood;
	int number;
	_Bool flag;
	unsigned long long wide;
	char word[8];
	unsigned short list[3];
};

struct {
	__uint(type, 27); /* RINGBUF */
	__uint(max_entries, 4096);
	__type(value, struct event);
} events SEC(".maps");

struct {
	__uint(type, 2); /* ARRAY */
	__uint(max_entries, 1);
	__type(key, unsigned int);
	__type(value, unsigned long long);
} runs SEC(".maps");

struct {
	__uint(type, 1); /* HASH */
	__uint(max_entries, 8);
	__type(key, unsigned int);
	__type(value, unsigned int);
} resized SEC(".maps");

const volatile unsigned int only_pid = 0;
const volatile int number = 0;
const volatile _Bool flag = 0;
const volatile enum mood mood = CALM;
const volatile char word[8] = "none";
unsigned long long wide = 0;
unsigned short list[3] = {1, 2, 3};

SEC("tp/sched/sched_process_exec")
int on_exec(void *ctx)
{
	unsigned int zero = 0, pid = bpf_get_current_pid_tgid() >> 32;
	unsigned long long *count = bpf_map_lookup_elem(&runs, &zero);
	struct event event = {};
	int i;

	if (count)
		__atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
	if (pid != only_pid)
		return 0;
	event.pid = pid;
	event.mood = mood;
	event.number = number;
	event.flag = flag;
	event.wide = wide;
	for (i = 0; i < 8; i++)
		event.word[i] = word[i];
	for (i = 0; i < 3; i++)
		event.list[i] = list[i];
	bpf_ringbuf_output(&events, &event, sizeof(event), 0);
	return 0;
}

SEC("?raw_tp/sched_process_exit")
int on_exit(void *ctx)
{
	return 0;
}

SEC("socket")
int accept_none(void *ctx)
{
	return bpf_map_lookup_elem(&resized, &(unsigned int){0}) != 0;
}
"""

PROGRAM_KEYS = {"name", "section", "type", "type_id", "insns", "autoload"}
PROGRAM_KEYS |= {"attach_type", "attach_type_id"}
MAP_KEYS = {"name", "type", "type_id", "key_size", "value_size", "max_entries", "flags", "pinning"}
MAP_KEYS |= {"key_padding"}
CHECKED_KEYS = {"name", "loaded", "insns", "jited_size", "log_summary"}
ERROR_KEYS = {"type", "stage", "errno", "program", "message", "log"}


@pytest.fixture(scope="session")
def watch(tmp_path_factory):
    """The path of WATCH, compiled."""
    return compile_bpf(tmp_path_factory.mktemp("watch"), "watch", WATCH)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.bpf.o"
    path.write_text("no object\n")
    return path


# ---- load: telling -------------------------------------------------------------------------------


def test_load_prints_tables_attaches_and_detaches_after_the_duration(watch):
    done = pybpf_command("load", "--duration", "0.1", watch)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == [f"{watch}:", "loaded"]
    table = {row[0]: row for row in rows if row}
    assert " ".join(table["program"]) == "program type section attached to id verifier"
    assert " ".join(table["map"]) == "map type key value entries id pinned"
    hook = "tp/sched/sched_process_exec"
    assert table["on_exec"][1:5] == ["tracepoint", hook, "tracepoint", "sched/sched_process_exec"]
    assert table["on_exec"][5].isdigit()
    assert table["on_exec"][6].isdigit()
    assert table["accept_none"][1:4] == ["socket_filter", "socket", "-"]
    assert "on_exit" not in table
    assert table["runs"][1:5] == ["array", "4", "8", "1"]
    assert table["events"][1:5] == ["ringbuf", "0", "0", "4096"]
    assert "detached" in done.stdout.splitlines()[-1]


def test_without_attach_nothing_is_attached(watch):
    (found,) = json_lines(pybpf_command("load", "--no-attach", "--duration=0", "--json", watch))
    assert found["loaded"] is True
    assert all(program["attached"] == [] for program in found["programs"])
    (found,) = json_lines(pybpf_command("load", "--duration=0", "--json", watch))
    assert [program["name"] for program in found["programs"] if program["attached"]] == ["on_exec"]


def test_several_objects_are_loaded_together(watch, bpf_object):
    done = pybpf_command("load", "--duration=0", "--json", watch, bpf_object("everything"))
    assert (done.returncode, done.stderr) == (0, "")
    found = json_lines(done)
    assert [each["object"] for each in found] == [str(watch), str(bpf_object("everything"))]


def test_one_bad_object_takes_the_others_down_again(watch, bpf_object):
    done = pybpf_command("load", watch, bpf_object("refused"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "unchecked" in done.stderr


def test_what_is_printed_as_json_when_a_load_fails_is_json_too(bpf_object):
    done = pybpf_command("load", "--json", bpf_object("refused"))
    (found,) = json_lines(done)
    assert (done.returncode, done.stderr) == (1, "")
    assert found["loaded"] is False
    assert set(found["error"]) == ERROR_KEYS


@pytest.mark.parametrize("option", ["--check", "--no-attach"])
def test_verbose_shows_the_whole_log_of_a_refusal(bpf_object, option):
    brief = pybpf_command("load", option, bpf_object("refused"))
    whole = pybpf_command("load", option, "--verbose", bpf_object("refused"))
    assert (brief.returncode, whole.returncode) == (1, 1)
    assert "BEGIN PROG LOAD LOG" not in brief.stderr
    assert "BEGIN PROG LOAD LOG" in whole.stderr
    assert re.search(r"^processed \d+ insns", whole.stderr, re.MULTILINE)


@pytest.mark.parametrize("option", ["--check", "--duration=0"])
def test_the_log_level_is_the_verifiers(watch, option):
    quiet = pybpf_command("load", option, "--verbose", watch)
    loud = pybpf_command("load", option, "--verbose", "--log-level", "2", watch)
    assert (quiet.returncode, loud.returncode) == (0, 0)
    assert "R1=ctx()" not in quiet.stderr
    assert "R1=ctx()" in loud.stderr


# ---- load --check --------------------------------------------------------------------------------


def test_check_tells_of_every_file_and_goes_on_after_a_failure(watch, bpf_object, text):
    paths = [watch, bpf_object("refused"), text, bpf_object("missing_field"), watch]
    done = pybpf_command("load", "--check", "--json", *paths)
    assert (done.returncode, done.stderr) == (1, "")
    found = json_lines(done)
    assert [each["object"] for each in found] == list(map(str, paths))
    assert [each["loaded"] for each in found] == [True, False, False, False, True]
    for program in found[0]["programs"]:
        assert set(program) >= CHECKED_KEYS
        assert program["loaded"] is (program["name"] != "on_exit")
        assert program["insns"] > 0
        if program["loaded"]:
            assert program["jited_size"] > 0
    assert "error" not in found[0]
    kinds = ["VerifierError", "ObjectFormatError", "RelocationError"]
    for each, kind in zip(found[1:4], kinds, strict=True):
        assert set(each["error"]) == ERROR_KEYS
        assert each["error"]["type"] == kind
        assert each["error"]["message"]
    refused = found[1]["error"]
    assert (refused["stage"], refused["errno"], refused["program"]) == ("verifier", 13, "unchecked")
    assert "invalid mem access" in refused["log"]
    assert (found[2]["error"]["stage"], found[2]["error"]["errno"]) == (None, None)


def test_check_in_words_names_what_loads_and_what_does_not(watch, bpf_object):
    done = pybpf_command("load", "--check", watch, bpf_object("refused"))
    assert done.returncode == 1
    assert f"{watch}: loads" in done.stdout
    assert str(bpf_object("refused")) in done.stderr
    assert pybpf_command("load", "--check", watch).returncode == 0


def test_check_attaches_nothing_and_pins_nothing(watch, bpf_object, bpffs):
    done = pybpf_command("load", "--check", "--json", watch, bpf_object("pinned"))
    assert done.returncode == 0
    for found in json_lines(done):
        assert all(not program.get("attached") for program in found["programs"])
        assert all(not each.get("pinned") for each in found["maps"])


def test_a_program_can_be_loaded_alone(watch):
    (found,) = json_lines(pybpf_command("load", "--check", "--json", "--only", "on_exit", watch))
    assert [each["name"] for each in found["programs"] if each["loaded"]] == ["on_exit"]
    words = ("load", "--check", "--json", "--only", "on_exit", "--only", "accept_none", watch)
    (found,) = json_lines(pybpf_command(*words))
    assert [each["name"] for each in found["programs"] if each["loaded"]] == [
        "on_exit",
        "accept_none",
    ]


@pytest.mark.parametrize("number", ["64", "0x40"])
def test_a_map_can_be_made_larger(watch, number):
    words = ("load", "--check", "--json", "--map", f"resized.max_entries={number}", watch)
    (found,) = json_lines(pybpf_command(*words))
    assert {each["name"]: each["max_entries"] for each in found["maps"]}["resized"] == 64


def test_types_are_taken_from_a_btf_file(bpf_object):
    words = ("load", "--check", "--json", bpf_object("everything"), "--btf")
    (found,) = json_lines(pybpf_command(*words, "/sys/kernel/btf/vmlinux"))
    assert found["loaded"] is True


def test_a_btf_file_that_is_none_fails_typed(bpf_object, text):
    done = pybpf_command("load", "--check", "--json", bpf_object("everything"), "--btf", text)
    (found,) = json_lines(done)
    assert done.returncode == 1
    assert (found["error"]["type"], found["error"]["stage"]) == ("LoadError", "btf")
    assert str(text) in found["error"]["message"]


# ---- load: variables and events ------------------------------------------------------------------

SETTINGS = [
    ("number=-7", "number", -7),
    ("number=0x10", "number", 16),
    ("wide=0xffffffffffffffff", "wide", 2**64 - 1),
    ("flag=true", "flag", True),
    ("flag=no", "flag", False),
    ("word=hello", "word", "hello"),
    ("word=", "word", ""),
    ("list=7,0x8,65535", "list", [7, 8, 65535]),
    ("mood=LOUD", "mood", 2),
    ("mood=2", "mood", 2),
]


@pytest.mark.parametrize(("setting", "name", "value"), SETTINGS, ids=[each[0] for each in SETTINGS])
def test_a_variable_is_what_its_text_says(watch, running, starter, setting, name, value):
    loading = running("load", "--json", "--var", f"only_pid={starter.pid}", "--var", setting, watch)
    loading.lines_until('"loaded": true')
    starter.go()
    (line,) = loading.lines_until('"event"')
    record = json.loads(line)
    assert record["map"] == "events"
    assert record["event"]["pid"] == starter.pid
    assert record["event"][name] == value
    assert loading.interrupt() == (130, "", "")


def test_json_is_one_document_and_then_one_line_for_each_event(watch, running, starter):
    loading = running("load", "--json", "--var", f"only_pid={starter.pid}", watch)
    (line,) = loading.lines_until("")
    found = json.loads(line)
    assert (found["object"], found["loaded"]) == (str(watch), True)
    starter.go()
    (line,) = loading.lines_until("")
    expected = {"pid": starter.pid, "mood": 1, "number": 0, "flag": False, "wide": 0}
    expected |= {"word": "none", "list": [1, 2, 3]}
    assert json.loads(line) == {"map": "events", "event": expected}
    assert loading.interrupt() == (130, "", "")


def test_events_are_printed_decoded_until_ctrl_c_which_detaches(watch, running, starter):
    loading = running("load", "--var", f"only_pid={starter.pid}", watch)
    loading.lines_until("loaded")
    starter.go()
    event = loading.lines_until("^events: ")[-1]
    assert f"pid={starter.pid} mood=CALM number=0" in event
    assert "word=none" in event
    status, out, err = loading.interrupt()
    assert (status, err) == (130, "")
    assert "detached" in out


def test_ctrl_c_ends_an_object_without_events(bpf_object, running):
    loading = running("load", bpf_object("congestion"))
    loading.lines_until("pybpf_test")
    status, _, err = loading.interrupt()
    assert (status, err) == (130, "")


# ---- load --pin and unload -----------------------------------------------------------------------


def keeps_counting(folder):
    """Whether the pinned on_exec of WATCH runs when something is started."""
    with Map.open_pinned(folder / "maps/runs") as runs:
        before = runs[0]
        subprocess.run(["true"], check=True)
        return runs[0] > before


def test_what_is_pinned_runs_on_until_it_is_unloaded(watch, bpffs):
    folder = bpffs / "watch"
    done = pybpf_command("load", "--pin", folder, watch)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"pybpf unload {folder}" in done.stdout
    assert (folder / "links/on_exec").exists()
    assert keeps_counting(folder)
    done = pybpf_command("unload", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert str(folder) in done.stdout
    assert not folder.exists()
    again = pybpf_command("unload", folder)
    assert (again.returncode, again.stdout) == (1, "")
    assert re.search(f"{folder}[\\s\\S]*\nhint: ", again.stderr)


def test_the_table_tells_where_maps_are_pinned(watch, bpffs):
    folder = bpffs / "watch"
    done = pybpf_command("load", "--pin", folder, watch)
    assert pybpf_command("unload", folder).returncode == 0
    assert re.search(rf"^runs .* {folder}/maps/runs *$", done.stdout, re.MULTILINE)


def test_json_tells_where_maps_are_pinned(watch, bpffs):
    folder = bpffs / "watch"
    (found,) = json_lines(pybpf_command("load", "--pin", folder, "--json", watch))
    assert pybpf_command("unload", folder).returncode == 0
    assert {each["name"]: each["pinned"] for each in found["maps"]}["runs"] == f"{folder}/maps/runs"


def test_several_objects_are_pinned_and_unloaded_as_one(watch, bpf_object, bpffs):
    folder = bpffs / "both"
    loaded = pybpf_command("load", "--pin", folder, watch, bpf_object("everything"))
    unloaded = pybpf_command("unload", folder)
    left = [path.name for path in bpffs.iterdir()]
    for name in left:
        pybpf_command("unload", bpffs / name)
    assert (loaded.returncode, loaded.stderr) == (0, "")
    assert (unloaded.returncode, unloaded.stderr, left) == (0, "", [])


def test_what_is_pinned_already_is_not_pinned_over(watch, bpffs):
    folder = bpffs / "watch"
    assert pybpf_command("load", "--pin", folder, watch).returncode == 0
    done = pybpf_command("load", "--pin", folder, watch)
    assert (done.returncode, done.stdout) == (1, "")
    assert "\nhint: " in done.stderr
    assert keeps_counting(folder)
    assert pybpf_command("unload", folder).returncode == 0


# ---- inspect -------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", [(), AS_NOBODY], ids=["root", "nobody"])
def test_inspect_tells_what_an_object_holds(bpf_object, prefix):
    path = bpf_object("everything")
    done = pybpf_command("inspect", "--json", path, prefix=prefix)
    assert (done.returncode, done.stderr) == (0, "")
    (found,) = json_lines(done)
    assert set(found) >= {"object", "license", "endianness", "programs", "maps"}
    assert (found["object"], found["license"]) == (str(path), "Dual BSD/GPL")
    assert found["endianness"] == "little"
    assert all(set(program) == PROGRAM_KEYS for program in found["programs"])
    assert all(set(each) == MAP_KEYS for each in found["maps"])
    with pybpf.open(path) as obj:  # in libbpf's order
        assert [each["name"] for each in found["programs"]] == list(obj.programs)
        assert [each["name"] for each in found["maps"]] == list(obj.maps)
    packet = found["programs"][3] | {"insns": 0}
    assert packet == {
        "name": "count_packet",
        "section": "xdp",
        "type": "xdp",
        "type_id": 6,
        "attach_type": "xdp",
        "attach_type_id": 37,
        "insns": 0,
        "autoload": True,
    }
    assert found["programs"][4]["autoload"] is False
    assert found["programs"][1]["type"] == "tracepoint"
    assert found["maps"][0] == {
        "name": "counts",
        "type": "hash",
        "type_id": 1,
        "key_size": 4,
        "value_size": 8,
        "max_entries": 8,
        "flags": 0,
        "pinning": 0,
        "key_padding": [],
    }


def test_inspect_tells_what_is_pinned_by_name(bpf_object):
    (found,) = json_lines(pybpf_command("inspect", "--json", bpf_object("pinned")))
    assert [(each["name"], each["pinning"]) for each in found["maps"]] == [("shared", 1)]


def test_inspect_goes_on_after_a_bad_file(watch, text, tmp_path):
    paths = [watch, text, tmp_path, tmp_path / "absent", watch]
    done = pybpf_command("inspect", "--json", *paths)
    assert (done.returncode, done.stderr) == (1, "")
    found = json_lines(done)
    assert [each["object"] for each in found] == list(map(str, paths))
    for each in found[1:4]:
        assert set(each) == {"object", "error"}
        assert set(each["error"]) == {"type", "message"}
    kinds = [each["error"]["type"] for each in found[1:4]]
    assert kinds == ["ObjectFormatError", "ObjectFormatError", "ObjectNotFoundError"]
    assert found[0] == found[4]


@pytest.mark.parametrize("prefix", [(), AS_NOBODY], ids=["root", "nobody"])
def test_inspect_in_words_goes_on_after_a_bad_file(watch, text, prefix):
    done = pybpf_command("inspect", text, watch, prefix=prefix)
    assert done.returncode == 1
    assert str(text) in done.stderr
    assert re.search(
        r"^on_exec +tp/sched/sched_process_exec +tracepoint", done.stdout, re.MULTILINE
    )
    assert re.search(r"^resized +hash +4 +4 +8 ", done.stdout, re.MULTILINE)
    assert re.search(r"^only_pid +\.rodata ", done.stdout, re.MULTILINE)


# ---- usage, pipes, the installed script ----------------------------------------------------------

WRONG_USAGE = [
    (),
    ("explode",),
    ("load",),
    ("inspect",),
    ("unload",),
    ("load", "--nonsense", "FILE"),
    ("load", "--duration", "long", "FILE"),
    ("load", "--duration", "-1", "FILE"),
    ("load", "--duration", "nan", "FILE"),
    ("load", "--pin=", "--duration=0", "FILE"),
    ("load", "--log-level", "high", "FILE"),
    ("load", "--log-level", "-1", "FILE"),
    ("load", "--check", "--var", "nothing", "FILE"),
    ("load", "--check", "--var", "number=x", "FILE"),
    ("load", "--check", "--map", "runs=1", "FILE"),
    ("load", "--check", "--only", "nothing", "FILE"),
    ("unload", "FILE", "FILE"),
]


@pytest.mark.parametrize("command", [MODULE, SCRIPT], ids=["module", "script"])
@pytest.mark.parametrize("words", WRONG_USAGE, ids=" ".join)
def test_wrong_usage_is_told_and_exits_with_2(watch, words, command):
    words = [str(watch) if word == "FILE" else word for word in words]
    done = pybpf_command(*words, command=command)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pybpf" in done.stderr
    assert "invalid _" not in done.stderr  # the name of a function


@pytest.mark.parametrize("command", [MODULE, SCRIPT], ids=["module", "script"])
@pytest.mark.parametrize(
    "words", [("--help",), ("load", "--help"), ("inspect", "--help")], ids=" ".join
)
def test_help_is_given_on_stdout(command, words):
    done = pybpf_command(*words, command=command)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: pybpf")


def test_the_exit_statuses_are_documented():
    text = pybpf_command("--help").stdout
    assert all(re.search(rf"\b{number}\b", text) for number in (0, 1, 2, 3, 129, 130, 141, 143))


def test_the_installed_script_does_what_the_module_does(watch, bpf_object):
    for words in (("inspect", "--json"), ("inspect",)):
        by_module, by_script = (
            pybpf_command(*words, watch, bpf_object("everything"), command=command)
            for command in (MODULE, SCRIPT)
        )
        assert by_module.stdout == by_script.stdout
        assert by_module.returncode == by_script.returncode == 0
    done = pybpf_command("load", "--check", "--json", watch, bpf_object("refused"), command=SCRIPT)
    assert [each["loaded"] for each in json_lines(done)] == [True, False]
    assert done.returncode == 1
    assert pybpf_command("load", watch, prefix=AS_NOBODY, command=SCRIPT).returncode == 3


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["words", "json"])
@pytest.mark.parametrize("command", ["inspect", "load --check"])
def test_a_reader_that_goes_away_ends_it_quietly(watch, running, command, options):
    going = running(*command.split(), *options, *[watch] * 40)
    going.process.stdout.readline()
    going.process.stdout.close()
    _, err = going.process.communicate()
    assert_no_traceback(err)
    assert err == ""


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["words", "json"])
def test_a_reader_of_events_that_goes_away_ends_it_quietly(watch, running, starter, options):
    loading = running("load", *options, "--var", f"only_pid={starter.pid}", watch)
    loading.lines_until("loaded")
    loading.process.stdout.close()
    starter.go()
    _, err = loading.process.communicate()
    assert err == ""
    assert loading.process.returncode not in (0, 130)


def test_a_full_disk_is_told_without_a_traceback(watch):
    with open("/dev/full", "w") as full:
        words = [*MODULE, "inspect", str(watch)]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    assert_no_traceback(done.stderr)
    assert done.returncode == 1
    assert "No space left" in done.stderr
