# SPDX-License-Identifier: BSD-2-Clause
"""An object from open to close: states, configuration, variables, what load() tells."""

from __future__ import annotations

import copy
import io
import os
import pickle
import re
import subprocess
from array import array
from pathlib import Path

import features
import pybpf
import pytest
from pybpf import AttachType, Link, Map, Program, ProgramType
from pybpf._handles import OwnedFd

RUN_INPUT = (0).to_bytes(4, "little")


@pytest.fixture
def everything(bpf_object):
    with pybpf.open(bpf_object("everything")) as obj:
        yield obj


@pytest.fixture
def loaded(everything):
    everything.load()
    return everything


@pytest.fixture
def sections(bpf_object):
    with pybpf.open(bpf_object("sections")) as obj:
        yield obj


def run_all(obj, count=0):
    return obj.programs["run_all"].test_run(ctx=count.to_bytes(4, "little"))


def test_opens_from_path_bytes_and_file(bpf_object):
    path = bpf_object("everything")
    data = path.read_bytes()
    with path.open("rb") as file:
        for source in (
            path,
            str(path),
            data,
            bytearray(data),
            memoryview(data),
            file,
            io.BytesIO(data),
        ):
            with pybpf.open(source) as obj:
                assert "run_all" in obj.programs


def test_the_objects_name_is_the_files_up_to_the_first_dot(bpf_object):
    with pybpf.open(bpf_object("everything")) as obj:
        assert obj.name == "everything"
        assert "everythi.rodata" in obj.maps
    with pybpf.open(bpf_object("everything"), name="other") as obj:
        assert obj.name == "other"
        assert "other.rodata" in obj.maps


def test_knows_license_byte_order_programs_and_maps(everything):
    assert everything.license == "Dual BSD/GPL"
    assert everything.byte_order == "little"
    assert list(everything.programs) == [
        "run_all",
        "on_exec",
        "set_mark",
        "count_packet",
        "off_by_default",
    ]
    program = everything.programs["on_exec"]
    assert program.section == "tp/sched/sched_process_exec"
    assert program.type == ProgramType.TRACEPOINT
    assert len(program.insns) == 8 * program.insn_count > 0
    assert not everything.programs["off_by_default"].autoload


def test_state_goes_from_open_over_loaded_to_closed(bpf_object):
    obj = pybpf.open(bpf_object("everything"))
    assert obj.state == "open"
    obj.load()
    assert obj.state == "loaded"
    obj.close()
    assert obj.state == "closed"
    obj.close()


def test_a_failed_load_cannot_be_tried_again(bpf_object):
    with pybpf.open(bpf_object("refused")) as obj:
        with pytest.raises(pybpf.VerifierError):
            obj.load()
        assert obj.state == "failed"
        with pytest.raises(pybpf.StateError, match="open the file again"):
            obj.load()


def test_load_in_one_go_closes_on_failure(bpf_object):
    with pybpf.load(bpf_object("everything")) as obj:
        assert obj.state == "loaded"
    with pytest.raises(pybpf.VerifierError):
        pybpf.load(bpf_object("refused"))


def test_wrong_names_suggest_the_right_one(everything):
    with pytest.raises(pybpf.NotFoundError, match="did you mean 'counts'"):
        everything.maps["count"]
    with pytest.raises(KeyError, match="did you mean 'on_exec'"):
        everything.programs["on_exek"]
    with pytest.raises(AttributeError, match="did you mean 'step32'"):
        _ = everything.rodata.step23


# ---- variables -----------------------------------------------------------------------------------


