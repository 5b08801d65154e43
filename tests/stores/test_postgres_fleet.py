"""Many nodes on one database: who runs what, who hears what, and who may write."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import psycopg
import pytest
from postgres_nodes import client, lease_ends, node, sql

from dalsegno.errors import Fenced, UsageError
from dalsegno.kernel.ports import Store
from dalsegno.testing.store_suite import material as m
from dalsegno.testing.store_suite.place import commit

PATIENCE_SECONDS = 10.0


async def handed_in(url: str, *ids: str, **fields: Any) -> list[int]:
    """Instances that a client started: nobody's."""
    async with node(url):
        pass
    async with client(url) as beside:
        found = await beside.write(m.batch(starts=[m.start(id, **fields) for id in ids]))
    return [key for key in found.start_keys if key is not None]


async def owners(store: Store, *ids: str) -> list[int]:
    rows = [await store.find("default", id) for id in ids]
    return [row.owner for row in rows if row is not None]


async def test_nodes_stand_side_by_side_each_with_an_epoch_of_its_own(postgres_url: str) -> None:
    async with node(postgres_url, "north") as north, node(postgres_url, "south") as south:
        assert north.epoch != south.epoch
        assert sorted(one.name for one in await north.nodes() if one.ended_at is None) == ["north", "south"]
        await m.begin(north, "order-1")
        await m.begin(south, "order-2")

        assert await owners(north, "order-1", "order-2") == [north.epoch, south.epoch]


async def test_a_node_whose_lease_is_over_by_the_databases_clock_is_ended_and_fenced(postgres_url: str) -> None:
    async with node(postgres_url, "north") as north, node(postgres_url, "south") as south:
        [key] = await m.begin(north, "order-1")
        assert await south.mark_recovered(3) == []
        await north.renew(600)
        lease_ends(postgres_url, north)
        await south.mark_recovered(3)

        for refused in (
            lambda: commit(north, m.batch(rows=[(key, 1, m.BEGIN, "step_completed", b"zombie")])),
            lambda: north.renew(600),
            lambda: north.release([key]),
            lambda: north.mark_recovered(3),
            lambda: north.put_on_trial([key]),
            lambda: north.forget_events(0, 1),
            lambda: north.load([key]),
        ):
            with pytest.raises(Fenced):
                await refused()
        assert await south.running(0, 10) == [key]
        assert (await south.load([key]))[0].row.crashes == 1
        assert len(await south.history(key, -1, 10)) == 1


async def test_a_clean_close_leaves_what_it_ran_to_others_without_a_crash(postgres_url: str) -> None:
    async with node(postgres_url, "south") as south:
        async with node(postgres_url, "north") as north:
            [key] = await m.begin(north, "order-1")
            assert await south.running(0, 10) == []
        assert await south.mark_recovered(1) == []
        assert await south.running(0, 10) == [key]
        assert (await south.load([key]))[0].row.crashes == 0


async def test_claims_of_nodes_at_the_same_time_are_disjoint_and_complete(postgres_url: str) -> None:
    keys = await handed_in(postgres_url, *(f"order-{n}" for n in range(400)))
    async with node(postgres_url, "a") as a, node(postgres_url, "b") as b, node(postgres_url, "c") as c:

        async def claim(store: Store) -> list[int]:
            mine: list[int] = []
            while found := await store.running(0, 7):
                mine += found
            return mine

        found = await asyncio.gather(claim(a), claim(b), claim(c))
        rest = await a.running(0, 400) + await b.running(0, 400)
        everything = [key for one in found for key in one] + rest

        assert sorted(everything) == keys
        for store, mine in zip((a, b, c), found, strict=True):
            assert {item.row.owner for item in await store.load(mine)} <= {store.epoch}


async def test_a_node_takes_over_only_what_it_has_code_for(postgres_url: str) -> None:
    orders = await handed_in(postgres_url, "order-1")
    newer = await handed_in(postgres_url, "order-2", version=2)
    refunds = await handed_in(postgres_url, "refund-1", process="refund")
    async with node(postgres_url, "a") as a, node(postgres_url, "b") as b:
        a.knows([("order", 1)])
        b.knows([("order", 2), ("refund", 1)])

        assert await a.running(0, 10) == orders
        assert await b.running(0, 10) == newer + refunds


async def test_what_waits_is_taken_over_when_it_is_due(postgres_url: str) -> None:
    async with node(postgres_url, "south") as south:
        async with node(postgres_url, "north") as north:
            early, late = await m.begin(north, "order-1", "order-2")
            await m.write(
                north,
                changes=[m.change(early, "waiting", wake_at=10), m.change(late, "waiting", wake_at=99)],
            )
            assert await south.due(50, (0, -1), 10) == []
        assert await south.due(50, (0, -1), 10) == [(10, early)]
        assert [owner == south.epoch for owner in await owners(south, "order-1", "order-2")] == [True, False]


