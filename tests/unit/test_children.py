"""Processes that start others: awaited, detached, and what becomes of them when one of the two ends."""

import asyncio
from typing import Any

import pytest

from dalsegno import (
    Event,
    Limits,
    ProcessCancelled,
    ProcessTerminated,
    StartConflict,
    process,
    saga,
    start,
    step,
    step_key,
    wait_for,
)
from dalsegno.kernel import entries


class Go(Event, key="who"):
    who: str
    n: int = 0


class Refused(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"refused ({code})")
        self.code = code


@step
async def double(n: int) -> int:
    return 2 * n


@process
async def doubles(n: int) -> int:
    return await double(n)


@process
async def waits(who: str) -> str:
    event = await wait_for(Go, who=who)
    return f"{who} {event.n}"


@process
async def refuses(code: int) -> None:
    raise Refused(code)


async def stands(app: Any, id: str, status: str) -> bool:
    try:
        return await app.get(id).status() == status
    except Exception:
        return False


async def test_an_awaited_child_returns_its_result(open_app):
    @process
    async def parent() -> list[int]:
        return [await doubles(1), await doubles(2), *await asyncio.gather(*(doubles(n) for n in range(3)))]

    async with open_app() as app:
        run = await app.start(parent, id="p")
        assert await run.result() == [2, 4, 0, 2, 4]
        children = [child async for child in app.list(parent="p")]
        assert sorted(child.id for child in children) == [
            "p/doubles", "p/doubles#2", "p/doubles#3", "p/doubles#4", "p/doubles#5",
        ]  # fmt: skip
        assert {child.status for child in children} == {"completed"}


async def test_a_child_has_keys_of_its_own(open_app):
    @step
    async def key() -> str:
        return step_key()

    @process
    async def child() -> str:
        return await key()

    @process
    async def parent() -> list[str]:
        return [await child(), await child(), await key()]

    async with open_app() as app:
        assert await (await app.start(parent, id="p")).result() == [
            "default/p/child/key", "default/p/child#2/key", "default/p/key",
        ]  # fmt: skip


async def test_a_childs_error_is_raised_in_its_parent_as_its_type(open_app):
    @process
    async def parent() -> int:
        try:
            await refuses(7)
        except Refused as error:
            return error.code
        return 0

    async with open_app() as app:
        assert await (await app.start(parent)).result() == 7


async def test_a_parent_that_does_not_meet_the_error_fails_with_it(open_app):
    @process
    async def parent() -> None:
        await refuses(7)

    async with open_app() as app:
        with pytest.raises(Refused, match="refused"):
            await (await app.start(parent)).result()


async def test_a_started_child_goes_on_beside_its_parent(open_app, until):
    @process
    async def parent() -> list[str]:
        one = await start(waits, "one")
        two = await start(waits, "two", id="my-own-id")
        return [one.id, two.id, await two.result(), await one.result()]

    async with open_app() as app:
        run = await app.start(parent, id="p")
        await until(lambda: stands(app, "my-own-id", "waiting"))
        await until(lambda: stands(app, "p/waits", "waiting"))
        await app.publish(Go("one", 1))
        await app.publish(Go("two", 2))
        assert await run.result() == ["p/waits", "my-own-id", "two 2", "one 1"]


async def test_an_abandoned_child_outlives_its_parent(open_app, until):
    @process
    async def parent() -> str:
        child = await start(waits, "child")
        return child.id

    async with open_app() as app:
        assert await (await app.start(parent, id="p")).result() == "p/waits"
        await until(lambda: stands(app, "p/waits", "waiting"))
        await app.publish(Go("child", 3))
        assert await app.get("p/waits").result() == "child 3"


@pytest.mark.parametrize(("policy", "status"), [("cancel", "cancelled"), ("terminate", "terminated")])
@pytest.mark.parametrize("end", ["returns", "fails", "cancelled", "terminated"])
async def test_a_child_ends_with_its_parent_if_the_policy_says_so(open_app, until, policy, status, end):
    @process
    async def parent() -> None:
        await start(waits, "child", id="c", parent_close=policy)
        await wait_for(Go, who="parent")
        if end == "fails":
            raise ValueError("no")

    async with open_app() as app:
        run = await app.start(parent, id="p")
        await until(lambda: stands(app, "c", "waiting"))
        await until(lambda: stands(app, "p", "waiting"))
        if end == "cancelled":
            await run.cancel()
        elif end == "terminated":
            await run.terminate()
        else:
            await app.publish(Go("parent"))
        await until(lambda: stands(app, "c", status))


