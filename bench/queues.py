"""Steps on a queue, run by a worker that is a process of its own: how soon it begins one, and how many it does.

The hand-off is measured from the moment before an instance is started to the first line of its step in the worker: it
has the commit of the start in it, and the worker's claim.
"""

import asyncio
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import count
from time import perf_counter, time_ns

import uvloop

from bench.conditions import conditions
from bench.load import percentile
from bench.phases import ROOT
from bench.scoreboard import Bar, save, show_bars, show_conditions
from bench.setup import VAR
from dalsegno import App, process, step

_HAND_OFFS = 300
_STEPS_EACH = 20


@step(queue="bench")
async def begun_at() -> int:
    return time_ns()


@process
async def one_step() -> int:
    return await begun_at()


@process
async def chain(steps: int) -> int:
    last = 0
    for _ in range(steps):
        last = await begun_at()
    return last


@contextlib.contextmanager
def worker_of(url: str, concurrency: int) -> Iterator[None]:
    command = [sys.executable, "-m", "dalsegno.cli", "worker", "bench.queues", "--store", url, "--queue", "bench"]
    process = subprocess.Popen(
        [*command, "--concurrency", str(concurrency)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.terminate()
        process.wait()


async def hand_offs(app: App) -> list[float]:
    """Milliseconds, with nothing else going on."""
    numbers = count()
    found = []
    for _ in range(_HAND_OFFS + 20):
        await asyncio.sleep(0.005)
        asked = time_ns()
        run = await app.start(one_step, id=f"one-{next(numbers)}")
        found.append((await run.result() - asked) / 1e6)
    return found[20:]


async def throughput(app: App, instances: int) -> float:
    """Steps a second, with so many instances at once."""
    began = perf_counter()
    runs = await asyncio.gather(*(app.start(chain, _STEPS_EACH, id=f"chain-{began}-{n}") for n in range(instances)))
    await asyncio.gather(*(run.result() for run in runs))
    return instances * _STEPS_EACH / (perf_counter() - began)


async def measure(url: str, instances: int, rounds: int) -> tuple[list[float], list[float]]:
    async with App(url, processes=[one_step, chain]) as app:
        with worker_of(url, 10):
            waits = await hand_offs(app)
        with worker_of(url, instances):
            await throughput(app, 10)
            rates = [await throughput(app, instances) for _ in range(rounds)]
    return waits, rates


@contextlib.contextmanager
def place(postgres: bool) -> Iterator[str]:
    """The URL of an empty store."""
    if postgres:
        from dalsegno.testing.servers import PostgresServer

        with PostgresServer() as server:
            yield server.create_database()
    else:
        with tempfile.TemporaryDirectory(dir=VAR) as folder:
            yield f"sqlite:///{folder}/queues.db"


def queues(postgres: bool, instances: int, rounds: int) -> bool:
    VAR.mkdir(parents=True, exist_ok=True)
    facts = conditions()
    show_conditions(facts)
    with place(postgres) as url, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        waits, rates = runner.run(measure(url, instances, rounds))
    bars = [
        Bar("hand-off to a worker in another process, idle, p50", 10.0, percentile(waits, 0.5), "ms", at_most=True),
        Bar("hand-off, idle, p99", 50.0, percentile(waits, 0.99), "ms", at_most=True),
        Bar(f"steps a second, {instances} instances at once, one worker", 3000.0, max(rates), "/s"),
    ]
    show_bars(bars)
    save("queues-postgres" if postgres else "queues", facts, bars, rates=rates)
    return all(bar.cleared for bar in bars)
