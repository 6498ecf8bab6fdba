# SPDX-License-Identifier: BSD-2-Clause
"""``pybpf net``: what is attached to network devices, to the network namespace and to cgroups."""

from __future__ import annotations

import os
import socket

import pybpf
from pybpf.cli import things
from pybpf.cli.output import DONE
from pybpf.constants import AttachType
from pybpf.kernel import mount_points

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any

    from pybpf.hooks.querying import Attached

_CGROUP_HOOKS = [each for each in AttachType if each.name.startswith("CGROUP_")]


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "net",
        help="what is attached to devices, the network namespace and cgroups",
        description="The programs that run on packets and sockets here, whoever attached them: on "
        "the devices of this network namespace (XDP, tcx, netkit, clsact), on the namespace "
        "itself, by netfilter, and on cgroups. Needs root, or CAP_SYS_ADMIN and CAP_NET_ADMIN.",
    )
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    owners = pybpf.owners()
    names = {each.id: each.name for each in pybpf.programs()}
    rows = [*on_devices(), *on_netns(), *by_netfilter(), *on_cgroups()]
    if options.json:
        things.print_json(
            [
                {"where": where, "hook": hook, "program": id, "name": names.get(id)}
                for where, hook, id in rows
            ]
        )
        return DONE
    things.print_things(
        ("WHERE", "HOOK", "PROGRAM", "NAME", "HELD BY"),
        (
            (where, hook, id, names.get(id, ""), things.owner_names(id, owners.programs))
            for where, hook, id in rows
        ),
    )
    return DONE


Row = tuple[str, str, int]


def on_devices() -> Iterator[Row]:
    for number, name in socket.if_nameindex():
        hooks = pybpf.query_device(number)
        for program in hooks.xdp:
            yield name, f"XDP, {program.mode.name}", program.program_id
        yield from at(name, "tcx ingress", hooks.tcx_ingress)
        yield from at(name, "tcx egress", hooks.tcx_egress)
        yield from at(name, "netkit primary", hooks.netkit_primary)
        yield from at(name, "netkit peer", hooks.netkit_peer)
        for each in (*hooks.clsact_ingress, *hooks.clsact_egress):
            hook = f"clsact {each.direction}, priority {each.priority}"
            yield name, hook, each.program_id


def at(where: str, hook: str, attached: Attached) -> Iterator[Row]:
    for id in attached.programs:
        yield where, hook, id


def on_netns() -> Iterator[Row]:
    hooks = pybpf.query_netns()
    where = f"net:[{hooks.ino}]"
    yield from at(where, "sk_lookup", hooks.sk_lookup)
    yield from at(where, "flow dissector", hooks.flow_dissector)


def by_netfilter() -> Iterator[Row]:
    """Those of all network namespaces: the kernel does not tell which."""
    for link in pybpf.links():
        if isinstance(link, pybpf.link_info.NetfilterLink):
            yield "netfilter", link.where.removeprefix("netfilter "), link.program_id


def on_cgroups() -> Iterator[Row]:
    for root in mount_points("cgroup2")[:1]:  # each shows the same
        for folder, _, _ in os.walk(root):
            cgroup = pybpf.Cgroup(folder)
            for hook in _CGROUP_HOOKS:
                try:
                    attached = cgroup.attached(hook)
                except pybpf.KernelError:
                    continue  # this kernel lacks the hook, or the cgroup was removed
                yield from at(folder, hook.name.removeprefix("CGROUP_").lower(), attached)
