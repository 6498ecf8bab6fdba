# SPDX-License-Identifier: BSD-2-Clause
"""pybpf: load precompiled CO-RE eBPF objects and use their maps, programs and links.

The path of an object is the shape of this package:

    file -> elf/btf -> open -> configure -> load -> attach -> consume -> close

    import pybpf

    with pybpf.open("prog.bpf.o") as obj:
        obj.rodata.target_pid = 42
        obj.load()
        obj.attach()
        for event in obj.events("events", type="struct event"):
            print(event.pid, event.comm)

Everything up to open() needs no privilege and asks the kernel nothing.  See pybpf.object for an
object's states and pybpf.errors for everything that is raised.
"""

from pybpf.btf import Btf
from pybpf.constants import AttachType, LinkType, MapFlags, MapType, ProgramType, UpdateFlags
from pybpf.errors import (
    AttachError,
    BusyError,
    ClosedError,
    Error,
    KernelError,
    LayoutError,
    LoadError,
    MapFullError,
    NotFoundError,
    NotSupportedError,
    ObjectFormatError,
    ObjectNotFoundError,
    PinError,
    PrivilegeError,
    RelocationError,
    StateError,
    VerifierError,
)
from pybpf.events import RingReader
from pybpf.link import Link
from pybpf.map import Map, ObjectMap
from pybpf.object import Object, ObjectState, load, open
from pybpf.program import ObjectProgram, Program
from pybpf.variables import Section

__version__ = "0.1.0"

__all__ = [
    "AttachError",
    "AttachType",
    "Btf",
    "BusyError",
    "ClosedError",
    "Error",
    "KernelError",
    "LayoutError",
    "Link",
    "LinkType",
    "LoadError",
    "Map",
    "MapFlags",
    "MapFullError",
    "MapType",
    "NotFoundError",
    "NotSupportedError",
    "Object",
    "ObjectFormatError",
    "ObjectMap",
    "ObjectNotFoundError",
    "ObjectProgram",
    "ObjectState",
    "PinError",
    "PrivilegeError",
    "Program",
    "ProgramType",
    "RelocationError",
    "RingReader",
    "Section",
    "StateError",
    "UpdateFlags",
    "VerifierError",
    "load",
    "open",
]
