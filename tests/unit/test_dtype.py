# SPDX-License-Identifier: BSD-2-Clause
"""numpy dtypes against the ctypes classes of the same BTF, and what is there without numpy."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from btf_sources import compile_bpf
from pybpf import dtype as dtypes
from pybpf.btf import Btf, Composite, DataSec, Enum, Float, Int, Pointer
from pybpf.errors import LayoutError
from pybpf.layout import _CompositeCodec, _TextSlot, ctype, decode

KERNEL = Path("/sys/kernel/btf/vmlinux")

SOURCE = """
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef u16 __be16;
typedef u32 __be32;
enum color { RED, BLUE = -3 };
struct point { u8 x; u32 y; } point;
struct event {
    u64 time; __be32 address; __be16 ports[2]; char comm[16]; char names[2][4];
    struct point points[2][3]; enum color color; _Bool flag; u8 *pointer;
    union { u32 word; u8 bytes[4]; }; float half; double real; unsigned __int128 huge;
    u8 tail[];
} event;
struct bits {
    u32 a : 3; int b : 6; u64 c : 40; _Bool d : 1; enum color e : 4; u8 f; u16 g : 9, h : 7;
} bits;
struct wide_bits { u8 a : 5; u64 b : 59; long long c : 64; } __attribute__((packed)) wide_bits;
struct empty {} empty;
"""


@pytest.fixture(scope="module", params=["little", "big"])
def btf(request: pytest.FixtureRequest) -> Btf:
    return Btf(compile_bpf(SOURCE, request.param).btf)


def test_members_are_those_of_the_struct(btf: Btf) -> None:
    event = btf["struct event"]
    assert event.dtype is event.dtype
    assert event.dtype.itemsize == event.size
    data = random.Random(1).randbytes(3 * event.size)
    rows = np.frombuffer(data, event.dtype)
    for number, row in enumerate(rows):
        value: Any = decode(event, data[number * event.size :][: event.size])
        assert (row["time"], row["address"]) == (value.time, value.address)
        assert list(row["ports"]) == list(value.ports)
        assert (row["word"], list(row["bytes"])) == (value.word, list(value.bytes))
        assert row["comm"] == value.comm
        assert list(row["names"]) == list(value.names)
        assert row["points"].shape == (2, 3)
        assert row["points"][1, 2]["y"] == value.points[1][2].y
        assert (row["color"], row["pointer"]) == (value.color, value.pointer)
        assert row["huge"].tobytes() == bytes(value)[type(value).huge.offset :][:16]
    assert event.dtype["flag"] == np.dtype("?")
    assert "x" not in event.dtype.names


def test_scalars_and_arrays(btf: Btf) -> None:
    assert btf["u8"].dtype == np.dtype("u1")
    assert btf["__be32"].dtype == np.dtype(">u4")
    assert btf["enum color"].dtype == np.dtype("<i4" if btf.byteorder == "little" else ">i4")
    assert btf["struct empty"].dtype.itemsize == 0
    with pytest.raises(LayoutError, match="no value"):
        _ = btf[0].dtype


@pytest.mark.parametrize("key", ["struct bits", "struct wide_bits"])
def test_bitfields(btf: Btf, key: str) -> None:
    bits = btf[key]
    assert isinstance(bits, Composite)
    data = random.Random(2).randbytes(20 * bits.size)
    rows = np.frombuffer(data, bits.dtype).reshape(4, 5)
    values: list[Any] = [decode(bits, data[at:]) for at in range(0, len(data), bits.size)]
    for member in bits.members:
        if member.bitfield_size:
            found = dtypes.bits(rows, bits, member.name)
            assert found.shape == (4, 5)
            expected = [getattr(value, member.name) for value in values]
            assert found.reshape(-1).tolist() == expected
    copied = np.empty_like(rows)
    for name in bits.dtype.names or ():
        copied[name] = rows[name]
    assert (dtypes.bits(copied, bits, "a") == dtypes.bits(rows, bits, "a")).all()
    with pytest.raises(LayoutError, match="no bitfield 'z'; it has a, b"):
        dtypes.bits(rows, bits, "z")
    with pytest.raises(LayoutError, match="not of the dtype of"):
        dtypes.bits(np.zeros(3), bits, "a")


def test_every_type_of_the_kernel() -> None:
    if not KERNEL.exists():
        pytest.skip("this kernel has no BTF")
    checked = 0
    for each in Btf(KERNEL.read_bytes()):
        if isinstance(each, DataSec) or not isinstance(
            each, Composite | Int | Enum | Float | Pointer
        ):
            continue
        assert each.dtype.itemsize == each.size, each
        if isinstance(each, Composite):
            codec = ctype(each)._codec_
            assert isinstance(codec, _CompositeCodec)
            for name, slot in codec.slots.items():
                if slot.is_field or isinstance(slot, _TextSlot):
                    assert each.dtype.fields is not None
                    kind, offset = each.dtype.fields[name][:2]
                    assert (kind.itemsize, offset) == (slot.size, slot.offset), (each, name)
            checked += 1
    assert checked > 5000


def test_without_numpy_the_error_tells_what_to_install() -> None:
    script = (
        "import sys; sys.modules['numpy'] = None\n"
        "from pybpf.btf import Btf\n"
        "import pybpf.layout\n"
        "try: Btf(bytes.fromhex(sys.argv[1]))[0].dtype\n"
        "except ImportError as error: print(error)\n"
    )
    data = compile_bpf(SOURCE).btf.hex()
    done = subprocess.run([sys.executable, "-c", script, data], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("dtypes need numpy: pip install pybpf[numpy]\n", "")
