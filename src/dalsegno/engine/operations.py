"""What people and other programs may do to an instance: cancel, pause, retry, fork, answer, update."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from dalsegno.contracts import codec
from dalsegno.engine.requests import Done, Reply, Request, refusal, value_of
from dalsegno.engine.resident import Resident
from dalsegno.engine.turns import task_id
from dalsegno.errors import DalsegnoError, NotFound, Refused
from dalsegno.kernel import entries as e
from dalsegno.kernel.ports import FINAL, InstanceRow

if TYPE_CHECKING:
    from dalsegno.engine.node import Node

_SET_ASIDE = ("paused", "parked")
_ON_RESIDENT = frozenset({"cancel", "terminate", "pause", "update", "answer"})


class Operations:
    """Carries out operations; each is journaled, and replied to once it is durable."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._updates: dict[str, Done] = {}
        self._open: set[asyncio.Future[Reply]] = set()
        self._verbs: dict[str, Callable[[InstanceRow, Request, Done], None]] = {
            "cancel": self._cancel,
            "terminate": self._terminate,
            "pause": self._pause,
            "resume": self._resume,
            "retry": self._retry,
            "fork": node.stored.fork,
            "update": self._update,
            "answer": self._answer,
            "start": self._start,
        }

    async def request(self, verb: str, namespace: str, id: str, request: Request) -> Any:
        """Carry out an operation and wait until it is durable. Raises what it refuses."""
        future: asyncio.Future[Reply] = self._node.loop.create_future()
        self._open.add(future)

        def done(reply: Reply) -> None:
            if not future.done():
                future.set_result(reply)

        try:
            await self.carry_out(verb, namespace, id, request, done)
            reply = await future
            await self._node.settled()
            return reply.read()
        finally:
            self._open.discard(future)

    def fail(self, error: BaseException) -> None:
        """The node stopped: operations under way may or may not have been written."""
        for future in self._open:
            if not future.done():
                future.set_exception(error)

    async def carry_out(self, verb: str, namespace: str, id: str, request: Request, done: Done) -> None:
        """Look the instance up and act.

        `done` gets the reply at once, so that the reply to a message is in the commit of what it asked for.
        """
        resident = self._node.residents.by_id(namespace, id)
        if resident is not None and verb in _ON_RESIDENT:
            row = _row_of(resident)
        else:
            await self._node.settled()
            found = await self._node.store.find(namespace, id)
            if found is None:
                done(refusal(NotFound(f"no instance {id!r} in namespace {namespace!r}")))
                return
            row = found
        # Process code must not be entered from within a task.
        self._node.loop.call_soon(self._node.guarded, self._act, verb, row, request, done)

    def _act(self, verb: str, row: InstanceRow, request: Request, done: Done) -> None:
        try:
            self._verbs[verb](row, request, done)
        except DalsegnoError as error:
            done(refusal(error))

    def _with_resident(self, row: InstanceRow, act: Callable[[Resident], None], done: Done) -> None:
        """Act on the instance in memory, or say why it can't be there."""

        def unheld(resident: Resident) -> None:
            # Its transaction step is being committed: what comes now comes after that.
            if resident.held:
                resident.queue.append(lambda: unheld(resident))
            elif resident.gone:
                done(refusal(Refused(f"instance {resident.id!r} is {resident.status}")))
            else:
                act(resident)

        self._node.waking.wake(row.key, unheld, lambda error: done(refusal(error)))

    # -- stopping ----------------------------------------------------------------------------------

    def _refuse_ended(self, row: InstanceRow, verb: str) -> None:
        if row.status in FINAL:
            raise Refused(f"instance {row.id!r} is {row.status}: there is nothing to {verb}")

    def _cancel(self, row: InstanceRow, request: Request, done: Done) -> None:
        self._refuse_ended(row, "cancel")

        def act(resident: Resident) -> None:
            if resident.paused:
                # It goes on in order to stop: what it did is undone.
                self._go_on_here(resident, e.Resumed(request.by, request.reason))
            self._node.turns.advance(resident, e.CancelRequested(request.reason, request.by))
            done(value_of(None))

        if row.status in _SET_ASIDE and self._node.residents.get(row.key) is None:
            remark = e.Resumed(request.by, request.reason)
            self._node.stored.go_on(row, remark, act, lambda error: done(refusal(error)))
        else:
            self._with_resident(row, act, done)

    def _terminate(self, row: InstanceRow, request: Request, done: Done) -> None:
        self._refuse_ended(row, "terminate")
        node = self._node
        entry = e.Ended("terminated", by=request.by, reason=request.reason)

        def act(resident: Resident) -> None:
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
            done(value_of(None))

        if node.definitions.find(row.process, row.version) is None:
            node.stored.terminate(row, entry, done, lambda error: done(refusal(error)))
        elif row.status in _SET_ASIDE and node.residents.get(row.key) is None:
            # Somebody may let it go on at the same time: then it is in memory by now.
            def otherwise(_: DalsegnoError) -> None:
                node.loop.call_soon(node.guarded, self._with_resident, row, act, done)

            node.stored.terminate(row, entry, done, otherwise, *_SET_ASIDE)
        else:
            self._with_resident(row, act, done)

    # -- pausing -----------------------------------------------------------------------------------

    def _pause(self, row: InstanceRow, request: Request, done: Done) -> None:
        self._refuse_ended(row, "pause")
        if row.status in _SET_ASIDE:
            raise Refused(f"instance {row.id!r} is {row.status} already")

        def act(resident: Resident) -> None:
            turns = self._node.turns
            turns.remark(resident, e.Paused(request.by, request.reason))
            turns.change(resident, "paused", self._node.store.now(), waiting_for="somebody to resume it")
            resident.paused = True
            self._node.parking.leave_if_quiet(resident)
            done(value_of(None))

        self._with_resident(row, act, done)

    def _resume(self, row: InstanceRow, request: Request, done: Done) -> None:
        if row.status not in _SET_ASIDE:
            raise Refused(f"instance {row.id!r} is {row.status}: there is nothing to resume")
        remark = e.Resumed(request.by, request.reason)
        resident = self._node.residents.get(row.key)
        if resident is not None and not resident.gone:
            self._go_on_here(resident, remark)
            done(value_of(None))
            return
        self._node.stored.resume(row, remark, done)

    def _go_on_here(self, resident: Resident, remark: e.Resumed) -> None:
        """A paused instance that is still in memory, for the steps it had begun, just goes on."""
        node = self._node
        resident.paused = False
        node.turns.remark(resident, remark)
        node.turns.change(resident, "running", node.store.now())
        for key, job in list(resident.jobs.items()):
            call = resident.execution.pending.get(key)
            if job is None and call is not None:
                node.turns.dispatch(resident, call)
        node.turns.absorb(resident, node.store.now())
        node.inbox.goes_on(resident.namespace, resident.id)

    def _retry(self, row: InstanceRow, request: Request, done: Done) -> None:
        if row.status not in ("failed", "cancelled", "terminated"):
            raise Refused(f"instance {row.id!r} is {row.status}: only one that failed or was stopped can be retried")
        self._node.stored.retry(row, request, done)

    def _start(self, row: InstanceRow, request: Request, done: Done) -> None:
        if row.status in ("running", "waiting"):
            self._node.waking.wake(row.key)
        done(value_of(None))

    # -- updates and answers -----------------------------------------------------------------------

    def _update(self, row: InstanceRow, request: Request, done: Done) -> None:
        self._refuse_ended(row, "update")
        assert request.update is not None
        assert request.event_type is not None
        update = request.update
        entry = e.UpdateReceived(update, request.event_type, request.event, request.by)

        def act(resident: Resident) -> None:
            if resident.execution.knows_update(update):
                # A restart came between its entry and the mark on its message: the reply is on its way.
                return
            self._updates[update] = done
            self._node.turns.advance(resident, entry)

        self._with_resident(row, act, done)

    def replied(self, resident: Resident, entry: e.UpdateReplied, at: int) -> None:
        """The process replied to an update: tell whoever asked, once that is durable."""
        done = self._updates.pop(entry.update, None)
        reply = Reply(value=entry.reply, error=entry.error)
        if done is not None:
            done(reply)
        elif entry.update.startswith("message:"):
            # Asked before a restart; its message is still open.
            self._node.inbox.reply(int(entry.update.removeprefix("message:")), reply)

    def refuse_updates(self, resident: Resident, at: int) -> None:
        """The instance ended: updates it never handled are refused."""
        error = refusal(Refused(f"instance {resident.id!r} ended before it replied")).error
        for updates in resident.execution.unhandled_updates.values():
            for update in updates:
                self.replied(resident, e.UpdateReplied(update.update, error=error), at)

    def _answer(self, row: InstanceRow, request: Request, done: Done) -> None:
        assert request.task is not None
        task, answer = request.task, bytes(request.answer)
        operation = "ask:" + task.removeprefix(task_id(row.id, row.run, ""))
        if row.status in FINAL:
            raise Refused(f"task {task!r} is closed: instance {row.id!r} is {row.status}")
        if row.status in _SET_ASIDE:
            raise Refused(f"instance {row.id!r} is {row.status}: resume it, then answer")

        def act(resident: Resident) -> None:
            ask = resident.execution.asks.get(operation)
            if ask is None:
                done(refusal(Refused(f"task {task!r} is closed: it was answered or withdrawn")))
                return
            try:
                codec.decode(answer, ask.answer_type, f"answer to {task!r}")
            except DalsegnoError as error:
                done(refusal(error))
                return
            at = self._node.store.now()
            self._node.turns.close_task(resident, operation, "answered", at, answer, request.by)
            self._node.turns.advance(resident, e.Answered(operation, msgspec.Raw(answer), request.by))
            done(value_of(None))

        self._with_resident(row, act, done)


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
