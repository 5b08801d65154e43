"""Who waits for the end of an instance in this process."""

from __future__ import annotations

import asyncio

from dalsegno.kernel import entries as e


class Results:
    """Futures by instance, resolved when the end is durable."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[asyncio.Future[e.Ended]]] = {}

    def wait(self, key: int) -> asyncio.Future[e.Ended]:
        """A future for an instance's end."""
        future: asyncio.Future[e.Ended] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(future)
        return future

    def forget(self, key: int, future: asyncio.Future[e.Ended]) -> None:
        """Nobody waits for this any more."""
        waiting = self._waiting.get(key)
        if waiting is not None and future in waiting:
            waiting.remove(future)
            if not waiting:
                del self._waiting[key]

    def ended(self, key: int, entry: e.Ended) -> None:
        """An instance's end is durable."""
        if self._waiting:
            for future in self._waiting.pop(key, ()):
                if not future.done():
                    future.set_result(entry)

    def fail(self, error: BaseException) -> None:
        """The node stopped: nobody will learn anything here."""
        for futures in self._waiting.values():
            for future in futures:
                if not future.done():
                    future.set_exception(error)
        self._waiting.clear()
