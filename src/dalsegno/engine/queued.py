"""Steps on queues, the node's side: handed out in the commit that dispatches them, taken up once workers are done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from dalsegno.contracts import codec
from dalsegno.contracts.codec import EMPTY
from dalsegno.engine.jobs import Job
from dalsegno.engine.resident import Resident
from dalsegno.errors import AttemptTimedOut, DalsegnoError, DefinitionError, LimitExceeded, StepFailed, WorkerLost
from dalsegno.kernel import entries as e
from dalsegno.kernel.calls import StepCall
from dalsegno.kernel.fault import Fault, capture, restore
from dalsegno.kernel.ports import Heartbeat
from dalsegno.kernel.work import WorkRow

if TYPE_CHECKING:
    from dalsegno.engine.node import Node

_PAGE = 1_000
_MOST_KEY = 200
_REMEMBERED_SECONDS = 3600


class Outcome(msgspec.Struct, omit_defaults=True):
    """What a worker says an attempt came to: a result, an error, or that it stopped because it was to."""

    result: msgspec.Raw = EMPTY
    error: Fault | None = None
    cancelled: bool = False
    #: whether it took effect can't be told
    unknown: bool = False
    #: no attempt is to follow, whatever the retry policy says
    final: bool = False


_read_outcome = msgspec.json.Decoder(Outcome).decode


class Queued:
    """Hands out attempts, and journals what they came to."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._wanted = asyncio.Event()
        #: ended attempts that were taken up or whose instance is set aside, with their instance and operation
        self._known: dict[int, tuple[int, str]] = {}
        self._calls: dict[tuple[int, str], int] = {}
        #: told of each commit with work for others, by those in this very process
        self.announced: list[Callable[[], None]] = []
        node.store.on_ring(self._wanted.set)

    # -- out ---------------------------------------------------------------------------------------

    def hand_out(self, resident: Resident, call: StepCall) -> None:
        """Put an attempt on its queue, with the commit of everything its process has seen."""
        try:
            key = _queue_key(call)
        except Exception as error:
            # The user's function: it fails its step, as the step's own code would.
            self._node.loop.call_soon(self._node.guarded, self._refuse, resident, call, error)
            resident.jobs[call.key] = None
            return
        self._put(resident, call, key, cancelled=False)

    def _refuse(self, resident: Resident, call: StepCall, error: Exception) -> None:
        resident.jobs.pop(call.key, None)
        failure = DefinitionError(f"step {call.key!r} of instance {resident.id!r}: its key function failed: {error!r}")
        self._node.outcomes.fail(_QueuedJob(resident, call, None, self._node.store.now()), failure)

    def withdraw(self, resident: Resident, call: StepCall) -> None:
        """The process no longer waits for it: its worker is to stop; what no worker has begun ends at once."""
        self._put(resident, call, "", cancelled=True)

    def _put(self, resident: Resident, call: StepCall, key: str, cancelled: bool) -> None:
        node, spec = self._node, call.spec
        assert spec.queue is not None
        resident.queued[call.key] = spec.queue
        batch = node.committer.batch
        batch.work.append(
            WorkRow(
                namespace=resident.namespace,
                queue=spec.queue,
                instance=resident.key,
                instance_id=resident.id,
                operation=call.key,
                attempt=call.attempt,
                step=spec.name,
                step_key=resident.execution.step_key(call.key),
                arguments=call.encoded,
                at=node.store.now(),
                priority=spec.priority,
                key=key,
                timeout_seconds=spec.timeout_seconds,
                heartbeat_timeout_seconds=spec.heartbeat_timeout_seconds,
                most_claims=node.limits.crashes_before_parking,
                cancelled=cancelled,
            )
        )
        resident.batch = batch
        # It may have ended already, while its instance was set aside or another node had it.
        ended = self._calls.pop((resident.key, call.key), None)
        self._known.pop(ended or 0, None)
        batch.after.append(self._look if cancelled or ended else self._announce)
        node.committer.touch()

    def _announce(self) -> None:
        for callback in self.announced:
            callback()

    def _look(self) -> None:
        self._wanted.set()
        self._announce()

    # -- in ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take up what workers have done until cancelled: at a ring, and once in a while."""
        while True:
            await self._node.rung(self._wanted)
            await self.collect()

    async def collect(self) -> None:
        """Read what has ended and hand it to its instances."""
        node = self._node
        while True:
            rows = await node.store.work_done(_PAGE, self._known)
            for row in rows:
                self._note(row)
            if rows:
                # Process code must not be entered from within a task.
                node.loop.call_soon(self._deliver, rows)
            if len(rows) < _PAGE:
                return
            await node.turn()

    def _note(self, row: WorkRow) -> None:
        self._known[row.id] = (row.instance, row.operation)
        self._calls[row.instance, row.operation] = row.id

    def _forget(self, row: WorkRow) -> None:
        self._known.pop(row.id, None)
        if self._calls.get((row.instance, row.operation)) == row.id:
            del self._calls[row.instance, row.operation]

    def _deliver(self, rows: list[WorkRow]) -> None:
        for row in rows:
            self._node.guarded(self._wake, row)

    def _wake(self, row: WorkRow) -> None:
        # An instance that is set aside takes it up when it goes on and wants the step again.
        self._node.waking.wake(row.instance, lambda resident: self._receive(resident, row), lambda _: None)

    def _receive(self, resident: Resident, row: WorkRow) -> None:
        if resident.held:
            resident.queue.append(lambda: self._receive(resident, row))
            return
        if resident.gone:
            self._forget(row)
            return
        call = resident.execution.pending.get(row.operation)
        batch = self._node.committer.batch
        batch.ended_work.append(row.id)
        batch.after.append(lambda: self._forget(row))
        self._node.committer.touch()
        if call is not None and _is_of(row, resident, call):
            resident.queued.pop(row.operation, None)
            self._settle(_QueuedJob(resident, call, row, self._node.store.now()), row)

    def _settle(self, job: _QueuedJob, row: WorkRow) -> None:
        """Journal what an attempt came to, in the commit that takes it off its queue."""
        call = job.call
        outcome = _outcome(row, job)
        # Whoever claimed it before and was lost may have done it.
        call.unknown = call.unknown or outcome.unknown or row.claims > 1
        if outcome.error is not None:
            self._keep_details(row)
            error = restore(outcome.error)
            self._node.outcomes.fail(job, error, outcome.error, outcome.final)
        elif outcome.cancelled and call.cancelled:
            unknown = call.unknown or row.claims > 0
            self._node.turns.advance(job.resident, e.StepCancelled(call.key, unknown=unknown))
        elif outcome.cancelled:
            self._node.outcomes.fail(job, DalsegnoError(f"{job.describe()} was cancelled by its worker"))
        else:
            self._complete(job, row, bytes(outcome.result) or codec.NULL)
        if job.resident.paused:
            self._node.parking.leave_if_quiet(job.resident)

    def _complete(self, job: _QueuedJob, row: WorkRow, result: bytes) -> None:
        call = job.call
        entry = e.StepCompleted(
            call.key, call.arguments, msgspec.Raw(result), job.attempt, job.started_at, by=row.worker
        )
        self._node.turns.advance(job.resident, entry)

    def _keep_details(self, row: WorkRow) -> None:
        """What an attempt recorded, for the next one to resume from."""
        if row.details is not None:
            beat = Heartbeat(
                instance=row.instance,
                step=row.operation,
                attempt=row.attempt,
                at=self._node.store.now(),
                details=row.details,
            )
            self._node.committer.batch.heartbeats.append(beat)

    async def forget(self) -> None:
        """Drop what was kept for workers that repeat their last word."""
        await self._node.store.forget_work(self._node.store.now() - _REMEMBERED_SECONDS * 1_000_000, 100_000)


