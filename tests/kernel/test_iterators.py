# SPDX-License-Identifier: BSD-2-Clause
"""Iterator programs: lines and records, what they go over, long output, and its early end."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from contextlib import contextmanager

import features
import numpy
import pybpf
import pytest
from pybpf import CgroupIterOrder

ENTRIES = 60_000


@pytest.fixture
def loaded(bpf_object):
    with pybpf.load(bpf_object("iterators")) as obj:
        yield obj


@pytest.fixture
def programs(loaded):
    return loaded.programs


@pytest.fixture
def numbers(loaded):
    """A map of (i, 3 * i)."""
    numbers = loaded.maps["numbers"]
    numbers.update_many({i: 3 * i for i in range(ENTRIES)})
    return numbers


@pytest.fixture
def cgroup_programs(bpf_object):
    features.require("cgroup_iter")
    with pybpf.open(bpf_object("iterators")) as obj:
        obj.programs["cgroups"].autoload = True
        obj.load()
        yield obj


class Entry(ctypes.Structure):
    _fields_ = [("key", ctypes.c_uint64), ("value", ctypes.c_uint64)]


def own_line():
    with open("/proc/self/comm") as comm:
        return f"{os.getpid()} {os.getpid()} {comm.read().strip()}"


@contextmanager
def folder_open(path):
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def threads():
    """Three more threads of this process; their ids."""
    ended = threading.Event()
    running = [threading.Thread(target=ended.wait) for _ in range(3)]
    for thread in running:
        thread.start()
    yield [thread.native_id for thread in running]
    ended.set()
    for thread in running:
        thread.join()


# ---- lines and records ---------------------------------------------------------------------------


def test_each_object_gives_its_line(programs):
    lines = list(programs["tasks"].iter())
    assert own_line() in lines
    assert own_line() in programs["tasks"].iter()
    processes = {int(line.split()[1]) for line in lines}
    assert processes & {int(name) for name in os.listdir("/proc") if name.isdigit()} == processes


@pytest.mark.native
def test_records_are_typed_by_name_type_or_class(loaded, numbers):
    program = loaded.programs["element_records"]
    expected = {(i, 3 * i) for i in range(ENTRIES)}
    for type in ("struct entry", loaded.btf["struct entry"], Entry):
        records = list(program.iter(type=type, map=numbers))
        assert len(records) == ENTRIES
        assert {(record.key, record.value) for record in records} == expected
    assert isinstance(records[0], Entry)
    dtype = numpy.dtype([("key", "<u8"), ("value", "<u8")])
    assert {tuple(record) for record in program.iter(type=dtype, map=numbers)} == expected


@pytest.mark.native
def test_records_of_a_number(loaded, numbers):
    values = list(loaded.programs["element_records"].iter(type="__u64", map=numbers))
    assert sorted(values) == sorted([*range(ENTRIES), *range(0, 3 * ENTRIES, 3)])


@pytest.mark.requires("task_iter")
def test_a_record_that_is_cut_off_is_an_error(programs):
    iteration = programs["task_records"].iter(type="struct entry", tid=threading.get_native_id())
    assert next(iteration).key == os.getpid() << 32 | threading.get_native_id()
    with pytest.raises(pybpf.LayoutError, match=r"'task_records' ends with 8 bytes.*entry take 16"):
        next(iteration)
    assert list(iteration) == []


def test_types_that_make_no_records(programs):
    with pytest.raises(pybpf.NotFoundError, match="struct entry"):
        programs["task_records"].iter(type="struct entri")
    empty = type("Empty", (ctypes.Structure,), {"_fields_": []})
    for given in (empty, bytes, {1: Entry}, lambda data: Entry):
        with pytest.raises(pybpf.LayoutError, match="have no size"):
            programs["task_records"].iter(type=given)


@pytest.mark.native
def test_megabytes_of_lines(loaded, numbers):
    lines = list(loaded.programs["elements"].iter(map=numbers))
    assert len(lines) == ENTRIES
    assert set(lines) == {f"{i} is worth {3 * i}" for i in range(ENTRIES)}


@pytest.mark.native
def test_a_line_may_be_as_long_as_all(loaded, numbers):
    loaded.bss["piece"] = b"x" * 4096
    pieces = 0
    for line in loaded.programs["endless_line"].iter(map=numbers):
        pieces, rest = divmod(len(line), 4096)
        assert rest == 0
        assert line == "x" * len(line)
    assert pieces == ENTRIES


def test_bytes_that_are_no_text(loaded):
    loaded.maps["numbers"][1] = 1
    loaded.bss["piece"] = b"\xffabc\n" + b"\0" * 4091
    assert next(loaded.programs["endless_line"].iter(map=loaded.maps["numbers"])) == "\ufffdabc"


def test_reading_gives_the_rest_as_bytes(loaded, numbers):
    program = loaded.programs["element_records"]
    everything = program.iter(map=numbers).read()
    assert len(everything) == ENTRIES * ctypes.sizeof(Entry)
    iteration = program.iter(type=Entry, map=numbers)
    first = bytes(next(iteration))
    assert first + iteration.read() == everything
    assert iteration.read() == b""
    assert list(iteration) == []


def test_nothing_to_go_over_gives_nothing(loaded):
    assert list(loaded.programs["elements"].iter(map=loaded.maps["numbers"])) == []
    assert loaded.programs["elements"].iter(map=loaded.maps["numbers"]).read() == b""


def test_a_program_that_writes_nothing(loaded):
    assert list(loaded.programs["silent"].iter()) == []
    assert loaded.bss["runs"] > 2


# ---- what is gone over ---------------------------------------------------------------------------


def test_maps_of_the_machine(loaded):
    ids = {int(line) for line in loaded.programs["maps"].iter()}
    assert {each.info().id for each in loaded.maps.values()} <= ids


def test_kernels_that_cannot_be_told_a_task_say_so(programs):
    if features.has("task_iter"):
        programs["tasks"].iter(tid=threading.get_native_id()).close()
        return
    with pytest.raises(pybpf.NotSupportedError) as refused:
        programs["tasks"].iter(tid=threading.get_native_id())
    assert "Linux 6.1" in refused.value.hint


@pytest.mark.requires("task_iter")
def test_one_process_or_thread(programs, threads):
    process = {int(line.split()[0]) for line in programs["tasks"].iter(pid=os.getpid())}
    assert process == {int(name) for name in os.listdir("/proc/self/task")} >= {*threads}
    for tid in (os.getpid(), threads[0]):
        (line,) = programs["tasks"].iter(tid=tid)
        assert line.startswith(f"{tid} {os.getpid()} ")
    assert list(programs["tasks"].iter(pid=(1 << 22) + 1)) == []


def test_cgroups_in_each_order(cgroup_programs, cgroup_root):
    program = cgroup_programs.programs["cgroups"]
    outer = cgroup_root / f"pybpf-iterators-{os.getpid()}"
    inner = outer / "inner"
    inner.mkdir(parents=True)
    try:
        a, b = outer.stat().st_ino, inner.stat().st_ino
        orders = {
            CgroupIterOrder.SELF_ONLY: [a],
            CgroupIterOrder.DESCENDANTS_PRE: [a, b],
            CgroupIterOrder.DESCENDANTS_POST: [b, a],
        }
        for order, expected in orders.items():
            assert [int(line) for line in program.iter(cgroup=outer, order=order)] == expected
        assert [int(line) for line in program.iter(cgroup=outer)] == [a, b]
        up = program.iter(cgroup=inner, order=CgroupIterOrder.ANCESTORS_UP)
        assert [int(line) for line in up][:2] == [b, a]
        with folder_open(inner) as folder:
            assert program.iter(cgroup=folder).read() == b"%d\n" % b
        everywhere = {int(line) for line in program.iter()}
        assert {cgroup_root.stat().st_ino, a, b} <= everywhere
    finally:
        inner.rmdir()
        outer.rmdir()


def test_what_is_no_cgroup(cgroup_programs, tmp_path):
    program = cgroup_programs.programs["cgroups"]
    with pytest.raises(pybpf.AttachError, match="EBADF"):
        program.iter(cgroup=tmp_path)
    with pytest.raises(FileNotFoundError):
        program.iter(cgroup=tmp_path / "none")
    with pytest.raises(pybpf.LayoutError, match="descriptor 0"):
        program.iter(cgroup=0)
    with pytest.raises(pybpf.AttachError, match="EINVAL"):
        program.iter(order=CgroupIterOrder(77))


def test_parameters_that_the_iterator_does_not_take(programs, loaded):
    numbers = loaded.maps["numbers"]
    with pytest.raises(pybpf.LayoutError, match="'bpf_map_elem' needs the map"):
        programs["elements"].iter()
    with pytest.raises(pybpf.LayoutError, match="'bpf_map_elem' takes map, not pid"):
        programs["elements"].iter(map=numbers, pid=1)
    with pytest.raises(pybpf.LayoutError, match="'task' takes pid or tid, not map, order"):
        programs["tasks"].iter(map=numbers, order=CgroupIterOrder.SELF_ONLY)
    with pytest.raises(pybpf.LayoutError, match="'bpf_map' takes no parameters, not map"):
        programs["maps"].iter(map=numbers)
    with pytest.raises(pybpf.LayoutError, match="not both"):
        programs["tasks"].iter(pid=1, tid=1)
    for number in (-1, 0, 1 << 31):
        with pytest.raises(OverflowError, match=str(number)):
            programs["tasks"].iter(tid=number)


def test_what_the_kernel_refuses_to_go_over(programs, loaded):
    with pytest.raises(pybpf.AttachError, match=r"'elements': EACCES.*\n.*more of a key"):
        programs["elements"].iter(map=loaded.maps["flags"])
    with pytest.raises(pybpf.AttachError, match=r"'no_iterator': EINVAL.*\n.*no iterator"):
        programs["no_iterator"].iter()
    queue = pybpf.Map.create(pybpf.MapType.QUEUE, key_size=0, value_size=8, max_entries=4)
    with queue, pytest.raises(pybpf.AttachError, match=r"EINVAL.*\n.*none for maps of this type"):
        programs["elements"].iter(map=queue)


def test_before_load_there_is_nothing_to_run(bpf_object):
    with (
        pybpf.open(bpf_object("iterators")) as obj,
        pytest.raises(pybpf.StateError, match="load"),
    ):
        obj.programs["tasks"].iter()


def test_a_target_that_was_set_takes_its_parameters(bpf_object):
    with pybpf.open(bpf_object("iterators")) as obj:
        for program in obj.programs.values():
            program.autoload = program.name == "silent"
        obj.programs["silent"].set_attach_target("bpf_map")
        obj.load()
        with pytest.raises(pybpf.LayoutError, match="'bpf_map' takes no parameters"):
            obj.programs["silent"].iter(pid=1)
        assert list(obj.programs["silent"].iter()) == []


# ---- what the kernel does on the way -------------------------------------------------------------


def test_a_program_may_ask_for_an_object_again(loaded):
    pids = [line.split()[0] for line in loaded.programs["tasks"].iter()]
    loaded.bss["postponements"] = 50
    assert list(loaded.programs["postponed"].iter())[:20] == pids[:20]
    assert loaded.bss["postponements"] == 0
    assert loaded.bss["runs"] >= 50 + len(pids) - 5


def test_millions_of_objects_without_output(loaded):
    flags = loaded.maps["flags"]
    flags[2_400_000] = 1
    assert list(loaded.programs["raised_flags"].iter(map=flags)) == ["2400000"]


def test_an_object_that_writes_more_than_the_kernel_keeps(loaded):
    numbers = loaded.maps["numbers"]
    numbers.update({1: 1, 2: 2})
    loaded.bss["pieces"] = 7
    assert len(loaded.programs["huge"].iter(map=numbers).read()) == 2 * 7 * 4096
    loaded.bss["pieces"] = 64
    iteration = loaded.programs["huge"].iter(map=numbers)
    with pytest.raises(pybpf.KernelError, match=r"'huge': E2BIG.*\n.*8 pages"):
        next(iteration)
    assert iteration.closed
    with pytest.raises(pybpf.ClosedError, match="'huge'"):
        next(iteration)


def test_cgroups_that_write_more_than_the_kernel_keeps(cgroup_programs, cgroup_root):
    folder = cgroup_root / f"pybpf-iterators-{os.getpid()}"
    folder.mkdir()
    try:
        cgroup_programs.bss["pieces"] = 5 * os.sysconf("SC_PAGE_SIZE") // 4096
        iteration = cgroup_programs.programs["cgroups"].iter()
        with pytest.raises(pybpf.KernelError, match=r"ENOTSUP.*\n.*over cgroups"):
            iteration.read()
    finally:
        folder.rmdir()


# ---- its end -------------------------------------------------------------------------------------


def test_what_follows_an_exception_of_the_caller_is_still_there(loaded, numbers):
    iteration = loaded.programs["elements"].iter(map=numbers)
    seen = []

    def stumble():
        for line in iteration:
            seen.append(line)
            if len(seen) == 5:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stumble()
    assert len({*seen, *iteration}) == ENTRIES


def test_closing_ends_it_and_so_does_the_end(loaded, numbers):
    program = loaded.programs["elements"]
    with program.iter(map=numbers) as iteration:
        next(iteration)
        assert not iteration.closed
        assert repr(iteration) == "<Iteration: iterator of program 'elements'>"
    assert iteration.closed
    assert repr(iteration) == "<Iteration: iterator of program 'elements' closed>"
    for use in (iteration.read, iteration.__next__):
        with pytest.raises(pybpf.ClosedError, match="'elements'"):
            use()
    iteration.close()
    whole = program.iter(map=numbers)
    assert len(list(whole)) == ENTRIES
    assert whole.closed
    whole.close()
    assert list(whole) == []


def test_its_object_may_be_closed_before(bpf_object):
    with pybpf.load(bpf_object("iterators")) as obj:
        numbers = obj.maps["numbers"]
        numbers.update_many({i: i for i in range(5000)})
        iteration = obj.programs["elements"].iter(map=numbers)
        first = next(iteration)
    assert len({first, *iteration}) == 5000


def test_iterations_that_are_dropped_leave_no_descriptors(loaded, numbers):
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(50):
        next(loaded.programs["elements"].iter(map=numbers))
        loaded.programs["tasks"].iter()
    assert set(os.listdir("/proc/self/fd")) == before


def test_an_interrupted_read_ends_it(loaded):
    """What the kernel gave to an interrupted read is gone: going on would leave it out unsaid."""

    class Interrupted(Exception):
        pass

    def interrupt(*_):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        iteration = loaded.programs["raised_flags"].iter(map=loaded.maps["flags"])
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(Interrupted):
            list(iteration)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert iteration.closed
    with pytest.raises(pybpf.ClosedError):
        next(iteration)


def test_closing_while_another_thread_reads(loaded):
    iteration = loaded.programs["raised_flags"].iter(map=loaded.maps["flags"])
    begun = threading.Event()
    ended = []

    def read():
        begun.set()
        try:
            ended.append(list(iteration))
        except pybpf.ClosedError as error:
            ended.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    begun.wait()  # from here on it reads for a quarter of a second
    iteration.close()
    thread.join()
    assert len(ended) == 1
    assert isinstance(ended[0], pybpf.ClosedError)


def test_threads_may_share_one(loaded, numbers, switch_often):
    iteration = loaded.programs["elements"].iter(map=numbers)
    parts = [[] for _ in range(4)]
    threads = [threading.Thread(target=lambda part=part: part.extend(iteration)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [line for part in parts for line in part]
    assert len(lines) == len(set(lines)) == ENTRIES


# ---- attach() ------------------------------------------------------------------------------------


def test_attaching_leaves_out_what_needs_parameters(loaded, bpffs):
    loaded.attach()
    attached = {link.source.name: link for link in loaded.links}
    assert set(attached) == {"tasks", "task_records", "postponed", "silent", "maps"}
    attached["tasks"].pin(bpffs / "tasks")
    assert own_line() in (bpffs / "tasks").read_text().splitlines()
    attached["tasks"].unpin(bpffs / "tasks")
    with pytest.raises(pybpf.AttachError, match=r"'elements' to iter/bpf_map_elem.*\n.*iter\(\)"):
        loaded.programs["elements"].attach()


# ---- links ---------------------------------------------------------------------------------------


def test_a_pinned_iterator_is_read_as_a_file(loaded, numbers, bpffs):
    link = loaded.programs["elements"].attach_iter(map=numbers)
    assert link in loaded.links
    assert link.info().type == pybpf.LinkType.ITER
    link.pin(bpffs / "elements")
    link.close()
    assert len((bpffs / "elements").read_text().splitlines()) == ENTRIES
    numbers.clear()
    numbers[4] = 5
    assert (bpffs / "elements").read_text() == "4 is worth 5\n"
    (bpffs / "elements").unlink()


@pytest.mark.requires("task_iter")
def test_a_pinned_iterator_over_one_task(programs, bpffs):
    with programs["tasks"].attach_iter(tid=threading.get_native_id()) as link:
        link.pin(bpffs / "task")
        assert (bpffs / "task").read_text().split()[0] == str(threading.get_native_id())
        link.unpin(bpffs / "task")


def test_another_iterator_takes_the_place_of_a_pinned_one(loaded, numbers, bpffs):
    numbers.clear()
    numbers[1] = 2
    link = loaded.programs["elements"].attach_iter(map=numbers)
    link.pin(bpffs / "elements")
    link.update(loaded.programs["element_records"])
    assert (bpffs / "elements").read_bytes() == (1).to_bytes(8, "little") + (2).to_bytes(
        8, "little"
    )
    link.unpin(bpffs / "elements")


def test_a_link_of_an_iterator_needs_to_know_what_it_goes_over(programs, numbers):
    with pytest.raises(pybpf.LayoutError, match="needs the map"):
        programs["elements"].attach_iter()
    with pytest.raises(pybpf.LayoutError, match="takes no parameters"):
        programs["maps"].attach_iter(map=numbers)
    with pytest.raises(pybpf.AttachError, match="no iterator"):
        programs["no_iterator"].attach_iter()
