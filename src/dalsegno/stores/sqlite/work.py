"""Steps on queues: handed out, claimed, ended."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TypeVar

from dalsegno.kernel.ports import Batch
from dalsegno.kernel.work import (
    Claim,
    Claimed,
    Hold,
    QueueDepth,
    QueueRow,
    WorkBeat,
    WorkEnd,
    WorkRow,
    again_after,
    most_allowance,
)
from dalsegno.stores.sqlite.connection import Connection, query

T = TypeVar("T")

_GRACE_MICROSECONDS = 1_000_000
"""A worker that keeps time reports a time-out itself; the store does it for one that doesn't, a moment later."""
_WORK = (
    "id", "namespace", "queue", "instance", "instance_id", "operation", "attempt", "step", "step_key", "arguments",
    "at", "priority", "key", "timeout_seconds", "heartbeat_timeout_seconds", "most_claims", "cancelled", "claims",
    "token", "worker", "began_at", "lease_until", "details", "ended", "outcome",
)  # fmt: skip


def write_work(connection: Any, batch: Batch, moment: int) -> None:
    """What a batch hands out, takes back and ends."""
    for w in batch.work:
        values: list[Any] = [
            w.namespace,
            w.queue,
            w.instance,
            w.instance_id,
            w.operation,
            w.attempt,
            w.step,
            w.step_key,
        ]
        values += (w.arguments, w.at, w.priority, w.key, w.timeout_seconds, w.heartbeat_timeout_seconds)
        connection.execute(query("insert_work"), (*values, w.most_claims, w.cancelled))
    for id in batch.ended_work:
        connection.execute(query("remember_work"), (id, moment))
        connection.execute(query("delete_work"), (id,))
    for instance in batch.dropped_work:
        connection.execute(query("drop_work"), (instance,))


def transact(connection: Connection, job: Callable[[Connection], T]) -> T:
    """Do something in a transaction of its own."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = job(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


def set_queues(connection: Connection, queues: Sequence[QueueRow]) -> None:
    """Write what queues allow."""
    for q in queues:
        values = (q.namespace, q.name, q.concurrency, q.concurrency_per_key, q.per_second)
        connection.execute(query("set_queue"), values)


def is_claimable(connection: Connection, namespace: str, queue: str, moment: int) -> bool:
    """Whether it may be worth a transaction to claim something."""
    return bool(connection.execute(query("claimable"), (namespace, queue, moment)).fetchone()[0])


class Claiming:
    """One worker's wish for work."""

    def __init__(
        self, namespace: str, queue: str, limit: int, worker: str, lease_seconds: float, steps: Collection[str] | None
    ) -> None:
        self.namespace = namespace
        self.queue = queue
        self._limit = limit
        self._worker = worker
        self._lease = int(lease_seconds * 1e6)
        self._steps = None if steps is None else json.dumps(sorted(steps))

    def run(self, connection: Connection, moment: int) -> Claimed:
        """Claim what may begin now."""
        place = (self.namespace, self.queue)
        connection.execute(query("release_lapsed"), (*place, moment))
        room, per_key, spend = self._room(connection, moment)
        again = None
        if room.places > 0:
            ids = self._candidates(connection, room.places, per_key)
            work = self._take(connection, ids, moment)
        else:
            work, again = [], room.again_seconds
        spend(len(work))
        return Claimed(work, again if again is not None else self._next_lapse(connection, moment))

    def _room(self, connection: Connection, moment: int) -> tuple[Room, int | None, Callable[[int], None]]:
        place = (self.namespace, self.queue)
        found = connection.execute(query("queue"), place).fetchone()
        if found is None:
            return Room(self._limit), None, lambda count: None
        concurrency, per_key, per_second, allowance, refilled_at, running = found
        room = Room(self._limit)
        if concurrency is not None:
            room.places = min(room.places, concurrency - running)
        if per_second is None:
            return room, per_key, lambda count: None
        most = most_allowance(per_second)
        # Before the first claim the bucket is full; a clock that was set back fills nothing.
        passed = max(0, moment - refilled_at) / 1e6
        allowance = min(most, allowance + passed * per_second)
        if allowance < 1:
            room.again_seconds = again_after(per_second, allowance)
        room.places = min(room.places, int(allowance))

        def spend(count: int) -> None:
            connection.execute(query("spend_allowance"), (allowance - count, moment, *place))

        return room, per_key, spend

    def _candidates(self, connection: Connection, places: int, per_key: int | None) -> list[int]:
        values: tuple[Any, ...] = (self.namespace, self.queue, places, self._steps)
        if per_key is None:
            return [row[0] for row in connection.execute(query("claimable_work"), values)]
        return [row[2] for row in sorted(self._of_keys(connection, places, per_key))[:places]]

    def _of_keys(self, connection: Connection, places: int, per_key: int) -> Iterator[tuple[int, int, int]]:
        """What the keys may begin, each as much as it has room for: what a key may not begin is never read."""
        rooms = connection.execute(query("keys/room"), (self.namespace, self.queue, per_key)).fetchall()
        for key, room in rooms:
            if room > 0:
                values = (self.namespace, self.queue, min(room, places), self._steps, key)
                yield from connection.execute(query("keys/claimable_work"), values)

    def _take(self, connection: Connection, ids: list[int], moment: int) -> list[WorkRow]:
        if not ids:
            return []
        wanted = json.dumps(ids)
        values = (wanted, self._worker, moment, moment + self._lease, _GRACE_MICROSECONDS)
        connection.execute(query("claim_work"), values)
        text = query("work_columns") + " WHERE id IN (SELECT value FROM json_each(?))"
        found = {row[0]: work_of(row) for row in connection.execute(text, (wanted,))}
        return [found[id] for id in ids]

    def _next_lapse(self, connection: Connection, moment: int) -> float | None:
        at = connection.execute(query("next_lapse"), (self.namespace, self.queue)).fetchone()[0]
        return None if at is None else max(0.0, (at - moment) / 1e6)


