"""Fan-out: ten thousand steps and thousands of children of one instance, with a bound on what runs at once."""

import asyncio
import time

import pytest

from dalsegno import LimitExceeded, Limits, process, step


async def test_ten_thousand_steps_side_by_side_of_one_instance(open_app):
    @step
    async def square(n: int) -> int:
        return n * n

    @process
    async def fans_out(count: int) -> int:
        return sum(await asyncio.gather(*(square(n) for n in range(count))))

    async with open_app(deterministic=False) as app:
        began = time.monotonic()
        run = await app.start(fans_out, 10_000)
        assert await run.result() == sum(n * n for n in range(10_000))
        assert time.monotonic() - began < 15
        assert len(await run.history()) == 10_002
        # And its journal replays.
        await app.replay(run.id)


async def test_no_more_steps_run_at_once_than_the_limit_says(open_app):
    running = most = 0

    @step
    async def work(n: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.0005)
        running -= 1
        return n

    @process
    async def fans_out(count: int) -> int:
        return len(await asyncio.gather(*(work(n) for n in range(count))))

    async with open_app(deterministic=False, limits=Limits(running_steps=50)) as app:
        runs = [await app.start(fans_out, 1000) for _ in range(3)]
        assert [await run.result() for run in runs] == [1000] * 3
    assert 10 < most <= 50


async def test_a_process_bounds_its_own_fan_out_with_a_semaphore(open_app):
    running = most = 0

    @step
    async def work(n: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return n

    @process
    async def bounded(count: int) -> int:
        room = asyncio.Semaphore(20)

        async def one(n: int) -> int:
            async with room:
                return await work(n)

        return sum(await asyncio.gather(*(one(n) for n in range(count))))

    async with open_app(deterministic=False) as app:
        run = await app.start(bounded, 3000)
        assert await run.result() == sum(range(3000))
        await app.replay(run.id)
    assert most <= 20


async def test_two_thousand_children_with_bounded_flight(open_app):
    running = most = 0

    @step
    async def work(n: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return n

    @process
    async def child(n: int) -> int:
        return await work(n)

    @process
    async def parent(count: int) -> int:
        room = asyncio.Semaphore(100)

        async def one(n: int) -> int:
            async with room:
                return await child(n)

        return sum(await asyncio.gather(*(one(n) for n in range(count))))

    async with open_app(deterministic=False) as app:
        run = await app.start(parent, 2000)
        assert await run.result() == sum(range(2000))
        assert await app.counts() == {"completed": 2001}
    assert most <= 100


async def test_a_fan_out_that_was_interrupted_goes_on_with_what_is_left(open_app, until):
    done: list[int] = []

    @step
    async def work(n: int) -> int:
        done.append(n)
        await asyncio.sleep(0.001)
        return n

    @process
    async def fans_out(count: int) -> int:
        return sum(await asyncio.gather(*(work(n) for n in range(count))))

    limits = Limits(running_steps=20)
    async with open_app(deterministic=False, limits=limits) as app:
        await app.start(fans_out, 2000, id="one")
        await until(lambda: len(done) > 500)
    async with open_app(deterministic=False, limits=limits) as app:
        assert await app.get("one").result() == sum(range(2000))
    # The close waited for the steps that were running: none was done twice.
    assert sorted(done) == list(range(2000))


async def test_more_open_operations_than_the_limit_are_refused_in_the_process(open_app):
    @step
    async def work(n: int) -> int:
        await asyncio.sleep(0.01)
        return n

    @process
    async def child(n: int) -> int:
        return await work(n)

    @process
    async def fans_out(what: str) -> str:
        calls = [work(n) if what == "steps" else child(n) for n in range(200)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        refused = [error for error in found if isinstance(error, LimitExceeded)]
        return f"{len(refused)} {refused[0]}"

    async with open_app(deterministic=False, limits=Limits(open_operations=50)) as app:
        for what in ("steps", "children"):
            message = await (await app.start(fans_out, what, id=what)).result()
            assert message.startswith("150 instance ")
            assert "(Limits.open_operations)" in message


@pytest.mark.parametrize("count", [1000])
async def test_a_thousand_instances_at_once_each_get_their_own_result(open_app, count):
    @step
    async def work(n: int) -> int:
        return n

    @process
    async def job(n: int) -> int:
        return await work(n) + await work(n) + await work(n)

    async with open_app(deterministic=False) as app:
        runs = await asyncio.gather(*(app.start(job, n) for n in range(count)))
        assert await asyncio.gather(*(run.result() for run in runs)) == [3 * n for n in range(count)]
        assert await app.counts() == {"completed": count}
