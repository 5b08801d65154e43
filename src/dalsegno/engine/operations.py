"""What people and other programs may do to an instance: cancel, pause, retry, fork, answer, update."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from dalsegno.contracts import codec
from dalsegno.contracts.codec import EMPTY
from dalsegno.engine.reopening import copy_for_fork, discarded_by_retry
from dalsegno.engine.resident import Resident
from dalsegno.engine.residents import records
from dalsegno.engine.turns import MISMATCH
from dalsegno.errors import DalsegnoError, JournalMismatch, NotFound, Refused
from dalsegno.kernel import entries as e
from dalsegno.kernel.definition import ProcessSpec
from dalsegno.kernel.execution import Execution
from dalsegno.kernel.fault import Fault, capture, restore
from dalsegno.kernel.points import reach
from dalsegno.kernel.ports import FINAL, Change, InstanceRow, Loaded, Start

if TYPE_CHECKING:
    from dalsegno.engine.node import Node


class Request(msgspec.Struct, omit_defaults=True):
    """What an operation needs besides its verb and instance."""

    by: str | None = None
    reason: str | None = None
    event_type: str | None = None
    event: msgspec.Raw = EMPTY
    update: str | None = None
    task: str | None = None
    answer: msgspec.Raw = EMPTY
    step: str | None = None
    new_id: str | None = None


class Reply(msgspec.Struct, omit_defaults=True):
    """How an operation went."""

    value: msgspec.Raw = EMPTY
    error: Fault | None = None

    def read(self) -> Any:
        """The value, or the error raised."""
        if self.error is not None:
            raise restore(self.error)
        return codec.decode(self.value) if self.value else None


Done = Callable[[Reply], None]


class Operations:
    """Carries out operations; each is journaled, and replied to once it is durable."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._updates: dict[str, Done] = {}
        self._verbs: dict[str, Callable[[InstanceRow, Request, Done], None]] = {
            "cancel": self._cancel,
            "terminate": self._terminate,
            "pause": self._pause,
            "resume": self._resume,
            "retry": self._retry,
            "fork": self._fork,
            "update": self._update,
            "answer": self._answer,
            "start": self._start,
        }

    async def request(self, verb: str, namespace: str, id: str, request: Request) -> Any:
        """Carry out an operation and wait until it is durable. Raises what it refuses."""
        future: asyncio.Future[Reply] = self._node.loop.create_future()

        def done(reply: Reply) -> None:
            if not future.done():
                future.set_result(reply)

        await self.carry_out(verb, namespace, id, request, done)
        return (await future).read()

    async def carry_out(self, verb: str, namespace: str, id: str, request: Request, done: Done) -> None:
        """Look the instance up and act; `done` gets the reply once that is durable."""
        resident = self._node.residents.by_id(namespace, id)
        if resident is not None and verb in _ON_RESIDENT:
            # Nothing to look up: it is here.
            self._node.loop.call_soon(self._guarded, verb, _row_of(resident), request, done)
            return
        await self._node.settled()
        row = await self._node.store.find(namespace, id)
        if row is None:
            done(Reply(error=capture(NotFound(f"no instance {id!r} in namespace {namespace!r}"))))
            return
        self._node.loop.call_soon(self._guarded, verb, row, request, done)

    def _guarded(self, verb: str, row: InstanceRow, request: Request, done: Done) -> None:
        try:
            self._verbs[verb](row, request, done)
        except DalsegnoError as error:
            done(Reply(error=capture(error)))

    def _durably(self, done: Done, value: Any = None) -> None:
        reply = Reply(value=msgspec.Raw(codec.encode(value)))
        self._node.committer.batch.after.append(lambda: done(reply))
        self._node.committer.touch()

    # -- verbs -------------------------------------------------------------------------------------

    def _refuse_ended(self, row: InstanceRow, verb: str) -> None:
        if row.status in FINAL:
            raise Refused(f"instance {row.id!r} is {row.status}: there is nothing to {verb}")

    def _cancel(self, row: InstanceRow, request: Request, done: Done) -> None:
        self._refuse_ended(row, "cancel")

        def act(resident: Resident) -> None:
            self._node.turns.advance(resident, e.CancelRequested(request.reason, request.by))
            self._durably(done)

        if row.status in ("paused", "parked"):
            # It goes on in order to stop: what it did is undone.
            self._go_on(row, e.Resumed(request.by, request.reason), act)
        else:
            self._node.waking.wake(row.key, act)

    def _terminate(self, row: InstanceRow, request: Request, done: Done) -> None:
        self._refuse_ended(row, "terminate")
        node = self._node
        resident = node.residents.get(row.key)
        entry = e.Ended("terminated", by=request.by, reason=request.reason)
        if resident is None:
            node.spawn(self._terminate_stored(row, entry, done))
            return
        for job in list(resident.jobs.values()):
            if job is not None:
                node.steps.cancel(job)
        for wait in list(resident.execution.waits):
            node.turns.unwait(resident, wait)
        for ask in list(resident.execution.asks):
            node.turns.close_task(resident, ask, "withdrawn", node.store.now())
        resident.execution.out = [entry]
        node.turns.absorb(resident, node.store.now())
        resident.execution.drop()
        self._durably(done)

    async def _terminate_stored(self, row: InstanceRow, entry: e.Ended, done: Done) -> None:
        loaded = (await self._node.store.load([row.key]))[0]

        def act() -> None:
            at = self._node.store.now()
            batch = self._node.committer.batch
            batch.add(row.key, loaded.journal[-1][0] + 1, at, e.kind(entry), e.encode(entry))
            batch.changes[row.key] = self._changed(row, "terminated", at, ended_at=at)
            for record in records(loaded.journal):
                if isinstance(record.entry, e.EventAwaited):
                    batch.unwaits.append((row.key, record.entry.operation))
            batch.after.append(lambda: self._node.results.ended(row.key, entry))
            self._durably(done)

        self._node.loop.call_soon(act)

    def _pause(self, row: InstanceRow, request: Request, done: Done) -> None:
        self._refuse_ended(row, "pause")
        if row.status in ("paused", "parked"):
            raise Refused(f"instance {row.id!r} is {row.status} already")

        def act(resident: Resident) -> None:
            if not resident.paused:
                turns = self._node.turns
                turns.remark(resident, e.Paused(request.by, request.reason))
                turns.change(resident, "paused", self._node.store.now(), waiting_for="somebody to resume it")
                resident.paused = True
                self.leave_if_quiet(resident)
            self._durably(done)

        self._node.waking.wake(row.key, act)

    def leave_if_quiet(self, resident: Resident) -> None:
        """A paused instance leaves memory once its running steps have ended."""
        running = [job for job in resident.jobs.values() if job is not None]
        if resident.paused and not running and not resident.gone:
            resident.gone = True
            self._leave(resident)

    def _leave(self, resident: Resident) -> None:
        # Its last entries are not on disk yet: until they are, nobody may load it.
        self._node.committer.batch.after.append(lambda: self._node.residents.remove(resident))
        self._node.committer.touch()
        resident.execution.drop()

    def _resume(self, row: InstanceRow, request: Request, done: Done) -> None:
        if row.status not in ("paused", "parked"):
            raise Refused(f"instance {row.id!r} is {row.status}: there is nothing to resume")
        self._go_on(row, e.Resumed(request.by, request.reason), lambda resident: self._durably(done))

    def _go_on(self, row: InstanceRow, remark: e.Resumed, then: Callable[[Resident], None]) -> None:
        """Let a paused or parked instance go on: from memory if it is still there, else from its journal."""
        node = self._node
        resident = node.residents.get(row.key)
        if resident is None or resident.gone:
            node.spawn(self._go_on_stored(row, remark, then))
            return
        resident.paused = False
        node.turns.remark(resident, remark)
        node.turns.change(resident, "running", node.store.now())
        for key, job in list(resident.jobs.items()):
            call = resident.execution.pending.get(key)
            if job is None and call is not None:
                node.turns.dispatch(resident, call)
        node.turns.absorb(resident, node.store.now())
        node.inbox.look()
        then(resident)

    async def _go_on_stored(self, row: InstanceRow, remark: e.Resumed, then: Callable[[Resident], None]) -> None:
        await self._node.settled()
        loaded = (await self._node.store.load([row.key]))[0]
        await self._reopened(row, loaded.journal[-1][0] + 1, remark)
        self._node.waking.wake(row.key, then)
        self._node.inbox.look()

    async def _reopened(self, row: InstanceRow, seq: int, remark: e.Remark) -> None:
        """Write that an instance may run again, durably."""
        at = self._node.store.now()
        batch = self._node.committer.batch
        batch.add(row.key, seq, at, e.kind(remark), e.encode(remark))
        batch.changes[row.key] = self._changed(row, "running", at)
        await self._node.committer.durable()

    def _retry(self, row: InstanceRow, request: Request, done: Done) -> None:
        if row.status not in ("failed", "cancelled", "terminated"):
            raise Refused(f"instance {row.id!r} is {row.status}: only one that failed or was stopped can be retried")
        self._node.spawn(self._reopen(row, request, done))

    async def _reopen(self, row: InstanceRow, request: Request, done: Done) -> None:
        loaded = (await self._node.store.load([row.key]))[0]
        journal = records(loaded.journal)
        remark = e.Reopened(discarded_by_retry(journal), request.by, request.reason)
        await self._reopened(row, journal[-1].seq + 1, remark)
        self._node.waking.wake(row.key, lambda resident: self._durably(done))

    def _fork(self, row: InstanceRow, request: Request, done: Done) -> None:
        self._node.spawn(self._fork_stored(row, request, done))

    async def _fork_stored(self, row: InstanceRow, request: Request, done: Done) -> None:
        node = self._node
        try:
            await node.settled()
            loaded = (await node.store.load([row.key]))[0]
            new_id = request.new_id or f"{row.id}-fork-{loaded.journal[-1][0]}"
            at = node.store.now()
            journal = copy_for_fork(records(loaded.journal), row, new_id, request.step, request.by)
        except DalsegnoError as error:
            done(Reply(error=capture(error)))
            return
        start = Start(
            namespace=row.namespace,
            id=new_id,
            process=row.process,
            version=row.version,
            input_hash=row.input_hash,
            entry=b"",
            at=at,
        )
        await self.copy(start, journal, done)

    async def copy(self, start: Start, journal: list[e.Record], done: Done) -> None:
        """Store an instance that begins with a journal of its own, and run it."""
        node = self._node
        rows = [(r.seq, r.at, e.kind(r.entry), e.encode(r.entry)) for r in journal]

        def copied(key: int | None) -> None:
            if key is None:
                error = Refused(f"instance {start.id!r} exists already in namespace {start.namespace!r}")
                done(Reply(error=capture(error)))
            else:
                node.waking.wake(key)
                done(Reply(value=msgspec.Raw(codec.encode(start.id))))

        start.tag = copied
        node.committer.batch.copies.append((start, rows))
        node.committer.touch()

    async def restart(self, row: InstanceRow, spec: ProcessSpec, data: bytes, by: str | None) -> None:
        """Begin a new run of an ended instance; its journal goes on."""
        loaded = (await self._node.store.load([row.key]))[0]
        seq = loaded.journal[-1][0] + 1
        at = self._node.store.now()
        started = e.Started(spec.name, spec.version, msgspec.Raw(data), run=row.run + 1, by=by)
        batch = self._node.committer.batch
        batch.add(row.key, seq, at, e.kind(started), e.encode(started))
        batch.changes[row.key] = Change(key=row.key, status="running", at=at, run=row.run + 1, base_seq=seq)
        await self._node.committer.durable()
        self._node.loop.call_soon(self._node.waking.wake, row.key)

    def _start(self, row: InstanceRow, request: Request, done: Done) -> None:
        if row.status in ("running", "waiting"):
            self._node.waking.wake(row.key)
        self._durably(done)

    # -- updates and answers -----------------------------------------------------------------------

    def _update(self, row: InstanceRow, request: Request, done: Done) -> None:
        self._refuse_ended(row, "update")
        assert request.update is not None
        assert request.event_type is not None
        assert request.event
        entry = e.UpdateReceived(request.update, request.event_type, request.event, request.by)
        self._updates[request.update] = done
        self._node.waking.wake(row.key, lambda resident: self._node.turns.advance(resident, entry))

    def replied(self, resident: Resident, entry: e.UpdateReplied, at: int) -> None:
        """The process replied to an update: tell whoever asked, once that is durable."""
        done = self._updates.pop(entry.update, None)
        reply = Reply(value=entry.reply, error=entry.error)
        if done is not None:
            self._node.committer.batch.after.append(lambda: done(reply))
        elif entry.update.startswith("message:"):
            # It was asked before a restart; the reply belongs to the message.
            self._node.inbox.reply(int(entry.update.removeprefix("message:")), reply)

    def refuse_updates(self, resident: Resident, at: int) -> None:
        """The instance ended: updates it never handled are refused."""
        error = capture(Refused(f"instance {resident.id!r} ended before it replied"))
        for updates in resident.execution.unhandled_updates.values():
            for update in updates:
                self.replied(resident, e.UpdateReplied(update.update, error=error), at)

    def _answer(self, row: InstanceRow, request: Request, done: Done) -> None:
        assert request.task is not None
        assert request.answer
        operation = "ask:" + request.task.removeprefix(row.id + "/")
        answer = bytes(request.answer)

        def act(resident: Resident) -> None:
            ask = resident.execution.asks.get(operation)
            if ask is None:
                done(Reply(error=capture(Refused(f"task {request.task!r} is closed: it was answered or withdrawn"))))
                return
            try:
                codec.decode(answer, ask.answer_type, f"answer to {request.task!r}")
            except DalsegnoError as error:
                done(Reply(error=capture(error)))
                return
            at = self._node.store.now()
            self._node.turns.close_task(resident, operation, "answered", at, answer, request.by)
            self._node.turns.advance(resident, e.Answered(operation, msgspec.Raw(answer), request.by))
            self._durably(done)

        if row.status in FINAL:
            raise Refused(f"task {request.task!r} is closed: instance {row.id!r} is {row.status}")
        if row.status in ("paused", "parked"):
            raise Refused(f"instance {row.id!r} is {row.status}: resume it, then answer")
        self._node.waking.wake(row.key, act)

    # -- parking -----------------------------------------------------------------------------------

    def replay(self, resident: Resident, item: Loaded) -> bool:
        """Replay a loaded instance; false where it had to be parked."""
        try:
            resident.execution.replay(records(item.journal), begun=item.row.begun, crashed=item.row.status == "running")
        except JournalMismatch as mismatch:
            self.park_mismatch(resident, mismatch)
            return False
        except DalsegnoError as error:
            self.park(resident, str(error))
            return False
        return True

    def park_mismatch(self, resident: Resident, mismatch: JournalMismatch) -> None:
        """The code doesn't fit the journal: set the instance aside until the right code is there."""
        remark = e.Parked(f"journal mismatch: {mismatch}", mismatch.expected, mismatch.found)
        self._park(resident, remark, MISMATCH)

    def park(self, resident: Resident, reason: str) -> None:
        """Set an instance aside for an operator."""
        self._park(resident, e.Parked(reason), "an operator: resume, retry, cancel or terminate it")

    def _park(self, resident: Resident, remark: e.Parked, waiting_for: str) -> None:
        node = self._node
        if resident.gone:
            return
        node.log.error("instance %r (%s) is parked: %s", resident.id, resident.execution.spec.name, remark.reason)
        for job in list(resident.jobs.values()):
            if job is not None:
                node.steps.cancel(job)
        node.turns.remark(resident, remark)
        node.turns.change(resident, "parked", node.store.now(), waiting_for=waiting_for, error=remark.reason)
        resident.gone = True
        self._leave(resident)
        reach("advance.appended")

    async def try_again(self, key: int) -> None:
        """Replay an instance that was parked for want of the right code; it goes on if that is here now."""
        item = (await self._node.store.load([key]))[0]

        def look() -> None:
            row = item.row
            spec = self._node.definitions.find(row.process, row.version)
            if spec is None:
                return
            execution = Execution(spec, row.namespace, row.id, self._node.limits)
            try:
                execution.replay(records(item.journal))
            except DalsegnoError as error:
                self._node.log.warning("instance %r stays parked: %s", row.id, error)
            else:
                remark = e.Resumed(reason="its journal fits the code again")
                self._go_on(row, remark, lambda resident: None)
            finally:
                execution.drop()

        self._node.loop.call_soon(look)

    @staticmethod
    def _changed(row: InstanceRow, status: str, at: int, **fields: Any) -> Change:
        return Change(key=row.key, status=status, at=at, run=row.run, base_seq=row.base_seq, **fields)


_ON_RESIDENT = frozenset({"cancel", "terminate", "pause", "update", "answer"})


def _row_of(resident: Resident) -> InstanceRow:
    spec = resident.execution.spec
    return InstanceRow(
        key=resident.key,
        namespace=resident.namespace,
        id=resident.id,
        process=spec.name,
        version=spec.version,
        status=resident.status,
        run=resident.execution.run,
        base_seq=resident.base_seq,
        input_hash=0,
        begun=True,
        created_at=0,
        updated_at=0,
    )