def test_variables_are_read_and_written_before_load_and_seen_by_the_program(everything):
    rodata = everything.rodata
    assert (rodata.step8, rodata.step16, rodata.step32, rodata.step64) == (1, 2, 3, 4)
    assert rodata.negative == -5
    assert rodata.enabled is True
    rodata.step8, rodata.step16 = 255, 65535
    rodata.step32, rodata.step64 = 2**32 - 1, 2**40
    rodata.negative = -1
    rodata["label"] = "hello"
    everything.data.total = 1000
    everything.load()
    assert run_all(everything).retval == 7
    assert everything.data.total == 1000 + 255 + 65535 + (2**32 - 1) + 2**40 - 1
    assert everything.bss.runs == 1


def test_live_variables_reach_the_program_after_load(loaded):
    run_all(loaded)
    loaded.data.total = 0
    loaded.sections[".data.custom"].custom = 9
    assert run_all(loaded).retval == 9
    assert loaded.data.total == 1 + 2 + 3 + 4 - 5
    assert loaded.variables["runs"].value == 2


def test_a_false_bool_is_seen_by_the_program(everything):
    everything.rodata.enabled = False
    everything.load()
    run_all(everything)
    assert everything.data.total == 100


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("step8", 256, OverflowError),
        ("step8", -1, OverflowError),
        ("step32", 2**32, OverflowError),
        ("negative", 2**31, OverflowError),
        ("step64", "text", pybpf.LayoutError),
        ("label", "much too long a text", pybpf.LayoutError),
    ],
)
def test_values_that_do_not_fit_are_refused_whole(everything, name, value, error):
    before = everything.rodata.raw
    with pytest.raises(error, match=name):
        everything.rodata[name] = value
    assert everything.rodata.raw == before


def test_a_section_can_be_read_and_replaced_as_bytes(everything):
    raw = everything.bss.raw
    everything.bss.raw = b"\x01" * len(raw)
    assert everything.bss.raw == b"\x01" * len(raw)
    with pytest.raises(pybpf.LayoutError, match=f"{len(raw)} bytes"):
        everything.bss.raw = b"short"


def test_a_section_may_be_replaced_by_a_view_of_larger_items(sections):
    sections.bss.raw = memoryview(array("I", [1, 2, 3]))
    assert list(sections.bss.values()) == [1, 2, 3]
    with pytest.raises(pybpf.LayoutError, match="12 bytes are needed, not 48"):
        sections.bss.raw = memoryview(array("I", [4] * 12))
    assert list(sections.bss.values()) == [1, 2, 3]


def test_constants_are_frozen_after_load(loaded):
    with pytest.raises(pybpf.StateError, match=r"before load\(\)"):
        loaded.rodata.step8 = 2
    assert loaded.rodata.step8 == 1


def test_custom_sections_are_not_taken_for_those_they_are_named_like(sections):
    assert set(sections.sections) == {".rodata", ".data", ".bss", ".data.rodata", ".data.bss"}
    assert dict(sections.rodata) == {"constant": 1}
    assert dict(sections.data) == {"initialised": 2}
    assert dict(sections.sections[".data.rodata"]) == {"like_constant": 3}
    assert dict(sections.sections[".data.bss"]) == {"like_zero": 4}
    assert dict(sections.bss) == {"zero": 0, "keys": 0, "map": 0}
    assert sections.sections[".data.rodata"].map is sections.maps[".data.rodata"]
    sections.rodata.constant = 5
    sections.load()
    add_up = sections.programs["sum"]
    assert add_up.test_run(ctx=bytes(8)).retval == 5 + 20 + 3000 + 40000
    sections.sections[".data.rodata"].like_constant = 6  # is no constant
    sections.sections[".data.bss"].like_zero = 7
    sections.bss.zero = 8
    assert add_up.test_run(ctx=bytes(8)).retval == 5 + 20 + 800 + 6000 + 70000
    with pytest.raises(pybpf.StateError, match=r"before load\(\)"):
        sections.rodata.constant = 1


