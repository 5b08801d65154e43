"""An instance in memory."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from dalsegno.kernel.execution import Execution
from dalsegno.kernel.ports import Batch


class Resident:
    """What the node keeps of an instance it runs. All of it can be rebuilt from the journal."""

    __slots__ = (
        "backoffs",
        "base_seq",
        "batch",
        "beats",
        "execution",
        "gone",
        "held",
        "id",
        "jobs",
        "key",
        "namespace",
        "next_seq",
        "parent",
        "parent_operation",
        "paused",
        "queue",
        "queued",
        "status",
        "timer_at",
        "waits_for",
        "wake_at",
    )

    def __init__(self, key: int, namespace: str, id: str, execution: Execution) -> None:
        self.key = key
        self.namespace = namespace
        self.id = id
        self.execution = execution
        self.next_seq = 0
        self.base_seq = 0
        self.status = "running"
        self.wake_at: int | None = None
        self.waits_for: str | None = None
        self.timer_at = 0
        self.parent: str | None = None
        self.parent_operation: str | None = None
        self.paused = False
        self.gone = False
        #: a step recorded heartbeat details
        self.beats = False
        #: a commit is running this instance's transaction step: what arrives meanwhile waits in `queue`
        self.held = False
        self.queue: list[Callable[[], None]] = []
        #: the batch that holds the last entry
        self.batch: Batch | None = None
        self.jobs: dict[str, Any] = {}
        self.backoffs: dict[str, int] = {}
        #: steps that are on a queue, and which
        self.queued: dict[str, str] = {}

    @property
    def durable(self) -> bool:
        """Whether everything the process has seen is on disk."""
        return self.batch is None or self.batch.committed

    @property
    def quiet(self) -> bool:
        """Whether nothing runs for it, and its journal has everything."""
        running = any(job is not None for job in self.jobs.values())
        return self.durable and not (running or self.held or self.gone)

    def next_wake(self) -> int | None:
        """When something is due next: a timer or the end of a backoff."""
        timer = self.execution.next_timer()
        wake = None if timer is None else round(timer[0] * 1e6)
        if self.backoffs:
            earliest = min(self.backoffs.values())
            wake = earliest if wake is None else min(wake, earliest)
        return wake

    def waiting_for(self) -> str:
        """What the process waits for, in words."""
        execution = self.execution
        parts = []
        for wait in list(execution.waits.values())[:3]:
            wanted = ", ".join(f"{k}={v!r}" for k, v in wait.match.items())
            parts.append(f"event {wait.event_type.event_type}({wanted})")
        parts += [f"answer from {ask.role}" for ask in list(execution.asks.values())[:3]]
        children = execution.children
        if len(children) == 1:
            parts.append(f"child {next(iter(children.values())).id}")
        elif children:
            parts.append(f"{len(children)} children")
        parts += [f"step {name} on queue {queue}" for name, queue in list(self.queued.items())[:3]]
        if len(self.queued) > 3:
            parts.append(f"{len(self.queued) - 3} further steps on queues")
        parts += [f"next attempt of {name} at {_clock(at)}" for name, at in list(self.backoffs.items())[:3]]
        timer = execution.next_timer()
        if timer is not None:
            parts.append(f"timer at {_clock(round(timer[0] * 1e6))}")
        return "; ".join(parts) or "nothing it has named"


def _clock(at: int) -> str:
    return datetime.fromtimestamp(at / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
