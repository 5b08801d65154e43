"""Dispatching steps: the attempt's own record, the executor that runs it, its heartbeats."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from dalsegno.contracts import codec
from dalsegno.engine.jobs import AsyncSteps, Job, ThreadSteps
from dalsegno.engine.process_steps import ProcessSteps
from dalsegno.engine.resident import Resident
from dalsegno.kernel import entries as e
from dalsegno.kernel import points
from dalsegno.kernel.calls import StepCall
from dalsegno.kernel.ports import Heartbeat

if TYPE_CHECKING:
    from dalsegno.engine.node import Node


class Steps:
    """Runs steps on the executor that their declaration names."""

    #: whether it runs what is on a queue itself
    serves_queues = False

    def __init__(self, node: Node) -> None:
        self._node = node
        self._now = node.store.now
        report = node.outcomes.add
        self._async = AsyncSteps(node.loop, node.limits.running_steps, report)
        self._threads = ThreadSteps(node.loop, node.limits, report)
        self._processes = ProcessSteps(node.loop, node.limits, report)
        self._submit = {
            "async": self._async.submit,
            "thread": self._threads.submit,
            "process": self._processes.submit,
            "transaction": node.transactions.submit,
            "inline": node.outcomes.run_inline,
        }
        self._cancel = {
            "async": self._async.cancel,
            "thread": self._threads.cancel,
            "process": self._processes.cancel,
        }

    @property
    def backlog(self) -> int:
        """Steps that wait for room."""
        return self._async.backlog

    def dispatch(self, resident: Resident, call: StepCall) -> None:
        """Run a step now: everything its process has seen is durable."""
        node = self._node
        if resident.gone or resident.paused or node.closing:
            return
        if not node.when_owned(lambda: self.dispatch(resident, call)):
            return
        if call.cancelled:
            resident.jobs.pop(call.key, None)
            node.turns.advance(resident, e.StepCancelled(call.key, unknown=call.unknown))
            return
        job = resident.jobs[call.key] = Job(resident, call, self._now(), self.record)
        if points.armed is not None:
            points.reach("undo.before" if call.undoes else "dispatch.before")
        if call.attempt > 1 or call.unknown:
            node.spawn(self._resume(job))
        else:
            self._begin(job)

    async def _resume(self, job: Job) -> None:
        """A later attempt may resume from what an earlier one recorded."""
        details = await self._node.store.heartbeat(job.resident.key, job.call.key)
        if details is not None:
            job.details = codec.decode(details)
        self._node.loop.call_soon(self._begin, job)

    def _begin(self, job: Job) -> None:
        if job.resident.gone or self._node.closing:
            # The next node begins it.
            job.resident.jobs[job.call.key] = None
            return
        if job.cancelled:
            self._node.outcomes.add(job, None, asyncio.CancelledError())
            return
        self._node.slow.watch(job)
        self._submit[job.call.spec.executor](job)
        if points.armed is not None:
            points.reach("dispatch.after")

    def cancel(self, job: Job) -> None:
        """Stop a running step; one whose executor can't be stopped is left to end."""
        job.cancelled = True
        cancel = self._cancel.get(job.call.spec.executor)
        if cancel is not None:
            cancel(job)

    def record(self, job: Job, details: Any) -> None:
        """A heartbeat, which may come from a thread; its details are written once in a while."""
        job.beat_at = self._node.loop.time()
        pace = min(1.0, (job.call.spec.heartbeat_timeout_seconds or 3.0) / 3)
        if details is not None and job.beat_at - job.recorded_at >= pace:
            job.recorded_at = job.beat_at
            self._node.loop.call_soon_threadsafe(self._write, job, codec.encode(details, "heartbeat details"))

    def _write(self, job: Job, details: bytes) -> None:
        if job.resident.gone:
            return
        beat = Heartbeat(
            instance=job.resident.key, step=job.call.key, attempt=job.attempt, at=self._now(), details=details
        )
        job.resident.beats = True
        self._node.committer.batch.heartbeats.append(beat)
        self._node.committer.touch()

    async def close(self) -> None:
        """End what still runs."""
        await self._async.close()
        await self._threads.close()
        await self._processes.close()
