"""Timers: a heap over a window of time; what lies further away stays on disk."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable

from dalsegno.kernel.ports import Store

_PAGE = 5_000


class Timers:
    """Tells when an instance is due. Knows keys, not instances; a wrong hint costs a look, nothing else."""

    def __init__(
        self,
        store: Store,
        loop: asyncio.AbstractEventLoop,
        window_seconds: float,
        due: Callable[[list[int]], None],
        settled: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._loop = loop
        self._window = int(window_seconds * 1e6)
        self._due = due
        self._heap: list[tuple[int, int]] = []
        self._settled = settled
        self._known_until = 0
        self._handle: asyncio.TimerHandle | None = None
        self._handle_at = 0
        self._latest = 0

    def set(self, key: int, at: int) -> bool:
        """Ring for an instance at this time; false beyond the window, which reaches there later."""
        if at > self._known_until:
            return False
        heapq.heappush(self._heap, (at, key))
        if self._handle is None or at < self._handle_at:
            self._arm()
        return True

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._heap:
            self._handle_at = self._heap[0][0]
            delay = max(0.0, (self._handle_at - self._store.now()) / 1e6)
            self._handle = self._loop.call_later(delay, self._fire)

    def _fire(self) -> None:
        self._handle = None
        moment = self._store.now()
        if self._heap:
            self._latest = max(self._latest, moment - self._heap[0][0])
        due = []
        while self._heap and self._heap[0][0] <= moment:
            due.append(heapq.heappop(self._heap)[1])
        self._arm()
        if due:
            self._due(due)

    async def scan(self, anew: bool = False) -> None:
        """Move the window on: load what is due within it from the store, or all of it anew."""
        after = (0 if anew else self._known_until, -1)
        until = self._known_until = self._store.now() + self._window
        # From here on `set` keeps what falls into the new window; what it left to the store before is on
        # disk once everything written so far is.
        await self._settled()
        while True:
            rows = await self._store.due(until, after, _PAGE)
            for at, key in rows:
                heapq.heappush(self._heap, (at, key))
            self._arm()
            if len(rows) < _PAGE:
                return
            after = rows[-1]

    def lag_seconds(self) -> float:
        """How late the latest timer rang since this was asked last, or is by now."""
        late, self._latest = self._latest, 0
        if self._heap:
            late = max(late, self._store.now() - self._heap[0][0])
        return late / 1e6

    def close(self) -> None:
        """Ring no more."""
        if self._handle is not None:
            self._handle.cancel()
