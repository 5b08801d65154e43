"""Where an instance stands now, why, and what can be done about it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.text import Text

import dalsegno
from dalsegno.app import App
from dalsegno.cli.screen import STATUS_STYLES
from dalsegno.cli.wording import brief, clock, length
from dalsegno.history import Span
from dalsegno.instance import Instance
from dalsegno.kernel import entries as e
from dalsegno.kernel.fault import Fault
from dalsegno.kernel.ports import FINAL

_PACKAGE = Path(dalsegno.__file__).parent


async def standing(app: App, instance: Instance, journal: Sequence[e.Record], spans: Sequence[Span]) -> list[Text]:
    """Lines that say it."""
    lines = [headline(instance)]
    lines += _REASONS.get(instance.status, _nothing)(instance, journal, spans)
    if instance.status == "waiting":
        lines += await _questions(app, instance)
    if instance.status not in FINAL and not await app.nodes(living=True):
        lines.append(Text("no node runs on this store: nothing goes on until one does (dalsegno node)", "yellow"))
    return lines


def headline(instance: Instance) -> Text:
    """The instance in a line."""
    until = instance.ended_at or datetime.now(UTC)
    took = length(max(0.0, (until - instance.started_at).total_seconds()))
    run = f", run {instance.run}" if instance.run > 1 else ""
    parent = f", child of {instance.parent}" if instance.parent else ""
    return Text.assemble(
        (instance.id, "bold"),
        f"  {instance.process} version {instance.version}{run}{parent}  ",
        (instance.status, STATUS_STYLES[instance.status]),
        f"  started {clock(instance.started_at)}, ",
        f"took {took}" if instance.ended_at else f"{took} ago",
    )


def _nothing(instance: Instance, journal: Sequence[e.Record], spans: Sequence[Span]) -> list[Text]:
    return []


def _running(instance: Instance, journal: Sequence[e.Record], spans: Sequence[Span]) -> list[Text]:
    open_steps = [span for span in spans if span.state in ("running", "retrying") and span.sort in ("step", "undo")]
    if not open_steps:
        return [Text("a step runs that began less than a moment ago, or its node has no code for it")]
    return [Text.assemble("runs ", (span.name, "bold"), f" for {_since(span)}", _failure(span)) for span in open_steps]


def _since(span: Span) -> str:
    return length((datetime.now(UTC) - span.started_at).total_seconds())


def _failure(span: Span) -> str:
    return f"; {len(span.attempts)} attempts, the last error was {span.error}" if span.error else ""


def _waiting(instance: Instance, journal: Sequence[e.Record], spans: Sequence[Span]) -> list[Text]:
    lines = [Text(f"waits for {instance.waiting_for or 'nothing it has named'}")]
    return lines + [
        Text.assemble((span.name, "bold"), f" failed so far{_failure(span)}")
        for span in spans
        if span.state == "retrying"
    ]


def _completed(instance: Instance, journal: Sequence[e.Record], spans: Sequence[Span]) -> list[Text]:
    ended = last_end(journal)
    return [Text(f"result {brief(ended.result)}")] if ended is not None and ended.result else []


def _failed(instance: Instance, journal: Sequence[e.Record], spans: Sequence[Span]) -> list[Text]:
    return [*failure_lines(journal), Text(f"to go on from the failure: dalsegno retry {instance.id}", "dim")]


def _stopped(instance: Instance, journal: Sequence[e.Record], spans: Sequence[Span]) -> list[Text]:
    asked = next(
        (r.entry for r in reversed(journal) if isinstance(r.entry, (e.CancelRequested, e.Ended)) and r.entry.by), None
    )
    reason = f": {asked.reason}" if asked is not None and asked.reason else ""
    return [] if asked is None else [Text(f"{instance.status} by {asked.by}{reason}")]


def _paused(instance: Instance, journal: Sequence[e.Record], spans: Sequence[Span]) -> list[Text]:
    asked = next((r.entry for r in reversed(journal) if isinstance(r.entry, e.Paused)), None)
    by = f" by {asked.by}" if asked is not None and asked.by else ""
    reason = f": {asked.reason}" if asked is not None and asked.reason else ""
    return [Text(f"paused{by}{reason}"), Text(f"to go on: dalsegno resume {instance.id}", "dim")]


def _parked(instance: Instance, journal: Sequence[e.Record], spans: Sequence[Span]) -> list[Text]:
    parked = next((r.entry for r in reversed(journal) if isinstance(r.entry, e.Parked)), None)
    if parked is None or parked.expected is None:
        lines = [Text(f"set aside: {instance.error or ''}")]
    else:
        lines = [Text("its journal doesn't fit the code:"), Text(f"  expected {parked.expected}")]
        lines.append(Text(f"  found    {parked.found}"))
    return [*lines, Text(f"waits for {instance.waiting_for}", "dim")]


_REASONS = {
    "running": _running,
    "waiting": _waiting,
    "completed": _completed,
    "failed": _failed,
    "cancelled": _stopped,
    "terminated": _stopped,
    "paused": _paused,
    "parked": _parked,
}


async def _questions(app: App, instance: Instance) -> list[Text]:
    tasks = [task for task in await app.tasks() if task.instance == instance.id]
    return [Text(f"to answer {task.role}: dalsegno answer {task.id} JSON", "dim") for task in tasks]


def last_end(journal: Sequence[e.Record]) -> e.Ended | None:
    """How the run ended."""
    return next((r.entry for r in reversed(journal) if isinstance(r.entry, e.Ended)), None)


def failure_lines(journal: Sequence[e.Record]) -> list[Text]:
    """The error a run ended with, and where in a step it came from."""
    ended = last_end(journal)
    if ended is None or ended.error is None:
        return []
    error = ended.error
    steps = [r.entry for r in journal if isinstance(r.entry, e.StepFailed)]
    origin = next((s for s in reversed(steps) if (s.error.type, s.error.message) == (error.type, error.message)), None)
    if origin is None:
        return fault_lines(error)
    return [Text.assemble("in step ", (origin.step, "bold")), *fault_lines(origin.error), *_frames(error)]


def _frames(fault: Fault) -> list[Text]:
    """Its traceback, without the frames of the engine: they say nothing of the process."""
    shown, ours = [], False
    for line in fault.traceback.splitlines():
        if line.lstrip().startswith('File "'):
            ours = line.lstrip().startswith(f'File "{_PACKAGE}')
        if not ours:
            shown.append(Text(f"  {line}", "dim"))
    return shown


def fault_lines(fault: Fault) -> list[Text]:
    """An error with its traceback and its causes, the first cause first."""
    lines = [] if fault.cause is None else [*fault_lines(fault.cause), Text("which led to", "dim")]
    lines += _frames(fault)
    lines.append(Text.assemble((f"{fault.type.rpartition(':')[2]}: ", "bold red"), fault.message))
    for member in fault.members or ():
        lines += [Text("  which holds", "dim"), *fault_lines(member)]
    return lines
