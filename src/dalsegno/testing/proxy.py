"""A TCP proxy that makes a network as bad as networks get.

    with Proxy(server.host, server.port) as proxy:
        url = proxy.url(server.url())
        proxy.cut()

Its methods work at once, from sync and async code of any thread: it lives on a thread of its own.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from random import Random
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from dalsegno.testing.ports import free_port
from dalsegno.testing.replies import Replies, Wish

_HOST = "127.0.0.1"
_READ_BYTES = 65_536
_CHUNKS_UNDER_WAY = 256
_TRICKLES_PER_SECOND = 50
# Closing then resets: what wasn't delivered is gone, and the other side gets an error instead of an end.
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Between clients and a server: passes everything on until it is told otherwise.

    Chance comes from the seed, for each connection and direction by itself.
    """

    def __init__(self, target_host: str, target_port: int, *, seed: int = 0) -> None:
        self.host = _HOST
        self.port = 0
        self._target = (target_host, target_port)
        self._seed = seed
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._closing: asyncio.Event
        self._listener: asyncio.Server | None = None
        self._orders = _Orders()
        self._links: set[_Link] = set()
        self._number = 0

    @property
    def faults(self) -> dict[str, int]:
        """How often it did what, by the names of its methods: connections cut, chunks delayed, replies lost."""
        return dict(self._orders.done)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._links)

    def url(self, url: str) -> str:
        """A URL with this proxy in the server's place."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{user}{at}{self.host}:{self.port}").geturl()

    def start(self) -> Self:
        """Listen on a free port: the same as long as the proxy lives."""
        started: Future[None] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._live(started)), name="dalsegno-proxy", daemon=True
        )
        self._thread.start()
        started.result()
        return self

    def close(self) -> None:
        """Reset all connections and end."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._loop.call_soon_threadsafe(self._closing.set)
            thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def cut(self) -> None:
        """Reset all connections; new ones are welcome."""

        async def do() -> None:
            self._orders.done["cut"] += len(self._links)
            self._reset_all()
            # Sockets close in the loop's next round.
            await asyncio.sleep(0)

        self._tell(do)

    def refuse(self) -> None:
        """Refuse new connections from here on; those that are open stay."""

        async def do() -> None:
            self._orders.done["refuse"] += 1
            self._unlisten()

        self._tell(do)

    def accept(self) -> None:
        """Take new connections again."""
        self._tell(self._listen)

    def blackhole(self) -> None:
        """Deliver nothing, both ways: connections stay open, and what is sent waits for `heal()`."""

        async def do() -> None:
            self._orders.done["blackhole"] += 1
            self._orders.healed.clear()

        self._tell(do)

    def heal(self) -> None:
        """End everything that was asked for: pass on at once what waits too, and take new connections."""

        async def do() -> None:
            before, self._orders = self._orders, _Orders()
            self._orders.done = before.done
            for link in self._links:
                link.orders = self._orders
            before.end()
            await self._listen()

        self._tell(do)

    def delay(self, seconds: float, jitter: float = 0.0) -> None:
        """Deliver later, each way, by the given time and up to `jitter` more; the order stays."""

        async def do() -> None:
            self._orders.seconds, self._orders.jitter = seconds, jitter

        self._tell(do)

    def trickle(self, bytes_per_second: float) -> None:
        """Deliver slowly: so much for each connection and direction."""

        async def do() -> None:
            self._orders.bytes_per_second = bytes_per_second

        self._tell(do)

    def cut_after(self, count: int) -> None:
        """Reset all connections, once, when so many further bytes were delivered, both ways together."""

        async def do() -> None:
            self._orders.bytes_left = count

        self._tell(do)

    def lose_commit_reply(self, *, reads: bool = False) -> None:
        """PostgreSQL executes the next commit, and instead of its reply the client sees its connection reset.

        A commit is a COMMIT or what ends a statement outside a transaction. One that wrote nothing is passed on and
        the next one awaited; with `reads=True` it counts: a SELECT may call what writes. Encrypted connections can't
        be read. Each call loses one reply.
        """

        async def do() -> None:
            self._orders.replies_to_lose += 1
            self._orders.wish = Wish.ANY if reads else Wish.OF_WRITES

        self._tell(do)

    def _tell(self, what: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._thread is None:
            raise RuntimeError("the proxy wasn't started, or is closed")
        asyncio.run_coroutine_threadsafe(what(), self._loop).result()

    # On the proxy's thread, as what it tells is.

    async def _live(self, started: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()
        try:
            await self._listen()
        except OSError as error:
            started.set_exception(error)
            return
        started.set_result(None)
        await self._closing.wait()
        self._unlisten()
        while self._links:
            self._reset_all()
            await asyncio.sleep(0)

    async def _listen(self) -> None:
        if self._listener is None:
            self.port = self.port or free_port(_HOST)
            self._listener = await asyncio.start_server(self._connected, _HOST, self.port)

    def _unlisten(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    def _reset_all(self) -> None:
        for link in list(self._links):
            link.reset()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._number += 1
        client = _Side(reader, writer)
        try:
            server = _Side(*await asyncio.open_connection(*self._target))
        except (OSError, asyncio.CancelledError):
            client.reset()
            return
        link = _Link(client, server, f"{self._seed}/{self._number}", self._orders, self._reset_all)
        self._links.add(link)
        try:
            await link.live()
        except asyncio.CancelledError:
            pass  # by a reset; asyncio would log it as an error
        finally:
            self._links.discard(link)


class _Orders:
    """What a proxy was told and its links obey, until it heals: then these end, and others begin."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.jitter = 0.0
        self.bytes_per_second = 0.0
        self.bytes_left: int | None = None
        self.replies_to_lose = 0
        self.wish = Wish.NONE
        self.done: Counter[str] = Counter()
        self.healed = asyncio.Event()
        self.healed.set()
        self._ended = asyncio.Event()

    def end(self) -> None:
        self.healed.set()
        self._ended.set()

    async def pause(self, seconds: float) -> None:
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._ended.wait()
            except TimeoutError:
                pass  # as long as was asked for

    def due(self, chance: Random) -> float:
        """When something that is read now is to be delivered."""
        now = asyncio.get_running_loop().time()
        if not (self.seconds or self.jitter):
            return now
        self.done["delay"] += 1
        return now + self.seconds + self.jitter * chance.random()

    def lose_reply(self) -> None:
        self.done["lose_commit_reply"] += 1
        self.replies_to_lose -= 1
        if self.replies_to_lose == 0:
            self.wish = Wish.NONE


class _Side(NamedTuple):
    """A link's end at the client or at the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def reset(self) -> None:
        try:
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        except OSError:
            pass  # closed already
        self.writer.transport.abort()


class _Chunk(NamedTuple):
    """What was read at once: nothing, at the end of what is sent."""

    data: bytes
    due: float
    orders: _Orders


class _Link:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(self, client: _Side, server: _Side, seed: str, orders: _Orders, reset_all: Callable[[], None]) -> None:
        self.orders = orders
        self._client = client
        self._server = server
        self._seed = seed
        self._reset_all = reset_all
        self._replies = Replies()
        self._task: asyncio.Task[None] | None = None
        for side in (client, server):
            # Written then is what the system has taken: a cut after so many bytes cuts there.
            side.writer.transport.set_write_buffer_limits(0)

    async def live(self) -> None:
        self._task = asyncio.current_task()
        up: asyncio.Queue[_Chunk] = asyncio.Queue(_CHUNKS_UNDER_WAY)
        down: asyncio.Queue[_Chunk] = asyncio.Queue(_CHUNKS_UNDER_WAY)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read_client(up, Random(f"{self._seed}/up")))
                group.create_task(self._write(up, self._server.writer))
                group.create_task(self._read_server(down, Random(f"{self._seed}/down")))
                group.create_task(self._write(down, self._client.writer))
        except* OSError:
            # One end has gone in a bad way, and so does the other.
            self._client.reset()
            self._server.reset()
        finally:
            self._client.writer.close()
            self._server.writer.close()

    def reset(self) -> None:
        self._client.reset()
        self._server.reset()
        if self._task is not None:
            self._task.cancel()

    async def _read_client(self, chunks: asyncio.Queue[_Chunk], chance: Random) -> None:
        data = b"-"
        while data:
            data = await self._client.reader.read(_READ_BYTES)
            self._replies.client_sent(data)
            await self._put(data, chunks, chance)

    async def _read_server(self, chunks: asyncio.Queue[_Chunk], chance: Random) -> None:
        while data := await self._server.reader.read(_READ_BYTES):
            passed, committed = self._replies.server_sent(data, self.orders.wish)
            if committed:
                self.orders.lose_reply()
                self.reset()
                return
            if passed:
                await self._put(passed, chunks, chance)
        if rest := self._replies.rest():
            await self._put(rest, chunks, chance)
        await self._put(b"", chunks, chance)

    async def _put(self, data: bytes, chunks: asyncio.Queue[_Chunk], chance: Random) -> None:
        await chunks.put(_Chunk(data, self.orders.due(chance), self.orders))

    async def _write(self, chunks: asyncio.Queue[_Chunk], writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            data, due, orders = await chunks.get()
            await orders.pause(due - loop.time())
            if not data:
                await self.orders.healed.wait()
                writer.write_eof()
                return
            while data:
                data = data[await self._write_part(data, writer) :]

    async def _write_part(self, data: bytes, writer: asyncio.StreamWriter) -> int:
        if rate := self.orders.bytes_per_second:
            data = data[: max(1, int(rate / _TRICKLES_PER_SECOND))]
            self.orders.done["trickle"] += 1
            await self.orders.pause(len(data) / rate)
        await self.orders.healed.wait()
        orders = self.orders
        if orders.bytes_left is not None:
            data = data[: orders.bytes_left]
            orders.bytes_left -= len(data)
        writer.write(data)
        await writer.drain()
        if orders.bytes_left == 0:
            orders.bytes_left = None
            orders.done["cut_after"] += 1
            self._reset_all()
        return len(data)
