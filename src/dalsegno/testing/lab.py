"""The lab: processes on the real engine, in virtual time, in plain tests."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from dalsegno.authoring.process import Process
from dalsegno.contracts import codec
from dalsegno.contracts.duration import Duration
from dalsegno.contracts.event import Event
from dalsegno.engine.requests import Request
from dalsegno.engine.starts import IfExists
from dalsegno.errors import Refused
from dalsegno.gateway import event_row
from dalsegno.instance import Task
from dalsegno.kernel.limits import Limits
from dalsegno.kernel.ports import FINAL, InstanceRow
from dalsegno.stores.memory.disk import Disk
from dalsegno.stores.memory.store import MemoryStore
from dalsegno.testing import crashes
from dalsegno.testing.clock import Clock, microseconds
from dalsegno.testing.doubles import Double
from dalsegno.testing.life import Crash, LabApp, Life, Stuck, without_housekeeping
from dalsegno.testing.replay import replay
from dalsegno.testing.run import LabRun
from dalsegno.testing.stage import Call, Stage

T = TypeVar("T")

_LONG = "3650d"


class Lab:
    """A place to try processes: the real engine on a store in memory, with time that jumps when everything waits.

    Parameters: `seed`, by which two runs of a test are alike to the last entry; `start`, the date it begins at;
    `namespace`; `processes` (every declared one where none are given); `limits`.

    >>> from dalsegno import process, step
    >>> import asyncio
    >>> @process
    ... async def wait_a_month() -> str:
    ...     await asyncio.sleep(30 * 86400)
    ...     return "done"
    >>> with Lab() as lab:
    ...     lab.run(wait_a_month), lab.now.date().isoformat()
    ('done', '2026-01-31')
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        start: str | datetime = "2026-01-01",
        namespace: str = "default",
        processes: Iterable[Process[Any, Any]] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.seed = seed
        self.namespace = namespace
        self.limits = without_housekeeping(limits or Limits())
        self._start = start
        self._processes = None if processes is None else list(processes)
        self._clock = Clock(start)
        self._disk = Disk()
        self._stage = Stage(self._clock)
        self._lives: list[Life] = []
        self._down = True
        self._numbers: dict[str, int] = {}
        self._shadow_failures: list[str] = []
        self._armed: Callable[[str], None] | None = None

    def fresh(self) -> Lab:
        """Another lab like this one before anything happened in it: same seed, same doubles, nothing on disk."""
        lab = Lab(
            seed=self.seed,
            start=self._start,
            namespace=self.namespace,
            processes=self._processes,
            limits=self.limits,
        )
        lab._stage = self._stage.fresh(lab._clock)
        return lab

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close(check=error is None)

    def close(self, check: bool = True) -> None:
        """Free everything. Raises `AssertionError` where a finished run replays differently."""
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
        if self._lives and self._life.app._node is not None:
            self._shadow_failures += self._life.app.shadow_failures

    # -- the node ----------------------------------------------------------------------------------

    @property
    def app(self) -> LabApp:
        """The `App` that runs in the lab, for code that wants one; it lives until the next crash."""
        return self._alive().app

    @property
    def _life(self) -> Life:
        return self._lives[-1]

    def _alive(self) -> Life:
        while self._down:
            life = Life(self._disk, self._clock, self._make_app, self._armed)
            self._lives.append(life)
            self._down = False
            try:
                life.open(self._until(_LONG))
            except Crash:
                self._die()
        return self._life

    def arm(self, callback: Callable[[str], None] | None) -> None:
        """Have something called at each named point of the write path, in this node and the next ones."""
        self._armed = self._alive().armed = callback

    def _make_app(self, store: MemoryStore) -> LabApp:
        return LabApp(
            store,
            namespace=self.namespace,
            processes=self._processes,
            limits=self.limits,
            stage=self._stage,
            chance=random.Random(f"{self.seed}/{len(self._lives)}"),
        )

    def crash(self, down: Duration = 0) -> None:
        """Kill the node as `kill -9` would, and start another on the same disk after a while."""
        self._alive()
        self._die()
        self._clock.move(down)
        self._alive()

    def _die(self) -> None:
        self._note_shadow_failures()
        self._life.crash()
        self._down = True

    def _until(self, within: Duration) -> int:
        return self._clock.elapsed + microseconds(within)

    def wait(self, work: Callable[[], Coroutine[Any, Any, T]], otherwise: str) -> T:
        """Do something with the node and wait for it; after a crash the next node is asked again."""
        while True:
            life = self._alive()
            try:
                return life.finish(work(), self._until(_LONG))
            except Crash:
                self._die()
            except Stuck:
                raise Stuck(self._stuck(otherwise)) from None

    def ask_once(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        """Do something that is refused a second time; after a crash the refusal says that it was done."""
        deaths = len(self._lives)
        try:
            return self.wait(work, "the node doesn't answer")
        except Refused:
            if len(self._lives) == deaths or not deaths:
                raise
            return None

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

    def advance(self, duration: Duration) -> None:
        """Let time pass: everything due meanwhile happens at its time."""
        until = self._until(duration)
        self._pass_time(until)
        self._clock.elapsed = max(self._clock.elapsed, until)
        self._pass_time(until)

    def _pass_time(self, until: int) -> None:
        while True:
            life = self._alive()
            try:
                life.settle()
                while life.jump(until):
                    pass
                return
            except Crash:
                self._die()

    def until_idle(self, within: Duration = _LONG) -> None:
        """Let time jump until nothing is due any more: all that is left waits for events and people.

        Raises `Stuck` where something is still due after that time, as with a process that never ends.
        """
        until = self._until(within)
        self._pass_time(until)
        if self._alive().loop.jump(self._until(_LONG)):
            raise Stuck(f"after {within} the lab is still busy at {self.now}:" + self._stuck("").partition("\n")[2])

    # -- processes ---------------------------------------------------------------------------------

    def start(
        self,
        process: Process[..., T],
        *args: Any,
        id: str | None = None,
        if_exists: IfExists = "same",
        by: str | None = None,
        **kwargs: Any,
    ) -> LabRun[T]:
        """Start an instance and let it run until it waits; time stands still."""
        name = id if id is not None else self.next_id(process.name)
        self.wait(
            lambda: self.app.start(process, *args, id=name, if_exists=if_exists, by=by, **kwargs),
            f"{process.name} doesn't start",
        )
        return LabRun(self, name, process.spec.result_type)

    def run(self, process: Process[..., T], *args: Any, id: str | None = None, **kwargs: Any) -> T:
        """Run a process to its end; returns its result or raises its error. Time jumps as far as it has to."""
        return self.start(process, *args, id=id, **kwargs).result()

    def get(self, id: str) -> LabRun[Any]:
        """A handle to an instance, such as a child."""
        return LabRun(self, id, Any)

    def publish(self, event: Event, *, to: str | None = None, id: str | None = None) -> str:
        """Publish an event; returns its id. The same `id` twice is the same event."""
        event_id = id or self.next_id("event")

        async def put() -> None:
            node = self.app.node
            node.committer.batch.events.append(event_row(self.namespace, event, to, self._clock.now(), event_id))
            await node.settled()

        self.wait(put, "the event can't be stored")
        return event_id

    def tasks(self, role: str | None = None, state: str | None = "open") -> Sequence[Task]:
        """Questions to people, oldest first."""
        return self.wait(lambda: self.app.tasks(role, state), "the node doesn't answer")

    def answer(self, role_or_task: str, value: Any, by: str | None = None) -> None:
        """Answer the oldest question to a role, or the task of an id; time jumps until it is asked."""
        until = self._until(_LONG)
        while not (found := [task for task in self.tasks() if role_or_task in (task.role, task.id)]):
            if not self._alive().jump(until):
                raise Stuck(self._stuck(f"{role_or_task!r} isn't asked anything"))
        self.ask_once(lambda: self.app.answer(found[0].id, value, by))

    def update(self, id: str, event: Event, by: str | None = None) -> Any:
        """Send a request to an instance and wait for the reply."""
        number = self.next_id("update")
        kind = type(event)
        request = Request(by, event_type=kind.event_type, event=msgspec.Raw(codec.encode(event)), update=number)
        reply = self.wait(
            lambda: self.app._open().request("update", self.namespace, id, request), f"{id!r} doesn't reply"
        )
        return reply if kind.event_reply is None else codec.convert(reply, kind.event_reply, "reply")

    def replay(self, journal: Any, process: Process[..., Any], *, id: str | None = None) -> None:
        """Run a stored journal through the present code. Raises `JournalMismatch` where that takes another way.

        Parameters: `journal`, a run's journal, records, or an export (a path or its text); `process`; `id` of the
        instance where the journal doesn't say it.
        """
        replay(journal, process, id=id, namespace=self.namespace, limits=self.limits)

    # -- doubles and witness -----------------------------------------------------------------------

    def double(self, step: Any) -> Double:
        """What a step, an undo function, or every step of a name does instead of its own code."""
        return self._stage.double(step)

    def calls(self, step: Any = None) -> list[Call]:
        """Every attempt of a step as the world saw it, crashes or not; of all steps where none is named."""
        return self._stage.calls(step)

    # -- crashes -----------------------------------------------------------------------------------

    def crash_at_every_entry(self, process: Process[..., Any], *args: Any, **options: Any) -> crashes.Report:
        """Run a process once for each point at which a node can die; see `dalsegno.testing.crashes`."""
        return crashes.at_every_entry(self, process, args, **options)

    # -- what is on disk ---------------------------------------------------------------------------

    def row(self, id: str) -> InstanceRow | None:
        """An instance's row."""
        key = self._disk.ids.get((self.namespace, id))
        return None if key is None else self._disk.instances[key]

    def stored(self, key: int) -> list[tuple[int, int, bytes]]:
        """The journal of an instance as it is stored."""
        return [(seq, at, entry) for seq, at, _, entry in self._disk.journals[key]]

    def ids(self) -> list[str]:
        """The ids of all instances."""
        return [row.id for row in self._disk.instances.values()]

    def next_id(self, name: str) -> str:
        """A name with the next number: the same ones in every run of a test."""
        number = self._numbers[name] = self._numbers.get(name, 0) + 1
        return f"{name}-{number}"
