"""What a memory store keeps, and how one batch changes it."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from dalsegno.errors import Fenced
from dalsegno.kernel.ports import (
    Batch,
    Change,
    Committed,
    EventRow,
    Heartbeat,
    InstanceRow,
    Match,
    Message,
    NodeInfo,
    Start,
    TaskRow,
    WaitRow,
)

replace = msgspec.structs.replace


class Disk:
    """The tables."""

    def __init__(self) -> None:
        self.nodes: list[NodeInfo] = []
        self.instances: dict[int, InstanceRow] = {}
        self.ids: dict[tuple[str, str], int] = {}
        self.journals: dict[int, list[tuple[int, int, str, bytes]]] = {}
        self.events: list[EventRow] = []
        self.event_ids: set[tuple[str, str]] = set()
        self.waits: dict[tuple[int, str], WaitRow] = {}
        self.matched: dict[tuple[int, str], int] = {}
        self.messages: dict[int, Message] = {}
        self.tasks: dict[tuple[str, str], TaskRow] = {}
        self.heartbeats: dict[tuple[int, str], Heartbeat] = {}
        self.crashed_seqs: dict[int, int] = {}
        self.last_message = 0
        self.guest: dict[str, Any] = {}

    def check_fence(self, epoch: int) -> None:
        """Raise `Fenced` where another node took over."""
        if any(node.epoch == epoch and node.ended_at is not None for node in self.nodes):
            raise Fenced(f"node epoch {epoch} was ended by another engine that took over: this one may write nothing")

    def apply(self, batch: Batch, owned: bool) -> Committed:
        """Write a batch."""
        found = Committed()
        found.start_keys = [self._start(s, owned, [(0, s.at, "started", s.entry)]) for s in batch.starts]
        found.copy_keys = [self._copy(s, journal) for s, journal in batch.copies]
        rows = batch.rows
        for i in range(0, len(rows), 5):
            self._append(*rows[i : i + 5])
        for change in batch.changes.values():
            self._change(change)
        for key, values in batch.annotations:
            self._annotate(key, values)
        for pair in batch.unwaits:
            self.waits.pop(pair, None)
            self.matched.pop(pair, None)
        for wait in batch.waits:
            found.matches += self._open_wait(wait)
        for event in batch.events:
            found.matches += self._publish(event)
        self._people(batch)
        refusals = [s.refusal for s, key in zip(batch.starts, found.start_keys, strict=True) if key is None]
        for message in [*(m for m in refusals if m is not None), *batch.messages]:
            self.last_message += 1
            message.position = self.last_message
            self.messages[self.last_message] = message
        for position, reply, at in batch.replies:
            if self.messages[position].done_at is None:
                self.messages[position] = replace(self.messages[position], reply=reply, done_at=at)
        for beat in batch.heartbeats:
            self.heartbeats[beat.instance, beat.step] = beat
        for (key,) in batch.unbeats:
            for known in [pair for pair in self.heartbeats if pair[0] == key]:
                del self.heartbeats[known]
        for work in batch.transactions:
            found.transactions.append(self._transact(work))
        return found

    def _append(self, key: int, seq: int, at: int, kind: str, entry: bytes) -> None:
        journal = self.journals[key]
        assert seq == len(journal), f"instance {key}: entry {seq} after {len(journal)} entries"
        journal.append((seq, at, kind, entry))

    def _start(self, start: Start, owned: bool, journal: list[tuple[int, int, str, bytes]]) -> int | None:
        if (start.namespace, start.id) in self.ids:
            return None
        key = len(self.instances) + 1
        self.ids[start.namespace, start.id] = key
        self.instances[key] = InstanceRow(
            key=key,
            namespace=start.namespace,
            id=start.id,
            process=start.process,
            version=start.version,
            status="running",
            run=1,
            base_seq=0,
            input_hash=start.input_hash,
            begun=owned,
            created_at=start.at,
            updated_at=start.at,
            parent=start.parent,
            parent_operation=start.parent_operation,
            events_from=len(self.events),
        )
        self.journals[key] = []
        for entry in journal:
            self._append(key, *entry)
        return key

    def _copy(self, start: Start, journal: list[tuple[int, int, str, bytes]]) -> int | None:
        key = self._start(start, True, journal)
        if key is not None and start.stands is not None:
            start.stands.key = key
            self._change(start.stands)
        if key is not None and start.annotations is not None:
            self._annotate(key, start.annotations)
        return key

    def _change(self, change: Change) -> None:
        self.instances[change.key] = replace(
            self.instances[change.key],
            status=change.status,
            updated_at=change.at,
            wake_at=change.wake_at,
            waiting_for=change.waiting_for,
            error=change.error,
            ended_at=change.ended_at,
            run=change.run,
            base_seq=change.base_seq,
            begun=True,
        )

    def _annotate(self, key: int, values: bytes) -> None:
        row = self.instances[key]
        merged = {**json.loads(row.annotations or "{}"), **json.loads(values)}
        kept = {name: value for name, value in merged.items() if value is not None}
        self.instances[key] = replace(row, annotations=json.dumps(kept))

    def _open_wait(self, wait: WaitRow) -> list[Match]:
        pair = (wait.instance, wait.operation)
        self.waits[pair] = wait
        self.matched.pop(pair, None)
        since = self.instances[wait.instance].events_from
        for position, event in enumerate(self.events, 1):
            early = event.to is None and position <= since
            if position > wait.after and not early and _meets(event, wait):
                return [self._match(wait, position, event)]
        return []

    def _publish(self, event: EventRow) -> list[Match]:
        if (event.namespace, event.id) in self.event_ids:
            return []
        self.event_ids.add((event.namespace, event.id))
        self.events.append(event)
        position = len(self.events)
        open_waits = [wait for pair, wait in self.waits.items() if pair not in self.matched]
        return [self._match(wait, position, event) for wait in open_waits if _meets(event, wait)]

    def _match(self, wait: WaitRow, position: int, event: EventRow) -> Match:
        self.matched[wait.instance, wait.operation] = position
        return Match(
            instance=wait.instance,
            operation=wait.operation,
            position=position,
            event_id=event.id,
            payload=event.payload,
        )

    def matches(self) -> list[Match]:
        """Waits whose event has been found."""
        return [
            self._match(self.waits[pair], position, self.events[position - 1])
            for pair, position in list(self.matched.items())
        ]

    def _people(self, batch: Batch) -> None:
        for task in batch.asks:
            known = self.tasks.get((task.namespace, task.id))
            if known is None or known.state == "withdrawn":
                self.tasks[task.namespace, task.id] = task
        for closing in batch.closings:
            open_task = self.tasks.get((closing.namespace, closing.id))
            if open_task is not None and open_task.state == "open":
                self.tasks[closing.namespace, closing.id] = replace(
                    open_task,
                    state=closing.state,
                    answer=closing.answer,
                    answered_by=closing.by,
                    answered_at=closing.at,
                )

    def _transact(self, work: Any) -> tuple[bytes | None, BaseException | None]:
        before = dict(self.guest)
        try:
            entry = work.run(self.guest)
        except Exception as error:
            self.guest.clear()
            self.guest.update(before)
            return None, error
        self._append(work.instance, work.seq, work.at, work.kind, entry)
        return entry, None


def _meets(event: EventRow, wait: WaitRow) -> bool:
    if (event.namespace, event.event_type) != (wait.namespace, wait.event_type):
        return False
    if event.to not in (None, wait.instance_id) or wait.key not in (None, event.key):
        return False
    wanted = msgspec.json.decode(wait.match)
    fields = msgspec.json.decode(event.payload) if wanted else {}
    return all(name in fields and fields[name] == value for name, value in wanted.items())
