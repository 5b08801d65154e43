"""What an instance shows of itself: annotations that can be searched, status, what it waits for, its history."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from dalsegno import Event, Limits, NotFound, Retry, annotate, process, step, wait_for


class Go(Event):
    pass


@process
async def order(n: int) -> int:
    annotate(stage="picking", n=n, big=n > 5, lines=[n], shop={"city": "Köln"})
    await wait_for(Go)
    annotate(stage="packing", shop={"street": "Domplatz"}, big=None)
    await wait_for(Go)
    return n


async def stands(run: Any, status: str) -> bool:
    return await run.status() == status


async def ids(app: Any, **filters: Any) -> list[str]:
    return [instance.id async for instance in app.list(**filters)]


async def test_annotations_are_there_at_once_change_and_stay_after_the_end(open_app, until):
    async with open_app() as app:
        run = await app.start(order, 7, id="one")
        await until(lambda: stands(run, "waiting"))
        assert await run.annotations() == {
            "stage": "picking", "n": 7, "big": True, "lines": [7], "shop": {"city": "Köln"},
        }  # fmt: skip
        await run.publish(Go())

        async def packing() -> bool:
            return (await run.annotations())["stage"] == "packing"

        await until(packing)
        # A name is replaced as a whole; None takes it away.
        assert await run.annotations() == {"stage": "packing", "n": 7, "lines": [7], "shop": {"street": "Domplatz"}}
        await run.publish(Go())
        await run.result()
    async with open_app() as app:
        assert (await app.get("one").annotations())["stage"] == "packing"


async def test_instances_are_found_by_what_they_annotate(open_app, until):
    async with open_app() as app:
        for n in (3, 4, 7):
            await app.start(order, n, id=f"o{n}")
        for n in (3, 4, 7):
            await until(lambda n=n: stands(app.get(f"o{n}"), "waiting"))
        assert await ids(app, where={"stage": "picking"}) == ["o7", "o4", "o3"]
        assert await ids(app, where={"big": True}) == ["o7"]
        assert await ids(app, where={"n": 4}) == ["o4"]
        assert await ids(app, where={"n": "4"}) == [], "a number isn't its text"
        assert await ids(app, where={"n": 4, "big": True}) == []
        assert await ids(app, where={"lines": [4]}) == ["o4"]
        assert await ids(app, where={"shop": {"city": "Köln"}}) == ["o7", "o4", "o3"]
        assert await ids(app, where={"nothing": 1}) == []


async def test_instances_are_found_by_status_process_id_and_age(open_app, until):
    @process
    async def quick() -> None: ...

    async with open_app() as app:
        await (await app.start(quick, id="q-1")).result()
        await app.start(order, 1, id="o-1")
        await app.start(order, 2, id="o-2")
        for id in ("o-1", "o-2"):
            await until(lambda id=id: stands(app.get(id), "waiting"))
        assert await ids(app) == ["o-2", "o-1", "q-1"]
        assert await ids(app, limit=2) == ["o-2", "o-1"]
        assert await ids(app, status="completed") == ["q-1"]
        assert await ids(app, status=["completed", "waiting"]) == ["o-2", "o-1", "q-1"]
        assert await ids(app, process="order") == ["o-2", "o-1"]
        assert await ids(app, id_prefix="o-") == ["o-2", "o-1"]
        assert await ids(app, newer_than=timedelta(hours=1)) == ["o-2", "o-1", "q-1"]
        assert await ids(app, older_than=timedelta(hours=1)) == []
        assert await app.counts() == {"completed": 1, "waiting": 2}


async def test_long_lists_come_page_by_page(open_app):
    @process
    async def quick(n: int) -> int:
        return n

    async with open_app(deterministic=False) as app:
        runs = await asyncio.gather(*(app.start(quick, n, id=f"q{n:04d}") for n in range(1201)))
        await asyncio.gather(*(run.result() for run in runs))
        assert len(await ids(app)) == 1201
        assert len(set(await ids(app))) == 1201
        assert len(await ids(app, limit=700)) == 700


@pytest.mark.parametrize("name", ["a.b", "größe", "a b", "$", "'"])
async def test_odd_names_of_annotations(open_app, name):
    @process
    async def odd() -> None:
        annotate(**{name: 1})

    async with open_app() as app:
        run = await app.start(odd, id="one")
        await run.result()
        assert await run.annotations() == {name: 1}
        assert await ids(app, where={name: 1}) == ["one"]


async def test_a_description_says_where_an_instance_stands(open_app, until):
    @step(retry=Retry(first="1h"))
    async def flaky() -> None:
        raise ConnectionError

    @process
    async def sleeps() -> None:
        await asyncio.sleep(3600)

    @process
    async def retries() -> None:
        await flaky()

    @process
    async def parent() -> None:
        await sleeps()

    async with open_app() as app:
        for start, says in ((sleeps, "timer at "), (retries, "next attempt of flaky at "), (parent, "child ")):
            run = await app.start(start)
            await until(lambda run=run: stands(run, "waiting"))
            instance = await run.describe()
            assert instance.waiting_for.startswith(says)
            assert instance.process == start.name
            assert instance.started_at <= instance.updated_at
            assert instance.ended_at is None
            await run.terminate()
            assert (await run.describe()).ended_at is not None


async def test_a_running_instance_says_so(open_app, until):
    gate = asyncio.Event()

    @step
    async def slow() -> None:
        await gate.wait()

    @process
    async def works() -> None:
        await slow()
        await wait_for(Go)
        await slow()

    async with open_app() as app:
        run = await app.start(works)
        instance = await run.describe()
        assert (instance.status, instance.waiting_for) == ("running", None)
        gate.set()
        await until(lambda: stands(run, "waiting"))
        gate.clear()
        await run.publish(Go())
        await until(lambda: stands(run, "running"))
        gate.set()
        await run.result()


async def test_history_can_be_read_from_a_place_on(open_app):
    @process
    async def quick() -> None:
        annotate(a=1)

    async with open_app() as app:
        run = await app.start(quick)
        await run.result()
        assert [record.seq for record in await run.history()] == [0, 1, 2]
        assert [record.seq for record in await run.history(after=1)] == [2]
        with pytest.raises(NotFound):
            await app.get("nobody").history()


async def test_a_result_can_be_awaited_with_a_limit_by_many_and_again(open_app, until):
    async with open_app(limits=Limits(resident_instances=0)) as app:
        run = await app.start(order, 1, id="one")
        with pytest.raises(TimeoutError):
            await run.result(timeout_seconds=0.01)
        waiting = [asyncio.ensure_future(app.get("one").result()) for _ in range(20)]
        given_up = asyncio.ensure_future(run.result())
        await asyncio.sleep(0.01)
        given_up.cancel()
        for _ in range(2):
            await until(lambda: stands(run, "waiting"))
            await run.publish(Go())
        assert await asyncio.gather(*waiting) == [1] * 20
        assert await run.result() == 1
