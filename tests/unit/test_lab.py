"""The lab: time, runs, people, events, and what it says when something is wrong."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from dalsegno import (
    Event,
    LimitExceeded,
    Limits,
    ProcessCancelled,
    Refused,
    StartConflict,
    UsageError,
    annotate,
    ask,
    continue_as_new,
    now,
    on,
    process,
    publish,
    saga,
    start,
    step,
    transaction,
    wait_for,
)
from dalsegno.testing import Lab, Stuck

DAY = 86400


class Paid(Event, key="order_id"):
    order_id: str
    amount: int = 0


class Raise(Event, reply=int):
    by: int


@step
async def greet(name: str) -> str:
    return f"hello {name}"


@process
async def greeting(name: str) -> str:
    return await greet(name)


@process
async def sleeper(days: float) -> str:
    await asyncio.sleep(days * DAY)
    return now().isoformat()


@process
async def payer(order_id: str) -> int:
    async with asyncio.timeout(3 * DAY):
        paid = await wait_for(Paid, order_id=order_id)
    return paid.amount


@process
async def asker(limit: int) -> bool:
    await asyncio.sleep(60)
    return await ask("finance", bool, about=limit)


@process
async def counter(total: int) -> int:
    @on(Raise)
    async def more(request: Raise) -> int:
        nonlocal total
        await asyncio.sleep(5)
        total += request.by
        return total

    await wait_for(Paid)
    return total


def test_a_process_runs_to_its_end(lab: Lab) -> None:
    assert lab.run(greeting, "Ada") == "hello Ada"


def test_thirty_days_of_sleep_take_no_time(lab: Lab) -> None:
    begun = time.perf_counter()

    assert lab.run(sleeper, 30) == "2026-01-31T00:00:00+00:00"
    assert lab.now == datetime(2026, 1, 31, tzinfo=UTC)
    assert time.perf_counter() - begun < 1


def test_time_stands_still_unless_somebody_lets_it_pass(lab: Lab) -> None:
    run = lab.start(sleeper, 2)

    assert (run.status, lab.now.day) == ("waiting", 1)
    lab.advance("1d23h")
    assert run.status == "waiting"
    lab.advance("1h")
    assert run.status == "completed"
    assert lab.now == datetime(2026, 1, 3, tzinfo=UTC)


def test_what_is_due_happens_at_its_time(lab: Lab) -> None:
    runs = [lab.start(sleeper, days) for days in (3, 1, 2)]
    lab.advance("10d")

    assert [run.result() for run in runs] == [f"2026-01-0{day}T00:00:00+00:00" for day in (4, 2, 3)]


def test_until_idle_ends_where_only_people_and_events_are_left(lab: Lab) -> None:
    asked = lab.start(asker, 5)
    lab.start(sleeper, 9)
    lab.until_idle()

    assert asked.waiting_for == "answer from finance"
    assert lab.now == datetime(2026, 1, 10, tzinfo=UTC)


def test_a_lab_that_is_idle_lets_no_time_pass(lab: Lab) -> None:
    lab.run(greeting, "Ada")
    lab.until_idle()

    assert lab.now == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_process_without_end_is_named() -> None:
    @process
    async def endless() -> None:
        for _ in itertools.count():
            await asyncio.sleep(DAY)

    with Lab() as lab:
        lab.start(endless, id="forever")
        with pytest.raises(Stuck, match="forever"):
            lab.until_idle(within="30d")


def test_a_run_that_cant_end_says_what_it_waits_for(lab: Lab) -> None:
    @process
    async def waits() -> None:
        await wait_for(Paid, order_id="7")

    run = lab.start(waits)

    with pytest.raises(Stuck, match=r"waiting for event Paid\(order_id='7'\)"):
        run.result()
    with pytest.raises(Stuck, match="'finance' isn't asked anything"):
        lab.answer("finance", True)


def test_an_event_may_come_before_or_after_its_wait(lab: Lab) -> None:
    late = lab.start(payer, "1")
    lab.publish(Paid(order_id="1", amount=5))
    late.result()

    assert late.result() == 5
    assert lab.start(payer, "2").status == "waiting"


def test_the_same_event_id_twice_is_one_event(lab: Lab) -> None:
    @process
    async def two() -> list[int]:
        return [(await wait_for(Paid)).amount, (await wait_for(Paid)).amount]

    run = lab.start(two)
    for amount in (1, 1, 2):
        lab.publish(Paid(order_id="x", amount=amount), id=f"payment-{amount}")

    assert run.result() == [1, 2]


def test_an_event_can_be_addressed_to_one_run(lab: Lab) -> None:
    one, two = lab.start(payer, "1"), lab.start(payer, "1", id="other")
    two.publish(Paid(order_id="1", amount=5))

    assert two.result() == 5
    assert one.status == "waiting"


def test_time_jumps_until_somebody_is_asked(lab: Lab) -> None:
    run = lab.start(asker, 5)
    assert lab.tasks() == []

    lab.answer("finance", True, by="maria")

    assert run.result() is True
    [task] = lab.tasks(state="answered")
    assert (task.about, task.answered_by) == (5, "maria")


def test_a_task_can_be_answered_by_its_id_and_only_once(lab: Lab) -> None:
    lab.start(asker, 5, id="order-1")
    lab.until_idle()
    lab.answer("order-1/finance", False)

    with pytest.raises(Stuck):
        lab.answer("order-1/finance", False)


def test_an_update_is_answered_although_that_takes_time(lab: Lab) -> None:
    run = lab.start(counter, 10)

    assert run.update(Raise(by=5)) == 15
    assert run.update(Raise(by=1)) == 16
    lab.publish(Paid(order_id="x"))
    assert run.result() == 16
    with pytest.raises(Refused):
        run.update(Raise(by=1))


def test_a_run_can_be_cancelled_paused_and_resumed(lab: Lab) -> None:
    cancelled, paused = lab.start(payer, "1"), lab.start(payer, "2")
    cancelled.cancel("no more")
    paused.pause()
    lab.advance("5d")

    with pytest.raises(ProcessCancelled):
        cancelled.result()
    assert paused.status == "paused"
    paused.resume()
    assert isinstance(paused.error, TimeoutError)
    with pytest.raises(Refused):
        paused.cancel()


def test_a_failed_run_is_retried_and_forked(lab: Lab) -> None:
    lab.double(greet).raises(ValueError("no"), times=5).returns("hello")
    run = lab.start(greeting, "Ada", id="greeting")
    with pytest.raises(ValueError, match="no"):
        run.result()

    run.retry()
    fork = run.fork(step="greet")

    assert run.result() == fork.result() == "hello"
    assert len(lab.calls(greet)) == 7


def test_annotations_children_and_events_of_a_process_are_seen(lab: Lab) -> None:
    @process
    async def parent(name: str) -> str:
        annotate(stage="greeting")
        child = await start(greeting, name)
        await publish(Paid(order_id="p"))
        return await child.result()

    payment = lab.start(payer, "p")
    run = lab.start(parent, "Ada")

    assert run.annotations == {"stage": "greeting"}
    assert run.result() == "hello Ada"
    assert lab.get(f"{run.id}/greeting").status == "completed"
    assert payment.result() == 0


def test_starting_is_idempotent_by_id(lab: Lab) -> None:
    run = lab.start(greeting, "Ada", id="g")

    assert lab.start(greeting, "Ada", id="g").result() == run.result()
    with pytest.raises(StartConflict):
        lab.start(greeting, "Bob", id="g")
    assert len(lab.calls(greet)) == 1


def test_a_run_that_continues_as_new_shows_all_its_runs(lab: Lab) -> None:
    @process
    async def rounds(left: int) -> str:
        await greet(str(left))
        if left:
            continue_as_new(left - 1)
        return "over"

    run = lab.start(rounds, 2)

    assert run.result() == "over"
    assert run.journal.kinds.count("started") == 3
    assert [len(records) for records in run.journal.runs()] == [3, 3, 3]
    lab.replay(run.journal, rounds)


def test_steps_in_threads_and_processes_run_without_either(lab: Lab) -> None:
    @step
    def where() -> str:
        return threading.current_thread().name

    @step(executor="process")
    def there() -> str:
        return threading.current_thread().name

    @step(executor="inline")
    def here() -> str:
        return threading.current_thread().name

    @step
    def loop_of_its_own() -> str:
        return asyncio.run(greet("Ada"))

    @process
    async def wherever() -> list[str]:
        return [await where(), await there(), await here(), await loop_of_its_own()]

    main = threading.current_thread().name
    assert lab.run(wherever) == [main, main, main, "hello Ada"]


def test_async_steps_may_use_threads_and_timeouts_of_the_standard_library(lab: Lab) -> None:
    @step
    async def busy() -> list[Any]:
        async with asyncio.timeout(60):
            await asyncio.sleep(30)
        return [await asyncio.to_thread(sum, [1, 2]), await asyncio.gather(greet("a"), greet("b"))]

    @process
    async def runs_busy() -> list[Any]:
        return await busy()

    assert lab.run(runs_busy) == [3, ["hello a", "hello b"]]


def test_a_step_that_reaches_for_the_network_is_told_to_be_doubled(lab: Lab) -> None:
    @step(retry=None)
    async def fetch() -> None:
        await asyncio.open_connection("127.0.0.1", 9)

    @process
    async def fetches() -> None:
        await fetch()

    with pytest.raises(UsageError, match=r"lab\.double\(the_step\)"):
        lab.run(fetches)


def test_a_lab_in_async_code_is_refused_with_the_remedy() -> None:
    async def wrong() -> None:
        with Lab() as lab:
            lab.run(greeting, "Ada")

    with pytest.raises(UsageError, match="from a def function"):
        asyncio.run(wrong())


def test_code_that_goes_another_way_on_replay_fails_the_test() -> None:
    dice = random.Random(1)

    @process(lint=False)
    async def gambles() -> str:
        return await greet("Ada" if dice.random() > 0.5 else "Bob")

    lab = Lab()
    for _ in range(10):
        lab.start(gambles)

    with pytest.raises(AssertionError, match="isn't deterministic"):
        lab.close()


def test_assertions_show_what_was_found_and_the_journal(lab: Lab) -> None:
    run = lab.start(greeting, "Ada")

    with pytest.raises(AssertionError) as caught:
        run.assert_steps("greet", "charge")

    text = str(caught.value)
    assert "expected: greet, charge" in text
    assert "found:    greet" in text
    assert "step_completed" in text
    assert "hello Ada" in text


def test_undone_steps_are_told_in_order(lab: Lab) -> None:
    @step
    async def one() -> None: ...

    @one.undo
    async def not_one(result: None) -> None: ...

    @step
    async def two() -> None: ...

    @two.undo
    async def not_two(result: None) -> None: ...

    @process
    async def fails() -> None:
        async with saga():
            await one()
            await two()
            raise ValueError("all in vain")

    run = lab.start(fails)

    run.assert_status("failed")
    run.assert_steps(one, two)
    run.assert_undone(two, one)


def test_transaction_steps_see_the_labs_database(lab: Lab) -> None:
    lab.database.execute("CREATE TABLE bookings (amount INTEGER)")

    @transaction(retry=2)
    def book(tx: Any, amount: int) -> int:
        tx.execute("INSERT INTO bookings VALUES (?)", (amount,))
        if amount < 0:
            raise ValueError("negative")
        return amount

    @process
    async def books(amount: int) -> int:
        return await book(amount)

    assert lab.run(books, 5) == 5
    with pytest.raises(ValueError, match="negative"):
        lab.run(books, -5)
    assert lab.database.execute("SELECT amount FROM bookings").fetchall() == [(5,)]
    assert [call.args for call in lab.calls(book)] == [(5,), (-5,), (-5,)]


def test_the_same_seed_gives_the_same_journal_and_another_one_another() -> None:
    def journal(seed: int) -> str:
        with Lab(seed=seed) as lab:
            lab.double(greet).raises(ConnectionError, times=4).returns("hello")
            runs = [lab.start(greeting, name) for name in ("Ada", "Bob")]
            lab.publish(Paid(order_id="x"))
            lab.until_idle()
            return "\n".join(str(run.journal) for run in runs)

    assert journal(1) == journal(1)
    assert journal(1) != journal(2)


def test_two_labs_live_side_by_side() -> None:
    with Lab() as one, Lab(start="2030-06-01") as two:
        first, second = one.start(payer, "1"), two.start(payer, "1")
        two.publish(Paid(order_id="1", amount=2))
        one.crash()

        assert second.result() == 2
        assert first.status == "waiting"
        assert two.now == datetime(2030, 6, 1, tzinfo=UTC)


def test_limits_are_the_users() -> None:
    with Lab(limits=Limits(payload_bytes=20)) as small, pytest.raises(LimitExceeded):
        small.run(greeting, "Ada" * 20)


def test_the_app_of_a_lab_is_a_real_one(lab: Lab) -> None:
    lab.run(greeting, "Ada")

    assert lab.wait(lambda: lab.app.counts(), "no answer") == {"completed": 1}
