"""Cancel, terminate, pause and resume, in every state that an instance can be in."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dalsegno import (
    Event,
    Limits,
    NotFound,
    ProcessCancelled,
    ProcessTerminated,
    Refused,
    Retry,
    process,
    saga,
    step,
    wait_for,
)
from dalsegno.kernel import entries


class Go(Event):
    pass


class World:
    """A process with a saga that stands still in a state of one's choice."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.thread_gate = threading.Event()

        @step
        async def reserve() -> None:
            self.done.append("+")

        @reserve.undo
        async def release(result: None) -> None:
            self.done.append("-")

        @step
        async def slow() -> None:
            self.begun.set()
            await self.gate.wait()

        loop = asyncio.get_running_loop()

        @step
        def thread() -> None:
            loop.call_soon_threadsafe(self.begun.set)
            self.thread_gate.wait(10)

        @step(retry=Retry(attempts=3, first="1h", limit="1h"))
        async def backoff() -> None:
            raise ConnectionError("down")

        @step(retry=Retry(attempts=1, then="park"))
        async def parks() -> None:
            if not self.gate.is_set():
                raise ConnectionError("down")

        @process
        async def job(state: str) -> str:
            async with saga():
                await reserve()
                if state == "in a step":
                    await slow()
                elif state == "in a thread":
                    await thread()
                elif state == "waiting":
                    await wait_for(Go)
                elif state == "sleeping":
                    await asyncio.sleep(86400)
                elif state == "in a backoff":
                    await backoff()
                elif state == "parked":
                    await parks()
                return "done"

        self.job = job

    async def bring_into(self, app: Any, state: str, until: Callable[..., Awaitable[Any]]) -> Any:
        run = await app.start(self.job, state, id="one")
        if state in ("in a step", "in a thread"):
            await self.begun.wait()
        else:
            status = "parked" if state == "parked" else "waiting"
            await until(lambda: stands(run, status))
        return run


STATES = ["in a step", "in a thread", "waiting", "sleeping", "in a backoff", "parked"]
states = pytest.mark.parametrize("state", STATES)


async def stands(run: Any, status: str) -> bool:
    return await run.status() == status


# -- cancel --------------------------------------------------------------------------------------------


@states
async def test_cancelling_undoes_and_ends(open_app, until, state):
    world = World()
    async with open_app() as app:
        run = await world.bring_into(app, state, until)
        await run.cancel("the customer called", by="maria")
        world.thread_gate.set()
        with pytest.raises(ProcessCancelled, match="instance 'one' was cancelled"):
            await run.result()
        assert await run.status() == "cancelled"
        (requested,) = [r.entry for r in await run.history() if isinstance(r.entry, entries.CancelRequested)]
    assert (requested.reason, requested.by) == ("the customer called", "maria")
    assert world.done == ["+", "-"]


@pytest.mark.parametrize("state", ["waiting", "sleeping", "in a backoff", "parked"])
async def test_cancelling_an_instance_that_is_not_in_memory(open_app, until, state):
    world = World()
    async with open_app() as app:
        await world.bring_into(app, state, until)
    async with open_app() as app:
        run = app.get("one")
        await run.cancel()
        with pytest.raises(ProcessCancelled):
            await run.result()
    assert world.done == ["+", "-"]


async def test_cancelling_a_paused_instance_lets_it_go_on_in_order_to_stop(open_app, until):
    world = World()
    async with open_app() as app:
        run = await world.bring_into(app, "waiting", until)
        await run.pause()
        await run.cancel()
        with pytest.raises(ProcessCancelled):
            await run.result()
    assert world.done == ["+", "-"]


async def test_a_process_may_meet_its_cancellation_and_go_on(open_app, until):
    @process
    async def stubborn() -> str:
        try:
            await wait_for(Go)
        except asyncio.CancelledError as error:
            return f"no: {error}"
        return "done"

    async with open_app() as app:
        run = await app.start(stubborn)
        await until(lambda: stands(run, "waiting"))
        await run.cancel("please")
        assert await run.result() == "no: please"
        assert await run.status() == "completed"


# -- terminate -----------------------------------------------------------------------------------------


