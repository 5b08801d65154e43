"""A million instances asleep for days, and what the node pays for them.

Everything goes through the product: the sleepers are started by an App, and each figure is taken in a node
started afresh on their database. The naps that are to wake are started by one node and woken by the next, so
that none of them is still in memory when its time comes.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop

from bench.conditions import conditions
from bench.load import percentile
from bench.phases import answer, run_phase
from bench.scoreboard import Bar, console, save, show_bars, show_conditions
from bench.setup import VAR
from dalsegno import App, now, process, step

DAY_SECONDS = 86_400.0
IDLE_SECONDS = 10.0
STARTS_IN_FLIGHT = 2_000
PACED = 10_000  # at 1,000/s
BURST = 30_000  # all at once
PATIENCE_SECONDS = 120.0

lateness: list[float] = []
all_awake = asyncio.Event()


@process
async def doze(days: float) -> None:
    await asyncio.sleep(days * DAY_SECONDS)


@step
async def woke(due: float) -> None:
    lateness.append(time.time() - due)
    if len(lateness) == PACED + BURST:
        all_awake.set()


@process
async def nap(due: float) -> None:
    await asyncio.sleep(due - now().timestamp())
    await woke(due)


def resident_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith("VmRSS"))
    return int(kilobytes) / 1024


async def fill(database: str, count: int) -> None:
    began = time.perf_counter()
    async with App(database) as app:
        for first in range(0, count, STARTS_IN_FLIGHT):
            numbers = range(first, min(first + STARTS_IN_FLIGHT, count))
            await asyncio.gather(*(app.start(doze, 2 + n % 30, id=f"doze-{n}") for n in numbers))
    answer(starts_per_second=count / (time.perf_counter() - began))


async def idle(database: str) -> None:
    began = time.perf_counter()
    async with App(database):
        started = time.perf_counter() - began
        await asyncio.sleep(2)  # what the start leaves to do is not idleness
        spent = time.process_time()
        await asyncio.sleep(IDLE_SECONDS)
        spent = time.process_time() - spent
        answer(start_seconds=started, cpu_percent=100 * spent / IDLE_SECONDS, resident_mb=resident_mb())


async def lay_down(database: str, first_due: float) -> None:
    paced = [first_due + n / 1_000 for n in range(PACED)]
    burst = [burst_due(first_due)] * BURST
    dues = list(enumerate(paced + burst))
    async with App(database) as app:
        for first in range(0, len(dues), STARTS_IN_FLIGHT):
            batch = dues[first : first + STARTS_IN_FLIGHT]
            await asyncio.gather(*(app.start(nap, due, id=f"nap-{n}") for n, due in batch))
    answer(spare_seconds=first_due - time.time())


def burst_due(first_due: float) -> float:
    return first_due + PACED / 1_000 + 5


async def wake(database: str, first_due: float) -> None:
    async with App(database):
        spare = first_due - time.time()
        try:
            await asyncio.wait_for(all_awake.wait(), burst_due(first_due) + PATIENCE_SECONDS - time.time())
        except TimeoutError:
            pass  # the bar counts who never woke
        paced, burst = lateness[:PACED], lateness[PACED:]
        answer(
            spare_seconds=spare,
            woken=len(lateness),
            late_p50_ms=percentile(paced, 0.5) * 1e3,
            late_p99_ms=percentile(paced, 0.99) * 1e3,
            wakeups_per_second=len(burst) / max(burst) if burst else 0,
            resident_mb=resident_mb(),
        )


def sleepers(count: int) -> bool:
    VAR.mkdir(parents=True, exist_ok=True)
    facts = conditions() | {
        "sleepers": f"{count:,}",
        "wakers": f"{PACED:,} at 1,000/s, then {BURST:,} at once",
    }
    with tempfile.TemporaryDirectory(dir=VAR, prefix="sleepers-") as folder:
        database = f"sqlite:///{folder}/sleepers.db"
        console.print(f"starting {count:,} sleepers", style="dim")
        figures = {"fill": run_phase("sleepers", "fill", database, count)}
        facts["database"] = f"{Path(folder, 'sleepers.db').stat().st_size / 2**20:,.0f} MiB"
        console.print("a fresh node, idle", style="dim")
        figures["idle"] = run_phase("sleepers", "idle", database)
        console.print("waking", style="dim")
        first_due = time.time() + (PACED + BURST) / 1_000 + 4 * figures["idle"]["start_seconds"] + 10
        figures["lay_down"] = run_phase("sleepers", "lay_down", database, first_due)
        figures["wake"] = run_phase("sleepers", "wake", database, first_due)
    bars = judge(figures["idle"], figures["wake"])
    show_conditions(facts)
    for phase, values in figures.items():
        console.print(f"{phase}: " + ", ".join(f"{name} {value:,.2f}" for name, value in values.items()))
    show_bars(bars)
    save("sleepers", facts, bars, figures=figures)
    return all(bar.cleared for bar in bars)


def judge(idle: dict[str, float], wake: dict[str, float]) -> list[Bar]:
    slept_through = PACED + BURST - wake["woken"]
    return [
        Bar("resident memory of the idle node", 300, idle["resident_mb"], "MB", at_most=True),
        Bar("CPU while idle", 1, idle["cpu_percent"], "%", at_most=True),
        Bar("node start", 5, idle["start_seconds"], "s", at_most=True),
        Bar(f"wake-ups, {BURST:,} due at once", 3_000, wake["wakeups_per_second"], "/s"),
        Bar("lateness p99 at 1,000/s", 1_000, wake["late_p99_ms"], "ms", at_most=True),
        Bar("never woken", 0, slept_through, at_most=True),
        Bar("wakers left waiting too late to count", 0, min(0, wake["spare_seconds"]), "s"),
    ]


PHASES: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    "fill": fill,
    "idle": idle,
    "lay_down": lay_down,
    "wake": wake,
}

if __name__ == "__main__":
    phase, database, *numbers = sys.argv[1:]
    uvloop.run(PHASES[phase](database, *(float(n) if "." in n else int(n) for n in numbers)))