def test_a_variable_named_like_a_method_is_an_item(sections):
    for name in ("keys", "map"):
        with pytest.raises(AttributeError, match=rf"section\['{name}'\]"):
            setattr(sections.bss, name, 1)
        assert sections.bss[name] == 0
    assert list(sections.bss.keys()) == ["zero", "keys", "map"]
    sections.bss["keys"] = 2
    sections.variables["map"].value = 3
    assert dict(sections.bss) == {"zero": 0, "keys": 2, "map": 3}
    sections.load()
    assert sections.programs["sum"].test_run(ctx=bytes(8)).retval == 43021 + 3200000
    with pytest.raises(AttributeError, match=r"section\['name'\]"):
        sections.bss.name = "x"
    with pytest.raises(AttributeError, match="zero"):
        sections.bss.zeros = 1


@pytest.mark.requires("kernel_version")
def test_kconfig_values_come_from_the_kernel_and_from_text(bpf_object):
    major, minor = map(int, Path("/proc/sys/kernel/osrelease").read_text().split(".")[:2])
    with pybpf.load(bpf_object("kconfig"), kconfig="CONFIG_PYBPF_TEST=42\n") as obj:
        assert obj.programs["kernel_version"].test_run(ctx=b"\0" * 8).retval == (major << 8) + minor
        assert obj.programs["test_value"].test_run(ctx=b"\0" * 8).retval == 42
        assert obj.kconfig["CONFIG_PYBPF_TEST"] == 42
    with pybpf.load(bpf_object("kconfig")) as obj:
        assert obj.programs["test_value"].test_run(ctx=b"\0" * 8).retval == 0


# ---- configuration of programs -------------------------------------------------------------------


def test_autoload_decides_what_is_loaded(everything):
    everything.programs["on_exec"].autoload = False
    everything.programs["off_by_default"].autoload = True
    everything.load()
    assert not everything.programs["on_exec"].loaded
    assert everything.programs["off_by_default"].loaded
    with pytest.raises(pybpf.StateError, match="autoload is off"):
        everything.programs["on_exec"].attach()


def test_autoattach_decides_what_attach_attaches(loaded):
    loaded.programs["on_exec"].autoattach = False
    assert loaded.attach() == []
    loaded.programs["on_exec"].autoattach = True
    (link,) = loaded.attach()
    assert link.source is loaded.programs["on_exec"]
    assert loaded.attach() == []


def test_type_and_expected_attach_type_can_be_set(everything):
    program = everything.programs["count_packet"]
    program.type = ProgramType.SCHED_CLS
    program.expected_attach_type = AttachType.TCX_INGRESS
    everything.load()
    assert program.info().type == ProgramType.SCHED_CLS
    assert program.expected_attach_type == AttachType.TCX_INGRESS


def test_an_attach_target_replaces_the_sections(bpf_object):
    with pybpf.open(bpf_object("retarget")) as obj:
        count, counts = obj.programs["count"], obj.maps["counts"]
        count.set_attach_target("sched_process_exit")
        obj.load()
        obj.attach()
        before = counts.get(os.getpid(), 0)
        subprocess.run(["sh", "-c", "exec true"])  # two execs, one exit
        assert counts[os.getpid()] - before == 1
        with pytest.raises(pybpf.StateError, match=r"before load\(\)"):
            count.set_attach_target("sched_process_exec")
    with pybpf.load(bpf_object("retarget")) as obj:
        obj.attach()
        subprocess.run(["sh", "-c", "exec true"])
        assert obj.maps["counts"][os.getpid()] == 2


def test_an_attach_target_that_the_kernel_lacks_is_refused_at_once(bpf_object):
    with pybpf.open(bpf_object("retarget")) as obj:
        with pytest.raises(pybpf.KernelError, match="attach target of program 'count'") as caught:
            obj.programs["count"].set_attach_target("no_such_tracepoint")
        assert caught.value.errno_name in ("ENOENT", "ESRCH")
        with pytest.raises(ValueError, match="NUL"):
            obj.programs["count"].set_attach_target("a\0b")
        obj.load()
        assert obj.programs["count"].loaded


