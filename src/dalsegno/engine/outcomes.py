"""How attempts end: results, failures, retries, journaled in plain callbacks of the node's loop."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from dalsegno.engine.jobs import Job
from dalsegno.engine.transactions import encoded_result
from dalsegno.errors import AttemptTimedOut, ContractError, DalsegnoError, OutcomeUnknown
from dalsegno.kernel import entries as e
from dalsegno.kernel.context import current_step
from dalsegno.kernel.fault import capture
from dalsegno.kernel.points import reach

if TYPE_CHECKING:
    from dalsegno.engine.node import Node

_SWEEP_SECONDS = 0.25
_DRAINED_AT_ONCE = 128


class Outcomes:
    """Journals what attempts came to, and watches those that take long."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._done: deque[tuple[Job, Any, BaseException | None]] = deque()
        self._watched: deque[Job] = deque()
        self._slow: set[Job] = set()
        self._sweeping = False
        self._draining = False
        self._payload_bytes = node.limits.payload_bytes
        self.shadow_failures: list[str] = []

    # -- ended -------------------------------------------------------------------------------------

    def add(self, job: Job, value: Any, error: BaseException | None) -> None:
        """An attempt ended."""
        self._done.append((job, value, error))
        if not self._draining:
            self._draining = True
            self._node.loop.call_soon(self._drain)

    def _drain(self) -> None:
        done = self._done
        for _ in range(min(len(done), _DRAINED_AT_ONCE)):
            self._settle(*done.popleft())
        if done:
            # The rest follows in the loop's next turn: what is ready so far is being written meanwhile.
            self._node.loop.call_soon(self._drain)
        else:
            self._draining = False

    def run_inline(self, job: Job) -> None:
        """Run an `executor="inline"` step right here."""
        token = current_step.set(job.context)
        try:
            value = job.call.spec.function(*job.call.args, **job.call.kwargs)
        except Exception as error:
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
        self._slow.discard(job)
        if error is None:
            reach("result.before")
            try:
                result = encoded_result(job, value, self._payload_bytes)
            except ContractError as refused:
                self._fail(job, refused)
            else:
                entry = e.StepCompleted(call.key, call.arguments, msgspec.Raw(result), job.attempt, job.started_at)
                self._node.turns.advance(resident, entry)
                reach("undo.after" if call.key.startswith("undo:") else "result.appended")
        elif isinstance(error, asyncio.CancelledError):
            self._cancelled(job)
        else:
            self._fail(job, error)
        if resident.paused:
            self._node.operations.leave_if_quiet(resident)

    def _cancelled(self, job: Job) -> None:
        if job.call.cancelled:
            unknown = job.call.unknown or job.task is not None or job.started_at > 0
            self._node.turns.advance(job.resident, e.StepCancelled(job.call.key, unknown=unknown))
        elif not self._node.closing:
            # The step cancelled itself: for its process that is a failure like any other.
            self._fail(job, DalsegnoError(f"{job.describe()} raised CancelledError"))

    def _fail(self, job: Job, error: BaseException) -> None:
        call = job.call
        retry = call.spec.retry
        unknown = call.unknown or isinstance(error, (TimeoutError, AttemptTimedOut, OutcomeUnknown))
        fault = capture(error)
        turns = self._node.turns
        if call.cancelled:
            turns.advance(job.resident, e.StepCancelled(call.key, unknown=unknown))
            return
        final = retry.is_final(job.attempt, error)
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
            self._node.operations.park(
                job.resident, f"step {call.key!r} failed {job.attempt} times, the last time with {fault.message}"
            )

    # -- slow --------------------------------------------------------------------------------------

    def watch(self, job: Job) -> None:
        """Look at an attempt again if it takes long."""
        self._watched.append(job)
        if not self._sweeping:
            self._sweeping = True
            self._node.loop.call_later(_SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        node = self._node
        if node.closing or node.failure is not None:
            return
        slow_since = node.store.now() - int(node.limits.slow_step_seconds * 1e6)
        watched = self._watched
        while watched and (self._is_over(watched[0]) or watched[0].started_at <= slow_since):
            job = watched.popleft()
            if not self._is_over(job):
                self._slow.add(job)
                self._remark_start(job)
        for job in list(self._slow):
            if self._is_over(job):
                self._slow.discard(job)
            else:
                self._check_heartbeat(job)
        if watched or self._slow:
            node.loop.call_later(_SWEEP_SECONDS, self._sweep)
        else:
            self._sweeping = False

    @staticmethod
    def _is_over(job: Job) -> bool:
        return job.resident.gone or job.resident.jobs.get(job.call.key) is not job

    def _remark_start(self, job: Job) -> None:
        call = job.call
        self._node.turns.remark(
            job.resident, e.StepStarted(call.key, job.attempt, msgspec.Raw(call.encoded), job.started_at)
        )

    def _check_heartbeat(self, job: Job) -> None:
        limit = job.call.spec.heartbeat_timeout_seconds
        if limit is None:
            return
        if job.beat_at == 0.0:
            job.beat_at = time.monotonic()
        elif time.monotonic() - job.beat_at > limit:
            del job.resident.jobs[job.call.key]
            self._node.cancel_job(job)
            self._fail(
                job, AttemptTimedOut(f"{job.describe()} sent no heartbeat for {limit:g} s; its outcome is unknown")
            )