class Room:
    """How many attempts a queue lets begin now, and when it lets more."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.again_seconds: float | None = None


def beat(
    connection: Connection, namespace: str, beats: Sequence[WorkBeat], moment: int, lease_seconds: float
) -> list[Hold]:
    """Prolong leases."""
    until = moment + int(lease_seconds * 1e6)
    found = []
    for b in beats:
        values = (b.claim.id, b.claim.token, namespace, until, b.details)
        found.append(hold_of(connection.execute(query("beat_work"), values).fetchone()))
    return found


def held(connection: Connection, claims: Sequence[Claim]) -> list[Hold]:
    """Which claims still hold."""
    return [hold_of(connection.execute(query("held_work"), (c.id, c.token)).fetchone()) for c in claims]


def hold_of(row: tuple[Any, ...] | None) -> Hold:
    """What the cancel flag of a row says, or that there is no such row."""
    if row is None:
        return "lost"
    return "cancelled" if row[0] else "held"


def complete(connection: Connection, namespace: str, ends: Sequence[WorkEnd]) -> list[bool]:
    """Write outcomes; whether each of them counts."""
    return [_complete(connection, namespace, end) for end in ends]


def _complete(connection: Connection, namespace: str, end: WorkEnd) -> bool:
    proof = (end.claim.id, end.claim.token, namespace)
    if connection.execute(query("complete_work"), (*proof, end.outcome)).rowcount:
        return True
    return bool(connection.execute(query("was_completed"), proof).fetchone()[0])


def give_back(connection: Connection, namespace: str, claims: Sequence[Claim]) -> None:
    """Make claims ready again."""
    connection.executemany(query("return_work"), [(c.id, c.token, namespace) for c in claims])


def is_hopeless(connection: Connection, moment: int) -> bool:
    """Whether there are claims that no worker will end."""
    return connection.execute(query("hopeless_work"), (moment,)).fetchone() is not None


def done(connection: Connection, limit: int, known: Collection[int]) -> list[WorkRow]:
    """Attempts that have ended."""
    text = (
        query("work_columns")
        + " WHERE state = 'done' AND id NOT IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT ?"
    )
    return [work_of(row) for row in connection.execute(text, (json.dumps(list(known)), limit))]


def depths(connection: Connection, namespace: str | None) -> list[QueueDepth]:
    """What stands in the queues."""
    names = ("namespace", "name", "ready", "running", "done", "oldest_at")
    return [
        QueueDepth(**dict(zip(names, row, strict=True)))
        for row in connection.execute(query("queue_depths"), (namespace,))
    ]


def work_of(row: tuple[Any, ...]) -> WorkRow:
    """A row of work."""
    values = dict(zip(_WORK, row, strict=True))
    values["cancelled"] = bool(values["cancelled"])
    return WorkRow(**values)
