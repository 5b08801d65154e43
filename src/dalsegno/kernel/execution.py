"""One run of one instance: process code driven by its journal.

The driver delivers journaled entries one at a time; after each, the process runs until it waits again, and
`out` holds what it wants: entries to append (emissions), steps to dispatch, waits to open. On replay the
same code is fed the stored entries and must say the same things again.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import uuid
import zlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from dalsegno.contracts import codec
from dalsegno.contracts.event import Event, key_of, key_text
from dalsegno.errors import (
    DalsegnoError,
    JournalMismatch,
    LimitExceeded,
    Refused,
)
from dalsegno.kernel import entries as e
from dalsegno.kernel.calls import (
    AskCall,
    CancelChild,
    CancelStep,
    ChildCall,
    DropWait,
    StepCall,
    WaitCall,
    WithdrawAsk,
)
from dalsegno.kernel.definition import Arguments, ProcessSpec, StepSpec, encode_arguments
from dalsegno.kernel.fault import capture, restore
from dalsegno.kernel.limits import Limits
from dalsegno.kernel.loop import DeterministicLoop, ProcessTask
from dalsegno.kernel.outcomes import child_result, invalid_result, note_attempt, resolve
from dalsegno.kernel.replay import EMISSION_NAMES, counting, describe, mentions, same
from dalsegno.kernel.saga import open_scope

Raw = msgspec.Raw


class Dropped(BaseException):
    """Thrown into process code whose instance leaves memory: nothing it does counts any more."""


class ContinueAsNew(BaseException):
    """Ends a run; the same id goes on with these arguments."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.arguments = args
        self.keywords = kwargs


