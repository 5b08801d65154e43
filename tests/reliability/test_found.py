"""Bugs that the lanes found, each as the smallest world that showed it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from tests.reliability import client, workload
from tests.reliability.simulated import SimulatedWorld, open_app
from tests.reliability.simulation import Simulation
from tests.reliability.virtual import Clock, VirtualLoop

from dalsegno import App, Retry, process, publish, saga, wait_for
from dalsegno.errors import Fenced, ProcessCancelled, StoreOwned
from dalsegno.instance import Run
from dalsegno.kernel import entries as e
from dalsegno.kernel.limits import Limits
from dalsegno.stores.memory.store import MemoryStore
from dalsegno.stores.sqlite.store import SqliteStore


def world(*goals: str, crashes: int = 0, seed: int = 0, **limits: object) -> list[str]:
    """The violations in a simulated world with these goals and limits."""
    simulation = Simulation(seed, crashes, [(name, f"{name}-{number}") for number, name in enumerate(goals)])
    simulation.limits = msgspec.structs.replace(simulation.limits, **limits)
    return simulation.run()


def test_an_instance_that_is_woken_while_all_others_run_stays_until_it_got_what_it_was_woken_for() -> None:
    assert world("sleepers", "pauses", seed=2, resident_instances=1, running_steps=2, loading_instances=1) == []


def test_a_child_that_outlives_the_run_that_started_it_tells_no_later_run() -> None:
    for limit in (1, 1000):
        assert world("renewals", "renewals", resident_instances=limit) == []


def test_a_time_out_further_away_than_the_window_comes_although_a_step_is_running() -> None:
    for seed in range(4):
        assert world("impatients", seed=seed, timer_window_seconds=0.02) == []


def test_a_time_out_that_passed_while_the_engine_was_down_comes_before_the_repeated_step_ends() -> None:
    for seed in range(30):
        assert world("impatients", seed=seed, crashes=8) == []


def live(work: Callable[[App], Awaitable[None]], **limits: Any) -> None:
    """Run something against an app on virtual time."""
    workload.holder.world = SimulatedWorld()
    clock = Clock()
    loop = VirtualLoop(clock)
    app, node = open_app(MemoryStore(clock=clock.now), Limits(**limits), Random(0))
    for one in (napping_saga, mother):
        node.definitions.add(one.spec)

    async def main() -> None:
        await node.open()
        async with asyncio.timeout(60):
            await work(app)
        assert node.failure is None
        await node.close()

    loop.run_until_complete(main())
    loop.close()


def test_a_paused_instance_that_is_cancelled_and_terminated_at_once_keeps_one_journal() -> None:
    async def work(app: App) -> None:
        run = await app.start(workload.holdout, id="x")
        await run.pause()
        await asyncio.gather(run.cancel(), run.terminate())
        assert await run.status() == "terminated"

    live(work)


@process
async def napping_saga(name: str) -> list[str]:
    async with saga():
        saw = [await workload.reserve([])]
        await asyncio.sleep(5)
        await publish(workload.Signal(name, saw[0]))
        signal = await wait_for(workload.Signal, name=name)
        try:
            await workload.decline([signal.token])
        except workload.Declined:
            saw.append(await workload.gate(name, saw))
    return saw


def test_a_saga_that_slept_and_was_undone_can_be_retried() -> None:
    async def work(app: App) -> None:
        run = await app.start(napping_saga, "gate", id="x")
        with pytest.raises(workload.Declined):
            await run.result()
        workload.holder.world.repair("gate")  # type: ignore[attr-defined]
        await run.retry()
        assert len(await run.result()) == 2

    live(work)


@process
async def mother(name: str) -> list[str]:
    return await workload.broken(name)


def test_a_parent_that_is_retried_takes_its_failed_child_with_it() -> None:
    async def work(app: App) -> None:
        run = await app.start(mother, "gate", id="x")
        with pytest.raises(workload.Declined):
            await run.result()
        await run.retry()
        with pytest.raises(workload.Declined):
            await run.result()
        workload.holder.world.repair("gate")  # type: ignore[attr-defined]
        await run.retry()
        assert len(await run.result()) == 2

    live(work)


def test_children_that_were_stopped_with_their_parent_go_on_with_it() -> None:
    async def work(app: App) -> None:
        run = await app.start(workload.parent, 4, id="x")
        await run.terminate()
        await app.get("x/child#2").result()
        await run.retry()
        assert await run.result() == [0, 1, "Declined", 3, 1]

    live(work)


def test_what_a_child_tells_a_paused_parent_is_kept_until_that_goes_on() -> None:
    async def work(app: App) -> None:
        run = await app.start(workload.parent, 4, id="x")
        await run.pause()
        await asyncio.sleep(10)
        await run.resume()
        assert await run.result() == [0, 1, "Declined", 3, 1]

    live(work, resident_instances=1)


def test_whoever_took_over_from_a_frozen_owner_stays_owner_when_that_one_dies(tmp_path: Path) -> None:
    async def main() -> None:
        frozen, second, third = (SqliteStore(str(tmp_path / "x.db")) for _ in range(3))
        await frozen.open(owner=True, name="frozen", lease_seconds=0)
        await second.open(owner=True, name="second", lease_seconds=100)
        with pytest.raises(Fenced):
            await frozen.load([1])
        await frozen.close()
        with pytest.raises(StoreOwned, match="second"):
            await third.open(owner=True, name="third", lease_seconds=100)
        await second.close()
        await third.open(owner=True, name="third", lease_seconds=100)
        await third.close()

    asyncio.run(main())


@process
async def hasty() -> str:
    try:
        async with asyncio.timeout(1):
            await workload.stumble.using(retry=Retry(attempts=3, first=100, jitter=0))([], 9)
    except TimeoutError:
        pass
    return "done"


async def hasties(c: client.Client, id: str, r: Random) -> None:
    await c.start(hasty, id)
    assert await c.result(id) == "done"


def test_an_instance_that_stops_a_step_in_its_backoff_is_found_after_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(client.GOALS, "hasties", hasties)
    monkeypatch.setattr(workload, "PROCESSES", [*workload.PROCESSES, hasty])
    for seed in range(10):
        assert world("hasties", seed=seed, crashes=30, lease_seconds=10.0) == []


async def _undoing(run: Run[Any]) -> bool:
    while True:
        done = [r.entry.step for r in await run.history() if isinstance(r.entry, e.StepCompleted)]
        if "undo:ship" in done:
            return True
        await asyncio.sleep(0.001)


def test_a_saga_that_was_cancelled_while_it_was_undone_can_be_retried() -> None:
    async def work(app: App) -> None:
        run = await app.start(workload.order, 4, id="x")
        assert await _undoing(run)
        await run.cancel()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await run.update(workload.Add(1))
        await run.cancel()
        with pytest.raises(ProcessCancelled):
            await run.result()
        await run.retry()
        with pytest.raises(workload.Declined):
            await run.result()

    live(work)
