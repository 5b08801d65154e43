"""What was done inside a saga is undone in reverse order when it fails or is cancelled: each once, to the end."""

import asyncio
from typing import Any

import pytest

from dalsegno import (
    Event,
    Limits,
    OutcomeUnknown,
    ProcessCancelled,
    Refused,
    Retry,
    process,
    saga,
    step,
    step_key,
    wait_for,
)
from dalsegno.kernel import entries


class Go(Event):
    pass


class Company:
    """Steps whose effects and undos are written down in the order in which they took place."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.keys: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}

        @step(retry=None)
        async def reserve(name: str) -> str:
            if name in self.gates:
                await self.gates[name].wait()
            self.done.append(f"+{name}")
            return f"hold {name}"

        @reserve.undo
        async def release(name: str, hold: str | None) -> None:
            assert hold == f"hold {name}"
            self.done.append(f"-{name}")
            self.keys.append(step_key())

        @step(retry=None)
        async def fail(message: str = "no") -> None:
            raise ValueError(message)

        @fail.undo
        async def unfail(message: str = "no", result: None = None) -> None:
            self.done.append("-fail")

        @step(retry=None)
        async def vanish(name: str) -> None:
            self.done.append(f"?{name}")
            raise OutcomeUnknown("the line is dead")

        self.reserve, self.fail, self.vanish = reserve, fail, vanish


@pytest.fixture
def company() -> Company:
    return Company()


async def status_is(run: Any, status: str) -> bool:
    return await run.status() == status


# -- order ---------------------------------------------------------------------------------------------


async def test_steps_are_undone_in_reverse_order(open_app, company):
    @process
    async def order() -> None:
        async with saga():
            for name in ("a", "b", "c"):
                await company.reserve(name)
            await company.fail()

    async with open_app() as app:
        with pytest.raises(ValueError, match="no"):
            await (await app.start(order, id="one")).result()
    assert company.done == ["+a", "+b", "+c", "-c", "-b", "-a"]
    assert company.keys == ["default/one/undo:reserve#3", "default/one/undo:reserve#2", "default/one/undo:reserve"]


async def test_a_saga_that_succeeds_undoes_nothing(open_app, company):
    @process
    async def order() -> str:
        async with saga():
            return await company.reserve("a")

    async with open_app() as app:
        assert await (await app.start(order)).result() == "hold a"
    assert company.done == ["+a"]


async def test_a_step_that_failed_is_not_undone(open_app, company):
    @process
    async def order() -> None:
        async with saga():
            await company.reserve("a")
            await company.fail()

    async with open_app() as app:
        with pytest.raises(ValueError, match="no"):
            await (await app.start(order)).result()
    assert "-fail" not in company.done


async def test_steps_outside_the_saga_stay_done(open_app, company):
    @process
    async def order() -> None:
        await company.reserve("before")
        try:
            async with saga():
                await company.reserve("in")
                raise KeyError("own error")
        except KeyError:
            pass
        await company.reserve("after")
        raise RuntimeError("later")

    async with open_app() as app:
        with pytest.raises(RuntimeError):
            await (await app.start(order)).result()
    assert company.done == ["+before", "+in", "-in", "+after"]


async def test_an_undo_may_be_a_def_function_and_its_result_does_not_matter(open_app):
    done: list[Any] = []

    @step
    async def reserve(n: int, *, urgent: bool = False) -> int:
        return n * 10

    @reserve.undo
    def release(n: int, held: int, *, urgent: bool = False) -> int:
        done.append((n, held, urgent))
        return object()  # type: ignore[return-value]

    @process
    async def order() -> None:
        async with saga():
            await reserve(1, urgent=True)
            await reserve(2)
            raise ValueError("no")

    async with open_app() as app:
        with pytest.raises(ValueError, match="no"):
            await (await app.start(order)).result()
    assert done == [(2, 20, False), (1, 10, True)]


async def test_a_step_with_other_options_keeps_its_undo(open_app, company):
    @process
    async def order() -> None:
        async with saga():
            await company.reserve.using(timeout="10s", name="reserve_quickly")("a")
            raise ValueError("no")

    async with open_app() as app:
        with pytest.raises(ValueError, match="no"):
            await (await app.start(order)).result()
    assert company.done == ["+a", "-a"]


async def test_undo_arguments_may_be_larger_than_a_payload(open_app):
    undone = []

    @step
    async def store(text: str) -> str:
        return text

    @store.undo
    async def remove(text: str, stored: str) -> None:
        undone.append(len(text) + len(stored))

    @process
    async def order() -> None:
        async with saga():
            await store("x" * 700)
            raise ValueError("no")

    async with open_app(limits=Limits(payload_bytes=1000)) as app:
        with pytest.raises(ValueError, match="no"):
            await (await app.start(order)).result()
    assert undone == [1400]


# -- nested sagas --------------------------------------------------------------------------------------


async def test_an_inner_saga_that_succeeded_is_undone_with_the_outer_one(open_app, company):
    @process
    async def order() -> None:
        async with saga():
            await company.reserve("a")
            async with saga():
                await company.reserve("b")
                async with saga():
                    await company.reserve("c")
            await company.reserve("d")
            await company.fail()

    async with open_app() as app:
        with pytest.raises(ValueError, match="no"):
            await (await app.start(order)).result()
    assert company.done == ["+a", "+b", "+c", "+d", "-d", "-c", "-b", "-a"]


async def test_an_inner_saga_that_fails_is_undone_alone_if_its_error_is_met(open_app, company):
    @process
    async def order() -> str:
        async with saga():
            await company.reserve("a")
            try:
                async with saga():
                    await company.reserve("b")
                    await company.fail()
            except ValueError:
                await company.reserve("c")
        return "done"

    async with open_app() as app:
        assert await (await app.start(order)).result() == "done"
    assert company.done == ["+a", "+b", "-b", "+c"]


async def test_an_inner_saga_that_fails_is_undone_once(open_app, company):
    @process
    async def order() -> None:
        async with saga():
            await company.reserve("a")
            async with saga():
                await company.reserve("b")
                await company.fail()

    async with open_app() as app:
        with pytest.raises(ValueError, match="no"):
            await (await app.start(order)).result()
    assert company.done == ["+a", "+b", "-b", "-a"]


# -- side by side --------------------------------------------------------------------------------------


async def test_of_a_gather_that_fails_everything_that_was_done_is_undone(open_app, company, until):
    company.gates["slow"] = asyncio.Event()

    @process
    async def order() -> None:
        async with saga():
            await asyncio.gather(company.reserve("a"), company.reserve("b"), fails_later())

    async def fails_later() -> None:
        await company.reserve("c")
        await company.fail()

    async with open_app() as app:
        with pytest.raises(ValueError, match="no"):
            await (await app.start(order)).result()
    assert sorted(company.done[:3]) == ["+a", "+b", "+c"]
    assert sorted(company.done[3:]) == ["-a", "-b", "-c"]


async def test_a_step_still_running_is_stopped_before_the_rest_is_undone(open_app, company, until):
    stopped = []

    @step
    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.append(len(company.done))

    @slow.undo(even_if_unknown=True)
    async def unslow(result: None) -> None:
        company.done.append("-slow")

    @process
    async def order() -> None:
        async with saga():
            await company.reserve("a")
            await asyncio.gather(slow(), company.fail())

    async with open_app() as app:
        with pytest.raises(ValueError, match="no"):
            await (await app.start(order)).result()
    # Nobody knows how far it came: its undo says that it can cope with that.
    assert company.done == ["+a", "-slow", "-a"]
    assert stopped == [1]


async def test_a_thread_that_cannot_be_stopped_is_waited_for_and_undone(open_app, company, until):
    import threading

    begun, release = threading.Event(), threading.Event()

    @step
    def slow() -> str:
        begun.set()
        release.wait(10)
        company.done.append("+thread")
        return "held"

    @slow.undo
    def unslow(result: str) -> None:
        company.done.append(f"-thread {result}")

    @process
    async def order() -> None:
        async with saga():
            await asyncio.gather(slow(), fails_after(begun))

    async def fails_after(_: Any) -> None:
        await wait_for(Go)
        raise ValueError("no")

    async with open_app() as app:
        run = await app.start(order)
        await until(begun.is_set)
        await app.publish(Go())
        release.set()
        with pytest.raises(ValueError, match="no"):
            await run.result()
    assert company.done == ["+thread", "-thread held"]


async def test_branches_that_go_on_after_the_failure_may_not_call_steps_in_the_saga(open_app, company, until):
    refused = []

    async def goes_on() -> None:
        await wait_for(Go)
        try:
            await company.reserve("late")
        except Refused as error:
            refused.append(str(error))
            raise

    @process
    async def order() -> None:
        branch = None
        try:
            async with saga():
                await company.reserve("a")
                branch = asyncio.create_task(goes_on())
                await company.fail()
        except ValueError:
            pass
        await asyncio.wait([branch])

    async with open_app() as app:
        run = await app.start(order, id="one")
        await until(lambda: "-a" in company.done)
        await app.publish(Go(), to="one")
        await run.result()
    assert company.done == ["+a", "-a"]
    assert refused[:1] == ["instance 'one' (order): step 'reserve' called in a saga that is being undone"]


async def test_a_branch_that_goes_on_after_the_sagas_end_belongs_to_the_saga_around_it(open_app, company):
    async def goes_on() -> None:
        await wait_for(Go)
        await company.reserve("late")

    @process
    async def order() -> None:
        async with saga():
            async with saga():
                await company.reserve("a")
                branch = asyncio.create_task(goes_on())
            await branch
            await company.fail()

    async with open_app() as app:
        run = await app.start(order, id="one")
        await app.publish(Go(), to="one")
        with pytest.raises(ValueError, match="no"):
            await run.result()
    assert company.done == ["+a", "+late", "-late", "-a"]


async def test_an_inner_saga_that_ends_after_the_outer_one_failed_is_undone_too(open_app, company, until):
    company.gates["slow"] = asyncio.Event()

    async def branch() -> None:
        async with saga():
            await company.reserve("inner")
            await wait_for(Go)

    @process
    async def order() -> None:
        branching = None
        try:
            async with saga():
                branching = asyncio.create_task(branch())
                await company.reserve("a")
                await company.fail()
        except ValueError:
            pass
        await asyncio.wait([branching])

    async with open_app() as app:
        run = await app.start(order, id="one")
        await until(lambda: "-a" in company.done and "+inner" in company.done)
        await app.publish(Go(), to="one")
        await run.result()
    assert sorted(company.done) == ["+a", "+inner", "-a", "-inner"]


async def test_both_branches_of_a_gather_are_undone_to_the_end_though_the_process_ends_with_the_first(open_app, until):
    done: list[str] = []
    gate = asyncio.Event()

    @step
    async def reserve(name: str) -> None:
        done.append(f"+{name}")

    @reserve.undo
    async def release(name: str, result: None) -> None:
        if name == "slow":
            await gate.wait()
        done.append(f"-{name}")

    @step(retry=None)
    async def fail() -> None:
        raise ValueError("no")

    async def branch(name: str) -> None:
        async with saga():
            await reserve(name)
            await fail()

    @process
    async def order() -> None:
        await asyncio.gather(branch("slow"), branch("fast"))

    async def fast_is_undone() -> bool:
        return any(getattr(r.entry, "step", "") == "undo:reserve#2" for r in await run.history())

    async with open_app() as app:
        run = await app.start(order)
        await until(fast_is_undone)
        gate.set()
        with pytest.raises(ValueError, match="no"):
            await run.result()
    assert sorted(done) == ["+fast", "+slow", "-fast", "-slow"]


async def test_a_task_left_running_in_a_saga_is_undone_when_the_process_returns(open_app, company):
    async def branch() -> None:
        async with saga():
            await company.reserve("left")
            await asyncio.sleep(86400)

    @process
    async def order() -> str:
        task = asyncio.create_task(branch())
        await company.reserve("a")
        await company.reserve("b")
        del task
        return "done"

    async with open_app() as app:
        assert await (await app.start(order)).result() == "done"
    assert sorted(company.done) == ["+a", "+b", "+left", "-left"]


# -- unknown outcomes ----------------------------------------------------------------------------------


async def test_a_step_of_unknown_outcome_is_left_alone_unless_its_undo_can_cope(open_app, company):
    @company.vanish.undo
    async def unvanish(name: str, result: None) -> None:
        company.done.append(f"-{name}")

    @process
    async def order() -> None:
        async with saga():
            await company.reserve("a")
            await company.vanish("b")

    async with open_app() as app:
        run = await app.start(order)
        with pytest.raises(OutcomeUnknown):
            await run.result()
        (failed,) = [r.entry for r in await run.history() if isinstance(r.entry, entries.StepFailed)]
    assert failed.unknown
    assert company.done == ["+a", "?b", "-a"]


async def test_a_step_of_unknown_outcome_is_undone_where_its_undo_can_cope(open_app, company):
    @company.vanish.undo(even_if_unknown=True)
    async def unvanish(name: str, result: None) -> None:
        company.done.append(f"-{name} {result}")

    @process
    async def order() -> None:
        async with saga():
            await company.reserve("a")
            await company.vanish("b")

    async with open_app() as app:
        with pytest.raises(OutcomeUnknown):
            await (await app.start(order)).result()
    assert company.done == ["+a", "?b", "-b None", "-a"]


async def test_an_earlier_attempt_that_timed_out_leaves_the_outcome_unknown(open_app):
    undone = []

    @step(retry=Retry(attempts=2, first="1ms"))
    async def charge() -> None:
        errors = [TimeoutError("perhaps"), ValueError("surely not")]
        raise errors[len(calls.append(1) or calls) - 1]  # type: ignore[func-returns-value]

    calls: list[int] = []

    @charge.undo(even_if_unknown=True)
    async def refund(result: None) -> None:
        undone.append(result)

    @process
    async def order() -> None:
        async with saga():
            await charge()

    async with open_app() as app:
        with pytest.raises(ValueError, match="surely not"):
            await (await app.start(order)).result()
    assert undone == [None]


# -- cancellation --------------------------------------------------------------------------------------


async def test_a_cancelled_process_undoes_what_it_did(open_app, company, until):
    @process
    async def order() -> None:
        async with saga():
            await company.reserve("a")
            await company.reserve("b")
            await wait_for(Go)

    async with open_app() as app:
        run = await app.start(order)
        await until(lambda: status_is(run, "waiting"))
        await run.cancel("the customer called")
        with pytest.raises(ProcessCancelled):
            await run.result()
        assert await run.status() == "cancelled"
    assert company.done == ["+a", "+b", "-b", "-a"]


async def test_a_time_out_around_a_saga_undoes_it(open_app, company):
    @process
    async def order() -> str:
        try:
            async with asyncio.timeout(0.02), saga():
                await company.reserve("a")
                await wait_for(Go)
        except TimeoutError:
            return "too late"
        return "in time"

    async with open_app() as app:
        assert await (await app.start(order)).result() == "too late"
    assert company.done == ["+a", "-a"]


async def test_a_cancellation_while_undoing_waits_until_that_is_through(open_app, until):
    done: list[str] = []
    gate = asyncio.Event()

    @step
    async def reserve(name: str) -> None:
        done.append(f"+{name}")

    @reserve.undo
    async def release(name: str, result: None) -> None:
        done.append(f"begins -{name}")
        await gate.wait()
        done.append(f"-{name}")

    @process
    async def order() -> None:
        async with saga():
            await reserve("a")
            await reserve("b")
            raise ValueError("no")

    async with open_app() as app:
        run = await app.start(order)
        await until(lambda: "begins -b" in done)
        for _ in range(3):
            await run.cancel()
        gate.set()
        with pytest.raises(ProcessCancelled):
            await run.result()
    assert done == ["+a", "+b", "begins -b", "-b", "begins -a", "-a"]


async def test_a_time_out_while_undoing_waits_until_that_is_through(open_app, until):
    done: list[str] = []

    @step
    async def reserve(name: str) -> None:
        done.append(f"+{name}")

    @reserve.undo
    async def release(name: str, result: None) -> None:
        await asyncio.sleep(0.05)
        done.append(f"-{name}")

    @process
    async def order() -> str:
        try:
            async with asyncio.timeout(0.03), saga():
                await reserve("a")
                await reserve("b")
                raise ValueError("no")
        except TimeoutError:
            return "too late"

    async with open_app() as app:
        assert await (await app.start(order)).result() == "too late"
    assert done == ["+a", "+b", "-b", "-a"]


# -- undos that fail -----------------------------------------------------------------------------------


async def test_an_undo_that_fails_is_tried_again(open_app):
    done: list[str] = []

    @step
    async def reserve(name: str) -> None: ...

    @reserve.undo(retry=Retry(attempts=5, first="1ms"))
    async def release(name: str, result: None) -> None:
        done.append(f"{name} {step_key()}")
        if len(done) < 3:
            raise ConnectionError

    @process
    async def order() -> None:
        async with saga():
            await reserve("a")
            raise ValueError("no")

    async with open_app() as app:
        with pytest.raises(ValueError, match="no"):
            await (await app.start(order, id="one")).result()
    assert done == ["a default/one/undo:reserve"] * 3


@pytest.mark.parametrize("retry", [2, Retry(attempts=2, first="1ms"), Retry(attempts=2, first="1ms", then="park")])
async def test_an_undo_whose_attempts_end_waits_for_an_operator_and_goes_on(open_app, company, until, retry):
    healthy = False
    done: list[str] = []

    @step
    async def reserve(name: str) -> None:
        done.append(f"+{name}")

    @reserve.undo(retry=retry if not isinstance(retry, int) else Retry(attempts=retry, first="1ms"))
    async def release(name: str, result: None) -> None:
        if name == "b" and not healthy:
            raise ConnectionError("down")
        done.append(f"-{name}")

    @process
    async def order() -> None:
        async with saga():
            for name in "abc":
                await reserve(name)
            raise ValueError("no")

    async with open_app() as app:
        run = await app.start(order, id="one")
        await until(lambda: status_is(run, "parked"))
        assert (await run.describe()).error == "step 'undo:reserve#2' failed 2 times, the last time with down"
    assert done == ["+a", "+b", "+c", "-c"]
    healthy = True
    async with open_app() as app:
        run = app.get("one")
        await run.resume()
        with pytest.raises(ValueError, match="no"):
            await run.result()
    assert done == ["+a", "+b", "+c", "-c", "-b", "-a"]


async def test_undos_are_tried_twenty_times_by_default():
    @step
    async def reserve() -> None: ...

    @reserve.undo
    async def release(result: None) -> None: ...

    assert reserve.spec.undo.retry.attempts == 20
    assert reserve.spec.undo.retry.then == "park"


# -- restarts ------------------------------------------------------------------------------------------


async def test_undoing_goes_on_after_a_restart_and_undoes_nothing_twice(open_app, until):
    done: list[str] = []
    down = True

    @step
    async def reserve(name: str) -> str:
        return f"hold {name}"

    @reserve.undo(retry=Retry(attempts=None, first="20ms", factor=1))
    async def release(name: str, hold: str) -> None:
        if down and name == "b":
            done.append("down")
            raise ConnectionError
        assert hold == f"hold {name}"
        done.append(f"-{name}")

    @process
    async def order() -> None:
        async with saga():
            for name in "abc":
                await reserve(name)
            raise ValueError("no")

    async with open_app() as app:
        run = await app.start(order, id="one")
        await until(lambda: "down" in done)
    async with open_app() as app:
        await until(lambda: done.count("down") > 1)
        await app.get("one").cancel()
    down = False
    async with open_app() as app:
        run = app.get("one")
        # The error came first; the cancellation arrived while it was being undone.
        with pytest.raises(ProcessCancelled):
            await run.result()
    assert [entry for entry in done if entry != "down"] == ["-c", "-b", "-a"]


async def test_an_instance_inside_a_saga_can_be_cancelled_after_a_restart(open_app, company, until):
    @process
    async def order() -> None:
        async with saga():
            await company.reserve("a")
            async with saga():
                await company.reserve("b")
            await wait_for(Go)

    async with open_app() as app:
        run = await app.start(order, id="one")
        await until(lambda: status_is(run, "waiting"))
    async with open_app() as app:
        run = app.get("one")
        await run.cancel()
        with pytest.raises(ProcessCancelled):
            await run.result()
    assert company.done == ["+a", "+b", "-b", "-a"]
