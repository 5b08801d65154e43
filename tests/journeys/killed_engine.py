"""An engine that tests kill: run as a program on a database, with a file beside it where its steps leave their mark.

A mark is a line, written past every buffer: what a killed engine had done can be read afterwards.
"""

import asyncio
import os
import sqlite3
import sys
from typing import Any

from dalsegno import (
    App,
    Event,
    Limits,
    Retry,
    heartbeat,
    process,
    publish,
    saga,
    start,
    step,
    step_key,
    transaction,
    wait_for,
)

MARKS = os.environ.get("MARKS", "")


def mark(text: str) -> None:
    file = os.open(MARKS, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, text.encode() + b"\n")
    os.close(file)


class Go(Event):
    n: int


@step(retry=Retry(attempts=None, first="1ms"))
async def work(n: int) -> int:
    mark(f"work {step_key()}")
    await asyncio.sleep(0.001)
    return n


@work.undo
async def unwork(n: int, result: int) -> None:
    mark(f"undo {step_key()}")


@step
async def slow(n: int) -> int:
    mark(f"slow {step_key()}")
    before = heartbeat()
    if before is None:
        heartbeat({"row": n})
        await asyncio.sleep(60)
    mark(f"resumed from {before['row']}")
    return n


@step(retry=None)
async def crash(n: int) -> int:
    mark(f"crash {n}")
    os._exit(9)


@transaction
def book(tx: sqlite3.Connection, n: int) -> int:
    tx.execute("CREATE TABLE IF NOT EXISTS ledger (n INTEGER, instance TEXT)")
    tx.execute("INSERT INTO ledger VALUES (?, ?)", (n, step_key()))
    return n


@process
async def chain(n: int) -> int:
    """Steps one after the other, with a child and a sleep between them."""
    total = await work(n)
    await asyncio.sleep(0.001)
    total += await leaf(n)
    return total + await work(n)


@process
async def leaf(n: int) -> int:
    return await work(n)


@process
async def ledger(n: int) -> int:
    return await book(n) + await work(n) + await book(n)


@process
async def regret(n: int) -> None:
    async with saga():
        for k in range(5):
            await work(k)
        raise ValueError("no")


@process
async def resumes(n: int) -> int:
    return await slow(n)


@process
async def poison(n: int) -> int:
    return await crash(n)


@process
async def listens(n: int) -> int:
    total = 0
    for k in range(n):
        total += (await wait_for(Go, n=k)).n
        await work(k)
    return total


@process
async def tells(n: int) -> None:
    child = await start(listens, n)
    for k in range(n):
        await publish(Go(k), to=child.id)
    await child.result()


PROCESSES: list[Any] = [chain, leaf, ledger, regret, resumes, poison, listens, tells]


async def main(database: str, name: str, count: int) -> None:
    # Kills that follow each other closely look like a crash loop: only the poison's test is about that.
    kills = {} if name == "poison" else {"crashes_before_trial": 1000, "crashes_before_parking": 1000}
    app = App(f"sqlite:///{database}", processes=PROCESSES, limits=Limits(**kills))
    chosen = next(item for item in PROCESSES if item.name == name)
    async with app:
        mark("open")
        await asyncio.gather(*(app.start(chosen, n, id=f"{name}-{n}") for n in range(count)))
        mark("started")
        while {"running", "waiting"} & (await app.counts()).keys():
            await asyncio.sleep(0.01)
    mark("done")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
