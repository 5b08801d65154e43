"""The processes that the lanes run: every word of process code, with effects that the world counts.

Each effect returns a token; what a process has seen goes on to the next effect, so that the checker knows what
must have been durable when it took place.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from dalsegno import (
    Event,
    Retry,
    annotate,
    ask,
    continue_as_new,
    heartbeat,
    now,
    on,
    process,
    publish,
    random,
    saga,
    start,
    step,
    step_key,
    transaction,
    wait_for,
)
from dalsegno.errors import OutcomeUnknown, ProcessTerminated
from dalsegno.kernel.context import current_step


class World(Protocol):
    """Where effects take place."""

    def effect(self, key: str, attempt: int, saw: list[str]) -> str:
        """Take place; returns the token."""

    def repaired(self, name: str) -> bool:
        """Whether somebody repaired a thing that steps stumble over."""


class _Holder:
    world: World


holder = _Holder()
QUICK = Retry(attempts=8, first="8ms", factor=1, jitter=0)
NEVER_SECONDS = 40 * 86400.0


class Declined(Exception):
    """A failure that is final at once."""


class Signal(Event, key="name"):
    name: str
    token: str


class Add(Event, reply=int):
    number: int


def _attempt() -> int:
    context: Any = current_step.get()
    return int(context.attempt)


def _touch(saw: list[str]) -> str:
    return holder.world.effect(step_key(), _attempt(), saw)


# -- steps ---------------------------------------------------------------------------------------------


@step(retry=QUICK)
async def act(saw: list[str]) -> str:
    return _touch(saw)


@step(retry=QUICK)
async def act_slowly(saw: list[str], seconds: float) -> str:
    token = _touch(saw)
    await asyncio.sleep(seconds)
    return token


@step(retry=QUICK, executor="inline")
def act_inline(saw: list[str]) -> str:
    return _touch(saw)


@step(retry=QUICK)
def act_in_thread(saw: list[str]) -> str:
    return _touch(saw)


@step(retry=QUICK)
async def stumble(saw: list[str], failures: int) -> str:
    token = _touch(saw)
    if _attempt() <= failures:
        raise ValueError(f"attempt {_attempt()}")
    return token


@step(retry=Retry(attempts=2, first="8ms", factor=1, jitter=0, never_on=(Declined,)))
async def decline(saw: list[str]) -> str:
    _touch(saw)
    raise Declined("no")


@step(retry=None)
async def gate(name: str, saw: list[str]) -> str:
    token = _touch(saw)
    if not holder.world.repaired(name):
        raise Declined(f"{name} is shut")
    return token


@step(retry=Retry(attempts=4, first="8ms", factor=1, jitter=0), timeout=0.03)
async def dawdle(saw: list[str], long_attempts: int) -> str:
    """Its first attempts outlive their time-out, and nobody knows what came of them."""
    token = _touch(saw)
    if _attempt() <= long_attempts:
        await asyncio.sleep(NEVER_SECONDS)
    return token


@dawdle.undo(even_if_unknown=True)
async def make_good(saw: list[str], long_attempts: int, token: str | None) -> None:
    _touch([token] if token else [])


@step(retry=QUICK)
async def count_up(until: int) -> int:
    """Goes on from its last sign of life."""
    for number in range(heartbeat() or 0, until):
        heartbeat(number + 1)
        await asyncio.sleep(0.002)
    _touch([])
    return until


@transaction(retry=QUICK)
def book(tx: Any, saw: list[str], failures: int) -> str:
    """Business rows in the store's own database: a table there, a dictionary in the memory store."""
    key = step_key()
    if isinstance(tx, dict):
        tx[key] = tx.get(key, 0) + 1
    else:
        tx.execute("CREATE TABLE IF NOT EXISTS ledger (step_key TEXT NOT NULL, attempt INTEGER NOT NULL)")
        tx.execute("INSERT INTO ledger VALUES (?, ?)", (key, _attempt()))
    if _attempt() <= failures:
        raise ValueError("the row above must go")
    return key


@step(retry=QUICK)
async def reserve(saw: list[str]) -> str:
    return _touch(saw)


@reserve.undo
async def release(saw: list[str], token: str) -> None:
    _touch([token])


@step(retry=QUICK)
async def charge(saw: list[str]) -> str:
    return _touch(saw)


@charge.undo(retry=Retry(attempts=30, first="8ms", factor=1, jitter=0))
async def refund(saw: list[str], token: str) -> None:
    _touch([token])
    if _attempt() == 1:
        raise ValueError("the gateway is down")


@step(retry=None)
async def ship(saw: list[str], sure: bool) -> str:
    token = _touch(saw)
    if not sure:
        raise OutcomeUnknown("the line went dead")
    return token


@ship.undo(even_if_unknown=True)
async def call_back(saw: list[str], sure: bool, token: str | None) -> None:
    _touch([token] if token else [])


#: steps with an undo, and whether that copes with an unknown outcome
UNDOABLE = {"reserve": False, "charge": False, "ship": True, "dawdle": True}
#: processes with one saga around everything
FLAT = {"order", "holdout", "slowpoke"}


# -- processes -----------------------------------------------------------------------------------------


@process
async def sequence(count: int, slow_seconds: float) -> list[str]:
    saw: list[str] = []
    for number in range(count):
        saw.append(await (act, act_inline, act)[number % 3](saw))
        if number == 1:
            saw.append(await act_slowly(saw, slow_seconds))
    annotate(done=count, lucky=random().randrange(1000))
    return saw


