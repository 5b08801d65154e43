"""Queues of a fleet: what has ended belongs to the node that owns its instance, and to the next one after that."""

from __future__ import annotations

import asyncio

import pytest
from postgres_nodes import client, node, sql

from dalsegno import App, Fenced, Limits, process, step, step_key
from dalsegno.kernel.work import Claim, WorkEnd
from dalsegno.testing.store_suite import material as m
from dalsegno.testing.store_suite.queues import DONE, work

LIMITS = Limits(lease_seconds=1.0, poll_seconds=0.1)
held = asyncio.Event()


@step(queue="gpu")
async def render(n: int) -> str:
    await held.wait()
    return f"{n} {step_key()}"


@process
async def film(n: int) -> str:
    return await render(n)


async def test_what_workers_did_is_told_to_the_node_that_owns_the_instance_alone(postgres_url: str) -> None:
    async with node(postgres_url, "one") as one, node(postgres_url, "two") as two, client(postgres_url) as worker:
        [first] = await m.begin(one, "order-1")
        [second] = await m.begin(two, "order-2")
        await m.write(one, work=[work(first)])
        await m.write(two, work=[work(second)])
        rows = (await worker.claim_work("default", "gpu", 10, "w", 60)).work
        await worker.complete_work("default", [WorkEnd(claim=Claim(r.id, r.token), outcome=DONE) for r in rows])

        assert [row.instance for row in await one.work_done(10, ())] == [first]
        assert [row.instance for row in await two.work_done(10, ())] == [second]
        await one.close()
        assert sorted(row.instance for row in await two.work_done(10, ())) == [first, second]


async def test_the_node_that_takes_over_journals_what_workers_did_for_the_one_that_died(postgres_url: str) -> None:
    held.clear()
    other = App(postgres_url, limits=LIMITS, processes=[film], name="other")
    with pytest.raises(Fenced):
        await _die_while_a_worker_works(postgres_url, other)


async def _die_while_a_worker_works(url: str, other: App) -> None:
    async with App(url, limits=LIMITS, processes=[film], name="dying") as dying, other.worker("gpu"):
        for number in range(5):
            await dying.start(film, number, id=f"film-{number}")
        while sum(depth.running for depth in await dying.queues()) < 5:
            await asyncio.sleep(0.01)
        async with other:
            # It dies: no lease of its is renewed, no commit of its passes.
            sql(url, "UPDATE dalsegno.nodes SET lease_until = 0 WHERE name = 'dying'")
            held.set()
            for number in range(5):
                got = await other.get(f"film-{number}", str).result(20)
                assert got == f"{number} default/film-{number}/render"
            await asyncio.wait([asyncio.ensure_future(dying.stopped())])


async def test_a_queue_without_limits_is_claimed_from_side_by_side(postgres_url: str) -> None:
    async with node(postgres_url) as store, client(postgres_url) as one, client(postgres_url) as two:
        [key] = await m.begin(store, "order-1")
        await m.write(store, work=[work(key, n) for n in range(1, 201)])
        asked = [s.claim_work("default", "gpu", 10, "w", 60) for _ in range(10) for s in (one, two)]
        found = [row.id for claimed in await asyncio.gather(*asked) for row in claimed.work]

    assert len(found) == len(set(found)) == 200
