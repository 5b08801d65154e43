"""Crashes in the lab: what survives, and what the witness saw."""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import Any

import pytest

from dalsegno import Event, Retry, ask, now, on, process, random, saga, start, step, transaction, uuid, wait_for
from dalsegno.kernel import points
from dalsegno.testing import Lab, LabRun
from dalsegno.testing.life import Crash


class Go(Event):
    number: int = 0


class Add(Event, reply=int):
    number: int


@step(retry=Retry(attempts=3, first="1s"))
async def reserve(order: str) -> str:
    return f"hold for {order}"


@reserve.undo(even_if_unknown=True)
async def release(order: str, hold: str | None) -> None: ...


@step
def charge(order: str) -> str:
    return f"charge for {order}"


@charge.undo(even_if_unknown=True)
def refund(order: str, charge: str | None) -> None: ...


@process
async def two_steps(order: str) -> list[str]:
    return [await reserve(order), await charge(order)]


@process
async def undone(order: str) -> None:
    async with saga():
        await reserve(order)
        await charge(order)
        raise ValueError("all in vain")


@process
async def everything(order: str) -> list[Any]:
    total = 0

    @on(Add)
    async def add(request: Add) -> int:
        nonlocal total
        await asyncio.sleep(1)
        total += request.number
        return total

    found: list[Any] = [now().isoformat(), uuid().hex, random().random()]
    child = await start(two_steps, order)
    found += await asyncio.gather(reserve(order), charge(order))
    await asyncio.sleep(3600)
    found.append(await ask("finance", int, about=order))
    found.append((await wait_for(Go)).number)
    return [*found, total, await child.result()]


def test_a_crash_forgets_memory_and_keeps_the_journal(lab: Lab) -> None:
    run = lab.start(everything, "A1")
    before = str(run.journal)
    lab.crash()

    assert str(run.journal) == before
    assert len(lab.calls(charge)) == 2
    lab.answer("finance", 5)
    lab.publish(Go(number=6))
    assert run.result()[5:7] == [5, 6]
    assert len(lab.calls(charge)) == 2


def test_time_passes_while_no_node_is_up(lab: Lab) -> None:
    run = lab.start(everything, "A1")
    lab.crash(down="2h")

    assert lab.now.hour == 2
    assert run.waiting_for == "answer from finance"


def test_code_of_a_dead_node_never_goes_on(lab: Lab) -> None:
    went_on: list[str] = []

    @step
    async def slow() -> str:
        try:
            await asyncio.sleep(60)
        finally:
            went_on.append("the step")
        return "done"

    @process
    async def waits_for_slow() -> str:
        try:
            return await slow()
        finally:
            went_on.append("the process")

    run = lab.start(waits_for_slow)
    lab.crash()
    lab.advance("30s")
    assert went_on == []
    assert run.result() == "done"
    # The process is run once more at its end, for the shadow replay.
    assert went_on == ["the step", "the process", "the process"]
    assert [(call.attempt, call.outcome) for call in lab.calls(slow)] == [(1, "running"), (1, "returned")]


def test_every_crash_of_two_steps_ends_the_same(lab: Lab) -> None:
    report = lab.crash_at_every_entry(two_steps, "A1")

    assert report.points > 30
    assert "crash points in" in str(report)


def test_a_process_of_everything_survives_every_crash(lab: Lab) -> None:
    def script(lab: Lab, run: LabRun[Any]) -> None:
        assert run.update(Add(number=7)) == 7
        lab.answer("finance", 5)
        lab.publish(Go(number=6))

    report = lab.crash_at_every_entry(everything, "A1", script=script)
    assert report.points > 100


def test_a_saga_is_undone_whatever_crashes(lab: Lab) -> None:
    held: set[str] = set()

    def setup(lab: Lab) -> None:
        held.clear()
        lab.double(reserve).loses_answer(times=1).calls(lambda order: held.add(order) or "hold")
        lab.double(release).calls(lambda order, hold: held.discard(order))

    def nothing_held(run: LabRun[Any], lab: Lab) -> None:
        assert isinstance(run.error, ValueError)
        assert held == set()
        run.assert_undone(charge, reserve)

    lab.crash_at_every_entry(undone, "A1", setup=setup, check=nothing_held)


