"""kill -9 with ten thousand processes in flight, effects counted by an independent witness.

The witness is a file that only the steps append to: what they wrote before the kill stays written, whatever
the engine remembers of it. After the restart it must hold each effect of each process, under one key each. An
effect may stand there twice only if its step was in flight: not in the journal when the kill came, which is
read from a copy of the database taken while the engine lay dead.
"""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench.conditions import conditions
from bench.phases import ROOT, command
from bench.scoreboard import Bar, console, save, show_bars, show_conditions
from bench.setup import VAR
from dalsegno import App, process, step, step_key
from dalsegno.kernel.limits import Limits

STEP_SECONDS = 0.8  # under the second from which the engine also journals that a step began
PATIENCE_SECONDS = 120.0
witness = -1


async def take_effect(stage: str, errand: int) -> None:
    os.write(witness, f"{stage} {errand} {step_key()} {time.time()}\n".encode())
    await asyncio.sleep(STEP_SECONDS)


@step
async def collect(errand: int) -> None:
    await take_effect("collect", errand)


@step
async def carry(errand: int) -> None:
    await take_effect("carry", errand)


@step
async def deliver(errand: int) -> None:
    await take_effect("deliver", errand)


STAGES = ("collect", "carry", "deliver")


@process
async def run_errand(errand: int) -> int:
    await collect(errand)
    await carry(errand)
    await deliver(errand)
    return errand


async def node(database: str, count: int) -> None:
    """Starting is idempotent by id, so the node before the kill and the one after run the same program."""
    limits = Limits(running_steps=count, resident_instances=2 * count)
    async with App(f"sqlite:///{database}", limits=limits) as app:
        print("open", flush=True)
        runs = await asyncio.gather(*(app.start(run_errand, n, id=f"errand-{n}") for n in range(count)))
        print("started", flush=True)
        if [await run.result() for run in runs] != list(range(count)):
            raise RuntimeError("a wrong result")
        print("done", flush=True)


@dataclass(frozen=True)
class Effect:
    stage: str
    errand: int
    key: str
    at: float


class Scene:
    """The folder with the database, the witness, and what the nodes said."""

    def __init__(self, folder: Path, count: int) -> None:
        self.database = folder / "kill.db"
        self.witness = folder / "witness.txt"
        self.count = count
        self.witness.touch()

    @contextmanager
    def running_node(self) -> Iterator["Node"]:
        process = subprocess.Popen(
            command("kill", self.database, self.witness, self.count),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield Node(process)
        finally:
            process.kill()
            process.wait()

    def effects(self) -> list[Effect]:
        fields = (line.split() for line in self.witness.read_text().splitlines())
        return [Effect(stage, int(errand), key, float(at)) for stage, errand, key, at in fields]

    def journaled(self) -> set[tuple[str, int]]:
        """The steps whose results are durable, read with plain SQL from a copy."""
        copy = self.database.with_name("copy.db")
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{self.database}{suffix}", f"{copy}{suffix}")
        with sqlite3.connect(copy) as connection:
            rows = connection.execute(
                "SELECT json_extract(CAST(entry AS TEXT), '$.step'), id FROM journal "
                "JOIN instances ON instances.key = journal.instance WHERE kind = 'step_completed'"
            ).fetchall()
        connection.close()
        return {(stage, int(id_.removeprefix("errand-"))) for stage, id_ in rows}


class Node:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.began = time.time()

    def said(self, word: str) -> float:
        """Wait for the node to say a word; when, in seconds since its start."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip() == word:
                return time.time() - self.began
        raise SystemExit(f"the node ended without saying {word!r}")

    def kill(self) -> None:
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()


def until_halfway(scene: Scene) -> None:
    """Until half of the processes are in their second step, and the rest before it."""
    gives_up = time.time() + PATIENCE_SECONDS
    while scene.witness.read_text().count("carry ") < scene.count // 2:
        if time.time() > gives_up:
            raise SystemExit("the processes never got under way")
        time.sleep(0.02)


def kill(count: int) -> bool:
    VAR.mkdir(parents=True, exist_ok=True)
    facts = conditions() | {"in flight": f"{count:,}", "step": f"{STEP_SECONDS:g} s each, all at once"}
    with tempfile.TemporaryDirectory(dir=VAR, prefix="kill-") as folder:
        scene = Scene(Path(folder), count)
        with scene.running_node() as node:
            facts["first start of all"] = f"{node.said('started'):.2f} s"
            until_halfway(scene)
            node.kill()
        before, journaled = scene.effects(), scene.journaled()
        with scene.running_node() as node:
            restarted = node.began
            times = {word: node.said(word) for word in ("open", "started", "done")}
        after = scene.effects()[len(before) :]
    figures = reckon(before, after, journaled, restarted, count) | {f"{word}_s": at for word, at in times.items()}
    bars = judge(figures)
    show_conditions(facts)
    for name, value in figures.items():
        console.print(f"{name.replace('_', ' ')}: {value:,.2f}")
    show_bars(bars)
    save("kill", facts, bars, figures=figures)
    return all(bar.cleared for bar in bars)


def reckon(
    before: list[Effect], after: list[Effect], journaled: set[tuple[str, int]], restarted: float, count: int
) -> dict[str, float]:
    keys: dict[tuple[str, int], set[str]] = defaultdict(set)
    for effect in before + after:
        keys[effect.stage, effect.errand].add(effect.key)
    began_before = {(effect.stage, effect.errand) for effect in before}
    repeated = {(effect.stage, effect.errand) for effect in after} & began_before
    first_again: dict[int, float] = {}
    for effect in after:
        first_again.setdefault(effect.errand, effect.at - restarted)
    return {
        "finished_before_the_kill": sum(1 for stage, _ in journaled if stage == STAGES[-1]),
        "steps_in_flight_at_the_kill": len(began_before - journaled),
        "effects_repeated": len(repeated),
        "repeated_though_journaled": len(repeated & journaled),
        "under_more_than_one_key": sum(1 for each in keys.values() if len(each) > 1),
        "lost": count * len(STAGES) - len(keys),
        "first_going_again_s": min(first_again.values()),
        "all_going_again_s": max(first_again.values()),
    }


def judge(figures: dict[str, float]) -> list[Bar]:
    return [
        Bar("all in flight going again, from the restart", 3, figures["all_going_again_s"], "s", at_most=True),
        Bar("effects lost", 0, figures["lost"], at_most=True),
        Bar("repeated though journaled", 0, figures["repeated_though_journaled"], at_most=True),
        Bar("repeated under another key", 0, figures["under_more_than_one_key"], at_most=True),
    ]


if __name__ == "__main__":
    database, path, count = sys.argv[1:]
    witness = os.open(path, os.O_WRONLY | os.O_APPEND)
    uvloop.run(node(database, int(count)))
