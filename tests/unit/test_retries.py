"""Failed attempts are tried again, by policy; how often and when is in the journal, not in memory."""

import asyncio
from typing import Any

import pytest

from dalsegno import (
    Limits,
    OutcomeUnknown,
    Retry,
    StepFailed,
    Unserialisable,
    UsageError,
    process,
    step,
)
from dalsegno.kernel import entries


class CardDeclined(Exception):
    pass


def _attempts(history: list[entries.Record]) -> list[entries.AttemptFailed]:
    return [r.entry for r in history if isinstance(r.entry, entries.AttemptFailed)]


# -- the policy ----------------------------------------------------------------------------------------


def test_waits_grow_by_the_factor_up_to_the_limit():
    retry = Retry(first="1s", factor=3, limit="20s", jitter=0)
    assert [retry.wait_seconds(n, 0.5) for n in range(1, 6)] == [1, 3, 9, 20, 20]
    assert retry.wait_seconds(10_000, 0.5) == 20


def test_jitter_takes_away_a_random_share_of_the_wait():
    retry = Retry(first="10s", jitter=0.5)
    assert retry.wait_seconds(1, 0.0) == 10
    assert retry.wait_seconds(1, 0.999) == pytest.approx(5, abs=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attempts": 0}, "at least 1, or None for no end"),
        ({"jitter": 1.5}, "a share between 0 and 1"),
        ({"factor": 0.5}, "waits don't shrink"),
        ({"first": "soon"}, "isn't a duration"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Retry(**options)


# -- what steps do with it -----------------------------------------------------------------------------


async def test_a_step_is_tried_until_it_succeeds(open_app):
    failures = iter([ConnectionError("one"), ConnectionError("two")])

    @step(retry=Retry(attempts=5, first="1ms"))
    async def flaky() -> str:
        for error in failures:
            raise error
        return "at last"

    @process
    async def asks() -> str:
        return await flaky()

    async with open_app() as app:
        run = await app.start(asks)
        assert await run.result() == "at last"
        attempts = _attempts(await run.history())
        (completed,) = [r.entry for r in await run.history() if isinstance(r.entry, entries.StepCompleted)]
    assert [(a.attempt, a.error.message) for a in attempts] == [(1, "one"), (2, "two")]
    assert completed.attempt == 3


async def test_waits_between_attempts_are_journaled(open_app):
    @step(retry=Retry(attempts=4, first="2ms", factor=2, jitter=0))
    async def flaky() -> None:
        raise ConnectionError

    @process
    async def asks() -> None:
        await flaky()

    async with open_app() as app:
        run = await app.start(asks)
        with pytest.raises(ConnectionError):
            await run.result()
        waits = [
            (r.entry.next_at - r.at) / 1000 for r in await run.history() if isinstance(r.entry, entries.AttemptFailed)
        ]
    assert waits == pytest.approx([2, 4, 8], abs=0.9)


async def test_the_last_error_is_raised_in_the_process(open_app):
    errors = iter([ConnectionError("one"), ValueError("two")])

    @step(retry=Retry(attempts=2, first="1ms"))
    async def flaky() -> None:
        raise next(errors)

    @process
    async def asks() -> str:
        try:
            await flaky()
        except ValueError as error:
            return str(error)
        return "none"

    async with open_app() as app:
        assert await (await app.start(asks)).result() == "two"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (CardDeclined("no funds"), 1),
        (UsageError("never right"), 1),
        (Unserialisable("never right"), 1),
        (OutcomeUnknown("perhaps"), 3),
        (ConnectionError("again"), 3),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_some_errors_are_final_at_once(open_app, error, expected):
    calls = []

    @step(retry=Retry(attempts=3, first="1ms", never_on=(CardDeclined,)))
    async def charge() -> None:
        calls.append(1)
        raise error

    @process
    async def asks() -> None:
        await charge()

    async with open_app() as app:
        with pytest.raises(type(error)):
            await (await app.start(asks)).result()
    assert len(calls) == expected


@pytest.mark.parametrize(("retry", "expected"), [(None, 1), (1, 1), (Retry(attempts=1), 1)])
async def test_a_single_attempt_leaves_no_trace_but_the_failure(open_app, retry, expected):
    calls = []

    @step(retry=retry)
    async def once() -> None:
        calls.append(1)
        raise ConnectionError

    @process
    async def asks() -> None:
        await once()

    async with open_app() as app:
        run = await app.start(asks)
        with pytest.raises(ConnectionError):
            await run.result()
        assert [type(r.entry).__name__ for r in await run.history()] == ["Started", "StepFailed", "Ended"]
    assert len(calls) == expected


async def test_five_attempts_are_the_default():
    @step
    async def plain() -> None: ...

    assert plain.spec.retry.attempts == 5
    assert plain.spec.retry.then == "fail"


async def test_a_policy_without_end_tries_on(open_app):
    left = 30

    @step(retry=Retry(attempts=None, first="1us", limit="1ms"))
    async def stubborn() -> int:
        nonlocal left
        left -= 1
        if left:
            raise ConnectionError
        return 30

    @process
    async def asks() -> int:
        return await stubborn()

    async with open_app() as app:
        run = await app.start(asks)
        assert await run.result() == 30
        assert len(_attempts(await run.history())) == 29


async def test_an_instance_waits_for_its_next_attempt_and_says_so(open_app, until):
    @step(retry=Retry(first="1h", limit="1h"))
    async def flaky() -> None:
        raise ConnectionError

    @process
    async def asks() -> None:
        await flaky()

    async with open_app() as app:
        run = await app.start(asks)
        instance = await until(lambda: _standing(run, "waiting"))
        assert instance.waiting_for.startswith("next attempt of flaky at ")
        assert (instance.wake_at - instance.updated_at).total_seconds() > 3600 * 0.7


async def _standing(run: Any, status: str) -> Any:
    instance = await run.describe()
    return instance if instance.status == status else None


async def test_attempts_are_counted_across_restarts(open_app, until):
    calls = []

    @step(retry=Retry(attempts=3, first="20ms", factor=1, jitter=0))
    async def flaky() -> None:
        calls.append(1)
        raise ConnectionError(str(len(calls)))

    @process
    async def asks() -> None:
        await flaky()

    async with open_app() as app:
        run = await app.start(asks, id="one")
        await until(lambda: _standing(run, "waiting"))
    async with open_app() as app:
        await until(lambda: len(calls) == 2)
    async with open_app() as app:
        with pytest.raises(ConnectionError, match="3"):
            await app.get("one").result()
    assert len(calls) == 3


async def test_a_long_backoff_holds_no_memory(open_app, until):
    @step(retry=Retry(first="300ms", factor=1, jitter=0))
    async def flaky(n: int) -> int:
        calls.append(n)
        if calls.count(n) == 1:
            raise ConnectionError
        return n

    @process
    async def asks(n: int) -> int:
        return await flaky(n)

    calls: list[int] = []
    async with open_app(limits=Limits(resident_instances=1)) as app:
        runs = [await app.start(asks, n) for n in range(10)]
        await until(lambda: len(calls) == 10)
        await until(lambda: len(app._node.residents) <= 1)
        assert sorted(await asyncio.gather(*(run.result() for run in runs))) == list(range(10))


async def test_when_attempts_end_an_instance_is_parked_if_the_policy_says_so(open_app, until):
    healthy = False

    @step(retry=Retry(attempts=2, first="1ms", then="park"))
    async def flaky() -> str:
        if not healthy:
            raise ConnectionError("down")
        return "up"

    @process
    async def asks() -> str:
        return await flaky()

    async with open_app() as app:
        run = await app.start(asks, id="one")
        instance = await until(lambda: _standing(run, "parked"))
        assert instance.error == "step 'flaky' failed 2 times, the last time with down"
        assert instance.waiting_for == "an operator: resume, retry, cancel or terminate it"
    # It stays so over a restart, until somebody lets it go on.
    async with open_app() as app:
        run = app.get("one")
        assert await run.status() == "parked"
        await run.resume()
        instance = await until(lambda: _standing(run, "parked"))
        assert len(_attempts(await run.history())) == 3
        healthy = True
        await run.resume()
        assert await run.result() == "up"


async def test_a_parked_instance_keeps_what_runs_beside_the_failed_step(open_app, until):
    healthy = False
    done = []

    @step(retry=Retry(attempts=1, then="park"))
    async def flaky() -> str:
        if not healthy:
            raise ConnectionError("down")
        return "up"

    @step
    async def fine() -> str:
        done.append(1)
        return "fine"

    @process
    async def asks() -> list[str]:
        first = await fine()
        return [first, *await asyncio.gather(flaky(), fine())]

    async with open_app() as app:
        run = await app.start(asks)
        await until(lambda: _standing(run, "parked"))
        healthy = True
        await run.resume()
        assert await run.result() == ["fine", "up", "fine"]


async def test_an_unknown_type_of_error_is_raised_as_step_failed(open_app):
    @step(retry=None)
    async def fails() -> None:
        raise type("Strange", (Exception,), {})("odd")

    @process
    async def asks() -> str:
        try:
            await fails()
        except StepFailed as error:
            return f"{error} | {error.type_name}"
        return "none"

    async with open_app() as app:
        assert await (await app.start(asks)).result() == f"Strange: odd | {__name__}:Strange"
