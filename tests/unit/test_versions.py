"""Code that changes under running instances: versions, patches, and parking when the journal doesn't fit.

An instance whose journal doesn't fit the code is parked with what was expected and what was found. No retry is
burnt, nothing is lost, and it goes on once the right code is there.
"""

import asyncio
from typing import Any

import pytest

from dalsegno import (
    App,
    DefinitionError,
    Event,
    JournalMismatch,
    Refused,
    annotate,
    changed,
    process,
    publish,
    step,
    wait_for,
)
from dalsegno.kernel import entries


class Go(Event):
    pass


class Told(Event):
    n: int


calls: list[str] = []


@pytest.fixture(autouse=True)
def nothing_done_yet():
    calls.clear()


@step
async def reserve(n: int) -> str:
    calls.append(f"reserve {n}")
    return f"hold {n}"


@step
async def charge(n: int) -> str:
    calls.append(f"charge {n}")
    return f"charge {n}"


@step
async def inform(n: int) -> str:
    calls.append(f"inform {n}")
    return f"inform {n}"


async def stands(run: Any, status: str) -> bool:
    return await run.status() == status


async def interrupted(open_app: Any, until: Any, order: Any) -> None:
    """Run an order up to its wait, and close the node."""
    async with open_app(deterministic=False) as app:
        run = await app.start(order, 1, id="o")
        await until(lambda: stands(run, "waiting"))


async def parked_with(open_app: Any, until: Any) -> Any:
    """Open a node with the code of now; the instance is parked."""
    async with open_app(deterministic=False) as app:
        run = app.get("o")
        await run.publish(Go())
        await until(lambda: stands(run, "parked"))
        (parked,) = [r.entry for r in await run.history() if isinstance(r.entry, entries.Parked)]
        instance = await run.describe()
        assert instance.error == f"journal mismatch: expected {parked.expected}, found {parked.found}"
        assert instance.waiting_for == "the code that its journal was written with"
        return parked


def original() -> Any:
    @process(name="order")
    async def order(n: int) -> list[str]:
        first = await reserve(n)
        await wait_for(Go)
        return [first, await charge(n)]

    return order


# -- what fits -----------------------------------------------------------------------------------------


async def test_an_unrelated_step_may_be_put_in_after_where_an_instance_stands(open_app, until):
    await interrupted(open_app, until, original())

    @process(name="order")
    async def order(n: int) -> list[str]:
        first = await reserve(n)
        await wait_for(Go)
        return [first, await inform(n), await charge(n)]

    async with open_app(deterministic=False) as app:
        await app.get("o").publish(Go())
        assert await app.get("o").result() == ["hold 1", "inform 1", "charge 1"]


async def test_an_unrelated_step_may_be_put_in_before_where_an_instance_stands(open_app, until):
    await interrupted(open_app, until, original())

    @process(name="order")
    async def order(n: int) -> list[str]:
        told = asyncio.create_task(inform(n))
        first = await reserve(n)
        await wait_for(Go)
        return [first, await told, await charge(n)]

    async with open_app(deterministic=False) as app:
        await app.get("o").publish(Go())
        assert await app.get("o").result() == ["hold 1", "inform 1", "charge 1"]
    assert calls == ["reserve 1", "inform 1", "charge 1"]


async def test_steps_may_change_places_if_they_run_side_by_side(open_app, until):
    @process(name="order")
    async def before(n: int) -> list[str]:
        found = list(await asyncio.gather(reserve(n), charge(n)))
        await wait_for(Go)
        return found

    await interrupted(open_app, until, before)

    @process(name="order")
    async def after(n: int) -> list[str]:
        found = list(await asyncio.gather(charge(n), reserve(n)))
        await wait_for(Go)
        return found

    async with open_app(deterministic=False) as app:
        await app.get("o").publish(Go())
        assert await app.get("o").result() == ["charge 1", "hold 1"]


async def test_what_comes_after_the_wait_may_be_anything(open_app, until):
    await interrupted(open_app, until, original())

    @process(name="order")
    async def order(n: int) -> str:
        await reserve(n)
        await wait_for(Go)
        return "something else"

    async with open_app(deterministic=False) as app:
        await app.get("o").publish(Go())
        assert await app.get("o").result() == "something else"


# -- what doesn't --------------------------------------------------------------------------------------


async def goes_on_with_the_right_code(open_app: Any) -> None:
    original()
    async with open_app(deterministic=False) as app:
        run = app.get("o")
        assert await run.result() == ["hold 1", "charge 1"]
        reasons = [r.entry.reason for r in await run.history() if isinstance(r.entry, entries.Resumed)]
    assert reasons == ["its journal fits the code again"]
    assert calls == ["reserve 1", "charge 1"], "nothing was done twice"


async def test_other_arguments(open_app, until):
    await interrupted(open_app, until, original())

    @process(name="order")
    async def order(n: int) -> list[str]:
        first = await reserve(n + 1)
        await wait_for(Go)
        return [first, await charge(n)]

    parked = await parked_with(open_app, until)
    assert "'reserve' called as journaled" in parked.expected
    assert "other arguments" in parked.found
    assert "[2,{}]" in parked.found
    await goes_on_with_the_right_code(open_app)


