"""Step doubles and the witness."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from dalsegno import AttemptTimedOut, Retry, UsageError, heartbeat, process, saga, step, step_key, transaction
from dalsegno.testing import Lab


class Hold(msgspec.Struct):
    id: str
    amount: int = 0


QUICK = Retry(attempts=4, first="1s", jitter=0)


@step(retry=QUICK, timeout="10s")
async def hold(order: str) -> Hold:
    return Hold(f"real hold for {order}")


@hold.undo(even_if_unknown=True)
async def release(order: str, hold: Hold | None) -> None:
    return None


@step(retry=QUICK, timeout="10s")
def count(items: list[int], *, twice: bool = False) -> int:
    return sum(items) * (2 if twice else 1)


@process
async def holding(order: str) -> str:
    return (await hold(order)).id


@process
async def counting(items: list[int]) -> int:
    return await count(items, twice=True)


@process
async def failing(order: str) -> None:
    async with saga():
        await hold(order)
        raise ValueError("all in vain")


def test_a_step_without_a_double_runs_its_own_code(lab: Lab) -> None:
    assert lab.run(holding, "A1") == "real hold for A1"


@pytest.mark.parametrize("value", [Hold("h1"), {"id": "h1"}])
def test_a_returned_value_goes_through_json_like_a_real_one(lab: Lab, value: Any) -> None:
    lab.double(hold).returns(value)

    assert lab.run(holding, "A1") == "h1"


def test_a_double_raises_so_many_times_and_the_engine_tries_again(lab: Lab) -> None:
    lab.double(hold).raises(ConnectionError("down"), times=2)

    assert lab.run(holding, "A1") == "real hold for A1"
    assert [call.attempt for call in lab.calls(hold)] == [1, 2, 3]
    assert [str(call.error) for call in lab.calls(hold)] == ["down", "down", "None"]
    assert [call.at.second for call in lab.calls(hold)] == [0, 1, 3]


def test_an_outage_lasts_so_long(lab: Lab) -> None:
    lab.double(hold).raises(ConnectionError, during="2500ms").returns(Hold("h1"))

    assert lab.run(holding, "A1") == "h1"
    assert [call.at.second for call in lab.calls(hold)] == [0, 1, 3]


def test_a_sequence_gives_one_outcome_a_call_and_the_last_one_from_then_on(lab: Lab) -> None:
    lab.double(hold).sequence([TimeoutError, Hold("one"), Hold("two")])

    assert [lab.run(holding, "A1") for _ in range(3)] == ["one", "two", "two"]


def test_a_function_is_called_with_the_steps_arguments(lab: Lab) -> None:
    async def plays(order: str) -> Hold:
        await asyncio.sleep(5)
        return Hold(f"{step_key()} for {order}")

    lab.double(hold).calls(plays)
    lab.double(count).calls(lambda items, twice: len(items) + twice)

    assert lab.run(holding, "A1", id="o") == "default/o/hold for A1"
    assert lab.run(counting, [4, 5]) == 3


@pytest.mark.parametrize("doubled", [holding, counting])
def test_a_delay_passes_in_virtual_time(lab: Lab, doubled: Any) -> None:
    lab.double(hold).delays("9s")
    lab.double(count).delays("9s")
    lab.run(doubled, [1] if doubled is counting else "A1")

    assert lab.now.second == 9


@pytest.mark.parametrize("doubled", [holding, counting])
def test_a_delay_beyond_the_time_out_is_a_time_out(lab: Lab, doubled: Any) -> None:
    lab.double(hold).delays("11s")
    lab.double(count).delays("11s")

    with pytest.raises(AttemptTimedOut):
        lab.run(doubled, [1] if doubled is counting else "A1")
    assert len(lab.calls()) == 4 if doubled is holding else 3


def test_a_def_step_that_timed_out_takes_effect_all_the_same(lab: Lab) -> None:
    lab.double(count).delays("11s").calls(lambda items, twice: 0)
    with pytest.raises(AttemptTimedOut):
        lab.run(counting, [1])
    lab.advance("1m")

    assert [call.outcome for call in lab.calls(count)] == ["returned"] * 4


def test_a_lost_answer_leaves_the_outcome_unknown(lab: Lab) -> None:
    held: list[str] = []
    lab.double(hold).loses_answer(times=4).calls(lambda order: held.append(order) or Hold("h1"))
    lab.double(release).calls(lambda order, hold: held.clear())
    run = lab.start(failing, "A1")
    lab.until_idle()

    assert isinstance(run.error, TimeoutError)
    assert held == []
    run.assert_undone(hold)
    assert lab.calls(release)[0].args == ("A1", None)


def test_the_undo_of_a_step_has_a_double_of_its_own(lab: Lab) -> None:
    lab.double(hold).returns(Hold("h1")).undo.raises(ConnectionError, times=1).returns(None)
    run = lab.start(failing, "A1")
    lab.until_idle()

    run.assert_undone(hold)
    assert [call.args for call in lab.calls(release)] == [("A1", Hold("h1"))] * 2
    assert lab.calls(release) == lab.calls("undo:hold")


def test_a_step_can_be_doubled_by_its_name(lab: Lab) -> None:
    lab.double("hold").returns(Hold("by name")).undo.returns(None)

    assert lab.run(holding, "A1") == "by name"
    lab.start(failing, "A1")
    assert [call.step for call in lab.calls()] == ["hold", "hold", "undo:hold"]


def test_a_copy_of_a_step_with_other_options_has_the_same_double(lab: Lab) -> None:
    @process
    async def patient(order: str) -> str:
        return (await hold.using(timeout="1h", retry=1)(order)).id

    lab.double(hold).delays("30m").returns(Hold("h1"))

    assert lab.run(patient, "A1") == "h1"


def test_a_new_double_takes_the_place_of_the_one_before(lab: Lab) -> None:
    lab.double(hold).delays("5s").raises(ConnectionError)
    lab.double(hold).returns(Hold("h2"))

    assert lab.run(holding, "A1") == "h2"
    assert lab.now.second == 0


def test_the_witness_knows_arguments_keys_attempts_and_outcomes(lab: Lab) -> None:
    lab.run(counting, [1, 2], id="c")
    [call] = lab.calls(count)

    assert (call.step, call.operation, call.key) == ("count", "count", "default/c/count")
    assert (call.args, call.kwargs, call.instance) == (([1, 2],), {"twice": True}, "c")
    assert (call.outcome, call.result, call.error) == ("returned", 6, None)


def test_heartbeats_are_kept_in_virtual_time(lab: Lab) -> None:
    seen: list[Any] = []

    @step(heartbeat_timeout="3s", retry=Retry(attempts=2, first="1s", jitter=0))
    async def load() -> str:
        seen.append(heartbeat())
        for row in range(10):
            heartbeat(row)
            await asyncio.sleep(2 if len(seen) == 2 or row < 4 else 60)
        return "loaded"

    @process
    async def loading() -> str:
        return await load()

    assert lab.run(loading) == "loaded"
    assert seen[0] is None
    assert seen[1] in (3, 4)


def test_what_cant_be_doubled_says_why(lab: Lab) -> None:
    @step(executor="inline")
    def tiny() -> int:
        return 1

    @transaction
    def book(tx: Any) -> int:
        return 1

    @process
    async def runs_tiny() -> int:
        return await tiny()

    @process
    async def runs_book() -> int:
        return await book()

    async def wrong() -> int:
        return 1

    with pytest.raises(UsageError, match="isn't a step"):
        lab.double(5)
    with pytest.raises(UsageError, match="can't be async"):
        lab.double(tiny).calls(wrong)
    with pytest.raises(UsageError, match="no undo"):
        lab.double(tiny).undo.returns(1)
    with pytest.raises(UsageError, match="at least one outcome"):
        lab.double(tiny).sequence([])
    for target, runs in ((tiny, runs_tiny), (book, runs_book)):
        lab.double(target).delays("1s")
        with pytest.raises(UsageError, match="can't have delays"):
            lab.run(runs)
