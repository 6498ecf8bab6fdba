# SPDX-License-Identifier: BSD-2-Clause
"""Events as the command prints them: formats, buffering and accounts of ``pybpf load``, and
``pybpf events`` on pinned rings.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
from pathlib import Path

import pybpf
import pytest
from bad_objects import AS_NOBODY, AS_TRACER, MODULE, compile_bpf, pybpf_command
from cli_process import json_lines

pytestmark = pytest.mark.native

EXECSNOOP = Path(__file__).parents[2] / "examples/execsnoop/execsnoop.bpf.o"


def produce(obj, count):
    """Records with sequence 0 to count - 1 in both rings of tests/bpf/everything.bpf.c."""
    obj.programs["run_all"].test_run(ctx=count.to_bytes(4, "little"))


# ---- load: formats -------------------------------------------------------------------------------


@pytest.fixture
def silent(bpf_object):
    """An object whose rings stay empty."""
    return bpf_object("everything")


def snoop(running, starter, *options):
    """``pybpf load`` of execsnoop for the starter alone, which has started a program."""
    loading = running("load", *options, "--var", f"only_pid={starter.pid}", EXECSNOOP)
    loading.lines_until(r"execsnoo\.bss", "stderr")
    starter.go()
    return loading


def test_a_template_gives_nothing_but_its_lines_on_stdout(running, starter):
    loading = snoop(running, starter, "--format", "{map} {kind:>6}={kind:d} {pid:<8}{comm}|")
    expected = f"events   EXEC=1 {starter.pid:<8}true|\n"
    assert loading.process.stdout.readline() == expected
    status, out, err = loading.interrupt()
    assert (status, out) == (130, "")
    assert "detached 2 programs" in err


def test_format_json_gives_nothing_but_events_on_stdout(running, starter):
    loading = snoop(running, starter, "--format", "json")
    found = json.loads(loading.process.stdout.readline())
    assert found["map"] == "events"
    assert found["event"].items() >= {"kind": 1, "pid": starter.pid, "comm": "true"}.items()
    assert loading.interrupt()[:2] == (130, "")


def test_format_json_beside_json_says_nothing_twice(silent):
    plain = json_lines(pybpf_command("load", "--json", "--duration=0", silent))
    both = json_lines(pybpf_command("load", "--json", "--format=json", "--duration=0", silent))
    assert len(plain) == len(both) == 1
    assert both[0].keys() == plain[0].keys()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--json", "--format", "text"), "--json"),
        (("--json", "--format", "{value}"), "--json"),
        (("--check", "--format", "json"), "--check"),
        (("--check", "--stats"), "--check"),
        (("--pin", "/sys/fs/bpf/none", "--stats"), "--pin"),
        (("--check", "--type", "int"), "--check"),
        (("--type", "reading=int"), "no ring named 'reading'; did you mean 'readings'?"),
        (("--type", "untyped=struct readin"), "did you mean 'struct reading'"),
        (("--type", "run_all"), "--type run_all"),
        (("--format", "yaml"), "'yaml'"),
        (("--format", "{value"), "'{value'"),
        (("--format", "{valu}"), "did you mean 'value'?"),
        (("--format", "{label:d}"), "{label:d}"),
    ],
    ids=" ".join,
)
def test_formats_that_make_no_sense_are_wrong_usage(silent, words, message):
    done = pybpf_command("load", *words, silent)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


@pytest.mark.parametrize(
    ("type", "member"),
    [
        ("struct place", "{x}"),
        ("untyped=struct place", "{x} {sequence}"),
        ("struct list_head", "{next}"),
    ],
)
def test_load_takes_types_of_the_object_and_of_the_kernel(silent, type, member):
    done = pybpf_command("load", "--type", type, "--format", member, "--duration=0", silent)
    assert done.returncode == 0, done.stderr


# ---- events: a pinned ring -----------------------------------------------------------------------


@pytest.fixture
def everything(bpf_object):
    with pybpf.open(bpf_object("everything")) as obj:
        obj.rodata["label"] = "a b"
        obj.load()
        yield obj


@pytest.fixture
def pins(everything, bpffs):
    """{name: path} of the pinned rings of ``everything``."""
    pinned = {name: bpffs / name for name in ("readings", "untyped")}
    for name, path in pinned.items():
        everything.maps[name].pin(path)
    yield pinned
    for name, path in pinned.items():
        everything.maps[name].unpin(path)


def events(*words, **options):
    """``pybpf events`` of what is in the rings; its standard output."""
    done = pybpf_command("events", "--duration", "0.1", *words, **options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_pinned_ring_is_typed_by_the_object_that_declares_it(everything, pins):
    produce(everything, 2)
    assert events(pins["readings"]) == (
        "readings: sequence=0 value=0 label=a b\nreadings: sequence=1 value=-1 label=a b\n"
    )


def test_a_pinned_ring_in_json_and_by_a_template(everything, pins):
    produce(everything, 1)
    expected = {"map": "readings", "event": {"sequence": 0, "value": 0, "label": "a b"}}
    assert json.loads(events("--format", "json", pins["readings"])) == expected
    produce(everything, 2)
    assert events("--format", "{value:+}/{label:>4}", pins["readings"]) == "+0/ a b\n-1/ a b\n"


def test_an_untyped_ring_gives_bytes_unless_a_type_is_named(everything, pins, bpf_object):
    produce(everything, 2)
    found = events(pins["untyped"])
    assert found == "untyped: 00000000 00000000\nuntyped: 01000000 00000000\n"
    types = [
        (("--type", "__u64"), "untyped: 1"),  # of the object whose programs use the ring
        (("--type", "struct place"), "untyped: x=1 y=0"),
        (("--type", "struct hlist_head"), "untyped: first=1"),  # of the kernel
        (("--type", "struct place", "--btf", bpf_object("everything")), "untyped: x=1 y=0"),
        (("--type", "struct hlist_head", "--btf", "/sys/kernel/btf/vmlinux"), "untyped: first=1"),
    ]
    for words, expected in types:
        produce(everything, 2)
        assert events(pins["untyped"], *words).splitlines()[1] == expected


def test_a_type_is_that_of_one_ring_where_it_says_so(everything, pins):
    for words in (["untyped=__u64"], ["struct place", "untyped=__u64", "readings=struct reading"]):
        produce(everything, 1)
        types = [f"--type={word}" for word in words]
        found = events(*types, *pins.values())
        assert sorted(found.splitlines()) == [
            "readings: sequence=0 value=0 label=a b",
            "untyped: 0",
        ]


def test_several_rings_are_read_together_and_a_dash_is_what_one_lacks(everything, pins):
    produce(everything, 2)
    found = events("--format", "{map:>8} {value:3}", *pins.values())
    assert sorted(found.splitlines()) == 2 * [" untyped -  "] + ["readings   0", "readings  -1"]


def test_rings_of_one_name_are_told_apart_by_their_pins(everything, pins, bpf_object, bpffs):
    other = bpffs / "other"
    with pybpf.load(bpf_object("everything")) as obj:
        obj.maps["untyped"].pin(other)
        produce(obj, 1)
        produce(everything, 1)
        found = events("--type", "__u64", pins["untyped"], other)
        obj.maps["untyped"].unpin(other)
    assert sorted(found.splitlines()) == [f"{other}: 0", f"{pins['untyped']}: 0"]


def test_without_the_privilege_to_ask_for_types_a_file_has_them(everything, pins, bpf_object):
    os.chmod(pins["untyped"], 0o666)
    os.chmod(pins["untyped"].parent, 0o755)
    os.chmod(pins["untyped"].parents[1], 0o1755)
    words = ("events", "--duration", "0.1", pins["untyped"])
    produce(everything, 1)
    without = pybpf_command(*words, command=(MODULE[0], "-m", "pybpf"), prefix=AS_TRACER)
    assert (without.returncode, without.stdout) == (0, "untyped: 00000000 00000000\n")
    assert re.search("^pybpf: warning: .*CAP_SYS_ADMIN.*--btf", without.stderr)
    produce(everything, 1)
    typed = ("--btf", bpf_object("everything"), "--type", "__u64")
    done = pybpf_command(*words, *typed, prefix=AS_TRACER)
    assert (done.returncode, done.stdout, done.stderr) == (0, "untyped: 0\n", "")


def test_events_are_printed_as_they_come_until_ctrl_c(everything, pins, running):
    reading = running("events", pins["readings"])
    for _ in range(3):
        produce(everything, 1)
        assert reading.process.stdout.readline() == "readings: sequence=0 value=0 label=a b\n"
    assert reading.interrupt() == (130, "", "")


def test_what_cannot_be_read_is_told(everything, pins, bpffs, bpf_object, tmp_path):
    everything.maps["counts"].pin(bpffs / "counts")
    everything.programs["run_all"].pin(bpffs / "run_all")
    text = tmp_path / "text"
    text.write_text("no types\n")
    ring = pins["readings"]
    failures = [
        ((bpffs / "counts",), 1, "HASH"),
        ((bpffs / "run_all",), 1, "a program is pinned there"),
        ((bpffs / "none",), 1, "nothing is pinned there"),
        ((ring, bpffs / "none"), 1, "nothing is pinned there"),
        ((ring, ring), 2, "twice"),
        ((ring, "--type", "struct readin"), 2, "did you mean 'struct reading'"),
        ((ring, "--type", "run_all"), 2, "run_all"),  # a function
        ((ring, "--type", "struct place", "--btf", "/sys/kernel/btf/vmlinux"), 2, "struct place"),
        ((ring, "--btf", text), 1, str(text)),
        ((ring, "--btf", bpffs / "none"), 1, str(bpffs / "none")),
        ((ring, "--format", "{valu}"), 2, "did you mean 'value'?"),
        ((pins["untyped"], "--format", "{value}"), 2, "untyped: its events have no type"),
        ((ring, "--duration", "-1"), 2, "--duration"),
        ((), 2, "PIN"),
    ]
    found = [pybpf_command("events", *words) for words, _, _ in failures]
    everything.maps["counts"].unpin(bpffs / "counts")
    everything.programs["run_all"].unpin(bpffs / "run_all")
    for done, (words, status, message) in zip(found, failures, strict=True):
        assert (done.returncode, done.stdout) == (status, ""), words
        assert message in done.stderr, words


def test_lacking_privilege_has_its_status(pins):
    done = pybpf_command("events", pins["readings"], prefix=AS_NOBODY)
    assert (done.returncode, done.stdout) == (3, "")


# ---- the stream ----------------------------------------------------------------------------------

RECORDS = 64
RING_RECORD = 16  # bytes that one of 8 takes in a ring


def test_what_is_there_is_written_at_once(everything, pins):
    """Each write to a pipe of packets is one packet, and it has room for one of each record."""
    produce(everything, RECORDS)
    read_end, write_end = os.pipe2(os.O_DIRECT)
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 2 * RECORDS * 4096)
    words = [*MODULE, "events", "--duration", "0.1", str(pins["readings"])]
    subprocess.run(words, stdout=write_end, check=True)
    os.close(write_end)
    packets = list(iter(lambda: os.read(read_end, 1 << 16), b""))
    os.close(read_end)
    assert b"".join(packets).count(b"\n") == RECORDS
    assert len(packets) <= 2


def test_records_that_do_not_fit_are_told_of_and_left_out(everything, pins):
    produce(everything, 3)
    words = ("--format={sequence}", "--type=struct reading", pins["untyped"], pins["readings"])
    done = pybpf_command("events", "--duration=0.1", *words)
    assert (done.returncode, done.stdout) == (1, "0\n1\n2\n")
    assert done.stderr.splitlines() == [
        "pybpf: a record of untyped: struct reading takes 24 bytes, 8 are given",
        "pybpf: 3 records of untyped left out: too short",
    ]


def test_a_reader_that_goes_away_ends_it_as_sigpipe_would(everything, pins, running):
    reading = running("events", pins["readings"])
    produce(everything, 1)
    assert reading.process.stdout.readline()
    reading.process.stdout.close()
    produce(everything, 1)
    assert reading.process.stderr.read() == ""
    assert reading.process.wait() == 141


# ---- accounts ------------------------------------------------------------------------------------

ACCOUNT = (
    r"(\d+) events, \d+/s, (\d+ lost|losses uncounted), backlog (\d+) bytes, (\d+) at most\r?\n"
)


def test_stats_are_told_at_the_end_where_nobody_watches(everything, pins):
    produce(everything, RECORDS)
    done = pybpf_command("events", "--stats", "--duration", "1.2", pins["untyped"])
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == RECORDS
    account = re.fullmatch(ACCOUNT, done.stderr)
    assert account
    assert account.groups() == (str(RECORDS), "losses uncounted", "0", str(RECORDS * RING_RECORD))


def test_stats_are_told_when_ctrl_c_ends_it(running, starter):
    loading = snoop(running, starter, "--stats", "--format", "{comm}")
    assert loading.process.stdout.readline() == "true\n"
    status, _, err = loading.interrupt()
    assert status == 130
    account = re.search(f"^{ACCOUNT}detached", err, re.MULTILINE)
    assert account
    assert account[1] == "1"


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_end_it_as_tidily_as_ctrl_c(running, starter, number, expected):
    loading = snoop(running, starter, "--stats", "--format", "{comm}")
    assert loading.process.stdout.readline() == "true\n"
    loading.process.send_signal(number)  # twice, as timeout(1) does
    status, out, err = loading.interrupt(number)
    assert (status, out) == (expected, "")
    assert re.fullmatch(f"{ACCOUNT}detached 2 programs, unloaded 1 object\n", err)


def test_a_hangup_that_is_ignored_ends_nothing(everything, pins):
    words = ["nohup", *MODULE, "events", str(pins["untyped"])]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reading:
        produce(everything, 1)
        assert reading.stdout.readline() == b"untyped: 00000000 00000000\n"
        reading.send_signal(signal.SIGHUP)
        produce(everything, 1)
        assert reading.stdout.readline() == b"untyped: 00000000 00000000\n"
        reading.terminate()
    assert reading.returncode == 143


def test_stats_are_told_every_second_on_a_terminal(everything, pins):
    terminal, end = pty.openpty()
    words = [*MODULE, "events", "--stats", "--duration", "2.5", str(pins["untyped"])]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=end) as reading:
        os.close(end)
        with os.fdopen(terminal) as screen:
            first = screen.readline()
            produce(everything, 2)
            rest = lines_of_terminal(screen)
    assert reading.returncode == 0
    counts = [re.fullmatch(ACCOUNT, line).group(1) for line in (first, *rest)]
    assert (counts[0], counts[-1]) == ("0", "2")
    assert len(counts) >= 3


def lines_of_terminal(screen):
    """What is written there until nobody has it open any more, which reading reports by EIO."""
    lines = []
    with contextlib.suppress(OSError):
        while line := screen.readline():
            lines.append(line)
    return lines


# ---- perf event arrays ---------------------------------------------------------------------------

PERF = """
struct event {
	unsigned int pid, number;
	char word[8];
};

