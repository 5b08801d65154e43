"""Which driver PostgreSQL gets: one commit of 1 and of 1,000 journal rows through asyncpg and through psycopg.

What counts is the client's processor time: the node's loop thread is what an engine runs out of first, the server has
another core. Each contestant writes through one statement with the fence in it, in one round trip, with the server's
fsync on; "raw" is libpq's own call with arrays packed by hand.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from statistics import median
from typing import Any

import psycopg
from rich.table import Table

from bench.conditions import conditions
from bench.scoreboard import console, number, show_conditions
from dalsegno.testing.servers import PgBouncer, PostgresServer

_SCHEMA = """
CREATE TABLE fences (epoch bigint PRIMARY KEY, batch bigint NOT NULL);
INSERT INTO fences VALUES (1, 0);
CREATE TABLE journal (
    instance bigint NOT NULL, seq bigint NOT NULL, at bigint NOT NULL, kind text NOT NULL, entry bytea NOT NULL,
    PRIMARY KEY (instance, seq)
);
"""
_HEAD = "WITH fence AS (UPDATE fences SET batch = $1 WHERE epoch = 1 RETURNING epoch) INSERT INTO journal "
_ARRAYS = (
    "SELECT r.* FROM fence, unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::bytea[]) AS r RETURNING 1"
)
_LITERALS = (
    "SELECT instance, seq, at, kind, substring($7::bytea FROM start FOR length) FROM fence, "
    "unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::int[], $8::int[]) "
    "AS r (instance, seq, at, kind, length, start) RETURNING 1"
)
_ENTRY = b'{"kind":"step_completed","key":"charge_card","arguments":"0f3c","result":{"total":500},"attempt":1}'

Row = tuple[int, int, int, str, bytes]
Commit = Callable[[list[Row]], Awaitable[None]]


def rows(first: int, count: int) -> list[Row]:
    return [(first + n, 0, 1_750_000_000_000_000 + n, "step_completed", _ENTRY) for n in range(count)]


def packed(oid: int, parts: list[bytes]) -> bytes:
    """A one-dimensional array in the wire's binary form."""
    lengths = struct.Struct("!i").pack
    body = b"".join([piece for part in parts for piece in (lengths(len(part)), part)])
    return struct.pack("!iiIii", 1, 0, oid, len(parts), 1) + body


def packed_numbers(values: list[int]) -> bytes:
    flat = [piece for value in values for piece in (8, value)]
    return struct.pack("!iiIii", 1, 0, 20, len(values), 1) + struct.pack("!" + "iq" * len(values), *flat)


def literal(values: list[int]) -> bytes:
    return b"{%b}" % str(values)[1:-1].encode()


async def asyncpg_arrays(url: str, pooled: bool) -> Commit:
    import asyncpg

    connection = await asyncpg.connect(url, statement_cache_size=0 if pooled else 100)

    async def commit(found: list[Row]) -> None:
        await connection.fetch(_HEAD + _ARRAYS, found[0][0], *map(list, zip(*found, strict=True)))

    return commit


async def psycopg_arrays(url: str, pooled: bool) -> Commit:
    connection = psycopg.connect(url, autocommit=True, prepare_threshold=None if pooled else 5)
    text = _HEAD + _ARRAYS
    for place in range(1, 7):
        text = text.replace(f"${place}", "%s")

    def run(found: list[Row]) -> None:
        connection.execute(text, [found[0][0], *map(list, zip(*found, strict=True))], binary=True)

    return lambda found: asyncio.to_thread(run, found)


async def psycopg_pipeline(url: str, pooled: bool) -> Commit:
    connection = psycopg.connect(url, autocommit=True, prepare_threshold=None if pooled else 5)
    text = "INSERT INTO journal VALUES (%s, %s, %s, %s, %s)"

    def run(found: list[Row]) -> None:
        with connection.pipeline(), connection.transaction(), connection.cursor() as cursor:
            cursor.execute("UPDATE fences SET batch = %s WHERE epoch = 1", (found[0][0],))
            cursor.executemany(text, found)

    return lambda found: asyncio.to_thread(run, found)


