"""`continue_as_new`: a run ends and the same id goes on with an empty journal.

Nothing that comes meanwhile is lost, and nothing is met twice.
"""

import asyncio
from typing import Any

import pytest

from dalsegno import (
    Event,
    Limits,
    Refused,
    UsageError,
    annotate,
    ask,
    continue_as_new,
    on,
    process,
    saga,
    start,
    step,
    step_key,
    wait_for,
)
from dalsegno import random as process_random
from dalsegno.kernel import entries


class Tick(Event):
    n: int


class Peek(Event, reply=int):
    pass


async def stands(run: Any, status: str) -> bool:
    return await run.status() == status


async def test_a_run_goes_on_as_a_new_one_under_the_same_id(open_app):
    keys: list[str] = []

    @step
    async def work(n: int) -> int:
        keys.append(step_key())
        return n

    @process
    async def count(n: int, total: int = 0) -> list[int]:
        total += await work(n)
        if n < 3:
            continue_as_new(n + 1, total=total)
        return [n, total]

    async with open_app() as app:
        run = await app.start(count, 1, id="c")
        assert await run.result() == [3, 6]
        instance = await run.describe()
        assert (instance.run, instance.status) == (3, "completed")
        history = [type(r.entry).__name__ for r in await run.history()]
    assert keys == ["default/c/work", "default/c@2/work", "default/c@3/work"]
    assert history == [*["Started", "StepCompleted", "Continued"] * 2, "Started", "StepCompleted", "Ended"]


async def test_a_renewed_run_goes_on_after_a_restart(open_app, until):
    @process
    async def listens(total: int, left: int) -> int:
        total += (await wait_for(Tick)).n
        if left > 1:
            continue_as_new(total, left - 1)
        return total

    async with open_app() as app:
        await app.start(listens, 0, 4, id="c")
    for n in (1, 2, 3):
        async with open_app() as app:
            await app.publish(Tick(n))

            async def renewed(app: Any = app, n: int = n) -> bool:
                return (await app.get("c").describe()).run == n + 1

            await until(renewed)
    async with open_app() as app:
        await app.publish(Tick(4))
        assert await app.get("c").result() == 10


async def test_an_event_is_taken_once_over_all_runs_and_none_is_lost_between_them(open_app):
    @process
    async def listens(seen: list[int]) -> list[int]:
        seen = [*seen, (await wait_for(Tick)).n]
        if len(seen) < 20:
            continue_as_new(seen)
        return seen

    async with open_app() as app:
        run = await app.start(listens, [])
        for n in range(20):
            await app.publish(Tick(n))
        assert await run.result() == list(range(20))


async def test_an_event_that_a_run_left_alone_is_there_for_the_next(open_app):
    @process
    async def listens(n: int) -> int:
        event = await wait_for(Tick, n=n)
        if n < 3:
            continue_as_new(n + 1)
        return event.n

    async with open_app() as app:
        run = await app.start(listens, 1)
        for n in (3, 2, 1):
            await app.publish(Tick(n))
        assert await run.result() == 3


async def test_a_restarted_instance_does_not_meet_the_events_of_its_former_runs_again(open_app):
    @process
    async def listens() -> int:
        return (await wait_for(Tick)).n

    async with open_app() as app:
        run = await app.start(listens, id="c")
        await app.publish(Tick(1))
        assert await run.result() == 1
        again = await app.start(listens, id="c", if_exists="restart")
        await app.publish(Tick(2))
        assert await again.result() == 2


async def test_updates_that_a_run_did_not_handle_are_handled_by_the_next(open_app, until):
    @process
    async def renews(n: int) -> int:
        if n == 2:

            @on(Peek)
            def peek(request: Peek) -> int:
                return n

        await wait_for(Tick)
        if n < 2:
            continue_as_new(n + 1)
        return n

    async with open_app() as app:
        run = await app.start(renews, 1)
        asked = asyncio.ensure_future(run.update(Peek()))
        await until(lambda: stands(run, "waiting"))
        await app.publish(Tick(0))
        assert await asked == 2
        await app.publish(Tick(0))
        assert await run.result() == 2