async def test_a_renamed_step(open_app, until):
    await interrupted(open_app, until, original())

    @process(name="order")
    async def order(n: int) -> list[str]:
        first = await inform(n)
        await wait_for(Go)
        return [first, await charge(n)]

    parked = await parked_with(open_app, until)
    assert parked.expected == "'reserve' (journaled)"
    assert parked.found == "'inform', and order no longer names 'reserve'"
    await goes_on_with_the_right_code(open_app)


async def test_a_removed_step(open_app, until):
    await interrupted(open_app, until, original())

    @process(name="order")
    async def order(n: int) -> list[str]:
        await wait_for(Go)
        return [await charge(n)]

    parked = await parked_with(open_app, until)
    assert parked.expected == "'reserve' (journaled)"
    await goes_on_with_the_right_code(open_app)


async def test_a_removed_wait(open_app, until):
    await interrupted(open_app, until, original())

    @process(name="order")
    async def order(n: int) -> list[str]:
        return [await reserve(n), await charge(n)]

    parked = await parked_with(open_app, until)
    assert parked.expected == "'event:Go' (journaled)"
    await goes_on_with_the_right_code(open_app)


async def test_another_filter_of_a_wait(open_app, until):
    @process(name="order")
    async def before(n: int) -> int:
        return (await wait_for(Told, n=n)).n

    await interrupted(open_app, until, before)

    @process(name="order")
    async def after(n: int) -> int:
        return (await wait_for(Told, n=n + 1)).n

    async with open_app(deterministic=False) as app:
        await app.get("o").publish(Told(1))
        await until(lambda: stands(app.get("o"), "parked"))
        (parked,) = [r.entry for r in await app.get("o").history() if isinstance(r.entry, entries.Parked)]
    assert '"match":{"n":1}' in parked.expected
    assert '"match":{"n":2}' in parked.found


@pytest.mark.parametrize("says", ["publishes", "annotates"])
async def test_something_else_said(open_app, until, says):
    async def say(n: int) -> None:
        if says == "publishes":
            await publish(Told(n))
        else:
            annotate(n=n)

    @process(name="order")
    async def before(n: int) -> str:
        await say(n)
        await wait_for(Go)
        return "done"

    await interrupted(open_app, until, before)

    @process(name="order")
    async def after(n: int) -> str:
        await say(n + 1)
        await wait_for(Go)
        return "done"

    await parked_with(open_app, until)


async def test_a_sleep_that_is_gone(open_app, until):
    @process(name="order")
    async def before(n: int) -> str:
        await asyncio.sleep(0.001)
        await wait_for(Go)
        return "done"

    async with open_app(deterministic=False) as app:
        run = await app.start(before, 1, id="o")

        async def fired() -> bool:
            return any(isinstance(r.entry, entries.EventAwaited) for r in await run.history())

        await until(fired)

    @process(name="order")
    async def after(n: int) -> str:
        await wait_for(Go)
        return "done"

    parked = await parked_with(open_app, until)
    assert parked.expected == "timer 1 to be open"


async def test_a_mismatch_burns_no_attempt_and_fails_nothing(open_app, until):
    await interrupted(open_app, until, original())

    @process(name="order")
    async def order(n: int) -> list[str]:
        try:
            return [await inform(n)]
        except Exception:
            return ["the process must not see it"]

    await parked_with(open_app, until)
    # Opening again with the wrong code changes nothing but the log.
    async with open_app(deterministic=False) as app:
        assert await app.get("o").status() == "parked"
        history = await app.get("o").history()
    assert not any(isinstance(r.entry, entries.StepFailed | entries.AttemptFailed | entries.Ended) for r in history)
    assert calls == ["reserve 1"]
    await goes_on_with_the_right_code(open_app)


async def test_a_parked_instance_can_be_resumed_by_hand_and_is_parked_again(open_app, until):
    await interrupted(open_app, until, original())

    @process(name="order")
    async def order(n: int) -> list[str]:
        return [await inform(n)]

    async with open_app(deterministic=False) as app:
        run = app.get("o")
        await run.publish(Go())
        await until(lambda: stands(run, "parked"))
        await run.resume()
        await until(lambda: stands(run, "parked"))
        with pytest.raises(Refused):
            await run.cancel()
        await run.terminate()
        assert await run.status() == "terminated"


async def test_stored_journals_are_replayed_through_new_code_on_demand(open_app, until):
    await interrupted(open_app, until, original())
    async with open_app(deterministic=False) as app:
        await app.replay("o")

        @process(name="order")
        async def order(n: int) -> list[str]:
            return [await inform(n)]

        with pytest.raises(JournalMismatch) as found:
            await app.replay("o")
        assert found.value.expected == "'reserve' (journaled)"


# -- changed() -----------------------------------------------------------------------------------------


