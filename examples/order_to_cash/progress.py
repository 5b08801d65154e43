"""How far the demo is: orders closed, rate, and the time it still takes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

ENDED = frozenset({"completed", "failed", "cancelled", "terminated"})
WINDOW = 10.0
"""Seconds that the rate is taken over."""


@dataclass(frozen=True)
class Snapshot:
    """What can be seen at one moment: the engine's instances by status, and what the services counted."""

    seconds: float
    orders: int
    closed: int
    rate: float
    counts: dict[str, int]
    stats: dict[str, dict[str, int]]

    @property
    def share(self) -> float:
        """The part of the orders that is closed in the CRM."""
        return self.closed / self.orders if self.orders else 1.0

    @property
    def in_flight(self) -> int:
        """Instances that have not ended."""
        return sum(count for status, count in self.counts.items() if status not in ENDED)

    @property
    def retries(self) -> int:
        """Requests that the services had seen before."""
        return sum(figures.get("repeats", 0) for figures in self.stats.values())

    @property
    def eta(self) -> float | None:
        """Seconds it still takes at this rate."""
        return (self.orders - self.closed) / self.rate if self.rate else None


class Progress:
    """Turns what is seen now and then into a rate."""

    def __init__(self, orders: int) -> None:
        self._orders = orders
        self._seen: deque[tuple[float, int]] = deque()

    def closed(self, stats: dict[str, dict[str, int]]) -> int:
        """Orders that are closed in the CRM."""
        return stats["crm"].get("won", 0) + stats["crm"].get("lost", 0)

    def at(self, seconds: float, counts: dict[str, int], stats: dict[str, dict[str, int]]) -> Snapshot:
        """The snapshot of a moment."""
        closed = self.closed(stats)
        self._seen.append((seconds, closed))
        while self._seen[0][0] < seconds - WINDOW:
            self._seen.popleft()
        since, before = self._seen[0]
        rate = (closed - before) / (seconds - since) if seconds > since else 0.0
        return Snapshot(seconds, self._orders, closed, rate, counts, stats)