async def test_an_update_still_being_handled_when_the_run_ends_is_refused(open_app, until):
    @process
    async def renews(n: int) -> int:
        @on(Peek)
        async def peek(request: Peek) -> int:
            await asyncio.sleep(86400)
            return n

        await wait_for(Tick)
        if n < 2:
            continue_as_new(n + 1)
        return n

    async def received() -> bool:
        return any(isinstance(r.entry, entries.UpdateReceived) for r in await run.history())

    async with open_app() as app:
        run = await app.start(renews, 1)
        asked = asyncio.ensure_future(run.update(Peek()))
        await until(received)
        await app.publish(Tick(0))
        with pytest.raises(Refused, match="ended before it replied"):
            await asked
        await run.terminate()


async def test_a_child_of_a_former_run_is_not_taken_for_one_of_the_next(open_app, until):
    @process
    async def child(n: int) -> int:
        await wait_for(Tick, n=n)
        return n

    @process
    async def parent(n: int) -> int:
        handle = await start(child, n)
        if n < 2:
            await wait_for(Tick, n=0)
            continue_as_new(n + 1)
        return await handle.result()

    async with open_app() as app:
        run = await app.start(parent, 1, id="p")
        await app.publish(Tick(0))

        async def renewed() -> bool:
            return (await run.describe()).run == 2

        await until(renewed)
        await app.publish(Tick(1))
        assert await app.get("p/child").result() == 1
        assert await stands(run, "waiting")
        await app.publish(Tick(2))
        assert await run.result() == 2
        assert await app.get("p@2/child").result() == 2


@pytest.mark.parametrize(("policy", "status"), [("cancel", "cancelled"), ("terminate", "terminated")])
async def test_children_that_end_with_their_parent_end_with_the_run_that_started_them(open_app, until, policy, status):
    @process
    async def child() -> None:
        await wait_for(Tick, n=99)

    @process
    async def parent(n: int) -> int:
        if n < 2:
            await start(child, id="c", parent_close=policy)
            await wait_for(Tick, n=0)
            continue_as_new(n + 1)
        return n

    async with open_app() as app:
        run = await app.start(parent, 1)
        await until(lambda: stands(app.get("c"), "waiting"))
        await app.publish(Tick(0))
        assert await run.result() == 2
        await until(lambda: stands(app.get("c"), status))


async def test_a_renewed_child_is_still_its_parents_child(open_app):
    @process
    async def child(n: int) -> int:
        if n < 3:
            await asyncio.sleep(0.001)
            continue_as_new(n + 1)
        return n

    @process
    async def parent() -> int:
        return await child(1)

    async with open_app() as app:
        assert await (await app.start(parent)).result() == 3


async def test_each_run_asks_anew(open_app, until):
    @process
    async def asks(answers: list[str]) -> list[str]:
        answers = [*answers, await ask("finance", str)]
        if len(answers) < 3:
            continue_as_new(answers)
        return answers

    async with open_app() as app:
        run = await app.start(asks, [], id="q")
        for number, name in enumerate(("q/finance", "q@2/finance", "q@3/finance")):

            async def open_task(name: str = name) -> bool:
                return [task.id for task in await app.tasks()] == [name]

            await until(open_task)
            with pytest.raises(Refused) if number else _nothing():
                await app.answer("q/finance", "stale") if number else None
            await app.answer(name, str(number))
        assert await run.result() == ["0", "1", "2"]
        assert len(await app.tasks(state="answered")) == 3


class _nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


