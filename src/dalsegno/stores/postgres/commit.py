"""One batch, one transaction: where it is only starts, rows and changes, one statement."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import errors

from dalsegno.errors import Fenced
from dalsegno.kernel.points import reach
from dalsegno.kernel.ports import Batch, Change, Committed, Message, Start
from dalsegno.stores.annotations import merged
from dalsegno.stores.postgres.arrays import Parameter, blob, integers, storable, texts
from dalsegno.stores.postgres.connection import Connection, query
from dalsegno.stores.postgres.meetings import Meetings
from dalsegno.stores.postgres.session import Session
from dalsegno.stores.postgres.work import write_work

_RARE = (
    "copies", "restarts", "annotations", "unwaits", "waits", "events", "asks", "closings", "messages", "replies",
    "heartbeats", "unbeats", "work", "ended_work", "dropped_work",
)  # fmt: skip


class Committer:
    """Writes an owner's batches, each with a number: the fence lets a number pass once."""

    def __init__(self, session: Session, epoch: int) -> None:
        self._session = session
        self._epoch = epoch
        self._batches = 0
        self._last_key = 0
        self._statement = query("fleet/commit", session.schema).encode()

    def commit(self, batch: Batch) -> tuple[Committed, bool]:
        """Write a batch but its transaction steps; also whether others may want to know. Raises `Fenced`."""
        reach("commit.before")
        batch_number = self._batches + 1
        if any(getattr(batch, name) for name in _RARE) or any(start.refusal for start in batch.starts):
            found, others = self._session.transact(lambda connection: self._in_parts(connection, batch, batch_number))
        else:
            found, others = self._in_one(batch, batch_number), False
        self._batches = batch_number
        self._last_key = max([self._last_key, *filter(None, found.start_keys), *filter(None, found.copy_keys)])
        reach("commit.executed")
        return found, others

    # -- one statement -----------------------------------------------------------------------------

    def _in_one(self, batch: Batch, number: int) -> Committed:
        values, formats = _parameters(batch, self._epoch, number)
        tried = False

        def attempt(connection: Connection) -> Committed:
            nonlocal tried
            if tried and self._is_there(connection, number):
                return Committed(start_keys=self._made_here(connection, batch.starts))
            tried = True
            return Committed(start_keys=self._hot(connection, values, formats, len(batch.starts)))

        return self._session.persistently(attempt)

    def _hot(self, connection: Connection, values: list[Any], formats: list[int], starts: int) -> list[int | None]:
        reach("commit.fenced")
        result = connection.pgconn.exec_params(self._statement, values, None, formats)
        if result.status != psycopg.pq.ExecStatus.TUPLES_OK:
            raise errors.error_from_result(result, encoding="utf-8")
        if result.get_value(0, 0) != b"1":
            raise fenced(self._epoch)
        reach("commit.rows")
        keys = result.get_value(0, 1)
        if not starts:
            return []
        assert keys is not None
        return [None if key == b"NULL" else int(key) for key in keys[1:-1].split(b",")]

    def _is_there(self, connection: Connection, number: int) -> bool:
        """Whether a batch was committed whose reply was lost: a statement that may still run is waited for."""
        rows = self._session.locked(connection, "fleet/settle_fence", self._epoch)
        if not rows:
            raise fenced(self._epoch)
        return bool(rows[0][0] == number)

    def _made_here(self, connection: Connection, starts: list[Start]) -> list[int | None]:
        """The keys of a committed batch's starts: its keys are higher than all before."""
        rows = connection.execute(query("fleet/made_here", self._session.schema), (self._epoch, self._last_key))
        made = {(namespace, id): key for key, namespace, id in rows.fetchall()}
        return [made.pop((storable(s.namespace), storable(s.id)), None) for s in starts]

    # -- a transaction of many ---------------------------------------------------------------------

    def _in_parts(self, connection: Connection, batch: Batch, number: int) -> tuple[Committed, bool]:
        schema = self._session.schema
        meetings = Meetings(connection, schema, self._epoch)
        meetings.lock(batch)
        values, formats = _parameters(batch, self._epoch, number)
        found = Committed(start_keys=self._hot(connection, values, formats, len(batch.starts)))
        others = write_rare(connection, schema, batch, found, self._epoch, meetings)
        return found, others


def fenced(epoch: int) -> Fenced:
    """The error of a node that was ended."""
    return Fenced(
        f"node epoch {epoch} was ended because its lease was over: this one may write nothing, others go on with what "
        "it ran. Start the node again if it is to run."
    )


def write_handed_in(connection: Connection, schema: str, batch: Batch) -> Committed:
    """Write what somebody hands in who owns nothing, within the transaction that the connection is in."""
    meetings = Meetings(connection, schema, None)
    meetings.lock(batch)
    found = Committed()
    for start in batch.starts:
        found.start_keys.append(_insert(connection, schema, start, owner=0, begun=False))
    entries = [
        (key, 0, start.at, "started", start.entry)
        for start, key in zip(batch.starts, found.start_keys, strict=True)
        if key is not None
    ]
    _many(connection, query("insert_entries", schema), entries)
    write_rare(connection, schema, batch, found, 0, meetings)
    return found