def test_from_fd_and_from_id_open_the_same_program(loaded):
    program = loaded.programs["set_mark"]
    with Program.from_fd(program.fileno()) as by_fd, Program.from_id(program.id) as by_id:
        for again in (by_fd, by_id):
            assert (again.name, again.id, again.tag) == ("set_mark", program.id, program.tag)
            assert again.type == ProgramType.SCHED_CLS
            assert again.fileno() != program.fileno()
            assert again.test_run(b"\0" * 64).retval == 2
    assert program.test_run(b"\0" * 64).retval == 2
    with pytest.raises(pybpf.LayoutError, match="is no program but: map"):
        Program.from_fd(loaded.maps["counts"].fileno())
    with pytest.raises(pybpf.KernelError, match="ENOENT"):
        Program.from_id(2**31)
    for number in (-1, 2**32):
        with pytest.raises(OverflowError):
            Program.from_id(number)


def test_configuring_after_load_names_the_state(loaded):
    with pytest.raises(
        pybpf.StateError, match=r"set autoload of program 'on_exec'.*before load\(\)"
    ):
        loaded.programs["on_exec"].autoload = False
    with pytest.raises(pybpf.StateError, match="set max_entries of map 'counts'"):
        loaded.maps["counts"].max_entries = 5


def test_a_custom_btf_is_relocated_against(bpf_object):
    with pybpf.load(bpf_object("everything"), btf="/sys/kernel/btf/vmlinux") as obj:
        assert obj.programs["on_exec"].loaded


# ---- what load tells -----------------------------------------------------------------------------


def assert_the_kernel_counts_as_well(program):
    """The count of its instructions that were verified, which it keeps since Linux 5.16."""
    known = features.release() >= (5, 16)
    count = program.verifier_stats.processed_insns
    assert program.info().verified_insns == (count if known else 0)
    assert count > 0


def test_programs_tell_what_they_cost_the_verifier(loaded):
    program = loaded.programs["on_exec"]
    stats = program.verifier_stats
    assert_the_kernel_counts_as_well(program)
    if pybpf.libbpf_version() >= (1, 7):  # the built one; the system's gives the count alone
        assert stats.insn_limit == 1_000_000
        assert stats.peak_states is not None
        assert stats.verification_time_us is not None
    info = program.info()
    assert info.xlated_size > 0
    assert info.jited_size > 0
    assert program.tag == info.tag
    assert len(program.tag) == 16


def test_no_statistics_for_a_program_left_out(loaded):
    assert loaded.programs["off_by_default"].verifier_stats is None


def test_the_verifiers_log_is_kept_where_asked_for(everything):
    program = everything.programs["on_exec"]
    program.log_level = 2
    everything.load()
    assert "R1=ctx(" in program.verifier_log
    assert program.verifier_stats.peak_states is not None
    assert everything.programs["set_mark"].verifier_log == ""


@pytest.mark.parametrize("by", ["open", "program"])
def test_statistics_alone_cost_a_refused_program_no_log(bpf_object, by):
    with pytest.raises(pybpf.VerifierError) as caught:
        pybpf.load(bpf_object("refused"))
    whole = comparable(caught.value.verifier_log)
    with pybpf.open(bpf_object("refused"), log_level=4 if by == "open" else 0) as obj:
        if by == "program":
            obj.programs["unchecked"].log_level = 4
        with pytest.raises(pybpf.VerifierError) as caught:
            obj.load()
    error = caught.value
    assert comparable(error.verifier_log) == whole
    assert error.program == "unchecked"
    assert "R0 invalid mem access 'map_value_or_null'" in str(error)


def comparable(log):
    """A verifier's log without what differs from one time to the next, and the statistics."""
    lines = [re.sub("0x[0-9a-f]{9,}", "ADDRESS", line) for line in log.splitlines()]
    return [line for line in lines if not line.startswith(("verification time", "stack depth"))]


