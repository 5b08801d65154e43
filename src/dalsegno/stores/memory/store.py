"""The memory store: answers at once, crashes on request."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, cast

import msgspec

from dalsegno.contracts import codec
from dalsegno.errors import StoreError, StoreOwned, UsageError
from dalsegno.kernel.points import reach
from dalsegno.kernel.ports import (
    Batch,
    Committed,
    Deployment,
    Filter,
    InstanceRow,
    Loaded,
    Match,
    Message,
    NodeInfo,
    Standing,
    Store,
    TaskRow,
)
from dalsegno.kernel.work import Claim, Claimed, Hold, QueueDepth, QueueRow, WorkBeat, WorkEnd, WorkRow
from dalsegno.stores.memory.disk import Disk
from dalsegno.stores.memory.standing import standing

Rows = list[tuple[int, int, bytes]]


class MemoryStore:
    """A store in memory.

    Parameters: `disk`, what an earlier store left behind; `clock`, the time in microseconds since the epoch.
    """

    shared = False

    def __init__(self, disk: Disk | None = None, clock: Callable[[], int] | None = None) -> None:
        self.disk = disk or Disk()
        self.broken: StoreError | None = None
        self._clock = clock or (lambda: time.time_ns() // 1000)
        self._epoch: int | None = None
        self._took_over = False
        self._processes = b"[]"
        self._callbacks: list[Callable[[], None]] = []

    def __str__(self) -> str:
        return "memory://"

    @property
    def epoch(self) -> int | None:
        return self._epoch

    def knows(self, processes: Collection[tuple[str, int]]) -> None:
        self._processes = msgspec.json.encode(sorted(processes))

    async def open(self, *, owner: bool, name: str, lease_seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._rung = asyncio.Event()
        if owner:
            self._take(name, lease_seconds)
        self.disk.stores.append(self)

    def _take(self, name: str, lease_seconds: float) -> None:
        moment = self.now()
        for node in self.disk.nodes:
            if node.ended_at is None and node.lease_until > moment:
                raise StoreOwned(f"the memory store is owned by node {node.name!r}, whose lease has not ended")
        self._took_over = any(node.ended_at is None for node in self.disk.nodes)
        for node in self.disk.nodes:
            if node.ended_at is None:
                self._change_node(node.epoch, ended_at=moment)
        self._epoch = len(self.disk.nodes) + 1
        self.disk.nodes.append(
            NodeInfo(
                epoch=self._epoch,
                name=name,
                host="memory",
                pid=0,
                doorbell=0,
                started_at=moment,
                lease_until=moment + int(lease_seconds * 1e6),
                processes=self._processes,
            )
        )
        reach("lease.acquired")

    def _change_node(self, epoch: int, **fields: Any) -> None:
        nodes = self.disk.nodes
        nodes[epoch - 1] = msgspec.structs.replace(nodes[epoch - 1], **fields)

    async def close(self) -> None:
        self._leave()
        if self._epoch is not None and self.broken is None and self._epoch == len(self.disk.nodes):
            self._change_node(self._epoch, ended_at=self.now())

    def crash(self) -> None:
        """Go as a process goes that is killed: the lease isn't given back, but nobody holds it any more."""
        self._leave()
        if self._epoch is not None:
            self._change_node(self._epoch, lease_until=0)

    def _leave(self) -> None:
        if self in self.disk.stores:
            self.disk.stores.remove(self)

    def beside(self) -> Store:
        return cast("Store", MemoryStore(self.disk, self._clock))

    def now(self) -> int:
        return self._clock()

    def expire(self) -> None:
        """End the lease now, as if its time had passed: what a test of a takeover needs."""
        self.disk.nodes = [msgspec.structs.replace(node, lease_until=0) for node in self.disk.nodes]

    def enlist(self, tx: object, batch: Batch) -> tuple[Committed, InstanceRow | None]:
        raise UsageError("the memory store has no database to share a transaction with: leave out tx=")

    async def renew(self, lease_seconds: float, figures: bytes = b"{}") -> None:
        epoch = self._owned()
        self.disk.check_fence(epoch)
        until = self.now() + int(lease_seconds * 1e6)
        self._change_node(epoch, lease_until=until, processes=self._processes, figures=figures)
        reach("lease.renewed")

    async def release(self, keys: Sequence[int]) -> None:
        raise UsageError("the memory store has one owner: there is nobody to release an instance to")

    def _owned(self) -> int:
        if self._epoch is None:
            raise UsageError("the memory store is open beside its owner: only the owner may do this")
        return self._epoch

    def commit(self, batch: Batch, done: Callable[[Committed | BaseException], None]) -> None:
        epoch = self._owned()
        self._loop.call_soon(self._commit, batch, epoch, done)

    def _commit(self, batch: Batch, epoch: int, done: Callable[[Committed | BaseException], None]) -> None:
        if self.broken is not None:
            done(self.broken)
            return
        try:
            reach("commit.before")
            self.disk.check_fence(epoch)
            reach("commit.fenced")
            found = self.disk.apply(batch, True, self.now())
        except StoreError as error:
            done(error)
            return
        reach("commit.rows")
        reach("commit.executed")
        reach("commit.after")
        done(found)
        self.ring()

    async def write(self, batch: Batch) -> Committed:
        batch.check_handed_in()
        found = self.disk.apply(batch, False, self.now())
        self.ring()
        return found

    async def load(self, keys: Sequence[int]) -> list[Loaded]:
        if self._epoch is not None:
            self.disk.check_fence(self._epoch)
        found = []
        for key in keys:
            row = self.disk.instances.get(key)
            if row is not None:
                journal = [(seq, at, entry) for seq, at, _, entry in self.disk.journals[key][row.base_seq :]]
                found.append(Loaded(row, journal))
        return found

    async def running(self, after_key: int, limit: int) -> list[int]:
        rows = self.disk.instances.values()
        return [row.key for row in rows if row.status == "running" and row.key > after_key][:limit]

    async def mark_recovered(self, crashes_before_parking: int, crashes_before_trial: int | None = None) -> list[int]:
        self.disk.check_fence(self._owned())
        if not self._took_over:
            return []
        free = crashes_before_parking if crashes_before_trial is None else crashes_before_trial
        disk, poisoned = self.disk, []
        for row in list(disk.instances.values()):
            if row.status == "running" and row.begun:
                last = len(disk.journals[row.key])
                counts = row.crashes < free or row.key in disk.on_trial
                alone = free >= crashes_before_parking or disk.on_trial == {row.key}
                crashes = 1 if disk.crashed_seqs.get(row.key) != last else row.crashes + counts
                disk.crashed_seqs[row.key] = last
                disk.instances[row.key] = msgspec.structs.replace(row, crashes=crashes)
                if crashes >= crashes_before_parking and alone:
                    poisoned.append(row.key)
        disk.on_trial = frozenset()
        return poisoned

    async def suspects(self, crashes: int) -> list[tuple[int, int]]:
        rows = self.disk.instances.values()
        return sorted(
            ((row.key, row.crashes) for row in rows if row.status == "running" and row.crashes >= crashes),
            key=lambda pair: (pair[1], pair[0]),
        )

    async def put_on_trial(self, keys: Sequence[int]) -> None:
        self.disk.check_fence(self._owned())
        self.disk.on_trial = frozenset(keys)

    async def due(self, until: int, after: tuple[int, int], limit: int) -> list[tuple[int, int]]:
        rows = [(row.wake_at, row.key) for row in self.disk.instances.values() if row.wake_at is not None]
        return sorted(pair for pair in rows if pair[0] <= until and pair > after)[:limit]

    async def mismatched(self) -> list[int]:
        code = "the code that its journal was written with"
        return [r.key for r in self.disk.instances.values() if r.status == "parked" and r.waiting_for == code]

    async def matches(self) -> list[Match]:
        return self.disk.meetings.matches()

    async def messages(self, after: int) -> list[Message]:
        return [m for m in self.disk.messages.values() if m.position > after and m.done_at is None][:1000]

    async def message(self, position: int) -> Message | None:
        return self.disk.messages.get(position)

    async def heartbeat(self, key: int, step: str) -> bytes | None:
        beat = self.disk.heartbeats.get((key, step))
        return None if beat is None else beat.details

    async def find(self, namespace: str, id: str) -> InstanceRow | None:
        key = self.disk.ids.get((namespace, id))
        return None if key is None else self.disk.instances[key]

    async def listing(self, filter: Filter, after_key: int | None, limit: int) -> list[InstanceRow]:
        rows = sorted(self.disk.instances.values(), key=lambda row: -row.key)
        return [r for r in rows if (after_key is None or r.key < after_key) and _fits(r, filter)][:limit]

    async def counts(self, namespace: str | None) -> dict[str, int]:
        counts: dict[str, int] = {}
        for row in self.disk.instances.values():
            if namespace in (None, row.namespace):
                counts[row.status] = counts.get(row.status, 0) + 1
        return counts

    async def deployments(self, namespace: str | None) -> list[Deployment]:
        rows = (row for row in self.disk.instances.values() if namespace in (None, row.namespace))
        found = Counter((row.process, row.version, row.status) for row in rows)
        return [
            Deployment(process=process, version=version, status=status, instances=count)
            for (process, version, status), count in sorted(found.items())
        ]

    async def standing(self, overdue_before: int) -> list[Standing]:
        return standing(self.disk.instances.values(), overdue_before)

    async def history(self, key: int, after_seq: int, limit: int) -> Rows:
        journal = self.disk.journals[key]
        return [(seq, at, entry) for seq, at, _, entry in journal if seq > after_seq][:limit]

    async def tasks(
        self, namespace: str | None, role: str | None, state: str | None, after_at: int, limit: int
    ) -> list[TaskRow]:
        found = [
            task
            for task in self.disk.tasks.values()
            if namespace in (None, task.namespace)
            and role in (None, task.role)
            and state in (None, task.state)
            and task.at >= after_at
        ]
        return sorted(found, key=lambda task: (task.at, task.id))[:limit]

    async def task(self, namespace: str, id: str) -> TaskRow | None:
        return self.disk.tasks.get((namespace, id))

    async def nodes(self) -> list[NodeInfo]:
        return self.disk.nodes[::-1]

    async def forget_events(self, before: int, limit: int) -> int:
        self.disk.check_fence(self._owned())
        return self.disk.meetings.forget(before, limit)

    async def set_queues(self, queues: Sequence[QueueRow]) -> None:
        self.disk.works.queues.update({(queue.namespace, queue.name): queue for queue in queues})

    async def claim_work(
        self,
        namespace: str,
        queue: str,
        limit: int,
        worker: str,
        lease_seconds: float,
        steps: Collection[str] | None = None,
    ) -> Claimed:
        return self.disk.works.claim(namespace, queue, limit, worker, lease_seconds, steps, self.now())

    async def beat_work(self, namespace: str, beats: Sequence[WorkBeat], lease_seconds: float) -> list[Hold]:
        return self.disk.works.beat(namespace, beats, lease_seconds, self.now())

    async def held_work(self, claims: Sequence[Claim]) -> list[Hold]:
        return self.disk.works.held(claims)

    async def complete_work(self, namespace: str, ends: Sequence[WorkEnd]) -> list[bool]:
        found = self.disk.works.complete(namespace, ends)
        self.ring()
        return found

    async def return_work(self, namespace: str, claims: Sequence[Claim]) -> None:
        self.disk.works.give_back(namespace, claims)
        self.ring()

    async def work_done(self, limit: int, known: Collection[int]) -> list[WorkRow]:
        self.disk.check_fence(self._owned())
        return self.disk.works.done(limit, known, self.now())

    async def queue_depths(self, namespace: str | None) -> list[QueueDepth]:
        return self.disk.works.depths(namespace)

    async def forget_work(self, before: int, limit: int) -> int:
        self.disk.check_fence(self._owned())
        return self.disk.works.forget(before, limit)

    def on_ring(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def ring(self) -> None:
        for store in self.disk.stores:
            if store is not self:
                store.hear()

    def hear(self) -> None:
        """Another store on the same disk wrote something."""
        self._rung.set()
        for callback in self._callbacks:
            callback()

    async def changed(self, timeout_seconds: float) -> None:
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._rung.wait()
        except TimeoutError:
            pass
        self._rung.clear()


def _fits(row: InstanceRow, filter: Filter) -> bool:
    annotations = msgspec.json.decode(row.annotations or b"{}", type=dict[str, msgspec.Raw])
    return (
        filter.namespace in (None, row.namespace)
        and (not filter.statuses or row.status in filter.statuses)
        and filter.process in (None, row.process)
        and (filter.id_prefix is None or row.id.startswith(filter.id_prefix))
        and (filter.started_before is None or row.created_at < filter.started_before)
        and (filter.started_after is None or row.created_at >= filter.started_after)
        and filter.parent in (None, row.parent)
        and all(name in annotations and bytes(annotations[name]) == codec.encode(value) for name, value in filter.where)
    )
