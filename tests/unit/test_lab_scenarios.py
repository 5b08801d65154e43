"""What may happen to an instance, with a crash at every point of it and several at random."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from dalsegno import Event, continue_as_new, process, saga, start, step, wait_for
from dalsegno.authoring.process import Process
from dalsegno.testing import Lab, LabRun


class Go(Event):
    number: int = 0


@step
async def reserve(order: str) -> str:
    return f"hold for {order}"


@reserve.undo
async def release(order: str, hold: str) -> None: ...


@step
async def charge(order: str) -> str:
    return f"charge for {order}"


@charge.undo
async def refund(order: str, charge: str) -> None: ...


@process
async def waits_in_a_saga(order: str) -> str:
    async with saga():
        await reserve(order)
        await charge(order)
        await wait_for(Go)
        return "done"


@process
async def ends_before_its_child(order: str) -> str:
    await start(waits_in_a_saga, order, parent_close="cancel")
    await charge(order)
    await asyncio.sleep(60)
    return "done"


@process
async def gives_its_child_half_a_minute(order: str) -> str:
    try:
        async with asyncio.timeout(30):
            return await waits_in_a_saga(order)
    except TimeoutError:
        return "too slow"


@process
async def goes_round(order: str, left: int = 3) -> str:
    await charge(f"{order}-{left}")
    await asyncio.sleep(1)
    if left:
        continue_as_new(order, left - 1)
    return "over"


@process
async def sleeps_between_steps(order: str) -> str:
    await reserve(order)
    await asyncio.sleep(10)
    return await charge(order)


@process
async def waits_ten_seconds(order: str) -> str:
    try:
        async with asyncio.timeout(10):
            return f"event {(await wait_for(Go)).number}"
    except TimeoutError:
        return "too late"


@process
async def fans_out(order: str) -> int:
    return len(await asyncio.gather(*(one(f"{order}-{n}") for n in range(4) for one in (reserve, charge))))


class Scenario(NamedTuple):
    name: str
    process: Process[..., Any]
    script: Callable[[Lab, LabRun[Any]], Any] | None = None
    setup: Callable[[Lab], Any] | None = None


def go_after(seconds: int) -> Callable[[Lab, LabRun[Any]], None]:
    def script(lab: Lab, run: LabRun[Any]) -> None:
        lab.advance(seconds)
        lab.publish(Go(number=1))
        lab.advance(5)

    return script


def pause_for_a_minute(lab: Lab, run: LabRun[Any]) -> None:
    run.pause()
    lab.advance("1m")
    run.resume()


def cancel(lab: Lab, run: LabRun[Any]) -> None:
    run.cancel("no more")


def cancel_and_retry(lab: Lab, run: LabRun[Any]) -> None:
    run.cancel("no more")
    lab.until_idle()
    run.retry()
    lab.publish(Go())


def fork_and_go_on(lab: Lab, run: LabRun[Any]) -> None:
    run.fork(step="charge", id="fork")
    lab.publish(Go())


def terminate(lab: Lab, run: LabRun[Any]) -> None:
    run.terminate("enough")


def refund_is_out(lab: Lab) -> None:
    lab.double(refund).raises(ConnectionError, times=3)


SCENARIOS = [
    Scenario("a child is cancelled with its parent", ends_before_its_child),
    Scenario("a child is too slow", gives_its_child_half_a_minute),
    Scenario("a child ends in time", gives_its_child_half_a_minute, go_after(5)),
    Scenario("a run continues as new", goes_round),
    Scenario("a run is paused for a while", sleeps_between_steps, pause_for_a_minute),
    Scenario("an event is in time", waits_ten_seconds, go_after(9)),
    Scenario("an event is too late", waits_ten_seconds, go_after(10)),
    Scenario("steps run side by side", fans_out),
    Scenario("an undo fails for a while", waits_in_a_saga, cancel, refund_is_out),
    Scenario("a cancelled run is retried", waits_in_a_saga, cancel_and_retry),
    Scenario("a run is forked", waits_in_a_saga, fork_and_go_on),
    Scenario("a run is terminated", waits_in_a_saga, terminate),
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.name for scenario in SCENARIOS])
def test_it_ends_the_same_whatever_crashes(lab: Lab, scenario: Scenario) -> None:
    _, ran, script, setup = scenario

    lab.crash_at_every_entry(ran, "A1", script=script, setup=setup)
    lab.crash_at_random(ran, "A1", script=script, setup=setup, times=25, crashes=3)
