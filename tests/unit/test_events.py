"""Events: to whoever waits, to one instance, between instances; early, twice, and racing with a timer."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from dalsegno import DefinitionError, Event, Limits, process, publish, step, wait_for
from dalsegno.kernel import entries


class Delivered(Event, key="order"):
    order: str
    n: int = 0


class Note(Event):
    text: str = ""
    n: int = 0


class Timed(Event):
    at: datetime


async def waits_for_events(run: Any, count: int = 1) -> bool:
    return sum(isinstance(r.entry, entries.EventAwaited) for r in await run.history()) >= count


async def stands(run: Any, status: str) -> bool:
    return await run.status() == status


@process
async def takes(order: str) -> int:
    return (await wait_for(Delivered, order=order)).n


@process
async def takes_three() -> list[int]:
    return [(await wait_for(Note)).n for _ in range(3)]


async def test_an_event_reaches_all_instances_whose_filter_it_meets(open_app, until):
    async with open_app() as app:
        runs = [await app.start(takes, order) for order in ("a", "a", "b")]
        for run in runs:
            await until(lambda run=run: waits_for_events(run))
        await app.publish(Delivered("a", 1))
        assert [await run.result() for run in runs[:2]] == [1, 1]
        assert await runs[2].status() == "waiting"
        await app.publish(Delivered("b", 2))
        assert await runs[2].result() == 2


async def test_a_filter_may_name_any_field_and_none(open_app):
    @process
    async def picks() -> list[int]:
        return [
            (await wait_for(Note, text="x", n=3)).n,
            (await wait_for(Note, n=4)).n,
            (await wait_for(Note)).n,
        ]

    async with open_app() as app:
        run = await app.start(picks)
        for text, n in (("y", 3), ("x", 9), ("x", 3), ("z", 4)):
            await app.publish(Note(text, n))
        # The one without a filter takes the first there is: each filter counts for itself.
        assert await run.result() == [3, 4, 3]


async def test_a_filter_compares_values_as_they_are_written(open_app):
    moment = datetime(2024, 5, 1, 12, tzinfo=UTC)

    @process
    async def waits() -> bool:
        return (await wait_for(Timed, at=moment)).at == moment

    async with open_app() as app:
        run = await app.start(waits)
        await app.publish(Timed(datetime(2024, 5, 2, tzinfo=UTC)))
        await app.publish(Timed(moment))
        assert await run.result()


async def test_events_come_to_one_instance_in_their_order_each_once(open_app):
    async with open_app() as app:
        run = await app.start(takes_three)
        for n in range(5):
            await app.publish(Note(n=n))
        assert await run.result() == [0, 1, 2]


async def test_an_event_that_came_before_it_was_waited_for_counts(open_app, until):
    gate = asyncio.Event()

    @step
    async def prepare() -> None:
        await gate.wait()

    @process
    async def order() -> int:
        await prepare()
        return (await wait_for(Delivered, order="7")).n

    async with open_app() as app:
        run = await app.start(order)
        await app.publish(Delivered("7", 5))
        gate.set()
        assert await run.result() == 5


async def test_an_event_from_before_the_instance_began_does_not_count(open_app, until):
    async with open_app() as app:
        await app.publish(Delivered("7", 1))
        run = await app.start(takes, "7")
        await until(lambda: waits_for_events(run))
        await app.publish(Delivered("7", 2))
        assert await run.result() == 2


async def test_an_event_for_one_instance_reaches_only_that(open_app, until):
    async with open_app() as app:
        one, two = [await app.start(takes, "7", id=id) for id in ("one", "two")]
        await one.publish(Delivered("7", 1))
        await app.publish(Delivered("7", 2), to="two")
        assert [await one.result(), await two.result()] == [1, 2]


async def test_an_event_for_an_instance_that_does_not_exist_yet_waits_for_it(open_app):
    async with open_app() as app:
        await app.publish(Delivered("7", 1), to="later")
        assert await (await app.start(takes, "7", id="later")).result() == 1


async def test_instances_publish_to_each_other(open_app):
    @process
    async def ping(n: int) -> int:
        for _ in range(n):
            await publish(Note("ping"), to="pong")
            await wait_for(Note, text="pong")
        return n

    @process
    async def pong(n: int) -> int:
        for _ in range(n):
            await wait_for(Note, text="ping")
            await publish(Note("pong"), to="ping")
        return n

    async with open_app() as app:
        runs = [await app.start(ping, 5, id="ping"), await app.start(pong, 5, id="pong")]
        assert [await run.result() for run in runs] == [5, 5]


async def test_what_a_process_publishes_is_published_once_whatever_happens(open_app, until):
    @process
    async def tells() -> str:
        return await publish(Delivered("7", 1))

    @process
    async def counts() -> int:
        seen = 0
        try:
            async with asyncio.timeout(0.1):
                while True:
                    await wait_for(Delivered)
                    seen += 1
        except TimeoutError:
            return seen

    async with open_app() as app:
        run = await app.start(counts)
        await until(lambda: waits_for_events(run))
        teller = await app.start(tells, id="t")
        assert await teller.result() == "default/t/publish:Delivered"
        # A retry says it again; it is the same event.
        assert await run.result() == 1


async def test_an_event_published_twice_under_one_id_counts_once(open_app, until):
    async with open_app() as app:
        run = await app.start(takes_three)
        await until(lambda: waits_for_events(run))
        for n in (1, 1, 2, 2, 3):
            assert await app.publish(Note(n=n), id=f"webhook-{n}") == f"webhook-{n}"
        assert await run.result() == [1, 2, 3]


async def test_an_event_and_a_timer_race_and_one_of_them_wins_on_every_replay(open_app):
    @process
    async def races() -> list[str]:
        said = []
        for n in range(8):
            try:
                async with asyncio.timeout(0.004):
                    await wait_for(Note, n=n)
                    said.append(f"event {n}")
            except TimeoutError:
                said.append(f"timer {n}")
        return said

    async with open_app() as app:
        runs = [await app.start(races) for _ in range(5)]
        for n in range(8):
            await app.publish(Note(n=n))
            await asyncio.sleep(0.003)
        for run in runs:
            said = await run.result()
            assert [entry.split()[1] for entry in said] == [str(n) for n in range(8)]


async def test_an_event_that_came_too_late_for_one_wait_is_there_for_the_next(open_app, until):
    @process
    async def impatient() -> int:
        try:
            async with asyncio.timeout(0.01):
                await wait_for(Delivered, order="7")
        except TimeoutError:
            pass
        await wait_for(Note)
        return (await wait_for(Delivered, order="7")).n

    async with open_app() as app:
        run = await app.start(impatient)
        await until(lambda: waits_for_events(run, 2))
        await app.publish(Delivered("7", 4))
        await app.publish(Note())
        assert await run.result() == 4


async def test_two_waits_of_one_instance_for_the_same_event(open_app, until):
    @process
    async def both() -> list[int]:
        found = await asyncio.gather(wait_for(Delivered, order="7"), wait_for(Delivered, order="7"))
        return [event.n for event in found]

    async with open_app() as app:
        run = await app.start(both)
        await until(lambda: waits_for_events(run, 2))
        await app.publish(Delivered("7", 1))
        await app.publish(Delivered("7", 2))
        assert sorted(await run.result()) == [1, 1]


@pytest.mark.parametrize("how", ["evicted", "restarted", "paused"])
async def test_an_event_reaches_an_instance_that_is_not_in_memory(open_app, until, how):
    limits = Limits(resident_instances=0)
    async with open_app(limits=limits) as app:
        run = await app.start(takes, "7", id="one")
        await until(lambda: waits_for_events(run))
        if how == "evicted":
            other = await app.start(takes, "8")
            await until(lambda: stands(other, "waiting"))
            await app.publish(Delivered("7", 3))
            assert await run.result() == 3
        elif how == "paused":
            await run.pause()
            await app.publish(Delivered("7", 3))
            assert await run.status() == "paused"
            await run.resume()
            assert await run.result() == 3
    if how == "restarted":
        async with open_app(limits=limits) as app:
            await app.publish(Delivered("7", 3))
            assert await app.get("one").result() == 3


async def test_a_paused_instance_meets_its_event_after_a_restart(open_app, until):
    async with open_app() as app:
        run = await app.start(takes, "7", id="one")
        await until(lambda: waits_for_events(run))
        await run.pause()
        await app.publish(Delivered("7", 3))
    async with open_app() as app:
        assert await app.get("one").status() == "paused"
        await app.get("one").resume()
        assert await app.get("one").result() == 3


async def test_an_event_that_no_longer_fits_its_type_is_an_error_in_the_process(open_app, until):
    class Changed(Event):
        n: int

    @process
    async def waits() -> str:
        try:
            await wait_for(Changed)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "none"

    async with open_app() as app:
        run = await app.start(waits)
        await until(lambda: waits_for_events(run))
        await app.publish(Changed("no number"))  # type: ignore[arg-type]
        assert await run.result() == "InvalidValue: event:Changed isn't a Changed: Expected `int`, got `str` - at `$.n`"


async def test_an_instance_says_what_it_waits_for(open_app, until):
    async with open_app() as app:
        run = await app.start(takes, "7")
        await until(lambda: stands(run, "waiting"))
        assert (await run.describe()).waiting_for == "event Delivered(order='7')"


def test_events_are_frozen_and_say_what_is_wrong_with_them():
    event = Delivered("1")
    with pytest.raises(AttributeError):
        event.order = "2"  # type: ignore[misc]
    with pytest.raises(DefinitionError, match="event Bad has key='nope', but no such field: declare it"):

        class Bad(Event, key="nope"):
            order: str


async def test_waiting_for_a_field_that_does_not_exist_is_refused(open_app):
    @process
    async def waits() -> str:
        try:
            await wait_for(Delivered, oder="7")
        except DefinitionError as error:
            return str(error)
        return "none"

    async with open_app() as app:
        assert await (await app.start(waits)).result() == "Delivered has no field 'oder': it has order, n"


async def test_waiting_for_something_that_is_not_an_event_is_refused(open_app):
    @process
    async def waits() -> str:
        try:
            await wait_for(dict)  # type: ignore[type-var]
        except DefinitionError as error:
            return str(error)
        return "none"

    async with open_app() as app:
        assert "isn't an Event: declare `class dict(Event)`" in await (await app.start(waits)).result()


async def test_events_are_forgotten_after_their_time(open_app, until):
    async with open_app(limits=Limits(event_retention_seconds=0.0, timer_window_seconds=0.02)) as app:
        gate = asyncio.Event()

        @step
        async def prepare() -> None:
            await gate.wait()

        @process
        async def late() -> str:
            await prepare()
            try:
                async with asyncio.timeout(0.02):
                    await wait_for(Note)
            except TimeoutError:
                return "forgotten"
            return "there"

        run = await app.start(late)
        await app.publish(Note())
        await asyncio.sleep(0.05)
        gate.set()
        assert await run.result() == "forgotten"


async def test_namespaces_do_not_hear_each_other(open_app, until):
    async with open_app(namespace="sales") as app:
        run = await app.start(takes, "7", id="one")
        await until(lambda: waits_for_events(run))
        support = app.but(namespace="support")
        support._gateway = app._gateway
        await support.publish(Delivered("7", 1))
        await app.publish(Delivered("7", 2))
        assert await run.result() == 2