async def raw_binary(url: str, pooled: bool) -> Commit:
    connection = psycopg.connect(url, autocommit=True)
    text = (_HEAD + _ARRAYS).encode()

    def run(found: list[Row]) -> None:
        instances, seqs, ats, kinds, entries = (list(column) for column in zip(*found, strict=True))
        arrays = [packed_numbers(numbers) for numbers in (instances, seqs, ats)]
        arrays += [packed(25, [kind.encode() for kind in kinds]), packed(17, entries)]
        values = [str(found[0][0]).encode(), *arrays]
        finish(connection.pgconn.exec_params(text, values, None, [0, 1, 1, 1, 1, 1]))

    return lambda found: asyncio.to_thread(run, found)


async def raw_literals(url: str, pooled: bool) -> Commit:
    connection = psycopg.connect(url, autocommit=True)
    text = (_HEAD + _LITERALS).encode()

    def run(found: list[Row]) -> None:
        instances, seqs, ats, kinds, entries = (list(column) for column in zip(*found, strict=True))
        lengths = list(map(len, entries))
        starts, start = [], 1
        for length in lengths:
            starts.append(start)
            start += length
        values: list[Any] = [b"%d" % instances[0], literal(instances), literal(seqs), literal(ats)]
        values += [b"{%b}" % ",".join(kinds).encode(), literal(lengths), b"".join(entries), literal(starts)]
        finish(connection.pgconn.exec_params(text, values, None, [0, 0, 0, 0, 0, 0, 1, 0]))

    return lambda found: asyncio.to_thread(run, found)


def finish(result: Any) -> None:
    if result.status != psycopg.pq.ExecStatus.TUPLES_OK:
        raise RuntimeError(result.error_message.decode())


CONTESTANTS: dict[str, Callable[[str, bool], Awaitable[Commit]]] = {
    "asyncpg, arrays, on the loop": asyncpg_arrays,
    "psycopg, arrays, in a thread": psycopg_arrays,
    "psycopg, executemany in a pipeline": psycopg_pipeline,
    "psycopg raw, binary arrays": raw_binary,
    "psycopg raw, literals and one blob": raw_literals,
}


async def measured(make: Callable[[str, bool], Awaitable[Commit]], url: str, count: int, rounds: int) -> list[float]:
    """Wall milliseconds a commit; processor microseconds a commit of this process."""
    commit = await make(url, False)
    walls = []
    batches = [rows(1 + number * count, count) for number in range(rounds + 5)]
    for batch in batches[:5]:
        await commit(batch)
    began = time.process_time()
    for batch in batches[5:]:
        start = time.perf_counter()
        await commit(batch)
        walls.append((time.perf_counter() - start) * 1e3)
    return [median(walls), (time.process_time() - began) / rounds * 1e6]


async def through_pgbouncer(make: Callable[[str, bool], Awaitable[Commit]], url: str) -> str:
    try:
        first, second = await make(url, True), await make(url, True)
        for number in range(20):
            await asyncio.gather(first(rows(1 + 100 * number, 20)), second(rows(51 + 100 * number, 20)))
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:60]}"
    return "works"


def prepare(server: PostgresServer) -> str:
    url = server.create_database()
    with psycopg.connect(url) as connection:
        connection.execute(_SCHEMA)
    return url


def drivers(rounds: int) -> bool:
    """The table of contestants."""
    facts = conditions(("psycopg", "psycopg-c", "psycopg-binary", "asyncpg"))
    table = Table("driver", "1 row: ms", "µs of client", "1,000 rows: ms", "µs of client a row", "through PgBouncer")
    with PostgresServer() as server:
        for name, make in CONTESTANTS.items():
            with suppress(ImportError):
                one = asyncio.run(measured(make, prepare(server), 1, rounds))
                many = asyncio.run(measured(make, prepare(server), 1_000, rounds // 4))
                with PgBouncer(prepare(server)) as bouncer:
                    pooled = asyncio.run(through_pgbouncer(make, bouncer.url()))
                figures = [number(value) for value in (*one, many[0], many[1] / 1_000)]
                table.add_row(name, *figures, pooled)
    show_conditions(facts | {"rounds": str(rounds), "pid": str(os.getpid())})
    console.print(table)
    return True
