"""A journal told as what happened: spans of steps, waits, questions and children, with their attempts.

Derived from the journal alone; whoever shows an instance, on a terminal or a page, shows these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import msgspec

from dalsegno.kernel import entries as e
from dalsegno.kernel.fault import Fault

Sort: TypeAlias = Literal["step", "undo", "wait", "ask", "child", "update"]
State: TypeAlias = Literal["running", "waiting", "retrying", "completed", "failed", "cancelled", "dropped"]
#: a row names so many of an instance's waits at most
_NAMED_WAITS = 3
OPEN: frozenset[str] = frozenset({"running", "waiting", "retrying"})


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try of a step."""

    number: int
    started_at: datetime
    ended_at: datetime | None = None
    error: str | None = None
    next_at: datetime | None = None


class Span(msgspec.Struct, kw_only=True):
    """Something that lasted: a step with its attempts, or a wait."""

    name: str
    sort: Sort
    state: State
    started_at: datetime
    ended_at: datetime | None = None
    attempts: list[Attempt] = []
    error: str | None = None
    count: int = 1


def present_run(journal: Sequence[e.Record]) -> Sequence[e.Record]:
    """The entries of the last run."""
    begins = [position for position, record in enumerate(journal) if isinstance(record.entry, e.Started)]
    return journal[begins[-1] :] if begins else journal


def spans(journal: Iterable[e.Record]) -> list[Span]:
    """What lasted, in the order it began."""
    teller = _Teller()
    for record in journal:
        teller.take(record)
    return sorted(teller.found, key=lambda span: span.started_at)


def standing_open(found: Sequence[Span], waiting_for: str | None) -> Sequence[Span]:
    """The spans; waits that a time-out closed are dropped: the instance's row says so, the journal doesn't."""
    if waiting_for is None or waiting_for.count("event ") >= _NAMED_WAITS:
        return found
    for span in found:
        event_type = span.name.removeprefix("event:").partition("#")[0]
        if span.sort == "wait" and span.state in OPEN and f"event {event_type}(" not in waiting_for:
            span.state = "dropped"
    return found


def grouped(found: Sequence[Span]) -> list[Span]:
    """Spans of the same name as one each: for journals too long to show one by one."""
    groups: dict[tuple[str, Sort], list[Span]] = {}
    for span in found:
        groups.setdefault((span.name.partition("#")[0], span.sort), []).append(span)
    return [members[0] if len(members) == 1 else _merged(name, members) for (name, _), members in groups.items()]


def _merged(name: str, members: Sequence[Span]) -> Span:
    worst = max(members, key=lambda span: _WEIGHT[span.state])
    ends = [span.ended_at for span in members]
    return Span(
        name=name,
        sort=worst.sort,
        state=worst.state,
        started_at=min(span.started_at for span in members),
        ended_at=None if None in ends else max(end for end in ends if end is not None),
        error=worst.error,
        count=len(members),
    )


_WEIGHT = {
    "completed": 0, "dropped": 1, "cancelled": 2, "waiting": 3, "running": 4, "retrying": 5, "failed": 6
}  # fmt: skip


def moment(at: int) -> datetime:
    """A store's time in UTC."""
    return datetime.fromtimestamp(at / 1e6, UTC)


def words(error: Fault | None) -> str | None:
    """An error in a line."""
    return None if error is None else f"{error.type.rpartition(':')[2]}: {error.message}"