class _QueuedJob(Job):
    """An attempt that a worker made."""

    __slots__ = ("worker",)

    def __init__(self, resident: Resident, call: StepCall, row: WorkRow | None, moment: int) -> None:
        began_at = moment if row is None or row.began_at is None else row.began_at
        super().__init__(resident, call, began_at, lambda *_: None)
        self.worker = None if row is None else row.worker


def _is_of(row: WorkRow, resident: Resident, call: StepCall) -> bool:
    """Whether a row is this very call's: a former run may have had one of the same name."""
    return call.attempt == row.attempt and resident.execution.step_key(call.key) == row.step_key


def _queue_key(call: StepCall) -> str:
    if call.spec.queue_key is None:
        return ""
    found: Any = call.spec.queue_key(*call.args, **call.kwargs)
    return str(found)[:_MOST_KEY].replace("\x00", "")


def _outcome(row: WorkRow, job: _QueuedJob) -> Outcome:
    """What an attempt came to, in its worker's words or for want of them."""
    if row.ended == "told":
        return _told(row, job)
    if row.ended == "cancelled":
        return Outcome(cancelled=True)
    if row.ended == "late":
        limit = row.timeout_seconds or 0
        error: StepFailed = AttemptTimedOut(
            f"{job.describe()} didn't end within {limit:g} s on queue {row.queue!r}; whether it took effect is unknown"
        )
        return Outcome(error=capture(error), unknown=True)
    error = WorkerLost(
        f"{job.describe()}: {row.claims} workers of queue {row.queue!r} ended while they ran it, the last one was "
        f"{row.worker!r}. It may be what ends them: look into their logs, then retry the instance."
    )
    return Outcome(error=capture(error), unknown=True, final=True)


def _told(row: WorkRow, job: _QueuedJob) -> Outcome:
    try:
        outcome = _read_outcome(row.outcome or b"{}")
    except msgspec.DecodeError as error:
        refused = StepFailed(f"{job.describe()}: worker {row.worker!r} said what can't be read: {error}")
        return Outcome(error=capture(refused), unknown=True)
    if len(outcome.result) > job.resident.execution.limits.payload_bytes:
        limit = job.resident.execution.limits.payload_bytes
        too_large = LimitExceeded(
            f"result of {job.describe()} has {len(outcome.result)} bytes, the limit is {limit} (Limits.payload_bytes). "
            "The step took effect and isn't tried again; keep the data elsewhere and return a reference."
        )
        return Outcome(error=capture(too_large), unknown=True, final=True)
    return outcome
