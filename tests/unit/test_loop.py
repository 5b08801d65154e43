"""The standard library's asyncio words are durable in process code.

Each process below waits for events with one of asyncio's words. It is run three times: straight through; dropped from
memory at every wait and replayed; and with the node closed and opened again before every event. The result is the same.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from dalsegno import Event, Limits, process, step, wait_for
from dalsegno.contracts import codec
from dalsegno.kernel import entries


class Go(Event, key="who"):
    who: str
    n: int = 0


async def go(who: str) -> str:
    event = await wait_for(Go, who=who)
    return f"{who}{event.n}"


@step
async def echo(text: str) -> str:
    return text


@process
async def gathers() -> list[str]:
    return list(await asyncio.gather(go("a"), echo("x"), go("b")))


@process
async def task_group() -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(go(who)) for who in "abc"]
        group.create_task(echo("y"))
    return [task.result() for task in tasks]


@process
async def task_group_with_a_failure() -> list[str]:
    async def fail() -> None:
        await go("a")
        raise ValueError("no")

    met = []
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            never = group.create_task(go("never"))
    except* ValueError as failure:
        met = [str(error) for error in failure.exceptions]
    return [*met, str(never.cancelled())]


@process
async def timeout_expires() -> str:
    try:
        async with asyncio.timeout(0.02):
            return await go("never")
    except TimeoutError:
        return await go("a")


@process
async def timeout_in_days_is_met() -> str:
    async with asyncio.timeout(3 * 86400) as limit:
        first = await go("a")
        limit.reschedule(asyncio.get_running_loop().time() + 7 * 86400)
        return first + await go("b")


@process
async def sleeps() -> str:
    began = asyncio.get_running_loop().time()
    await asyncio.sleep(0.02)
    await asyncio.sleep(0)
    slept = asyncio.get_running_loop().time() - began
    return f"{slept >= 0.02}{await go('a')}"


@process
async def waits_for_the_first() -> list[str]:
    tasks = {asyncio.create_task(go(who), name=who) for who in "abcdef"}
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.wait(pending)
    return [*(task.result() for task in done), *sorted(task.get_name() for task in pending)]


@process
async def waits_for_the_first_failure() -> str:
    async def fail() -> None:
        await go("b")
        raise KeyError("b")

    done, pending = await asyncio.wait(
        [asyncio.create_task(go("a")), asyncio.create_task(fail()), asyncio.create_task(go("c"))],
        return_when=asyncio.FIRST_EXCEPTION,
    )
    for task in pending:
        task.cancel()
    return f"{len(done)} done, {len(pending)} not"


@process
async def takes_as_completed() -> list[str]:
    return [await earliest for earliest in asyncio.as_completed([go("a"), go("b"), go("c")])]


@process
async def shields() -> list[str]:
    async def work() -> str:
        await asyncio.sleep(0.02)
        return await go("a")

    inner = asyncio.create_task(work())
    said = []
    try:
        async with asyncio.timeout(0.01):
            await asyncio.shield(inner)
    except TimeoutError:
        said.append("time is up")
    return [*said, await inner]


@process
async def queues() -> list[str]:
    queue: asyncio.Queue[str | None] = asyncio.Queue(maxsize=1)

    async def produce() -> None:
        for who in ("b", "a", "c"):
            await queue.put(await go(who))
        await queue.put(None)

    producer = asyncio.create_task(produce())
    got = []
    while (item := await queue.get()) is not None:
        got.append(await echo(item))
        queue.task_done()
    await producer
    return got


@process
async def events() -> list[str]:
    opened = asyncio.Event()
    passed = []

    async def guest(name: str) -> None:
        await opened.wait()
        passed.append(name)

    async with asyncio.TaskGroup() as group:
        for name in ("one", "two", "three"):
            group.create_task(guest(name))
        passed.append(await go("a"))
        opened.set()
    return passed


@process
async def locks() -> list[str]:
    lock = asyncio.Lock()
    said = []

    async def work(who: str) -> None:
        async with lock:
            said.append(f"in {who}")
            await go(who)
            said.append(f"out {who}")

    await asyncio.gather(work("a"), work("b"))
    return said


@process
async def semaphores() -> int:
    semaphore = asyncio.Semaphore(2)
    inside = most = 0

    async def work(who: str) -> None:
        nonlocal inside, most
        async with semaphore:
            inside += 1
            most = max(most, inside)
            await go(who)
            inside -= 1

    await asyncio.gather(*(work(who) for who in "abcd"))
    return most


@process
async def conditions() -> list[str]:
    condition = asyncio.Condition()
    stock: list[str] = []

    async def take() -> str:
        async with condition:
            await condition.wait_for(lambda: bool(stock))
            return stock.pop()

    async def deliver(who: str) -> None:
        item = await go(who)
        async with condition:
            stock.append(item)
            condition.notify()

    taken = await asyncio.gather(take(), take(), deliver("a"), deliver("b"))
    return [str(item) for item in taken[:2]]


@process
async def cancels_a_task() -> list[str]:
    said = []

    async def work() -> None:
        try:
            await go("never")
        except asyncio.CancelledError:
            said.append(await echo("cleaned up"))
            said.append(await go("b"))
            raise

    task = asyncio.create_task(work())
    said.append(await go("a"))
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        said.append("cancelled")
    return said


@process
async def nests_time_outs() -> list[str]:
    said = []
    try:
        async with asyncio.timeout(5 * 86400):
            try:
                async with asyncio.timeout(0.02):
                    await go("never")
            except TimeoutError:
                said.append("inner")
            said.append(await go("a"))
    except TimeoutError:
        said.append("outer")
    return said


@process
async def generators_and_futures() -> list[str]:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def numbers():
        for who in ("a", "b"):
            yield await go(who)

    async def settle() -> None:
        got = [item async for item in numbers()]
        future.set_result("".join(got))

    task = asyncio.create_task(settle())
    answer = await asyncio.wait_for(future, timeout=86400)
    await task
    return [answer]


CASES: list[tuple[Any, str, Any]] = [
    (gathers, "ba", ["a1", "x", "b0"]),
    (task_group, "cab", ["a1", "b2", "c0"]),
    (task_group_with_a_failure, "a", ["no", "True"]),
    (timeout_expires, "a", "a0"),
    (timeout_in_days_is_met, "ab", "a0b1"),
    (sleeps, "a", "Truea0"),
    (waits_for_the_first, "d", ["d0", "a", "b", "c", "e", "f"]),
    (waits_for_the_first_failure, "ab", "2 done, 1 not"),
    (takes_as_completed, "cab", ["c0", "a1", "b2"]),
    (shields, "a", ["time is up", "a0"]),
    (queues, "bac", ["b0", "a1", "c2"]),
    (events, "a", ["a0", "one", "two", "three"]),
    (locks, "ab", ["in a", "out a", "in b", "out b"]),
    (semaphores, "abcd", 2),
    (conditions, "ba", ["b0", "a1"]),
    (cancels_a_task, "ab", ["a0", "cleaned up", "b1", "cancelled"]),
    (nests_time_outs, "a", ["inner", "a0"]),
    (generators_and_futures, "ab", ["a0b1"]),
]
each_word = pytest.mark.parametrize(("word", "whom", "expected"), CASES, ids=[case[0].name for case in CASES])


def waits_for_event(run: Any, who: str) -> Callable[[], Any]:
    async def probe() -> bool:
        awaited = [r.entry for r in await run.history() if isinstance(r.entry, entries.EventAwaited)]
        return any(codec.decode(entry.match) == {"who": who} for entry in awaited)

    return probe


@each_word
async def test_a_word_of_asyncio_works(open_app, until, word, whom, expected):
    async with open_app() as app:
        run = await app.start(word)
        for n, who in enumerate(whom):
            await until(waits_for_event(run, who))
            await app.publish(Go(who, n))
        assert await run.result() == expected


@each_word
async def test_a_word_of_asyncio_works_when_the_instance_leaves_memory_at_every_wait(
    open_app, until, word, whom, expected
):
    async with open_app(limits=Limits(resident_instances=0)) as app:
        run = await app.start(word)
        for n, who in enumerate(whom):
            await until(waits_for_event(run, who))
            # Another one that comes to rest takes the place in memory.
            other = await app.start(gathers)
            await until(waits_for_event(other, "a"))
            await app.publish(Go(who, n), to=run.id)
        assert await run.result() == expected


@each_word
async def test_a_word_of_asyncio_works_when_the_node_restarts_at_every_wait(open_app, until, word, whom, expected):
    async with open_app() as app:
        await app.start(word, id="one")
    for n, who in enumerate(whom):
        async with open_app() as app:
            await until(waits_for_event(app.get("one"), who))
        async with open_app() as app:
            await app.publish(Go(who, n))
    async with open_app() as app:
        assert await app.get("one").result() == expected


async def test_a_set_of_tasks_is_walked_in_the_same_order_on_every_replay_and_in_a_fork(open_app):
    @process
    async def walks_a_set() -> list[str]:
        tasks = {asyncio.create_task(asyncio.sleep(0), name=str(n)) for n in range(20)}
        done, _ = await asyncio.wait(tasks)
        names = [task.get_name() for task in done]
        for name in names:
            await echo(name)
        return names

    async with open_app() as app:
        run = await app.start(walks_a_set)
        names = await run.result()
        fork = await run.fork(step="echo#10")
        assert await fork.result() == names


async def test_time_in_process_code_stands_still_until_something_happens(open_app):
    @process
    async def looks_at_the_clock() -> bool:
        loop = asyncio.get_running_loop()
        before = loop.time()
        for _ in range(1000):
            await asyncio.sleep(0)
        return loop.time() == before

    async with open_app() as app:
        assert await (await app.start(looks_at_the_clock)).result()


async def test_timers_that_are_due_together_fire_in_their_order(open_app):
    @process
    async def sleeps_side_by_side() -> list[int]:
        woken: list[int] = []

        async def sleep(n: int) -> None:
            await asyncio.sleep(0.01)
            woken.append(n)

        await asyncio.gather(*(sleep(n) for n in range(20)))
        return woken

    async with open_app() as app:
        assert await (await app.start(sleeps_side_by_side)).result() == list(range(20))


async def test_tasks_left_running_are_cancelled_when_the_process_returns(open_app):
    ended = []

    @process
    async def leaves_a_task() -> str:
        async def stay() -> None:
            try:
                await asyncio.sleep(86400)
            finally:
                ended.append("task")

        task = asyncio.create_task(stay())
        await asyncio.sleep(0)
        return f"done {task.done()}"

    async with open_app() as app:
        run = await app.start(leaves_a_task)
        assert await run.result() == "done False"
        assert (await run.describe()).status == "completed"
    assert ended[:1] == ["task"]


async def test_an_error_in_a_forgotten_task_leaves_the_process_alone(open_app, caplog):
    @process
    async def forgets_a_task() -> str:
        async def fail() -> None:
            raise ValueError("nobody looks")

        task = asyncio.create_task(fail())
        await asyncio.sleep(0)
        del task
        return "fine"

    async with open_app() as app:
        assert await (await app.start(forgets_a_task)).result() == "fine"