class _Teller:
    """Takes the entries one by one and keeps what is open."""

    def __init__(self) -> None:
        self.found: list[Span] = []
        self._open: dict[str, Span] = {}

    def take(self, record: e.Record) -> None:
        """Tell one more entry."""
        tell = _TELLING.get(type(record.entry))
        if tell is not None:
            tell(self, record.entry, moment(record.at))

    def _opened(self, key: str, sort: Sort, state: State, at: datetime, name: str | None = None) -> Span:
        span = self._open.get(key)
        if span is None:
            span = Span(name=name or key, sort=sort, state=state, started_at=at, attempts=[])
            self._open[key] = span
            self.found.append(span)
        return span

    def _closed(self, key: str, state: State, at: datetime, error: str | None = None) -> None:
        span = self._open.pop(key, None)
        if span is not None:
            span.state, span.ended_at, span.error = state, at, error or span.error

    # -- steps ---------------------------------------------------------------------------------------

    def step_started(self, entry: e.StepStarted, at: datetime) -> None:
        began = at if entry.started_at is None else moment(entry.started_at)
        span = self._step(entry.step, began)
        span.state = "running"
        span.attempts.append(Attempt(number=entry.attempt, started_at=began))

    def _step(self, name: str, at: datetime) -> Span:
        return self._opened(name, "undo" if name.startswith("undo:") else "step", "running", at)

    def _attempted(
        self, entry: e.StepCompleted | e.StepFailed | e.AttemptFailed, at: datetime, error: str | None = None
    ) -> Span:
        began = at if entry.started_at is None else moment(entry.started_at)
        span = self._step(entry.step, began)
        if span.attempts and span.attempts[-1].ended_at is None:
            # The remark that it had begun.
            span.attempts.pop()
        next_at = moment(entry.next_at) if isinstance(entry, e.AttemptFailed) else None
        span.attempts.append(Attempt(number=entry.attempt, started_at=began, ended_at=at, error=error, next_at=next_at))
        return span

    def step_completed(self, entry: e.StepCompleted, at: datetime) -> None:
        self._attempted(entry, at)
        self._closed(entry.step, "completed", at)

    def step_failed(self, entry: e.StepFailed, at: datetime) -> None:
        error = words(entry.error)
        self._attempted(entry, at, error)
        self._closed(entry.step, "failed", at, error)

    def attempt_failed(self, entry: e.AttemptFailed, at: datetime) -> None:
        span = self._attempted(entry, at, words(entry.error))
        span.state, span.error = "retrying", words(entry.error)

    def step_cancelled(self, entry: e.StepCancelled, at: datetime) -> None:
        self._step(entry.step, at)
        self._closed(entry.step, "cancelled", at)

    # -- waits ---------------------------------------------------------------------------------------

    def event_awaited(self, entry: e.EventAwaited, at: datetime) -> None:
        self._opened(entry.operation, "wait", "waiting", at)

    def event_received(self, entry: e.EventReceived, at: datetime) -> None:
        self._closed(entry.wait, "completed", at)

    def asked(self, entry: e.Asked, at: datetime) -> None:
        self._opened(entry.operation, "ask", "waiting", at)

    def answered(self, entry: e.Answered, at: datetime) -> None:
        self._closed(entry.operation, "completed", at)

    def child_started(self, entry: e.ChildStarted, at: datetime) -> None:
        self._opened(entry.operation, "child", "running", at)

    def child_ended(self, entry: e.ChildEnded, at: datetime) -> None:
        state: State = "completed" if entry.outcome == "completed" else "failed"
        self._closed(entry.operation, state, at, words(entry.error))

    def update_received(self, entry: e.UpdateReceived, at: datetime) -> None:
        self._opened(f"update:{entry.update}", "update", "waiting", at, f"update:{entry.event_type}")

    def update_replied(self, entry: e.UpdateReplied, at: datetime) -> None:
        state: State = "completed" if entry.error is None else "failed"
        self._closed(f"update:{entry.update}", state, at, words(entry.error))

    # -- endings -------------------------------------------------------------------------------------

    def ended(self, entry: e.Ended | e.Continued | e.Reopened, at: datetime) -> None:
        """What is still open then isn't waited for any more: a time-out closed it, or the end."""
        for key in list(self._open):
            self._closed(key, "dropped", at)


_TELLING: dict[type, Callable[[_Teller, Any, datetime], None]] = {
    e.StepStarted: _Teller.step_started,
    e.StepCompleted: _Teller.step_completed,
    e.StepFailed: _Teller.step_failed,
    e.AttemptFailed: _Teller.attempt_failed,
    e.StepCancelled: _Teller.step_cancelled,
    e.EventAwaited: _Teller.event_awaited,
    e.EventReceived: _Teller.event_received,
    e.Asked: _Teller.asked,
    e.Answered: _Teller.answered,
    e.ChildStarted: _Teller.child_started,
    e.ChildEnded: _Teller.child_ended,
    e.UpdateReceived: _Teller.update_received,
    e.UpdateReplied: _Teller.update_replied,
    e.Ended: _Teller.ended,
    e.Continued: _Teller.ended,
    e.Reopened: _Teller.ended,
}