async def test_annotations_stay_and_chance_differs(open_app):
    @process
    async def renews(n: int, numbers: list[float]) -> list[float]:
        annotate(**{f"run{n}": n})
        numbers = [*numbers, process_random().random()]
        await asyncio.sleep(0.001)
        if n < 3:
            continue_as_new(n + 1, numbers)
        return numbers

    async with open_app() as app:
        run = await app.start(renews, 1, [])
        assert len(set(await run.result())) == 3
        assert await run.annotations() == {"run1": 1, "run2": 2, "run3": 3}


async def test_what_the_former_run_left_open_is_closed(open_app, until):
    stopped = []

    @step
    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.append(1)

    @process
    async def renews(n: int) -> int:
        if n < 2:
            tasks = [
                asyncio.create_task(slow()),
                asyncio.create_task(wait_for(Tick, n=7)),
                asyncio.create_task(ask("x", int)),
                asyncio.create_task(asyncio.sleep(86400)),
            ]
            await wait_for(Tick, n=0)
            del tasks
            continue_as_new(n + 1)
        await wait_for(Tick, n=1)
        return n

    async def asked() -> bool:
        return bool(await app.tasks())

    async with open_app() as app:
        run = await app.start(renews, 1)
        await until(asked)
        await app.publish(Tick(0))
        await app.publish(Tick(7))
        await app.publish(Tick(1))
        assert await run.result() == 2
        assert await app.tasks() == []
    assert stopped == [1]


async def test_a_paused_instance_that_renews_itself_stays_paused(open_app, until):
    gate, begun = asyncio.Event(), asyncio.Event()

    @step
    async def slow() -> None:
        begun.set()
        await gate.wait()

    @process
    async def renews(n: int) -> int:
        await slow()
        if n < 2:
            continue_as_new(n + 1)
        return n

    async with open_app() as app:
        run = await app.start(renews, 1, id="one")
        await begun.wait()
        await run.pause()
        gate.set()

        async def renewed() -> bool:
            return (await run.describe()).run == 2

        await until(renewed)
        assert await run.status() == "paused"
    async with open_app() as app:
        run = app.get("one")
        assert await run.status() == "paused"
        await run.resume()
        assert await run.result() == 2


async def test_a_journal_that_grows_too_long_parks_the_instance_with_the_remedy(open_app, until):
    done: list[int] = []

    @step
    async def work(n: int) -> int:
        done.append(n)
        return n

    @process
    async def never_renews() -> None:
        for n in range(100):
            await work(n)

    async with open_app(limits=Limits(journal_entries=20)) as app:
        run = await app.start(never_renews, id="one")
        await until(lambda: stands(run, "parked"))
        instance = await run.describe()
        assert "its journal has 20 entries (Limits.journal_entries)" in instance.error
        assert "continue_as_new()" in instance.error
    async with open_app() as app:
        await app.get("one").resume()
        await app.get("one").result()
    # Also the result that came when the journal was full is kept.
    assert done == list(range(100))


async def test_renewing_inside_a_saga_with_steps_to_undo_is_refused(open_app):
    undone = []

    @step
    async def reserve() -> None: ...

    @reserve.undo
    async def release(result: None) -> None:
        undone.append(1)

    @process
    async def renews_too_early(n: int) -> None:
        async with saga():
            await reserve()
            continue_as_new(n + 1)

    @process
    async def renews(n: int) -> int:
        if n < 2:
            async with saga():
                continue_as_new(n + 1)
        return n

    async with open_app() as app:
        with pytest.raises(
            UsageError, match=r"continue_as_new\(\) inside a saga: what was done in it could not be undone"
        ):
            await (await app.start(renews_too_early, 1)).result()
        assert undone == [1]
        assert await (await app.start(renews, 1)).result() == 2


async def test_a_new_input_that_does_not_fit_fails_the_new_run(open_app):
    @process
    async def renews(n: int) -> int:
        continue_as_new("no number")
        return n

    async with open_app() as app:
        run = await app.start(renews, 1)
        with pytest.raises(Exception, match="argument 1 of renews isn't a int"):
            await run.result()
