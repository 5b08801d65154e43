"""Starting is idempotent by id: one id is one instance, whoever starts it and how often."""

import asyncio
from typing import Any

import pytest

from dalsegno import Event, StartConflict, UsageError, process, step, wait_for
from dalsegno.kernel import entries


class Go(Event):
    pass


runs: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_ran_yet():
    runs.clear()


@step
async def work(n: int) -> int:
    runs.append(n)
    return n


@process
async def job(n: int, *, extra: str = "") -> int:
    return await work(n)


@process
async def other(n: int) -> int:
    return n


@process
async def waits(n: int) -> int:
    await wait_for(Go)
    return n


async def stands(run: Any, status: str) -> bool:
    return await run.status() == status


async def test_a_thousand_concurrent_starts_of_one_id_are_one_instance(open_app):
    async with open_app() as app:
        found = await asyncio.gather(*(app.start(job, 7, id="one") for _ in range(1000)))
        assert {await run.result() for run in found} == {7}
        assert await app.counts() == {"completed": 1}
        assert len(await found[0].history()) == 3
    assert runs == [7]


async def test_of_concurrent_starts_with_different_inputs_one_wins_and_the_others_learn_it(open_app):
    async with open_app() as app:
        replies = await asyncio.gather(*(app.start(job, n % 10, id="one") for n in range(200)), return_exceptions=True)
        winners = [reply for reply in replies if not isinstance(reply, BaseException)]
        assert len(winners) == 20
        assert all(isinstance(reply, StartConflict) for reply in replies if isinstance(reply, BaseException))
        assert len({await run.result() for run in winners}) == 1
    assert len(runs) == 1


async def test_the_same_start_is_the_same_instance_also_after_a_restart_and_its_end(open_app):
    async with open_app() as app:
        assert await (await app.start(job, 7, id="one")).result() == 7
    async with open_app() as app:
        assert await (await app.start(job, 7, id="one")).result() == 7
    assert runs == [7]


@pytest.mark.parametrize(
    ("start", "args", "kwargs"),
    [(job, (8,), {}), (other, (7,), {}), (job, (7,), {"extra": "x"})],
    ids=["another input", "another process", "another named argument"],
)
async def test_another_start_under_the_same_id_is_a_conflict(open_app, start, args, kwargs):
    async with open_app() as app:
        await (await app.start(job, 7, id="one")).result()
        with pytest.raises(StartConflict, match=r"'one' was started with another process or input \(job, completed\)"):
            await app.start(start, *args, id="one", **kwargs)


async def test_return_takes_the_existing_instance_in_any_case(open_app):
    async with open_app() as app:
        await (await app.start(job, 7, id="one")).result()
        run = await app.start(job, 8, id="one", if_exists="return")
        assert await run.result() == 7


async def test_fail_refuses_an_existing_instance_even_with_the_same_input(open_app):
    async with open_app() as app:
        await app.start(job, 7, id="one", if_exists="fail")
        with pytest.raises(StartConflict, match="instance 'one' exists already"):
            await app.start(job, 7, id="one", if_exists="fail")


async def test_restart_begins_a_new_run_of_an_ended_instance(open_app):
    async with open_app() as app:
        await (await app.start(job, 7, id="one")).result()
        run = await app.start(job, 8, id="one", if_exists="restart")
        assert await run.result() == 8
        assert (await run.describe()).run == 2
        started = [r.entry.run for r in await run.history() if isinstance(r.entry, entries.Started)]
        assert started == [1, 2]
        # The same start as the new run's is the same instance again.
        assert await (await app.start(job, 8, id="one")).result() == 8
        with pytest.raises(StartConflict):
            await app.start(job, 7, id="one")


async def test_restart_refuses_an_instance_that_has_not_ended(open_app, until):
    async with open_app() as app:
        run = await app.start(waits, 1, id="one")
        await until(lambda: stands(run, "waiting"))
        with pytest.raises(StartConflict, match="instance 'one' is waiting: only an ended one can be restarted"):
            await app.start(waits, 1, id="one", if_exists="restart")
        await run.terminate()
        again = await app.start(waits, 2, id="one", if_exists="restart")
        await again.publish(Go())
        assert await again.result() == 2


async def test_concurrent_restarts_begin_one_run_at_a_time(open_app):
    async with open_app() as app:
        await (await app.start(job, 0, id="one")).result()
        replies = await asyncio.gather(
            *(app.start(job, n, id="one", if_exists="restart") for n in range(1, 51)), return_exceptions=True
        )
        begun = [reply for reply in replies if not isinstance(reply, BaseException)]
        odd = [r for r in replies if isinstance(r, BaseException) and not isinstance(r, StartConflict)]
        assert odd == []
        assert begun
        await begun[-1].result()
        assert await (await app.start(other, 5)).result() == 5
        assert (await begun[0].describe()).run == 1 + len(begun)
        assert len(runs) == 1 + len(begun)


async def test_a_restart_may_change_the_process(open_app):
    async with open_app() as app:
        await (await app.start(job, 7, id="one")).result()
        run = await app.start(other, 3, id="one", if_exists="restart")
        assert await run.result() == 3
        assert (await run.describe()).process == "other"


async def test_without_an_id_every_start_is_an_instance_of_its_own(open_app):
    async with open_app() as app:
        found = [await app.start(job, 7) for _ in range(3)]
        assert [await run.result() for run in found] == [7, 7, 7]
        assert len({run.id for run in found}) == 3


async def test_one_id_in_two_namespaces_is_two_instances(open_app):
    async with open_app(namespace="sales") as app:
        assert await (await app.start(job, 1, id="one")).result() == 1
    async with open_app(namespace="support") as app:
        assert await (await app.start(job, 2, id="one")).result() == 2
        assert await app.counts() == {"completed": 1}
    assert runs == [1, 2]


async def test_a_start_by_name_takes_the_newest_version(open_app):
    async with open_app() as app:
        assert await (await app.start("job", 7)).result() == 7


async def test_who_started_it_is_in_the_journal(open_app):
    async with open_app() as app:
        run = await app.start(job, 7, by="maria")
        assert (await run.history())[0].entry.by == "maria"
        await run.result()


@pytest.mark.parametrize("id", ["", " ", "a\x00b", "x" * 5000, 7, None])
async def test_odd_ids(open_app, id):
    async with open_app() as app:
        if id is None:
            await (await app.start(job, 1, id=id)).result()
        else:
            with pytest.raises(UsageError, match="id"):
                await app.start(job, 1, id=id)


async def test_an_unknown_policy_is_refused(open_app):
    async with open_app() as app:
        with pytest.raises(UsageError, match="if_exists='replace': choose 'same', 'return', 'fail' or 'restart'"):
            await app.start(job, 1, id="one", if_exists="replace")  # type: ignore[arg-type]
