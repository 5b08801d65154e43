"""One node in a lab, from its start to its crash: the real engine on a virtual loop."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, TypeVar, cast

import msgspec

from dalsegno.app import App
from dalsegno.authoring.process import Process
from dalsegno.engine.node import Node
from dalsegno.kernel import points
from dalsegno.kernel.definition import ProcessSpec
from dalsegno.kernel.limits import Limits
from dalsegno.kernel.ports import Store
from dalsegno.stores.memory.disk import Disk
from dalsegno.stores.memory.store import MemoryStore
from dalsegno.testing.clock import Clock
from dalsegno.testing.loop import VirtualLoop
from dalsegno.testing.stage import Stage
from dalsegno.testing.steps import LabSteps

T = TypeVar("T")

_NEVER_SECONDS = 1000 * 365 * 86400.0
"""Housekeeping is put off for a thousand years: in virtual time every look at the clock would be a jump."""


class Crash(SystemExit):
    """The node dies here. asyncio lets a `SystemExit` through from the depth of any callback or task."""


class Stuck(AssertionError):
    """What is waited for can't happen any more."""


class LabApp(App):
    """An `App` whose node takes its steps and its luck from the lab."""

    def __init__(
        self,
        store: MemoryStore,
        *,
        namespace: str,
        processes: Iterable[Process[Any, Any]] | None,
        limits: Limits,
        stage: Stage,
        chance: random.Random,
        known: Iterable[ProcessSpec] = (),
    ) -> None:
        super().__init__(cast("Store", store), namespace=namespace, processes=processes, limits=limits, name="lab")
        self._stage = stage
        self._chance = chance
        self._known = known
        #: the node, also while it opens
        self.made: Node | None = None

    def _make_node(self, store: Store, specs: list[ProcessSpec]) -> Node:
        steps = partial(LabSteps, stage=self._stage)
        declared = {(spec.name, spec.version): spec.function.__module__ for spec in specs}
        # What ran before the crash goes on, also where another module declares a process of the same name meanwhile.
        others = [spec for spec in self._known if declared.get((spec.name, spec.version)) != spec.function.__module__]
        self.made = Node(
            store, [*specs, *others], self.limits, name="lab", shadow_replay=True, chance=self._chance, steps=steps
        )
        return self.made

    @property
    def node(self) -> Node:
        """The node."""
        assert self.made is not None
        return self.made


def without_housekeeping(limits: Limits) -> Limits:
    """Limits under which nothing happens by the clock but what instances wait for."""
    if limits.poll_seconds == _NEVER_SECONDS:
        return limits
    return msgspec.structs.replace(
        limits,
        lease_seconds=_NEVER_SECONDS,
        timer_window_seconds=_NEVER_SECONDS,
        poll_seconds=_NEVER_SECONDS,
        figures_seconds=_NEVER_SECONDS,
    )


class Life:
    """A node that runs. `armed` is called at each named point of the write path, and may raise `Crash`."""

    def __init__(
        self, disk: Disk, clock: Clock, make_app: Callable[[MemoryStore], LabApp], armed: Callable[[str], None] | None
    ) -> None:
        self.clock = clock
        self.armed = armed
        self.loop = VirtualLoop(clock)  # type: ignore[abstract]
        self.store = MemoryStore(disk, clock.now)
        self.app = make_app(self.store)

    @property
    def known(self) -> list[ProcessSpec]:
        """The processes that its node has code for."""
        return list(self.app.node.definitions)

    def open(self, until: int) -> None:
        """Start the node: recover what an earlier one left behind."""
        self.finish(self.app.__aenter__(), until)

    def settle(self) -> None:
        """Run until everything waits. Raises what nobody handled."""
        before = points.armed
        if self.armed is not None:
            points.armed = self._pass_point
        try:
            self.loop.settle()
        finally:
            points.armed = before
        node = self.app.made
        if node is not None and node.failure is not None:
            raise AssertionError(f"the node stopped: {node.failure}") from node.failure
        if self.loop.unhandled:
            raise AssertionError("an error that nobody handled, in the engine or a step") from self.loop.unhandled.pop(
                0
            )

    def _pass_point(self, name: str) -> None:
        assert self.armed is not None
        try:
            self.armed(name)
        except Crash as crash:
            self.loop.died = crash
            raise

    def jump(self, until: int) -> bool:
        """Move time to what is due next, if that is by then, and run it."""
        if not self.loop.jump(until):
            return False
        self.settle()
        return True

    def finish(self, work: Coroutine[Any, Any, T], until: int) -> T:
        """Run until some work is done; time jumps as far as it has to. Raises `Stuck`."""
        task = self.loop.create_task(work)
        self.settle()
        while not task.done():
            if not self.jump(until):
                task.cancel()
                self.settle()
                raise Stuck
        return cast("T", task.result())

    def crash(self) -> None:
        """Die as by kill -9: nothing runs any more, nothing is written, the lease is not given back."""
        self.store.crash()

    def bury(self) -> None:
        """Free what the dead node left in memory; nothing of it acts."""
        node = self.app.made
        if node is not None:
            for resident in getattr(node, "residents", ()):
                resident.execution.drop()
            node.let_go()
        self.loop.abandon()