def test_several_crashes_at_random_are_survived_too(lab: Lab) -> None:
    report = lab.crash_at_random(undone, "A1", times=30, crashes=4)

    assert report.points == 120


def test_a_cancelled_run_is_cancelled_whatever_crashes(lab: Lab) -> None:
    @process
    async def waits(order: str) -> None:
        async with saga():
            await reserve(order)
            await wait_for(Go)

    def check(run: LabRun[Any], lab: Lab) -> None:
        run.assert_status("cancelled")
        run.assert_undone(reserve)

    lab.crash_at_every_entry(waits, "A1", script=lambda lab, run: run.cancel("no more"), check=check)


def test_transactions_take_effect_exactly_once_whatever_crashes(lab: Lab) -> None:
    @transaction
    def book(tx: Any, amount: int) -> int:
        tx.execute("INSERT INTO bookings VALUES (?)", (amount,))
        return amount

    @process
    async def books() -> int:
        return await book(1) + await book(2)

    def once(run: LabRun[Any], lab: Lab) -> None:
        assert run.result() == 3
        assert lab.database.execute("SELECT amount FROM bookings").fetchall() == [(1,), (2,)]

    def setup(lab: Lab) -> None:
        lab.database.execute("CREATE TABLE bookings (amount INTEGER)")

    lab.crash_at_every_entry(books, setup=setup, check=once)


def test_a_crash_while_a_node_recovers_is_a_crash_and_no_clean_close(lab: Lab) -> None:
    run = lab.start(everything, "A1")
    left = ["recover.before", "recover.before", "recover.loaded"]

    def crash_in_recovery(name: str) -> None:
        if left and name == left[0]:
            del left[0]
            raise Crash(name)

    lab.arm(crash_in_recovery)
    lab.crash()

    assert left == []
    nodes = lab.wait(lambda: lab.app.nodes(), "no answer")
    assert len(nodes) == 5
    assert [node.lease_until for node in nodes[1:]] == [0] * 4
    assert run.status == "waiting"


def test_what_a_node_changes_in_the_interpreter_is_given_back(lab: Lab) -> None:
    before = gc.get_threshold(), sys.getswitchinterval()
    lab.crash_at_every_entry(two_steps, "A1", points=("recover.before", "commit.after"))
    lab.run(two_steps, "A1")
    lab.crash()
    lab.close()

    assert (gc.get_threshold(), sys.getswitchinterval()) == before


def test_the_points_can_be_chosen(lab: Lab) -> None:
    calm = lab.crash_at_every_entry(two_steps, "A1", points=("commit.before", "commit.after"))

    assert calm.points < 20


def test_what_fails_says_at_which_points_and_shows_the_journal(lab: Lab) -> None:
    def never_twice(run: LabRun[Any], lab: Lab) -> None:
        run.result()
        assert len(lab.calls(charge)) == 1, "charged twice"

    with pytest.raises(AssertionError) as caught:
        lab.crash_at_every_entry(two_steps, "A1", check=never_twice)

    text = str(caught.value)
    assert "two_steps doesn't survive" in text
    assert "(effect.after, passed for the 2. time" in text
    assert "charged twice" in text
    assert "step_completed" in "".join(getattr(caught.value.__cause__, "__notes__", []))


def test_a_test_that_is_not_deterministic_is_told_so(lab: Lab) -> None:
    runs: list[int] = []

    def setup(lab: Lab) -> None:
        runs.append(1)
        if len(runs) == 1:
            lab.double(reserve).raises(ConnectionError, times=2)

    with pytest.raises(AssertionError, match="isn't deterministic"):
        lab.crash_at_every_entry(two_steps, "A1", setup=setup, check=lambda run, lab: None)


def test_a_check_that_fails_without_any_crash_fails_as_it_is(lab: Lab) -> None:
    with pytest.raises(ZeroDivisionError):
        lab.crash_at_every_entry(two_steps, "A1", check=lambda run, lab: 1 / 0)


def test_what_others_armed_is_armed_again(lab: Lab) -> None:
    passed: list[str] = []
    points.armed = passed.append
    try:
        lab.crash_at_every_entry(two_steps, "A1", points=("commit.after",))
        assert points.armed == passed.append
    finally:
        points.armed = None
