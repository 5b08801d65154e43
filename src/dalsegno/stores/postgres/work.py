"""Steps on queues: handed out, claimed, ended. Claims from a queue without limits lock only the rows they take."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

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
from dalsegno.stores.postgres.arrays import storable
from dalsegno.stores.postgres.connection import Connection, query
from dalsegno.stores.postgres.session import Session

_GRACE_MICROSECONDS = 1_000_000
"""A worker that keeps time reports a time-out itself; the store does it for one that doesn't, a moment later."""
_WORK = (
    "id", "namespace", "queue", "instance", "instance_id", "operation", "attempt", "step", "step_key", "arguments",
    "at", "priority", "key", "timeout_seconds", "heartbeat_timeout_seconds", "most_claims", "cancelled", "claims",
    "token", "worker", "began_at", "lease_until", "details", "ended", "outcome",
)  # fmt: skip


def write_work(connection: Connection, schema: str, batch: Batch) -> None:
    """What a batch hands out, takes back and ends."""
    if batch.work:
        _hand_out(connection, schema, [_values(row) for row in batch.work])
    if batch.ended_work:
        connection.execute(query("remember_work", schema), (batch.ended_work, moment_of(connection, schema)))
        connection.execute(query("delete_work", schema), (batch.ended_work,))
    if batch.dropped_work:
        connection.execute(query("drop_work", schema), (batch.dropped_work,))


def _hand_out(connection: Connection, schema: str, rows: list[tuple[Any, ...]]) -> None:
    if any(row[-1] for row in rows):
        # One after the other: what is withdrawn here may have been handed out a row before.
        with connection.pipeline():
            connection.cursor().executemany(query("insert_work", schema), rows)
    else:
        columns = [list(column) for column in zip(*rows, strict=True)]
        connection.execute(query("fleet/insert_works", schema), columns[:-1])


def _values(w: WorkRow) -> tuple[Any, ...]:
    names = (w.namespace, w.queue, w.instance, storable(w.instance_id), storable(w.operation), w.attempt)
    more = (storable(w.step), storable(w.step_key), w.arguments, w.at, w.priority, storable(w.key))
    return (*names, *more, w.timeout_seconds, w.heartbeat_timeout_seconds, w.most_claims, w.cancelled)


def moment_of(connection: Connection, schema: str) -> int:
    """The database's time: leases of workers are kept by it alone. From here on rows are found by their keys."""
    row = connection.execute(query("fleet/by_key", schema)).fetchone()
    assert row is not None
    return int(row[0])


def set_queues(connection: Connection, schema: str, queues: Sequence[QueueRow]) -> None:
    """Write what queues allow."""
    for q in queues:
        values = (q.namespace, q.name, q.concurrency, q.concurrency_per_key, q.per_second)
        connection.execute(query("set_queue", schema), values)


def is_claimable(session: Session, namespace: str, queue: str, moment: int) -> bool:
    """Whether it may be worth a transaction to claim something."""
    return bool(session.rows("claimable", namespace, queue, moment)[0][0])


