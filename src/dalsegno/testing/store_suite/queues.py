"""Steps on queues: each attempt is handed out once, and belongs to one worker at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dalsegno.errors import DalsegnoError, UsageError
from dalsegno.kernel.ports import Store
from dalsegno.kernel.work import Claim, Claimed, QueueRow, WorkBeat, WorkEnd, WorkRow
from dalsegno.testing.store_suite import material as m
from dalsegno.testing.store_suite.place import LONG_SECONDS, Place, client, in_loop, owner

DONE = b'{"result":1}'


def work(instance: int, number: int = 1, **fields: Any) -> WorkRow:
    """An attempt of a step on queue gpu."""
    operation = fields.pop("operation", "render" if number == 1 else f"render#{number}")
    known: dict[str, Any] = {
        "namespace": "default",
        "queue": "gpu",
        "instance_id": f"order-{instance}",
        "attempt": 1,
        "step": "render",
        "step_key": f"default/order-{instance}/{operation}",
        "arguments": b'["a",{}]',
        "at": m.BEGIN + number,
    }
    return WorkRow(instance=instance, operation=operation, **{**known, **fields})


def limits(**fields: Any) -> QueueRow:
    """What queue gpu allows."""
    return QueueRow(namespace="default", name="gpu", **fields)


def claim_of(row: WorkRow) -> Claim:
    """The proof of a claimed row."""
    return Claim(row.id, row.token)


class Scene:
    """A node with an instance, and a worker beside it."""

    def __init__(self, node: Store, worker: Store, key: int) -> None:
        self.node = node
        self.worker = worker
        self.key = key

    async def hand_out(self, *rows: WorkRow) -> None:
        """In one commit."""
        await m.write(self.node, work=rows)

    async def hand_out_keys(self, keys: str, **fields: Any) -> None:
        """A row for each letter, which is its key."""
        await self.hand_out(*(work(self.key, n, key=key, **fields) for n, key in enumerate(keys, 1)))

    async def ask(self, limit: int = 100, lease_seconds: float = LONG_SECONDS, **fields: Any) -> Claimed:
        """Ask for work."""
        namespace, queue = fields.pop("namespace", "default"), fields.pop("queue", "gpu")
        return await self.worker.claim_work(namespace, queue, limit, "worker-1", lease_seconds, **fields)

    async def claim(self, limit: int = 100, lease_seconds: float = LONG_SECONDS, **fields: Any) -> list[WorkRow]:
        """Claim work."""
        return (await self.ask(limit, lease_seconds, **fields)).work

    async def complete(self, *rows: WorkRow, namespace: str = "default") -> list[bool]:
        """Say that attempts came to something."""
        return await self.worker.complete_work(namespace, [WorkEnd(claim=claim_of(r), outcome=DONE) for r in rows])

    async def hold(self, row: WorkRow, details: bytes | None = None) -> str:
        """Give a sign of life."""
        [hold] = await self.worker.beat_work("default", [WorkBeat(claim=claim_of(row), details=details)], LONG_SECONDS)
        assert await self.worker.held_work([claim_of(row)]) == [hold]
        return hold

    async def done(self, *known: int, limit: int = 100) -> list[WorkRow]:
        """What the node is to take up."""
        return await self.node.work_done(limit, known)


@asynccontextmanager
async def scene(place: Place) -> AsyncIterator[Scene]:
    """A node with an instance, and a worker beside it."""
    async with owner(place) as node, client(place) as worker:
        [key] = await m.begin(node, "order-1")
        yield Scene(node, worker, key)


class QueueTests:
    """Handing out, claiming, ending."""

    @in_loop
    async def test_a_worker_gets_what_was_handed_out_with_everything_it_needs(self, place: Place) -> None:
        async with scene(place) as s:
            row = work(s.key, priority=3, key="ada", timeout_seconds=60.0, heartbeat_timeout_seconds=1.5, most_claims=7)
            await s.hand_out(row)
            before = s.node.now()
            [claimed] = await s.claim()

        assert claimed.token
        assert claimed.id > 0
        assert claimed.began_at is not None
        assert abs(claimed.began_at - before) < 60 * m.SECOND
        assert claimed.lease_until is not None
        assert claimed.lease_until > claimed.began_at
        for name in WorkRow.__struct_fields__:
            if name not in ("id", "token", "worker", "began_at", "lease_until", "claims"):
                assert getattr(claimed, name) == getattr(row, name), name
        assert (claimed.worker, claimed.claims, claimed.ended, claimed.outcome) == ("worker-1", 1, None, None)

    @in_loop
    async def test_an_attempt_is_handed_out_once_however_often_its_commit_is_made(self, place: Place) -> None:
        async with scene(place) as s:
            await s.hand_out(work(s.key), work(s.key))
            await s.hand_out(work(s.key), work(s.key, attempt=2))
            claimed = await s.claim()
            await s.hand_out(work(s.key))
            again = await s.claim()

        assert [row.attempt for row in claimed] == [1, 2]
        assert again == []

    @in_loop
    async def test_a_batch_that_fails_hands_nothing_out(self, place: Place) -> None:
        async with scene(place) as s:
            with pytest.raises(DalsegnoError):
                await m.write(s.node, work=[work(s.key)], rows=[(s.key, 0, m.BEGIN, "step_completed", b"taken")])
            assert await s.claim() == []

    @in_loop
    async def test_only_a_node_hands_out_work(self, place: Place) -> None:
        async with scene(place) as s:
            with pytest.raises(UsageError, match="hands out"):
                await s.worker.write(m.batch(work=[work(s.key)]))

    @in_loop
    async def test_what_is_claimed_is_nobody_elses_and_two_workers_never_get_the_same(self, place: Place) -> None:
        async with scene(place) as s, client(place) as other:
            await s.hand_out(*(work(s.key, n) for n in range(1, 41)))
            asked = [
                store.claim_work("default", "gpu", 5, name, LONG_SECONDS)
                for _ in range(4)
                for store, name in ((s.worker, "one"), (other, "two"))
            ]
            found = [row.id for claimed in await asyncio.gather(*asked) for row in claimed.work]

        assert len(found) == len(set(found)) == 40

    @in_loop
    async def test_a_claim_whose_lease_is_over_goes_to_the_next_worker_under_another_token(self, place: Place) -> None:
        async with scene(place) as s:
            await s.hand_out(work(s.key))
            [old] = await s.claim(lease_seconds=0)
            [new] = await s.claim()

            assert (new.id, new.step_key, new.claims) == (old.id, old.step_key, 2)
            assert new.token != old.token
            assert await s.hold(old) == "lost"
            assert await s.complete(old) == [False]
            await s.worker.return_work("default", [claim_of(old)])
            assert await s.hold(new) == "held"
            assert await s.done() == []

    @in_loop
    async def test_a_lease_that_is_prolonged_lasts(self, place: Place) -> None:
        async with scene(place) as s:
            await s.hand_out(work(s.key))
            [row] = await s.claim(lease_seconds=0)
            assert await s.hold(row) == "held"
            assert await s.claim() == []

    @in_loop
    async def test_a_worker_is_told_when_a_lease_ends_that_holds_work_back(self, place: Place) -> None:
        async with scene(place) as s:
            await s.worker.set_queues([limits(concurrency=1)])
            await s.hand_out(work(s.key), work(s.key, 2))
            await s.claim(lease_seconds=60)
            again = (await s.ask()).again_seconds

        assert again is not None
        assert 0 < again <= 60

    @in_loop
    async def test_an_outcome_is_the_nodes_to_take_up_until_it_is_journaled(self, place: Place) -> None:
        async with scene(place) as s:
            await s.hand_out(work(s.key), work(s.key, 2))
            claimed = await s.claim()
            assert await s.complete(claimed[0]) == [True]
            [done] = await s.done()
            assert (done.id, done.ended, done.outcome, done.worker) == (claimed[0].id, "told", DONE, "worker-1")
            assert done.operation == "render"
            await m.write(s.node, ended_work=[done.id], rows=[(s.key, 1, m.BEGIN, "step_completed", b"1")])
            assert await s.done() == []

    @in_loop
    async def test_the_node_is_not_told_again_of_what_it_knows(self, place: Place) -> None:
        async with scene(place) as s:
            await s.hand_out(*(work(s.key, n) for n in range(1, 6)))
            claimed = await s.claim()
            await s.complete(*claimed)

            assert [row.id for row in await s.done(limit=2)] == [row.id for row in claimed[:2]]
            assert [row.id for row in await s.done(claimed[0].id, claimed[3].id)] == [
                claimed[1].id, claimed[2].id, claimed[4].id,
            ]  # fmt: skip

    @in_loop
    async def test_the_last_word_may_be_repeated_also_after_it_was_journaled(self, place: Place) -> None:
        async with scene(place) as s:
            await s.hand_out(work(s.key), work(s.key, 2))
            [old] = await s.claim(limit=1, lease_seconds=0)
            row, other = await s.claim()
            assert await s.complete(row) == [True]
            assert await s.complete(row, other) == [True, True]
            await m.write(s.node, ended_work=[row.id])

            assert await s.complete(row) == [True]
            assert await s.complete(old) == [False]
            assert await s.hold(row) == "lost"
            assert await s.node.forget_work(s.node.now() + m.SECOND, 100) == 1
            assert await s.complete(row) == [False]

    @in_loop
    async def test_an_attempt_that_workers_keep_losing_comes_to_its_end(self, place: Place) -> None:
        async with scene(place) as s:
            await s.hand_out(work(s.key, most_claims=3))
            for _ in range(3):
                assert len(await s.claim(lease_seconds=0)) == 1
            assert await s.claim(lease_seconds=0) == []
            [lost] = await s.done()

        assert (lost.ended, lost.claims, lost.outcome) == ("lost", 3, None)

    @in_loop
    async def test_an_attempt_is_late_when_its_time_is_over_whatever_its_worker_says(self, place: Place) -> None:
        async with scene(place) as s:
            await s.hand_out(work(s.key, timeout_seconds=-5.0))
            [row] = await s.claim()
            assert await s.claim() == []
            [late] = await s.done()
            assert late.ended == "late"
            assert await s.complete(row) == [False]

    @in_loop
    async def test_what_a_worker_gives_back_is_claimed_at_once_and_not_counted_as_lost(self, place: Place) -> None:
        async with scene(place) as s:
            await s.hand_out(work(s.key, most_claims=1))
            for _ in range(3):
                [row] = await s.claim()
                await s.worker.return_work("default", [claim_of(row)])
            [row] = await s.claim(lease_seconds=0)
            [lost] = await s.done()

        assert lost.ended == "lost"

    @in_loop
    async def test_details_go_with_the_claim_and_to_the_next_attempt(self, place: Place) -> None:
        async with scene(place) as s:
            await s.hand_out(work(s.key))
            [first] = await s.claim(lease_seconds=0)
            assert first.details is None
            await s.worker.beat_work("default", [WorkBeat(claim=claim_of(first), details=b'{"row":7}')], 0)
            [second] = await s.claim()
            assert await s.hold(second) == "held"
            await s.complete(second)
            assert [row.details for row in (second, *await s.done())] == [b'{"row":7}'] * 2
            beat = m.beat(s.key, "render", b'{"row":7}')
            await m.write(s.node, ended_work=[second.id], heartbeats=[beat], work=[work(s.key, attempt=2)])
            [third] = await s.claim()

        assert third.details == b'{"row":7}'

    # -- stopping ----------------------------------------------------------------------------------

    @in_loop
    async def test_what_is_withdrawn_before_a_worker_begins_it_is_over(self, place: Place) -> None:
        async with scene(place) as s:
            await s.hand_out(work(s.key), work(s.key, cancelled=True))
            assert await s.claim() == []
            [row] = await s.done()

        assert (row.ended, row.cancelled, row.claims) == ("cancelled", True, 0)

    @in_loop
    async def test_what_was_never_handed_out_is_withdrawn_all_the_same(self, place: Place) -> None:
        async with scene(place) as s:
            await s.hand_out(work(s.key, cancelled=True))
            [row] = await s.done()

        assert (row.ended, row.claims) == ("cancelled", 0)

    @in_loop
    async def test_a_worker_is_told_to_stop_and_its_last_word_counts(self, place: Place) -> None:
        async with scene(place) as s:
            await s.hand_out(work(s.key))
            [row] = await s.claim()
            await s.hand_out(work(s.key, cancelled=True))
            assert await s.done() == []
            assert await s.hold(row) == "cancelled"
            assert await s.complete(row) == [True]
            [done] = await s.done()

        assert (done.ended, done.cancelled, done.outcome) == ("told", True, DONE)

    @in_loop
    async def test_what_is_to_stop_is_not_begun_again(self, place: Place) -> None:
        async with scene(place) as s:
            await s.hand_out(work(s.key), work(s.key, 2))
            lost, returned = await s.claim(lease_seconds=0)
            await s.hand_out(work(s.key, cancelled=True), work(s.key, 2, cancelled=True))
            await s.worker.return_work("default", [claim_of(returned)])
            assert await s.claim() == []
            assert [(row.id, row.ended, row.claims) for row in await s.done()] == [
                (lost.id, "cancelled", 1),
                (returned.id, "cancelled", 1),
            ]

    @in_loop
    async def test_an_instance_that_ends_takes_its_attempts_along(self, place: Place) -> None:
        async with scene(place) as s:
            [other] = await m.begin(s.node, "order-2")
            await s.hand_out(work(s.key), work(s.key, 2), work(other))
            [row] = await s.claim(limit=1)
            await m.write(s.node, dropped_work=[s.key], changes=[m.change(s.key, "terminated")])
            assert await s.hold(row) == "lost"
            assert await s.complete(row) == [False]
            assert [row.instance for row in await s.claim()] == [other]

    # -- order and limits --------------------------------------------------------------------------

    @in_loop
    async def test_higher_priorities_come_first_and_equal_ones_in_their_order(self, place: Place) -> None:
        async with scene(place) as s:
            await s.hand_out(*(work(s.key, n, priority=p) for n, p in enumerate([0, 5, -1, 5, 0], 1)))
            claimed = await s.claim(limit=4) + await s.claim()

        assert [row.operation for row in claimed] == ["render#2", "render#4", "render", "render#5", "render#3"]

    @in_loop
    async def test_keys_take_turns_however_much_one_of_them_has(self, place: Place) -> None:
        async with scene(place) as s:
            await s.hand_out_keys("aaaaabbc")
            claimed = await s.claim()

        assert "".join(row.key for row in claimed) == "abcabaaa"

    @in_loop
    async def test_keys_take_turns_also_where_one_is_claimed_after_the_other(self, place: Place) -> None:
        async with scene(place) as s:
            await s.hand_out_keys("aaaab")
            order = ""
            for n in range(7):
                [row] = await s.claim(limit=1)
                order += row.key
                await s.complete(row)
                await m.write(s.node, ended_work=[row.id])
                if n == 2:
                    # Who comes later waits for nobody's backlog.
                    await s.hand_out(work(s.key, 50, key="c"), work(s.key, 51, key="c"))

        assert order.startswith("aba")
        assert "c" in order[3:5]

    @in_loop
    async def test_a_queue_runs_no_more_at_once_than_it_may(self, place: Place) -> None:
        async with scene(place) as s:
            await s.worker.set_queues([limits(concurrency=2)])
            await s.hand_out_keys("aaaa")
            running = await s.claim()
            assert len(running) == 2
            assert await s.claim() == []
            await s.complete(running[0])
            assert len(await s.claim()) == 1
            await s.node.set_queues([limits()])
            assert len(await s.claim()) == 1

    @in_loop
    async def test_a_key_runs_no_more_at_once_than_it_may_and_holds_nobody_up(self, place: Place) -> None:
        async with scene(place) as s:
            await s.worker.set_queues([limits(concurrency_per_key=1)])
            await s.hand_out_keys("aaaab")
            first = await s.claim(limit=1)
            rest = await s.claim(limit=3)
            assert [row.key for row in first + rest] == ["a", "b"]
            await s.complete(first[0])
            assert [row.key for row in await s.claim()] == ["a"]

    @in_loop
    async def test_with_a_limit_by_key_priorities_and_turns_still_hold(self, place: Place) -> None:
        async with scene(place) as s:
            await s.worker.set_queues([limits(concurrency=5, concurrency_per_key=2)])
            await s.hand_out_keys("aaabbcc")
            await s.hand_out(work(s.key, 20, key="a", priority=1))
            claimed = await s.claim()

        assert [(row.priority, row.key) for row in claimed] == [(1, "a"), (0, "a"), (0, "b"), (0, "c"), (0, "b")]

    @in_loop
    async def test_a_rate_holds_for_all_workers(self, place: Place) -> None:
        async with scene(place) as s, client(place) as other:
            await s.worker.set_queues([limits(per_second=1 / 3600)])
            await s.hand_out_keys("aaa")
            assert len(await s.claim()) == 1
            asked = await other.claim_work("default", "gpu", 5, "other", LONG_SECONDS)

        assert asked.work == []
        assert asked.again_seconds is not None
        assert 3000 < asked.again_seconds <= 3600

    @in_loop
    async def test_a_worker_gets_only_steps_that_it_knows_of_its_own_queue_and_namespace(self, place: Place) -> None:
        async with scene(place) as s:
            rows = [
                work(s.key, 1, step="other"),
                work(s.key, 2, queue="cpu"),
                work(s.key, 3, namespace="support"),
                work(s.key, 4),
            ]
            await s.hand_out(*rows)
            claimed = await s.claim(steps=["render", "cut"])
            foreign = await s.claim(namespace="support")
            await s.worker.set_queues([limits(concurrency_per_key=5)])

            assert [row.operation for row in claimed + foreign] == ["render#4", "render#3"]
            assert await s.complete(*claimed, namespace="support") == [False]
            assert await s.claim(steps=["render"]) == []
            assert [row.step for row in await s.claim(steps=["other"])] == ["other"]

    @in_loop
    async def test_queues_tell_how_much_stands_in_them_and_since_when(self, place: Place) -> None:
        async with scene(place) as s:
            await s.hand_out(*(work(s.key, n) for n in range(1, 5)), work(s.key, 9, queue="cpu", namespace="support"))
            await s.complete(*(await s.claim(limit=2))[:1])
            depths = await s.worker.queue_depths(None)
            own = await s.worker.queue_depths("default")

        assert [(d.namespace, d.name, d.ready, d.running, d.done, d.oldest_at) for d in depths] == [
            ("default", "gpu", 2, 1, 1, m.BEGIN + 3),
            ("support", "cpu", 1, 0, 0, m.BEGIN + 9),
        ]
        assert own == depths[:1]

    @in_loop
    async def test_whoever_completes_work_rings_the_node(self, place: Place) -> None:
        async with scene(place) as s:
            rung = asyncio.Event()
            s.node.on_ring(rung.set)
            await s.hand_out(work(s.key))
            [row] = await s.claim()
            rung.clear()
            await s.complete(row)
            async with asyncio.timeout(5):
                await rung.wait()
