"""Natural group commit: whatever arrives while commit n is in flight is commit n+1. No timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dalsegno.kernel.ports import Batch, Committed, Store


class Committer:
    """Collects what instances write and hands it to the store, one batch at a time.

    `committed` is called for each durable batch, `failed` once when the store can't go on.
    """

    def __init__(
        self,
        store: Store,
        loop: asyncio.AbstractEventLoop,
        committed: Callable[[Batch, Committed], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._store = store
        self._loop = loop
        self._committed = committed
        self._failed = failed
        self._flying = False
        self._scheduled = False
        self._broken: BaseException | None = None
        self.batch = Batch()
        self.commits = 0

    def touch(self) -> None:
        """Say that the batch holds something; it is written at the end of the loop's turn."""
        if not self._flying and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._flying or self._broken is not None:
            return
        batch = self.batch
        self.batch = Batch()
        self._flying = True
        self._store.commit(batch, lambda result: self._done(batch, result))

    def _done(self, batch: Batch, result: Committed | BaseException) -> None:
        self._flying = False
        if isinstance(result, BaseException):
            if self._broken is None:
                self._broken = result
                self._failed(result)
            return
        self.commits += 1
        batch.committed = True
        # The next batch leaves first: the disk works while this one's steps are dispatched.
        if not self.batch.is_empty():
            self._flush()
        self._committed(batch, result)

    def durable(self) -> asyncio.Future[None]:
        """A future that is done once everything written so far is durable."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self._broken is not None:
            future.set_exception(self._broken)
        elif self.batch.is_empty() and not self._flying:
            future.set_result(None)
        else:
            self.batch.after.append(lambda: None if future.done() else future.set_result(None))
            self.touch()
        return future

    @property
    def idle(self) -> bool:
        """Whether nothing is being written."""
        return not self._flying and self.batch.is_empty()
