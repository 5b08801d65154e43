"""Time, chance and names in process code: the same on every replay, different between instances."""

import asyncio
import uuid as uuid_module
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dalsegno import Event, OutsideProcess, now, process, random, step, uuid, wait_for


class Go(Event):
    pass


async def stands(run: Any, status: str) -> bool:
    return await run.status() == status


@process
async def throws(n: int) -> list[Any]:
    first = [random().random(), random().randint(1, 10**9), str(uuid())]
    await wait_for(Go)
    return [*first, random().random(), str(uuid()), random().sample(range(100), 5)]


async def test_chance_is_the_same_after_a_restart(open_app, until):
    async with open_app() as app:
        run = await app.start(throws, 1, id="one")
        await until(lambda: stands(run, "waiting"))
    async with open_app() as app:
        await app.get("one").publish(Go())
        found = await app.get("one").result()
    # And the same again for the same id on another file: the seed is the instance's name.
    assert len(found[-1]) == 5


async def test_instances_throw_different_dice(open_app, until):
    async with open_app() as app:
        runs = [await app.start(throws, 1) for _ in range(5)]
        for run in runs:
            await run.publish(Go())
        results = [await run.result() for run in runs]
    assert len({result[0] for result in results}) == 5
    assert len({result[2] for result in results}) == 5


async def test_uuids_are_random_ones(open_app):
    @process
    async def makes() -> list[str]:
        return [str(uuid()) for _ in range(100)]

    async with open_app() as app:
        found = [uuid_module.UUID(text) for text in await (await app.start(makes)).result()]
    assert len(set(found)) == 100
    assert {found.version for found in found} == {4}


async def test_now_is_the_time_of_what_happened_last(open_app, until):
    @step
    async def work() -> None: ...

    @process
    async def looks() -> list[datetime]:
        seen = [now(), now()]
        await work()
        seen.append(now())
        await asyncio.sleep(0.02)
        seen.append(now())
        await wait_for(Go)
        seen.append(now())
        return seen

    before = datetime.now(UTC)
    async with open_app() as app:
        run = await app.start(looks, id="one")
        await until(lambda: stands(run, "waiting"))
    async with open_app() as app:
        run = app.get("one", list[datetime])
        await run.publish(Go())
        seen = await run.result()
        ats = [record.at for record in await run.history()]
    assert seen[0] == seen[1]
    assert seen == sorted(seen)
    assert before - timedelta(seconds=1) <= seen[0] <= seen[-1] <= datetime.now(UTC)
    assert seen[3] - seen[2] >= timedelta(seconds=0.02)
    assert seen[0].timestamp() * 1e6 == pytest.approx(ats[0], abs=2)
    assert seen[0].tzinfo is UTC


async def test_a_sleep_of_no_time_does_not_wait_and_a_negative_one_neither(open_app):
    @process
    async def sleeps() -> bool:
        before = now()
        await asyncio.sleep(0)
        await asyncio.sleep(-5)
        return now() == before

    async with open_app() as app:
        assert await (await app.start(sleeps)).result()


async def test_sleeps_for_years_are_kept_to_the_microsecond(open_app, until):
    @process
    async def sleeps() -> None:
        await asyncio.sleep(timedelta(days=3650).total_seconds())

    async with open_app() as app:
        run = await app.start(sleeps)
        await until(lambda: stands(run, "waiting"))
        instance = await run.describe()
        slept = instance.wake_at - instance.started_at
        assert abs(slept - timedelta(days=3650)) < timedelta(microseconds=2)
        await run.terminate()


async def test_timers_further_away_than_the_window_ring_too(open_app):
    from dalsegno import Limits

    @process
    async def sleeps(n: int) -> int:
        await asyncio.sleep(0.05 * n)
        return n

    async with open_app(limits=Limits(timer_window_seconds=0.02, resident_instances=0)) as app:
        runs = [await app.start(sleeps, n) for n in range(6)]
        assert [await run.result() for run in runs] == list(range(6))


async def test_a_timer_that_came_due_while_no_node_ran_rings_at_once(open_app, until):
    @process
    async def sleeps() -> str:
        await asyncio.sleep(0.02)
        return "woken"

    async with open_app() as app:
        run = await app.start(sleeps, id="one")
        await until(lambda: stands(run, "waiting"))
    await asyncio.sleep(0.03)
    async with open_app() as app:
        assert await app.get("one").result(timeout_seconds=5) == "woken"


@pytest.mark.parametrize("word", [now, random, uuid])
def test_outside_a_process_these_words_say_where_they_belong(word):
    with pytest.raises(OutsideProcess, match=rf"{word.__name__}\(\) is a word of process code"):
        word()
