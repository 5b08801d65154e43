"""Where the time went: how long each step and wait took, from the histories of the instances."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from dalsegno import App
from dalsegno.kernel.entries import (
    Answered,
    Asked,
    AttemptFailed,
    EventAwaited,
    EventReceived,
    Record,
    StepCompleted,
    StepStarted,
)

SAMPLE = 5_000
OCCURRENCE = re.compile(r"#[0-9]+$")
MICROSECONDS = 1e6


@dataclass(frozen=True)
class StepTimes:
    """How long a step took, all its attempts and the pauses between them included."""

    step: str
    seconds: tuple[float, ...]
    attempts: int

    @property
    def times(self) -> int:
        """How often it was done."""
        return len(self.seconds)

    @property
    def median(self) -> float:
        """Half of them took longer."""
        return self.quantile(0.5)

    @property
    def p95(self) -> float:
        """One in twenty took longer."""
        return self.quantile(0.95)

    @property
    def longest(self) -> float:
        """None took longer."""
        return self.seconds[-1]

    def quantile(self, share: float) -> float:
        """The value that a share of them does not exceed."""
        return self.seconds[min(len(self.seconds) - 1, int(share * len(self.seconds)))]


async def slowest_steps(client: App, process: str) -> list[StepTimes]:
    """The steps and waits of a process, slowest first, from its latest instances."""
    times: dict[str, list[tuple[float, int]]] = defaultdict(list)
    async for instance in client.list(process=process, limit=SAMPLE):
        for step, seconds, attempts in durations(await client.get(instance.id).history()):
            times[step].append((seconds, attempts))
    found = [
        StepTimes(step, tuple(sorted(seconds for seconds, _ in each)), sum(attempts for _, attempts in each))
        for step, each in times.items()
    ]
    return sorted(found, key=lambda each: each.p95, reverse=True)


def durations(history: Iterable[Record]) -> Iterable[tuple[str, float, int]]:
    """Each step and wait of one instance: name, seconds, attempts."""
    since: dict[str, int] = {}
    for record in history:
        match record.entry:
            case StepStarted(step=name, started_at=at) | AttemptFailed(step=name, started_at=at):
                since.setdefault(name, at or record.at)
            case EventAwaited(operation=name) | Asked(operation=name):
                since[name] = record.at
            case StepCompleted(step=name, started_at=at, attempt=attempt):
                yield _took(name, since.get(name, at or record.at), record.at, attempt)
            case EventReceived(wait=name) | Answered(operation=name) if name in since:
                yield _took(name, since[name], record.at, 1)


def _took(name: str, since: int, until: int, attempts: int) -> tuple[str, float, int]:
    return OCCURRENCE.sub("", name), max(0, until - since) / MICROSECONDS, attempts
