# SPDX-License-Identifier: BSD-2-Clause
"""Packets for tests of what is attached to the network."""

from __future__ import annotations

import socket
import subprocess

ETH_P_EXPERIMENTAL = 0x88B5


def send(payload=b"x"):
    """One packet over the loopback device; whether it arrived."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))  # or the kernel would answer
        udp.setblocking(False)
        udp.sendto(payload, udp.getsockname())
        try:
            return udp.recv(len(payload)) == payload
        except BlockingIOError:
            return False


def add_pair(mtu=1500):
    """Two devices, "left" and "right", that send to each other."""
    ip = ["ip", "link"]
    pair = ["name", "left", "mtu", str(mtu), "type", "veth"]
    peer = ["peer", "name", "right", "mtu", str(mtu)]
    subprocess.run([*ip, "add", *pair, *peer], check=True)
    for name in ("left", "right"):
        subprocess.run([*ip, "set", name, "up"], check=True)


def send_frame(device, size=60):
    """One Ethernet frame of an experimental kind, to everybody."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((device, 0))
        kind = ETH_P_EXPERIMENTAL.to_bytes(2, "big")
        raw.send((b"\xff" * 6 + b"\x02" + bytes(5) + kind).ljust(size, b"\0"))
