"""A worker: claims steps of queues, runs them, and says what they came to. It owns nothing and journals nothing."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from dalsegno.engine.claims import Attempt, attempt_of, outcome_of, written
from dalsegno.engine.jobs import AsyncSteps, ThreadSteps
from dalsegno.engine.process_steps import ProcessSteps
from dalsegno.errors import AttemptTimedOut, StoreError, UsageError
from dalsegno.kernel.definition import StepSpec
from dalsegno.kernel.limits import Limits
from dalsegno.kernel.ports import Store
from dalsegno.kernel.work import Claim, Hold, WorkBeat, WorkEnd, WorkRow

T = TypeVar("T")

#: cancellations are looked for at a ring, but no more often than this
_WATCH_SECONDS = 0.2
#: how long a store that refuses is left alone
_PATIENCE_SECONDS = 0.2
_GRACE_SECONDS = 30.0


class Worker:
    """Serves queues of a store until it is stopped.

    Parameters: `store`, open beside the node; `namespace`; `queues`; `specs`, the steps it can run, by name;
    `concurrency`, how many it runs at once; `name`.
    """

    log = logging.getLogger("dalsegno.worker")

    def __init__(
        self,
        store: Store,
        namespace: str,
        queues: Sequence[str],
        specs: Mapping[str, StepSpec],
        limits: Limits,
        *,
        concurrency: int = 10,
        name: str | None = None,
    ) -> None:
        self.name = name or f"{os.uname().nodename}-{os.getpid()}"
        self._store = store
        self._namespace = namespace
        self._queues = list(queues)
        self._specs = dict(specs)
        self._limits = limits
        self._lease_seconds = limits.lease_seconds
        self._concurrency = concurrency
        #: what it has claimed and not said the last word about
        self._held: dict[int, Attempt] = {}
        self._busy = 0
        self._ends: list[WorkEnd] = []
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        #: attempts that ended, well or not
        self.ended = 0

    # -- life --------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Begin to serve."""
        loop = self._loop = asyncio.get_running_loop()
        self._rung, self._changed, self._told, self._beats = (asyncio.Event() for _ in range(4))
        self._quiet = asyncio.Event()
        self._async = AsyncSteps(loop, self._concurrency, self._finished)
        self._threads = ThreadSteps(loop, self._limits, self._finished)
        self._processes = ProcessSteps(loop, self._limits, self._finished)
        self._executors: dict[str, Any] = {"async": self._async, "thread": self._threads, "process": self._processes}
        self._proven_at = loop.time()
        self._store.on_ring(self._hear)
        works = (self._serve(), self._listen(), self._tell(), self._beat(), self._watch())
        self._tasks = [loop.create_task(work) for work in works]

    def _hear(self) -> None:
        self._rung.set()
        self._changed.set()

    async def stopped(self) -> None:
        """Wait until something ends it that it didn't foresee. Raises that."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def close(self, grace_seconds: float = _GRACE_SECONDS) -> None:
        """Claim nothing more, let running steps end; what takes longer than the grace goes to other workers."""
        self._stopping = True
        self._rung.set()
        try:
            async with asyncio.timeout(grace_seconds):
                while self._held:
                    self._quiet.clear()
                    await self._quiet.wait()
        except TimeoutError:
            pass
        left = list(self._held.values())
        for attempt in left:
            self._let_go(attempt)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(executor.close() for executor in self._executors.values()))
        if left:
            await self._give_back([attempt.claim for attempt in left])

    async def _give_back(self, claims: list[Claim]) -> None:
        self.log.warning("worker %r gives %d running steps back: they are done again", self.name, len(claims))
        try:
            await self._store.return_work(self._namespace, claims)
        except StoreError as error:
            self.log.warning("worker %r can't reach the store, its leases end by themselves: %s", self.name, error)

    # -- claiming ----------------------------------------------------------------------------------

    async def _serve(self) -> None:
        while True:
            self._rung.clear()
            claimed, again = await self._claim_all()
            if self._stopping or not (claimed and self._room):
                await self._until_rung(again)

    @property
    def _room(self) -> int:
        return 0 if self._stopping else self._concurrency - self._busy

    async def _until_rung(self, again_seconds: float | None) -> None:
        poll = self._limits.poll_seconds
        # A full worker is rung when a step of its own ends.
        wait = poll if again_seconds is None or not self._room else min(poll, again_seconds)
        try:
            async with asyncio.timeout(wait):
                await self._rung.wait()
        except TimeoutError:
            pass

    async def _claim_all(self) -> tuple[int, float | None]:
        """Claim from each queue in turn, the one that comes first this time being the last the next time."""
        claimed, again = 0, None
        for queue in list(self._queues):
            if self._room <= 0:
                break
            found = await self._patiently(self._claim, queue)
            claimed += len(found.work)
            if found.again_seconds is not None:
                again = min(again or found.again_seconds, found.again_seconds)
            for row in found.work:
                self._begin(row)
        self._queues.append(self._queues.pop(0))
        return claimed, again

    async def _claim(self, queue: str) -> Any:
        lease = self._lease_seconds
        return await self._store.claim_work(self._namespace, queue, self._room, self.name, lease, self._specs.keys())

    def _begin(self, row: WorkRow) -> None:
        try:
            attempt = attempt_of(row, self._specs[row.step], self._record)
        except Exception as error:
            # Arguments that its code can't read.
            self._ends.append(WorkEnd(claim=Claim(row.id, row.token), outcome=written(error)))
            self._told.set()
            return
        self._held[row.id] = attempt
        self._busy += 1
        attempt.beat_at = self._loop.time()
        self._expect_heartbeat(attempt)
        self._executors[attempt.call.spec.executor].submit(attempt)

    # -- while they run ----------------------------------------------------------------------------

    def _record(self, attempt: Any, details: Any) -> None:
        """A heartbeat, which may come from a thread; details are stored soon, the lease is prolonged anyway."""
        attempt.beat_at = self._loop.time()
        if details is not None and attempt.note(details):
            self._loop.call_soon_threadsafe(self._beats.set)

    def _expect_heartbeat(self, attempt: Attempt) -> None:
        limit = attempt.call.spec.heartbeat_timeout_seconds
        if limit is not None:
            self._loop.call_at(attempt.beat_at + limit, self._check_heartbeat, attempt, limit)

    def _check_heartbeat(self, attempt: Attempt, limit: float) -> None:
        if self._held.get(attempt.row.id) is not attempt or attempt.over:
            return
        if self._loop.time() < attempt.beat_at + limit:
            self._expect_heartbeat(attempt)
            return
        late = AttemptTimedOut(f"{attempt.describe()} sent no heartbeat for {limit:g} s; its outcome is unknown")
        self._end(attempt, None, late)
        self._cancel(attempt)

    async def _listen(self) -> None:
        """Ask to be rung, again and again; a ring that is lost costs the time of a poll."""
        while True:
            await self._store.changed(self._limits.poll_seconds)
            await asyncio.sleep(min(1.0, self._limits.poll_seconds))

    async def _beat(self) -> None:
        """Prolong the leases a few times in their length, sooner where there are details to keep."""
        while True:
            try:
                async with asyncio.timeout(self._lease_seconds / 3):
                    await self._beats.wait()
                await asyncio.sleep(min(1.0, self._lease_seconds / 10))
            except TimeoutError:
                pass
            self._beats.clear()
            await self._prove()

    async def _prove(self) -> None:
        attempts = list(self._held.values())
        beats = [WorkBeat(claim=attempt.claim, details=attempt.taken()) for attempt in attempts]
        try:
            if beats:
                holds = await self._store.beat_work(self._namespace, beats, self._lease_seconds)
                self._heed(attempts, holds)
            self._proven_at = self._loop.time()
        except StoreError as error:
            self.log.warning("worker %r can't prolong its leases: %s", self.name, error)
            for attempt, beat in zip(attempts, beats, strict=True):
                attempt.unsaid = attempt.unsaid or beat.details
            if self._loop.time() - self._proven_at > self._lease_seconds:
                self._heed(attempts, ["lost"] * len(attempts))

    async def _watch(self) -> None:
        """Learn of cancellations as soon as they are written."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            attempts = list(self._held.values())
            if attempts:
                try:
                    self._heed(attempts, await self._store.held_work([attempt.claim for attempt in attempts]))
                except StoreError:
                    # The next heartbeat tells.
                    pass
            await asyncio.sleep(_WATCH_SECONDS)

    def _heed(self, attempts: Sequence[Attempt], holds: Sequence[Hold]) -> None:
        for attempt, hold in zip(attempts, holds, strict=True):
            if hold != "held" and not attempt.over and self._held.get(attempt.row.id) is attempt:
                if hold == "lost":
                    self.log.warning("%s is no longer ours: it is stopped here", attempt.describe())
                    self._let_go(attempt)
                else:
                    self._cancel(attempt)

    def _let_go(self, attempt: Attempt) -> None:
        """Whatever it comes to, it counts no more."""
        self._held.pop(attempt.row.id, None)
        self._quiet.set()
        self._cancel(attempt)

    def _cancel(self, attempt: Attempt) -> None:
        if not attempt.cancelled:
            self._executors[attempt.call.spec.executor].cancel(attempt)

    # -- ends --------------------------------------------------------------------------------------

    def _finished(self, job: Any, value: Any, error: BaseException | None) -> None:
        """An executor's report."""
        self._busy -= 1
        self._rung.set()
        self._end(job, value, error)

    def _end(self, attempt: Attempt, value: Any, error: BaseException | None) -> None:
        if attempt.over:
            return
        attempt.over = True
        self.ended += 1
        if self._held.get(attempt.row.id) is attempt:
            outcome = outcome_of(attempt, value, error, self._limits.payload_bytes)
            self._ends.append(WorkEnd(claim=attempt.claim, outcome=outcome))
            self._told.set()

    async def _tell(self) -> None:
        """Write outcomes, all that are there in one commit; an outcome whose reply is lost is said again."""
        while True:
            await self._told.wait()
            self._told.clear()
            ends, self._ends = self._ends, []
            counted = await self._patiently(self._store.complete_work, self._namespace, ends)
            for end, counts in zip(ends, counted, strict=True):
                attempt = self._held.pop(end.claim.id, None)
                if not counts and attempt is not None:
                    self.log.warning("%s was taken over by another worker: this outcome is dropped", attempt.describe())
            self._quiet.set()

    async def _patiently(self, work: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Ask a store again until it answers: a worker outlives a database that is being restarted."""
        while True:
            try:
                return await work(*args)
            except StoreError as error:
                self.log.warning("worker %r waits for the store: %s", self.name, error)
                await asyncio.sleep(_PATIENCE_SECONDS)


def check_concurrency(concurrency: int) -> int:
    """A number of steps that can run at once. Raises `UsageError`."""
    if concurrency < 1:
        raise UsageError(f"concurrency={concurrency}: a worker runs at least 1 step at once")
    return concurrency
