"""Steps: where they run, how long they may take, what they know about themselves."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from dalsegno import (
    AttemptTimedOut,
    Limits,
    Retry,
    StepFailed,
    UsageError,
    heartbeat,
    process,
    step,
    step_key,
)
from dalsegno.kernel import entries

QUICK = Retry(attempts=3, first="1ms", jitter=0)


# Steps for worker processes are imported there by name: they stand at the top of a module.


@step(executor="process")
def where_it_runs() -> int:
    return os.getpid()


@step(executor="process", retry=QUICK)
def fails_there(message: str) -> None:
    raise ValueError(message)


@step(executor="process", retry=2)
def ends_its_process() -> None:
    os._exit(3)


@step(executor="process", timeout="100ms", retry=None)
def takes_too_long_there() -> None:
    time.sleep(60)


@step(executor="process", retry=QUICK)
def resumes_there(limit: int) -> list[Any]:
    seen = heartbeat()
    if seen is None:
        heartbeat({"row": limit})
        raise ConnectionError("half way")
    return [seen, step_key()]


@step(executor="process")
def adds(a: int, b: list[int], *, c: dict[str, int]) -> int:
    return a + sum(b) + c["c"]


async def test_async_steps_run_on_the_nodes_loop(open_app):
    @step
    async def where() -> tuple[int, bool]:
        return threading.get_ident(), asyncio.get_running_loop() is here

    @process
    async def asks() -> tuple[int, bool]:
        return await where()

    here = asyncio.get_running_loop()
    async with open_app() as app:
        thread, same_loop = await (await app.start(asks)).result()
    assert thread == threading.get_ident()
    assert same_loop


async def test_def_steps_run_in_threads_and_side_by_side(open_app):
    meeting = threading.Barrier(4, timeout=10)

    @step
    def where(n: int) -> int:
        meeting.wait()
        return threading.get_ident()

    @process
    async def asks() -> list[int]:
        return list(await asyncio.gather(*(where(n) for n in range(4))))

    async with open_app() as app:
        threads = await (await app.start(asks)).result()
    assert len(set(threads)) == 4
    assert threading.get_ident() not in threads


async def test_inline_steps_run_at_once_on_the_nodes_thread(open_app):
    @step(executor="inline")
    def where() -> int:
        return threading.get_ident()

    @process
    async def asks() -> int:
        return await where()

    async with open_app() as app:
        assert await (await app.start(asks)).result() == threading.get_ident()


async def test_process_steps_run_in_worker_processes(open_app):
    @process
    async def asks() -> list[Any]:
        return [await where_it_runs(), await adds(1, [2, 3], c={"c": 4})]

    async with open_app() as app:
        pid, total = await (await app.start(asks)).result()
    assert pid != os.getpid()
    assert total == 10


async def test_errors_of_process_steps_come_back_typed(open_app):
    @process
    async def asks() -> None:
        await fails_there("no such row")

    async with open_app() as app:
        with pytest.raises(ValueError, match="no such row"):
            await (await app.start(asks)).result()


async def test_a_worker_process_that_dies_is_an_attempt_that_failed(open_app):
    @process
    async def asks() -> None:
        await ends_its_process.using(retry=Retry(attempts=2, first="1ms"))()

    async with open_app() as app:
        run = await app.start(asks)
        with pytest.raises(StepFailed, match="worker process ended with code 3"):
            await run.result()
        assert len(_attempts(await run.history())) == 1


async def test_a_process_step_that_no_other_process_can_import_says_so(open_app):
    @step(executor="process", retry=5)
    def inside() -> int:
        return 1

    @process
    async def asks() -> None:
        await inside()

    async with open_app() as app:
        with pytest.raises(UsageError, match="can't be imported: declare it at the top of a module"):
            await (await app.start(asks)).result()


async def test_a_process_step_that_takes_too_long_is_killed(open_app):
    @process
    async def asks() -> None:
        await takes_too_long_there()

    async with open_app() as app:
        with pytest.raises(AttemptTimedOut, match=r"within 0\.1 s; whether it took effect is unknown"):
            await (await app.start(asks)).result()


async def test_an_async_step_that_takes_too_long_is_cancelled(open_app):
    ended = []

    @step(timeout="20ms", retry=QUICK)
    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(step_key())

    @process
    async def asks() -> None:
        await slow()

    async with open_app() as app:
        run = await app.start(asks, id="one")
        with pytest.raises(
            AttemptTimedOut, match=r"step 'slow' of instance 'one', attempt 3 didn't end within 0\.02 s"
        ):
            await run.result()
        failed = next(r.entry for r in await run.history() if isinstance(r.entry, entries.StepFailed))
    # Each attempt was stopped, and nobody knows what it did.
    assert ended == ["default/one/slow"] * 3
    assert failed.unknown


async def test_a_thread_step_that_takes_too_long_is_given_up(open_app):
    release = threading.Event()

    @step(timeout="20ms", retry=None)
    def slow() -> str:
        release.wait(10)
        return "too late"

    @process
    async def asks() -> str:
        return await slow()

    async with open_app() as app:
        run = await app.start(asks)
        with pytest.raises(AttemptTimedOut, match="its thread goes on"):
            await run.result()
        release.set()


async def test_a_time_out_of_the_steps_own_is_an_error_like_any_other(open_app):
    @step(timeout="1h", retry=None)
    async def waits_for_a_service() -> None:
        async with asyncio.timeout(0.001):
            await asyncio.sleep(60)

    @process
    async def asks() -> str:
        try:
            await waits_for_a_service()
        except AttemptTimedOut:
            return "the attempt's"
        except TimeoutError:
            return "the step's own"
        return "none"

    async with open_app() as app:
        assert await (await app.start(asks)).result() == "the step's own"


async def test_a_process_stops_waiting_for_a_step_and_goes_on_at_once(open_app):
    stopped = asyncio.Event()

    @step
    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()

    @process
    async def impatient() -> str:
        try:
            async with asyncio.timeout(0.01):
                await slow()
        except TimeoutError:
            return "went on"
        return "waited"

    async with open_app() as app:
        assert await (await app.start(impatient)).result() == "went on"
        await stopped.wait()


@pytest.mark.parametrize("kind", ["async", "thread", "inline"])
async def test_a_step_that_exits_fails_and_the_node_lives(open_app, kind):
    def plain() -> None:
        raise SystemExit(4)

    async def asynchronous() -> None:
        raise SystemExit(4)

    work: Any = {
        "async": step(retry=None)(asynchronous),
        "thread": step(retry=None)(plain),
        "inline": step(retry=None, executor="inline")(plain),
    }[kind]

    @process
    async def asks() -> None:
        await work()

    @process
    async def works() -> str:
        return "fine"

    async with open_app() as app:
        with pytest.raises(StepFailed, match="SystemExit: 4"):
            await (await app.start(asks)).result()
        assert await (await app.start(works)).result() == "fine"


async def test_a_step_that_cancels_itself_fails(open_app):
    @step(retry=None)
    async def cancels_itself() -> None:
        raise asyncio.CancelledError

    @process
    async def asks() -> None:
        await cancels_itself()

    async with open_app() as app:
        with pytest.raises(Exception, match="raised CancelledError"):
            await (await app.start(asks)).result()


# -- names and keys ------------------------------------------------------------------------------------


async def test_a_step_key_is_the_same_on_every_attempt_and_differs_between_calls(open_app):
    keys: list[str] = []

    @step(retry=QUICK)
    async def charge(n: int) -> None:
        keys.append(step_key())
        if len(keys) < 3:
            raise ConnectionError

    @process
    async def order() -> None:
        await charge(1)
        await charge(2)
        await charge.using(name="charge_fee")(3)

    async with open_app(namespace="sales") as app:
        await (await app.start(order, id="order-7")).result()
    assert keys == ["sales/order-7/charge"] * 3 + ["sales/order-7/charge#2", "sales/order-7/charge_fee"]


async def test_a_step_key_is_the_same_after_a_restart(open_app, until):
    keys: list[str] = []

    @step(retry=Retry(attempts=2, first="50ms", jitter=0))
    async def charge() -> str:
        keys.append(step_key())
        if len(keys) == 1:
            raise ConnectionError
        return keys[-1]

    @process
    async def order() -> str:
        return await charge()

    async with open_app() as app:
        await app.start(order, id="one")
        await until(lambda: keys)
    async with open_app() as app:
        assert await app.get("one").result() == "default/one/charge"
    assert keys == ["default/one/charge"] * 2


async def test_parallel_calls_are_numbered_in_the_order_of_the_calls(open_app):
    first = asyncio.Event()

    @step
    async def work(n: int) -> str:
        if n == 0:
            await first.wait()
        if n == 2:
            first.set()
        return step_key()

    @process
    async def fans_out() -> list[str]:
        return list(await asyncio.gather(*(work(n) for n in range(3))))

    async with open_app() as app:
        keys = await (await app.start(fans_out, id="one")).result()
    assert keys == ["default/one/work", "default/one/work#2", "default/one/work#3"]


async def test_outside_a_process_a_step_is_the_plain_function_with_a_key_of_its_own():
    @step
    async def charge(n: int) -> str:
        assert heartbeat("half") is None
        return step_key()

    @step
    def plain(n: int) -> int:
        return n + 1

    assert (await charge(1)).startswith("plain/")
    assert await charge(1) != await charge(1)
    assert plain(1) == 2


async def test_using_makes_a_copy_with_other_options(open_app):
    calls: list[str] = []

    @step(retry=5, timeout="1h")
    async def flaky() -> None:
        calls.append("x")
        raise ConnectionError

    @flaky.undo
    async def unflaky(result: None) -> None: ...

    once = flaky.using(retry=None)
    assert once.spec.timeout_seconds == 3600
    assert once.spec.undo is flaky.spec.undo
    assert flaky.spec.retry.attempts == 5

    @process
    async def asks() -> None:
        await once()

    async with open_app() as app:
        with pytest.raises(ConnectionError):
            await (await app.start(asks)).result()
    assert calls == ["x"]


# -- heartbeats ----------------------------------------------------------------------------------------


def _resuming(kind: str, seen: list[Any]) -> Any:
    def body() -> str:
        before = heartbeat()
        seen.append(before)
        if before is None:
            heartbeat({"row": 500})
            raise ConnectionError("half way")
        return f"went on from {before['row']}"

    async def asynchronous() -> str:
        return body()

    made: dict[str, Callable[..., Any]] = {
        "async": lambda: step(retry=QUICK, name="load")(asynchronous),
        "thread": lambda: step(retry=QUICK, name="load")(body),
        "inline": lambda: step(retry=QUICK, name="load", executor="inline")(body),
    }
    return made[kind]()


@pytest.mark.parametrize("kind", ["async", "thread", "inline"])
async def test_a_later_attempt_resumes_from_the_details_of_the_last_heartbeat(open_app, kind):
    seen: list[Any] = []
    load = _resuming(kind, seen)

    @process
    async def asks() -> str:
        return await load()

    async with open_app() as app:
        assert await (await app.start(asks)).result() == "went on from 500"
    assert seen == [None, {"row": 500}]


async def test_a_later_attempt_in_a_worker_process_resumes_too(open_app):
    @process
    async def asks() -> list[Any]:
        return await resumes_there(7)

    async with open_app() as app:
        assert await (await app.start(asks, id="one")).result() == [{"row": 7}, "default/one/resumes_there"]


async def test_an_attempt_after_a_restart_resumes_from_the_last_heartbeat(open_app, until):
    seen: list[Any] = []

    @step(retry=Retry(attempts=2, first="100ms", jitter=0))
    async def load() -> str:
        seen.append(heartbeat())
        if len(seen) == 1:
            heartbeat({"row": 41})
            raise ConnectionError
        return "done"

    @process
    async def asks() -> str:
        return await load()

    async with open_app() as app:
        await app.start(asks, id="one")
        await until(lambda: seen)
    assert seen == [None]
    async with open_app() as app:
        assert await app.get("one").result() == "done"
    assert seen == [None, {"row": 41}]


async def test_a_step_that_stops_heartbeating_has_failed(open_app):
    attempts: list[int] = []

    @step(heartbeat_timeout="50ms", retry=QUICK)
    async def silent() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            await asyncio.sleep(60)
        for _ in range(30):
            heartbeat()
            await asyncio.sleep(0.005)
        return "alive"

    @process
    async def asks() -> str:
        return await silent()

    async with open_app(limits=Limits(slow_step_seconds=0.01)) as app:
        run = await app.start(asks)
        assert await run.result() == "alive"
        (failed,) = _attempts(await run.history())
    assert "sent no heartbeat for 0.05 s" in failed.error.message
    assert failed.unknown


async def test_a_step_that_takes_long_is_journaled_as_started(open_app, until):
    release = asyncio.Event()

    @step
    async def slow(n: int) -> None:
        await release.wait()

    @process
    async def asks() -> None:
        await slow(7)

    async with open_app(limits=Limits(slow_step_seconds=0.01)) as app:
        run = await app.start(asks)

        async def started() -> list[entries.StepStarted]:
            return [r.entry for r in await run.history() if isinstance(r.entry, entries.StepStarted)]

        (remark,) = await until(started)
        assert (remark.step, remark.attempt, bytes(remark.arguments)) == ("slow", 1, b"[7,{}]")
        release.set()
        await run.result()


def _attempts(history: list[entries.Record]) -> list[entries.AttemptFailed]:
    return [r.entry for r in history if isinstance(r.entry, entries.AttemptFailed)]
