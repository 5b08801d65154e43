"""Steps that take long: journaled as started for those who watch, and failed when their heartbeats stop."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from dalsegno.engine.jobs import Job
from dalsegno.errors import AttemptTimedOut
from dalsegno.kernel import entries as e

if TYPE_CHECKING:
    from dalsegno.engine.node import Node

_SWEEP_SECONDS = 0.25


class SlowSteps:
    """Looks a few times a second at the steps that were running a moment ago."""

    def __init__(self, node: Node) -> None:
        self._node = node
        # Names, not jobs: a finished instance must not stay in memory for having been watched.
        self._watched: deque[tuple[int, int, str]] = deque()
        self._slow: set[Job] = set()
        self._sweeping = False

    def watch(self, job: Job) -> None:
        """Look at an attempt again if it takes long."""
        self._watched.append((job.started_at, job.resident.key, job.call.key))
        if not self._sweeping:
            self._sweeping = True
            self._node.loop.call_later(self._pause_seconds(), self._sweep)

    def _sweep(self) -> None:
        node = self._node
        if node.closing or node.failure is not None:
            return
        slow_since = node.store.now() - int(node.limits.slow_step_seconds * 1e6)
        watched = self._watched
        while watched and watched[0][0] <= slow_since:
            self._look(*watched.popleft())
        for job in list(self._slow):
            if _is_over(job):
                self._slow.discard(job)
            else:
                self._check_heartbeat(job)
        if watched or self._slow:
            node.loop.call_later(self._pause_seconds(), self._sweep)
        else:
            self._sweeping = False

    def _pause_seconds(self) -> float:
        """Until the oldest attempt counts as slow; no longer than a moment where heartbeats are looked at."""
        if self._slow:
            return _SWEEP_SECONDS
        young = (self._node.store.now() - self._watched[0][0]) / 1e6
        return max(_SWEEP_SECONDS, self._node.limits.slow_step_seconds - young)

    def _look(self, started_at: int, key: int, step: str) -> None:
        resident = self._node.residents.get(key)
        job = resident.jobs.get(step) if resident is not None else None
        if job is not None and job.started_at == started_at and not _is_over(job):
            if job.call.spec.heartbeat_timeout_seconds is not None:
                self._slow.add(job)
            arguments = msgspec.Raw(job.call.encoded)
            self._node.turns.remark(job.resident, e.StepStarted(step, job.attempt, arguments, started_at))

    def _check_heartbeat(self, job: Job) -> None:
        limit = job.call.spec.heartbeat_timeout_seconds
        assert limit is not None
        if job.beat_at == 0.0:
            job.beat_at = self._node.loop.time()
        elif self._node.loop.time() - job.beat_at > limit:
            del job.resident.jobs[job.call.key]
            self._node.steps.cancel(job)
            self._node.outcomes.fail(
                job, AttemptTimedOut(f"{job.describe()} sent no heartbeat for {limit:g} s; its outcome is unknown")
            )


def _is_over(job: Job) -> bool:
    return job.resident.gone or job.resident.jobs.get(job.call.key) is not job