def write_rare(
    connection: Connection, schema: str, batch: Batch, found: Committed, owner: int, meetings: Meetings
) -> bool:
    """Everything but starts, rows and changes; whether it concerns instances of others."""
    for start, journal in batch.copies:
        found.copy_keys.append(_copy(connection, schema, start, journal, owner))
    restarts = [(r.process, r.version, r.input_hash, r.key) for r in batch.restarts]
    _many(connection, query("restart_instance", schema), restarts)
    for key, values in batch.annotations:
        _annotate(connection, schema, key, values)
    found.matches = meetings.write(batch)
    _write_people(connection, schema, batch)
    refusals = [
        start.refusal
        for start, taken in zip(batch.starts, found.start_keys, strict=True)
        if taken is None and start.refusal is not None
    ]
    _send(connection, schema, refusals + batch.messages)
    _many(connection, query("reply_message", schema), [(reply, at, place) for place, reply, at in batch.replies])
    beats = [(b.instance, storable(b.step), b.attempt, b.at, b.details) for b in batch.heartbeats]
    _many(connection, query("record_heartbeat", schema), beats)
    _many(connection, query("forget_heartbeats", schema), batch.unbeats)
    write_work(connection, schema, batch)
    return bool(meetings.others or batch.messages or refusals)


def _many(connection: Connection, text: str, values: list[Any]) -> None:
    """Run a statement for each of the values, in one round trip."""
    if values:
        with connection.pipeline():
            connection.cursor().executemany(text, values)


def _send(connection: Connection, schema: str, messages: list[Message]) -> None:
    if not messages:
        return
    rows = [(m.namespace, m.instance, m.verb, m.body, m.by, m.at) for m in messages]
    columns = [list(column) for column in zip(*map(_storable, rows), strict=True)]
    positions = connection.execute(query("insert_message", schema), columns).fetchall()
    for message, (position,) in zip(messages, sorted(positions), strict=True):
        message.position = position


def _write_people(connection: Connection, schema: str, batch: Batch) -> None:
    asked = [
        (t.namespace, t.id, t.instance, t.operation, t.role, t.title, t.about, t.answer_schema, t.at, t.due_at)
        for t in batch.asks
    ]
    _many(connection, query("insert_task", schema), [_storable(row) for row in asked])
    closed = [(c.state, c.answer, c.by, c.at, c.namespace, c.id) for c in batch.closings]
    _many(connection, query("close_task", schema), [_storable(row) for row in closed])


def _storable(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(storable(value) if isinstance(value, str) else value for value in row)


def _insert(connection: Connection, schema: str, start: Start, *, owner: int, begun: bool) -> int | None:
    values = (start.namespace, start.id, start.process, start.version, start.input_hash, start.at, start.parent)
    more = (start.parent_operation, owner, begun, start.events_from)
    row = connection.execute(query("insert_instances", schema), _storable(values + more)).fetchone()
    return None if row is None else int(row[0])


def _copy(
    connection: Connection, schema: str, start: Start, journal: list[tuple[int, int, str, bytes]], owner: int
) -> int | None:
    """Insert an instance that begins with a journal of its own: a fork or an import."""
    key = _insert(connection, schema, start, owner=owner, begun=True)
    if key is None:
        return None
    _many(connection, query("insert_entries", schema), [(key, *row) for row in journal])
    if start.stands is not None:
        start.stands.key = key
        connection.execute(query("update_instances", schema), _storable(_state(start.stands)))
    if start.annotations is not None:
        _annotate(connection, schema, key, start.annotations)
    return key


def _state(c: Change) -> tuple[Any, ...]:
    return c.key, c.status, c.at, c.wake_at, c.waiting_for, c.error, c.ended_at, c.run, c.base_seq


def _annotate(connection: Connection, schema: str, key: int, values: bytes) -> None:
    row = connection.execute(query("annotations", schema), (key,)).fetchone()
    assert row is not None, f"instance number {key} annotates itself and doesn't exist"
    connection.execute(query("annotate", schema), (merged(row[0], values), key))


def _parameters(batch: Batch, epoch: int, number: int) -> tuple[list[Any], list[int]]:
    """The parameters of `fleet/commit.sql`, and their forms."""
    columns = [*_start_columns(batch.starts), *_change_columns(list(batch.changes.values())), *_entry_columns(batch)]
    values = [b"%d" % epoch, b"%d" % number, *(value for value, _ in columns)]
    return values, [0, 0, *(form for _, form in columns)]


def _start_columns(starts: list[Start]) -> list[Parameter]:
    return [
        texts([s.namespace for s in starts]),
        texts([s.id for s in starts]),
        texts([s.process for s in starts]),
        integers([s.version for s in starts]),
        integers([s.input_hash for s in starts]),
        integers([s.at for s in starts]),
        texts([s.parent for s in starts]),
        texts([s.parent_operation for s in starts]),
        *blob([s.entry for s in starts]),
    ]


def _change_columns(changes: list[Change]) -> list[Parameter]:
    return [
        integers([c.key for c in changes]),
        texts([c.status for c in changes]),
        integers([c.at for c in changes]),
        integers([c.wake_at for c in changes]),
        texts([c.waiting_for for c in changes]),
        texts([c.error for c in changes]),
        integers([c.ended_at for c in changes]),
        integers([c.run for c in changes]),
        integers([c.base_seq for c in changes]),
    ]


def _entry_columns(batch: Batch) -> list[Parameter]:
    rows = batch.rows
    return [
        integers(rows[0::5]),
        integers(rows[1::5]),
        integers(rows[2::5]),
        texts(rows[3::5]),
        *blob(rows[4::5]),
    ]
