"""Steps on queues: run by workers, journaled by the node as if it had run them itself."""

import asyncio
import os
import threading
from typing import Any

import pytest

from dalsegno import (
    AttemptTimedOut,
    DefinitionError,
    LimitExceeded,
    Limits,
    OutcomeUnknown,
    Queue,
    Retry,
    StepFailed,
    UsageError,
    WorkerLost,
    continue_as_new,
    heartbeat,
    process,
    saga,
    step,
    step_key,
    transaction,
)
from dalsegno.errors import StoreIO
from dalsegno.kernel import entries as e
from dalsegno.stores.sqlite.store import SqliteStore
from dalsegno.testing import Lab

QUICK = Retry(attempts=3, first="1ms", jitter=0)
#: leases of workers that lose them, and a node that looks often for what they lost
HASTY = Limits(lease_seconds=0.3, poll_seconds=0.02)


@step(queue="cpu", executor="process")
def where_it_runs(n: int) -> tuple[int, int]:
    return os.getpid(), n


@step
def by_name() -> str:
    return "the one at the top"


async def test_a_step_on_a_queue_waits_for_a_worker_and_comes_back_as_its_type(open_app, until):
    @step(queue="gpu")
    async def render(frame: int, *, sizes: list[int]) -> dict[int, list[int]]:
        return {frame: sizes}

    @process
    async def film(n: int) -> dict[int, list[int]]:
        return await render(n, sizes=[1, 2])

    async with open_app() as app:
        run = await app.start(film, 7)
        await until(lambda: app.queues())
        assert await run.status() == "waiting"
        assert (await run.describe()).waiting_for == "step render on queue gpu"
        [depth] = await app.queues()
        assert (depth.name, depth.ready, depth.running) == ("gpu", 1, 0)
        async with app.worker("gpu", name="box-1"):
            assert await run.result() == {7: [1, 2]}
        assert await app.queues() == []
        [completed] = [r.entry for r in await run.history() if isinstance(r.entry, e.StepCompleted)]
        assert (completed.step, completed.attempt, completed.by) == ("render", 1, "box-1")


async def test_the_three_executors_run_in_a_worker_too(open_app):
    @step(queue="cpu")
    def in_a_thread() -> bool:
        return threading.current_thread() is not threading.main_thread()

    @step(queue="cpu")
    async def on_the_loop() -> str:
        return step_key()

    @process
    async def asks() -> list[Any]:
        return [await in_a_thread(), await on_the_loop(), await where_it_runs(3)]

    async with open_app() as app, app.worker("cpu"):
        run = await app.start(asks, id="asks-1")
        threaded, key, (pid, n) = await run.result()
    assert threaded
    assert key == "default/asks-1/on_the_loop"
    assert pid != os.getpid()
    assert n == 3


async def test_a_call_may_choose_its_queue_and_workers_serve_several(open_app):
    @process
    async def asks() -> list[str]:
        return [await by_name.using(queue="left")(), await by_name.using(queue="right", priority=2)()]

    async with open_app() as app, app.worker("left", "right", "never-used"):
        assert await (await app.start(asks)).result() == ["the one at the top"] * 2


async def test_a_failed_attempt_is_tried_again_and_its_error_comes_back_typed(open_app):
    tries: list[str] = []

    @step(queue="gpu", retry=QUICK)
    async def render() -> None:
        tries.append(step_key())
        raise ValueError("no such frame")

    @process
    async def film() -> None:
        await render()

    async with open_app() as app, app.worker("gpu"):
        run = await app.start(film, id="film-1")
        with pytest.raises(ValueError, match="no such frame"):
            await run.result()
        entries = [r.entry for r in await run.history()]
    assert tries == ["default/film-1/render"] * 3
    attempts = [entry for entry in entries if isinstance(entry, e.AttemptFailed)]
    assert [entry.attempt for entry in attempts] == [1, 2]
    assert "raise ValueError" in attempts[0].error.traceback
    [failed] = [entry for entry in entries if isinstance(entry, e.StepFailed)]
    assert (failed.attempt, failed.unknown) == (3, False)


