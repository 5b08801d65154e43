"""The lab: processes on the real engine, in virtual time, in plain tests."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from dalsegno.authoring.process import Process
from dalsegno.contracts import codec
from dalsegno.contracts.event import Event
from dalsegno.engine.requests import Request
from dalsegno.engine.starts import IfExists
from dalsegno.gateway import event_row
from dalsegno.instance import Task
from dalsegno.kernel.limits import Limits
from dalsegno.testing.crashes import Check, Report, Script, Setup, Trial
from dalsegno.testing.doubles import Double
from dalsegno.testing.replay import replay
from dalsegno.testing.run import LabRun
from dalsegno.testing.stage import Call
from dalsegno.testing.updates import ask
from dalsegno.testing.world import World

T = TypeVar("T")


class Lab(World):
    """A place to try processes: the real engine on a store in memory, with time that jumps when everything waits.

    Parameters: `seed`, by which two runs of a test are alike to the last entry; `start`, the date it begins at;
    `namespace`; `processes` (every declared one where none are given); `limits`.

    >>> from dalsegno import process
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
        super().__init__(seed, start, namespace, processes, limits)

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
        """Start an instance and let it run until it waits; time stands still. Parameters as in `App.start`."""
        name = id if id is not None else self.next_id(process.name)
        deaths = self.deaths

        async def begin() -> None:
            # Whoever asks again after a crash means the start that may have been stored before it.
            policy: IfExists = "same" if if_exists == "fail" and self.deaths > deaths else if_exists
            await self.app.start(process, *args, id=name, if_exists=policy, by=by, **kwargs)

        self.wait(begin, f"{process.name} doesn't start")
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

        def asked() -> Task | None:
            return next((task for task in self.tasks() if role_or_task in (task.role, task.id)), None)

        task = self.wait_until(asked, f"{role_or_task!r} isn't asked anything")
        self.wait_once(lambda: self.app.answer(task.id, value, by))

    def update(self, id: str, event: Event, by: str | None = None) -> Any:
        """Send a request to an instance and wait for the reply."""
        kind = type(event)
        data = msgspec.Raw(codec.encode(event))
        request = Request(by, event_type=kind.event_type, event=data, update=self.next_id("update"))
        reply = self.wait(lambda: ask(self.app, self.get(id), request), f"{id!r} doesn't reply")
        return reply if kind.event_reply is None else codec.convert(reply, kind.event_reply, "reply")

    def replay(self, journal: Any, process: Process[..., Any], *, id: str | None = None) -> None:
        """Run stored journals through the present code. Raises `JournalMismatch` where that takes another way.

        Parameters: `journal`, a run's journal, records, or an export (a path or its text); `process`; `id` of the
        instance where bare records don't say it.
        """
        replay(journal, process, id=id, namespace=self.namespace, limits=self.limits)

    # -- doubles and witness -----------------------------------------------------------------------

    def double(self, step: Any) -> Double:
        """What a step, an undo function, or every step of a name does instead of its own code."""
        return self._stage.double(step)

    def calls(self, step: Any = None) -> list[Call]:
        """Every attempt of a step as the world saw it, crashes or not; of all steps where none is named."""
        return self._stage.calls(step)

    @property
    def database(self) -> sqlite3.Connection:
        """The database that `@transaction` steps see: create their tables here, and look at what they wrote."""
        return self._disk.guest.connection

    # -- crashes -----------------------------------------------------------------------------------

    def crash_at_every_entry(
        self,
        process: Process[..., Any],
        *args: Any,
        check: Check | None = None,
        script: Script | None = None,
        setup: Setup | None = None,
        points: Collection[str] | None = None,
        **kwargs: Any,
    ) -> Report:
        """Run a process once for each point at which a node can die; crash there, go on, and check what came of it.

        The points are those the engine names in its write path: before and after each commit, dispatch, effect and
        entry. Each run has a lab of its own, with this one's seed and doubles.

        Parameters: `process` and its arguments; `check(run, lab)`, called when everything has ended or waits (without
        it the end must be the one of a run without crashes, with the same idempotency keys); `script(lab, run)`, what
        happens meanwhile: answers, events; `setup(lab)`, called before the start; `points`, names of points where not
        all are wanted. Raises `AssertionError` with the points at which a check failed.
        """
        return Trial(self, process, args, kwargs, script, setup, check, points).at_every_point()

    def crash_at_random(
        self,
        process: Process[..., Any],
        *args: Any,
        times: int = 100,
        crashes: int = 3,
        check: Check | None = None,
        script: Script | None = None,
        setup: Setup | None = None,
        points: Collection[str] | None = None,
        **kwargs: Any,
    ) -> Report:
        """Run a process so many times, each with several crashes at random; also while the node recovers.

        Parameters as in `crash_at_every_entry`; `times`, runs; `crashes` in each.
        """
        return Trial(self, process, args, kwargs, script, setup, check, points).at_random(times, crashes)
