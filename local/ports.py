"""Loopback ports: which are free, and which one keeps us from starting."""

import socket
from collections.abc import Iterable

_HOST = "127.0.0.1"


def is_taken(port: int) -> bool:
    """Whether another program listens there. Asked as a server would ask: a connection in TIME_WAIT does not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return True
    return False


def taken(ports: Iterable[int]) -> list[int]:
    return [port for port in ports if is_taken(port)]


def free(count: int) -> list[int]:
    """`count` different ports that were free a moment ago."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((_HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
