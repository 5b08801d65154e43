"""What is asked of the database: plain reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dalsegno.contracts import codec
from dalsegno.kernel.ports import Filter, InstanceRow, Loaded, Match, Message, Standing, TaskRow
from dalsegno.stores.postgres.arrays import storable
from dalsegno.stores.postgres.commit import fenced
from dalsegno.stores.postgres.connection import Connection, query
from dalsegno.stores.postgres.session import Session

_INSTANCE = (
    "key", "namespace", "id", "process", "version", "status", "run", "base_seq", "input_hash", "begun", "created_at",
    "updated_at", "ended_at", "wake_at", "waiting_for", "error", "annotations", "parent", "parent_operation",
    "crashes", "events_from", "owner",
)  # fmt: skip
_MESSAGE = ("position", "namespace", "instance", "verb", "body", "by", "at", "reply", "done_at")
_TASK = (
    "namespace", "id", "instance", "operation", "role", "title", "about", "answer_schema", "state", "at", "due_at",
    "answer", "answered_by", "answered_at",
)  # fmt: skip
_STANDING = (
    "namespace", "process", "version", "status", "why", "instances", "oldest_at", "overdue", "overdue_since",
)  # fmt: skip


def instance(row: tuple[Any, ...]) -> InstanceRow:
    """An instance from its row."""
    return InstanceRow(**dict(zip(_INSTANCE, row, strict=True)))


def check_fence(rows: Sequence[Any], epoch: int) -> None:
    """Raise `Fenced` where the fence has no row."""
    if not rows:
        raise fenced(epoch)


def load(session: Session, keys: Sequence[int], epoch: int | None) -> list[Loaded]:
    """Instances with the journals of their present runs, as the owner of this epoch left them. Raises `Fenced`."""
    wanted = (list(keys),)
    schema = session.schema

    def read(connection: Connection) -> tuple[list[Any], list[Any]]:
        with connection.pipeline():
            fence = connection.execute(query("fence", schema), (epoch or 0,))
            rows = connection.execute(query("instance_columns", schema) + " WHERE key = ANY($1::bigint[])", wanted)
            entries = connection.execute(query("journals", schema), wanted)
        if epoch is not None:
            check_fence(fence.fetchall(), epoch)
        return rows.fetchall(), entries.fetchall()

    rows, entries = session.snapshot(read)
    found = {row[0]: instance(row) for row in rows}
    journals: dict[int, list[tuple[int, int, bytes]]] = {}
    for key, seq, at, entry in entries:
        journals.setdefault(key, []).append((seq, at, entry))
    return [Loaded(found[key], journals.get(key, [])) for key in keys if key in found]


def find(session: Session, namespace: str, id: str) -> InstanceRow | None:
    """The instance of an id."""
    return session.persistently(lambda connection: find_within(connection, session.schema, namespace, id))


def find_within(connection: Connection, schema: str, namespace: str, id: str) -> InstanceRow | None:
    """The instance of an id, as a transaction sees it."""
    text = query("instance_columns", schema) + " WHERE namespace = $1 AND id = $2"
    row = connection.execute(text, (storable(namespace), storable(id))).fetchone()
    return None if row is None else instance(row)


def list_instances(session: Session, filter: Filter, after_key: int | None, limit: int) -> list[InstanceRow]:
    """Instances, newest first."""
    conditions, values = _conditions(filter)
    if after_key is not None:
        values.append(after_key)
        conditions.append(f"key < ${len(values)}")
    where = " WHERE " + " AND ".join(conditions) if conditions else ""
    values.append(limit)
    text = f"{query('instance_columns', session.schema)}{where} ORDER BY key DESC LIMIT ${len(values)}"
    return [instance(row) for row in session.select(text, values)]


def _conditions(filter: Filter) -> tuple[list[str], list[Any]]:
    conditions: list[str] = []
    values: list[Any] = []

    def add(condition: str, *parameters: Any) -> None:
        first = len(values) + 1
        conditions.append(condition.format(*(f"${first + n}" for n in range(len(parameters)))))
        values.extend(parameters)

    if filter.namespace is not None:
        add("namespace = {}", filter.namespace)
    if filter.statuses:
        add("status = ANY({}::text[])", list(filter.statuses))
    if filter.process is not None:
        add("process = {}", filter.process)
    if filter.id_prefix is not None:
        add("starts_with(id, {})", filter.id_prefix)
    if filter.started_before is not None:
        add("created_at < {}", filter.started_before)
    if filter.started_after is not None:
        add("created_at >= {}", filter.started_after)
    if filter.parent is not None:
        add("parent = {}", filter.parent)
    for name, value in filter.where:
        # json and its text, so that 1 and "1" and 1.0 stay apart; jsonb knows no \u0000, and json doesn't look into it.
        add(
            r"CASE WHEN strpos(annotations, '\u0000') = 0 THEN (annotations::json -> {}::text)::text = {}::text END",
            name,
            codec.encode(value, f"value of {name!r}").decode(),
        )
    return conditions, values


def matches(rows: Sequence[tuple[Any, ...]]) -> list[Match]:
    """Waits whose event has been found."""
    return [
        Match(instance=instance, operation=operation, position=position, event_id=event_id, payload=payload)
        for instance, operation, position, event_id, payload in rows
    ]


def messages(rows: Sequence[tuple[Any, ...]]) -> list[Message]:
    """Messages from their rows."""
    return [Message(**dict(zip(_MESSAGE, row, strict=True))) for row in rows]


def tasks(
    session: Session, namespace: str | None, role: str | None, state: str | None, after_at: int, limit: int
) -> list[TaskRow]:
    """Questions to people."""
    text = (
        query("task_columns", session.schema) + " WHERE ($1::text IS NULL OR namespace = $1) "
        "AND ($2::text IS NULL OR role = $2) AND ($3::text IS NULL OR state = $3) AND at >= $4 "
        'ORDER BY at, id COLLATE "C" LIMIT $5'
    )
    return [_task(row) for row in session.select(text, (namespace, role, state, after_at, limit))]


def task(session: Session, namespace: str, id: str) -> TaskRow | None:
    """One question."""
    rows = session.select(query("task_columns", session.schema) + " WHERE namespace = $1 AND id = $2", (namespace, id))
    return _task(rows[0]) if rows else None


def _task(row: tuple[Any, ...]) -> TaskRow:
    return TaskRow(**dict(zip(_TASK, row, strict=True)))


def standing(rows: Sequence[tuple[Any, ...]]) -> list[Standing]:
    """Instances that have not ended, counted."""
    return [Standing(**dict(zip(_STANDING, row, strict=True))) for row in rows]