@pytest.mark.parametrize("by", ["open", "program"])
def test_statistics_alone_come_with_an_accepted_program(bpf_object, by):
    with pybpf.open(bpf_object("everything"), log_level=4 if by == "open" else 0) as obj:
        program = obj.programs["on_exec"]
        if by == "program":
            program.log_level = 4
        obj.load()
        assert_the_kernel_counts_as_well(program)
        assert program.verifier_stats.peak_states is not None
        assert program.verifier_stats.verification_time_us is not None


def test_open_sets_the_log_level_of_programs_that_have_none(bpf_object):
    with pybpf.open(bpf_object("everything"), log_level=2) as obj:
        obj.programs["set_mark"].log_level = 1
        obj.load()
        for name in ("on_exec", "run_all", "count_packet"):
            assert "R1=ctx(" in obj.programs[name].verifier_log
            assert obj.programs[name].verifier_log in obj.log
        assert "R1=ctx(" not in obj.programs["set_mark"].verifier_log
        assert obj.programs["off_by_default"].verifier_log == ""
        assert obj.programs["on_exec"].verifier_stats.peak_states is not None


@pytest.mark.parametrize("level", [-1, 8, 2**32])
def test_a_log_level_that_there_is_not_is_refused(bpf_object, level):
    with pytest.raises(ValueError, match=f"not {level}"):
        pybpf.open(bpf_object("everything"), log_level=level)


@pytest.mark.parametrize("level", [0, 1, 4, 7])
def test_load_leaves_the_log_level_as_it_was_set(bpf_object, level):
    with pybpf.open(bpf_object("pinned"), log_level=2) as obj:
        obj.maps["shared"].pin_path = None
        program = obj.programs["touch"]
        before = program.log_level
        assert before in (0, 2)
        program.log_level = level
        obj.load()
        assert program.log_level == level
        assert program.loaded


def test_libbpf_speaks_to_logging(everything, caplog):
    with caplog.at_level("DEBUG", logger="pybpf"):
        everything.load()
    assert any("on_exec" in record.message for record in caplog.records)


def test_a_refused_program_raises_with_its_whole_log(bpf_object):
    with pytest.raises(pybpf.VerifierError) as caught:
        pybpf.load(bpf_object("refused"))
    error = caught.value
    assert error.program == "unchecked"
    assert error.stage == "verifier"
    assert error.errno == 13
    assert "R0 invalid mem access 'map_value_or_null'" in str(error)
    assert "*value += 1;" in str(error)
    assert error.verifier_log in error.log
    assert len(error.verifier_log.splitlines()) > len(str(error).splitlines())


def test_a_missing_field_raises_with_type_and_field(bpf_object):
    with pytest.raises(pybpf.RelocationError) as caught:
        pybpf.load(bpf_object("missing_field"))
    error = caught.value
    assert (error.program, error.stage) == ("reads_future", "relocation")
    assert (error.type_name, error.field) == ("struct task_struct", "no_such_field")
    assert error.source.startswith("struct task_struct___future *task = ")
    # the kernel's log tells a line's place since 6.4
    assert ("missing_field.bpf.c" in error.source) == (features.release() >= (6, 4))


# ---- test_run ------------------------------------------------------------------------------------


def test_a_packet_program_runs_on_a_packet(loaded):
    result = loaded.programs["set_mark"].test_run(b"\0" * 64)
    assert result.retval == 2
    assert result.data_out == b"\0" * 64
    loaded.programs["count_packet"].test_run(b"\0" * 64, repeat=10)
    assert loaded.bss.runs == 10


def test_test_run_of_a_type_that_has_none_says_so(loaded):
    with pytest.raises(pybpf.KernelError, match="no test run") as caught:
        loaded.programs["on_exec"].test_run()
    assert "TRACEPOINT" in str(caught.value)


# ---- attach --------------------------------------------------------------------------------------


