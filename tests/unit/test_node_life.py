"""A node closes gracefully, and stops at once when its store can't go on; whoever waits learns why."""

import asyncio
import gc
import logging
import threading
from typing import Any

import pytest

from dalsegno import (
    App,
    DalsegnoError,
    Event,
    Limits,
    Refused,
    Retry,
    StoreCorrupt,
    StoreFull,
    StoreIO,
    StoreOwned,
    ask,
    on,
    process,
    step,
    wait_for,
)
from dalsegno.kernel import entries
from dalsegno.stores.sqlite.store import SqliteStore


class Go(Event):
    pass


class Peek(Event, reply=int):
    pass


@process
async def waits() -> str:
    @on(Peek)
    async def peek(request: Peek) -> int:
        await asyncio.sleep(86400)
        return 1

    await wait_for(Go)
    return "done"


async def stands(run: Any, status: str) -> bool:
    return await run.status() == status


# -- closing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_running_steps_end_and_their_results_are_kept_when_a_node_closes(open_app, kind):
    calls, begun = [], threading.Event()
    gate = threading.Event()

    def plain() -> str:
        begun.set()
        gate.wait(5)
        calls.append(1)
        return "kept"

    async def asynchronous() -> str:
        begun.set()
        await asyncio.to_thread(gate.wait, 5)
        calls.append(1)
        return "kept"

    work: Any = step(plain if kind == "thread" else asynchronous)

    @process
    async def job() -> str:
        found = await work()
        await wait_for(Go)
        return str(found)

    async with open_app() as app:
        await app.start(job, id="one")
        await asyncio.to_thread(begun.wait)
        asyncio.get_running_loop().call_later(0.02, gate.set)
    async with open_app() as app:
        run = app.get("one")
        assert [type(r.entry) for r in await run.history()][:2] == [entries.Started, entries.StepCompleted]
        await run.publish(Go())
        assert await run.result() == "kept"
    assert calls == [1]


async def test_no_further_step_begins_while_a_node_closes(open_app, until):
    calls = []

    @step
    async def work(n: int) -> int:
        calls.append(n)
        await asyncio.sleep(0.01)
        return n

    @process
    async def job() -> int:
        total = 0
        for n in range(1000):
            total += await work(n)
        return total

    async with open_app() as app:
        await app.start(job, id="one")
        await until(lambda: len(calls) >= 2)
    stopped = len(calls)
    assert stopped < 10
    async with open_app() as app:
        await until(lambda: len(calls) > stopped)
        assert calls == list(range(len(calls))), "each step once, none left out"
        await app.get("one").terminate()


async def test_a_node_closes_in_the_middle_of_everything_and_loses_nothing(open_app):
    @step(retry=Retry(attempts=None, first="1ms"))
    async def work(n: int) -> int:
        if n % 7 == 0:
            seen.add(n)
            if len(seen) % 2:
                raise ConnectionError
        await asyncio.sleep(0)
        return n

    seen: set[int] = set()

    @process
    async def child(n: int) -> int:
        return await work(n)

    @process
    async def job(n: int) -> int:
        await asyncio.sleep(0.001 * (n % 3))
        return sum(await asyncio.gather(work(n), child(n), work(n)))

    for n in range(30):
        async with open_app(limits=Limits(resident_instances=20)) as app:
            await asyncio.gather(*(app.start(job, k, id=f"j{k}") for k in range(5 * n, 5 * n + 5)))
            for _ in range(n % 5):
                await asyncio.sleep(0)
    async with open_app() as app:
        results = await asyncio.gather(*(app.get(f"j{n}").result() for n in range(150)))
        assert results == [3 * n for n in range(150)]
        assert await app.counts() == {"completed": 300}


async def test_whoever_waits_when_a_node_closes_learns_it(open_app, until):
    async with open_app() as app:
        run = await app.start(waits, id="one")
        asked = [asyncio.ensure_future(run.result()), asyncio.ensure_future(run.update(Peek()))]
        await until(lambda: stands(run, "waiting"))
    for future in asked:
        with pytest.raises(DalsegnoError, match=r"node .* was closed"):
            await asyncio.wait_for(future, 5)


async def test_a_closed_node_leaves_nothing_behind(open_app, until):
    async with open_app(deterministic=False) as app:
        await asyncio.gather(*[(await app.start(waits)).publish(Go()) for _ in range(10)])
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert tasks == []

    def left() -> list[str]:
        # The watchdog is one for all nodes of the program.
        names = {thread.name for thread in threading.enumerate()} - {"dalsegno-watchdog"}
        return [name for name in names if name.startswith("dalsegno")]

    await until(lambda: not left())


async def test_closing_twice_and_opening_again_is_fine(open_app):
    async with open_app() as app:
        assert await (await app.start(waits, id="one")).status() in ("running", "waiting")
    for _ in range(3):
        async with open_app() as app:
            assert await app.get("one").status() == "waiting"


async def test_an_error_in_the_block_is_not_covered_by_one_of_closing(tmp_path):
    async def use() -> None:
        async with App(f"sqlite:///{tmp_path}/x.db") as app:
            await app.start(waits)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await use()


# -- owning --------------------------------------------------------------------------------------------


