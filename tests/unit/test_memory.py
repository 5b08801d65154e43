"""Instances that only wait leave memory and come back when something happens; nothing is in memory only."""

import asyncio
import gc
import weakref
from typing import Any

import pytest

from dalsegno import Event, Limits, annotate, ask, on, process, saga, step, wait_for
from dalsegno.kernel import entries


class Go(Event, key="n"):
    n: int


class Peek(Event, reply=int):
    pass


async def stands(run: Any, status: str) -> bool:
    return await run.status() == status


def residents(app: Any) -> int:
    return len(app._node.residents)


async def test_waiting_instances_leave_memory_beyond_the_limit_and_all_wake_up(open_app, until):
    @step
    async def work(n: int) -> int:
        return n

    @process
    async def order(n: int) -> int:
        first = await work(n)
        await wait_for(Go, n=n)
        return first + await work(n)

    async with open_app(limits=Limits(resident_instances=20)) as app:
        runs = [await app.start(order, n) for n in range(200)]
        for run in runs:
            await until(lambda run=run: stands(run, "waiting"))
        assert residents(app) <= 21
        for n in reversed(range(200)):
            await app.publish(Go(n))
        assert [await run.result() for run in runs] == [2 * n for n in range(200)]
        assert residents(app) == 0


async def test_sleeping_instances_leave_memory_and_wake_in_time(open_app):
    @process
    async def sleeps(n: int) -> int:
        await asyncio.sleep(0.05 + n % 10 / 1000)
        return n

    async with open_app(limits=Limits(resident_instances=5)) as app:
        runs = await asyncio.gather(*(app.start(sleeps, n) for n in range(100)))
        assert residents(app) <= 100
        assert [await run.result() for run in runs] == list(range(100))


async def test_everything_an_instance_waits_with_survives_leaving_memory(open_app, until):
    done: list[str] = []

    @step
    async def reserve(name: str) -> None:
        done.append(f"+{name}")

    @reserve.undo
    async def release(name: str, result: None) -> None:
        done.append(f"-{name}")

    @process
    async def rich() -> list[Any]:
        peeked = 0

        @on(Peek)
        def peek(request: Peek) -> int:
            nonlocal peeked
            peeked += 1
            return peeked

        annotate(stage="rich")
        lock = asyncio.Lock()
        async with saga():
            await reserve("a")
            async with lock, asyncio.timeout(86400):
                found = await asyncio.gather(wait_for(Go, n=1), ask("finance", int), asyncio.sleep(0.01, "slept"))
            return [found[0].n, found[1], found[2], peeked]

    @process
    async def idle(n: int) -> None:
        await wait_for(Go, n=n)

    async def push_out() -> None:
        # Whatever rests longest leaves first: newcomers take the place of the one under test.
        run = await app.start(idle, 99)
        await until(lambda: stands(run, "waiting"))

    async with open_app(limits=Limits(resident_instances=0)) as app:
        run = await app.start(rich, id="one")
        await until(lambda: stands(run, "waiting"))
        await push_out()
        assert await run.update(Peek()) == 1
        await push_out()
        assert await run.update(Peek()) == 2
        await push_out()
        await app.publish(Go(1))
        await push_out()
        await app.answer("one/finance", 7)
        assert await run.result() == [1, 7, "slept", 2]
    assert done == ["+a"]


async def test_code_that_tries_to_go_on_while_it_leaves_memory_writes_nothing(open_app, until):
    @step
    async def after() -> None:
        raise AssertionError("must not run")

    @process
    async def clings(n: int) -> str:
        try:
            await wait_for(Go, n=n)
        except BaseException:
            await after()
            raise
        finally:
            annotate(left=True)
        return "done"

    @process
    async def cleans_up(n: int) -> str:
        try:
            await wait_for(Go, n=n)
        finally:
            if False:
                await after()
        return "done"

    async with open_app(limits=Limits(resident_instances=0)) as app:
        runs = [await app.start(clings, 1, id="a"), await app.start(cleans_up, 2, id="b")]
        for run in runs:
            await until(lambda run=run: stands(run, "waiting"))
        await until(lambda: residents(app) <= 1)
        kinds = [type(r.entry) for r in await runs[0].history()]
        assert kinds == [entries.Started, entries.EventAwaited]
        await app.publish(Go(1))
        await app.publish(Go(2))
        assert [await run.result() for run in runs] == ["done", "done"]


async def test_an_ended_instance_is_freed_at_once(open_app):
    seen: list[weakref.ref[Any]] = []

    class Big:
        pass

    @process
    async def holds() -> str:
        big = Big()
        seen.append(weakref.ref(big))
        await asyncio.sleep(0.001)
        return "done"

    async with open_app() as app:
        gc.collect()
        gc.disable()
        try:
            await asyncio.gather(*[(await app.start(holds)).result() for _ in range(20)])
            await app.counts()
            assert [ref() for ref in seen] == [None] * len(seen)
        finally:
            gc.enable()


@pytest.mark.parametrize("count", [1, 300])
async def test_many_events_wake_one_evicted_instance_once_each(open_app, until, count):
    @process
    async def listens() -> int:
        total = 0
        for _ in range(count):
            total += (await wait_for(Go)).n
        return total

    @process
    async def idle() -> None:
        await wait_for(Go, n=-1)

    async with open_app(limits=Limits(resident_instances=0)) as app:
        run = await app.start(listens)
        await until(lambda: stands(run, "waiting"))
        other = await app.start(idle)
        await until(lambda: stands(other, "waiting"))
        await asyncio.gather(*(app.publish(Go(1)) for _ in range(count)))
        assert await run.result() == count