class Claiming:
    """One worker's wish for work."""

    def __init__(
        self, schema: str, place: tuple[str, str], limit: int, worker: str, lease_seconds: float,
        steps: Collection[str] | None,
    ) -> None:  # fmt: skip
        self._schema = schema
        self._place = place
        self._limit = limit
        self._worker = storable(worker)
        self._lease = int(lease_seconds * 1e6)
        self._steps = None if steps is None else [storable(step) for step in steps]

    def run(self, connection: Connection) -> Claimed:
        """Claim what may begin now."""
        has_limits = self._ask(connection, "fleet/lock_queue", *self._place)
        moment = moment_of(connection, self._schema)
        self._do(connection, "release_lapsed", *self._place, moment)
        places, again, per_key, spend = self._limit, None, None, None
        if has_limits:
            places, again, per_key, spend = self._room(connection, moment)
        work = self._take(connection, self._candidates(connection, places, per_key), moment) if places > 0 else []
        if spend is not None:
            spend(len(work))
        if again is None:
            [(lapse,)] = self._ask(connection, "next_lapse", *self._place)
            again = None if lapse is None else max(0.0, (lapse - moment) / 1e6)
        return Claimed(work, again)

    def _ask(self, connection: Connection, name: str, *values: Any) -> list[Any]:
        return connection.execute(query(name, self._schema), values).fetchall()

    def _do(self, connection: Connection, name: str, *values: Any) -> None:
        connection.execute(query(name, self._schema), values)

    def _room(
        self, connection: Connection, moment: int
    ) -> tuple[int, float | None, int | None, Callable[[int], None] | None]:
        [found] = self._ask(connection, "queue", *self._place)
        concurrency, per_key, per_second, allowance, refilled_at, running = found
        places = self._limit if concurrency is None else min(self._limit, concurrency - running)
        if per_second is None:
            return places, None, per_key, None
        # Before the first claim the bucket is full; a clock that was set back fills nothing.
        passed = max(0, moment - refilled_at) / 1e6
        allowance = min(most_allowance(per_second), allowance + passed * per_second)

        def spend(count: int) -> None:
            self._do(connection, "spend_allowance", allowance - count, moment, *self._place)

        again = again_after(per_second, allowance) if allowance < 1 else None
        return min(places, int(allowance)), again, per_key, spend

    def _candidates(self, connection: Connection, places: int, per_key: int | None) -> list[int]:
        values: tuple[Any, ...] = (*self._place, places, self._steps)
        if per_key is None:
            return [row[0] for row in self._ask(connection, "claimable_work", *values)]
        return [row[0] for row in self._ask(connection, "fleet/claimable_work_by_key", *values, per_key)]

    def _take(self, connection: Connection, ids: list[int], moment: int) -> list[WorkRow]:
        if not ids:
            return []
        values = (ids, self._worker, moment, moment + self._lease, _GRACE_MICROSECONDS)
        taken = [row[0] for row in self._ask(connection, "claim_work", *values)]
        text = query("work_columns", self._schema) + " WHERE id = ANY($1::bigint[])"
        found = {row[0]: work_of(row) for row in connection.execute(text, (taken,)).fetchall()}
        return [found[id] for id in ids if id in found]


def beat(
    connection: Connection, schema: str, namespace: str, beats: Sequence[WorkBeat], lease_seconds: float
) -> list[Hold]:
    """Prolong leases."""
    until = moment_of(connection, schema) + int(lease_seconds * 1e6)
    ids, tokens = _proofs([b.claim for b in beats])
    values = (ids, tokens, [b.details for b in beats], namespace, until)
    return _holds(connection.execute(query("beat_work", schema), values).fetchall(), ids)


def held(session: Session, claims: Sequence[Claim]) -> list[Hold]:
    """Which claims still hold."""
    ids, tokens = _proofs(claims)
    return _holds(session.rows("held_work", ids, tokens), ids)


def _proofs(claims: Sequence[Claim]) -> tuple[list[int], list[str]]:
    return [claim.id for claim in claims], [storable(claim.token) for claim in claims]


def _holds(rows: list[Any], ids: list[int]) -> list[Hold]:
    cancelled = dict(rows)
    return ["lost" if id not in cancelled else "cancelled" if cancelled[id] else "held" for id in ids]


def complete(connection: Connection, schema: str, namespace: str, ends: Sequence[WorkEnd]) -> list[bool]:
    """Write outcomes; whether each of them counts."""
    moment_of(connection, schema)
    ids, tokens = _proofs([end.claim for end in ends])
    values = (ids, tokens, [end.outcome for end in ends], namespace)
    found = {row[0] for row in connection.execute(query("complete_work", schema), values).fetchall()}
    if len(found) < len(ids):
        rows = connection.execute(query("was_completed", schema), (ids, tokens, namespace)).fetchall()
        found.update(row[0] for row in rows)
    return [id in found for id in ids]


def give_back(connection: Connection, schema: str, namespace: str, claims: Sequence[Claim]) -> None:
    """Make claims ready again."""
    moment_of(connection, schema)
    connection.execute(query("return_work", schema), (*_proofs(claims), namespace))


def depths(rows: list[Any]) -> list[QueueDepth]:
    """What stands in the queues."""
    names = ("namespace", "name", "ready", "running", "done", "oldest_at")
    return [QueueDepth(**dict(zip(names, row, strict=True))) for row in rows]


def work_of(row: tuple[Any, ...]) -> WorkRow:
    """A row of work."""
    return WorkRow(**dict(zip(_WORK, row, strict=True)))
