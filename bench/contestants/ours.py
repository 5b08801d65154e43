"""Dalsegno on SQLite or PostgreSQL, every commit synced, as a user would run it: one App, processes awaited."""

import asyncio
import contextlib
from itertools import count

import uvloop

from bench.contestants import Round, asked, postgres_url, report
from bench.load import Outcome, Sample, drive
from dalsegno import App, process, step


@step
async def add(value: int) -> int:
    return value + 1


@step
async def double(value: int) -> int:
    return value * 2


@step
async def subtract(value: int) -> int:
    return value - 1


@process
async def three_steps(value: int) -> int:
    return await subtract(await double(await add(value)))


async def measure(store: str, round_: Round) -> list[Sample]:
    numbers = count()
    async with App(store) as app:

        async def call() -> None:
            run = await app.start(three_steps, 20, id=f"p-{next(numbers):012d}")
            if await run.result() != 41:
                raise RuntimeError("a wrong result")

        await asyncio.gather(*(call() for _ in range(10)))
        return [await drive(call, n, round_.seconds) for n in round_.concurrency]


def main() -> None:
    round_ = asked()
    with contextlib.ExitStack() as stack:
        store = f"sqlite:///{round_.folder}/ours.db"
        if round_.variant == "postgres":
            store = stack.enter_context(postgres_url())
        report(Outcome(uvloop.run(measure(store, round_))))


if __name__ == "__main__":
    main()
