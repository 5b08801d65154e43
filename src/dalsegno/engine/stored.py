"""What is done to an instance that isn't in memory: its journal is read, and written once, one at a time."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from dalsegno.engine.reopening import annotated, consumed_events, copy_for_fork, discarded_by_retry, open_children
from dalsegno.engine.requests import Done, Request, refusal, value_of
from dalsegno.engine.resident import Resident
from dalsegno.engine.residents import records
from dalsegno.engine.turns import child_refusal, input_hash, parting, task_id, word
from dalsegno.errors import DalsegnoError, NotFound, Refused, StartConflict
from dalsegno.kernel import entries as e
from dalsegno.kernel.definition import ProcessSpec
from dalsegno.kernel.ports import FINAL, Change, InstanceRow, Loaded, Restart, Start, TaskClosing

if TYPE_CHECKING:
    from dalsegno.engine.node import Node


class Stored:
    """Operations on stored instances."""

    def __init__(self, node: Node) -> None:
        self._node = node
        # A lock lives for as long as somebody refers to it, the waiting ones too.
        self._locks: weakref.WeakValueDictionary[int, asyncio.Lock] = weakref.WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def _alone(self, key: int, *statuses: str) -> AsyncIterator[Loaded]:
        """An instance that nobody else changes meanwhile. Raises `Refused` unless it is in one of the statuses."""
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        async with lock:
            await self._node.settled()
            loaded = await self._node.store.load([key])
            if not loaded:
                raise NotFound(f"no instance has the key {key}")
            row = loaded[0].row
            if statuses and row.status not in statuses:
                raise Refused(f"instance {row.id!r} is {row.status} already")
            yield loaded[0]

    async def _append(self, item: Loaded, entry: Any, status: str, done: Done | None = None, **fields: Any) -> None:
        """Write an entry, a status and the reply to whoever asked, in one commit."""
        row = item.row
        at = self._node.store.now()
        batch = self._node.committer.batch
        seq = item.journal[-1][0] + 1
        batch.add(row.key, seq, at, e.kind(entry), e.encode(entry))
        fields = {"run": row.run, "base_seq": row.base_seq, **fields}
        if status == "terminated":
            fields["ended_at"] = at
        batch.changes[row.key] = Change(key=row.key, status=status, at=at, **fields)
        if done is not None:
            done(value_of(None))
        await self._node.committer.durable()

    def go_on(
        self,
        row: InstanceRow,
        remark: e.Resumed,
        then: Callable[[Resident], None] | None = None,
        otherwise: Callable[[DalsegnoError], None] | None = None,
    ) -> None:
        """Let a paused or parked instance run again."""
        self._spawn(self._go_on(row, remark, then, otherwise), otherwise)

    async def _go_on(
        self, row: InstanceRow, remark: e.Resumed, then: Any, otherwise: Any, done: Done | None = None
    ) -> None:
        async with self._alone(row.key, "paused", "parked") as item:
            await self._append(item, remark, "running", done)
        self._wake(row.key, then, otherwise)
        self._node.inbox.goes_on(row.namespace, row.id)

    def resume(self, row: InstanceRow, remark: e.Resumed, done: Done) -> None:
        """Let a paused or parked instance run again, and say so."""
        self._spawn(self._go_on(row, remark, None, None, done), lambda error: done(refusal(error)))

    async def park(self, key: int, reason: str, waiting_for: str) -> None:
        """Set an instance aside without running its code, which may be what is wrong with it."""
        async with self._alone(key, "running") as item:
            self._node.log.error("instance %r is parked: %s", item.row.id, reason)
            await self._append(item, e.Parked(reason), "parked", error=reason, waiting_for=waiting_for)

    def terminate(
        self,
        row: InstanceRow,
        entry: e.Ended,
        done: Done,
        otherwise: Callable[[DalsegnoError], None],
        *statuses: str,
    ) -> None:
        """End an instance that can't be brought into memory."""
        wanted = statuses or ("running", "waiting", "paused", "parked")
        self._spawn(self._terminate(row, entry, done, *wanted), otherwise)

    async def _terminate(self, row: InstanceRow, entry: e.Ended, done: Done, *statuses: str) -> None:
        async with self._alone(row.key, *statuses) as item:
            self._close_up(item, entry)
            await self._append(item, entry, "terminated", done)
        self._node.results.ended(row.key, entry)
        self._node.inbox.look()

    def _close_up(self, item: Loaded, ended: e.Ended) -> None:
        """What its end means for the waits, questions, children and parent of an instance that isn't in memory."""
        row, journal = item.row, records(item.journal)
        batch, at = self._node.committer.batch, self._node.store.now()
        batch.dropped_work.append(row.key)
        for entry in (record.entry for record in journal):
            if isinstance(entry, e.EventAwaited):
                batch.unwaits.append((row.key, entry.operation))
            elif isinstance(entry, e.Asked):
                # One that was answered stays answered.
                name = task_id(row.id, row.run, entry.operation)
                batch.closings.append(TaskClosing(id=name, namespace=row.namespace, state="withdrawn", at=at))
        for child in open_children(journal, []):
            if child.parent_close != "abandon":
                batch.messages.append(word(row.namespace, row.id, child.child, child.parent_close, parting(row.id), at))
        if row.parent is not None and row.parent_operation is not None:
            body = e.ChildEnded(row.parent_operation, ended.outcome)
            batch.messages.append(word(row.namespace, row.id, row.parent, "child_ended", body, at))

    def retry(self, row: InstanceRow, request: Request, done: Done) -> None:
        """Go on with a failed instance from its failure."""
        self._spawn(self._retry(row, request, done), lambda error: done(refusal(error)))

    async def _retry(self, row: InstanceRow, request: Request, done: Done) -> None:
        async with self._alone(row.key, "failed", "cancelled", "terminated") as item:
            journal = records(item.journal)
            discarded = discarded_by_retry(journal)
            for child in open_children(journal, discarded):
                # It may have ended while nobody waited for it.
                refusal_of = child_refusal(row.namespace, row.id, child, self._node.store.now())
                self._node.committer.batch.messages.append(refusal_of)
            await self._append(item, e.Reopened(discarded, request.by, request.reason), "running", done)
        self._wake(row.key)
        self._node.inbox.look()

    async def restart(self, row: InstanceRow, spec: ProcessSpec, data: bytes, by: str | None) -> None:
        """Begin a new run of an ended instance; its journal goes on."""
        async with self._alone(row.key) as item:
            if item.row.status not in FINAL:
                raise StartConflict(f"instance {row.id!r} is {item.row.status}: only an ended one can be restarted")
            consumed = consumed_events(records(item.journal))
            run = item.row.run + 1
            started = e.Started(spec.name, spec.version, msgspec.Raw(data), run=run, by=by, consumed=consumed)
            base_seq = item.journal[-1][0] + 1
            restart = Restart(
                key=row.key, process=spec.name, version=spec.version, input_hash=input_hash(spec.name, data)
            )
            self._node.committer.batch.restarts.append(restart)
            await self._append(item, started, "running", run=run, base_seq=base_seq)
        self._wake(row.key)

    def fork(self, row: InstanceRow, request: Request, done: Done) -> None:
        """Copy an instance as it stood before a step."""
        self._spawn(self._fork(row, request, done), lambda error: done(refusal(error)))

    async def _fork(self, row: InstanceRow, request: Request, done: Done) -> None:
        async with self._alone(row.key) as item:
            new_id = request.new_id or f"{row.id}-fork-{self._node.chance.getrandbits(32):08x}"
            journal = copy_for_fork(records(item.journal), row, new_id, request.step, request.by)
        start = Start(
            namespace=row.namespace,
            id=new_id,
            process=row.process,
            version=row.version,
            input_hash=row.input_hash,
            entry=b"",
            at=self._node.store.now(),
            events_from=row.events_from,
        )
        self.copy(start, journal, done)

    def copy(self, start: Start, journal: list[e.Record], done: Done) -> None:
        """Store an instance that begins with a journal of its own, and run it."""
        node = self._node
        rows = [(r.seq, r.at, e.kind(r.entry), e.encode(r.entry)) for r in journal]
        start.annotations = annotated(journal)

        def copied(key: int | None) -> None:
            if key is None:
                done(refusal(Refused(f"instance {start.id!r} exists already in namespace {start.namespace!r}")))
            else:
                node.waking.wake(key)
                done(value_of(start.id))

        start.tag = copied
        node.committer.batch.copies.append((start, rows))
        node.committer.touch()

    def _wake(self, key: int, then: Any = None, otherwise: Any = None) -> None:
        # Process code must not be entered from within a task.
        self._node.loop.call_soon(self._node.guarded, self._node.waking.wake, key, then, otherwise)

    def _spawn(self, work: Any, refused: Callable[[DalsegnoError], None] | None) -> None:
        async def guarded() -> None:
            try:
                await work
            except DalsegnoError as error:
                if self._node.failure is not None:
                    raise
                if refused is not None:
                    refused(error)

        self._node.spawn(guarded())