class Execution:
    """A run in memory."""

    __slots__ = (
        "_closing",
        "_consumed",
        "_counts",
        "_handlers",
        "_held",
        "_main",
        "_outcome_waiters",
        "_random",
        "_recorded",
        "_seen_updates",
        "_started",
        "asks",
        "children",
        "dropped",
        "ended",
        "generations",
        "instance",
        "limits",
        "loop",
        "mismatch",
        "namespace",
        "out",
        "pending",
        "prepared",
        "replaying",
        "run",
        "spec",
        "unhandled_updates",
        "unwinding",
        "waits",
    )

    def __init__(self, spec: ProcessSpec, namespace: str, instance: str, limits: Limits) -> None:
        self.spec = spec
        self.namespace = namespace
        self.instance = instance
        self.limits = limits
        self.loop = DeterministicLoop(self, limits.callbacks_per_turn)  # type: ignore[abstract]
        self.out: list[Any] = []
        self.pending: dict[str, StepCall] = {}
        self.waits: dict[str, WaitCall] = {}
        self.children: dict[str, ChildCall] = {}
        self.asks: dict[str, AskCall] = {}
        self.unwinding: list[asyncio.Task[None]] = []
        self.unhandled_updates: dict[str, list[e.UpdateReceived]] = {}
        self.generations: dict[str, int] = {}
        self.ended: e.Ended | e.Continued | None = None
        self.mismatch: JournalMismatch | None = None
        self.dropped = False
        self.replaying = False
        self.run = 1
        #: the input already read from its journaled form, for a run that begins here
        self.prepared: Arguments | None = None
        self._main: asyncio.Task[Any] | None = None
        self._closing = False
        self._started: e.Started | None = None
        self._counts: dict[str, int] = {}
        self._recorded: dict[str, e.Emission] = {}
        self._held: dict[str, list[Any]] = {}
        self._handlers: dict[str, tuple[type[Event], Callable[[Any], Any]]] = {}
        self._consumed: dict[tuple[str, bytes], int] = {}
        self._outcome_waiters: dict[str, asyncio.Future[None]] = {}
        self._random: random.Random | None = None
        self._seen_updates: set[str] = set()

    def __str__(self) -> str:
        return f"instance {self.instance!r} ({self.spec.name})"

    # -- driven from outside -----------------------------------------------------------------------

    def deliver(self, entry: e.Delivery, at: int) -> None:
        """Feed the next entry and run until the process waits. `at` is in microseconds since the epoch."""
        loop = self.loop
        loop.enter()
        try:
            self._feed(entry, at)
        finally:
            loop.leave()

    def _feed(self, entry: e.Delivery, at: int) -> None:
        self.loop.now_seconds = at / 1e6
        _DELIVER[type(entry)](self, entry)
        self.loop.run_entered()
        if self._main is not None and self._main.done() and self.ended is None and not self.dropped:
            self._close()

    def replay(self, records: Iterable[e.Record], begun: bool = True, crashed: bool = False) -> None:
        """Feed a stored journal; afterwards `out` holds what is still to be done.

        `begun` is false for a run whose code has never run: then `changed` counts as new at its start;
        `crashed` says that steps may have been running when the node died.
        Raises `JournalMismatch`.
        """
        deliveries = []
        for record in counting(records, self.generations):
            name_of = EMISSION_NAMES.get(type(record.entry))
            if name_of is None:
                deliveries.append(record)
            else:
                self._recorded[name_of(record.entry)] = record.entry  # type: ignore[assignment]
        self.replaying = begun
        self.loop.enter()
        try:
            for record in deliveries:
                self._feed(record.entry, record.at)  # type: ignore[arg-type]
                if self.mismatch is not None:
                    raise self.mismatch
        finally:
            self.loop.leave()
        self.replaying = False
        self._check_leftovers(final=self.ended is not None)
        if self.mismatch is not None:
            raise self.mismatch
        self.out = [
            item
            for item in self.out
            if type(item) not in _RECOMPUTED and not (type(item) is WaitCall and item.key not in self.waits)
        ]
        self.out.extend(self._open_work(crashed))

    def _open_work(self, crashed: bool) -> list[Any]:
        work: list[Any] = []
        for call in self.pending.values():
            # Whoever crashed may have been in the middle of it; what workers do goes on without the node.
            call.unknown = call.unknown or (crashed and call.spec.queue is None)
            work.append(CancelStep(call) if call.cancelled else call)
        return work

    def _check_leftovers(self, final: bool) -> None:
        """Entries that the code never asked for are a mismatch once it can't ask any more."""
        held = next(iter(self._held), None) or next(iter(self._recorded), None)
        if held is None or self.mismatch is not None:
            return
        if final:
            self._mismatch(f"{held!r} (journaled)", f"the end of {self.spec.name} without it")
        elif self.pending and not mentions(self.spec.function, held):
            wanted = next(iter(self.pending))
            self._mismatch(f"{held!r} (journaled)", f"{wanted!r}, and {self.spec.name} no longer names {held!r}")

    def next_timer(self) -> tuple[float, int] | None:
        """When the next timer is due, in seconds since the epoch, and its number."""
        return self.loop.next_timer()

    def drop(self) -> None:
        """Leave memory: close every coroutine; what they do meanwhile counts for nothing."""
        self.dropped = True
        live = self.loop.live_tasks()
        if live:
            self._close_coroutines(live)
        # Nothing refers to itself any more: the memory is free at once, without the collector.
        self.loop.forget()
        self._main = None

    def _close_coroutines(self, live: list[ProcessTask]) -> None:
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(self.loop)
        try:
            for task in live:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                try:
                    task.get_coro().close()
                except (Dropped, Exception):
                    # The code tried to go on in a `finally`, or failed there: it doesn't count any more.
                    pass
        finally:
            asyncio._set_running_loop(outer)

    # -- deliveries --------------------------------------------------------------------------------

    def _on_started(self, entry: e.Started) -> None:
        self._started = entry
        self.run = entry.run
        # A fork has its origin's seed: sets of tasks iterate in it as they did there.
        for known in entry.consumed or ():
            self._consumed[known.event_type, bytes(known.match)] = known.position
        self.loop.count_from(zlib.crc32((entry.seed or self.prefix).encode()))
        try:
            args, kwargs = self.prepared or self.spec.read_input(entry.input)
            self.prepared = None
            main = self.spec.function(*args, **kwargs)
        except (DalsegnoError, TypeError) as error:
            main = _raise(error)
        self._main = self.loop.create_task(main, context=contextvars.Context())

    def _hold(self, name: str, entry: Any) -> None:
        if self.ended is None:
            self._held.setdefault(name, []).append(entry)

    def _on_step_outcome(self, entry: e.StepCompleted | e.StepFailed | e.StepCancelled) -> None:
        call = self.pending.pop(entry.step, None)
        if call is None:
            self._hold(entry.step, entry)
        else:
            self._settle(call, entry)

    def _settle(self, call: StepCall, entry: Any) -> None:
        kind = type(entry)
        if kind is not e.StepCancelled and call.arguments != entry.arguments:
            self._mismatch(
                f"{call.key!r} called as journaled (arguments {entry.arguments:08x})",
                f"other arguments ({call.arguments:08x}): {call.encoded[:200].decode(errors='replace')}",
            )
            return
        future = call.future
        failure: Exception | None = None
        if kind is e.StepCompleted:
            call.outcome = "completed"
            try:
                call.result = None if call.undoes else call.spec.decode(entry.result)
            except (msgspec.DecodeError, ValueError, DalsegnoError) as error:
                call.outcome = "unknown"
                failure = invalid_result(call, error)
        elif kind is e.StepFailed:
            call.outcome = "unknown" if entry.unknown else "failed"
            failure = restore(entry.error)
        else:
            call.outcome = "unknown" if entry.unknown else "failed"
        scope = call.scope
        if scope is not None and call.outcome != "failed":
            scope.settled.append(call)
        if self._outcome_waiters:
            waiter = self._outcome_waiters.pop(call.key, None)
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        if future.done():
            return
        if failure is None:
            if kind is e.StepCancelled:
                future.cancel()
            else:
                future.set_result(call.result)
        else:
            future.set_exception(failure)

    def _on_attempt_failed(self, entry: e.AttemptFailed) -> None:
        call = self.pending.get(entry.step)
        if call is None:
            self._hold(entry.step, entry)
        else:
            note_attempt(call, entry)

    def _on_timer(self, entry: e.TimerFired) -> None:
        if not self.loop.fire(entry.timer):
            self._mismatch(f"timer {entry.timer} to be open", "no such timer")

    def _on_event(self, entry: e.EventReceived) -> None:
        wait = self.waits.pop(entry.wait, None)
        if wait is None:
            self._hold(entry.wait, entry)
            return
        self._consume(wait, entry)

    def _consume(self, wait: WaitCall, entry: e.EventReceived) -> None:
        self._consumed[_wait_name(wait.event_type, wait.match)] = entry.position
        resolve(wait.future, lambda: codec.decode(entry.event, wait.event_type, entry.wait))

    def _on_child(self, entry: e.ChildEnded) -> None:
        call = self.children.pop(entry.operation, None)
        if call is None:
            self._hold(entry.operation, entry)
        else:
            resolve(call.future, lambda: child_result(call.spec, call.id, entry))

    def _on_answer(self, entry: e.Answered) -> None:
        call = self.asks.pop(entry.operation, None)
        if call is None:
            self._hold(entry.operation, entry)
        else:
            resolve(call.future, lambda: codec.decode(entry.answer, call.answer_type, entry.operation))

    def _on_update(self, entry: e.UpdateReceived) -> None:
        self._seen_updates.add(entry.update)
        handler = self._handlers.get(entry.event_type)
        if handler is None:
            self.unhandled_updates.setdefault(entry.event_type, []).append(entry)
        else:
            self._handle_update(*handler, entry)

    def _on_cancel(self, entry: e.CancelRequested) -> None:
        if self._main is not None and not self._main.done():
            self._main.cancel(entry.reason or "cancelled")

    # -- the end -----------------------------------------------------------------------------------

    def _close(self) -> None:
        """The process returned: stop what it left running, and end when nothing is open."""
        if not self._closing:
            self._closing = True
            # What is being undone is undone to its end.
            for call in list(self.pending.values()):
                if not call.undoes:
                    self.cancel_step(call)
            for task in self.loop.live_tasks():
                if task not in self.unwinding:
                    task.cancel()
            self.loop.run_entered()
        if not self.pending and self.mismatch is None:
            self._end()

    def _end(self) -> None:
        for wait in list(self.waits.values()):
            self._drop_wait(wait)
        for ask in list(self.asks.values()):
            self._withdraw(ask)
        ending = self._ending()
        if not self._recorded or "ended" not in self._recorded:
            if not self.replaying:
                self._check_leftovers(final=True)
            if self.mismatch is not None:
                return
        self.ended = ending
        self._emit("ended", ending)

    def _ending(self) -> e.Ended | e.Continued:
        main = self._main
        assert main is not None
        if main.cancelled():
            return e.Ended("cancelled")
        error = main.exception()
        try:
            if error is None:
                result = self._payload(main.result(), "result")
                # Whoever waits reads it as this type: what they could not read must not count as a result.
                codec.decode(result, self.spec.result_type, f"result of {self}")
                return e.Ended("completed", result=result)
            if isinstance(error, ContinueAsNew):
                data = encode_arguments(error.arguments, error.keywords, f"input of {self}")
                return e.Continued(Raw(self._within_limit(data, "input")))
        except DalsegnoError as refused:
            error = refused
        return e.Ended("failed", error=capture(error))

    # -- what process code calls -------------------------------------------------------------------

    async def call_step(self, spec: StepSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a step and wait for its journaled outcome."""
        call = self._open_step(self._next(spec.name), spec, args, kwargs)
        scope = open_scope() if spec.undo is not None else None
        if scope is not None:
            if scope.doomed:
                raise Refused(f"{self}: step {spec.name!r} called in a saga that is being undone")
            call.scope = scope
            scope.calls.append(call)
        self._launch(call)
        try:
            return await call.future
        except asyncio.CancelledError:
            if call.outcome is None:
                self.cancel_step(call)
            raise

    async def call_undo(self, undone: StepCall, undo: StepSpec) -> None:
        """Undo a step; tried until it succeeds or an operator steps in."""
        args, kwargs = undone.spec.undo_arguments(undone.args, undone.kwargs, undone.result)
        call = self._open_step(f"undo:{undone.key}", undo, args, kwargs, undoes=True)
        self._launch(call)
        await call.future

    def _open_step(
        self, key: str, spec: StepSpec, args: tuple[Any, ...], kwargs: dict[str, Any], undoes: bool = False
    ) -> StepCall:
        if self.dropped:
            raise Dropped
        call = StepCall(key, spec, args, kwargs, self.loop.create_future())
        call.undoes = undoes
        try:
            encoded = codec.dump((*args, kwargs))
        except Exception:
            encoded = encode_arguments(args, kwargs, f"arguments of step {key!r} in {self}")
        call.encoded = encoded
        # A check for a changed argument, not a defence: 32 bits let one change in four billion pass.
        call.arguments = zlib.crc32(encoded)
        if undoes:
            # What was allowed to be done must be allowed to be undone.
            return call
        if len(encoded) > self.limits.payload_bytes:
            self._within_limit(encoded, f"arguments of step {key!r}")
        if len(self.pending) >= self.limits.open_operations:
            raise LimitExceeded(
                f"{self}: {len(self.pending)} steps are open, the limit is {self.limits.open_operations} "
                "(Limits.open_operations). Split the fan-out over child processes."
            )
        return call

    def _launch(self, call: StepCall) -> None:
        held = self._held.pop(call.key, None) if self._held else None
        if held is None:
            self.pending[call.key] = call
            self.out.append(call)
            return
        for entry in held:
            if isinstance(entry, e.AttemptFailed):
                note_attempt(call, entry)
            else:
                self._settle(call, entry)
                return
        self.pending[call.key] = call
        self.out.append(call)

    def cancel_step(self, call: StepCall) -> None:
        """Stop waiting for a step; its outcome is journaled once it stopped."""
        if not call.cancelled and not self.dropped:
            call.cancelled = True
            self.out.append(CancelStep(call))

    async def outcome_of(self, call: StepCall) -> None:
        """Wait until a step's outcome is journaled."""
        if call.outcome is None:
            waiter = self._outcome_waiters[call.key] = self.loop.create_future()
            await waiter

    async def wait_for(self, event_type: type[Event], match: dict[str, Any]) -> Any:
        """Wait for an event whose fields have these values."""
        key = self._next(f"event:{event_type.event_type}")
        field = event_type.event_key
        key_value = key_text(match[field]) if field is not None and field in match else None
        name = _wait_name(event_type, match)
        wait = WaitCall(key, event_type, match, key_value, self._consumed.get(name, 0), self.loop.create_future())
        new = self._emit(key, e.EventAwaited(key, event_type.event_type, Raw(name[1]), key_value))
        held = self._held.pop(key, None) if self._held else None
        if held:
            self._consume(wait, held[0])
            return await wait.future
        self.waits[key] = wait
        if new:
            self.out.append(wait)
        try:
            return await wait.future
        except asyncio.CancelledError:
            self._drop_wait(wait)
            raise

    def _drop_wait(self, wait: WaitCall) -> None:
        if self.waits.pop(wait.key, None) is not None and not self.dropped:
            self.out.append(DropWait(wait.key))

    def publish(self, event: Event, to: str | None) -> str:
        """Publish an event with the commit that journals it; returns its id."""
        kind = type(event)
        key = self._next(f"publish:{kind.event_type}")
        event_id = f"{self.prefix}/{key}"
        payload = self._payload(event, f"event {kind.event_type}")
        self._emit(key, e.Published(key, event_id, kind.event_type, kind.event_topic, payload, key_of(event), to))
        return event_id

    def start_child(
        self,
        spec: ProcessSpec,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        id: str | None,
        parent_close: e.ParentClose,
    ) -> ChildCall:
        """Start another process as a child of this one."""
        key = self._next(f"child:{spec.name}")
        run = f"@{self.run}" if self.run > 1 else ""
        child_id = id or f"{self.instance}{run}/{key.removeprefix('child:')}"
        data = self._within_limit(encode_arguments(args, kwargs, f"input of {child_id}"), f"input of {child_id}")
        call = ChildCall(key, child_id, spec, parent_close, self.loop.create_future())
        if len(self.children) >= self.limits.open_operations:
            raise LimitExceeded(
                f"{self}: {len(self.children)} children are open, the limit is {self.limits.open_operations} "
                "(Limits.open_operations)."
            )
        held = self._held.pop(key, None) if self._held else None
        if held:
            ended = held[0]
            resolve(call.future, lambda: child_result(spec, child_id, ended))
        else:
            self.children[key] = call
        self._emit(key, e.ChildStarted(key, child_id, spec.name, spec.version, Raw(data), parent_close))
        return call

    def cancel_child(self, call: ChildCall, reason: str | None) -> None:
        """Ask a child to stop."""
        if call.key in self.children and not self.dropped:
            self.out.append(CancelChild(call.id, reason))

    async def ask(self, role: str, answer_type: Any, about: Any, title: str | None, due_seconds: float | None) -> Any:
        """Ask a person and wait for the answer."""
        key = self._next(f"ask:{role}")
        due_at = int((self.loop.now_seconds + due_seconds) * 1e6) if due_seconds is not None else None
        schema = Raw(codec.encode(codec.schema(answer_type)))
        call = AskCall(key, role, answer_type, self.loop.create_future())
        self._emit(key, e.Asked(key, role, self._payload(about, "about"), schema, title, due_at))
        held = self._held.pop(key, None) if self._held else None
        if held:
            resolve(call.future, lambda: codec.decode(held[0].answer, answer_type, key))
            return await call.future
        self.asks[key] = call
        try:
            return await call.future
        except asyncio.CancelledError:
            self._withdraw(call)
            raise

    def _withdraw(self, call: AskCall) -> None:
        if self.asks.pop(call.key, None) is not None and not self.dropped:
            self.out.append(WithdrawAsk(call.key))

    def annotate(self, values: dict[str, Any]) -> None:
        """Describe the instance's state for those outside."""
        key = self._next("annotate")
        self._emit(key, e.Annotated(key, self._payload(values, "annotation")))

    def changed(self, change: str) -> bool:
        """Whether this run passes a change with the new code."""
        name = f"changed:{change}"
        known = self._counts.get(name)
        if known is None:
            if name in self._recorded:
                del self._recorded[name]
                known = 1
            elif self.replaying:
                known = 0
            else:
                self._emit(name, e.Changed(change))
                known = 1
            self._counts[name] = known
        return bool(known)

    def knows_update(self, update: str) -> bool:
        """Whether this run has been given an update already."""
        return update in self._seen_updates

    def on_update(self, event_type: type[Event], handler: Callable[[Any], Any]) -> None:
        """Answer updates of this type from now on, the early ones first."""
        self._handlers[event_type.event_type] = (event_type, handler)
        for entry in self.unhandled_updates.pop(event_type.event_type, []):
            self._handle_update(event_type, handler, entry)

    def _handle_update(self, event_type: type[Event], handler: Callable[[Any], Any], entry: e.UpdateReceived) -> None:
        async def handle() -> None:
            try:
                reply = handler(codec.decode(entry.event, event_type, f"update {event_type.event_type}"))
                if asyncio.iscoroutine(reply):
                    reply = await reply
                if event_type.event_reply is not None:
                    reply = codec.convert(reply, event_type.event_reply, f"reply to {event_type.event_type}")
                answer = e.UpdateReplied(entry.update, reply=self._payload(reply, "reply"))
            except asyncio.CancelledError:
                answer = e.UpdateReplied(entry.update, error=capture(Refused(f"{self} ended before it replied")))
            except Exception as error:
                answer = e.UpdateReplied(entry.update, error=capture(error))
            self._emit(f"reply:{entry.update}", answer)

        self.loop.create_task(handle(), context=contextvars.Context())

    def now(self) -> datetime:
        """The time of the last journaled entry."""
        return datetime.fromtimestamp(self.loop.now_seconds, UTC)

    def random(self) -> random.Random:
        """A generator that yields the same numbers on replay."""
        if self._random is None:
            self._random = random.Random((self._started and self._started.seed) or self.prefix)
        return self._random

    def uuid(self) -> uuid.UUID:
        """A version 4 UUID, the same on replay."""
        return uuid.UUID(int=self.random().getrandbits(128), version=4)

    @property
    def consumed(self) -> list[e.Consumed] | None:
        """The events this run received, for the next run of the id."""
        return e.newest_consumed(self._consumed)

    # -- bookkeeping -------------------------------------------------------------------------------

    @property
    def prefix(self) -> str:
        """What every idempotency key of this run begins with."""
        run = f"@{self.run}" if self.run > 1 else ""
        return f"{self.namespace}/{self.instance}{run}"

    def step_key(self, call_key: str) -> str:
        """The idempotency key of a step: the same on every attempt, on every node."""
        generation = self.generations.get(call_key)
        return f"{self.prefix}/{call_key}" + (f"~{generation + 1}" if generation else "")

    def _next(self, name: str) -> str:
        if self.dropped:
            raise Dropped
        count = self._counts[name] = self._counts.get(name, 0) + 1
        return name if count == 1 else f"{name}#{count}"

    def _payload(self, value: Any, what: str) -> Raw:
        try:
            data = codec.dump(value)
        except Exception:
            data = codec.encode(value, f"{what} of {self}")
        return Raw(data) if len(data) <= self.limits.payload_bytes else Raw(self._within_limit(data, what))

    def _within_limit(self, data: bytes, what: str) -> bytes:
        return codec.bounded(data, self.limits.payload_bytes, f"{what} of {self}")

    def _emit(self, name: str, entry: e.Emission) -> bool:
        """Say something; false where the journal has it already."""
        if self.dropped:
            raise Dropped
        if self._recorded:
            stored = self._recorded.pop(name, None)
            if stored is not None:
                if not same(stored, entry):
                    self._mismatch(describe(stored), describe(entry))
                return False
        self.out.append(entry)
        return True

    def _mismatch(self, expected: str, found: str) -> None:
        if self.mismatch is None:
            self.mismatch = JournalMismatch(expected, found)


_DELIVER: dict[type, Callable[[Execution, Any], None]] = {
    e.Started: Execution._on_started,
    e.StepCompleted: Execution._on_step_outcome,
    e.StepFailed: Execution._on_step_outcome,
    e.StepCancelled: Execution._on_step_outcome,
    e.AttemptFailed: Execution._on_attempt_failed,
    e.TimerFired: Execution._on_timer,
    e.EventReceived: Execution._on_event,
    e.ChildEnded: Execution._on_child,
    e.Answered: Execution._on_answer,
    e.UpdateReceived: Execution._on_update,
    e.CancelRequested: Execution._on_cancel,
}

# What `replay` states anew at its end, from what is open then.
_RECOMPUTED = (StepCall, CancelStep, DropWait)


def _wait_name(event_type: type[Event], match: dict[str, Any]) -> tuple[str, bytes]:
    return event_type.event_type, codec.encode(match, "event filter")


async def _raise(error: Exception) -> None:
    raise error