async def test_suspects_are_no_running_instances(postgres_url: str) -> None:
    async with node(postgres_url, "north") as north:
        bad, good = await m.begin(north, "order-1", "order-2")
        sql(postgres_url, "UPDATE dalsegno.instances SET crashes = 2, crashed_seq = 0 WHERE key = %s", bad)
        async with node(postgres_url, "south") as south:
            lease_ends(postgres_url, north)
            await south.mark_recovered(9, 2)

            assert await south.running(0, 10) == [good]
            assert await south.suspects(2) == [(bad, 2)]
            assert await south.suspects(2) == [(bad, 2)]


async def test_a_message_goes_to_the_node_that_runs_the_instance(postgres_url: str) -> None:
    async with node(postgres_url, "north") as north, node(postgres_url, "south") as south:
        await m.begin(north, "order-1")
        await m.begin(south, "order-2")
        await handed_in(postgres_url, "order-3")
        async with client(postgres_url) as beside:
            await beside.write(m.batch(messages=[m.message(f"order-{n}") for n in (1, 2)]))

            assert [message.instance for message in await north.messages(0)] == ["order-1"]
            assert [message.instance for message in await south.messages(0)] == ["order-2"]
            await beside.write(m.batch(messages=[m.message("order-3"), m.message("nowhere")]))
            assert [message.instance for message in await south.messages(99)] == ["order-3", "nowhere"]
            assert [message.instance for message in await north.messages(99)] == ["nowhere"]
            assert await south.messages(99) == []


async def test_a_match_goes_to_the_node_that_runs_the_instance(postgres_url: str) -> None:
    async with node(postgres_url, "north") as north, node(postgres_url, "south") as south:
        [mine], [theirs] = await m.begin(north, "order-1"), await m.begin(south, "order-2")
        await m.write(north, waits=[m.wait(mine)])
        await m.write(south, waits=[m.wait(theirs)])
        rung = asyncio.Event()
        south.on_ring(rung.set)
        found = await m.write(north, events=[m.event("event-1")])

        assert [match.instance for match in found.matches] == [mine]
        async with asyncio.timeout(PATIENCE_SECONDS):
            await rung.wait()
        assert [match.instance for match in await south.matches()] == [theirs]
        assert [match.instance for match in await north.matches()] == [mine]


async def test_a_matched_wait_of_a_node_that_ended_is_taken_over(postgres_url: str) -> None:
    async with node(postgres_url, "south") as south:
        async with node(postgres_url, "north") as north:
            [key] = await m.begin(north, "order-1")
            await m.write(north, waits=[m.wait(key)], changes=[m.change(key, "waiting")])
            await m.write(south, events=[m.event("event-1")])
            assert await south.matches() == []
        assert [match.instance for match in await south.matches()] == [key]
        assert await owners(south, "order-1") == [south.epoch]


@pytest.mark.parametrize("event_first", [True, False])
async def test_an_event_and_a_wait_of_overlapping_transactions_find_each_other(
    postgres_url: str, event_first: bool
) -> None:
    async with node(postgres_url, "north") as north, node(postgres_url, "south") as south:
        [key] = await m.begin(north, "order-1")
        event, wait = m.batch(events=[m.event("event-1")]), m.batch(waits=[m.wait(key)])
        first, second = ((south, event), (north, wait)) if event_first else ((north, wait), (south, event))
        with Held(postgres_url, "fences", first[0]):
            # The first has the namespace's lock and waits for its fence; the second waits for the lock.
            one = asyncio.create_task(commit(*first))
            await waits_for_lock(postgres_url, 1)
            other = asyncio.create_task(commit(*second))
            await waits_for_lock(postgres_url, 2)
        await asyncio.gather(one, other)

        assert [match.event_id for match in await north.matches()] == ["event-1"]


class Held:
    """Another session's lock on a node's fence: its next commit stops there."""

    def __init__(self, url: str, table: str, store: Store) -> None:
        self._connection = psycopg.connect(url)
        self._text = f"SELECT 1 FROM dalsegno.{table} WHERE epoch = {store.epoch} FOR KEY SHARE"

    def __enter__(self) -> None:
        self._connection.execute(self._text.replace("KEY SHARE", "UPDATE"))

    def __exit__(self, *_: object) -> None:
        self._connection.close()


async def waits_for_lock(url: str, count: int) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await asyncio.to_thread(sql, url, waiting))[0][0] < count:
            await asyncio.sleep(0.005)