@pytest.fixture(params=["tracefs mounted", "tracefs not mounted"])
def tracefs(request):
    """Both ways: in this process's own mount namespace."""
    mounted = subprocess.run(["mountpoint", "-q", "/sys/kernel/tracing"]).returncode == 0
    subprocess.run(["umount", "-q", "/sys/kernel/debug/tracing"])
    want = request.param == "tracefs mounted"
    if want and not mounted:
        subprocess.run(["mount", "-t", "tracefs", "t", "/sys/kernel/tracing"], check=True)
    elif mounted and not want:
        subprocess.run(["umount", "/sys/kernel/tracing"], check=True)
    yield
    if want and not mounted:
        subprocess.run(["umount", "/sys/kernel/tracing"], check=True)
    elif mounted and not want:
        subprocess.run(["mount", "-t", "tracefs", "t", "/sys/kernel/tracing"], check=True)


def test_an_attached_tracepoint_program_runs(loaded, tracefs):
    counts = loaded.maps["counts"]
    loaded.attach()
    subprocess.run(["true"])
    assert os.getpid() in counts


def test_attach_of_a_program_without_a_hook_in_its_name(loaded):
    with pytest.raises(pybpf.AttachError, match="does not say where to attach"):
        loaded.programs["set_mark"].attach()


def test_a_section_that_names_no_hook_is_left_out(sections, tracefs):
    sections.load()
    assert sections.attach() == []
    assert sections.programs["no_hook"].loaded
    with pytest.raises(pybpf.AttachError, match="section 'tp' does not say where to attach"):
        sections.programs["no_hook"].attach()


def test_a_missing_tracepoint_is_named(bpf_object, tracefs):
    data = bpf_object("everything").read_bytes()
    data = data.replace(b"tp/sched/sched_process_exec\0", b"tp/sched/sched_process_exek\0")
    with pybpf.load(data) as obj, pytest.raises(pybpf.AttachError, match="sched_process_exek"):
        obj.attach()


def test_struct_ops_are_registered_and_unregistered(bpf_object):
    available = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
    with pybpf.load(bpf_object("congestion")) as obj:
        (link,) = obj.attach()
        assert link.source is obj.maps["pybpf_test"]
        assert "pybpf_test" in available.read_text().split()
        link.detach()
        assert "pybpf_test" not in available.read_text().split()


# ---- what cannot be had --------------------------------------------------------------------------


def test_a_token_from_nowhere_is_refused(bpf_object):
    with pytest.raises(pybpf.KernelError) as caught:
        pybpf.load(bpf_object("everything"), token="/nonexistent")
    error = caught.value
    if pybpf.libbpf_version() < (1, 4):
        assert type(error) is pybpf.NotSupportedError
        assert "libbpf 1.4" in str(error)
    else:
        assert isinstance(error, pybpf.LoadError)
        assert error.errno_name == "ENOENT"
        assert "/nonexistent" in str(error)


@pytest.fixture
def owners(loaded, bpffs):
    """One of each kind that owns something."""
    (link,) = loaded.attach()
    counts, on_exec = loaded.maps["counts"], loaded.programs["on_exec"]
    link.pin(bpffs / "link")
    with (
        Map.from_fd(counts.fileno()) as bpf_map,
        Program.from_fd(on_exec.fileno()) as program,
        Link.open_pinned(bpffs / "link") as pinned,
        loaded.events("readings") as reader,
    ):
        owned = OwnedFd(os.dup(counts.fileno()), "a descriptor")
        yield [loaded, counts, on_exec, link, bpf_map, program, pinned, reader, owned]
        owned.close()
    link.unpin(bpffs / "link")


@pytest.mark.requires("perf_event_links")
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_what_owns_something_cannot_be_copied(owners, duplicate):
    for owner in owners:
        with pytest.raises(TypeError, match=f"^{type(owner).__name__} cannot be copied"):
            duplicate(owner)
    assert len({type(owner) for owner in owners}) == 8
