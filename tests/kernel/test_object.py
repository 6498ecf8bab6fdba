# SPDX-License-Identifier: BSD-2-Clause
"""An object from open to close: states, configuration, variables, what load() tells."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pybpf
import pytest
from pybpf import AttachType, ProgramType

RUN_INPUT = (0).to_bytes(4, "little")


@pytest.fixture
def everything(bpf_object):
    with pybpf.open(bpf_object("everything")) as obj:
        yield obj


@pytest.fixture
def loaded(everything):
    everything.load()
    return everything


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
    assert loaded.variables["runs"] == 2


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


def test_constants_are_frozen_after_load(loaded):
    with pytest.raises(pybpf.StateError, match=r"before load\(\)"):
        loaded.rodata.step8 = 2
    assert loaded.rodata.step8 == 1


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


def test_programs_tell_what_they_cost_the_verifier(loaded):
    program = loaded.programs["on_exec"]
    stats = program.verifier_stats
    assert stats.processed_insns == program.info().verified_insns > 0
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
    assert "R1=ctx()" in program.verifier_log
    assert program.verifier_stats.peak_states is not None
    assert everything.programs["set_mark"].verifier_log == ""


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
    assert "missing_field.bpf.c" in error.source


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
    assert len(counts) == 1


def test_attach_of_a_program_without_a_hook_in_its_name(loaded):
    with pytest.raises(pybpf.AttachError, match="does not say where to attach"):
        loaded.programs["set_mark"].attach()


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