async def test_an_error_that_is_final_is_not_tried_again(open_app):
    tries = []

    @step(queue="gpu", retry=Retry(first="1ms", never_on=(KeyError,)))
    async def render() -> None:
        tries.append(1)
        raise KeyError("frame")

    @process
    async def film() -> None:
        await render()

    async with open_app() as app, app.worker("gpu"):
        with pytest.raises(KeyError):
            await (await app.start(film)).result()
    assert tries == [1]


async def test_a_step_that_is_to_park_its_instance_does_so(open_app, until):
    @step(queue="gpu", retry=Retry(attempts=1, then="park"))
    async def render() -> None:
        raise ValueError("no such frame")

    @process
    async def film() -> None:
        await render()

    async with open_app() as app, app.worker("gpu"):
        run = await app.start(film)
        await until(lambda: _is(run, "parked"))


async def _is(run: Any, status: str) -> bool:
    return await run.status() == status


async def test_a_result_that_cannot_be_kept_is_an_outcome_that_is_unknown(open_app):
    tries = []

    @step(queue="gpu", retry=QUICK)
    async def render() -> str:
        tries.append(1)
        return "x" * 2000

    @process
    async def film() -> None:
        await render()

    async with open_app(limits=Limits(payload_bytes=1000)) as app, app.worker("gpu"):
        run = await app.start(film)
        with pytest.raises(LimitExceeded, match="keep the data elsewhere"):
            await run.result()
        [failed] = [r.entry for r in await run.history() if isinstance(r.entry, e.StepFailed)]
    assert failed.unknown
    assert tries == [1]


async def test_an_attempt_that_takes_too_long_is_stopped_and_its_outcome_unknown(open_app, until):
    stopped = []

    @step(queue="gpu", timeout="50ms", retry=None)
    async def render() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            stopped.append(1)

    @process
    async def film() -> None:
        await render()

    async with open_app() as app, app.worker("gpu"):
        run = await app.start(film)
        with pytest.raises(AttemptTimedOut, match=r"didn't end within 0\.05 s"):
            await run.result()
        [failed] = [r.entry for r in await run.history() if isinstance(r.entry, e.StepFailed)]
        assert failed.unknown
    assert stopped == [1]


async def test_an_attempt_whose_heartbeats_stop_is_stopped(open_app, until):
    stopped = []

    @step(queue="gpu", heartbeat_timeout="50ms", retry=None)
    async def render() -> None:
        try:
            for _ in range(3):
                heartbeat()
                await asyncio.sleep(0.01)
            await asyncio.sleep(600)
        finally:
            stopped.append(1)

    @process
    async def film() -> None:
        await render()

    async with open_app() as app, app.worker("gpu"):
        with pytest.raises(AttemptTimedOut, match=r"no heartbeat for 0\.05 s"):
            await (await app.start(film)).result()
        await until(lambda: stopped)


async def test_a_later_attempt_resumes_from_what_an_earlier_one_recorded(open_app, until):
    kept = asyncio.Event()

    @step(queue="gpu", retry=QUICK)
    async def load(rows: int) -> Any:
        seen = heartbeat()
        if seen is None:
            heartbeat({"row": rows})
            await kept.wait()
            raise ConnectionError("half way")
        return seen

    @process
    async def imports() -> Any:
        return await load(7)

    async with open_app(limits=Limits(lease_seconds=0.3)) as app, app.worker("gpu"):
        run = await app.start(imports)
        await until(lambda: _details(app))
        kept.set()
        assert await run.result() == {"row": 7}


async def _details(app: Any) -> bool:
    rows = await app._node.store._reader.call(lambda c: c.execute("SELECT details FROM work").fetchall())
    return bool(rows and rows[0][0])


