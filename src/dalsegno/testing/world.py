"""The world of a lab: a disk, a clock, and one node after the other that lives in it."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Iterable
from datetime import datetime
from typing import Any, TypeVar

from dalsegno.authoring.process import Process
from dalsegno.contracts.duration import Duration
from dalsegno.errors import Refused
from dalsegno.kernel.limits import Limits
from dalsegno.kernel.ports import FINAL, InstanceRow
from dalsegno.stores.memory.disk import Disk
from dalsegno.stores.memory.store import MemoryStore
from dalsegno.testing.clock import Clock, microseconds
from dalsegno.testing.life import Crash, LabApp, Life, Stuck, without_housekeeping
from dalsegno.testing.stage import Stage

T = TypeVar("T")

_LIMITS = without_housekeeping(Limits())

LONG = "3650d"
"""How far time jumps for somebody who waits."""


class World:
    """Drives the nodes: makes the next one when one has died, and lets time pass."""

    def __init__(
        self,
        seed: int,
        start: str | datetime,
        namespace: str,
        processes: Iterable[Process[Any, Any]] | None,
        limits: Limits | None,
    ) -> None:
        self.seed = seed
        self.namespace = namespace
        self.limits = without_housekeeping(limits) if limits is not None else _LIMITS
        self._start = start
        self._processes = None if processes is None else list(processes)
        self._clock = Clock(start)
        self._disk = Disk()
        self._stage = Stage(self._clock)
        self._lives: list[Life] = []
        self._down = True
        self._armed: Callable[[str], None] | None = None
        self._shadow_failures: list[str] = []
        self._numbers: dict[str, int] = {}

    def close(self, check: bool = True) -> None:
        """Free everything. Raises `AssertionError` where a finished run replays differently, unless told not to."""
        try:
            if check and not self._down:
                self._life.settle()
            self._note_shadow_failures()
        finally:
            for life in self._lives:
                life.bury()
            self._lives.clear()
            self._down = True
        if check and self._shadow_failures:
            raise AssertionError(
                "process code isn't deterministic: a run that goes on after a crash would take another way.\n"
                + "\n".join(self._shadow_failures)
            )

    def _note_shadow_failures(self) -> None:
        if self._lives:
            self._shadow_failures += list(self._life.app.shadow_failures)

    # -- the node ----------------------------------------------------------------------------------

    @property
    def app(self) -> LabApp:
        """The `App` that runs in the lab, for code that wants one; after a crash there is another."""
        return self._alive().app

    @property
    def _life(self) -> Life:
        return self._lives[-1]

    @property
    def deaths(self) -> int:
        """How many nodes have died so far."""
        return len(self._lives) - (not self._down)

    def _alive(self) -> Life:
        while self._down:
            life = Life(self._disk, self._clock, self._make_app, self._armed)
            self._lives.append(life)
            self._down = False
            try:
                life.open(self._until(LONG))
            except Crash:
                self._die()
        return self._life

    def _make_app(self, store: MemoryStore) -> LabApp:
        return LabApp(
            store,
            namespace=self.namespace,
            processes=self._processes,
            limits=self.limits,
            stage=self._stage,
            chance=random.Random(f"{self.seed}/{len(self._lives)}"),
            known=self._lives[-1].known if self._lives else (),
        )

    def arm(self, callback: Callable[[str], None] | None) -> None:
        """Have something called at each named point of the write path, in this node and the next ones."""
        self._armed = self._alive().armed = callback

    def crash(self, down: Duration = 0) -> None:
        """Kill the node as `kill -9` would; after a while another one starts on the same disk."""
        self._alive()
        self._die()
        self._clock.move(down)
        self._alive()

    def _die(self) -> None:
        self._note_shadow_failures()
        self._life.crash()
        self._down = True

    # -- waiting -----------------------------------------------------------------------------------

    def wait(self, work: Callable[[], Coroutine[Any, Any, T]], otherwise: str) -> T:
        """Do something with the node and wait for it; after a crash the next node is asked again."""
        while True:
            life = self._alive()
            try:
                return life.finish(work(), self._until(LONG))
            except Crash:
                self._die()
            except Stuck:
                raise Stuck(self._stuck(otherwise)) from None

    def wait_once(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        """Do something that is refused a second time: a refusal after a crash says that it was done before it."""
        self._alive()
        deaths = self.deaths
        try:
            return self.wait(work, "the node doesn't answer")
        except Refused:
            if self.deaths == deaths:
                raise
            return None

    def wait_until(self, done: Callable[[], T | None], otherwise: str) -> T:
        """Let time jump until something is there."""
        until = self._until(LONG)
        while True:
            self._pass_time(self._clock.elapsed)
            found = done()
            if found is not None:
                return found
            if not self._step(until):
                raise Stuck(self._stuck(otherwise))

    def _stuck(self, what: str) -> str:
        lines = [
            f"  {row.id} ({row.process}) is {row.status}"
            + (f", waiting for {row.waiting_for}" if row.waiting_for else "")
            + (f": {row.error}" if row.error else "")
            for row in self._disk.instances.values()
            if row.status not in FINAL
        ]
        remedy = "Publish what is waited for, answer what is asked, or double the step that doesn't end."
        return f"{what}: nothing more is due. {remedy}\n" + "\n".join(lines or ["  every instance has ended"])

    # -- time --------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The time in the lab, in UTC."""
        return self._clock.date

    def _until(self, within: Duration) -> int:
        return self._clock.elapsed + microseconds(within)

    def advance(self, duration: Duration) -> None:
        """Let time pass: everything due meanwhile happens at its time."""
        until = self._until(duration)
        self._pass_time(until)
        self._clock.elapsed = max(self._clock.elapsed, until)
        self._pass_time(until)

    def until_idle(self, within: Duration = LONG) -> None:
        """Let time jump until nothing is due any more: all that is left waits for events and people.

        Raises `Stuck` where something is still due after that time, as with a process that never ends.
        """
        until = self._until(within)
        while True:
            self._pass_time(self._clock.elapsed)
            if not self._is_busy():
                return
            if not self._step(until):
                raise Stuck(f"the lab isn't idle after {within}:\n" + self._stuck("").partition("\n")[2])

    def _is_busy(self) -> bool:
        rows = reversed(self._disk.instances.values())
        return any(row.status == "running" or (row.status == "waiting" and row.wake_at is not None) for row in rows)

    def _step(self, until: int) -> bool:
        """Let happen what is due next; false where nothing is."""
        life = self._alive()
        try:
            return life.jump(until)
        except Crash:
            self._die()
            return True

    def _pass_time(self, until: int) -> None:
        while True:
            try:
                self._alive().settle()
            except Crash:
                self._die()
            else:
                if not self._step(until):
                    return

    # -- what is on disk ---------------------------------------------------------------------------

    def row(self, id: str) -> InstanceRow | None:
        """An instance's row."""
        key = self._disk.ids.get((self.namespace, id))
        return None if key is None else self._disk.instances[key]

    def stored(self, id: str) -> list[tuple[int, int, bytes]]:
        """The journal of an instance as it is stored."""
        return [(seq, at, entry) for seq, at, _, entry in self._disk.journals[self._disk.ids[self.namespace, id]]]

    def ids(self) -> list[str]:
        """The ids of all instances."""
        return [row.id for row in self._disk.instances.values()]

    def next_id(self, name: str) -> str:
        """A name with the next number: the same ones in every run of a test."""
        number = self._numbers[name] = self._numbers.get(name, 0) + 1
        return f"{name}-{number}"
