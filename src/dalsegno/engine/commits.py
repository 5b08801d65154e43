"""Natural group commit: whatever arrives while commit n is in flight is commit n+1. No timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

from dalsegno.engine.meter import Tally
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
        self._flying: Batch | None = None
        self._scheduled = False
        self._broken: BaseException | None = None
        self.batch = Batch()
        self.tally = Tally()

    def touch(self) -> None:
        """Say that the batch holds something; it is written at the end of the loop's turn."""
        if self._flying is None and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._flying is not None or self._broken is not None:
            return
        batch = self.batch
        self.batch = Batch()
        self._flying = batch
        batch.began_at = perf_counter()
        self._store.commit(batch, lambda result: self._done(batch, result))

    def _done(self, batch: Batch, result: Committed | BaseException) -> None:
        self._flying = None
        if isinstance(result, BaseException):
            _break_promises(batch, result)
            self._failed(result)
            return
        batch.committed = True
        # The next batch leaves first: the disk works while this one's steps are dispatched.
        if not self.batch.is_empty():
            self._flush()
        self.tally.add(batch, result, perf_counter() - batch.began_at, self._loop.time())
        self._committed(batch, result)
        if self._broken is not None:
            _break_promises(batch, self._broken)
        for promise in batch.promises:
            if not promise.done():
                promise.set_result(None)

    def durable(self) -> asyncio.Future[None]:
        """A future that is done once everything written so far is durable."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self._broken is not None:
            future.set_exception(self._broken)
        elif not self.batch.is_empty():
            self.batch.promises.append(future)
            self.touch()
        elif self._flying is not None:
            self._flying.promises.append(future)
        else:
            future.set_result(None)
        return future

    def fail(self, error: BaseException) -> None:
        """Write nothing more; whoever waits for a commit learns why."""
        if self._broken is None:
            self._broken = error
            for batch in (self._flying, self.batch):
                if batch is not None:
                    _break_promises(batch, error)

    @property
    def idle(self) -> bool:
        """Whether nothing is being written."""
        return self._flying is None and self.batch.is_empty()


def _break_promises(batch: Batch, error: BaseException) -> None:
    waiting = [*batch.promises, *(start.tag[2] for start in batch.starts if start.tag is not None)]
    for promise in waiting:
        if promise is not None and not promise.done():
            promise.set_exception(error)
