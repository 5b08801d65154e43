"""Events and waits: which meet, decided under the lock of their namespace.

Positions of events are drawn, and events and waits looked for, only while the namespace's lock is held to the end of
the transaction. So positions are in the order of commits, and of an event and a wait that come at the same time the
later one finds the other.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from dalsegno.kernel.ports import Batch, EventRow, Match, WaitRow
from dalsegno.stores.postgres.arrays import storable
from dalsegno.stores.postgres.connection import Connection, query

_PAGE = 100
_MISSING = object()


class Meetings:
    """The events and waits of one transaction. `others`: a wait was met whose instance isn't this node's."""

    def __init__(self, connection: Connection, schema: str, epoch: int | None) -> None:
        self._connection = connection
        self._schema = schema
        self._epoch = epoch
        self.others = False

    def lock(self, batch: Batch) -> None:
        """Take the locks of the namespaces concerned, in one order everywhere."""
        namespaces = {event.namespace for event in batch.events} | {wait.namespace for wait in batch.waits}
        if namespaces:
            keys = sorted(_lock_key(self._schema, namespace) for namespace in namespaces)
            self._connection.execute(query("fleet/lock_namespaces", self._schema), (keys,))

    def write(self, batch: Batch) -> list[Match]:
        """Close waits, open waits, publish events; the matches for instances of this node."""
        found: list[Match] = []
        if batch.unwaits:
            closed = [(instance, storable(operation)) for instance, operation in sorted(batch.unwaits)]
            with self._connection.pipeline():
                self._connection.cursor().executemany(query("delete_wait", self._schema), closed)
        for wait in batch.waits:
            found += self._open(wait)
        for event in batch.events:
            found += self._publish(event)
        return found

    def _run(self, name: str, *values: Any) -> Any:
        return self._connection.execute(query(name, self._schema), values)

    def _open(self, wait: WaitRow) -> list[Match]:
        """Insert a wait and look whether its event is already there."""
        namespace, instance_id = storable(wait.namespace), storable(wait.instance_id)
        key = None if wait.key is None else storable(wait.key)
        operation = storable(wait.operation)
        self._run("insert_wait", wait.instance, operation, namespace, instance_id, wait.event_type, key, wait.match)
        wanted = msgspec.json.decode(wait.match)
        after = wait.after
        name = "events_for_unkeyed_wait" if key is None else "events_for_wait"
        while True:
            values = (namespace, wait.event_type, after, instance_id, wait.instance, _PAGE)
            rows = self._run(name, *values, *([] if key is None else [key])).fetchall()
            for position, event_id, payload in rows:
                if meets(payload, wanted):
                    return [self._matched(wait.instance, operation, position, event_id, payload)]
            if len(rows) < _PAGE:
                return []
            after = rows[-1][0]

    def _publish(self, event: EventRow) -> list[Match]:
        """Keep an event and give it to the waits that are open for it. A known event id changes nothing."""
        names = [event.namespace, event.id, event.event_type, event.topic, event.key, event.to]
        namespace, id, event_type, topic, key, to = (None if name is None else storable(name) for name in names)
        row = self._run("insert_event", namespace, id, event_type, topic, key, to, event.payload, event.at).fetchone()
        if row is None:
            return []
        found = []
        for instance, operation, instance_id, match, owner in self._run("waits_for_event", namespace, event_type, key):
            if to in (None, instance_id) and meets(event.payload, msgspec.json.decode(match)):
                met = self._matched(instance, operation, row[0], event.id, event.payload)
                if owner == self._epoch:
                    found.append(met)
                else:
                    self.others = True
        return found

    def _matched(self, instance: int, operation: str, position: int, event_id: str, payload: bytes) -> Match:
        self._run("match_wait", position, instance, operation)
        return Match(instance=instance, operation=operation, position=position, event_id=event_id, payload=payload)


def meets(payload: bytes, wanted: dict[str, Any]) -> bool:
    """Whether an event's payload has the wanted fields."""
    if not wanted:
        return True
    fields = msgspec.json.decode(payload)
    return all(fields.get(name, _MISSING) == value for name, value in wanted.items())


def _lock_key(schema: str, namespace: str) -> int:
    digest = hashlib.blake2b(f"dalsegno events {schema}\n{namespace}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
