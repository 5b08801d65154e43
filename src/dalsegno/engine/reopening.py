"""Which part of a journal a retry or a fork keeps."""

from __future__ import annotations

import msgspec

from dalsegno.errors import NotFound
from dalsegno.kernel import entries as e
from dalsegno.kernel.fault import Fault
from dalsegno.kernel.ports import InstanceRow

_OPENINGS = (e.Asked, e.ChildStarted, e.EventAwaited)
_ATTEMPTS = (e.StepCompleted, e.StepFailed, e.AttemptFailed)
_COMES_ANEW = (e.TimerFired, e.Published, e.Annotated, e.UpdateReplied)


def discarded_by_retry(journal: list[e.Record]) -> list[int]:
    """The entries that a retry from the failure forgets: the failure, what came of it, and what was undone for it.

    A step that was undone is done anew, under a new idempotency key; what came of its old result, timers and
    failures and what the process said, comes anew too. Other results stay, and so do failures that the process met
    and dealt with.
    """
    already = _forgotten(journal)
    live = [r for r in journal if r.seq not in already and not isinstance(r.entry, e.REMARKS)]
    guilty = _guilty(live)
    # A run that failed by itself goes on from the last thing that came to it.
    cut = _before_undoing(live, min(guilty, default=_last_delivery(live) + 1))
    undone = _undone(live, cut)
    redone = min((r.seq for r in live if getattr(r.entry, "step", None) in undone), default=cut)
    answered = {r.entry.operation for r in live if isinstance(r.entry, e.Answered)}
    discarded = []
    for record in live:
        entry = record.entry
        if isinstance(entry, (e.StepCompleted, e.StepFailed, e.AttemptFailed, e.StepCancelled)):
            if (
                entry.step in undone
                or (entry.step.startswith("undo:") and entry.step.removeprefix("undo:") in undone)
                or (record.seq >= min(cut, redone) and not isinstance(entry, e.StepCompleted))
                or (isinstance(entry, e.AttemptFailed) and entry.step in _failed_steps(live, cut))
            ):
                discarded.append(record.seq)
        elif isinstance(entry, e.Answered) or (isinstance(entry, e.Asked) and entry.operation in answered):
            # People are not asked twice.
            continue
        elif (
            record.seq >= cut
            or isinstance(entry, e.CancelRequested)
            or (record.seq > redone and isinstance(entry, _COMES_ANEW))
        ):
            discarded.append(record.seq)
    kept = set(discarded)
    return sorted(kept | _unanswered([r for r in live if r.seq not in kept]))


def _guilty(live: list[e.Record]) -> set[int]:
    """The failures that ended the run: what it was cancelled by, or those whose errors it ended with."""
    ended = next((r.entry for r in reversed(live) if isinstance(r.entry, e.Ended)), None)
    if ended is None or ended.outcome == "terminated":
        return set()
    failures = [r for r in live if _is_failure(r.entry)]
    requests = [r.seq for r in failures if isinstance(r.entry, e.CancelRequested)]
    if ended.outcome == "cancelled":
        return set(requests[-1:])
    found: set[int] = set()
    for error in _leaves(ended.error):
        told = [r.seq for r in failures if r.seq not in found and _tells_of(r.entry, error)]
        found.update(told[-1:])
    if not found and failures and failures[-1].seq == _last_delivery(live):
        # Nothing else happened before the run ended: it gave the failure another name.
        found.add(failures[-1].seq)
    return found


def _before_undoing(live: list[e.Record], cut: int) -> int:
    """Where a run goes on that was cancelled while it undid something: at what that was undone for."""
    before = [r for r in live if r.seq < cut]
    place = len(before)
    # Whatever came meanwhile, no other step went on.
    while place and (_is_undo(before[place - 1].entry) or not isinstance(before[place - 1].entry, _ATTEMPTS)):
        place -= 1
    if not any(_is_undo(r.entry) for r in before[place:]):
        return cut
    return before[place - 1].seq if place and _is_failure(before[place - 1].entry) else before[place].seq


def _leaves(error: Fault | None) -> list[Fault]:
    """The errors within an error: the members of a group, and of each the error itself before its cause."""
    if error is None:
        return []
    if error.members:
        return [leaf for member in error.members for leaf in _leaves(member)]
    return [error]


def _tells_of(entry: e.Entry, error: Fault) -> bool:
    """Whether an error, or what caused it, is that of a journaled failure."""
    if isinstance(entry, e.ChildEnded) and entry.error is None:
        # The error was made for the parent when a child was cancelled or terminated.
        same = error.type in ("dalsegno.errors:ProcessCancelled", "dalsegno.errors:ProcessTerminated")
    elif isinstance(entry, (e.StepFailed, e.ChildEnded)):
        same = entry.error is not None and (entry.error.type, entry.error.message) == (error.type, error.message)
    else:
        same = False
    return same or (error.cause is not None and _tells_of(entry, error.cause))


def _last_delivery(live: list[e.Record]) -> int:
    """The last thing that came to the run from outside; steps that stopped or were undone for its end left aside."""
    return max(
        r.seq
        for r in live
        if isinstance(r.entry, e.Delivery) and not isinstance(r.entry, e.StepCancelled) and not _is_undo(r.entry)
    )


def _undone(live: list[e.Record], after: int) -> set[str]:
    return {
        r.entry.step.removeprefix("undo:")
        for r in live
        if r.seq >= after and isinstance(r.entry, e.StepCompleted) and _is_undo(r.entry)
    }