async def test_a_result_of_another_type_is_told_as_that(open_app):
    @step(queue="gpu")
    async def render() -> int:
        return "seven"  # type: ignore[return-value]

    @process
    async def film() -> None:
        await render()

    async with open_app() as app, app.worker("gpu"):
        with pytest.raises(Exception, match="isn't a int"):
            await (await app.start(film)).result()


async def test_the_same_step_in_the_next_run_of_an_instance_is_another_one(open_app):
    keys = []

    @step(queue="gpu")
    async def count(n: int) -> int:
        keys.append(step_key())
        return n + 1

    @process
    async def counts(n: int) -> int:
        n = await count(n)
        return n if n >= 4 else continue_as_new(n)

    async with open_app() as app, app.worker("gpu"):
        assert await (await app.start(counts, 0, id="c")).result() == 4
    assert len(set(keys)) == len(keys) == 4


# -- stopping ------------------------------------------------------------------------------------------


async def test_a_cancelled_process_stops_its_steps_wherever_they_run_and_undoes_after_that(open_app, until):
    said: list[str] = []

    @step(queue="gpu")
    async def render(n: int) -> None:
        said.append(f"begins {n}")
        try:
            await asyncio.sleep(0 if n == 0 else 600)
        except asyncio.CancelledError:
            said.append(f"stops {n}")
            raise

    @render.undo(even_if_unknown=True)
    async def unrender(n: int, result: None) -> None:
        said.append(f"undoes {n}")

    @process
    async def film() -> None:
        async with saga():
            await render(0)
            await render(1)

    async with open_app() as app, app.worker("gpu"):
        run = await app.start(film)
        await until(lambda: "begins 1" in said)
        await run.cancel("enough")
        await until(lambda: _is(run, "cancelled"))
        assert await app.queues() == []
    assert said == ["begins 0", "begins 1", "stops 1", "undoes 1", "undoes 0"]


async def test_a_step_that_no_worker_has_begun_is_cancelled_without_one(open_app, until):
    @step(queue="gpu")
    async def render() -> None: ...

    @process
    async def film() -> str:
        try:
            async with asyncio.timeout(0.01):
                await render()
        except TimeoutError:
            return "too late"
        return "in time"

    async with open_app() as app:
        run = await app.start(film)
        assert await run.result() == "too late"
        [cancelled] = [r.entry for r in await run.history() if isinstance(r.entry, e.StepCancelled)]
        assert not cancelled.unknown
        assert await app.queues() == []


async def test_a_terminated_instance_leaves_nothing_on_its_queue(open_app, until):
    begun, stopped = asyncio.Event(), asyncio.Event()

    @step(queue="gpu")
    async def render() -> None:
        begun.set()
        try:
            await asyncio.sleep(600)
        finally:
            stopped.set()

    @process
    async def film() -> None:
        await asyncio.gather(render(), render())

    async with open_app() as app, app.worker("gpu", concurrency=1):
        run = await app.start(film)
        await begun.wait()
        await run.terminate()
        await stopped.wait()
        await until(lambda: _is(run, "terminated"))
        assert await app.queues() == []


async def test_what_ends_while_its_instance_is_paused_is_taken_up_when_it_goes_on(open_app, until):
    release, ended = asyncio.Event(), asyncio.Event()

    @step(queue="gpu")
    async def render() -> int:
        await release.wait()
        ended.set()
        return 1

    @process
    async def film() -> int:
        return await render()

    async with open_app() as app, app.worker("gpu") as worker:
        run = await app.start(film)
        await until(lambda: _runs(app))
        await run.pause()
        release.set()
        await ended.wait()
        await until(lambda: worker.ended and not worker._held)
        assert await run.status() == "paused"
        await run.resume()
        assert await run.result() == 1


async def _runs(app: Any) -> bool:
    return any(depth.running for depth in await app.queues())