async def test_policies_hold_over_a_restart_and_for_a_parent_that_is_not_in_memory(open_app, until):
    @process
    async def parent() -> None:
        await start(waits, "child", id="c", parent_close="cancel")
        await wait_for(Go, who="parent")

    async with open_app() as app:
        await app.start(parent, id="p")
        await until(lambda: stands(app, "c", "waiting"))
        await until(lambda: stands(app, "p", "waiting"))
    async with open_app() as app:
        await app.get("p").terminate()
        await until(lambda: stands(app, "c", "cancelled"))


async def test_a_cancelled_parent_cancels_the_child_it_awaits_and_both_undo(open_app, until):
    done: list[str] = []

    @step
    async def reserve(name: str) -> None:
        done.append(f"+{name}")

    @reserve.undo
    async def release(name: str, result: None) -> None:
        done.append(f"-{name}")

    @process
    async def child() -> None:
        async with saga():
            await reserve("child")
            await wait_for(Go, who="child")

    @process
    async def parent() -> None:
        async with saga():
            await reserve("parent")
            await child()

    async with open_app() as app:
        run = await app.start(parent, id="p")
        await until(lambda: stands(app, "p/child", "waiting"))
        await run.cancel()
        with pytest.raises(ProcessCancelled):
            await run.result()
        await until(lambda: stands(app, "p/child", "cancelled"))
    assert sorted(done) == ["+child", "+parent", "-child", "-parent"]


async def test_a_time_out_around_a_child_cancels_it(open_app, until):
    @process
    async def parent() -> str:
        try:
            async with asyncio.timeout(0.02):
                return await waits("child")
        except TimeoutError:
            return "too late"

    async with open_app() as app:
        assert await (await app.start(parent, id="p")).result() == "too late"
        await until(lambda: stands(app, "p/waits", "cancelled"))


async def test_a_child_that_is_cancelled_or_terminated_raises_in_its_parent(open_app, until):
    @process
    async def parent() -> list[str]:
        met = []
        for name in ("a", "b"):
            try:
                await waits(name)
            except (ProcessCancelled, ProcessTerminated) as error:
                met.append(type(error).__name__)
        return met

    async with open_app() as app:
        run = await app.start(parent, id="p")
        await until(lambda: stands(app, "p/waits", "waiting"))
        await app.get("p/waits").cancel()
        await until(lambda: stands(app, "p/waits#2", "waiting"))
        await app.get("p/waits#2").terminate()
        assert await run.result() == ["ProcessCancelled", "ProcessTerminated"]


async def test_a_process_may_cancel_its_child(open_app):
    @process
    async def parent() -> str:
        child = await start(waits, "never")
        await child.cancel("enough")
        try:
            await child.result()
        except ProcessCancelled:
            return "cancelled"
        return "no"

    async with open_app() as app:
        run = await app.start(parent, id="p")
        assert await run.result() == "cancelled"
        requested = [
            r.entry for r in await app.get("p/waits").history() if isinstance(r.entry, entries.CancelRequested)
        ]
    assert requested[0].reason == "enough"
    assert requested[0].by == "parent p"


async def test_a_child_id_that_is_taken_is_a_conflict_the_parent_can_meet(open_app):
    @process
    async def parent() -> str:
        child = await start(doubles, 2, id="taken")
        try:
            return str(await child.result())
        except StartConflict as error:
            return str(error)

    async with open_app() as app:
        await (await app.start(doubles, 1, id="taken")).result()
        message = await (await app.start(parent)).result()
        assert "child id 'taken' is taken in namespace 'default'" in message
        assert (await app.get("taken", int).result()) == 2


async def test_two_children_of_one_id_are_a_conflict(open_app):
    @process
    async def parent() -> list[Any]:
        one = await start(doubles, 1, id="same")
        two = await start(doubles, 2, id="same")
        return list(await asyncio.gather(one.result(), two.result(), return_exceptions=True) and [await one.result()])

    async with open_app() as app:
        assert await (await app.start(parent)).result() == [2]


