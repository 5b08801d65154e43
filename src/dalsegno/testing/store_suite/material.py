"""What the suite's tests write: rows with everything filled in that a test doesn't care about."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from dalsegno.kernel.ports import (
    Batch,
    Change,
    Committed,
    EventRow,
    Heartbeat,
    Message,
    Start,
    Store,
    TaskClosing,
    TaskRow,
    Transaction,
    WaitRow,
)
from dalsegno.testing.store_suite.place import commit

SECOND = 1_000_000
BEGIN = 1_750_000_000 * SECOND
"""When the suite's instances begin."""


def start(id: str, **fields: Any) -> Start:
    """A start of an instance."""
    known: dict[str, Any] = {
        "namespace": "default",
        "process": "order",
        "version": 1,
        "input_hash": 7,
        "entry": b'{"kind":"started"}',
        "at": BEGIN,
    }
    return Start(id=id, **{**known, **fields})


def event(id: str, *, key: str | None = None, to: str | None = None, at: int = BEGIN, **fields: Any) -> EventRow:
    """A `Delivered` event with a payload of these fields."""
    return EventRow(
        namespace=fields.pop("namespace", "default"),
        id=id,
        event_type=fields.pop("event_type", "Delivered"),
        topic="deliveries",
        key=key,
        to=to,
        payload=json.dumps(fields).encode(),
        at=at,
    )


def wait(instance: int, operation: str = "event:Delivered", **fields: Any) -> WaitRow:
    """A wait for a `Delivered` event; `match` is the dict of wanted fields."""
    known: dict[str, Any] = {
        "namespace": "default",
        "instance_id": f"order-{instance}",
        "event_type": "Delivered",
        "key": None,
        "after": 0,
    }
    match = json.dumps(fields.pop("match", {})).encode()
    return WaitRow(instance=instance, operation=operation, match=match, **{**known, **fields})


def task(id: str, **fields: Any) -> TaskRow:
    """A question to finance."""
    known: dict[str, Any] = {
        "namespace": "default",
        "instance": "order-1",
        "operation": "ask:finance",
        "role": "finance",
        "about": b'{"total":500}',
        "answer_schema": b'{"type":"boolean"}',
        "at": BEGIN,
    }
    return TaskRow(id=id, **{**known, **fields})


def closing(id: str, state: str = "answered", **fields: Any) -> TaskClosing:
    """The end of a question."""
    known: dict[str, Any] = {"namespace": "default", "at": BEGIN + 5, "answer": b"true", "by": "maria"}
    return TaskClosing(id=id, state=state, **{**known, **fields})


def message(instance: str = "order-1", **fields: Any) -> Message:
    """A wish of another process."""
    known: dict[str, Any] = {"namespace": "default", "verb": "cancel", "body": b"{}", "at": BEGIN, "by": "maria"}
    return Message(instance=instance, **{**known, **fields})


def beat(instance: int, step: str = "load", details: bytes = b"1", attempt: int = 1) -> Heartbeat:
    """A heartbeat of a step."""
    return Heartbeat(instance=instance, step=step, attempt=attempt, at=BEGIN, details=details)


def change(key: int, status: str, **fields: Any) -> Change:
    """A new state of an instance."""
    return Change(key=key, status=status, **{"at": BEGIN + SECOND, **fields})


def transaction(instance: int, seq: int, work: Callable[[Any], Any]) -> Transaction:
    """A transaction step that does this work on the store's connection."""

    def run(connection: Any) -> bytes:
        work(connection)
        return b'{"kind":"step_completed"}'

    return Transaction(instance=instance, seq=seq, kind="step_completed", run=run, at=BEGIN)


async def write(store: Store, **parts: Any) -> Committed:
    """Commit a batch of these parts: `starts=[…]`, `changes=[…]`, `rows=[(key, seq, at, kind, entry), …]`."""
    return await commit(store, batch(**parts))


def batch(**parts: Any) -> Batch:
    """A batch of these parts."""
    found = Batch()
    for name, items in parts.items():
        if name == "rows":
            for row in items:
                found.add(*row)
        elif name == "changes":
            found.changes = {item.key: item for item in items}
        else:
            setattr(found, name, list(items))
    return found


async def begin(store: Store, *ids: str, **fields: Any) -> list[int]:
    """Start instances; their keys."""
    found = await write(store, starts=[start(id, **fields) for id in ids])
    keys = [key for key in found.start_keys if key is not None]
    assert len(keys) == len(ids), f"ids were taken: {found.start_keys}"
    return keys
