"""Behind PgBouncer in transaction mode: each transaction may have another connection, and the store still passes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import psycopg
import pytest
from postgres_nodes import client, node
from test_suite_postgres import PostgresPlace

from dalsegno import App, process, step
from dalsegno.kernel.ports import Store
from dalsegno.testing.servers import PgBouncer
from dalsegno.testing.store_suite import Place, StoreSuite
from dalsegno.testing.store_suite import material as m

if TYPE_CHECKING:
    from dalsegno.stores.postgres.store import PostgresStore
    from dalsegno.testing.servers import PostgresServer


@pytest.fixture(scope="module")
def bouncer(postgres: PostgresServer) -> Iterator[PgBouncer]:
    # A pool smaller than what one node would keep open.
    with PgBouncer(postgres.url(), default_pool_size=3) as running:
        yield running


@pytest.fixture
def pooled_url(bouncer: PgBouncer, postgres_url: str) -> str:
    return bouncer.url(postgres_url.rpartition("/")[2]) + "?pooled=true"


class PooledPlace(PostgresPlace):
    """A database behind a pool; what hears is past it."""

    def __init__(self, pooled_url: str, url: str) -> None:
        super().__init__(f"{pooled_url}&listen={url}")
        self._direct = url

    async def kill(self, store: Store) -> None:
        dying = cast("PostgresStore", store)
        with psycopg.connect(self._direct, autocommit=True) as connection:
            connection.execute("UPDATE dalsegno.nodes SET lease_until = 0 WHERE epoch = %s", (dying.epoch,))
        dying._epoch = None
        await dying.close()


class TestPooledPostgresStore(StoreSuite):
    @pytest.fixture
    def place(self, pooled_url: str, postgres_url: str) -> Place:
        return PooledPlace(pooled_url, postgres_url)


async def test_without_a_way_past_the_pool_the_slow_poll_does(pooled_url: str) -> None:
    async with node(pooled_url) as store, client(pooled_url) as beside:
        await beside.write(m.batch(messages=[m.message()]))
        async with asyncio.timeout(5):
            await beside.changed(0.05)

        assert [message.verb for message in await store.messages(0)] == ["cancel"]


@step
async def add(value: int) -> int:
    return value + 1


@process
async def sums(value: int) -> int:
    for _ in range(3):
        value = await add(value)
    return value


async def test_processes_run_through_a_pool(pooled_url: str) -> None:
    async with App(pooled_url, processes=[sums]) as app:
        runs = await asyncio.gather(*(app.start(sums, n) for n in range(200)))

        assert await asyncio.gather(*(run.result() for run in runs)) == [n + 3 for n in range(200)]


async def test_a_pool_that_restarts_is_waited_for(pooled_url: str, bouncer: PgBouncer) -> None:
    async with node(pooled_url) as store:
        [key] = await m.begin(store, "order-1")
        for seq in range(1, 4):
            await asyncio.to_thread(bouncer.restart)
            await m.write(store, rows=[(key, seq, m.BEGIN, "step_completed", b"{}")])

        assert len(await store.history(key, -1, 10)) == 4
