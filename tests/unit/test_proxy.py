"""The proxy between a client and an echo server: what it is told to do, it does, and nothing else."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from dalsegno.testing.proxy import Proxy
from dalsegno.testing.replies import Replies, Wish

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1000):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # what these tests do
    finally:
        writer.close()


@asynccontextmanager
async def proxied() -> AsyncIterator[Proxy]:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    with Proxy("127.0.0.1", server.sockets[0].getsockname()[1], seed=1) as proxy:
        yield proxy
    server.close()


async def connect(proxy: Proxy) -> Streams:
    streams = await asyncio.open_connection(proxy.host, proxy.port)
    assert await ask(streams, b"hello") == b"hello"
    return streams


async def ask(streams: Streams, text: bytes) -> bytes:
    streams[1].write(text)
    return await streams[0].readexactly(len(text))


async def test_everything_passes_and_an_end_is_passed_on() -> None:
    async with proxied() as proxy:
        reader, writer = await connect(proxy)
        text = bytes(300_000)
        answer = asyncio.create_task(reader.readexactly(len(text)))
        writer.write(text)
        assert await answer == text
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        assert proxy.faults == {}


async def test_cut_resets_and_takes_new_connections(until: Callable) -> None:
    async with proxied() as proxy:
        streams = await connect(proxy)
        await connect(proxy)
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await streams[0].read()
        await until(lambda: proxy.connections == 0)
        await connect(proxy)
        assert proxy.faults == {"cut": 2}


async def test_refuse_and_accept() -> None:
    async with proxied() as proxy:
        streams = await connect(proxy)
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await connect(proxy)
        assert await ask(streams, b"still here") == b"still here"
        proxy.accept()
        await connect(proxy)


async def test_blackhole_keeps_what_is_sent_until_it_heals() -> None:
    async with proxied() as proxy:
        streams = await connect(proxy)
        proxy.blackhole()
        answer = asyncio.create_task(ask(streams, b"anyone?"))
        done, _ = await asyncio.wait([answer], timeout=0.05)
        assert not done
        proxy.heal()
        assert await answer == b"anyone?"


async def test_delay_both_ways_until_it_heals() -> None:
    async with proxied() as proxy:
        streams = await connect(proxy)
        proxy.delay(0.02, jitter=0.01)
        before = time.monotonic()
        await ask(streams, b"slow")
        assert time.monotonic() - before >= 0.04
        assert proxy.faults == {"delay": 2}
        proxy.delay(3600)
        answer = asyncio.create_task(ask(streams, b"too slow"))
        while proxy.faults["delay"] < 3:
            await asyncio.sleep(0.001)
        proxy.heal()
        assert await answer == b"too slow"


async def test_trickle() -> None:
    async with proxied() as proxy:
        streams = await connect(proxy)
        proxy.trickle(2000)
        before = time.monotonic()
        assert await ask(streams, b"x" * 200) == b"x" * 200
        assert time.monotonic() - before >= 0.1
        assert proxy.faults["trickle"] >= 10


async def test_cut_after_so_many_bytes() -> None:
    async with proxied() as proxy:
        reader, writer = await connect(proxy)
        proxy.cut_after(15)
        writer.write(b"0123456789")
        assert await reader.readexactly(5) == b"01234"
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await connect(proxy)
        assert proxy.faults == {"cut_after": 1}


async def test_a_server_that_is_away_resets_the_client() -> None:
    async def use(proxy: Proxy) -> None:
        # The reset may come while the client still connects.
        reader, _ = await asyncio.open_connection(proxy.host, proxy.port)
        await reader.read()

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with Proxy("127.0.0.1", bound.getsockname()[1]) as proxy, pytest.raises(ConnectionResetError):
            await use(proxy)


def test_urls() -> None:
    with Proxy("127.0.0.1", 1) as proxy:
        assert proxy.url("postgresql://me@other:1/db?a=b") == f"postgresql://me@127.0.0.1:{proxy.port}/db?a=b"
        assert proxy.url("http://other/path") == f"http://127.0.0.1:{proxy.port}/path"


def test_a_closed_proxy_says_so() -> None:
    with pytest.raises(RuntimeError, match="wasn't started"):
        Proxy("127.0.0.1", 1).cut()


def message(kind: str, body: bytes) -> bytes:
    return kind.encode() + (len(body) + 4).to_bytes(4, "big") + body


def done(tag: str) -> bytes:
    return message("C", tag.encode() + b"\0")


INSIDE, OUTSIDE, FAILED = (message("Z", state) for state in (b"T", b"I", b"E"))
INSERT = done("INSERT 0 1") + OUTSIDE


@pytest.mark.parametrize(
    ("replies", "of_writes", "of_any"),
    [
        ([INSERT], True, True),
        ([done("SELECT 1") + OUTSIDE], False, True),
        ([done("UPDATE 0") + OUTSIDE], False, True),
        ([message("E", b"SERROR\0\0") + OUTSIDE], False, False),
        ([done("BEGIN") + INSIDE, done("INSERT 0 1") + INSIDE, done("COMMIT") + OUTSIDE], True, True),
        ([done("BEGIN") + INSIDE, done("SELECT 1") + INSIDE, done("COMMIT") + OUTSIDE], False, True),
        ([done("BEGIN") + INSIDE, done("INSERT 0 1") + INSIDE, done("ROLLBACK") + OUTSIDE], False, False),
        ([done("BEGIN") + INSIDE, message("E", b"SERROR\0\0") + FAILED, done("ROLLBACK") + OUTSIDE], False, False),
        ([done("INSERT 0 1") + message("2", b""), INSERT], True, True),
    ],
)
@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_which_replies_say_that_something_is_committed(
    replies: list[bytes], of_writes: bool, of_any: bool, piece: int
) -> None:
    for wish, expected in ((Wish.OF_WRITES, of_writes), (Wish.ANY, of_any), (Wish.NONE, False)):
        connection = Replies()
        connection.client_sent((8).to_bytes(4, "big") + (80877103).to_bytes(4, "big"))
        assert connection.server_sent(b"N", wish) == (b"N", False)
        connection.client_sent((8).to_bytes(4, "big") + (3 << 16).to_bytes(4, "big"))
        sent = b"".join(replies)
        passed, committed = b"", False
        for place in range(0, len(sent), piece):
            more, committed = connection.server_sent(sent[place : place + piece], wish)
            passed += more
            if committed:
                break
        assert committed == expected
        assert sent.startswith(passed)
        assert (passed == sent) is not expected