async def test_an_instance_leaves_memory_while_workers_work_for_it(open_app):
    release = asyncio.Event()

    @step(queue="gpu")
    async def render(n: int) -> int:
        await release.wait()
        return n

    @process
    async def film(n: int) -> int:
        return await render(n) + await render(n)

    async with open_app(limits=Limits(resident_instances=1)) as app, app.worker("gpu", concurrency=20):
        runs = [await app.start(film, n) for n in range(20)]
        assert len(app._node.residents) < 5
        release.set()
        assert [await run.result() for run in runs] == [2 * n for n in range(20)]


# -- losing --------------------------------------------------------------------------------------------


async def test_a_worker_that_loses_its_lease_stops_its_step_and_another_one_does_it(open_app, until):
    said: list[str] = []

    @step(queue="gpu")
    async def render() -> str:
        said.append(step_key())
        if len(said) == 1:
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                said.append("stopped")
                raise
        return "rendered"

    @process
    async def film() -> str:
        return await render()

    async with open_app(limits=HASTY) as app, app.worker("gpu", name="frozen") as frozen:
        run = await app.start(film, id="f")
        await until(lambda: said)
        # It freezes: no sign of life until its lease is over.
        frozen._lease_seconds = 0.0
        await frozen._prove()
        async with app.worker("gpu", name="spare"):
            assert await run.result() == "rendered"
            await frozen._prove()
            await until(lambda: "stopped" in said)
        [completed] = [r.entry for r in await run.history() if isinstance(r.entry, e.StepCompleted)]
    assert completed.by == "spare"
    assert said.count("default/f/render") == 2


async def test_an_error_after_a_lost_worker_leaves_the_outcome_unknown(open_app, until):
    begun = []

    @step(queue="gpu", retry=None)
    async def render() -> None:
        begun.append(1)
        if len(begun) == 1:
            await asyncio.sleep(600)
        raise ValueError("no")

    @process
    async def film() -> None:
        await render()

    async with open_app(limits=HASTY) as app, app.worker("gpu", concurrency=1) as frozen:
        run = await app.start(film)
        await until(lambda: begun)
        frozen._lease_seconds = 0.0
        await frozen._prove()
        async with app.worker("gpu"):
            with pytest.raises(ValueError, match="no"):
                await run.result()
        [failed] = [r.entry for r in await run.history() if isinstance(r.entry, e.StepFailed)]
    assert failed.unknown


async def test_a_step_that_keeps_losing_its_workers_fails_and_names_the_last_one(open_app):
    class Dying(SqliteStore):
        async def claim_work(self, *args: Any, **kwargs: Any) -> Any:
            found = await super().claim_work(*args, **kwargs)
            # The worker dies of it.
            found.work.clear()
            return found

    @step(queue="gpu", retry=Retry(attempts=10, first="1ms"))
    async def render() -> None: ...

    @process
    async def film() -> None:
        await render()

    async with open_app(limits=Limits(crashes_before_parking=3, poll_seconds=0.02)) as app:
        run = await app.start(film, id="f")
        store = Dying(app._node.store.path, "process")
        await store.open(owner=False, name="dying", lease_seconds=0)
        for _ in range(3):
            await store.claim_work("default", "gpu", 1, "dying", 0.0)
        with pytest.raises(
            WorkerLost, match="3 workers of queue 'gpu' ended while they ran it, the last one was 'dying'"
        ):
            await run.result()
        [failed] = [r.entry for r in await run.history() if isinstance(r.entry, e.StepFailed)]
        assert (failed.attempt, failed.unknown) == (1, True)
        await store.close()


