"""Whether one journal is one that a sound engine can write."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dalsegno.kernel import entries as e

_RUN = re.compile(r"@\d+$")


class Outcome(NamedTuple):
    """A journaled outcome of a step's attempt, under the idempotency key the attempt had."""

    instance: str
    seq: int
    key: str
    entry: e.StepCompleted | e.StepFailed | e.StepCancelled | e.AttemptFailed


def instance_of(key: str) -> str:
    """The instance of an idempotency key such as "default/order-1@2/charge#2~2"."""
    return _RUN.sub("", key.rsplit("/", 1)[0].partition("/")[2])


def outcomes_of(id: str, journal: Iterable[e.Record], namespace: str = "default") -> list[Outcome]:
    """The outcomes in a journal, each under the key that its attempt had."""
    found: list[Outcome] = []
    records = list(journal)
    by_seq = {record.seq: record.entry for record in records}
    generations: dict[str, int] = defaultdict(int)
    prefix = f"{namespace}/{id}"
    for record in records:
        entry = record.entry
        if isinstance(entry, e.Started):
            prefix = f"{namespace}/{id}" + (f"@{entry.run}" if entry.run > 1 else "")
            generations.clear()
        elif isinstance(entry, e.Forked):
            # What stands before it was done by the origin, under the origin's keys.
            found.clear()
        elif isinstance(entry, e.Reopened):
            for seq in entry.discarded:
                old = by_seq[seq]
                if isinstance(old, e.StepCompleted) and old.step.startswith("undo:"):
                    generations[old.step] += 1
                    generations[old.step.removeprefix("undo:")] += 1
        elif isinstance(entry, (e.StepCompleted, e.StepFailed, e.StepCancelled, e.AttemptFailed)):
            generation = generations[entry.step]
            key = f"{prefix}/{entry.step}" + (f"~{generation + 1}" if generation else "")
            found.append(Outcome(id, record.seq, key, entry))
    return found


def discarded_in(journal: Iterable[e.Record]) -> set[int]:
    """The entries that an operator's retry made count no longer."""
    return {seq for r in journal if isinstance(r.entry, e.Reopened) for seq in r.entry.discarded}


def check_journal(id: str, journal: list[e.Record]) -> Iterator[str]:
    """Whether a journal is one that a sound engine can write."""
    if not journal:
        return
    discarded = discarded_in(journal)
    ended: e.Entry | None = None
    for position, record in enumerate(journal):
        entry = record.entry
        if record.seq != position:
            yield f"I2 {id!r}: entry {record.seq} stands at place {position}"
        if position and record.at < journal[position - 1].at - 1_000_000:
            yield f"I2 {id!r}: entry {position} is more than a second older than the one before"
        if ended is not None and not isinstance(entry, (e.Reopened, e.Started)):
            yield f"I9 {id!r}: {e.kind(entry)} after {e.kind(ended)}"
        ended = entry if isinstance(entry, e.ENDINGS) else None
    yield from _once(id, [r for r in journal if r.seq not in discarded])


def _once(id: str, journal: list[e.Record]) -> Iterator[str]:
    """Final outcomes come once, attempts are counted up, nothing follows a final outcome."""
    settled: dict[str, str] = {}
    attempts: dict[str, int] = {}
    opened: set[str] = set()
    for record in journal:
        entry = record.entry
        if isinstance(entry, e.Started):
            settled, attempts, opened = {}, {}, set()
        elif isinstance(entry, (e.StepCompleted, e.StepFailed, e.StepCancelled, e.AttemptFailed)):
            if entry.step in settled:
                yield f"I6 {id!r}: {e.kind(entry)} of {entry.step!r} after {settled[entry.step]}"
            if isinstance(entry, e.AttemptFailed):
                if entry.attempt != attempts.get(entry.step, 0) + 1:
                    yield f"I6 {id!r}: attempt {entry.attempt} of {entry.step!r} after {attempts.get(entry.step, 0)}"
                attempts[entry.step] = entry.attempt
            else:
                settled[entry.step] = e.kind(entry)
            if entry.step.startswith("undo:") and entry.step.removeprefix("undo:") not in settled:
                yield f"I8 {id!r}: {entry.step!r} before the outcome of the step"
        elif isinstance(entry, (e.EventReceived, e.Answered, e.ChildEnded)):
            name = entry.wait if isinstance(entry, e.EventReceived) else entry.operation
            if name in settled:
                yield f"I10 {id!r}: {name!r} was met twice"
            if name not in opened:
                yield f"I10 {id!r}: {e.kind(entry)} of {name!r}, which is not open"
            settled[name] = e.kind(entry)
        elif isinstance(entry, (e.EventAwaited, e.Asked, e.ChildStarted)):
            opened.add(entry.operation)
