"""What is asked of the file: plain reads, each in one statement."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from dalsegno.contracts import codec
from dalsegno.kernel.ports import Filter, InstanceRow, Loaded, Match, Message, NodeInfo, Standing, TaskRow
from dalsegno.stores.sqlite.commit import check_fence
from dalsegno.stores.sqlite.connection import query
from dalsegno.stores.sqlite.ownership import node_info

_INSTANCE = (
    "key", "namespace", "id", "process", "version", "status", "run", "base_seq", "input_hash", "begun", "created_at",
    "updated_at", "ended_at", "wake_at", "waiting_for", "error", "annotations", "parent", "parent_operation",
    "crashes", "events_from",
)  # fmt: skip
_MESSAGE = ("position", "namespace", "instance", "verb", "body", "by", "at", "reply", "done_at")
_TASK = (
    "namespace", "id", "instance", "operation", "role", "title", "about", "answer_schema", "state", "at", "due_at",
    "answer", "answered_by", "answered_at",
)  # fmt: skip


def _instance(row: tuple[Any, ...]) -> InstanceRow:
    values = dict(zip(_INSTANCE, row, strict=True))
    values["begun"] = bool(values["begun"])
    return InstanceRow(**values)


def load(connection: sqlite3.Connection, keys: Sequence[int], epoch: int | None) -> list[Loaded]:
    """Instances with the journals of their present runs, as the owner of this epoch left them. Raises `Fenced`."""
    wanted = json.dumps(list(keys))
    text = query("instance_columns") + " WHERE key IN (SELECT value FROM json_each(?))"
    connection.execute("BEGIN")
    try:
        if epoch is not None:
            check_fence(connection, epoch)
        rows = {row[0]: _instance(row) for row in connection.execute(text, (wanted,))}
        journals: dict[int, list[tuple[int, int, bytes]]] = {}
        for key, seq, at, entry in connection.execute(query("journals"), (wanted,)):
            journals.setdefault(key, []).append((seq, at, entry))
    finally:
        connection.execute("COMMIT")
    return [Loaded(rows[key], journals.get(key, [])) for key in keys if key in rows]


def find(connection: sqlite3.Connection | sqlite3.Cursor, namespace: str, id: str) -> InstanceRow | None:
    """The instance of an id."""
    text = query("instance_columns") + " WHERE namespace = ? AND id = ?"
    row = connection.execute(text, (namespace, id)).fetchone()
    return None if row is None else _instance(row)


def list_instances(
    connection: sqlite3.Connection, filter: Filter, after_key: int | None, limit: int
) -> list[InstanceRow]:
    """Instances, newest first."""
    conditions, values = _conditions(filter)
    if after_key is not None:
        conditions.append("key < ?")
        values.append(after_key)
    where = " WHERE " + " AND ".join(conditions) if conditions else ""
    text = f"{query('instance_columns')}{where} ORDER BY key DESC LIMIT ?"
    return [_instance(row) for row in connection.execute(text, (*values, limit))]


def _conditions(filter: Filter) -> tuple[list[str], list[Any]]:
    conditions: list[str] = []
    values: list[Any] = []

    def add(condition: str, *parameters: Any) -> None:
        conditions.append(condition)
        values.extend(parameters)

    if filter.namespace is not None:
        add("namespace = ?", filter.namespace)
    if filter.statuses:
        add(f"status IN ({','.join('?' * len(filter.statuses))})", *filter.statuses)
    if filter.process is not None:
        add("process = ?", filter.process)
    if filter.id_prefix is not None:
        add("substr(id, 1, length(?)) = ?", filter.id_prefix, filter.id_prefix)
    if filter.started_before is not None:
        add("created_at < ?", filter.started_before)
    if filter.started_after is not None:
        add("created_at >= ?", filter.started_after)
    if filter.parent is not None:
        add("parent = ?", filter.parent)
    for name, value in filter.where:
        # -> compares JSON with JSON, so that 1 and "1" stay apart; the codec writes what is annotated alike.
        add("annotations -> ? = ?", f'$."{name}"', codec.encode(value, f"value of {name!r}").decode())
    return conditions, values


def matches(connection: sqlite3.Connection) -> list[Match]:
    """Waits whose event has been found."""
    return [
        Match(instance=instance, operation=operation, position=position, event_id=event_id, payload=payload)
        for instance, operation, position, event_id, payload in connection.execute(query("matches"))
    ]


def messages(connection: sqlite3.Connection, after: int) -> list[Message]:
    """Messages to be handled."""
    return [
        Message(**dict(zip(_MESSAGE, row, strict=True))) for row in connection.execute(query("open_messages"), (after,))
    ]


def message(connection: sqlite3.Connection, position: int) -> Message | None:
    """One message."""
    row = connection.execute(query("message"), (position,)).fetchone()
    return None if row is None else Message(**dict(zip(_MESSAGE, row, strict=True)))


def tasks(
    connection: sqlite3.Connection,
    namespace: str | None,
    role: str | None,
    state: str | None,
    after_at: int,
    limit: int,
) -> list[TaskRow]:
    """Questions to people."""
    text = (
        query("task_columns") + " WHERE (?1 IS NULL OR namespace = ?1) AND (?2 IS NULL OR role = ?2) "
        "AND (?3 IS NULL OR state = ?3) AND at >= ?4 ORDER BY at, id LIMIT ?5"
    )
    return [_task(row) for row in connection.execute(text, (namespace, role, state, after_at, limit))]


def task(connection: sqlite3.Connection, namespace: str, id: str) -> TaskRow | None:
    """One question."""
    row = connection.execute(query("task_columns") + " WHERE namespace = ? AND id = ?", (namespace, id)).fetchone()
    return None if row is None else _task(row)


def _task(row: tuple[Any, ...]) -> TaskRow:
    return TaskRow(**dict(zip(_TASK, row, strict=True)))


def nodes(connection: sqlite3.Connection) -> list[NodeInfo]:
    """Nodes, newest first."""
    return [node_info(row) for row in connection.execute(query("nodes")).fetchall()]


def numbers(connection: sqlite3.Connection, name: str, *values: Any) -> list[Any]:
    """The first column of a query."""
    return [row[0] for row in connection.execute(query(name), values)]


_STANDING = (
    "namespace", "process", "version", "status", "why", "instances", "oldest_at", "overdue", "overdue_since",
)  # fmt: skip


def standing(connection: sqlite3.Connection, overdue_before: int) -> list[Standing]:
    """Instances that have not ended, counted."""
    found = rows(connection, "standing", overdue_before)
    return [Standing(**dict(zip(_STANDING, row, strict=True))) for row in found]


def rows(connection: sqlite3.Connection, name: str, *values: Any) -> list[Any]:
    """All rows of a query."""
    return connection.execute(query(name), values).fetchall()
