"""A fan-out of ten thousand steps in one instance, and how fast its journal replays."""

import asyncio
import tempfile
from itertools import count
from statistics import median
from time import perf_counter

import uvloop

from bench.conditions import conditions
from bench.scoreboard import Bar, save, show_bars, show_conditions
from bench.setup import VAR
from dalsegno import App, process, step
from dalsegno.kernel import entries
from dalsegno.kernel.execution import Execution
from dalsegno.kernel.limits import Limits


@step
async def double(value: int) -> int:
    return value * 2


@process
async def fan_out(width: int) -> int:
    return sum(await asyncio.gather(*(double(value) for value in range(width))))


async def measure(folder: str, width: int, rounds: int) -> tuple[list[float], list[float]]:
    numbers = count()
    async with App(f"sqlite:///{folder}/gather.db") as app:

        async def once(width: int) -> str:
            run = await app.start(fan_out, width, id=f"fan-{next(numbers)}")
            if await run.result() != width * (width - 1):
                raise RuntimeError("a wrong sum")
            return run.id

        await once(10)
        seconds, replays = [], []
        for _ in range(rounds):
            began = perf_counter()
            id_ = await once(width)
            seconds.append(perf_counter() - began)
            replays.append(await replayed_per_second(app, id_))
    return seconds, replays


async def replayed_per_second(app: App, id_: str) -> float:
    """From stored bytes to an instance that stands where it stood: decoding included, the disk not."""
    stored = [(record.seq, record.at, entries.encode(record.entry)) for record in await app.get(id_).history()]
    began = perf_counter()
    records = [entries.Record(seq, at, entries.decode(entry)) for seq, at, entry in stored]
    Execution(fan_out.spec, "default", id_, Limits()).replay(records)
    return len(stored) / (perf_counter() - began)


def gather(width: int, rounds: int) -> bool:
    VAR.mkdir(parents=True, exist_ok=True)
    facts = conditions() | {"width": str(width), "rounds": str(rounds)}
    with tempfile.TemporaryDirectory(dir=VAR, prefix="gather-") as folder:
        seconds, replays = uvloop.run(measure(folder, width, rounds))
    bars = [
        Bar(f"gather of {width:,} steps in one instance", 3, median(seconds), "s", at_most=True),
        Bar("replay of its journal", 100_000, median(replays), "entries/s"),
    ]
    show_conditions(facts)
    show_bars(bars)
    save("gather", facts, bars, seconds=seconds, entries_per_second=replays)
    return all(bar.cleared for bar in bars)
