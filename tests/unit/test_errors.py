# SPDX-License-Identifier: BSD-2-Clause
"""Errors: what they say, that it fits a screen, and that they survive pickling."""

from __future__ import annotations

import errno
import pickle

import pybpf
import pytest
from pybpf import errors

EXAMPLES = [
    errors.Error("plain"),
    errors.ObjectFormatError("is text", "prog.o", ".BTF", 16),
    errors.NotFoundError("map", "evnts", ["events", "counts"]),
    errors.LayoutError("4 bytes, not 5"),
    errors.StateError("not now"),
    errors.ClosedError("closed"),
    errors.BusyError("busy"),
    errors.KernelError("pin", "map 'x'", errno.EPERM, "detail", "log", "try this"),
    errors.ObjectNotFoundError("open", "x.o", errno.ENOENT),
    errors.LoadError("create", "map 'x'", errno.E2BIG, stage="map", program=None),
    errors.VerifierError(
        "verify", "program 'p'", errno.EACCES, program="p", verifier_log="R0 bad\n"
    ),
    errors.RelocationError(
        "relocate", "program 'p'", errno.EINVAL, type_name="struct s", field="f", source="x"
    ),
    errors.AttachError("attach", "program 'p'", errno.ENOENT),
    errors.PinError("pin", "map 'x'", errno.EEXIST),
    errors.MapFullError("update", "map 'x'", errno.E2BIG),
    errors.PrivilegeError("load", "object 'x'", errno.EPERM, hint="lacks CAP_BPF"),
    errors.NotSupportedError("open", "x", errno.EOPNOTSUPP),
    errors.IterationAborted("map 'm' changes too fast"),
    errors.ReloadError("health is bad"),
    errors.GuestError("busybox is not on this machine", "log", "apt-get install busybox-static"),
    errors.GuestTimeout("no end of sleep within 1 s"),
]


def test_every_error_has_an_example():
    found = {
        cls
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, errors.Error)
    }
    assert found == {type(example) for example in EXAMPLES}


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_pickle(error):
    error.note = "kept"
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    if isinstance(error, OSError):
        assert (again.errno, again.strerror) == (error.errno, error.strerror)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (pybpf.ObjectFormatError, ValueError),
        (pybpf.NotFoundError, KeyError),
        (pybpf.LayoutError, TypeError),
        (pybpf.StateError, RuntimeError),
        (pybpf.KernelError, OSError),
        (pybpf.PrivilegeError, PermissionError),
        (pybpf.ObjectNotFoundError, FileNotFoundError),
    ],
)
def test_errors_are_also_what_python_calls_them(error, builtin):
    assert issubclass(error, builtin)
    assert issubclass(error, pybpf.Error)


def test_a_kernel_error_tells_what_on_what_why_and_what_to_try():
    assert (
        str(EXAMPLES[7]) == "pin map 'x': EPERM (Operation not permitted)\n  detail\nhint: try this"
    )


def test_a_format_error_tells_where():
    assert str(EXAMPLES[1]) == "prog.o, section .BTF, offset 0x10: is text"


def test_a_wrong_name_suggests_or_lists():
    assert str(EXAMPLES[2]) == "no map named 'evnts'; did you mean 'events'?"
    assert str(errors.NotFoundError("map", "zzz", ["events", "counts"])).endswith(
        "there are: events, counts"
    )
    assert str(errors.NotFoundError("map", "zzz")) == "no map named 'zzz'; there are none"
    many = errors.NotFoundError("map", "zzz", [f"m{i}" for i in range(100)])
    assert str(many).endswith("and 88 more")


def test_long_details_are_cut_to_a_screen_and_kept_whole():
    detail = "\n".join(f"line {i} " + "x" * 500 for i in range(1000))
    error = errors.KernelError("load", "object 'x'", errno.EINVAL, detail, detail, "hint")
    lines = str(error).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 200
    assert "line 999" in lines[-2]
    assert error.log == detail