async def test_a_patch_leads_old_runs_the_old_way_and_new_runs_the_new_way(open_app, until):
    await interrupted(open_app, until, original())

    @process(name="order")
    async def order(n: int) -> list[str]:
        first = await (inform(n) if changed("inform instead") else reserve(n))
        await wait_for(Go)
        last = [await inform(n)] if changed("inform at the end") else []
        return [first, await charge(n), *last]

    async with open_app(deterministic=False) as app:
        run = app.get("o")
        await run.publish(Go())
        # What it has passed stays as it was; what lies before it is new.
        assert await run.result() == ["hold 1", "charge 1", "inform 1"]
        other = await app.start(order, 2, id="new")
        await until(lambda: stands(other, "waiting"))
    async with open_app(deterministic=False) as app:
        other = app.get("new")
        await other.publish(Go())
        assert await other.result() == ["inform 2", "charge 2", "inform 2"]
        marks = [r.entry.change for r in await other.history() if isinstance(r.entry, entries.Changed)]
    assert marks == ["inform instead", "inform at the end"]


async def test_a_patch_is_decided_once_for_a_run(open_app):
    @process
    async def asks() -> list[bool]:
        first = changed("x")
        await reserve(1)
        return [first, changed("x"), changed("y"), changed("y")]

    async with open_app() as app:
        assert await (await app.start(asks)).result() == [True] * 4


async def test_a_patch_in_a_loop_is_decided_at_the_first_pass(open_app, until):
    def declare(patched: bool) -> Any:
        @process(name="loops")
        async def loops(n: int) -> list[str]:
            said = []
            for k in range(3):
                said.append("new" if patched and changed("loop") else "old")
                await reserve(k)
                await wait_for(Go)
            return said

        return loops

    async with open_app(deterministic=False) as app:
        run = await app.start(declare(False), 1, id="o")
        await until(lambda: stands(run, "waiting"))
    declare(True)
    async with open_app(deterministic=False) as app:
        for _ in range(3):
            await app.get("o").publish(Go())
        assert await app.get("o").result() == ["old"] * 3


async def test_taking_a_patch_mark_out_while_runs_have_it_parks_them(open_app, until):
    @process(name="order")
    async def patched(n: int) -> str:
        changed("x")
        await reserve(n)
        await wait_for(Go)
        return "done"

    await interrupted(open_app, until, patched)

    @process(name="order")
    async def order(n: int) -> str:
        await reserve(n)
        await wait_for(Go)
        return "done"

    parked = await parked_with(open_app, until)
    assert parked.expected == "'changed:x' (journaled)"


# -- versions ------------------------------------------------------------------------------------------


async def test_instances_stay_with_the_version_they_were_started_with(open_app, until):
    @process(name="order")
    async def first(n: int) -> str:
        await wait_for(Go)
        return f"first {n}"

    async with open_app(processes=[first]) as app:
        await app.start(first, 1, id="old")
        await until(lambda: stands(app.get("old"), "waiting"))

    @process(name="order", version=2)
    async def second(n: int) -> str:
        await wait_for(Go)
        return f"second {n}"

    async with open_app(processes=[first, second]) as app:
        new = await app.start("order", 2, id="new")
        assert (await new.describe()).version == 2
        await app.publish(Go())
        await new.publish(Go())
        assert await app.get("old").result() == "first 1"
        assert await new.result() == "second 2"


async def test_an_instance_whose_version_is_not_here_waits_for_a_node_that_has_it(open_app, until, caplog):
    @process(name="order")
    async def first(n: int) -> str:
        await wait_for(Go)
        return f"first {n}"

    @process(name="order", version=2)
    async def second(n: int) -> str:
        return f"second {n}"

    async with open_app(processes=[first]) as app:
        await app.start(first, 1, id="old")
        await until(lambda: stands(app.get("old"), "waiting"))
    async with open_app(processes=[second]) as app:
        await app.publish(Go())
        await until(lambda: "needs process 'order' version 1" in caplog.text)
        assert await app.get("old").status() == "waiting"
    async with open_app(processes=[first, second]) as app:
        assert await app.get("old").result() == "first 1"


async def test_a_child_is_started_in_the_version_that_its_parent_named(open_app):
    @process(name="child")
    async def child_one() -> int:
        return 1

    @process(name="child", version=2)
    async def child_two() -> int:
        return 2

    @process
    async def parent() -> list[int]:
        return [await child_one(), await child_two()]

    async with open_app() as app:
        assert await (await app.start(parent)).result() == [1, 2]


def test_versions_are_numbers_from_one():
    for version in (0, -1, "2", 1.5):
        with pytest.raises(DefinitionError, match="must be a number from 1"):

            @process(version=version)
            async def order() -> None: ...


async def test_an_unknown_process_is_refused_by_name(open_app):
    @process
    async def known() -> None: ...

    async with open_app(processes=[known]) as app:
        with pytest.raises(DefinitionError, match="no process 'unknown' is declared here; known: known"):
            await app.start("unknown")
        with pytest.raises(DefinitionError, match=r"start\(\) takes a @process or its name"):
            await app.start(print)  # type: ignore[arg-type]


def test_an_app_knows_the_processes_it_was_given():
    @process(name="order")
    async def first() -> None: ...

    @process(name="order", version=3)
    async def third() -> None: ...

    app = App("sqlite:///x.db", processes=[first, third])
    assert app.process("order").version == 3
    assert app.process("order", 1).version == 1