@states
async def test_terminating_ends_at_once_and_undoes_nothing(open_app, until, state):
    world = World()
    async with open_app() as app:
        run = await world.bring_into(app, state, until)
        await run.terminate("enough", by="maria")
        with pytest.raises(ProcessTerminated, match="instance 'one' was terminated: enough"):
            await run.result()
        assert await run.status() == "terminated"
        world.thread_gate.set()
        ended = (await run.history())[-1].entry
    assert isinstance(ended, entries.Ended)
    assert (ended.outcome, ended.by, ended.reason) == ("terminated", "maria", "enough")
    assert world.done == ["+"]


@pytest.mark.parametrize("state", ["waiting", "sleeping", "in a backoff", "parked"])
async def test_terminating_an_instance_that_is_not_in_memory(open_app, until, state):
    world = World()
    async with open_app() as app:
        await world.bring_into(app, state, until)
    async with open_app() as app:
        run = app.get("one")
        await run.terminate()
        assert await run.status() == "terminated"
        with pytest.raises(ProcessTerminated):
            await run.result()
    assert world.done == ["+"]


async def test_terminating_an_instance_whose_code_is_not_here(open_app, until):
    world = World()
    async with open_app() as app:
        await world.bring_into(app, "waiting", until)

    async with open_app(processes=[]) as app:
        run = app.get("one")
        with pytest.raises(Refused, match="without its code here"):
            await run.cancel()
        with pytest.raises(Refused, match="without its code here"):
            await run.pause()
        await run.terminate()
        assert await run.status() == "terminated"


async def test_what_a_step_does_after_its_instance_was_terminated_changes_nothing(open_app, until):
    world = World()
    async with open_app() as app:
        run = await world.bring_into(app, "in a thread", until)
        await run.terminate()
        length = len(await run.history())
        world.thread_gate.set()
        await asyncio.sleep(0.01)
        assert len(await run.history()) == length
        # Its journal still replays: the end by force is nothing that its code says.
        await app.replay("one")


# -- pause and resume ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["in a step", "in a thread", "waiting", "sleeping", "in a backoff"])
async def test_pausing_lets_running_steps_end_and_begins_no_other(open_app, until, state):
    world = World()
    async with open_app() as app:
        run = await world.bring_into(app, state, until)
        await run.pause("a look", by="maria")
        world.gate.set()
        world.thread_gate.set()
        await asyncio.sleep(0.01)
        if state not in ("in a step", "in a thread"):
            instance = await run.describe()
            assert (instance.status, instance.waiting_for) == ("paused", "somebody to resume it")
            assert instance.wake_at is None
            await run.resume()
            await until(lambda: stands(run, "waiting"))
            await run.terminate()
        else:
            # The step was the last thing to do: the instance ends, nothing further had to begin.
            assert await run.result() == "done"


async def test_a_paused_instance_begins_no_further_step_until_it_is_resumed(open_app, until):
    world = World()
    second = []

    @step
    async def next_one() -> str:
        second.append(1)
        return "second"

    @process
    async def two_steps() -> str:
        await slow()
        return await next_one()

    @step
    async def slow() -> None:
        world.begun.set()
        await world.gate.wait()

    async with open_app() as app:
        run = await app.start(two_steps, id="one")
        await world.begun.wait()
        await run.pause()
        world.gate.set()

        async def step_ended() -> bool:
            return any(isinstance(r.entry, entries.StepCompleted) for r in await run.history())

        await until(step_ended)
        assert second == []
        assert await run.status() == "paused"
    # Over a restart too.
    async with open_app() as app:
        run = app.get("one")
        assert await run.status() == "paused"
        await run.resume(by="maria")
        assert await run.result() == "second"
    assert second == [1]


async def test_a_timer_that_comes_due_while_paused_rings_after_resuming(open_app, until):
    @process
    async def sleeps() -> str:
        await asyncio.sleep(0.02)
        return "woken"

    async with open_app() as app:
        run = await app.start(sleeps)
        await until(lambda: stands(run, "waiting"))
        await run.pause()
        await asyncio.sleep(0.04)
        assert await run.status() == "paused"
        await run.resume()
        assert await run.result() == "woken"