async def test_a_last_word_whose_reply_is_lost_is_said_again_and_counts_once(open_app, monkeypatch):
    lost = []

    class Lossy(SqliteStore):
        async def complete_work(self, *args: Any) -> Any:
            found = await super().complete_work(*args)
            if len(lost) < 2:
                lost.append(1)
                raise StoreIO("the reply was lost")
            return found

    done = []

    @step(queue="gpu")
    async def render(n: int) -> int:
        done.append(n)
        return n

    @process
    async def film() -> list[int]:
        return [await render(1), await render(2)]

    async with open_app() as app:
        monkeypatch.setattr(app._node.store, "beside", lambda: Lossy(app._node.store.path, "process"))
        async with app.worker("gpu"):
            run = await app.start(film)
            assert await run.result() == [1, 2]
            assert len(await run.history()) == 4
    assert done == [1, 2]
    assert len(lost) == 2


async def test_a_worker_that_is_closed_lets_its_steps_end_and_gives_back_what_takes_too_long(open_app, until):
    begun, release = [], asyncio.Event()

    @step(queue="gpu")
    async def render(n: int) -> int:
        begun.append(n)
        if n and begun.count(n) == 1:
            await asyncio.sleep(600)
        await release.wait()
        return n

    @process
    async def film() -> int:
        return sum(await asyncio.gather(render(0), render(1)))

    async with open_app() as app:
        run = await app.start(film)
        async with app.worker("gpu") as worker:
            await until(lambda: len(begun) == 2)
            release.set()
            await worker.close(grace_seconds=0.05)
            [depth] = await app.queues()
            assert (depth.ready, depth.running) == (1, 0)
        async with app.worker("gpu"):
            assert await run.result() == 1
    assert sorted(begun) == [0, 1, 1]


async def test_the_next_node_journals_what_workers_did_meanwhile(open_app, until):
    begun = []

    @step(queue="gpu")
    async def render(n: int) -> int:
        begun.append(n)
        return n

    @process
    async def film() -> int:
        return await render(1) + await render(2)

    async with open_app() as app:
        await app.start(film, id="f")
        await until(lambda: app.queues())
    async with app.worker("gpu") as worker:
        # No node runs.
        await until(lambda: worker.ended and not worker._held)
    async with open_app() as app, app.worker("gpu"):
        assert await app.get("f", int).result() == 3
    assert begun == [1, 2]


# -- order and limits ----------------------------------------------------------------------------------


async def test_priority_and_keys_decide_what_a_worker_gets_next(open_app, until):
    order: list[str] = []

    @step(queue="gpu", key=lambda customer, n: customer)
    async def render(customer: str, n: int) -> None:
        order.append(f"{customer}{n}")

    @process
    async def film() -> None:
        urgent = render.using(priority=5)
        await asyncio.gather(*(render("a", n) for n in range(4)), render("b", 0), render("b", 1), urgent("c", 9))

    async with open_app() as app:
        run = await app.start(film)
        await until(lambda: _ready(app, 7))
        async with app.worker("gpu", concurrency=1):
            await run.result()
    assert order == ["c9", "a0", "b0", "a1", "b1", "a2", "a3"]


async def _ready(app: Any, count: int) -> bool:
    return sum(depth.ready for depth in await app.queues()) == count


async def test_limits_hold_for_all_workers_together(open_app, until):
    running: dict[str, int] = {"a": 0, "b": 0, "all": 0}
    most = dict(running)

    @step(queue="gpu", key=lambda customer: customer)
    async def render(customer: str) -> None:
        for name in (customer, "all"):
            running[name] += 1
            most[name] = max(most[name], running[name])
        await asyncio.sleep(0.005)
        for name in (customer, "all"):
            running[name] -= 1

    @process
    async def film() -> None:
        await asyncio.gather(*(render("a") for _ in range(12)), *(render("b") for _ in range(12)))

    queues = [Queue("gpu", concurrency=3, concurrency_per_key=2)]
    async with open_app(queues=queues) as app, app.worker("gpu"), app.worker("gpu"):
        await (await app.start(film)).result()
    assert most["all"] <= 3
    assert max(most["a"], most["b"]) <= 2


