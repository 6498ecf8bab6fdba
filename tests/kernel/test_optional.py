# SPDX-License-Identifier: BSD-2-Clause
"""Programs that a kernel lacks, left out where they are optional; those that attach by no name."""

from __future__ import annotations

import inspect
import subprocess

import pybpf
import pytest
from pybpf import attach_words

SOMETIMES = {
    "function": "",
    "guard": "",
    "cgroup_guard": "6.0",
    "system_call": "5.14",
    "connect_unix": "6.7",
    "filter": "6.4",
    "remote_control": "",
}


@pytest.fixture
def loaded(bpf_object):
    with pybpf.load(bpf_object("optional"), optional=True) as obj:
        yield obj


def test_what_no_kernel_has_is_left_out(loaded):
    assert loaded.skipped.keys() == {"no_function"}
    assert type(loaded.skipped["no_function"]) is pybpf.NotSupportedError
    assert "no 'no_such_function' to attach to" in str(loaded.skipped["no_function"])
    assert not loaded.programs["no_function"].loaded


def test_ops_that_no_kernel_has_are_left_out(bpf_object):
    with pybpf.open(bpf_object("optional_ops")) as obj:
        if pybpf.libbpf_version() < (1, 4):
            with pytest.raises(pybpf.NotSupportedError, match="no ops of type no_such_ops"):
                obj.load(optional=True)
            return
        obj.load(optional=True)
        assert obj.skipped.keys() == {"no_ops"}
        assert "no ops of type no_such_ops" in str(obj.skipped["no_ops"])
        assert not obj.programs["call"].loaded
        assert obj.programs["packet"].loaded


def test_the_rest_works_as_ever(loaded):
    (link,) = loaded.attach(optional=True)
    assert link.source is loaded.programs["on_exec"]
    assert loaded.skipped.keys() == {"no_function", "no_tracepoint"}
    assert type(loaded.skipped["no_tracepoint"]) is pybpf.NotSupportedError
    subprocess.run(["true"], check=True)
    assert loaded.bss.execs > 0


def test_what_is_not_optional_is_an_error(bpf_object):
    with pybpf.open(bpf_object("optional")) as obj:
        with pytest.raises(pybpf.KernelError, match="no_such_function"):
            obj.load(optional=["on_exec"])
        assert obj.skipped == {}
    with (
        pybpf.open(bpf_object("optional_ops")) as obj,
        pytest.raises(pybpf.NotSupportedError, match="no ops of type no_such_ops"),
    ):
        obj.load()


def test_attach_undoes_what_it_did_before_an_error(loaded):
    with pytest.raises(pybpf.AttachError, match="no_such_tracepoint"):
        loaded.attach(optional=["on_exec"])
    assert loaded.links == ()


def test_optional_names_are_names(loaded, bpf_object):
    with pytest.raises(pybpf.NotFoundError, match="did you mean 'on_exec'"):
        loaded.attach(optional=["on_exek"])
    with (
        pybpf.open(bpf_object("optional")) as obj,
        pytest.raises(pybpf.NotFoundError, match="did you mean 'packet'"),
    ):
        obj.load(optional="packed")


@pytest.mark.parametrize("name", SOMETIMES)
def test_one_kind_is_refused_as_it_is_left_out(bpf_object, name):
    """load() without optional= is what proves that leaving out was right."""
    refused = None
    with pybpf.open(bpf_object("optional")) as obj:
        choose(obj, name)
        try:
            obj.load()
        except pybpf.NotSupportedError as error:
            refused = error
    with pybpf.open(bpf_object("optional")) as obj:
        choose(obj, name)
        obj.load(optional=name)
        assert obj.programs[name].loaded == (refused is None)
        assert bool(obj.skipped) == (refused is not None)
    if refused is not None:
        assert "this kernel has no programs of section" in refused.hint
        assert SOMETIMES[name] in refused.hint


COMMON = ("cgroups", "everything", "iterators", "kinds", "kinds_net", "perf")


@pytest.mark.parametrize("name", COMMON)
def test_nothing_is_left_out_that_loads(bpf_object, name):
    with pybpf.open(bpf_object(name)) as obj:
        try:
            obj.load()
        except pybpf.NotSupportedError as error:
            program = error.target.split("'")[1]
        else:
            program = None
    with pybpf.load(bpf_object(name), optional=True) as obj:
        assert obj.skipped.keys() == ({program} if program else set())


def choose(obj, name):
    """Have one program loaded alone."""
    for program in obj.programs.values():
        program.autoload = program.name == name
    if obj.programs[name].type == pybpf.ProgramType.UNSPEC:  # libbpf 1.1
        kinds = {
            "connect_unix": ("CGROUP_SOCK_ADDR", "CGROUP_UNIX_CONNECT"),
            "filter": ("NETFILTER", "NETFILTER"),
        }
        kind, hook = kinds[name]
        obj.programs[name].type = pybpf.ProgramType[kind]
        obj.programs[name].expected_attach_type = pybpf.AttachType[hook]


def test_what_attaches_by_no_name_is_listed_with_its_method(loaded):
    needed = {
        "packet": "attach_xdp(device)",
        "connect4": "attach_cgroup(cgroup)",
        "elements": "attach_iter(...) or iter(...)",
        "raw_tracepoint": "attach_raw_tracepoint(name)",
    }
    assert loaded.unattached == {**needed, "on_exec": "attach()", "no_tracepoint": "attach()"}
    loaded.attach(optional=True)
    assert loaded.unattached == {**needed, "no_tracepoint": "attach()"}


def test_the_methods_that_are_named_exist():
    for words in {*attach_words._METHODS.values(), *attach_words._WHERE.values()}:
        method = getattr(pybpf.ObjectProgram, words.partition("(")[0])
        for name in words.partition("(")[2].rstrip(")").split(", "):
            assert name in inspect.signature(method).parameters, words


def test_ops_that_are_not_registered_are_listed(bpf_object):
    with pybpf.load(bpf_object("congestion")) as obj:
        assert obj.unattached == {"pybpf_test": "attach()"}
        obj.attach()
        assert obj.unattached == {}


def test_ops_whose_programs_are_switched_off(bpf_object):
    """Before 1.4, libbpf crashes; newer ones switch them on."""
    with pybpf.open(bpf_object("congestion")) as obj:
        for program in obj.programs.values():
            program.autoload = False
        if pybpf.libbpf_version() < (1, 4):
            with pytest.raises(pybpf.NotSupportedError, match=r"needs libbpf 1\.4"):
                obj.load()
        else:
            obj.load()
            assert obj.programs["ssthresh"].loaded
