"""The clients: they ask the engine for things, write down what was acknowledged, and insist until all is done."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from random import Random
from typing import Any, Protocol

import msgspec
from tests.reliability import workload as w

from dalsegno import App
from dalsegno.errors import ProcessCancelled, ProcessTerminated, Refused, StartConflict, StoreError
from dalsegno.instance import Run

Goals = list[tuple[str, str]]
_LOOK_SECONDS = 0.02
_FINAL = ("completed", "failed", "cancelled", "terminated")


class Log(Protocol):
    """Where a client writes down its calls; it outlives the engine."""

    def asked(self, verb: str, target: str, detail: str) -> int: ...
    def ended(self, number: int, outcome: str, reply: str) -> None: ...
    def done(self, verb: str, target: str, detail: str) -> str | None:
        """The reply of the acknowledged call, `None` where there is none."""


class Unexpected(Exception):
    """A result that a sound engine can't give."""


class Client:
    """The verbs, with a log around them."""

    def __init__(self, app: App, log: Log, repair: Callable[[str], None], exact: bool = False) -> None:
        self.app = app
        self.exact = exact
        self.log = log
        self.repair = repair

    async def call(
        self, verb: str, target: str, action: Callable[[], Awaitable[Any]], detail: str = "", again: bool = False
    ) -> str | None:
        """Ask unless it was acknowledged before; returns the reply as text, `None` where it was refused."""
        known = None if again else self.log.done(verb, target, detail)
        if known is not None:
            return known
        number = self.log.asked(verb, target, detail)
        try:
            value = await action()
        except (Refused, StartConflict) as error:
            self.log.ended(number, "refused", str(error))
            return None
        reply = value if isinstance(value, str) else "" if isinstance(value, Run) else json.dumps(value)
        self.log.ended(number, "ok", reply)
        return reply

    async def start(self, process: Any, id: str, *args: Any) -> Run[Any]:
        detail = json.dumps(args)
        await self.call("start", id, lambda: self.app.start(process, *args, id=id), detail)
        return self.app.get(id)

    async def result(self, id: str) -> Any:
        """The result; an error of the process is returned, not raised."""
        number = self.log.asked("result", id, "")
        try:
            value = await self.app.get(id).result()
        except StoreError:
            raise
        except Exception as error:
            self.log.ended(number, "ok", "")
            return error
        self.log.ended(number, "ok", _compact(value))
        return value

    async def meddle(self, verb: str, run: Run[Any], number: int) -> None:
        """One of the verbs, whether it makes sense or not."""
        verbs: dict[str, Callable[[], Awaitable[Any]]] = {
            "cancel": run.cancel,
            "terminate": run.terminate,
            "pause": run.pause,
            "resume": run.resume,
            "retry": run.retry,
            "update": lambda: run.update(w.Add(number)),
        }
        try:
            # An update of a process that has no handler, or is paused, waits for days.
            async with asyncio.timeout(0.05):
                await self.call(verb, run.id, verbs[verb], again=True)
        except TimeoutError:
            pass

    async def until(self, id: str, *statuses: str) -> str:
        """Wait until an instance stands so."""
        while True:
            status = await self.app.get(id).status()
            if status in statuses:
                return status
            await asyncio.sleep(_LOOK_SECONDS)

    async def signal(self, name: str, token: str, to: str) -> None:
        await self.call("publish", to, lambda: self.app.publish(w.Signal(name, token)), name)