struct {
	__uint(type, 4); /* PERF_EVENT_ARRAY */
	__uint(key_size, 4);
	__uint(value_size, 4);
} events SEC(".maps");

static long (*bpf_perf_event_output)(void *, void *, unsigned long long, void *, long) = (void *)25;

struct event *of_which_btf_tells;

SEC("tp/sched/sched_process_exec")
int on_exec(void *ctx)
{
	struct event event = {bpf_get_current_pid_tgid() >> 32, 7, "word"};

	return bpf_perf_event_output(ctx, &events, 0xffffffff, &event, sizeof(event));
}
"""


@pytest.fixture(scope="session")
def perf(tmp_path_factory):
    """The path of PERF, compiled."""
    return compile_bpf(tmp_path_factory.mktemp("perf"), "perf", PERF)


def line_of_an_exec(reading):
    """The first line of a command that watches programs start."""
    while not select.select([reading.process.stdout], [], [], 0.1)[0]:
        subprocess.run(["true"], check=True)
    return reading.process.stdout.readline()


def test_load_prints_what_comes_from_perf_event_arrays(perf, running):
    loading = running("load", "--format", "json", perf)
    found = json.loads(line_of_an_exec(loading))
    assert found["map"] == "events"
    data = bytes.fromhex(found["event"])
    assert data[4:].startswith((7).to_bytes(4, "little") + b"word\0\0\0\0")
    assert loading.interrupt()[:1] == (130,)
    words = ("--type", "events=struct event", "--format", "{number} {word}|")
    typed = running("load", *words, perf)
    assert line_of_an_exec(typed) == "7 word|\n"
    assert typed.interrupt()[:1] == (130,)


def test_a_pinned_perf_event_array_is_typed_by_name(perf, running, bpffs):
    pin = bpffs / "events"
    with pybpf.load(perf) as obj:
        obj.attach()
        obj.maps["events"].pin(pin)
        reading = running("events", "--type", "struct event", "--format", "{number} {word}|", pin)
        line = line_of_an_exec(reading)
        status, _, err = reading.interrupt()
        obj.maps["events"].unpin(pin)
    assert line == "7 word|\n"
    assert (status, err) == (130, "")
