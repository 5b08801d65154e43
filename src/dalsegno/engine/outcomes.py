"""How attempts end: results, failures, retries, journaled in plain callbacks of the node's loop."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from dalsegno.contracts import codec
from dalsegno.engine.jobs import Job
from dalsegno.engine.transactions import encoded_result
from dalsegno.errors import AttemptTimedOut, ContractError, DalsegnoError, OutcomeUnknown
from dalsegno.kernel import entries as e
from dalsegno.kernel import points
from dalsegno.kernel.context import current_step
from dalsegno.kernel.fault import Fault, capture
from dalsegno.kernel.points import reach

if TYPE_CHECKING:
    from dalsegno.engine.node import Node

_DRAINED_AT_ONCE = 128


class Outcomes:
    """Journals what attempts came to."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._done: deque[tuple[Job, Any, BaseException | None]] = deque()
        self._draining = False
        self._payload_bytes = node.limits.payload_bytes
        self.shadow_failures: list[str] = []

    def add(self, job: Job, value: Any, error: BaseException | None) -> None:
        """An attempt ended."""
        self._done.append((job, value, error))
        if not self._draining:
            self._draining = True
            self._node.loop.call_soon(self._drain)

    def _drain(self) -> None:
        done = self._done
        for _ in range(min(len(done), _DRAINED_AT_ONCE)):
            self._node.guarded(self._settle, *done.popleft())
        if done:
            # The rest follows in the loop's next turn: what is ready so far is being written meanwhile.
            self._node.loop.call_soon(self._drain)
        else:
            self._draining = False

    def run_inline(self, job: Job) -> None:
        """Run an `executor="inline"` step right here."""
        token = current_step.set(job)
        try:
            value = job.call.spec.function(*job.call.args, **job.call.kwargs)
        except (Exception, SystemExit) as error:
            self.add(job, None, error)
        else:
            self.add(job, value, None)
        finally:
            current_step.reset(token)

    def _settle(self, job: Job, value: Any, error: BaseException | None) -> None:
        resident, call = job.resident, job.call
        if resident.held:
            resident.queue.append(lambda: self._settle(job, value, error))
            return
        if resident.gone or resident.jobs.get(call.key) is not job:
            return
        del resident.jobs[call.key]
        if error is None:
            if points.armed is not None:
                points.reach("result.before")
            try:
                # Nobody asks for what an undo returns.
                result = codec.NULL if call.undoes else encoded_result(job, value, self._payload_bytes)
            except ContractError as refused:
                self._lose_result(job, refused)
            else:
                entry = e.StepCompleted(call.key, call.arguments, msgspec.Raw(result), job.attempt, job.started_at)
                self._node.turns.advance(resident, entry)
                if points.armed is not None:
                    points.reach("undo.after" if call.undoes else "result.appended")
        elif isinstance(error, asyncio.CancelledError):
            self._cancelled(job)
        else:
            self.fail(job, error)
        if resident.paused:
            self._node.parking.leave_if_quiet(resident)

    def _cancelled(self, job: Job) -> None:
        if job.call.cancelled:
            unknown = job.call.unknown or job.task is not None or job.started_at > 0
            self._node.turns.advance(job.resident, e.StepCancelled(job.call.key, unknown=unknown))
        elif not self._node.closing:
            # The step cancelled itself: for its process that is a failure like any other.
            self.fail(job, DalsegnoError(f"{job.describe()} raised CancelledError"))

    def _lose_result(self, job: Job, refused: ContractError) -> None:
        """The effect took place, but its result can't be kept: journaled as that, whatever the retry policy says."""
        call, fault = job.call, capture(refused)
        if call.cancelled:
            self._node.turns.advance(job.resident, e.StepCancelled(call.key, unknown=True))
        else:
            failed = e.StepFailed(call.key, call.arguments, fault, job.attempt, True, job.started_at)
            self._node.turns.advance(job.resident, failed)

    def fail(self, job: Job, error: BaseException, fault: Fault | None = None, final: bool = False) -> None:
        """An attempt failed: it is tried again, or its step has failed for good.

        Parameters: `fault`, the error as another process captured it; `final`, no attempt is to follow.
        """
        call = job.call
        retry = call.spec.retry
        unknown = call.unknown or isinstance(error, (TimeoutError, AttemptTimedOut, OutcomeUnknown))
        fault = fault or capture(error)
        turns = self._node.turns
        if call.cancelled:
            turns.advance(job.resident, e.StepCancelled(call.key, unknown=unknown))
            return
        final = final or retry.is_final(job.attempt, error)
        if final and retry.then == "fail":
            failed = e.StepFailed(call.key, call.arguments, fault, job.attempt, unknown, job.started_at)
            turns.advance(job.resident, failed)
            return
        wait = 0.0 if final else retry.wait_seconds(job.attempt, self._node.chance.random())
        next_at = self._node.store.now() + int(wait * 1e6)
        job.resident.backoffs[call.key] = next_at
        turns.advance(job.resident, e.AttemptFailed(call.key, job.attempt, fault, next_at, unknown, job.started_at))
        reach("attempt_failed.appended")
        if final:
            self._node.parking.park(
                job.resident, f"step {call.key!r} failed {job.attempt} times, the last time with {fault.message}"
            )
