"""One simulated world: the real node on the memory store and on virtual time, crashed again and again.

Everything follows from the seed. A crash is an exception that nothing but the interpreter's own exits catches,
raised at a named point; the loop and all that lived on it are abandoned, and a new node opens the same disk.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import uuid
import warnings
from random import Random
from typing import Any

from tests.reliability import workload
from tests.reliability.client import Client, Unexpected, choose, pursue
from tests.reliability.replays import replayed
from tests.reliability.virtual import Clock, Stuck, VirtualLoop, abandon

from dalsegno import App
from dalsegno.engine.node import Node
from dalsegno.errors import StoreError
from dalsegno.gateway import InProcess
from dalsegno.kernel import points
from dalsegno.kernel.limits import Limits
from dalsegno.stores.memory.disk import Disk
from dalsegno.stores.memory.store import MemoryStore
from dalsegno.testing.check import Call, Dump, Effect, History

_LIFE_SECONDS = 60.0
_LIFE_POINTS = 20_000
_current_life: contextvars.ContextVar[int] = contextvars.ContextVar("life", default=0)


class Crash(KeyboardInterrupt):
    """The process dies here. (Loops and tasks let only this kind of exception through.)"""


class Spinning(KeyboardInterrupt):
    """A life passed more points than any work needs."""


class SimulatedWorld:
    """Effects in a list; what a dead life does no longer counts."""

    def __init__(self) -> None:
        self.effects: list[Effect] = []
        self.dead: set[int] = set()
        self._repaired: set[str] = set()

    def effect(self, key: str, attempt: int, saw: list[str]) -> str:
        life = _current_life.get()
        token = f"t{life}.{len(self.effects)}"
        if life not in self.dead:
            self.effects.append(Effect(life, key, attempt, token, tuple(saw)))
        return token

    def repaired(self, name: str) -> bool:
        return name in self._repaired

    def repair(self, name: str) -> None:
        self._repaired.add(name)


class SimulatedLog:
    """The clients' log."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._done: dict[tuple[str, str, str], str] = {}

    def asked(self, verb: str, target: str, detail: str) -> int:
        self.calls.append(Call(_current_life.get(), verb, target, detail))
        return len(self.calls) - 1

    def ended(self, number: int, outcome: str, reply: str) -> None:
        call = self.calls[number]
        call.outcome, call.reply = outcome, reply
        if outcome == "ok":
            self._done[call.verb, call.target, call.detail] = reply

    def done(self, verb: str, target: str, detail: str) -> str | None:
        return self._done.get((verb, target, detail))


