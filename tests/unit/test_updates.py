"""Updates: requests to a running instance whose reply is validated, journaled, and refused when it can't be given."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from dalsegno import (
    DalsegnoError,
    DefinitionError,
    Event,
    InvalidValue,
    Limits,
    NotFound,
    Refused,
    on,
    process,
    step,
    wait_for,
)
from dalsegno.kernel import entries


@dataclass
class Accepted:
    address: str
    count: int


class ChangeAddress(Event, reply=Accepted):
    address: str


class Peek(Event):
    pass


class Stop(Event):
    pass


@process
async def delivery(address: str) -> list[Any]:
    count = 0

    @on(ChangeAddress)
    def change(request: ChangeAddress) -> Accepted:
        nonlocal address, count
        if not request.address:
            raise Refused("an address is needed")
        address, count = request.address, count + 1
        return Accepted(address, count)

    await wait_for(Stop)
    return [address, count]


async def stands(run: Any, status: str) -> bool:
    return await run.status() == status


async def test_an_update_changes_the_process_and_gets_its_typed_reply(open_app):
    async with open_app() as app:
        run = await app.start(delivery, "A")
        assert await run.update(ChangeAddress("B")) == Accepted("B", 1)
        assert await run.update(ChangeAddress("C"), by="maria") == Accepted("C", 2)
        await run.publish(Stop())
        assert await run.result() == ["C", 2]
        received = [r.entry for r in await run.history() if isinstance(r.entry, entries.UpdateReceived)]
    assert [r.by for r in received] == [None, "maria"]


async def test_an_update_may_be_refused_and_leaves_the_process_alone(open_app):
    async with open_app() as app:
        run = await app.start(delivery, "A")
        with pytest.raises(Refused, match="an address is needed"):
            await run.update(ChangeAddress(""))
        await run.publish(Stop())
        assert await run.result() == ["A", 0]


async def test_an_update_that_does_not_fit_its_type_is_refused(open_app):
    async with open_app() as app:
        run = await app.start(delivery, "A")
        with pytest.raises(InvalidValue, match="update ChangeAddress isn't a ChangeAddress"):
            await run.update(ChangeAddress(7))  # type: ignore[arg-type]
        await run.publish(Stop())
        assert await run.result() == ["A", 0]


async def test_a_reply_that_does_not_fit_its_type_is_refused(open_app):
    @process
    async def answers_wrongly() -> None:
        @on(ChangeAddress)
        def change(request: ChangeAddress) -> Any:
            return {"address": 3}

        await wait_for(Stop)

    async with open_app() as app:
        run = await app.start(answers_wrongly)
        with pytest.raises(InvalidValue, match="reply to ChangeAddress isn't a Accepted"):
            await run.update(ChangeAddress("B"))
        await run.terminate()


async def test_a_reply_that_cannot_be_written_is_refused(open_app):
    @process
    async def answers_wrongly() -> None:
        @on(Peek)
        def peek(request: Peek) -> Any:
            return object()

        await wait_for(Stop)

    async with open_app() as app:
        run = await app.start(answers_wrongly)
        with pytest.raises(DalsegnoError, match="can't be written as JSON"):
            await run.update(Peek())
        await run.terminate()


async def test_a_handler_may_wait_and_call_steps(open_app):
    @step
    async def look_up(address: str) -> str:
        return address.upper()

    @process
    async def waits() -> str:
        known = "none"

        @on(Peek)
        async def peek(request: Peek) -> str:
            nonlocal known
            known = await look_up("street")
            await asyncio.sleep(0.001)
            return known

        await wait_for(Stop)
        return known

    async with open_app() as app:
        run = await app.start(waits)
        assert await run.update(Peek()) == "STREET"
        await run.publish(Stop())
        assert await run.result() == "STREET"


async def test_an_update_that_comes_before_its_handler_waits_for_it(open_app, until):
    gate = asyncio.Event()

    @step
    async def prepare() -> None:
        await gate.wait()

    @process
    async def late() -> str:
        await prepare()

        @on(Peek)
        def peek(request: Peek) -> str:
            return "here"

        await wait_for(Stop)
        return "done"

    async with open_app() as app:
        run = await app.start(late)
        early = asyncio.ensure_future(run.update(Peek()))
        await asyncio.sleep(0.01)
        assert not early.done()
        gate.set()
        assert await early == "here"
        await run.terminate()


async def test_an_update_that_comes_before_its_handler_survives_a_restart(open_app, until):
    @process
    async def late() -> int:
        seen = 0
        await wait_for(Stop)

        @on(Peek)
        def peek(request: Peek) -> int:
            nonlocal seen
            seen += 1
            return seen

        await wait_for(Stop)
        return seen

    async def received() -> bool:
        return any(isinstance(r.entry, entries.UpdateReceived) for r in await run.history())

    async with open_app() as app:
        run = await app.start(late, id="one")
        await until(lambda: stands(run, "waiting"))
        early = asyncio.ensure_future(run.update(Peek()))
        await until(received)
    # Whoever asked in the process that went away learns that it did.
    with pytest.raises(DalsegnoError, match="was closed"):
        await early
    async with open_app() as app:
        run = app.get("one")
        await run.publish(Stop())
        assert await run.update(Peek()) == 2
        await run.publish(Stop())
        assert await run.result() == 2


async def test_handlers_are_there_again_after_a_restart_and_replies_are_not_given_twice(open_app):
    async with open_app() as app:
        run = await app.start(delivery, "A", id="one")
        await run.update(ChangeAddress("B"))
    async with open_app(limits=Limits(resident_instances=0)) as app:
        run = app.get("one")
        assert await run.update(ChangeAddress("C")) == Accepted("C", 2)
        await app.start(delivery, "idle")
        assert await run.update(ChangeAddress("D")) == Accepted("D", 3)
        await run.publish(Stop())
        assert await run.result() == ["D", 3]


async def test_updates_are_handled_in_their_order(open_app):
    async with open_app() as app:
        run = await app.start(delivery, "A")
        replies = await asyncio.gather(*(run.update(ChangeAddress(str(n))) for n in range(50)))
        assert [reply.count for reply in replies] == list(range(1, 51))
        assert [reply.address for reply in replies] == [str(n) for n in range(50)]
        await run.terminate()


@pytest.mark.parametrize("end", ["returns", "fails", "cancelled", "terminated"])
async def test_an_update_nobody_handled_is_refused_when_the_instance_ends(open_app, until, end):
    @process
    async def ends() -> None:
        await wait_for(Stop)
        if end == "fails":
            raise ValueError("no")

    async def received() -> bool:
        return any(isinstance(r.entry, entries.UpdateReceived) for r in await run.history())

    async with open_app() as app:
        run = await app.start(ends, id="one")
        asked = asyncio.ensure_future(run.update(Peek()))
        await until(received)
        if end == "cancelled":
            await run.cancel()
        elif end == "terminated":
            await run.terminate()
        else:
            await run.publish(Stop())
        with pytest.raises(Refused, match=r"instance 'one'.* ended before it replied"):
            await asked


@pytest.mark.parametrize("end", ["returns", "cancelled"])
async def test_an_update_still_being_handled_is_refused_when_the_instance_ends(open_app, until, end):
    @process
    async def ends() -> None:
        @on(Peek)
        async def peek(request: Peek) -> str:
            await asyncio.sleep(86400)
            return "never"

        await wait_for(Stop)

    async def received() -> bool:
        return any(isinstance(r.entry, entries.UpdateReceived) for r in await run.history())

    async with open_app() as app:
        run = await app.start(ends, id="one")
        asked = asyncio.ensure_future(run.update(Peek()))
        await until(received)
        await (run.cancel() if end == "cancelled" else run.publish(Stop()))
        with pytest.raises(Refused, match="ended before it replied"):
            await asked


async def test_an_update_of_an_ended_paused_or_missing_instance_is_refused(open_app, until):
    async with open_app() as app:
        run = await app.start(delivery, "A", id="one")
        await run.pause()
        with pytest.raises(Refused, match="is paused"):
            await run.update(ChangeAddress("B"))
        await run.resume()
        assert await run.update(ChangeAddress("B")) == Accepted("B", 1)
        await run.publish(Stop())
        await run.result()
        with pytest.raises(Refused, match="instance 'one' is completed"):
            await run.update(ChangeAddress("C"))
        with pytest.raises(NotFound, match="no instance 'two'"):
            await app.get("two").update(ChangeAddress("C"))


async def test_a_handler_may_be_replaced(open_app):
    @process
    async def changes_its_mind() -> None:
        @on(Peek)
        def first(request: Peek) -> str:
            return "first"

        await wait_for(Stop)

        @on(Peek)
        def second(request: Peek) -> str:
            return "second"

        await wait_for(Stop)

    async with open_app() as app:
        run = await app.start(changes_its_mind)
        assert await run.update(Peek()) == "first"
        await run.publish(Stop())
        await asyncio.sleep(0.01)
        assert await run.update(Peek()) == "second"
        await run.terminate()


async def test_answering_something_that_is_not_an_event_is_refused(open_app):
    @process
    async def wrong() -> str:
        try:
            on(int)  # type: ignore[arg-type]
        except DefinitionError as error:
            return str(error)
        return "none"

    async with open_app() as app:
        assert "isn't an Event" in await (await app.start(wrong)).result()