async def test_a_second_node_on_the_same_file_is_refused_with_who_owns_it(open_app):
    async with open_app(name="first"):
        with pytest.raises(
            StoreOwned, match=r"is owned by node 'first' \(process \d+ on .*\), whose lease lasts until"
        ):
            async with App(open_app.url):
                pass


async def test_a_client_beside_the_node_does_everything_and_owns_nothing(open_app, until):
    @process
    async def job(n: int) -> int:
        answer = await ask("finance", int)
        return n + answer

    async with open_app(limits=Limits(poll_seconds=0.05)) as app:
        await app.start(waits, id="here")
        beside = App(open_app.url)
        async with beside.client() as client:
            run = await client.start(job, 40, id="one")

            async def task() -> Any:
                return next(iter(await client.tasks()), None)

            task_id = (await until(task)).id
            await client.answer(task_id, 2, by="maria")
            assert await run.result() == 42
            with pytest.raises(Refused, match="is completed"):
                await run.cancel()
            await client.get("here").pause()
            assert await app.get("here").status() == "paused"
            await client.get("here").resume()
            await client.publish(Go(), to="here")
            assert await client.get("here").result() == "done"
            assert [i.id async for i in client.list()] == ["one", "here"]


# -- a store that can't go on --------------------------------------------------------------------------


class Failing(SqliteStore):
    """A SQLite store whose disk fails once it is told to."""

    error: BaseException | None = None

    def commit(self, batch: Any, done: Any) -> None:
        if self.error is not None:
            asyncio.get_running_loop().call_soon(done, self.error)
        else:
            super().commit(batch, done)


@pytest.mark.parametrize("error", [StoreFull("full"), StoreIO("the disk"), StoreCorrupt("broken"), RuntimeError("odd")])
async def test_a_store_that_fails_stops_the_node_and_everybody_learns_it(tmp_path, until, error, caplog):
    caplog.set_level(logging.CRITICAL, "dalsegno")
    store = Failing(str(tmp_path / "x.db"), "process")
    app = App(store, limits=Limits(poll_seconds=0.01))
    begun = asyncio.Event()
    stopped = asyncio.Event()

    @step
    async def slow() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()

    @process
    async def works() -> None:
        await slow()

    async def use() -> None:
        async with app:
            run = await app.start(waits, id="one")
            await until(lambda: stands(run, "waiting"))
            await app.start(works, id="two")
            await begun.wait()
            waiting = [
                asyncio.ensure_future(run.result()),
                asyncio.ensure_future(run.update(Peek())),
                asyncio.ensure_future(app.stopped()),
            ]
            await asyncio.sleep(0.01)
            store.error = error
            doing = [
                asyncio.ensure_future(app.start(waits, id="three")),
                asyncio.ensure_future(app.publish(Go())),
                asyncio.ensure_future(run.cancel()),
                asyncio.ensure_future(run.describe()),
                asyncio.ensure_future(run.terminate()),
                asyncio.ensure_future(app.get("two").pause()),
            ]
            for future in [*doing, *waiting]:
                with pytest.raises(type(error)):
                    await asyncio.wait_for(future, 5)
            await asyncio.wait_for(stopped.wait(), 5)
            # And whoever comes later.
            for late in (app.start(waits), app.publish(Go()), run.cancel(), run.result(), run.status()):
                with pytest.raises(type(error)):
                    await asyncio.wait_for(late, 5)

    with pytest.raises(type(error)):
        await use()
    assert "stops" in caplog.text
    # What was acknowledged is there.
    async with App(f"sqlite:///{tmp_path}/x.db") as again:
        assert await again.get("one").status() == "waiting"
        assert await again.get("two").status() == "running"
        await again.get("two").terminate()


async def test_what_was_not_acknowledged_when_the_store_failed_did_not_happen_half(tmp_path):
    store = Failing(str(tmp_path / "x.db"), "process")
    app = App(store)

    async def use() -> None:
        async with app:
            run = await app.start(waits, id="one")
            store.error = StoreFull("full")
            with pytest.raises(StoreFull):
                await run.publish(Go())

    with pytest.raises(StoreFull):
        await use()
    async with App(f"sqlite:///{tmp_path}/x.db") as again:
        await again.get("one").publish(Go())
        assert await again.get("one").result() == "done"


async def test_a_full_disk_stops_the_node(tmp_path):
    app = App(f"sqlite:///{tmp_path}/x.db")

    @process
    async def job(text: str) -> str:
        return text

    async def fill() -> None:
        async with app:
            # SQLite's own bound on the file stands in for a disk without room.
            await app._node.store._writer.call(lambda c: c.execute("PRAGMA max_page_count = 100"))
            for n in range(1000):
                await (await app.start(job, "x" * 10_000, id=f"j{n}")).result()

    with pytest.raises(StoreFull, match="Nothing was lost; free some space and start the node again"):
        await fill()
    async with App(f"sqlite:///{tmp_path}/x.db") as again:
        counts = await again.counts()
        assert counts["completed"] >= 1
        assert await (await again.start(job, "fits")).result() == "fits"


async def test_the_collector_looks_again_as_often_as_before(open_app):
    before = gc.get_threshold()
    async with open_app():
        pass
    assert gc.get_threshold() == before