async def test_a_rate_holds_back_what_comes_too_fast(open_app):
    loop = asyncio.get_running_loop()

    @step(queue="api")
    async def call(n: int) -> float:
        return loop.time()

    @process
    async def calls() -> list[float]:
        return list(await asyncio.gather(*(call(n) for n in range(10))))

    async with open_app(queues=[Queue("api", rate="50/s")]) as app, app.worker("api"):
        times = sorted(await (await app.start(calls)).result())
    # Five at once, what a tenth of a second allows, then one after the other.
    assert times[-1] - times[0] >= 4 / 50


async def test_a_key_that_cannot_be_made_fails_the_step(open_app):
    @step(queue="gpu", key=lambda order: order["customer"])
    async def render(order: dict[str, str]) -> None: ...

    @process
    async def film() -> None:
        await render({})

    async with open_app() as app:
        with pytest.raises(DefinitionError, match=r"'render' of instance .* its key function failed: KeyError"):
            await (await app.start(film)).result()


# -- declaring -----------------------------------------------------------------------------------------


def test_what_cannot_be_on_a_queue_is_refused_where_it_is_declared():
    with pytest.raises(UsageError, match="give 1 to 100 letters"):
        step(queue="g p u")(lambda: None)
    with pytest.raises(DefinitionError, match="leave out queue="):

        @step(queue="gpu", executor="inline")
        def quick() -> None: ...

    with pytest.raises(DefinitionError, match="give queue= too"):

        @step(priority=3)
        def eager() -> None: ...

    @transaction
    def book(tx: Any) -> None: ...

    with pytest.raises(DefinitionError, match="a transaction runs in the node's own commit"):
        book.using(queue="gpu")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"concurrency": 0}, "at least 1"),
        ({"concurrency_per_key": -1}, "at least 1"),
        ({"rate": "fast"}, "write it as '100/s'"),
        ({"rate": "0/s"}, "write it as '100/s'"),
        ({"name": "a/b"}, "letters, digits"),
    ],
)
def test_a_queue_whose_limits_mean_nothing_is_refused(options: dict[str, Any], says: str):
    with pytest.raises(UsageError, match=says):
        Queue(**{"name": "gpu", **options})


async def test_a_worker_whose_steps_are_declared_twice_says_where(open_app):
    for module in ("films", "games"):

        async def declared() -> None: ...

        declared.__module__, declared.__qualname__ = module, "declared"
        step(name="twice", queue="doubtful")(declared)

    async with open_app() as app:
        with pytest.raises(
            DefinitionError, match=r"declared 2 times on queue doubtful: films\.declared, games\.declared\. Give one"
        ):
            async with app.worker("doubtful"):
                pass


async def test_a_worker_of_nothing_and_one_that_runs_nothing_are_refused(open_app):
    async with open_app() as app:
        for call, says in (
            (lambda: app.worker(), "name a queue"),
            (lambda: app.worker("x", concurrency=0), "at least 1"),
        ):
            with pytest.raises(UsageError, match=says):
                async with call():
                    pass


def test_in_a_lab_steps_on_queues_need_no_worker_and_have_doubles():
    @step(queue="gpu", timeout="10s")
    async def render(n: int) -> int:
        raise AssertionError("the lab has a double")

    @process
    async def film(n: int) -> int:
        return await render(n)

    with Lab() as lab:
        lab.double(render).returns(5)
        assert lab.run(film, 2) == 5


async def test_a_step_may_say_that_it_cannot_tell(open_app):
    @step(queue="gpu", retry=None)
    async def render() -> None:
        raise OutcomeUnknown("the printer is silent")

    @process
    async def film() -> None:
        await render()

    async with open_app() as app, app.worker("gpu"):
        run = await app.start(film)
        with pytest.raises(StepFailed, match="the printer is silent"):
            await run.result()
        [failed] = [r.entry for r in await run.history() if isinstance(r.entry, e.StepFailed)]
    assert failed.unknown
