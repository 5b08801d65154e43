"""What a memory store keeps, and how one batch changes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from dalsegno.errors import Fenced, StoreError
from dalsegno.kernel.ports import Batch, Change, Committed, Heartbeat, InstanceRow, Message, NodeInfo, Start, TaskRow
from dalsegno.stores.annotations import merged
from dalsegno.stores.memory.meetings import Meetings
from dalsegno.stores.memory.works import Works

if TYPE_CHECKING:
    from dalsegno.stores.memory.guest import Guest
    from dalsegno.stores.memory.store import MemoryStore

replace = msgspec.structs.replace

Journal = list[tuple[int, int, str, bytes]]


class Disk:
    """The tables."""

    def __init__(self) -> None:
        self.nodes: list[NodeInfo] = []
        self.instances: dict[int, InstanceRow] = {}
        self.ids: dict[tuple[str, str], int] = {}
        self.journals: dict[int, Journal] = {}
        self.meetings = Meetings()
        self.works = Works()
        self.messages: dict[int, Message] = {}
        self.tasks: dict[tuple[str, str], TaskRow] = {}
        self.heartbeats: dict[tuple[int, str], Heartbeat] = {}
        self.crashed_seqs: dict[int, int] = {}
        self.on_trial: frozenset[int] = frozenset()
        self.last_message = 0
        #: the stores that are open on it
        self.stores: list[MemoryStore] = []
        self._guest: Guest | None = None

    @property
    def guest(self) -> Guest:
        """The database that transaction steps see."""
        if self._guest is None:
            # Few need it, and it costs a hundred microseconds.
            from dalsegno.stores.memory.guest import Guest

            self._guest = Guest()
        return self._guest

    def check_fence(self, epoch: int) -> None:
        """Raise `Fenced` where another node took over."""
        if self.nodes[epoch - 1].ended_at is not None:
            raise Fenced(f"node epoch {epoch} was ended by another engine that took over: this one may write nothing")

    def apply(self, batch: Batch, owned: bool, moment: int) -> Committed:
        """Write a batch. Raises `StoreError` where its journal rows don't fit; nothing is written then."""
        self._check(batch)
        found = Committed()
        if batch.transactions:
            found.transactions = self.guest.transact(batch.transactions)
        first = self._last_key() + 1
        found.start_keys = [
            self._start(number, start, owned, [(0, start.at, "started", start.entry)])
            for number, start in enumerate(batch.starts, first)
        ]
        found.copy_keys = [self._copy(start, journal) for start, journal in batch.copies]
        rows = batch.rows
        for i in range(0, len(rows), 5):
            self.journals[rows[i]].append(tuple(rows[i + 1 : i + 5]))
        for restart in batch.restarts:
            self.instances[restart.key] = replace(
                self.instances[restart.key],
                process=restart.process,
                version=restart.version,
                input_hash=restart.input_hash,
                annotations=None,
                events_from=self.meetings.last_position,
            )
        for change in batch.changes.values():
            self._change(change)
        for key, values in batch.annotations:
            self._annotate(key, values)
        self._meet(batch, found)
        self._ask(batch)
        self._send(batch, found)
        for beat in batch.heartbeats:
            self.heartbeats[beat.instance, beat.step] = beat
        for (key,) in batch.unbeats:
            for known in [pair for pair in self.heartbeats if pair[0] == key]:
                del self.heartbeats[known]
        self.works.write(batch, self._details, moment)
        for work, (entry, _) in zip(batch.transactions, found.transactions, strict=True):
            if entry is not None:
                self.journals[work.instance].append((work.seq, work.at, work.kind, entry))
        return found

    def _details(self, key: int, step: str) -> bytes | None:
        beat = self.heartbeats.get((key, step))
        return None if beat is None else beat.details

    def _check(self, batch: Batch) -> None:
        """Whatever could fail half-way fails here."""
        nexts: dict[int, int] = {}
        rows = batch.rows
        wanted = [(rows[i], rows[i + 1]) for i in range(0, len(rows), 5)]
        for key, seq in [*wanted, *((work.instance, work.seq) for work in batch.transactions)]:
            expected = nexts[key] if key in nexts else len(self.journals.get(key, ()))
            if seq != expected:
                raise StoreError(f"instance {key}: entry {seq} where {expected} comes next; nothing was written")
            nexts[key] = seq + 1

    # -- instances ---------------------------------------------------------------------------------

    def _last_key(self) -> int:
        return next(reversed(self.instances), 0)

    def _start(self, key: int, start: Start, owned: bool, journal: Journal) -> int | None:
        if (start.namespace, start.id) in self.ids:
            return None
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
            events_from=self.meetings.last_position,
        )
        self.journals[key] = list(journal)
        return key

    def _copy(self, start: Start, journal: Journal) -> int | None:
        key = self._start(self._last_key() + 1, start, True, journal)
        if key is None:
            return None
        if start.events_from is not None:
            self.instances[key] = replace(self.instances[key], events_from=start.events_from)
        if start.stands is not None:
            start.stands.key = key
            self._change(start.stands)
        if start.annotations is not None:
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
        self.instances[key] = replace(row, annotations=merged(row.annotations, values))

    # -- between instances and people --------------------------------------------------------------

    def _meet(self, batch: Batch, found: Committed) -> None:
        for pair in batch.unwaits:
            self.meetings.close(pair)
        for wait in batch.waits:
            found.matches += self.meetings.open(wait, self.instances[wait.instance].events_from)
        for event in batch.events:
            found.matches += self.meetings.publish(event)

    def _ask(self, batch: Batch) -> None:
        for task in batch.asks:
            known = self.tasks.get((task.namespace, task.id))
            if known is None or known.state == "withdrawn":
                self.tasks[task.namespace, task.id] = task
        for closing in batch.closings:
            pair = (closing.namespace, closing.id)
            known = self.tasks.get(pair)
            if known is not None and known.state == "open":
                self.tasks[pair] = replace(
                    known,
                    state=closing.state,
                    answer=closing.answer,
                    answered_by=closing.by,
                    answered_at=closing.at,
                )

    def _send(self, batch: Batch, found: Committed) -> None:
        refusals = [s.refusal for s, key in zip(batch.starts, found.start_keys, strict=True) if key is None]
        for message in [*(m for m in refusals if m is not None), *batch.messages]:
            self.last_message += 1
            message.position = self.last_message
            self.messages[self.last_message] = message
        for position, reply, at in batch.replies:
            sent = self.messages.get(position)
            if sent is not None and sent.done_at is None:
                self.messages[position] = replace(sent, reply=reply, done_at=at)
