"""What a step returns is journaled once: also when it can't be written, is too large, or isn't what was promised.

The effect took place by then, so it is never done again.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from dalsegno import (
    Event,
    InvalidValue,
    LimitExceeded,
    Limits,
    Retry,
    Unserialisable,
    annotate,
    ask,
    process,
    publish,
    saga,
    step,
)
from dalsegno.kernel import entries

SMALL = Limits(payload_bytes=1000)
AGAIN = Retry(attempts=3, first="1ms")


@dataclass
class Hold:
    id: str
    lines: list[int]


async def test_a_process_sees_what_the_journal_holds_not_what_the_step_returned(open_app):
    returned: list[Any] = []

    @step
    async def fetch() -> dict[str, Any]:
        returned.append({"when": (1, 2), "tags": {3}})
        return returned[0]

    @process
    async def asks() -> list[Any]:
        found = await fetch()
        # A tuple and a set have become lists, live as on replay.
        return [found["when"], found["tags"]]

    async with open_app() as app:
        assert await (await app.start(asks)).result() == [[1, 2], [3]]


@pytest.mark.parametrize("kind", ["async", "thread", "inline"])
async def test_a_result_that_cannot_be_written_fails_the_step_once(open_app, kind):
    effects = []

    def plain() -> object:
        effects.append(1)
        return object()

    async def asynchronous() -> object:
        return plain()

    work: Any = {
        "async": step(retry=AGAIN)(asynchronous),
        "thread": step(retry=AGAIN)(plain),
        "inline": step(retry=AGAIN, executor="inline")(plain),
    }[kind]

    @process
    async def asks() -> str:
        try:
            await work()
        except Unserialisable as error:
            return str(error)
        return "none"

    async with open_app() as app:
        run = await app.start(asks, id="one")
        assert "can't be written as JSON: builtins.object has no JSON form" in await run.result()
        (failed,) = [r.entry for r in await run.history() if isinstance(r.entry, entries.StepFailed)]
    assert effects == [1]
    assert failed.unknown, "the effect took place, though nobody knows its result"


async def test_a_result_that_is_too_large_fails_the_step_once(open_app):
    effects = []

    @step(retry=AGAIN)
    async def fetch() -> str:
        effects.append(1)
        return "x" * 2000

    @process
    async def asks() -> str:
        try:
            await fetch()
        except LimitExceeded as error:
            return str(error)
        return "none"

    async with open_app(limits=SMALL) as app:
        message = await (await app.start(asks)).result()
    assert "has 2002 bytes, the limit is 1000 (Limits.payload_bytes)" in message
    assert "isn't tried again" in message
    assert effects == [1]


@pytest.mark.parametrize("kind", ["async", "thread", "inline"])
async def test_a_result_of_another_type_than_declared_fails_the_step_once(open_app, kind):
    effects = []

    def plain() -> Hold:
        effects.append(1)
        return {"id": 7}  # type: ignore[return-value]

    async def asynchronous() -> Hold:
        return plain()

    work: Any = {
        "async": step(retry=AGAIN)(asynchronous),
        "thread": step(retry=AGAIN)(plain),
        "inline": step(retry=AGAIN, executor="inline")(plain),
    }[kind]

    @process
    async def asks() -> str:
        try:
            await work()
        except InvalidValue as error:
            return str(error)
        return "none"

    async with open_app() as app:
        message = await (await app.start(asks)).result()
    assert "isn't a Hold" in message
    assert "Expected `str`, got `int`" in message
    assert effects == [1]


async def test_even_a_policy_that_parks_does_not_repeat_an_effect_whose_result_was_refused(open_app):
    effects = []

    @step(retry=Retry(attempts=3, first="1ms", then="park"))
    async def fetch() -> object:
        effects.append(1)
        return object()

    @process
    async def asks() -> str:
        try:
            await fetch()
        except Unserialisable:
            return "refused"
        return "none"

    async with open_app() as app:
        assert await (await app.start(asks)).result() == "refused"
    assert effects == [1]


async def test_a_saga_undoes_a_step_whose_result_was_refused_if_its_undo_copes_with_that(open_app):
    undone = []

    @step
    async def reserve() -> object:
        return object()

    @reserve.undo(even_if_unknown=True)
    async def release(result: None) -> None:
        undone.append(result)

    @process
    async def orders() -> None:
        async with saga():
            await reserve()

    async with open_app() as app:
        with pytest.raises(Unserialisable):
            await (await app.start(orders)).result()
    assert undone == [None]


async def test_arguments_that_cannot_be_written_are_refused_before_the_step_runs(open_app):
    effects = []

    @step
    async def send(what: Any) -> None:
        effects.append(what)

    @process
    async def asks() -> str:
        try:
            await send(object())
        except Unserialisable as error:
            return str(error)
        return "none"

    async with open_app() as app:
        assert "arguments of step 'send' in instance 'one' (asks)" in await (await app.start(asks, id="one")).result()
    assert effects == []


async def test_arguments_that_are_too_large_are_refused_before_the_step_runs(open_app):
    effects = []

    @step
    async def send(what: str) -> None:
        effects.append(what)

    @process
    async def asks() -> str:
        try:
            await send("x" * 2000)
        except LimitExceeded as error:
            return str(error)
        return "none"

    async with open_app(limits=SMALL) as app:
        assert "arguments of step 'send'" in await (await app.start(asks)).result()
    assert effects == []


@pytest.mark.parametrize("kind", ["unserialisable", "large", "another type"])
async def test_a_process_whose_result_is_refused_has_failed(open_app, kind):
    @process
    async def answers() -> Any:
        return object() if kind == "unserialisable" else "x" * 2000 if kind == "large" else 3

    @process
    async def promises() -> Hold:
        return 3  # type: ignore[return-value]

    async with open_app(limits=SMALL) as app:
        run = await app.start(promises if kind == "another type" else answers)
        with pytest.raises((Unserialisable, LimitExceeded, InvalidValue)):
            await run.result()
        assert await run.status() == "failed"


class Large(Event):
    text: str


async def _publishes() -> None:
    await publish(Large("x" * 2000))


async def _annotates() -> None:
    annotate(text="x" * 2000)


async def _asks() -> None:
    await ask("finance", str, about="x" * 2000)


@pytest.mark.parametrize("says", [_publishes, _annotates, _asks], ids=lambda value: value.__name__)
async def test_whatever_a_process_says_has_a_bound(open_app, says):
    @process
    async def talks() -> str:
        try:
            await says()
        except LimitExceeded as error:
            return str(error)
        return "none"

    async with open_app(limits=SMALL) as app:
        assert "the limit is 1000 (Limits.payload_bytes)" in await (await app.start(talks)).result()


async def test_a_start_whose_input_is_refused_is_not_journaled(open_app):
    @process
    async def takes(hold: Hold) -> None: ...

    async with open_app(limits=SMALL) as app:
        with pytest.raises(Unserialisable):
            await app.start(takes, object())
        with pytest.raises(LimitExceeded, match=r"input of takes has \d+ bytes"):
            await app.start(takes, Hold("x" * 2000, []))
        with pytest.raises(InvalidValue, match="argument 1 of takes isn't a Hold"):
            await app.start(takes, 7)
        with pytest.raises(InvalidValue, match="argument 'hold' of takes isn't a Hold"):
            await app.start(takes, hold=7)
        assert await app.counts() == {}


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), ((1, 2, 3), {}), ((1,), {"other": 2})], ids=["too few", "too many", "unknown"]
)
async def test_a_start_with_the_wrong_number_of_arguments_is_refused(open_app, args, kwargs):
    @process
    async def takes(n: int) -> None: ...

    async with open_app() as app:
        with pytest.raises((InvalidValue, TypeError)):
            await app.start(takes, *args, **kwargs)
        assert await app.counts() == {}


async def test_an_oversize_event_or_update_from_outside_is_refused(open_app):
    @process
    async def waits() -> None:
        await asyncio.sleep(60)

    async with open_app(limits=SMALL) as app:
        run = await app.start(waits)
        with pytest.raises(LimitExceeded):
            await app.publish(Large("x" * 2000))
        with pytest.raises(LimitExceeded):
            await run.publish(Large("x" * 2000))
        with pytest.raises(LimitExceeded):
            await run.update(Large("x" * 2000))
        await run.terminate()


async def test_a_heartbeats_details_that_cannot_be_written_are_refused_in_the_step(open_app):
    from dalsegno import heartbeat

    @step(retry=None)
    async def beats() -> str:
        try:
            heartbeat(object())
        except Unserialisable:
            return "refused"
        return "none"

    @process
    async def asks() -> str:
        return await beats()

    async with open_app() as app:
        assert await (await app.start(asks)).result() == "refused"


async def test_the_same_value_has_the_same_bytes_after_a_restart(open_app):
    # Sets are written in order, whatever the hash seed of the Python process is: arguments are compared by hash.
    @step
    async def send(tags: set[str]) -> None: ...

    @process
    async def asks() -> None:
        await send({"c", "a", "b"})

    async with open_app() as app:
        run = await app.start(asks)
        await run.result()
    assert msgspec.json.encode({"b", "a"}, order="deterministic") == b'["a","b"]'
