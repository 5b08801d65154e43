"""Moving an instance on: journal a delivery, run the process, take up what it wants."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from dalsegno.contracts import codec
from dalsegno.engine.resident import Resident
from dalsegno.errors import DalsegnoError, ForbiddenInProcess
from dalsegno.kernel import entries as e
from dalsegno.kernel import points
from dalsegno.kernel.calls import CancelChild, CancelStep, DropWait, StepCall, WaitCall, WithdrawAsk
from dalsegno.kernel.execution import Execution
from dalsegno.kernel.ports import Change, EventRow, Message, Start, TaskClosing, TaskRow, WaitRow

if TYPE_CHECKING:
    from dalsegno.engine.node import Node

MISMATCH = "the code that its journal was written with"
_MOST_RENEWALS = 50
_KINDS = e.KINDS
_encode = e.encode


def task_id(instance: str, run: int, operation: str) -> str:
    """The name of a question; those of a later run have names of their own, the earlier ones stay as answered."""
    of_run = f"@{run}" if run > 1 else ""
    return f"{instance}{of_run}/{operation.removeprefix('ask:')}"


class ChildRefused(msgspec.Struct):
    """There is an instance of a child's id; unless it is that very child, the parent learns of a conflict."""

    operation: str
    child: str
    input_hash: int