async def test_a_parent_that_left_memory_learns_of_its_childs_end(open_app, until):
    @process
    async def parent() -> str:
        return await waits("child")

    async with open_app(limits=Limits(resident_instances=0)) as app:
        run = await app.start(parent, id="p")
        await until(lambda: stands(app, "p/waits", "waiting"))
        for _ in range(3):
            await app.start(waits, "idle")
        await app.publish(Go("child", 5))
        assert await run.result() == "child 5"


async def test_a_parent_learns_of_its_childs_end_after_a_restart(open_app, until):
    @process
    async def parent() -> str:
        return await waits("child")

    async with open_app() as app:
        await app.start(parent, id="p")
        await until(lambda: stands(app, "p/waits", "waiting"))
    async with open_app() as app:
        await app.publish(Go("child", 5))
        assert await app.get("p").result() == "child 5"


async def test_a_paused_parent_learns_of_its_childs_end_when_it_goes_on(open_app, until):
    @process
    async def parent() -> str:
        return await waits("child")

    async with open_app() as app:
        run = await app.start(parent, id="p")
        await until(lambda: stands(app, "p/waits", "waiting"))
        await run.pause()
        await app.publish(Go("child", 5))
        await until(lambda: stands(app, "p/waits", "completed"))
        assert await run.status() == "paused"
        await run.resume()
        assert await run.result() == "child 5"


async def test_a_paused_child_that_is_terminated_raises_in_its_parent(open_app, until):
    @process
    async def parent() -> str:
        try:
            return await waits("child")
        except ProcessTerminated:
            return "terminated"

    async with open_app() as app:
        run = await app.start(parent, id="p")
        await until(lambda: stands(app, "p/waits", "waiting"))
        await app.get("p/waits").pause()
        await app.get("p/waits").terminate()
        assert await run.result() == "terminated"


async def test_a_paused_parent_that_is_terminated_closes_its_children(open_app, until):
    @process
    async def parent() -> None:
        await start(waits, "a", id="a", parent_close="cancel")
        await start(waits, "b", id="b", parent_close="terminate")
        await start(waits, "c", id="c")
        await wait_for(Go, who="parent")

    async with open_app() as app:
        run = await app.start(parent, id="p")
        for id in "abc":
            await until(lambda id=id: stands(app, id, "waiting"))
        await run.pause()
        await run.terminate()
        await until(lambda: stands(app, "a", "cancelled"))
        await until(lambda: stands(app, "b", "terminated"))
        assert await app.get("c").status() == "waiting"


async def test_grandchildren(open_app):
    @process
    async def middle(n: int) -> int:
        return await doubles(n) + 1

    @process
    async def top(n: int) -> int:
        return sum(await asyncio.gather(*(middle(k) for k in range(n))))

    async with open_app() as app:
        assert await (await app.start(top, 4, id="t")).result() == 16
        assert (await app.get("t/middle/doubles").describe()).parent == "t/middle"


async def test_the_result_of_a_child_that_ended_before_it_was_asked_for(open_app, until):
    @process
    async def parent() -> int:
        child = await start(doubles, 21, id="c")
        await wait_for(Go, who="parent")
        return await child.result()

    async with open_app() as app:
        run = await app.start(parent)
        await until(lambda: stands(app, "c", "completed"))
        await app.publish(Go("parent"))
        assert await run.result() == 42


async def test_a_failed_child_that_nobody_asks_for_leaves_its_parent_alone(open_app, until):
    @process
    async def parent() -> str:
        await start(refuses, 1, id="c")
        await wait_for(Go, who="parent")
        return "fine"

    async with open_app() as app:
        run = await app.start(parent)
        await until(lambda: stands(app, "c", "failed"))
        await app.publish(Go("parent"))
        assert await run.result() == "fine"


async def test_an_input_that_does_not_fit_fails_the_child(open_app):
    @process
    async def parent() -> str:
        try:
            await doubles("no number")  # type: ignore[arg-type]
        except Exception as error:
            return type(error).__name__
        return "none"

    async with open_app() as app:
        assert await (await app.start(parent)).result() == "InvalidValue"
