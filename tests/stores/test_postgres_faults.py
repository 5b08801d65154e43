"""The database goes, connections break, replies are lost: nothing is lost, nothing is done twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from postgres_nodes import client, lease_ends, node, sql

from dalsegno.errors import DalsegnoError, Fenced, StoreError
from dalsegno.kernel.ports import Restart, Store
from dalsegno.stores.postgres import roles
from dalsegno.testing.proxy import Proxy
from dalsegno.testing.servers import PostgresServer
from dalsegno.testing.store_suite import material as m
from dalsegno.testing.store_suite.place import commit

ROUNDS = 6


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    # A server of its own: it is killed.
    with PostgresServer(fsync=False, deadlock_timeout="100ms") as running:
        yield running


@pytest.fixture
def url(server: PostgresServer) -> str:
    return server.create_database()


async def keep_writing(store: Store, key: int, seqs: list[int], over: asyncio.Event) -> None:
    """Batches of every kind, one after the other; a sequence number goes into `seqs` when its batch is durable."""
    seq = 0
    while not over.is_set():
        seq += 1
        parts: dict[str, Any] = {
            "rows": [(key, seq, m.BEGIN, "step_completed", b"%d" % seq)],
            "changes": [m.change(key, "waiting", wake_at=seq)],
            "starts": [m.start(f"child-{seq}"), m.start("order-1")],
        }
        if seq % 3 == 0:
            parts |= {
                "events": [m.event(f"event-{seq}")],
                "messages": [m.message("somebody", body=b"%d" % seq)],
                "waits": [m.wait(key, f"wait-{seq}", key="none")],
            }
        found = await m.write(store, **parts)
        assert found.start_keys[0] is not None
        assert found.start_keys[1] is None
        seqs.append(seq)


async def check(store: Store, url: str, key: int, seqs: list[int]) -> None:
    """Everything acknowledged is there once."""
    row = await store.find("default", "order-1")
    assert row is not None
    assert row.wake_at == seqs[-1]
    assert [seq for seq, _, _ in await store.history(key, -1, 1_000_000)] == list(range(seqs[-1] + 1))
    children = sql(url, "SELECT count(*), count(DISTINCT id) FROM dalsegno.instances WHERE id LIKE 'child-%%'")
    assert children == [(len(seqs), len(seqs))]
    sent = sql(url, "SELECT convert_from(body, 'UTF8')::int FROM dalsegno.messages ORDER BY position")
    assert [n for (n,) in sent] == [seq for seq in seqs if seq % 3 == 0]


async def through(fault: Any, server: PostgresServer, url: str, proxied: str | None = None) -> None:
    """Write through some faults, then look."""
    async with node(proxied or url) as store:
        [key] = await m.begin(store, "order-1")
        seqs: list[int] = []
        over = asyncio.Event()
        writing = asyncio.create_task(keep_writing(store, key, seqs, over))
        try:
            for _ in range(ROUNDS):
                before = len(seqs)
                await asyncio.sleep(0.05)
                await asyncio.to_thread(fault)
                async with asyncio.timeout(20):
                    while len(seqs) <= before + 3 and not writing.done():
                        await store.find("default", "order-1")
                        await store.renew(600)
        finally:
            over.set()
            async with asyncio.timeout(20):
                await writing
        await check(store, url, key, seqs)


async def test_a_crash_of_the_database_in_the_middle_of_commits_loses_and_repeats_nothing(
    server: PostgresServer, url: str
) -> None:
    await through(lambda: server.restart("immediate"), server, url)


async def test_killed_back_ends_lose_and_repeat_nothing(server: PostgresServer, url: str) -> None:
    await through(server.kill_backends, server, url)


async def test_a_lost_commit_reply_loses_and_repeats_nothing(server: PostgresServer, url: str) -> None:
    with Proxy(server.host, server.port) as proxy:
        await through(lambda: proxy.lose_commit_reply(reads=True), server, url, proxy.url(url))
        await through(lambda: proxy.lose_commit_reply(), server, server.create_database(), None)
        assert proxy.faults["lose_commit_reply"] >= ROUNDS - 1


async def test_connections_that_are_cut_anywhere_lose_and_repeat_nothing(server: PostgresServer, url: str) -> None:
    with Proxy(server.host, server.port, seed=7) as proxy:
        counts = iter([1, 300, 700, 1_500, 2_500, 5_000])
        await through(lambda: proxy.cut_after(next(counts)), server, url, proxy.url(url))


async def test_a_transaction_step_whose_commit_reply_is_lost_takes_effect_once(
    server: PostgresServer, url: str
) -> None:
    with Proxy(server.host, server.port) as proxy:
        sql(url, "CREATE TABLE bookings (amount int)")
        async with node(proxy.url(url)) as store:
            [key] = await m.begin(store, "order-1")
            await m.write(store, transactions=[m.transaction(key, 1, lambda tx: tx.execute("SELECT 1"))])
            for seq in range(2, 8):

                def book(tx: Any, amount: int = seq) -> None:
                    tx.execute("INSERT INTO bookings VALUES (%s)", (amount,))
                    # After this only the step's own commit is under way.
                    proxy.lose_commit_reply()

                found = await m.write(store, transactions=[m.transaction(key, seq, book)])
                assert found.transactions[0][1] is None

            assert sql(url, "SELECT amount FROM bookings ORDER BY 1") == [(n,) for n in range(2, 8)]
            assert len(await store.history(key, -1, 100)) == 8
            assert proxy.faults["lose_commit_reply"] >= 6


async def test_a_lost_reply_to_a_claim_loses_nobody(server: PostgresServer, url: str) -> None:
    with Proxy(server.host, server.port) as proxy:
        async with node(proxy.url(url)) as store, client(url) as beside:
            for number in range(5):
                [key] = (await beside.write(m.batch(starts=[m.start(f"order-{number}")]))).start_keys
                proxy.lose_commit_reply()

                assert await store.running(0, 10) == [key]


async def test_a_clients_message_whose_commit_reply_is_lost_is_sent_once(server: PostgresServer, url: str) -> None:
    async with node(url) as store:
        with Proxy(server.host, server.port) as proxy:
            async with client(proxy.url(url)) as beside:
                for number in range(5):
                    proxy.lose_commit_reply()
                    await beside.write(m.batch(messages=[m.message(body=b"%d" % number)]))

        assert [message.body for message in await store.messages(0)] == [b"%d" % n for n in range(5)]


async def test_serialization_failures_and_deadlocks_are_tried_again(server: PostgresServer, url: str) -> None:
    sql(url, "CREATE TABLE counted (n int); INSERT INTO counted VALUES (0)")
    async with node(url) as store:
        [key] = await m.begin(store, "order-1")
        calls = 0

        def conflicting(tx: Any) -> None:
            nonlocal calls
            calls += 1
            tx.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE") if calls < 0 else None
            tx.execute("SELECT n FROM counted")
            if calls == 1:
                raise_serialization(tx)
            tx.execute("UPDATE counted SET n = n + 1")

        found = await m.write(store, transactions=[m.transaction(key, 1, conflicting)])

        assert found.transactions[0][1] is None
        assert calls == 2
        assert sql(url, "SELECT n FROM counted") == [(1,)]


def raise_serialization(tx: Any) -> None:
    tx.execute("DO $$ BEGIN RAISE EXCEPTION 'conflict' USING ERRCODE = '40001'; END $$")


async def test_a_node_that_cant_reach_the_database_stops_when_its_lease_is_over(
    server: PostgresServer, url: str
) -> None:
    with Proxy(server.host, server.port) as proxy:
        async with node(proxy.url(url), lease_seconds=1.5) as store:
            [key] = await m.begin(store, "order-1")
            began = time.monotonic()
            proxy.refuse()
            proxy.cut()
            with pytest.raises(StoreError):
                await m.write(store, rows=[(key, 1, m.BEGIN, "step_completed", b"one")])

            assert time.monotonic() - began < 4
            proxy.heal()


async def test_a_frozen_node_within_a_transaction_holds_up_its_successor_no_longer_than_a_lease(
    server: PostgresServer, url: str
) -> None:
    async with node(url, "south") as south, node(url, "north", lease_seconds=1) as north:
        [key] = await m.begin(north, "order-1")
        frozen = psycopg.connect(url)
        # What a node does at the beginning of a commit of many parts, before it stops for good.
        frozen.execute("SET LOCAL idle_in_transaction_session_timeout = 1000")
        frozen.execute("SELECT 1 FROM dalsegno.fences WHERE epoch = %s FOR KEY SHARE", (north.epoch,))
        async with asyncio.timeout(10):
            while not await south.running(0, 10):
                await south.mark_recovered(9)
                await asyncio.sleep(0.05)
        with pytest.raises(Fenced):
            await north.load([key])


async def test_too_many_connections_are_waited_for(server: PostgresServer, url: str) -> None:
    async with node(url) as store:
        await m.begin(store, "order-1")
        name = url.rpartition("/")[2]
        sql(url, f"ALTER DATABASE {name} CONNECTION LIMIT 0")
        server.query("CREATE ROLE app; CREATE ROLE owner; " + roles.script("dalsegno", "app", "owner"), name)
        server.query("ALTER ROLE app LOGIN")
        opening = asyncio.create_task(opened(url.replace("postgres@", "app@")))
        await asyncio.sleep(0.3)
        assert not opening.done()
        sql(url, f"ALTER DATABASE {name} CONNECTION LIMIT -1")
        assert await opening == ["north", "other"]


async def opened(url: str) -> list[str]:
    async with node(url, "other") as store:
        return sorted(one.name for one in await store.nodes())


async def test_a_database_that_isnt_there_is_said_at_once(server: PostgresServer) -> None:
    began = time.monotonic()
    with pytest.raises(DalsegnoError, match="does not exist"):
        await opened(server.url("nowhere"))
    assert time.monotonic() - began < 2


async def test_a_full_batch_of_every_kind_survives_a_lost_reply(server: PostgresServer, url: str) -> None:
    with Proxy(server.host, server.port) as proxy:
        async with node(proxy.url(url)) as store:
            [key, other] = await m.begin(store, "order-1", "order-2")
            await m.write(store, messages=[m.message()], asks=[m.task("task-1")])
            batch = m.batch(
                starts=[m.start("new")],
                copies=[(m.start("copy"), [(0, m.BEGIN, "started", b"{}")])],
                rows=[(key, 1, m.BEGIN, "step_completed", b"one")],
                changes=[m.change(key, "waiting")],
                restarts=[Restart(key=other, process="refund", version=2, input_hash=1)],
                annotations=[(key, b'{"a":1}')],
                events=[m.event("event-1")],
                waits=[m.wait(key)],
                messages=[m.message("order-2")],
                replies=[(1, b"done", m.BEGIN)],
                asks=[m.task("task-2")],
                closings=[m.closing("task-1")],
                heartbeats=[m.beat(key)],
            )
            proxy.lose_commit_reply()
            found = await commit(store, batch)

            assert proxy.faults["lose_commit_reply"] == 1
            assert len(await store.history(key, -1, 10)) == 2
            assert [match.event_id for match in found.matches] == ["event-1"]
            assert [message.instance for message in await store.messages(0)] == ["order-2"]
            copy = await store.find("default", "copy")
            assert copy is not None
            assert found.copy_keys == [copy.key]


async def test_a_fenced_node_learns_it_although_its_connection_broke(server: PostgresServer, url: str) -> None:
    async with node(url, "south") as south, node(url, "north") as north:
        [key] = await m.begin(north, "order-1")
        lease_ends(url, north)
        await south.mark_recovered(9)
        server.kill_backends()
        with pytest.raises(Fenced):
            await m.write(north, rows=[(key, 1, m.BEGIN, "step_completed", b"zombie")])


async def test_a_database_that_never_answers_stops_a_node_when_its_lease_is_over(
    server: PostgresServer, url: str
) -> None:
    with Proxy(server.host, server.port) as proxy:
        async with node(proxy.url(url), lease_seconds=1.5) as store:
            [key] = await m.begin(store, "order-1")
            began = time.monotonic()
            proxy.blackhole()
            lost = asyncio.create_task(m.write(store, rows=[(key, 1, m.BEGIN, "step_completed", b"one")]))
            with pytest.raises(StoreError, match="didn't answer"):
                await store.renew(1.5)

            assert time.monotonic() - began < 4
            await store.close()
            with pytest.raises(StoreError):
                await lost
            assert time.monotonic() - began < 20
            store._epoch = None  # type: ignore[attr-defined]
        proxy.heal()


async def test_a_commit_that_is_still_on_its_way_when_it_is_written_again_counts_once(
    server: PostgresServer, url: str
) -> None:
    async with node(url) as store:
        [key] = await m.begin(store, "order-1")
        late = psycopg.connect(url)
        # The lost connection's statement is at work on the server, and ends only after the node is back.
        late.execute("UPDATE dalsegno.fences SET batch = batch + 1 WHERE epoch = %s AND batch = 1", (store.epoch,))
        late.execute("INSERT INTO dalsegno.journal VALUES (%s, 1, 0, 'step_completed', 'one')", (key,))
        writing = asyncio.create_task(m.write(store, rows=[(key, 1, 0, "step_completed", b"one")]))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(kill_writers, url, late.info.backend_pid)
        await asyncio.sleep(0.1)
        assert not writing.done()
        late.commit()
        await writing
        await m.write(store, rows=[(key, 2, 0, "step_completed", b"two")])

        assert [entry for _, _, entry in await store.history(key, 0, 10)] == [b"one", b"two"]


def kill_writers(url: str, but: int) -> None:
    sql(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
             "AND application_name LIKE 'dalsegno writer%%' AND pid <> %s", but)  # fmt: skip
