"""A journal as lines to read: when, what, and with which data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from rich.text import Text

from dalsegno.cli.wording import brief, clock, length
from dalsegno.history import moment, words
from dalsegno.kernel import entries as e

_Told = tuple[str, str, str]
_OUTCOMES = {"completed": "green", "failed": "bold red", "cancelled": "yellow", "terminated": "red"}


def timeline(journal: Sequence[e.Record], limit: int | None = 100) -> list[Text]:
    """A line for each entry, with the time since the one before."""
    lines: list[Text] = []
    before: datetime | None = None
    for record in journal:
        lines.append(line(record, before, limit))
        before = moment(record.at)
    return lines


def line(record: e.Record, before: datetime | None, limit: int | None) -> Text:
    """One entry: number, time, time since the one before, what, data."""
    at = moment(record.at)
    since = "" if before is None else f"+{length(max(0.0, (at - before).total_seconds()))}"
    what, style, detail = tell(record.entry, limit)
    return Text.assemble((f"{record.seq:>5}  {clock(at)}  {since:>10}  ", "dim"), (f"{what:<22}", style), "  ", detail)


def tell(entry: e.Entry, limit: int | None = 100) -> _Told:
    """What an entry says: a word for it, its style, its data."""
    return _TELLING[type(entry)](entry, limit)


def _by(entry: Any) -> str:
    by = f"by {entry.by}" if entry.by else ""
    reason = f"“{entry.reason}”" if getattr(entry, "reason", None) else ""
    return " ".join(part for part in (by, reason) if part)


def _step(entry: e.StepCompleted | e.StepFailed) -> str:
    return f" (attempt {entry.attempt})" if entry.attempt > 1 else ""


def _started(entry: e.Started, limit: int | None) -> _Told:
    run = f", run {entry.run}" if entry.run > 1 else ""
    parent = f" for {entry.parent}" if entry.parent else ""
    return (
        "started",
        "bold",
        f"{entry.process} version {entry.version}{run}{parent} {brief(entry.input, limit)} {_by(entry)}",
    )


def _ended(entry: e.Ended, limit: int | None) -> _Told:
    result = brief(entry.result, limit) if entry.result else ""
    return entry.outcome, _OUTCOMES[entry.outcome], " ".join((result, words(entry.error) or "", _by(entry))).strip()


def _completed(entry: e.StepCompleted, limit: int | None) -> _Told:
    style = "magenta" if entry.step.startswith("undo:") else "green"
    return entry.step, style, f"→ {brief(entry.result, limit)}{_step(entry)}"


def _unknown(entry: e.StepFailed | e.AttemptFailed | e.StepCancelled) -> str:
    return "; it may have taken effect" if entry.unknown else ""


def _attempt(entry: e.AttemptFailed, limit: int | None) -> _Told:
    next_at = clock(moment(entry.next_at))
    return entry.step, "yellow", f"attempt {entry.attempt}: {words(entry.error)}{_unknown(entry)}; again at {next_at}"


def _child_ended(entry: e.ChildEnded, limit: int | None) -> _Told:
    detail = brief(entry.result, limit) if entry.result else words(entry.error) or ""
    return entry.operation, _OUTCOMES[entry.outcome], f"{entry.outcome} {detail}"


def _parked(entry: e.Parked, limit: int | None) -> _Told:
    return "parked", "bold magenta", entry.reason


def _replied(entry: e.UpdateReplied, limit: int | None) -> _Told:
    return "update replied", "cyan", words(entry.error) or (brief(entry.reply, limit) if entry.reply else "")


_TELLING: dict[type, Callable[[Any, int | None], _Told]] = {
    e.Started: _started,
    e.Ended: _ended,
    e.Continued: lambda x, n: ("continued as new", "bold", brief(x.input, n)),
    e.StepStarted: lambda x, n: (x.step, "cyan", f"attempt {x.attempt} began"),
    e.StepCompleted: _completed,
    e.StepFailed: lambda x, n: (x.step, "bold red", f"failed: {words(x.error)}{_step(x)}{_unknown(x)}"),
    e.AttemptFailed: _attempt,
    e.StepCancelled: lambda x, n: (x.step, "yellow", f"cancelled{_unknown(x)}"),
    e.TimerFired: lambda x, n: ("timer fired", "blue", f"timer {x.timer}"),
    e.EventAwaited: lambda x, n: (x.operation, "blue", f"awaited {brief(x.match, n)}"),
    e.EventReceived: lambda x, n: (x.wait, "green", f"received {brief(x.event, n)}"),
    e.Published: lambda x, n: (x.operation, "cyan", f"{brief(x.event, n)}{f' to {x.to}' if x.to else ''}"),
    e.ChildStarted: lambda x, n: (x.operation, "cyan", f"started {x.child} {brief(x.input, n)}"),
    e.ChildEnded: _child_ended,
    e.Asked: lambda x, n: (x.operation, "blue", f"asked {x.role}: {x.title or ''} {brief(x.about, n)}"),
    e.Answered: lambda x, n: (x.operation, "green", f"answered {brief(x.answer, n)} {_by(x)}"),
    e.UpdateReceived: lambda x, n: ("update", "cyan", f"{x.event_type} {brief(x.event, n)} {_by(x)}"),
    e.UpdateReplied: _replied,
    e.CancelRequested: lambda x, n: ("cancel requested", "yellow", _by(x)),
    e.Annotated: lambda x, n: ("annotated", "", brief(x.values, n)),
    e.Changed: lambda x, n: ("changed", "", x.change),
    e.Parked: _parked,
    e.Paused: lambda x, n: ("paused", "yellow", _by(x)),
    e.Resumed: lambda x, n: ("resumed", "green", _by(x)),
    e.Reopened: lambda x, n: ("retried", "green", f"{len(x.discarded)} entries no longer count {_by(x)}"),
    e.Forked: lambda x, n: ("forked", "cyan", f"from {x.origin}{f' before {x.before}' if x.before else ''}"),
}
