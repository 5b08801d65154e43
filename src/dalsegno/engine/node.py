"""A node: owns a store's instances, runs their steps, keeps its lease."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from dalsegno.engine import interpreter, watchdog
from dalsegno.engine.commits import Committer
from dalsegno.engine.definitions import Definitions
from dalsegno.engine.inbox import Inbox
from dalsegno.engine.meter import Meter
from dalsegno.engine.operations import Operations
from dalsegno.engine.outcomes import Outcomes
from dalsegno.engine.parking import Parking
from dalsegno.engine.queued import Queued
from dalsegno.engine.recovery import Recovery
from dalsegno.engine.resident import Resident
from dalsegno.engine.residents import Residents, Waking
from dalsegno.engine.results import Results
from dalsegno.engine.shadow import check_replay
from dalsegno.engine.slow import SlowSteps
from dalsegno.engine.starts import Starts
from dalsegno.engine.steps import Steps
from dalsegno.engine.stored import Stored
from dalsegno.engine.timers import Timers
from dalsegno.engine.transactions import Transactions
from dalsegno.engine.turns import Turns
from dalsegno.errors import DalsegnoError, StoreError
from dalsegno.kernel import entries as e
from dalsegno.kernel import guard, points
from dalsegno.kernel.definition import ProcessSpec
from dalsegno.kernel.limits import Limits
from dalsegno.kernel.points import reach
from dalsegno.kernel.ports import Batch, Committed, InstanceRow, Store

_GRACE_SECONDS = 5.0


class Node:
    """Runs the instances of one store until it is closed or the store can't go on."""

    log = logging.getLogger("dalsegno.engine")

    def __init__(
        self,
        store: Store,
        specs: Iterable[ProcessSpec],
        limits: Limits,
        *,
        name: str | None = None,
        shadow_replay: bool = False,
        chance: random.Random | None = None,
        steps: Callable[[Node], Steps] = Steps,
    ) -> None:
        self.store = store
        self.limits = limits
        self.name = name or f"{os.uname().nodename}-{os.getpid()}"
        self.definitions = Definitions(specs)
        self.chance = chance or random.Random()
        self.failure: BaseException | None = None
        self._shadow_replay = shadow_replay
        self._shadows = 0
        self._make_steps = steps
        self._tasks: set[asyncio.Task[Any]] = set()
        self.closing = False
        self._stopped = asyncio.Event()
        self._watched: int | None = None

    # -- life --------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Take the lease, recover, and run. Raises `StoreOwned` and other store errors."""
        self.loop = asyncio.get_running_loop()
        limits = self.limits
        self.store.knows(self.definitions.codes)
        await self.store.open(owner=True, name=self.name, lease_seconds=limits.lease_seconds)
        interpreter.tune()
        guard.install()
        self._watched = watchdog.watch(limits.turn_seconds)
        self.committer = Committer(self.store, self.loop, self._after_commit, self._failed)
        self.residents = Residents(limits.resident_instances)
        self.results = Results()
        self.waking = Waking(self)
        self.starts = Starts(self)
        self.parking = Parking(self)
        self.stored = Stored(self)
        self.operations = Operations(self)
        self.turns = Turns(self)
        self.inbox = Inbox(self)
        self.outcomes = Outcomes(self)
        self.timers = Timers(self.store, self.loop, limits.timer_window_seconds, self._due, self.settled)
        self.transactions = Transactions(self)
        self.slow = SlowSteps(self)
        self.steps = self._make_steps(self)
        self.queued = Queued(self)
        self.meter = Meter(self)
        self._lease_ends = self.loop.time() + limits.lease_seconds
        self._late: list[Callable[[], None]] = []
        self.spawn(self._keep_lease())
        self.recovery = Recovery(self)
        self._discoveries: list[asyncio.Task[Any]] = []
        try:
            await self.recovery.recover()
            await self._move_window()
        except BaseException:
            await self.close()
            raise
        self.spawn(self._keep_window())
        self._discoveries.append(self.spawn(self.inbox.run()))
        if self.store.shared:
            self._discoveries.append(self.spawn(self.recovery.run()))
        self._discoveries.append(self.spawn(self.queued.run()))
        self.inbox.look()

    def guarded(self, work: Callable[..., None], *args: Any) -> None:
        """Do something in a callback of the loop; an error nobody foresaw stops the node, which a restart mends."""
        try:
            work(*args)
        except Exception as error:
            self.log.exception("node %r met an error it did not foresee", self.name)
            self._failed(error)

    async def close(self) -> None:
        """Let running steps end, write what they did, give the lease back."""
        self.closing = True
        deadline = self.loop.time() + _GRACE_SECONDS
        if self.failure is None:
            if self.store.shared:
                await self._hand_over()
            while (self._running_jobs() or self._shadows) and self.loop.time() < deadline and self.failure is None:
                await self.pause()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.steps.close()
        self.timers.close()
        self._drop_residents()
        try:
            # A commit may begin what was started, which writes again.
            while self.failure is None and not self.committer.idle:
                await self.settled()
            while self._shadows and self.failure is None and self.loop.time() < deadline:
                await self.pause()
        except StoreError:
            # `_failed` has reported it; the journal holds what was acknowledged.
            pass
        closed = self.failure or DalsegnoError(f"node {self.name!r} was closed")
        self.committer.fail(closed)
        self.operations.fail(closed)
        self.results.fail(closed)
        self._drop_residents()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.store.close()
        self.let_go()
        self._stopped.set()

    async def _hand_over(self) -> None:
        """What nothing runs for here goes on elsewhere at once; nothing new is taken."""
        for task in self._discoveries:
            task.cancel()
        await asyncio.gather(*self._discoveries, return_exceptions=True)
        self.timers.close()
        await self.settled()
        quiet = [resident for resident in self.residents if resident.quiet]
        for resident in quiet:
            self.residents.evict(resident)
        await self.store.release([resident.key for resident in quiet])

    def let_go(self) -> None:
        """Give back what the node changed in this interpreter; a node that is only dropped must be let go of too."""
        if self._watched is not None:
            interpreter.restore()
            watchdog.unwatch(self._watched)
            self._watched = None

    def _drop_residents(self) -> None:
        for resident in self.residents:
            resident.gone = True
            resident.execution.drop()

    def _running_jobs(self) -> bool:
        return any(job is not None for resident in self.residents for job in resident.jobs.values())

    def _failed(self, error: BaseException) -> None:
        """The store can't go on: stop at once, so that nothing acts on what may not be stored."""
        if self.failure is not None:
            return
        self.failure = error
        self.log.critical("node %r stops: %s", self.name, error)
        for resident in self.residents:
            resident.gone = True
            for job in resident.jobs.values():
                if job is not None:
                    self.steps.cancel(job)
            resident.execution.drop()
        self.timers.close()
        self.committer.fail(error)
        self.operations.fail(error)
        self.results.fail(error)
        self._stopped.set()

    async def stopped(self) -> None:
        """Wait until the node stops. Raises what stopped it."""
        await self._stopped.wait()
        if self.failure is not None:
            raise self.failure

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something beside the instances; if it fails, the node stops."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    def _reap(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    async def turn(self) -> None:
        """Let everything that is ready run once."""
        await asyncio.sleep(0)

    async def pause(self) -> None:
        """Wait a moment for others to get on."""
        await asyncio.sleep(0.002)

    async def rung(self, wanted: asyncio.Event) -> None:
        """Wait until something is wanted, or it is time to look anyway."""
        try:
            async with asyncio.timeout(self.limits.poll_seconds):
                await wanted.wait()
        except TimeoutError:
            pass
        wanted.clear()

    def owns(self, row: InstanceRow) -> bool:
        """Whether an instance is this node's, and not another's or nobody's."""
        return not self.store.shared or row.owner == self.store.epoch

    async def settled(self) -> None:
        """Wait until everything written so far is durable."""
        await self.committer.durable()

    async def _keep_lease(self) -> None:
        while True:
            await self.meter.pause()
            asked_at = self.loop.time()
            await self.store.renew(self.limits.lease_seconds, self.meter.shown())
            self._lease_ends = asked_at + self.limits.lease_seconds
            late, self._late = self._late, []
            for begin in late:
                self.loop.call_soon(self.guarded, begin)

    def when_owned(self, begin: Callable[[], None]) -> bool:
        """Whether the lease lasts. A node that was frozen may have a successor: it looks before it begins anything."""
        if self.loop.time() < self._lease_ends:
            return True
        self._late.append(begin)
        return False

    async def _move_window(self) -> None:
        await self.timers.scan()
        # What runs has no timer in its row: its memory holds it.
        for resident in self.residents:
            if not (resident.gone or resident.paused):
                self.turns.arm(resident)

    async def _keep_window(self) -> None:
        while True:
            await asyncio.sleep(self.limits.timer_window_seconds / 2)
            await self._move_window()
            oldest = self.store.now() - int(self.limits.event_retention_seconds * 1e6)
            await self.store.forget_events(oldest, 10_000)
            await self.queued.forget()

    # -- commits -----------------------------------------------------------------------------------

    def _after_commit(self, batch: Batch, found: Committed) -> None:
        self.guarded(self._committed, batch, found)

    def _committed(self, batch: Batch, found: Committed) -> None:
        for start, key in zip(batch.starts, found.start_keys, strict=True):
            self.starts.committed(start, key)
        for (start, _), key in zip(batch.copies, found.copy_keys, strict=True):
            start.tag(key)
        for work, (entry, error) in zip(batch.transactions, found.transactions, strict=True):
            self.transactions.committed(work, entry, error)
        dispatch = self.steps.dispatch
        for resident, call in batch.dispatches:
            dispatch(resident, call)
        for callback in batch.after:
            callback()
        if found.matches:
            self.inbox.matched(found.matches)
        # Instances refer to the batch of their last entry: what it held would refer back to them.
        batch.after = []
        batch.dispatches = []
        batch.starts = []
        batch.transactions = []

    def ended(self, resident: Resident, entry: e.Ended) -> None:
        """An instance's end is durable."""
        if points.armed is not None:
            points.reach("end.committed")
        self.residents.remove(resident)
        resident.execution.drop()
        self.results.ended(resident.key, entry)
        if self._shadow_replay and entry.outcome != "terminated":
            self._shadows += 1
            self.spawn(self._shadow(resident.key, resident.execution.spec))

    async def _shadow(self, key: int, spec: ProcessSpec) -> None:
        loaded = await self.store.load([key])
        self.loop.call_soon(self._check_shadow, loaded, spec)

    def _check_shadow(self, loaded: list[Any], spec: ProcessSpec) -> None:
        self._shadows -= 1
        for item in loaded:
            try:
                check_replay(item, spec, self.limits)
            except DalsegnoError as error:
                self.shadow_failures.append(f"instance {item.row.id!r} ({spec.name}) replays differently: {error}")
                self.log.error(self.shadow_failures[-1])

    @property
    def shadow_failures(self) -> list[str]:
        """Runs whose replay said something else than the live run."""
        return self.outcomes.shadow_failures

    # -- timers ------------------------------------------------------------------------------------

    def _due(self, keys: list[int]) -> None:
        for key in keys:
            self.guarded(self.waking.wake, key, self._ring)

    def _ring(self, resident: Resident) -> None:
        """Deliver what is due, one timer at a time."""
        if resident.held:
            resident.queue.append(lambda: self._ring(resident))
            return
        resident.timer_at = 0
        moment = self.store.now()
        while not (resident.gone or resident.paused or resident.held):
            timer = resident.execution.next_timer()
            if timer is None or round(timer[0] * 1e6) > moment:
                break
            reach("timer.before")
            self.turns.advance(resident, e.TimerFired(timer[1]))
            reach("timer.appended")
        if resident.gone or resident.paused:
            return
        for name, at in list(resident.backoffs.items()):
            call = resident.execution.pending.get(name)
            if at <= moment:
                del resident.backoffs[name]
                if call is not None:
                    self.turns.dispatch(resident, call)
        self.turns.absorb(resident, moment)