def _compact(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def expect(holds: bool, what: str) -> None:
    """Raise `Unexpected` with a description."""
    if not holds:
        raise Unexpected(what)


# -- goals: each is pursued anew in every life, and skips what was acknowledged ------------------------


async def sequences(c: Client, id: str, r: Random) -> None:
    await c.start(w.sequence, id, r.randint(2, 5), 0.01)
    found = await c.result(id)
    expect(isinstance(found, list), f"{id}: {found!r}")
    if r.random() < 0.5:
        fork = f"{id}-fork"
        if await c.call("fork", fork, lambda: _fork(c, id, fork)) is not None:
            await c.result(fork)


async def _fork(c: Client, id: str, new_id: str) -> str:
    known = [i.id async for i in c.app.list(id_prefix=new_id)]
    if not known:
        await c.app.get(id).fork(step="act_inline", id=new_id)
    return ""


async def fans(c: Client, id: str, r: Random) -> None:
    width = r.randint(2, 4)
    await c.start(w.fan, id, width)
    found = await c.result(id)
    expect(isinstance(found, list) and len(found) == width + 3, f"{id}: {found!r}")


async def threads(c: Client, id: str, r: Random) -> None:
    await c.start(w.threaded, id, 3)
    expect(isinstance(await c.result(id), list), id)


async def orders(c: Client, id: str, r: Random) -> None:
    case = r.randrange(5)
    await c.start(w.order, id, case)
    found = await c.result(id)
    expect(isinstance(found, str) == (case == 0), f"{id} case {case}: {found!r}")


async def sleepers(c: Client, id: str, r: Random) -> None:
    naps = [round(r.choice([0.001, 0.01, 0.05, 0.12]) * r.random(), 6) for _ in range(3)]
    await c.start(w.sleeper, id, naps)
    found = await c.result(id)
    expect(isinstance(found, list) and min(found) >= -2e-6, f"I11 {id} woke early: {found!r} for {naps}")


async def listeners(c: Client, id: str, r: Random) -> None:
    count = r.randint(1, 4)
    await c.start(w.listener, id, id, count)
    for number in r.sample(range(count), count):
        # Some of them are early: the wait comes later.
        await c.signal(f"{id}-{number}", f"t0.{number}", id)
    expect(len(await c.result(id)) == count + count // 2 + 1, id)


async def talkers(c: Client, id: str, r: Random) -> None:
    count = r.randint(1, 4)
    await c.start(w.listener, id, id, count)
    await c.start(w.talker, f"{id}-talker", id, count)
    expect(isinstance(await c.result(id), list), id)
    expect(isinstance(await c.result(f"{id}-talker"), str), id)


async def impatients(c: Client, id: str, r: Random) -> None:
    work = r.choice([0.0, 0.2])
    await c.start(w.impatient, id, 0.03, work)
    # On real time a slow machine may let the step win.
    enough = 4 if work and c.exact else 3
    found = await c.result(id)
    expect(len(found) >= enough, f"I11 {id}: {found!r} with a step of {work} s: a time-out did not come")


async def parents(c: Client, id: str, r: Random) -> None:
    width = r.randint(2, 4)
    await c.start(w.parent, id, width)
    wanted = [n if n % 3 != 2 else "Declined" for n in range(width)] + [1]
    found = await c.result(id)
    expect(found == wanted, f"{id}: {found!r}")


async def renewals(c: Client, id: str, r: Random) -> None:
    left = r.randint(1, 3)
    await c.start(w.rounds, id, left, 0)
    found = await c.result(id)
    expect(found == left, f"{id}: {found!r} after {left} renewals")


async def tallies(c: Client, id: str, r: Random) -> None:
    run = await c.start(w.tally, id, id)
    for number in range(r.randint(1, 3)):
        await c.call("update", id, lambda n=number: run.update(w.Add(n)), str(number))  # type: ignore[misc]
    await c.signal(id, "t0.0", id)
    found = await c.result(id)
    expect(isinstance(found, list), f"{id}: {found!r}")


async def questions(c: Client, id: str, r: Random) -> None:
    await c.start(w.question, id, "whatever")
    while c.log.done("answer", id, "") is None and not await _ended(c, id):
        for task in await c.app.tasks("clerk"):
            if task.instance == id:
                await c.call("answer", id, lambda t=task.id: c.app.answer(t, "yes", by="clara"))  # type: ignore[misc]
        await asyncio.sleep(_LOOK_SECONDS)
    found = await c.result(id)
    expect(isinstance(found, str) and found.startswith("yes"), f"{id}: {found!r}")


async def _ended(c: Client, id: str) -> bool:
    return await c.app.get(id).status() in _FINAL


async def holdouts(c: Client, id: str, r: Random) -> None:
    run = await c.start(w.holdout, id)
    await asyncio.sleep(r.random() * 0.03)
    await c.call("cancel", id, lambda: run.cancel("enough"))
    found = await c.result(id)
    expect(isinstance(found, ProcessCancelled), f"{id}: {found!r}")


async def victims(c: Client, id: str, r: Random) -> None:
    await c.start(w.guardian, id, f"{id}-ward")
    await asyncio.sleep(r.random() * 0.05)
    ward = await _appearing(c, f"{id}-ward")
    await c.call("terminate", ward.id, lambda: ward.terminate("enough"))
    expect(isinstance(await c.result(ward.id), ProcessTerminated), id)
    found = await c.result(id)
    expect(isinstance(found, str), f"{id}: {found!r}")


async def _appearing(c: Client, id: str) -> Run[Any]:
    while True:
        async for instance in c.app.list(id_prefix=id):
            return c.app.get(instance.id)
        await asyncio.sleep(_LOOK_SECONDS)


async def pauses(c: Client, id: str, r: Random) -> None:
    if r.random() < 0.5:
        run = await c.start(w.sequence, id, 5, 0.02)
    else:
        run = await c.start(w.parent, id, 4)
    await asyncio.sleep(r.random() * 0.03)
    for turn in range(2):
        await c.call("pause", id, run.pause, str(turn))
        await asyncio.sleep(r.random() * 0.03)
        if await run.status() == "paused":
            await c.call("resume", id, run.resume, str(turn), again=True)
    expect(isinstance(await c.result(id), list), id)


async def repairs(c: Client, id: str, r: Random) -> None:
    run = await c.start(w.broken, id, id)
    await c.until(id, "failed", "completed")
    c.repair(id)
    await c.call("retry", id, run.retry)
    await c.until(id, "completed")
    expect(isinstance(await c.result(id), list), id)


async def meddlers(c: Client, id: str, r: Random) -> None:
    """People press every button at once; what ends by itself ends all the same."""
    kinds: list[tuple[Any, tuple[Any, ...]]] = [
        (w.ledger, (2,)), (w.order, (r.randrange(5),)), (w.sequence, (4, 0.02)), (w.parent, (3,)), (w.fan, (3,)),
        (w.tally, (id,)), (w.question, ("what",)), (w.holdout, ()),
    ]  # fmt: skip
    number = r.randrange(len(kinds))
    run = await c.start(kinds[number][0], id, *kinds[number][1])
    for _ in range(3):
        await asyncio.sleep(r.random() * 0.02)
        await asyncio.gather(*(c.meddle(verb, run, r.randrange(9)) for verb in r.choices(_VERBS, k=3)))
    while (status := await run.status()) not in _FINAL:
        if status == "paused":
            await c.meddle("resume", run, 0)
        elif number > 4:
            await c.meddle("terminate", run, 0)
        await asyncio.sleep(_LOOK_SECONDS)


_VERBS = ("cancel", "terminate", "pause", "pause", "resume", "resume", "retry", "retry", "update")


async def ledgers(c: Client, id: str, r: Random) -> None:
    await c.start(w.ledger, id, 2)
    expect(isinstance(await c.result(id), list), id)


async def slowpokes(c: Client, id: str, r: Random) -> None:
    long_attempts = r.choice([0, 1, 2, 9])
    await c.start(w.slowpoke, id, long_attempts)
    found = await c.result(id)
    expect(isinstance(found, list) == (long_attempts < 9), f"{id} with {long_attempts}: {found!r}")


async def deadlines(c: Client, id: str, r: Random) -> None:
    """An answer counts if it was acknowledged, and only then if it came in time."""
    await c.start(w.deadline, id, 0.03)
    await asyncio.sleep(r.random() * 0.05)
    for task in await c.app.tasks("clerk", state=None):
        if task.instance == id:
            await c.call("answer", id, lambda t=task.id: c.app.answer(t, "yes", by="clara"))  # type: ignore[misc]
    found = await c.result(id)
    expect(found in ("yes", "too late"), f"{id}: {found!r}")
    expect(found == "yes" or c.log.done("answer", id, "") is None, f"I12 {id}: an acknowledged answer did not count")


async def restarts(c: Client, id: str, r: Random) -> None:
    await c.start(w.sequence, id, 2, 0.0)
    await c.result(id)
    for turn in range(2):
        await c.call("restart", id, lambda: c.app.start(w.child, 0, id=id, if_exists="restart"), str(turn))
        found = await c.result(id)
        expect(found == 0 or isinstance(found, list), f"{id}: {found!r}")


async def handovers(c: Client, id: str, r: Random) -> None:
    """A business row, a start and an event in one transaction of the client's own: all of it or nothing."""
    connection = sqlite3.connect(c.app.url.removeprefix("sqlite:///"), timeout=20, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE IF NOT EXISTS handed_over (id TEXT PRIMARY KEY)")
        row = connection.execute("SELECT 1 FROM handed_over WHERE id = ?", (id,)).fetchone() is not None
        instance = connection.execute("SELECT 1 FROM instances WHERE id = ?", (id,)).fetchone() is not None
        expect(row == instance, f"I5 {id}: its row is there: {row}, its instance: {instance}")
        if not row:
            connection.execute("INSERT INTO handed_over VALUES (?)", (id,))
            await c.app.start(w.listener, id, 1, id=id, tx=connection)
            await c.app.publish(w.Signal(f"{id}-0", "t0.0"), id=f"{id}-event", tx=connection)
        connection.execute("COMMIT")
    finally:
        connection.close()
    expect(isinstance(await c.result(id), list), id)


async def duels(c: Client, id: str, r: Random) -> None:
    """Many start the same id at once, some with another input: one wins."""
    starts = [c.call("start", id, lambda n=n: c.app.start(w.child, n, id=id), str(n)) for n in (0, 0, 1, 0, 1)]  # type: ignore[misc]
    won = await asyncio.gather(*starts)
    expect(any(reply is not None for reply in won), f"I4 nobody won {id}")
    found = await c.result(id)
    expect(found in (0, 1), f"{id}: {found!r}")


GOALS = {
    goal.__name__: goal
    for goal in (
        sequences, fans, threads, orders, sleepers, listeners, talkers, impatients, parents, renewals, tallies,
        questions, holdouts, victims, pauses, repairs, meddlers, ledgers, slowpokes, deadlines, restarts,
        handovers, duels,
    )
}  # fmt: skip


def choose(r: Random, count: int, without: frozenset[str] = frozenset()) -> Iterator[tuple[str, str]]:
    """Some goals and the ids they work on."""
    names = sorted(GOALS.keys() - without)
    for number in range(count):
        name = r.choice(names)
        yield name, f"{name}-{number}"


async def pursue(client: Client, goals: Goals, seed: int) -> None:
    """Pursue all goals at once; raises what a sound engine can't cause."""
    async with asyncio.TaskGroup() as group:
        for name, id in goals:
            group.create_task(GOALS[name](client, id, Random(f"{seed} {id}")))
