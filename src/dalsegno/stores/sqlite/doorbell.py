"""How processes on one machine tell each other that something was written: a datagram on loopback.

A ring carries nothing and promises nothing: whoever hears it reads the tables, and whoever misses it reads
them a second later.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable

_WATCH_SECONDS = 5.0
_RING = b"ring"
_WATCH = b"watch"


class Doorbell:
    """One UDP socket on loopback, with the neighbours who want to hear from it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._watchers: dict[int, float] = {}
        self._callbacks: list[Callable[[], None]] = []
        self._rung = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """Listen on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._read)

    def close(self) -> None:
        """Stop listening."""
        if self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def on_ring(self, callback: Callable[[], None]) -> None:
        """Call back at each ring."""
        self._callbacks.append(callback)

    def _read(self) -> None:
        heard = False
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while True:
                data, address = self._socket.recvfrom(64)
                if data == _WATCH:
                    self._welcome(address[1])
                else:
                    heard = True
        if heard:
            self._rung.set()
            for callback in self._callbacks:
                callback()

    def _welcome(self, port: int) -> None:
        moment = time.monotonic()
        if self._watchers.get(port, 0.0) < moment:
            # Something may have been written between its look and its wish to hear: it looks again.
            self.ring(port)
        self._watchers[port] = moment + _WATCH_SECONDS

    def ring(self, port: int) -> None:
        """Ring a neighbour's bell."""
        self._send(_RING, port)

    def watch(self, port: int) -> None:
        """Ask a neighbour to ring here for the next seconds."""
        self._send(_WATCH, port)

    def ring_watchers(self) -> None:
        """Ring at everybody who asked for it."""
        if self._watchers:
            moment = time.monotonic()
            for port, until in list(self._watchers.items()):
                if until < moment:
                    del self._watchers[port]
                else:
                    self.ring(port)

    def _send(self, data: bytes, port: int) -> None:
        if port != self.port:
            # A lost ring costs a second; the tables hold the truth.
            with contextlib.suppress(OSError):
                self._socket.sendto(data, ("127.0.0.1", port))

    async def heard(self, timeout_seconds: float) -> None:
        """Wait for a ring, or until the time is up."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._rung.wait()
        except TimeoutError:
            pass
        self._rung.clear()
