"""One random process, run in every way there is: they must all come to the same."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from tests.reliability import client, workload
from tests.reliability.client import Client
from tests.reliability.program import Generator, Tree, is_racy, program
from tests.reliability.simulated import SimulatedWorld, open_app
from tests.reliability.simulation import Simulation
from tests.reliability.virtual import Clock, VirtualLoop

from dalsegno.kernel.limits import Limits
from dalsegno.stores.sqlite import store as sqlite_store
from dalsegno.stores.sqlite.store import SqliteStore
from dalsegno.testing.check import Dump
from dalsegno.testing.evidence import dump_of

_ID = "program"
if program not in workload.PROCESSES:
    workload.PROCESSES.append(program)


class Story(msgspec.Struct, frozen=True):
    """What a run came to: its result, its effects by key and attempt, what was undone, its journals."""

    result: str
    effects: frozenset[tuple[str, int]]
    undone: tuple[str, ...]
    journals: dict[str, list[tuple[int, int, bytes]]]


def tree_of(seed: int) -> Tree:
    """The tree of a seed."""
    return Generator(Random(seed)).tree()


def live(tree: Tree) -> tuple[Story, list[str]]:
    """A run without any crash, on the memory store."""
    return crashing(tree, 0, 0)


def crashing(tree: Tree, seed: int, crashes: int) -> tuple[Story, list[str]]:
    """A run on the memory store that crashes at random points."""
    results: list[str] = []
    simulation = Simulation(seed, crashes, [("programs", _ID)])
    simulation.freezing = simulation.beside = 0.0
    simulation.downtimes = (0.0,)
    simulation.mean_points = 12
    # Trying suspects of a crash loop one by one takes time, in which time-outs pass.
    simulation.limits = msgspec.structs.replace(simulation.limits if crashes else Limits(), crashes_before_trial=10**6)
    client.GOALS["programs"] = _goal(tree, results)
    found = simulation.run()
    effects = frozenset((effect.key, effect.attempt) for effect in simulation.world.effects)
    return _story(results, effects, simulation.dumps[-1]), found


def _goal(tree: Tree, results: list[str]) -> Any:
    async def pursue(c: Client, id: str, r: Random) -> None:
        await c.start(program, id, tree, id)
        results.append(_text(await c.result(id)))

    return pursue


def _text(value: Any) -> str:
    if isinstance(value, ExceptionGroup):
        return f"{type(value).__name__} of {sorted(_text(one) for one in value.exceptions)}"
    return f"{type(value).__name__}: {value}" if isinstance(value, Exception) else repr(value)


def _story(results: list[str], effects: frozenset[tuple[str, int]], dump: Dump) -> Story:
    undone = [
        f"{id} {entry['step']}"
        for id, rows in sorted(dump.journals.items())
        for entry in (msgspec.json.decode(data) for _, _, data in rows)
        if entry["kind"] == "step_completed" and entry["step"].startswith("undo:")
    ]
    return Story(results[-1] if results else "none", effects, tuple(undone), dump.journals)


# -- on SQLite, within virtual time --------------------------------------------------------------------


class _Here:
    """The store's threads, done without: a job runs at once, and its result comes in the loop's next turn."""

    def __init__(self, name: str, path: str, connection: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop

    def submit(self, job: Callable[[Any], Any], done: Callable[[Any], None]) -> None:
        try:
            result = job(self._connection)
        except Exception as error:
            result = error
        self._loop.call_soon(done, result)

    def call(self, job: Callable[[Any], Any]) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        try:
            future.set_result(job(self._connection))
        except Exception as error:
            future.set_exception(error)
        return future

    async def close(self) -> None:
        self._connection.close()


class _Deaf:
    """No doorbell: nobody stands beside."""

    port = 0

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def live_on_sqlite(tree: Tree) -> Story:
    """A run without any crash, on SQLite."""
    clock, world, results = Clock(), SimulatedWorld(), list[str]()
    workload.holder.world = world
    loop = VirtualLoop(clock)
    with tempfile.TemporaryDirectory(prefix="dalsegno-programs-") as folder:
        path = Path(folder) / "x.db"
        store = SqliteStore(str(path), "process")
        store.now = clock.now  # type: ignore[method-assign]
        app, node = open_app(store, Limits(), Random(0))

        async def main() -> None:
            await node.open()
            run = await app.start(program, tree, _ID, id=_ID)
            try:
                results.append(_text(await run.result()))
            except Exception as error:
                results.append(_text(error))
            await node.close()

        kept = sqlite_store._Worker, sqlite_store.Doorbell
        sqlite_store._Worker, sqlite_store.Doorbell = _Here, _Deaf  # type: ignore[assignment, misc]
        try:
            loop.run_until_complete(main())
        finally:
            sqlite_store._Worker, sqlite_store.Doorbell = kept  # type: ignore[misc]
            loop.close()
        effects = frozenset((effect.key, effect.attempt) for effect in world.effects)
        return _story(results, effects, dump_of(path))


# -- the comparison ------------------------------------------------------------------------------------


def differences(tree: Tree, seeds: list[int], crashes: int = 12) -> list[str]:
    """What the ways of running a program disagree about."""
    reference, found = live(tree)
    other = live_on_sqlite(tree)
    if not is_racy(tree) and other.journals != reference.journals:
        found.append(f"I13 the stores disagree: {_first_difference(reference, other)}")
    for seed in seeds:
        story, violations = crashing(tree, seed, crashes)
        found += [f"crashes {seed}: {text}" for text in violations]
        if not violations and not is_racy(tree):
            found += [f"I18 crashes {seed}: {text}" for text in _unlike(reference, story)]
    return found


def _unlike(one: Story, other: Story) -> list[str]:
    found = []
    for name in ("result", "undone"):
        if getattr(one, name) != getattr(other, name):
            found.append(f"{name} is {getattr(other, name)}, without a crash {getattr(one, name)}")
    if one.effects != other.effects:
        found.append(f"effects differ: {sorted(one.effects ^ other.effects)}")
    return found


def _first_difference(one: Story, other: Story) -> str:
    for id in sorted({*one.journals, *other.journals}):
        left, right = one.journals.get(id, []), other.journals.get(id, [])
        for mine, theirs in zip(left, right, strict=False):
            if mine != theirs:
                return f"{id}: {mine} in memory, {theirs} on SQLite"
        if len(left) != len(right):
            return f"{id}: {len(left)} entries in memory, {len(right)} on SQLite"
    return "nothing"
