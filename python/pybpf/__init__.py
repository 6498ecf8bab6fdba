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
            print(event.pid, event.comm.text)

Everything up to open() needs no privilege and asks the kernel nothing.  See pybpf.object for an
object's states and pybpf.errors for everything that is raised.
"""

from pybpf._native import version as libbpf_version
from pybpf.errors import (
    AttachError,
    BusyError,
    ClosedError,
    Error,
    GuestError,
    GuestTimeout,
    IterationAborted,
    KernelError,
    LayoutError,
    LayoutWarning,
    LoadError,
    MapFullError,
    NotFoundError,
    NotSupportedError,
    ObjectFormatError,
    ObjectNotFoundError,
    PinError,
    PrivilegeError,
    ReloadError,
    RelocationError,
    StateError,
    VerifierError,
)
from pybpf.link import Link
from pybpf.map import Map
from pybpf.object import Object
from pybpf.object_map import ObjectMap
from pybpf.opening import load, open
from pybpf.program import ObjectProgram, Program
from pybpf.variables import GlobalVariable, Section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.accounting import ReaderStats
    from pybpf.btf import Btf
    from pybpf.cgroup import Cgroup
    from pybpf.codec import PerCpu
    from pybpf.constants import (
        AttachType,
        CgroupIterOrder,
        CgroupMode,
        LinkType,
        MapFlags,
        MapType,
        NetfilterHook,
        PerfCache,
        PerfCacheOp,
        PerfCacheResult,
        PerfHardware,
        PerfSoftware,
        ProbeMode,
        ProgramType,
        UpdateFlags,
        XdpMode,
    )
    from pybpf.events import Reader
    from pybpf.headers import get_include
    from pybpf.hooks.netlink import ClsactFilter, create_clsact, destroy_clsact, detach_xdp
    from pybpf.hooks.perf import PerfEvent
    from pybpf.inventory import enable_stats, links, maps, owners, programs
    from pybpf.iteration import Iteration
    from pybpf.layout import Chars, Struct
    from pybpf.network_query import (
        DeviceHooks,
        NetnsHooks,
        SockmapHooks,
        XdpProgram,
        query_device,
        query_netns,
        query_sockmap,
    )
    from pybpf.reloading import reload
    from pybpf.running import RunResult
    from pybpf.symbols import Frame
    from pybpf.takeover import reload_pinned
    from pybpf.tracing import TraceLine, TracePipe, trace_pipe
    from pybpf.user_ring import UserRing, UserSample
    from pybpf.views import ArrayView, StructView

__version__ = "0.1.0"

__all__ = [
    "ArrayView",
    "AttachError",
    "AttachType",
    "Btf",
    "BusyError",
    "Cgroup",
    "CgroupIterOrder",
    "CgroupMode",
    "Chars",
    "ClosedError",
    "ClsactFilter",
    "DeviceHooks",
    "Error",
    "Frame",
    "GlobalVariable",
    "GuestError",
    "GuestTimeout",
    "Iteration",
    "IterationAborted",
    "KernelError",
    "LayoutError",
    "LayoutWarning",
    "Link",
    "LinkType",
    "LoadError",
    "Map",
    "MapFlags",
    "MapFullError",
    "MapType",
    "NetfilterHook",
    "NetnsHooks",
    "NotFoundError",
    "NotSupportedError",
    "Object",
    "ObjectFormatError",
    "ObjectMap",
    "ObjectNotFoundError",
    "ObjectProgram",
    "PerCpu",
    "PerfCache",
    "PerfCacheOp",
    "PerfCacheResult",
    "PerfEvent",
    "PerfHardware",
    "PerfSoftware",
    "PinError",
    "PrivilegeError",
    "ProbeMode",
    "Program",
    "ProgramType",
    "Reader",
    "ReaderStats",
    "ReloadError",
    "RelocationError",
    "RunResult",
    "Section",
    "SockmapHooks",
    "StateError",
    "Struct",
    "StructView",
    "TraceLine",
    "TracePipe",
    "UpdateFlags",
    "UserRing",
    "UserSample",
    "VerifierError",
    "XdpMode",
    "XdpProgram",
    "create_clsact",
    "destroy_clsact",
    "detach_xdp",
    "enable_stats",
    "get_include",
    "libbpf_version",
    "links",
    "load",
    "maps",
    "open",
    "owners",
    "programs",
    "query_device",
    "query_netns",
    "query_sockmap",
    "reload",
    "reload_pinned",
    "trace_pipe",
]

# Imported at first use: a program that only loads and attaches is measured from its start, and
# needs neither enum nor a BTF parser.
_LATE = {
    "ArrayView": "views",
    "AttachType": "constants",
    "Btf": "btf",
    "Cgroup": "cgroup",
    "CgroupIterOrder": "constants",
    "CgroupMode": "constants",
    "Chars": "layout",
    "ClsactFilter": "hooks.netlink",
    "DeviceHooks": "network_query",
    "Frame": "symbols",
    "Iteration": "iteration",
    "LinkType": "constants",
    "MapFlags": "constants",
    "MapType": "constants",
    "NetfilterHook": "constants",
    "NetnsHooks": "network_query",
    "PerCpu": "codec",
    "PerfCache": "constants",
    "PerfCacheOp": "constants",
    "PerfCacheResult": "constants",
    "PerfEvent": "hooks.perf",
    "PerfHardware": "constants",
    "PerfSoftware": "constants",
    "ProbeMode": "constants",
    "ProgramType": "constants",
    "Reader": "events",
    "ReaderStats": "accounting",
    "RunResult": "running",
    "SockmapHooks": "network_query",
    "Struct": "layout",
    "StructView": "views",
    "TraceLine": "tracing",
    "TracePipe": "tracing",
    "UpdateFlags": "constants",
    "UserRing": "user_ring",
    "UserSample": "user_ring",
    "XdpMode": "constants",
    "XdpProgram": "network_query",
    "create_clsact": "hooks.netlink",
    "destroy_clsact": "hooks.netlink",
    "detach_xdp": "hooks.netlink",
    "enable_stats": "inventory",
    "get_include": "headers",
    "links": "inventory",
    "maps": "inventory",
    "owners": "inventory",
    "programs": "inventory",
    "query_device": "network_query",
    "query_netns": "network_query",
    "query_sockmap": "network_query",
    "reload": "reloading",
    "reload_pinned": "takeover",
    "trace_pipe": "tracing",
}


def __getattr__(name: str) -> object:
    if name not in _LATE:
        raise AttributeError(f"module 'pybpf' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"pybpf.{_LATE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