@process
async def threaded(count: int) -> list[str]:
    saw: list[str] = []
    for _ in range(count):
        saw.append(await act_in_thread(saw))
    return saw


@process
async def fan(width: int) -> list[str]:
    first = await act([])

    async def branch(number: int) -> str:
        token = await act([first])
        return await stumble([first, token], number % 2)

    tokens = list(await asyncio.gather(*(branch(n) for n in range(width))))
    async with asyncio.TaskGroup() as group:
        one = group.create_task(act(tokens))
        two = group.create_task(act_slowly(tokens, 0.01))
    mixed = await asyncio.gather(decline(tokens), act(tokens), return_exceptions=True)
    assert isinstance(mixed[0], Declined)
    return [*tokens, one.result(), two.result(), str(mixed[1])]


@process
async def order(case: int) -> str:
    """Case 0 succeeds; 1 fails at the end; 2 with an unknown outcome; 3 in a gather; 4 in an inner saga."""
    async with saga():
        first = await reserve([])
        second = await charge([first])
        if case == 4:
            async with saga():
                await reserve([first, second])
        if case == 3:
            await asyncio.gather(reserve([second]), charge([first]), decline([first]))
        third = await ship([first, second], case != 2)
        if case in (1, 4):
            await decline([first, second, third])
        return third


@process
async def sleeper(naps: list[float]) -> list[float]:
    late = []
    saw: list[str] = []
    for nap in naps:
        before = now()
        await asyncio.sleep(nap)
        late.append((now() - before).total_seconds() - nap)
        saw.append(await act(saw))
    return late


@process
async def listener(name: str, count: int) -> list[str]:
    saw: list[str] = []
    for number in range(count):
        if number % 2:
            saw.append(await act(saw))
        signal = await wait_for(Signal, name=f"{name}-{number}")
        saw.append(signal.token)
    saw.append(await act(saw))
    return saw


@process
async def talker(name: str, count: int) -> str:
    token = await act([])
    for number in range(count):
        await publish(Signal(f"{name}-{number}", f"t0.{number}"))
        if number % 2:
            await asyncio.sleep(0.02)
    return token


@process
async def impatient(patience: float, work: float) -> list[str]:
    """A wait that times out, then a step that times out while its effect is under way."""
    saw = [await act([])]
    try:
        async with asyncio.timeout(patience):
            await wait_for(Signal, name="nobody sends this")
    except TimeoutError:
        saw.append(await act(saw))
    try:
        async with asyncio.timeout(patience):
            await act_slowly(saw, work)
    except TimeoutError:
        saw.append(await act(saw))
    try:
        async with asyncio.timeout(patience):
            await stumble.using(retry=Retry(attempts=3, first=patience * 100, jitter=0))(saw, 9)
    except TimeoutError:
        saw.append(await act(saw))
    return saw


@process
async def child(number: int) -> int:
    token = await act([])
    if number % 3 == 2:
        await decline([token])
    await asyncio.sleep(0.01 * number)
    return number


@process
async def parent(width: int) -> list[Any]:
    detached = await start(child, 1)
    found = await asyncio.gather(*(child(n) for n in range(width)), return_exceptions=True)
    await act([])
    return [*(n if isinstance(n, int) else type(n).__name__ for n in found), await detached.result()]


@process
async def rounds(left: int, total: int) -> int:
    """Continues as new, with a detached child in every run."""
    loose = await start(child, 3)
    token = await act([])
    if left % 2:
        await loose.result()
    await act([token])
    if left:
        continue_as_new(left - 1, total + 1)
    return total


@process
async def tally(name: str) -> list[int]:
    numbers: list[int] = []

    @on(Add)
    def add(request: Add) -> int:
        numbers.append(request.number)
        return request.number

    await act([])
    await wait_for(Signal, name=name)
    return numbers


@process
async def question(about: str) -> str:
    token = await act([])
    answer = await ask("clerk", str, about=about)
    return answer + await act([token])


@process
async def holdout() -> str:
    async with saga():
        first = await reserve([])
        await charge([first])
        await wait_for(Signal, name="nobody sends this")
    return "never"


@process
async def victim() -> str:
    token = await act([])
    await asyncio.sleep(NEVER_SECONDS)
    return token


@process
async def guardian(name: str) -> str:
    ward = await start(victim, id=name)
    await act([])
    try:
        await ward.result()
    except ProcessTerminated:
        return await act([])
    return "it lived"


@process
async def broken(name: str) -> list[str]:
    saw = []
    async with saga():
        saw.append(await reserve(saw))
        saw.append(await gate(name, saw))
    return saw


@process
async def ledger(count: int) -> list[str]:
    saw: list[str] = []
    for number in range(count):
        saw.append(await act(saw))
        await book(saw, number % 2)
    await asyncio.gather(*(book(saw, 0) for _ in range(count)))
    return saw


@process
async def slowpoke(long_attempts: int) -> list[str]:
    saw: list[str] = []
    async with saga():
        saw.append(await reserve(saw))
        saw.append(await dawdle(saw, long_attempts))
        await count_up(4)
        saw.append(await act(saw))
    return saw


@process
async def deadline(seconds: float) -> str:
    token = await act([])
    try:
        async with asyncio.timeout(seconds):
            answer = await ask("clerk", str, about="in time?")
    except TimeoutError:
        answer = "too late"
    await act([token])
    return answer


PROCESSES = [
    sequence, threaded, fan, order, sleeper, listener, talker, impatient, child, parent, rounds, tally, question,
    holdout, victim, guardian, broken, ledger, slowpoke, deadline,
]  # fmt: skip