async def test_positions_of_events_are_in_the_order_of_commits(postgres_url: str) -> None:
    seen: list[int] = []
    over = threading.Event()

    def follow() -> None:
        # A follower that asks for what is after the last position it saw.
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            last = 0
            while not over.is_set() or len(seen) < 400:
                for (last,) in connection.execute(  # noqa: B020
                    "SELECT position FROM dalsegno.events WHERE namespace = 'default' AND position > %s ORDER BY 1",
                    (last,),
                ).fetchall():
                    seen.append(last)
                if over.is_set() and len(seen) < 400:
                    break

    async with node(postgres_url, "north") as north, node(postgres_url, "south") as south:
        follower = asyncio.create_task(asyncio.to_thread(follow))

        async def publish(store: Store, name: str) -> None:
            for n in range(50):
                await m.write(store, events=[m.event(f"{name}-{n}-{k}") for k in range(4)])

        await asyncio.gather(publish(north, "north"), publish(south, "south"))
        await asyncio.sleep(0.1)
        over.set()
        await follower

    assert len(seen) == 400


async def test_a_message_that_is_committed_late_comes_all_the_same(postgres_url: str) -> None:
    async with node(postgres_url, "north") as north, client(postgres_url) as beside:
        with psycopg.connect(postgres_url) as slow:
            beside.enlist(slow, m.batch(messages=[m.message("slow")]))
            await beside.write(m.batch(messages=[m.message("quick")]))
            [quick] = await north.messages(0)
            assert quick.instance == "quick"
            slow.commit()
        late = await north.messages(quick.position)

        assert [message.instance for message in late] == ["slow"]
        assert await north.messages(quick.position) == []


async def test_what_a_user_enlists_counts_when_they_commit(postgres_url: str) -> None:
    async with node(postgres_url, "north") as north:
        with psycopg.connect(postgres_url) as tx:
            tx.execute("CREATE TABLE orders (id text)")
            tx.execute("INSERT INTO orders VALUES ('1')")
            found, taken = north.enlist(tx, m.batch(starts=[m.start("order-1")], messages=[m.message()]))
            assert found.start_keys[0] is not None
            assert taken is None
            assert await north.find("default", "order-1") is None
            tx.commit()
            _, taken = north.enlist(tx, m.batch(starts=[m.start("order-1")]))
            assert taken is not None
            assert taken.id == "order-1"
            north.enlist(tx, m.batch(starts=[m.start("order-2")]))
            tx.rollback()

        assert await north.running(0, 10) == found.start_keys
        assert await north.find("default", "order-2") is None


async def test_what_is_no_transaction_on_this_database_is_refused(postgres_url: str, postgres: Any) -> None:
    other = postgres.create_database()
    async with node(postgres_url) as north, node(other):
        with psycopg.connect(postgres_url, autocommit=True) as tx, pytest.raises(UsageError, match="autocommit"):
            north.enlist(tx, m.batch(starts=[m.start("order-1")]))
        with psycopg.connect(other) as tx, pytest.raises(UsageError, match="the store is"):
            north.enlist(tx, m.batch(starts=[m.start("order-1")]))
        with pytest.raises(UsageError, match=r"psycopg\.Connection"):
            north.enlist(object(), m.batch(starts=[m.start("order-1")]))


async def test_two_stores_of_one_database_in_two_schemas_know_nothing_of_each_other(postgres_url: str) -> None:
    async with node(postgres_url) as one, node(f"{postgres_url}?schema=second+store") as other:
        await m.begin(one, "order-1")

        assert await other.find("default", "order-1") is None
        assert len(await other.nodes()) == 1
        [key] = await m.begin(other, "order-1")
        await m.write(other, waits=[m.wait(key)])
        assert (await m.write(one, events=[m.event("event-1")])).matches == []
        assert len((await m.write(other, events=[m.event("event-1")])).matches) == 1


async def test_texts_that_postgresql_cant_hold_stop_nobody(postgres_url: str) -> None:
    async with node(postgres_url) as north:
        [key] = await m.begin(north, "order \x00 \\ \" ' {,} NULL")
        await m.write(north, changes=[m.change(key, "failed", error="bad \x00 byte", waiting_for='"quoted"')])
        row = await north.find("default", "order \x00 \\ \" ' {,} NULL")

        assert row is not None
        assert row.error == "bad \u2400 byte"
        assert row.waiting_for == '"quoted"'


async def test_the_clock_is_the_databases_and_never_goes_back(postgres_url: str) -> None:
    async with node(postgres_url) as north:
        before = north.now()
        [(moment,)] = sql(postgres_url, "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
        await north.renew(600)

        assert abs(moment - before) < 2 * m.SECOND
        assert north.now() >= before