class Simulation:
    """A world from its seed until everything asked for is done."""

    def __init__(self, seed: int, crashes: int = 30, goals: list[tuple[str, str]] | None = None) -> None:
        self.seed = seed
        self.chance = Random(seed)
        self.crashes = crashes
        self.goals = goals or list(choose(self.chance, self.chance.randint(2, 6), frozenset({"threads"})))
        self.limits = Limits(
            resident_instances=self.chance.choice([1, 3, 1000]),
            loading_instances=self.chance.choice([1, 500]),
            running_steps=self.chance.choice([2, 1000]),
            timer_window_seconds=self.chance.choice([0.02, 0.2, 60.0]),
            slow_step_seconds=self.chance.choice([0.005, 1.0]),
            crashes_before_parking=10**6,
        )
        self.reached: dict[str, int] = {}
        self.crashed_at: dict[str, int] = {}
        self.clock = Clock()
        self.disk = Disk()
        self.world = SimulatedWorld()
        self.log = SimulatedLog()
        self.dumps: list[Dump] = []
        self.found: list[str] = []
        self._left = 0
        self._passed = 0

    def run(self) -> list[str]:
        """Live, crash, live again; returns the violations."""
        workload.holder.world = self.world
        identifiers = Random(self.seed)
        original, uuid.uuid4 = uuid.uuid4, lambda: uuid.UUID(int=identifiers.getrandbits(128), version=4)
        try:
            while not self._live():
                self.clock.elapsed_seconds += self.chance.choice([0.0, 0.001, 0.1, 20.0])
        finally:
            points.armed = None
            uuid.uuid4 = original
        if not self.found:
            self.found += self._check()
        return self.found

    def _check(self) -> list[str]:
        history = History(self.dumps, self.world.effects, self.log.calls, workload.UNDOABLE, workload.FLAT)
        found = history.violations()
        for id, journal in history.journals.items():
            found += replayed(id, journal, self.limits)
        return found

    # -- one life ----------------------------------------------------------------------------------

    def _live(self) -> bool:
        """One life of the engine; true when there is nothing left to do."""
        life = len(self.dumps)
        crash = life < self.crashes
        self._left = int(self.chance.expovariate(1 / 40)) + 1 if crash else 0
        self._passed = 0
        points.armed = self._pass
        loop = VirtualLoop(self.clock)
        node: list[Node] = []
        finished = False
        try:
            context = contextvars.copy_context()
            context.run(_current_life.set, life)
            context.run(loop.run_until_complete, self._work(node))
            finished = True
        except Crash:
            pass
        except (Stuck, TimeoutError, Spinning):
            self.found.append(f"I16 life {life} is stuck: {self._standing()}")
        except BaseExceptionGroup as group:
            self.found.append(f"life {life}: {_told(group)}")
        except Exception as error:
            self.found.append(f"life {life}: {error!r}")
        points.armed = None
        self.found += [f"life {life}: {error}" for error in loop.errors]
        self.world.dead.add(life)
        self._bury(loop, node)
        self.dumps.append(self.dump())
        return finished or bool(self.found)

    def _bury(self, loop: VirtualLoop, nodes: list[Node]) -> None:
        for node in nodes:
            # Whatever its coroutines still do, the disk hears nothing of it.
            node.store.broken = StoreError("dead")  # type: ignore[attr-defined]
            for resident in getattr(node, "residents", ()):
                resident.execution.drop()
        abandon(loop)
        MemoryStore(self.disk, self.clock.now).expire()

    def _pass(self, name: str) -> None:
        self.reached[name] = self.reached.get(name, 0) + 1
        self._passed += 1
        if self._passed > _LIFE_POINTS:
            raise Spinning
        if self._left:
            self._left -= 1
            if not self._left:
                self.crashed_at[name] = self.crashed_at.get(name, 0) + 1
                raise Crash

    async def _work(self, nodes: list[Node]) -> None:
        store = MemoryStore(self.disk, self.clock.now)
        app, node = open_app(store, self.limits, Random(self.seed), nodes)
        await node.open()
        async with asyncio.timeout(_LIFE_SECONDS):
            await pursue(Client(app, self.log, self.world.repair, exact=True), self.goals, self.seed)
        await node.close()
        if node.failure is not None:
            raise node.failure

    # -- witnesses ---------------------------------------------------------------------------------

    def dump(self) -> Dump:
        """What is on disk."""
        disk = self.disk
        return Dump(
            {row.id: row.status for row in disk.instances.values()},
            {
                disk.instances[key].id: [(seq, at, entry) for seq, at, _, entry in rows]
                for key, rows in disk.journals.items()
            },
            dict(disk.guest),
            frozenset(event.id for event in disk.events),
        )

    def _standing(self) -> str:
        return "; ".join(
            f"{row.id} {row.status} ({row.waiting_for}) {row.error or ''}"
            for row in self.disk.instances.values()
            if row.status not in ("completed", "failed", "cancelled", "terminated")
        )


def open_app(store: Any, limits: Limits, chance: Random, nodes: list[Node]) -> tuple[App, Node]:
    """An app whose node is at hand, so that it can be buried whenever it dies."""
    app = App(store, limits=limits, processes=workload.PROCESSES)
    node = Node(store, [p.spec for p in workload.PROCESSES], limits, name="simulated", chance=chance)
    nodes.append(node)
    app._node, app._gateway = node, InProcess(node)
    return app, node


def _told(group: BaseExceptionGroup[Any]) -> str:
    return "; ".join(
        _told(e) if isinstance(e, BaseExceptionGroup) else str(e) if isinstance(e, Unexpected) else repr(e)
        for e in group.exceptions
    )


def quiet() -> None:
    """Nobody reads what dying nodes say."""
    logging.getLogger("dalsegno").setLevel(logging.CRITICAL + 1)
    # Coroutines that die before they begin.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
