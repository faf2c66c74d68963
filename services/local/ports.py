"""Ports of this machine: the usual one where it is free, another where it is taken."""

from __future__ import annotations

import socket
from collections.abc import Mapping

DEFAULT_PORTS: Mapping[str, int] = {
    "postgres": 5432,
    "valkey": 6379,
    "gateway": 8400,
    "pool": 8401,
    "generation": 8402,
    "verification": 8403,
    "training": 8404,
    "cascade": 8405,
    "engine": 8500,
    "flower": 5555,
}


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose_ports(wanted: Mapping[str, int] = DEFAULT_PORTS) -> dict[str, int]:
    """A free port for each name, the wanted one where possible. All are different."""
    chosen = {name: port for name, port in wanted.items() if is_free(port)}
    held: list[socket.socket] = []
    try:
        for name in wanted.keys() - chosen.keys():
            probe = socket.socket()
            probe.bind(("127.0.0.1", 0))  # held open until all are chosen, so that no two get the same
            held.append(probe)
            chosen[name] = probe.getsockname()[1]
    finally:
        for probe in held:
            probe.close()
    return chosen


def unusual_ports(ports: Mapping[str, int]) -> tuple[str, ...]:
    """A sentence for each process that does not listen where it usually does."""
    return tuple(
        f"Port {DEFAULT_PORTS[name]} is in use: {name} listens on {port} this time."
        for name, port in ports.items()
        if port != DEFAULT_PORTS[name]
    )
