"""How nodes tell each other that something was written: NOTIFY, coalesced, on a connection of its own.

NOTIFY takes a lock of the whole database when its transaction commits: it is never part of a commit. A ring carries
nothing and promises nothing: whoever hears it reads the tables, and whoever misses it reads them a second later.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Callable

import psycopg

from dalsegno.stores.postgres.address import Address, quoted
from dalsegno.stores.postgres.connection import Connection, connect
from dalsegno.stores.postgres.session import Session
from dalsegno.stores.postgres.worker import Worker

_WATCH_SECONDS = 5.0
_AGAIN_SECONDS = 1.0
_RING = "ring"
_WATCH = "watch"
_log = logging.getLogger("dalsegno.stores")


class Bell:
    """Rings, and hears others ring. Without `listen` it only rings."""

    def __init__(self, address: Address, sender: Worker, loop: asyncio.AbstractEventLoop) -> None:
        self._channel = address.schema
        self._listen = address
        if address.pooled:
            self._listen = address._replace(url=address.listen or "", pooled=False)
        self._sender = sender
        self._loop = loop
        self._me = secrets.token_hex(4)
        self._callbacks: list[Callable[[], None]] = []
        self._rung = asyncio.Event()
        self._watched_until = 0.0
        self._watches_until = 0.0
        self._wanted: set[str] = set()
        self._flying = False
        self._connection: Connection | None = None
        self._socket = -1
        self._closed = False

    # -- hearing -----------------------------------------------------------------------------------

    def open(self) -> None:
        """Listen, from now on and whenever the connection was lost."""
        if self._listen.url and not self._closed:
            threading.Thread(target=self._connect, name="dalsegno-listener", daemon=True).start()

    def _connect(self) -> None:
        try:
            connection = connect(self._listen, "listener")
            connection.execute(f"LISTEN {quoted(self._channel)}")
        except psycopg.Error as error:
            _log.info("can't listen for now: %s", error)
            self._on_loop(lambda: self._loop.call_later(_AGAIN_SECONDS, self.open))
        else:
            self._on_loop(lambda: self._hear(connection))

    def _on_loop(self, work: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(work)
        except RuntimeError:
            # The loop is closed: nobody is left to hear.
            pass

    def _hear(self, connection: Connection) -> None:
        if self._closed:
            connection.close()
            return
        self._connection = connection
        self._socket = connection.fileno()
        self._loop.add_reader(self._socket, self._read)
        # Something may have been said while nobody listened.
        self._heard()
        self._read()

    def _read(self) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            connection.pgconn.consume_input()
            heard = False
            while (notice := connection.pgconn.notifies()) is not None:
                verb, _, sender = notice.extra.decode().partition(":")
                if sender != self._me:
                    heard = True
                    if verb == _WATCH:
                        self._watched()
            if heard:
                self._heard()
        except psycopg.Error:
            self._lose()
            self.open()

    def _watched(self) -> None:
        moment = time.monotonic()
        if self._watched_until < moment:
            # Something may have been written between its look and its wish to hear: it looks again.
            self.ring()
        self._watched_until = moment + _WATCH_SECONDS

    def _heard(self) -> None:
        self._rung.set()
        for callback in self._callbacks:
            callback()

    def _lose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._loop.remove_reader(self._socket)
            connection.close()

    def on_ring(self, callback: Callable[[], None]) -> None:
        """Call back at each ring."""
        self._callbacks.append(callback)

    async def heard(self, timeout_seconds: float) -> None:
        """Wait for a ring, or until the time is up."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._rung.wait()
        except TimeoutError:
            pass
        self._rung.clear()

    # -- ringing -----------------------------------------------------------------------------------

    def ring(self) -> None:
        """Ring at everybody's."""
        self._say(_RING)

    def ring_watchers(self) -> None:
        """Ring where somebody asked for it lately."""
        if self._watched_until and time.monotonic() < self._watched_until:
            self._say(_RING)

    def watch(self) -> None:
        """Ask everybody to ring for the next seconds."""
        moment = time.monotonic()
        if self._watches_until < moment:
            self._watches_until = moment + _WATCH_SECONDS / 2
            self._say(_WATCH)

    def _say(self, what: str) -> None:
        self._wanted.add(what)
        if not self._flying and not self._closed:
            self._flying = True
            # At the end of the loop's turn: what one turn says is said once.
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        said = sorted(self._wanted)
        self._wanted.clear()
        self._sender.submit(lambda session: self._notify(session, said), self._sent)

    def _notify(self, session: Session, said: list[str]) -> None:
        for what in said:
            session.connection().execute("SELECT pg_notify($1, $2)", (self._channel, f"{what}:{self._me}"))

    def ring_now(self, session: Session) -> None:
        """Ring on the session's thread: there is no later."""
        self._notify(session, [_RING])

    def _sent(self, _: object) -> None:
        # A lost ring costs a second; the tables hold the truth.
        self._flying = False
        if self._wanted and not self._closed:
            self._flying = True
            self._send()

    def close(self) -> None:
        """Hear nothing more."""
        self._closed = True
        self._lose()