class Turns:
    """Advances instances. Everything an instance writes goes through here, in the order of its journal."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._committer = node.committer
        self._now = node.store.now
        self._longest = node.limits.journal_entries
        self._renewals = 0
        self._handlers: dict[type, Callable[[Resident, Any, int], None]] = {
            e.ChildStarted: self._start_child,
            e.Published: self._publish,
            e.Asked: self._ask,
            e.Annotated: self._annotate,
            e.UpdateReplied: self._reply,
            e.Ended: self._end,
            e.Continued: self._continue,
            e.EventAwaited: self._append,
            e.Changed: self._append,
            WaitCall: self._wait,
            DropWait: self._drop_wait,
            CancelStep: self._cancel_step,
            CancelChild: self._cancel_child,
            WithdrawAsk: self._withdraw,
        }

    # -- in ----------------------------------------------------------------------------------------

    def advance(self, resident: Resident, entry: e.Delivery) -> None:
        """Journal a delivery and run the process until it waits."""
        if resident.held:
            resident.queue.append(lambda: self.advance(resident, entry))
            return
        if resident.gone or resident.execution.ended is not None:
            return
        if points.armed is not None:
            points.reach("advance.before")
        at = self._now()
        self._append(resident, entry, at)
        if points.armed is not None:
            points.reach("advance.appended")
        if resident.next_seq - resident.base_seq > self._longest:
            # What arrived is kept all the same: a step that was done isn't done again when the instance goes on.
            self._node.parking.park(
                resident,
                f"its journal has {self._longest} entries (Limits.journal_entries): end the run with "
                "continue_as_new(), or raise the limit",
            )
            return
        self.delivered(resident, entry, at)

    def delivered(self, resident: Resident, entry: e.Delivery, at: int) -> None:
        """Run the process with an entry that is journaled already."""
        try:
            resident.execution.deliver(entry, at)
        except DalsegnoError as error:
            self._node.parking.park(resident, str(error))
        else:
            self.absorb(resident, at)

    def remark(self, resident: Resident, entry: e.Remark) -> None:
        """Journal something for readers."""
        if resident.held:
            resident.queue.append(lambda: self.remark(resident, entry))
        elif not resident.gone:
            self._append(resident, entry, self._now())

    def _append(self, resident: Resident, entry: Any, at: int) -> None:
        batch = self._committer.batch
        seq = resident.next_seq
        resident.next_seq = seq + 1
        batch.rows += (resident.key, seq, at, _KINDS[type(entry)], _encode(entry))
        resident.batch = batch
        self._committer.touch()

    # -- out ---------------------------------------------------------------------------------------

    def absorb(self, resident: Resident, at: int) -> None:
        """Take up what the process wants after it ran."""
        execution = resident.execution
        if execution.mismatch is not None:
            self._node.parking.park_mismatch(resident, execution.mismatch)
            return
        out = execution.out
        if out:
            execution.out = []
            for item in out:
                if type(item) is StepCall:
                    self.dispatch(resident, item)
                else:
                    self._handlers[type(item)](resident, item, at)
        if not resident.gone and execution.ended is None:
            self._settle(resident, at)

    def dispatch(self, resident: Resident, call: StepCall) -> None:
        """Run a step once everything the process has seen is durable."""
        if call.cancelled:
            return
        if call.next_at and call.next_at > self._now():
            resident.backoffs[call.key] = call.next_at
            return
        resident.jobs[call.key] = None
        if resident.paused:
            return
        if call.spec.queue is not None and not self._node.steps.serves_queues:
            del resident.jobs[call.key]
            self._node.queued.hand_out(resident, call)
            return
        batch = resident.batch
        if batch is None or batch.committed:
            self._node.steps.dispatch(resident, call)
        else:
            batch.dispatches.append((resident, call))

    def _settle(self, resident: Resident, at: int) -> None:
        """Write down whether the instance runs or waits, if that changed, and set its timer."""
        if resident.paused:
            return
        if resident.jobs and resident.status == "running" and not (resident.execution.loop.timers or resident.backoffs):
            return
        wake = self.arm(resident)
        if resident.jobs:
            if resident.status != "running":
                self.change(resident, "running", at)
            return
        reason = resident.waiting_for()
        if (resident.status, resident.wake_at, resident.waits_for) != ("waiting", wake, reason):
            self.change(resident, "waiting", at, wake_at=wake, waiting_for=reason)
        self._node.residents.rest(resident)

    def arm(self, resident: Resident) -> int | None:
        """Have an instance rung for when something is due next, if that is within the window; returns the time."""
        wake = resident.next_wake()
        if wake is not None and (resident.timer_at == 0 or wake < resident.timer_at):
            resident.timer_at = wake if self._node.timers.set(resident.key, wake) else 0
        return wake

    def change(self, resident: Resident, status: str, at: int, **fields: Any) -> None:
        """Write an instance's row."""
        resident.status = status
        resident.wake_at = fields.get("wake_at")
        resident.waits_for = fields.get("waiting_for")
        batch = self._committer.batch
        batch.changes[resident.key] = Change(
            key=resident.key,
            status=status,
            at=at,
            run=resident.execution.run,
            base_seq=resident.base_seq,
            **fields,
        )
        resident.batch = batch
        self._committer.touch()

    # -- what a process may want -------------------------------------------------------------------

    def _cancel_step(self, resident: Resident, item: CancelStep, at: int) -> None:
        call = item.call
        if call.key in resident.backoffs:
            del resident.backoffs[call.key]
            self._never_ran(resident, call)
            return
        job = resident.jobs.get(call.key)
        if job is not None:
            self._node.steps.cancel(job)
        elif call.spec.queue is not None and call.key not in resident.jobs and not self._node.steps.serves_queues:
            self._node.queued.withdraw(resident, call)
        elif call.key not in resident.jobs or resident.paused:
            # Open, but not running here: whoever ran it is gone.
            self._never_ran(resident, call)

    def _never_ran(self, resident: Resident, call: StepCall) -> None:
        # It counts as running until that is journaled: an instance that waits for nothing is never looked for.
        resident.jobs[call.key] = None
        self._node.loop.call_soon(self._node.guarded, self._stopped, resident, call)

    def _stopped(self, resident: Resident, call: StepCall) -> None:
        resident.jobs.pop(call.key, None)
        self.advance(resident, e.StepCancelled(call.key, unknown=call.unknown))

    def _wait(self, resident: Resident, wait: WaitCall, at: int) -> None:
        batch = self._committer.batch
        batch.waits.append(
            WaitRow(
                instance=resident.key,
                operation=wait.key,
                namespace=resident.namespace,
                instance_id=resident.id,
                event_type=wait.event_type.event_type,
                key=wait.key_value,
                match=codec.encode(wait.match),
                after=wait.after,
            )
        )
        self._committer.touch()

    def _drop_wait(self, resident: Resident, item: DropWait, at: int) -> None:
        self.unwait(resident, item.key)

    def unwait(self, resident: Resident, operation: str) -> None:
        """Close a wait's row."""
        batch = self._committer.batch
        batch.waits = [w for w in batch.waits if (w.instance, w.operation) != (resident.key, operation)]
        batch.unwaits.append((resident.key, operation))
        self._committer.touch()

    def _publish(self, resident: Resident, entry: e.Published, at: int) -> None:
        self._append(resident, entry, at)
        self._committer.batch.events.append(
            EventRow(
                namespace=resident.namespace,
                id=entry.event_id,
                event_type=entry.event_type,
                topic=entry.topic,
                key=entry.key,
                to=entry.to,
                payload=bytes(entry.event),
                at=at,
            )
        )

    def _start_child(self, resident: Resident, entry: e.ChildStarted, at: int) -> None:
        self._append(resident, entry, at)
        started = e.Started(
            entry.process, entry.version, entry.input, parent=resident.id, parent_operation=entry.operation
        )
        call = resident.execution.children.get(entry.operation)
        if call is not None:
            self._node.definitions.add(call.spec)
        self._node.starts.submit(
            Start(
                namespace=resident.namespace,
                id=entry.child,
                process=entry.process,
                version=entry.version,
                input_hash=input_hash(entry.process, entry.input),
                entry=_encode(started),
                at=at,
                parent=resident.id,
                parent_operation=entry.operation,
                refusal=child_refusal(resident.namespace, resident.id, entry, at),
            ),
            started,
            call.spec if call is not None else None,
        )

    def _cancel_child(self, resident: Resident, item: CancelChild, at: int) -> None:
        self._tell(resident, item.child, "cancel", {"reason": item.reason, "by": f"parent {resident.id}"}, at)

    def _tell(self, resident: Resident, instance: str, verb: str, body: Any, at: int) -> None:
        batch = self._committer.batch
        batch.messages.append(word(resident.namespace, resident.id, instance, verb, body, at))
        batch.after.append(self._node.inbox.look)
        self._committer.touch()

    def _ask(self, resident: Resident, entry: e.Asked, at: int) -> None:
        self._append(resident, entry, at)
        self._committer.batch.asks.append(
            TaskRow(
                id=task_id(resident.id, resident.execution.run, entry.operation),
                namespace=resident.namespace,
                instance=resident.id,
                operation=entry.operation,
                role=entry.role,
                title=entry.title,
                about=bytes(entry.about),
                answer_schema=bytes(entry.answer_schema),
                at=at,
                due_at=entry.due_at,
            )
        )

    def _withdraw(self, resident: Resident, item: WithdrawAsk, at: int) -> None:
        self.close_task(resident, item.key, "withdrawn", at)

    def close_task(
        self,
        resident: Resident,
        operation: str,
        state: str,
        at: int,
        answer: bytes | None = None,
        by: str | None = None,
    ) -> None:
        """Write how a question ended."""
        name = task_id(resident.id, resident.execution.run, operation)
        self._committer.batch.closings.append(
            TaskClosing(id=name, namespace=resident.namespace, state=state, at=at, answer=answer, by=by)
        )
        self._committer.touch()

    def _annotate(self, resident: Resident, entry: e.Annotated, at: int) -> None:
        self._append(resident, entry, at)
        self._committer.batch.annotations.append((resident.key, bytes(entry.values)))

    def _reply(self, resident: Resident, entry: e.UpdateReplied, at: int) -> None:
        self._append(resident, entry, at)
        self._node.operations.replied(resident, entry, at)

    # -- endings -----------------------------------------------------------------------------------

    def _end(self, resident: Resident, entry: e.Ended, at: int) -> None:
        self._append(resident, entry, at)
        error = f"{entry.error.type.split(':')[-1]}: {entry.error.message}" if entry.error is not None else None
        self.change(resident, entry.outcome, at, ended_at=at, error=error)
        if points.armed is not None:
            points.reach("end.appended")
        self._tell_relatives(resident, entry, at)
        resident.gone = True
        batch = self._committer.batch
        if resident.beats:
            batch.unbeats.append((resident.key,))
        if resident.queued:
            batch.dropped_work.append(resident.key)
        self._node.operations.refuse_updates(resident, at)
        batch.after.append(lambda: self._node.ended(resident, entry))

    def _tell_relatives(self, resident: Resident, entry: e.Ended, at: int) -> None:
        self._part_with_children(resident, at)
        if resident.parent is not None and resident.parent_operation is not None:
            ended = e.ChildEnded(resident.parent_operation, entry.outcome, entry.result, entry.error)
            parent = self._node.residents.by_id(resident.namespace, resident.parent)
            if parent is not None and not parent.held:
                # The parent's entry and the child's end are one commit.
                self.child_ended(parent, resident.id, ended)
            else:
                self._tell(resident, resident.parent, "child_ended", ended, at)

    def _part_with_children(self, resident: Resident, at: int) -> None:
        for child in resident.execution.children.values():
            if child.parent_close != "abandon":
                self._tell(resident, child.id, child.parent_close, parting(resident.id), at)

    def child_ended(self, parent: Resident, child: str | None, entry: e.ChildEnded) -> None:
        """Journal a child's end where it is waited for: not in a later run, which may have one of the same name."""
        call = parent.execution.children.get(entry.operation)
        if call is not None and call.id == child:
            self.advance(parent, entry)

    def _continue(self, resident: Resident, entry: e.Continued, at: int) -> None:
        """End a run and begin the next of the same id, in one commit."""
        old = resident.execution
        self._append(resident, entry, at)
        started = e.Started(
            old.spec.name,
            old.spec.version,
            entry.input,
            run=old.run + 1,
            parent=resident.parent,
            parent_operation=resident.parent_operation,
            consumed=old.consumed,
        )
        self._part_with_children(resident, at)
        resident.base_seq = resident.next_seq
        resident.execution = Execution(old.spec, resident.namespace, resident.id, self._node.limits)
        resident.execution.run = started.run
        resident.jobs.clear()
        resident.backoffs.clear()
        resident.queued.clear()
        resident.timer_at = 0
        early = [u for updates in old.unhandled_updates.values() for u in updates]
        old.drop()
        self.change(resident, "paused" if resident.paused else "running", at, waiting_for=resident.waits_for)
        self._renewals += 1
        try:
            self._begin_again(resident, [started, *early], at)
        finally:
            self._renewals -= 1

    def _begin_again(self, resident: Resident, entries: list[Any], at: int) -> None:
        for entry in entries:
            self._append(resident, entry, at)
        try:
            if self._renewals > _MOST_RENEWALS:
                raise ForbiddenInProcess(
                    f"{resident.execution} continued as new {_MOST_RENEWALS} times without waiting for anything: it "
                    "spins. Wait for something in every run."
                )
            for entry in entries:
                resident.execution.deliver(entry, at)
        except DalsegnoError as error:
            self._node.parking.park(resident, str(error))
        else:
            self.absorb(resident, at)


def word(namespace: str, sender: str, instance: str, verb: str, body: Any, at: int) -> Message:
    """What one instance says to another."""
    data = msgspec.json.encode(body)
    return Message(namespace=namespace, instance=instance, verb=verb, body=data, at=at, by=sender)


def parting(parent: str) -> dict[str, str]:
    """What a parent that ends says to the children that end with it."""
    return {"reason": f"parent {parent} ended", "by": f"parent {parent}"}


def child_refusal(namespace: str, parent: str, entry: e.ChildStarted, at: int) -> Message:
    """What a parent is told when its child can't be started because there is one."""
    refused = ChildRefused(entry.operation, entry.child, input_hash(entry.process, entry.input))
    body = msgspec.json.encode(refused)
    return Message(namespace=namespace, instance=parent, verb="child_refused", body=body, at=at)


def input_hash(process: str, data: Any) -> int:
    """What tells two starts of the same id apart."""
    return zlib.crc32(bytes(data), zlib.crc32(process.encode()))
