"""Ports for servers that are stopped and started again under the same address."""

from __future__ import annotations

import socket
from random import SystemRandom

# Below what systems give to outgoing connections: nobody takes the port while its server is down.
_FIRST, _LAST = 15_000, 32_000
_chance = SystemRandom()


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on."""
    for _ in range(1_000):
        port = _chance.randint(_FIRST, _LAST)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
        return port
    raise OSError(f"no free port between {_FIRST} and {_LAST}")