def _is_undo(entry: e.Entry) -> bool:
    return str(getattr(entry, "step", "")).startswith("undo:")


def _forgotten(journal: list[e.Record]) -> set[int]:
    return {seq for r in journal if isinstance(r.entry, e.Reopened) for seq in r.entry.discarded}


def _is_failure(entry: e.Entry) -> bool:
    if isinstance(entry, e.StepFailed):
        return not _is_undo(entry)
    return isinstance(entry, e.CancelRequested) or (isinstance(entry, e.ChildEnded) and entry.outcome != "completed")


def _failed_steps(live: list[e.Record], cut: int) -> set[str]:
    return {r.entry.step for r in live if isinstance(r.entry, e.StepFailed) and r.seq >= cut}


def _unanswered(live: list[e.Record]) -> set[int]:
    """Questions, waits and children without their end: said again, they are opened again."""
    ended = {r.entry.operation for r in live if isinstance(r.entry, (e.Answered, e.ChildEnded))}
    ended |= {r.entry.wait for r in live if isinstance(r.entry, e.EventReceived)}
    return {r.seq for r in live if isinstance(r.entry, (e.Asked, e.EventAwaited)) and r.entry.operation not in ended}


def consumed_events(journal: list[e.Record]) -> list[e.Consumed] | None:
    """The events that the runs of an instance have received so far."""
    forgotten = _forgotten(journal)
    positions: dict[tuple[str, bytes], int] = {}
    filters: dict[str, tuple[str, bytes]] = {}
    for record in journal:
        entry = record.entry
        if isinstance(entry, e.Started):
            positions.update({(c.event_type, bytes(c.match)): c.position for c in entry.consumed or ()})
        elif isinstance(entry, e.EventAwaited):
            filters[entry.operation] = (entry.event_type, bytes(entry.match))
        elif isinstance(entry, e.EventReceived) and record.seq not in forgotten and entry.wait in filters:
            positions[filters[entry.wait]] = entry.position
    return e.newest_consumed(positions)


def open_children(journal: list[e.Record], discarded: list[int]) -> list[e.ChildStarted]:
    """The children whose end a reopened run waits for again."""
    forgotten = _forgotten(journal) | set(discarded)
    live = [r.entry for r in journal if r.seq not in forgotten]
    ended = {entry.operation for entry in live if isinstance(entry, e.ChildEnded)}
    return [entry for entry in live if isinstance(entry, e.ChildStarted) and entry.operation not in ended]


def copy_for_fork(
    journal: list[e.Record], origin: InstanceRow, new_id: str, before: str | None, by: str | None
) -> list[e.Record]:
    """The journal of a new instance that stands where the origin stood before a step's outcome.

    Without a step it stands where the origin stands now. Raises `NotFound` where the step isn't journaled.
    """
    already = _forgotten(journal)
    live = [
        r for r in journal if r.seq not in already and not isinstance(r.entry, (*e.REMARKS, e.Ended, e.CancelRequested))
    ]
    if before is not None:
        live = _up_to(live, _plain(before), origin)
    ended = {r.entry.operation for r in live if isinstance(r.entry, (e.Answered, e.ChildEnded))}
    ended |= {r.entry.wait for r in live if isinstance(r.entry, e.EventReceived)}
    kept = [r for r in live if not (isinstance(r.entry, _OPENINGS) and r.entry.operation not in ended)]
    copied = [_renamed(r.entry, origin, new_id) for r in kept]
    copied.append(e.Forked(origin.id, before, by))
    ats = [r.at for r in kept] + [kept[-1].at]
    return [e.Record(seq, at, entry) for seq, (at, entry) in enumerate(zip(ats, copied, strict=True))]


def annotated(journal: list[e.Record]) -> bytes | None:
    """What a journal has annotated, for the row of a copy: replay doesn't say it again."""
    values: dict[str, msgspec.Raw] = {}
    for record in journal:
        if isinstance(record.entry, e.Annotated):
            values |= msgspec.json.decode(record.entry.values, type=dict[str, msgspec.Raw])
    return msgspec.json.encode(values) if values else None


def _plain(step: str) -> str:
    return step.removesuffix("#1")


def _up_to(live: list[e.Record], step: str, origin: InstanceRow) -> list[e.Record]:
    for position, record in enumerate(live):
        if isinstance(record.entry, (e.StepCompleted, e.StepFailed, e.AttemptFailed)) and record.entry.step == step:
            return live[:position]
    known = sorted({r.entry.step for r in live if isinstance(r.entry, (e.StepCompleted, e.StepFailed))})
    raise NotFound(f"instance {origin.id!r} has no outcome of a step {step!r}; it has {', '.join(known) or 'none'}")


def _renamed(entry: e.Entry, origin: InstanceRow, new_id: str) -> e.Entry:
    """An entry as the copy would say it: names made from the instance's id carry the new one."""
    prefix = f"{origin.namespace}/{origin.id}" + (f"@{origin.run}" if origin.run > 1 else "")
    if isinstance(entry, e.Started):
        return msgspec.structs.replace(entry, run=1, parent=None, parent_operation=None, seed=entry.seed or prefix)
    if isinstance(entry, e.Published):
        return msgspec.structs.replace(entry, event_id=f"{origin.namespace}/{new_id}/{entry.operation}")
    if isinstance(entry, e.ChildStarted) and entry.child.startswith(origin.id):
        return msgspec.structs.replace(entry, child=f"{new_id}/{entry.operation.removeprefix('child:')}")
    return entry
