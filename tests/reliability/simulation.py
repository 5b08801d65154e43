"""One simulated world: the real node on the memory store and on virtual time, crashed again and again.

Everything follows from the seed. A crash is an exception that nothing but the interpreter's own exits catches,
raised at a named point; the loop and all that lived on it are abandoned, and a new node opens the same disk.
Some lives freeze instead: another node takes over when the lease ends, and the frozen one comes back later.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import uuid
from collections import Counter
from random import Random

from tests.reliability import workload
from tests.reliability.client import Client, Goals, choose, pursue
from tests.reliability.replays import replayed
from tests.reliability.simulated import (
    SimulatedLog,
    SimulatedStore,
    SimulatedWorld,
    current_life,
    dump_of,
    open_app,
    standing,
    told,
)
from tests.reliability.virtual import Clock, Crash, Stuck, VirtualLoop, abandon

from dalsegno import App
from dalsegno.engine.node import Node
from dalsegno.errors import Fenced, StoreError, StoreOwned
from dalsegno.kernel import points
from dalsegno.kernel.limits import Limits
from dalsegno.stores.memory.disk import Disk
from dalsegno.testing.check import Dump, History

#: goals that need threads or a file
_ON_REAL_PARTS = frozenset({"threads", "handovers"})
_LIFE_SECONDS = 60.0
_LIFE_POINTS = 20_000


class Spinning(KeyboardInterrupt):
    """A life passed more points than any work needs."""


class Simulation:
    """A world from its seed until everything asked for is done.

    Parameters: `seed`; `crashes`, how often a life may be cut short; `goals`, what the clients want, chosen by
    the seed where none are given.
    """

    def __init__(self, seed: int, crashes: int = 30, goals: Goals | None = None) -> None:
        self.seed = seed
        self.chance = chance = Random(seed)
        self.crashes = crashes
        self.goals = goals or list(choose(chance, chance.randint(2, 6), _ON_REAL_PARTS))
        self.limits = Limits(
            resident_instances=chance.choice([1, 3, 1000]),
            loading_instances=chance.choice([1, 500]),
            running_steps=chance.choice([2, 1000]),
            timer_window_seconds=chance.choice([0.02, 0.2, 60.0]),
            slow_step_seconds=chance.choice([0.005, 1.0]),
            lease_seconds=chance.choice([0.06, 10.0]),
            crashes_before_trial=chance.choice([2, 10**6]),
            crashes_before_parking=10**6,
        )
        self.freezing = chance.choice([0.0, 0.2])
        self.beside = chance.choice([0.0, 0.5])
        self.downtimes: tuple[float, ...] = (0.0, 0.001, 0.1, 20.0)
        self.mean_points = 40
        self.reached: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.crashed_at: Counter[str] = Counter()
        self.clock = Clock()
        self.disk = Disk()
        self.world = SimulatedWorld()
        self.log = SimulatedLog()
        self.dumps: list[Dump] = []
        self.found: list[str] = []

    def run(self) -> list[str]:
        """Live, crash, live again; returns the violations."""
        workload.holder.world = self.world
        identifiers = Random(self.seed)
        original, uuid.uuid4 = uuid.uuid4, lambda: uuid.UUID(int=identifiers.getrandbits(128), version=4)
        try:
            while not self._live():
                self.clock.elapsed_seconds += self.chance.choice(self.downtimes)
        finally:
            points.armed = None
            uuid.uuid4 = original
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
        self._left = self._draw() if len(self.dumps) < self.crashes else 0
        self._freezes = self.chance.random() < self.freezing
        self._passed = 0
        self._stores: list[SimulatedStore] = []
        self._nodes: list[Node] = []
        self._loop = loop = VirtualLoop(self.clock)
        points.armed = self._pass
        try:
            contextvars.copy_context().run(loop.run_until_complete, self._work())
            finished = True
        except Crash:
            finished = False
        except (Stuck, TimeoutError, Spinning):
            self.found.append(f"I16 life {len(self.dumps)} is stuck: {standing(self.disk)}")
        except BaseExceptionGroup as group:
            self.found.append(f"life {len(self.dumps)}: {told(group)}")
        except Exception as error:
            self.found.append(f"life {len(self.dumps)}: {error!r}")
        points.armed = None
        self.found += [f"life {len(self.dumps)}: {error}" for error in loop.errors]
        self._bury()
        self.dumps.append(dump_of(self.disk))
        return bool(self.found) or finished

    def _draw(self) -> int:
        return int(self.chance.expovariate(1 / self.mean_points)) + 1

    def _bury(self) -> None:
        self._kill()
        for node in self._nodes:
            for resident in getattr(node, "residents", ()):
                resident.execution.drop()
        abandon(self._loop)
        # The operating system tells the next node that this one is dead.
        SimulatedStore(self.disk, self.clock.now).expire()

    def _kill(self) -> None:
        """From here on nothing that this life does reaches the world or the disk."""
        self.world.dead.update(range(len(self.dumps) + 1))
        self._loop.die()
        for store in self._stores:
            store.kill()

    # -- faults ------------------------------------------------------------------------------------

    def _pass(self, name: str) -> None:
        self.reached[name] += 1
        self._passed += 1
        if self._passed > _LIFE_POINTS:
            raise Spinning
        if self._left < 0:
            raise Crash
        if name == "lease.acquired" and self._frozen.is_set():
            # From here on the frozen node may write nothing: this is where its life ends.
            self.dumps.append(dump_of(self.disk))
            self.log.life = len(self.dumps)
            self._taken_over.set()
        if self._left == 1:
            self._strike(name)
        elif self._left:
            self._left -= 1

    def _strike(self, name: str) -> None:
        if self._freezes:
            self._freezes = False
            self._left = 0
            self.faults["freeze"] += 1
            self._stores[0].freeze()
            self._frozen.set()
        else:
            self.faults["crash"] += 1
            self.crashed_at[name] += 1
            self._left = -1
            self._kill()
            raise Crash

    # -- work --------------------------------------------------------------------------------------

    async def _work(self) -> None:
        self._frozen, self._taken_over = asyncio.Event(), asyncio.Event()
        working = asyncio.ensure_future(self._serve(len(self.dumps)))
        frozen = asyncio.ensure_future(self._frozen.wait())
        await asyncio.wait([working, frozen], return_when=asyncio.FIRST_COMPLETED)
        if not self._frozen.is_set():
            frozen.cancel()
            await working
            return
        await self._take_over(working)

    async def _serve(self, life: int) -> None:
        """Run a node, and its clients until they have all they want."""
        current_life.set(life)
        app, node = self._open()
        await node.open()
        async with asyncio.timeout(_LIFE_SECONDS):
            await self._pursue(app)
        await node.close()
        if node.failure is not None:
            raise node.failure

    def _open(self) -> tuple[App, Node]:
        store = SimulatedStore(self.disk, self.clock.now)
        self._stores.append(store)
        app, node = open_app(store, self.limits, Random(self.seed))
        self._nodes.append(node)
        return app, node

    async def _pursue(self, app: App) -> None:
        inside = [goal for goal in self.goals if Random(f"{self.seed} {goal[1]}").random() >= self.beside]
        outside = [goal for goal in self.goals if goal not in inside]
        client = App(SimulatedStore(self.disk, self.clock.now), processes=workload.PROCESSES)
        async with client.client(), asyncio.TaskGroup() as group:
            for one, goals in ((app, inside), (client, outside)):
                group.create_task(pursue(Client(one, self.log, self.world.repair, exact=True), goals, self.seed))

    async def _take_over(self, zombie: asyncio.Task[None]) -> None:
        """The lease of a frozen node ends and another one takes over; then the frozen one wakes up."""
        await self._refused()
        await asyncio.sleep(self.limits.lease_seconds * 1.1)
        working = asyncio.ensure_future(self._serve(len(self.dumps) + 1))
        await self._taken_over.wait()
        self._left = self._draw() if len(self.dumps) < self.crashes else 0
        await asyncio.sleep(self.chance.choice([0.0, 0.001, 0.1, 3.0]) * self.chance.random())
        self._stores[0].thaw()
        try:
            async with asyncio.timeout(self.limits.lease_seconds):
                await self._nodes[0].stopped()
        except Fenced:
            self.faults["fenced"] += 1
        except TimeoutError:
            self.found.append("I7 a node that lost its lease goes on")
        with contextlib.suppress(StoreError, ExceptionGroup, TimeoutError):
            # Its clients learn that their node is gone.
            async with asyncio.timeout(_LIFE_SECONDS):
                await zombie
        await self._nodes[0].close()
        await working

    async def _refused(self) -> None:
        """While the lease lasts nobody takes over."""
        store = SimulatedStore(self.disk, self.clock.now)
        try:
            await store.open(owner=True, name="early", lease_seconds=1)
        except StoreOwned:
            return
        self.found.append("I7 a second node took over before the lease of the first had ended")
