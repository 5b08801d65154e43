"""A failed instance goes on from its failure; a fork stands where another instance stood before a step."""

import asyncio
from typing import Any

import pytest

from dalsegno import (
    Event,
    NotFound,
    ProcessCancelled,
    ProcessTerminated,
    Refused,
    annotate,
    ask,
    process,
    publish,
    saga,
    start,
    step,
    step_key,
    wait_for,
)
from dalsegno import random as process_random
from dalsegno.kernel import entries


class Go(Event):
    pass


class Told(Event):
    n: int


class World:
    """Steps that are written down, some of which fail until they are mended."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.keys: list[str] = []
        self.broken: set[str] = set()

        @step(retry=None)
        async def work(name: str) -> str:
            if name in self.broken:
                self.done.append(f"!{name}")
                raise ConnectionError(f"{name} is down")
            self.done.append(name)
            self.keys.append(step_key())
            return name.upper()

        @work.undo
        async def unwork(name: str, result: str | None) -> None:
            self.done.append(f"-{name}")

        self.work = work


@pytest.fixture
def world() -> World:
    return World()


async def stands(run: Any, status: str) -> bool:
    return await run.status() == status


async def failed(app: Any, process: Any, *args: Any, id: str = "one") -> Any:
    run = await app.start(process, *args, id=id)
    with pytest.raises((ConnectionError, ValueError, ExceptionGroup)):
        await run.result()
    return run


# -- retry ---------------------------------------------------------------------------------------------


async def test_a_failed_instance_goes_on_from_its_failure(open_app, world):
    @process
    async def order() -> list[str]:
        return [await world.work("a"), await world.work("b"), await world.work("c")]

    world.broken = {"b"}
    async with open_app() as app:
        run = await failed(app, order)
        assert world.done == ["a", "!b"]
        world.broken.clear()
        await run.retry("mended", by="maria")
        assert await run.result() == ["A", "B", "C"]
        assert (await run.describe()).error is None
        (reopened,) = [r.entry for r in await run.history() if isinstance(r.entry, entries.Reopened)]
    assert (reopened.by, reopened.reason) == ("maria", "mended")
    assert world.done == ["a", "!b", "b", "c"]
    assert world.keys == ["default/one/work", "default/one/work#2", "default/one/work#3"], "the keys stay"


async def test_a_retry_that_fails_again_can_be_retried_again_also_after_a_restart(open_app, world):
    @process
    async def order() -> list[str]:
        return [await world.work("a"), await world.work("b")]

    world.broken = {"b"}
    async with open_app() as app:
        run = await failed(app, order)
        await run.retry()
        with pytest.raises(ConnectionError):
            await run.result()
    world.broken.clear()
    async with open_app() as app:
        run = app.get("one")
        await run.retry()
        assert await run.result() == ["A", "B"]
    assert world.done == ["a", "!b", "!b", "b"]


async def test_what_a_saga_undid_is_done_anew_under_a_new_key(open_app, world):
    @process
    async def order() -> list[str]:
        first = await world.work("before")
        async with saga():
            found = [await world.work("a"), await world.work("b"), await world.work("c")]
        return [first, *found]

    world.broken = {"c"}
    async with open_app() as app:
        run = await failed(app, order)
        assert world.done == ["before", "a", "b", "!c", "-b", "-a"]
        world.broken.clear()
        world.done.clear()
        world.keys.clear()
        await run.retry()
        assert await run.result() == ["BEFORE", "A", "B", "C"]
    assert world.done == ["a", "b", "c"]
    assert world.keys == ["default/one/work#2~2", "default/one/work#3~2", "default/one/work#4"]


async def test_a_saga_that_was_retried_and_fails_again_is_undone_again(open_app, world):
    @process
    async def order() -> None:
        async with saga():
            await world.work("a")
            await world.work("b")

    world.broken = {"b"}
    async with open_app() as app:
        run = await failed(app, order)
        await run.retry()
        with pytest.raises(ConnectionError):
            await run.result()
        world.broken.clear()
        await run.retry()
        await run.result()
    assert world.done == ["a", "!b", "-a", "a", "!b", "-a", "a", "b"]


async def test_a_failure_of_the_process_itself_is_retried_with_its_new_code(open_app, world):
    wrong = True

    @process
    async def order() -> list[str]:
        try:
            await world.work("optional")
        except ConnectionError:
            await world.work("fallback")
        found = [await world.work("a")]
        if wrong:
            raise ValueError("a mistake in the code")
        return found

    world.broken = {"optional"}
    async with open_app(deterministic=False) as app:
        run = await failed(app, order)
        wrong = False
        await run.retry()
        # The failure that the process met and dealt with stays as it was.
        assert await run.result() == ["A"]
    assert world.done == ["!optional", "fallback", "a"]


async def test_a_failure_that_was_met_before_the_one_that_counts_stays(open_app, world):
    @process
    async def order() -> list[str]:
        try:
            await world.work("optional")
        except ConnectionError:
            await world.work("fallback")
        return [await world.work("b")]

    world.broken = {"optional", "b"}
    async with open_app() as app:
        run = await failed(app, order)
        world.broken = {"optional"}
        await run.retry()
        assert await run.result() == ["B"]
    assert world.done == ["!optional", "fallback", "!b", "b"]


async def test_a_saga_that_was_undone_and_dealt_with_stays_so(open_app, world):
    @process
    async def order() -> list[str]:
        found = []
        try:
            async with saga():
                await world.work("a")
                await world.work("optional")
        except ConnectionError:
            found.append(await world.work("fallback"))
        async with saga():
            found += [await world.work("c"), await world.work("b")]
        return found

    world.broken = {"optional", "b"}
    async with open_app() as app:
        run = await failed(app, order)
        assert world.done == ["a", "!optional", "-a", "fallback", "c", "!b", "-c"]
        world.broken.clear()
        world.done.clear()
        await run.retry()
        assert await run.result() == ["FALLBACK", "C", "B"]
    assert world.done == ["c", "b"]


@pytest.mark.parametrize("how", ["with its cause", "while handling it", "afterwards"])
async def test_a_failure_that_the_process_gave_another_name_is_tried_again(open_app, world, how):
    @process
    async def order() -> str:
        failed = False
        try:
            return await world.work("a")
        except ConnectionError as error:
            if how == "with its cause":
                raise ValueError("no stock") from error
            if how == "while handling it":
                raise ValueError("no stock")  # noqa: B904
            failed = True
        assert failed
        raise ValueError("no stock")

    world.broken = {"a"}
    async with open_app() as app:
        run = await failed(app, order)
        world.broken.clear()
        await run.retry()
        assert await run.result() == "A"


async def test_a_process_that_failed_by_itself_in_a_saga_does_anew_what_that_undid(open_app, world):
    wrong = True

    @process
    async def order() -> list[str]:
        async with saga():
            found = [await world.work("a"), await world.work("b")]
            if wrong:
                raise ValueError("a mistake in the code")
        return found

    async with open_app(deterministic=False) as app:
        run = await failed(app, order)
        wrong = False
        await run.retry()
        assert await run.result() == ["A", "B"]
    assert world.done == ["a", "b", "-b", "-a", "a", "b"]


async def test_a_step_that_was_stopped_by_the_failure_is_done_anew(open_app, world):
    wrong, gate = True, asyncio.Event()

    @step
    async def slow() -> str:
        await gate.wait()
        return "slow"

    @process
    async def order() -> list[str]:
        task = asyncio.create_task(slow())
        found = await world.work("a")
        if wrong:
            raise ValueError("a mistake in the code")
        return [found, await task]

    async with open_app(deterministic=False) as app:
        run = await failed(app, order)
        wrong = False
        gate.set()
        await run.retry()
        assert await run.result() == ["A", "slow"]


@pytest.mark.parametrize("how", ["gather", "group", "all errors"])
async def test_of_steps_side_by_side_only_the_failed_and_the_stopped_are_done_again(open_app, world, how):
    @process
    async def order() -> list[str]:
        names = ["a", "b", "c"]
        if how == "gather":
            return list(await asyncio.gather(*(world.work(name) for name in names)))
        if how == "all errors":
            found = await asyncio.gather(*(world.work(name) for name in names), return_exceptions=True)
            errors = [error for error in found if isinstance(error, Exception)]
            if errors:
                raise ExceptionGroup("several", errors)
            return [str(item) for item in found]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(world.work(name)) for name in names]
        return [task.result() for task in tasks]

    world.broken = {"b", "c"}
    async with open_app() as app:
        run = await failed(app, order)
        world.broken.clear()
        await run.retry()
        assert await run.result() == ["A", "B", "C"]
    assert world.done.count("a") == 1
    assert world.done.count("b") == 1
    assert world.done.count("c") == 1


async def test_a_cancelled_instance_can_be_retried(open_app, world, until):
    @process
    async def order() -> str:
        async with saga():
            await world.work("a")
            await wait_for(Go)
            return await world.work("b")

    async with open_app() as app:
        run = await app.start(order, id="one")
        await until(lambda: stands(run, "waiting"))
        await run.cancel()
        with pytest.raises(ProcessCancelled):
            await run.result()
        await run.retry()
        await until(lambda: stands(run, "waiting"))
        await run.publish(Go())
        assert await run.result() == "B"
    assert world.done == ["a", "-a", "a", "b"]


async def test_a_terminated_instance_can_be_retried(open_app, world, until):
    @process
    async def order() -> str:
        await world.work("a")
        await wait_for(Go)
        return await world.work("b")

    async with open_app() as app:
        run = await app.start(order, id="one")
        await until(lambda: stands(run, "waiting"))
        await run.terminate()
        with pytest.raises(ProcessTerminated):
            await run.result()
        await run.retry()
        await until(lambda: stands(run, "waiting"))
        await run.publish(Go())
        assert await run.result() == "B"
    assert world.done == ["a", "b"]


async def test_people_are_not_asked_twice_and_events_are_not_awaited_twice(open_app, world, until):
    @process
    async def order() -> list[Any]:
        answer = await ask("finance", int)
        told = await wait_for(Told)
        return [answer, told.n, await world.work("a")]

    async def asked() -> bool:
        return bool(await app.tasks())

    world.broken = {"a"}
    async with open_app() as app:
        run = await app.start(order, id="one")
        await until(asked)
        await app.answer("one/finance", 3)
        await app.publish(Told(7))
        with pytest.raises(ConnectionError):
            await run.result()
        world.broken.clear()
        await run.retry()
        assert await run.result() == [3, 7, "A"]


async def test_what_was_open_when_it_failed_is_opened_again(open_app, world, until):
    @process
    async def order() -> list[Any]:
        return list(await asyncio.gather(ask("finance", int), wait_for(Told), fails_later()))

    async def fails_later() -> str:
        await wait_for(Go)
        return await world.work("a")

    async def asked() -> bool:
        return bool(await app.tasks())

    world.broken = {"a"}
    async with open_app() as app:
        run = await app.start(order, id="one")
        await until(asked)
        await app.publish(Go())
        with pytest.raises(ConnectionError):
            await run.result()
        assert await app.tasks() == []
        world.broken.clear()
        await run.retry()
        await until(asked)
        await app.publish(Told(7))
        await app.answer("one/finance", 3)
        found = await run.result()
    assert [found[0], found[1]["n"] if isinstance(found[1], dict) else found[1].n, found[2]] == [3, 7, "A"]


async def test_what_a_process_said_is_not_said_twice(open_app, world):
    @process
    async def order() -> str:
        annotate(stage="one")
        await publish(Told(1))
        annotate(stage="two")
        return await world.work("a")

    @process
    async def listens() -> list[int]:
        heard: list[int] = []
        try:
            async with asyncio.timeout(0.2):
                while True:
                    heard.append((await wait_for(Told)).n)
        except TimeoutError:
            return heard

    world.broken = {"a"}
    async with open_app() as app:
        listener = await app.start(listens)
        run = await failed(app, order)
        world.broken.clear()
        await run.retry()
        assert await run.result() == "A"
        assert await run.annotations() == {"stage": "two"}
        assert await listener.result() == [1]


async def test_a_parent_and_its_child_can_be_retried_in_any_order(open_app, world, until):
    @process
    async def child(name: str) -> str:
        return await world.work(name)

    @process
    async def parent() -> list[str]:
        return [await world.work("first"), await child("a")]

    for number, first in enumerate(["parent", "child"]):
        world.broken = {"a"}
        async with open_app() as app:
            run = await failed(app, parent, id=f"p{number}")
            kid = app.get(f"p{number}/child")
            world.broken.clear()
            if first == "child":
                await kid.retry()
                assert await kid.result() == "A"
                await run.retry()
            else:
                await run.retry()
                await until(lambda run=run: _either(run, "waiting", "failed", "completed"))
                if await kid.status() == "failed":
                    await kid.retry()
            assert await run.result() == ["FIRST", "A"]


async def _either(run: Any, *statuses: str) -> bool:
    return await run.status() in statuses


async def test_children_that_ended_well_are_not_started_again(open_app, world):
    runs = []

    @process
    async def child(n: int) -> int:
        runs.append(n)
        return n

    @process
    async def parent() -> list[Any]:
        handle = await start(child, 2)
        return [await child(1), await handle.result(), await world.work("a")]

    world.broken = {"a"}
    async with open_app(deterministic=False) as app:
        run = await failed(app, parent)
        world.broken.clear()
        await run.retry()
        assert await run.result() == [1, 2, "A"]
    assert sorted(runs) == [1, 2]


async def test_time_outs_run_anew(open_app, world):
    @process
    async def order() -> str:
        try:
            async with asyncio.timeout(0.02):
                await wait_for(Go)
        except TimeoutError:
            pass
        await asyncio.sleep(0.01)
        return await world.work("a")

    world.broken = {"a"}
    async with open_app() as app:
        run = await failed(app, order)
        world.broken.clear()
        await run.retry()
        assert await run.result() == "A"


# -- fork ----------------------------------------------------------------------------------------------


async def test_a_fork_does_a_step_and_what_follows_again_under_its_own_keys(open_app, world):
    @process
    async def order() -> list[str]:
        return [await world.work("a"), await world.work("b"), await world.work("c")]

    async with open_app() as app:
        run = await app.start(order, id="one")
        await run.result()
        world.keys.clear()
        fork = await run.fork(step="work#2", id="two")
        assert await fork.result() == ["A", "B", "C"]
        assert world.keys == ["default/two/work#2", "default/two/work#3"]
        (forked,) = [r.entry for r in await fork.history() if isinstance(r.entry, entries.Forked)]
        assert (forked.origin, forked.before) == ("one", "work#2")
        assert await run.result() == ["A", "B", "C"], "the origin stays as it is"


async def test_the_first_call_of_a_step_may_be_named_either_way(open_app, world):
    @process
    async def order() -> str:
        return await world.work("a")

    async with open_app() as app:
        run = await app.start(order, id="one")
        await run.result()
        for name in ("work", "work#1"):
            fork = await run.fork(step=name)
            assert await fork.result() == "A"
    assert world.done == ["a"] * 3


async def test_a_fork_without_a_step_stands_where_the_origin_stands(open_app, world, until):
    @process
    async def order() -> list[str]:
        first = await world.work("a")
        await wait_for(Go)
        return [first, await world.work("b")]

    async with open_app() as app:
        run = await app.start(order, id="one")
        await until(lambda: stands(run, "waiting"))
        fork = await run.fork(id="two")
        await until(lambda: stands(fork, "waiting"))
        await fork.publish(Go())
        assert await fork.result() == ["A", "B"]
        assert await run.status() == "waiting"
        await run.terminate()
    assert world.done == ["a", "b"]


async def test_a_fork_of_a_failed_instance_goes_another_way_with_new_code(open_app, world):
    def declare(mended: bool) -> Any:
        @process(name="order")
        async def order() -> list[str]:
            return [await world.work("a"), await world.work("mended" if mended else "b")]

        return order

    world.broken = {"b"}
    async with open_app(deterministic=False) as app:
        await failed(app, declare(False))
    declare(True)
    async with open_app(deterministic=False) as app:
        fork = await app.get("one").fork(step="work#2", id="two")
        assert await fork.result() == ["A", "MENDED"]


async def test_a_fork_throws_the_same_dice_and_starts_children_of_its_own(open_app, world):
    @process
    async def child(n: int) -> int:
        return n

    @process
    async def parent() -> list[Any]:
        number = process_random().random()
        found = await child(1)
        await world.work("a")
        return [number, found, await child(2)]

    async with open_app() as app:
        run = await app.start(parent, id="one")
        found = await run.result()
        fork = await run.fork(step="work", id="two")
        assert await fork.result() == found
        assert await app.get("two/child#2").status() == "completed"
        with pytest.raises(NotFound):
            await app.get("two/child").status()


async def test_a_fork_meets_no_event_from_before_its_origin_began(open_app, world, until):
    @process
    async def order() -> int:
        await world.work("a")
        return (await wait_for(Told)).n

    async with open_app() as app:
        await app.publish(Told(0))
        run = await app.start(order, id="one")
        await until(lambda: stands(run, "waiting"))
        fork = await run.fork(step="work", id="two")
        await until(lambda: stands(fork, "waiting"))
        await app.publish(Told(1))
        assert [await run.result(), await fork.result()] == [1, 1]


async def test_a_fork_of_a_renewed_instance_is_a_first_run(open_app, world):
    from dalsegno import continue_as_new

    @process
    async def renews(n: int) -> int:
        await world.work(str(n))
        if n < 3:
            continue_as_new(n + 1)
        return n

    async with open_app() as app:
        run = await app.start(renews, 1, id="one")
        await run.result()
        world.keys.clear()
        fork = await run.fork(step="work", id="two")
        assert await fork.result() == 3
        assert (await fork.describe()).run == 1
    assert world.keys == ["default/two/work"]


async def test_what_cannot_be_forked_is_refused(open_app, world):
    @process
    async def order() -> list[str]:
        return [await world.work("a"), await world.work("b")]

    async with open_app() as app:
        run = await app.start(order, id="one")
        await run.result()
        with pytest.raises(NotFound, match="has no outcome of a step 'nope'; it has work, work#2"):
            await run.fork(step="nope")
        with pytest.raises(Refused, match="instance 'one' exists already"):
            await run.fork(step="work", id="one")
        with pytest.raises(NotFound):
            await app.get("nobody").fork()
