"""One batch, one transaction."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from dalsegno.errors import Fenced
from dalsegno.kernel.points import reach
from dalsegno.kernel.ports import Batch, Change, Committed, EventRow, Match, Message, Transaction, WaitRow
from dalsegno.stores.annotations import merged
from dalsegno.stores.sqlite.connection import Connection, MultiRow, query
from dalsegno.stores.sqlite.work import write_work

T = TypeVar("T")

#: what statements run on: the writer's connection, or a cursor of the user's
Target = Connection | sqlite3.Cursor

_insert_instances = MultiRow("insert_instances")
_insert_entries = MultiRow("insert_entries")
_update_instances = MultiRow("update_instances")


def commit(connection: Connection, batch: Batch, epoch: int | None) -> Committed:
    """Write a batch. `epoch` is the fence; `None` for a process that owns nothing and only hands things in.

    Raises `Fenced`, and what SQLite raises; nothing is written then.
    """
    reach("commit.before")
    connection.execute("BEGIN IMMEDIATE")
    try:
        if epoch is not None:
            check_fence(connection, epoch)
        reach("commit.fenced")
        found = write(connection, batch, owned=epoch is not None)
        reach("commit.rows")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    reach("commit.executed")
    return found


def fenced(connection: Connection, epoch: int, job: Callable[[Connection], T]) -> T:
    """Do something in a transaction that begins with the proof of ownership. Raises `Fenced`."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        check_fence(connection, epoch)
        result = job(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


def check_fence(connection: sqlite3.Connection, epoch: int) -> None:
    """Raise `Fenced` where another node took over."""
    if connection.execute(query("fence"), (epoch,)).fetchone() is None:
        raise Fenced(
            f"node epoch {epoch} was ended by another engine that took over: this one may write nothing. "
            "Start the node again if it is to run."
        )


def write(connection: Target, batch: Batch, owned: bool) -> Committed:
    """Write a batch within the transaction that the connection is in."""
    found = Committed()
    if batch.starts:
        found.start_keys = _insert_starts(connection, batch, owned)
    if batch.copies:
        found.copy_keys = _insert_copies(connection, batch)
    if batch.rows:
        _insert_entries.run(connection, batch.rows)
    for restart in batch.restarts:
        identity = (restart.process, restart.version, restart.input_hash, restart.key)
        connection.execute(query("restart_instance"), identity)
    if batch.changes:
        _change(connection, batch.changes)
    for key, values in batch.annotations:
        _annotate(connection, key, values)
    if batch.unwaits:
        connection.executemany(query("delete_wait"), batch.unwaits)
    for wait in batch.waits:
        found.matches += _open_wait(connection, wait)
    for event in batch.events:
        found.matches += publish(connection, event)
    _write_people(connection, batch)
    for start, taken in zip(batch.starts, found.start_keys, strict=True):
        if taken is None and start.refusal is not None:
            _send(connection, start.refusal)
    for message in batch.messages:
        _send(connection, message)
    for position, reply, at in batch.replies:
        connection.execute(query("reply_message"), (reply, at, position))
    for beat in batch.heartbeats:
        sign = (beat.instance, beat.step, beat.attempt, beat.at, beat.details)
        connection.execute(query("record_heartbeat"), sign)
    if batch.unbeats:
        connection.executemany(query("forget_heartbeats"), batch.unbeats)
    if batch.work or batch.ended_work or batch.dropped_work:
        write_work(connection, batch, now())
    for work in batch.transactions:
        assert isinstance(connection, Connection), "transaction steps run on the writer's connection"
        found.transactions.append(_transact(connection, work))
    return found


def _send(connection: Target, message: Message) -> None:
    values = (message.namespace, message.instance, message.verb, message.body, message.by, message.at)
    message.position = connection.execute(query("insert_message"), values).fetchone()[0]


def _write_people(connection: Target, batch: Batch) -> None:
    for t in batch.asks:
        values = (
            t.namespace,
            t.id,
            t.instance,
            t.operation,
            t.role,
            t.title,
            t.about,
            t.answer_schema,
            t.at,
            t.due_at,
        )
        connection.execute(query("insert_task"), values)
    for c in batch.closings:
        connection.execute(query("close_task"), (c.state, c.answer, c.by, c.at, c.namespace, c.id))


def _insert_starts(connection: Target, batch: Batch, owned: bool) -> list[int | None]:
    """Insert instances; an id that is taken gets no key. Their first entries join the batch's rows."""
    starts = batch.starts
    key, events_from = connection.execute(query("last_key")).fetchone()
    flat: list[Any] = []
    for number, s in enumerate(starts, key + 1):
        flat += (number, s.namespace, s.id, s.process, s.version, s.input_hash, owned, s.at, s.at)
        flat += (s.parent, s.parent_operation, events_from)
    inserted = _insert_instances.run(connection, flat)
    keys: list[int | None] = list(range(key + 1, key + 1 + len(starts)))
    if inserted < len(starts):
        keys = [
            number
            if connection.execute(query("instance_exists"), (s.namespace, s.id)).fetchone() == (number,)
            else None
            for number, s in enumerate(starts, key + 1)
        ]
    for number_or_none, s in zip(keys, starts, strict=True):
        if number_or_none is not None:
            batch.rows += (number_or_none, 0, s.at, "started", s.entry)
    return keys


def _insert_copies(connection: Target, batch: Batch) -> list[int | None]:
    """Insert instances that begin with a journal of their own: forks and imports."""
    keys: list[int | None] = []
    for start, journal in batch.copies:
        last_key, last_event = connection.execute(query("last_key")).fetchone()
        key = last_key + 1
        values: list[Any] = [key, start.namespace, start.id, start.process, start.version, start.input_hash, True]
        events_from = last_event if start.events_from is None else start.events_from
        values += (start.at, start.at, start.parent, start.parent_operation, events_from)
        if not connection.execute(query("insert_instances"), values).rowcount:
            keys.append(None)
            continue
        rows: list[Any] = []
        for seq, at, kind, entry in journal:
            rows += (key, seq, at, kind, entry)
        _insert_entries.run(connection, rows)
        if start.stands is not None:
            start.stands.key = key
            _change(connection, {key: start.stands})
        if start.annotations is not None:
            _annotate(connection, key, start.annotations)
        keys.append(key)
    return keys


def _change(connection: Target, changes: dict[int, Change]) -> None:
    flat: list[Any] = []
    for c in changes.values():
        flat += (c.key, c.status, c.at, c.wake_at, c.waiting_for, c.error, c.ended_at, c.run, c.base_seq)
    _update_instances.run(connection, flat)


def _annotate(connection: Target, key: int, values: bytes) -> None:
    before = connection.execute(query("annotations"), (key,)).fetchone()[0]
    connection.execute(query("annotate"), (merged(before, values), key))


def _open_wait(connection: Target, wait: WaitRow) -> list[Match]:
    """Insert a wait and look whether its event is already there."""
    row = (
        wait.instance,
        wait.operation,
        wait.namespace,
        wait.instance_id,
        wait.event_type,
        wait.key,
        wait.match,
    )
    connection.execute(query("insert_wait"), row)
    if wait.key is not None:
        name = "events_for_wait"
        values: tuple[Any, ...] = (
            wait.namespace,
            wait.event_type,
            wait.key,
            wait.after,
            wait.instance_id,
            wait.instance,
        )
    else:
        name = "events_for_unkeyed_wait"
        values = (wait.namespace, wait.event_type, wait.after, wait.instance_id, wait.instance)
    wanted = msgspec.json.decode(wait.match)
    for position, event_id, payload in connection.execute(query(name), values):
        if _meets(payload, wanted):
            return [_matched(connection, wait.instance, wait.operation, position, event_id, payload)]
    return []


def publish(connection: Target, event: EventRow) -> list[Match]:
    """Keep an event and give it to the waits that are open for it. A known event id changes nothing."""
    values = (
        event.namespace,
        event.id,
        event.event_type,
        event.topic,
        event.key,
        event.to,
        event.payload,
        event.at,
    )
    row = connection.execute(query("insert_event"), values).fetchone()
    if row is None:
        return []
    waits = connection.execute(query("waits_for_event"), (event.namespace, event.event_type, event.key)).fetchall()
    return [
        _matched(connection, instance, operation, row[0], event.id, event.payload)
        for instance, operation, instance_id, match in waits
        if event.to in (None, instance_id) and _meets(event.payload, msgspec.json.decode(match))
    ]


def _matched(connection: Target, instance: int, operation: str, position: int, event_id: str, payload: bytes) -> Match:
    connection.execute(query("match_wait"), (position, instance, operation))
    return Match(instance=instance, operation=operation, position=position, event_id=event_id, payload=payload)


def _meets(payload: bytes, wanted: dict[str, Any]) -> bool:
    if not wanted:
        return True
    fields = msgspec.json.decode(payload)
    return all(fields.get(name, _MISSING) == value for name, value in wanted.items())


_MISSING = object()


def _transact(connection: Connection, work: Transaction) -> tuple[bytes | None, BaseException | None]:
    """Run a `@transaction` step inside the commit; what it raises undoes its own work only."""
    connection.execute("SAVEPOINT dalsegno_guest")
    connection.lend()
    try:
        reach("transaction.before")
        entry = work.run(connection)
    except (Exception, SystemExit) as error:
        connection.take_back()
        connection.execute("ROLLBACK TO dalsegno_guest")
        connection.execute("RELEASE dalsegno_guest")
        return None, error
    finally:
        connection.take_back()
    connection.execute("RELEASE dalsegno_guest")
    _insert_entries.run(connection, [work.instance, work.seq, work.at, work.kind, entry])
    reach("transaction.after")
    return entry, None


def now() -> int:
    """The store's clock: the machine's, as for every program that opens the file."""
    return time.time_ns() // 1000