async def test_resuming_from_memory_and_from_disk_runs_a_step_once(open_app, until):
    calls = []

    @step
    async def work(n: int) -> int:
        calls.append(n)
        return n

    @process
    async def many() -> int:
        return sum(await asyncio.gather(*(work(n) for n in range(50))))

    async with open_app() as app:
        for attempt in range(10):
            run = await app.start(many, id=f"m{attempt}")
            for _ in range(3):
                try:
                    await run.pause()
                    await run.resume()
                except Refused:
                    break
            assert await run.result() == sum(range(50))
            assert sorted(calls) == list(range(50))
            calls.clear()


# -- refusals ------------------------------------------------------------------------------------------


async def test_what_makes_no_sense_is_refused(open_app, until):
    world = World()
    async with open_app() as app:
        run = await world.bring_into(app, "waiting", until)
        with pytest.raises(Refused, match="instance 'one' is waiting: there is nothing to resume"):
            await run.resume()
        with pytest.raises(Refused, match="is waiting: only one that failed or was stopped can be retried"):
            await run.retry()
        await run.pause()
        with pytest.raises(Refused, match="instance 'one' is paused already"):
            await run.pause()
        await run.resume()
        await run.publish(Go())
        assert await run.result() == "done"
        for verb in ("cancel", "terminate", "pause"):
            with pytest.raises(Refused, match=f"instance 'one' is completed: there is nothing to {verb}"):
                await getattr(run, verb)()
        with pytest.raises(Refused, match="is completed: there is nothing to resume"):
            await run.resume()
        with pytest.raises(Refused, match="is completed: only one that failed"):
            await run.retry()
        for verb in ("cancel", "terminate", "pause", "resume", "retry", "describe", "history", "result"):
            with pytest.raises(NotFound, match="no instance 'nobody' in namespace 'default'"):
                await getattr(app.get("nobody"), verb)()


# -- all at once ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["in memory", "on disk", "paused", "failed"])
async def test_commands_that_come_together_are_each_done_or_refused_and_the_node_lives(open_app, until, where):
    world = World()

    @process
    async def fails() -> None:
        raise ValueError("no")

    async with open_app() as app:
        if where == "failed":
            with pytest.raises(ValueError, match="no"):
                await (await app.start(fails, id="one")).result()
        else:
            run = await world.bring_into(app, "waiting", until)
            if where == "paused":
                await run.pause()
    verbs = ["cancel", "terminate", "pause", "resume", "retry", "publish", "update", "fork", "describe"] * 4
    async with open_app(deterministic=False) as app:
        run = app.get("one")
        if where == "in memory":
            await run.pause()
            await run.resume()

        def ask(verb: str) -> Awaitable[Any]:
            return getattr(run, verb)(Go()) if verb in ("publish", "update") else getattr(run, verb)()

        replies = await asyncio.gather(*(ask(verb) for verb in verbs), return_exceptions=True)
        odd = [r for r in replies if isinstance(r, BaseException) and not isinstance(r, Refused | ValueError)]
        assert odd == []
        assert await (await app.start(world.job, "")).result() == "done"
        seqs = [record.seq for record in await run.history()]
        assert seqs == list(range(len(seqs)))


async def test_commands_and_ends_race_and_each_command_gets_its_reply(open_app, until):
    @process
    async def short(n: int) -> int:
        await wait_for(Go)
        return n

    async with open_app(limits=Limits(resident_instances=2)) as app:
        for verb in ("cancel", "terminate", "pause", "update"):
            runs = [await app.start(short, n, id=f"{verb}{n}") for n in range(20)]

            def ask(run: Any, verb: str = verb) -> Awaitable[Any]:
                return run.update(Go()) if verb == "update" else getattr(run, verb)()

            asked = [asyncio.ensure_future(ask(run)) for run in runs]
            await app.publish(Go())
            replies = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 10)
            assert all(reply is None or isinstance(reply, Refused) for reply in replies)
            for run in runs:
                if await run.status() == "paused":
                    await run.resume()
            for run in runs:
                await until(lambda run=run: _ended(run))


async def _ended(run: Any) -> bool:
    return await run.status() in ("completed", "cancelled", "terminated")
