"""The journal's entries: one closed union of frozen structs.

An entry is kept with its sequence number in the instance and the store's time. Three sorts exist:

- *deliveries* come from outside and move the process on: they are fed to it one by one, in order;
- *emissions* are what the process itself said (published, annotated, …): on replay it says them again,
  and they must be the same;
- *remarks* are for readers only; replay skips them.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from dalsegno.contracts.codec import EMPTY
from dalsegno.kernel.fault import Fault

Outcome = Literal["completed", "failed", "cancelled", "terminated"]
ParentClose = Literal["abandon", "cancel", "terminate"]


class _Entry(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind"):
    """The base of every entry."""


# -- deliveries ----------------------------------------------------------------------------------------


class Consumed(msgspec.Struct, frozen=True, array_like=True):
    """How far a run came in reading the events that meet a filter: the position of the last one it received."""

    event_type: str
    match: msgspec.Raw
    position: int


class Started(_Entry, frozen=True, tag="started"):
    """A run began. `input` is the list of arguments; `run` counts the runs of this id from 1.

    `consumed`: the events that earlier runs of the id received; this one doesn't get them again.
    """

    process: str
    version: int
    input: msgspec.Raw
    run: int = 1
    parent: str | None = None
    parent_operation: str | None = None
    by: str | None = None
    reason: str | None = None
    seed: str | None = None
    consumed: list[Consumed] | None = None


class StepCompleted(_Entry, frozen=True, tag="step_completed"):
    """A step's result, once and for all."""

    step: str
    arguments: int
    result: msgspec.Raw
    attempt: int = 1
    started_at: int | None = None
    by: str | None = None


class StepFailed(_Entry, frozen=True, tag="step_failed"):
    """A step's attempts are used up, or its error is final. `unknown`: it may have taken effect."""

    step: str
    arguments: int
    error: Fault
    attempt: int = 1
    unknown: bool = False
    started_at: int | None = None


class StepCancelled(_Entry, frozen=True, tag="step_cancelled"):
    """A step that the process no longer waits for has stopped. `unknown`: it may have taken effect."""

    step: str
    unknown: bool = True


class AttemptFailed(_Entry, frozen=True, tag="attempt_failed"):
    """One attempt failed; the next begins at `next_at` (microseconds since the epoch)."""

    step: str
    attempt: int
    error: Fault
    next_at: int
    unknown: bool = False
    started_at: int | None = None


class TimerFired(_Entry, frozen=True, tag="timer_fired"):
    """A sleep or time-out is over; `timer` counts the timers of the run."""

    timer: int


class EventReceived(_Entry, frozen=True, tag="event_received"):
    """An event met the wait that was open for it."""

    wait: str
    event_id: str
    position: int
    event: msgspec.Raw


class ChildEnded(_Entry, frozen=True, tag="child_ended"):
    """A child instance ended."""

    operation: str
    outcome: Outcome
    result: msgspec.Raw = EMPTY
    error: Fault | None = None


class Answered(_Entry, frozen=True, tag="answered"):
    """A person answered what was asked."""

    operation: str
    answer: msgspec.Raw
    by: str | None = None


class UpdateReceived(_Entry, frozen=True, tag="update_received"):
    """A request that expects a reply."""

    update: str
    event_type: str
    event: msgspec.Raw
    by: str | None = None


class CancelRequested(_Entry, frozen=True, tag="cancel_requested"):
    """Somebody asked the instance to stop and undo."""

    reason: str | None = None
    by: str | None = None


# -- emissions -----------------------------------------------------------------------------------------


class EventAwaited(_Entry, frozen=True, tag="event_awaited"):
    """The process waits for an event. `match` holds the wanted field values."""

    operation: str
    event_type: str
    match: msgspec.Raw
    key: str | None = None


class Published(_Entry, frozen=True, tag="published"):
    """The process published an event."""

    operation: str
    event_id: str
    event_type: str
    topic: str
    event: msgspec.Raw
    key: str | None = None
    to: str | None = None


class ChildStarted(_Entry, frozen=True, tag="child_started"):
    """The process started another one."""

    operation: str
    child: str
    process: str
    version: int
    input: msgspec.Raw
    parent_close: ParentClose = "abandon"


class Asked(_Entry, frozen=True, tag="asked"):
    """The process asks a person."""

    operation: str
    role: str
    about: msgspec.Raw
    answer_schema: msgspec.Raw
    title: str | None = None
    due_at: int | None = None


class Annotated(_Entry, frozen=True, tag="annotated"):
    """The process describes its state for those outside."""

    operation: str
    values: msgspec.Raw


class Changed(_Entry, frozen=True, tag="changed"):
    """The run passed `changed(change)` with the new code."""

    change: str


class UpdateReplied(_Entry, frozen=True, tag="update_replied"):
    """The process's reply to an update, or its refusal."""

    update: str
    reply: msgspec.Raw = EMPTY
    error: Fault | None = None


class Ended(_Entry, frozen=True, tag="ended"):
    """The run is over."""

    outcome: Outcome
    result: msgspec.Raw = EMPTY
    error: Fault | None = None
    by: str | None = None
    reason: str | None = None


class Continued(_Entry, frozen=True, tag="continued"):
    """The run ended in order to go on as a new one; the next entry starts it."""

    input: msgspec.Raw


# -- remarks -------------------------------------------------------------------------------------------


class StepStarted(_Entry, frozen=True, tag="step_started"):
    """A step that takes longer than a moment has begun; for those who watch."""

    step: str
    attempt: int
    arguments: msgspec.Raw = EMPTY
    started_at: int | None = None


class Parked(_Entry, frozen=True, tag="parked"):
    """The instance is set aside until somebody helps it."""

    reason: str
    expected: str | None = None
    found: str | None = None


class Paused(_Entry, frozen=True, tag="paused"):
    """Somebody paused the instance."""

    by: str | None = None
    reason: str | None = None


class Resumed(_Entry, frozen=True, tag="resumed"):
    """Somebody let the instance go on."""

    by: str | None = None
    reason: str | None = None


class Reopened(_Entry, frozen=True, tag="reopened"):
    """A failed run goes on from its failure: the entries in `discarded` no longer count."""

    discarded: list[int]
    by: str | None = None
    reason: str | None = None


class Forked(_Entry, frozen=True, tag="forked"):
    """The instance began as a copy of another one's journal."""

    origin: str
    before: str | None = None
    by: str | None = None


_MOST_CONSUMED = 1_000


def newest_consumed(positions: dict[tuple[str, bytes], int]) -> list[Consumed] | None:
    """Positions by event type and filter, as a run hands them to the next: the newest, a journal entry is small."""
    newest = sorted(positions.items(), key=lambda item: item[1])[-_MOST_CONSUMED:]
    return [Consumed(kind, msgspec.Raw(match), position) for (kind, match), position in newest] or None


Delivery: TypeAlias = (
    Started
    | StepCompleted
    | StepFailed
    | StepCancelled
    | AttemptFailed
    | TimerFired
    | EventReceived
    | ChildEnded
    | Answered
    | UpdateReceived
    | CancelRequested
)
Emission: TypeAlias = (
    EventAwaited | Published | ChildStarted | Asked | Annotated | Changed | UpdateReplied | Ended | Continued
)
Remark: TypeAlias = StepStarted | Parked | Paused | Resumed | Reopened | Forked
Entry: TypeAlias = Delivery | Emission | Remark

REMARKS = (StepStarted, Parked, Paused, Resumed, Reopened, Forked)
ENDINGS = (Ended, Continued)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Entry)

encode = _encoder.encode


def decode(data: bytes) -> Entry:
    """An entry from its journaled bytes."""
    entry: Entry = _decoder.decode(data)
    return entry


def kind(entry: Entry) -> str:
    """The entry's kind as it stands in the journal."""
    return KINDS[type(entry)]


KINDS: dict[type, str] = {
    member: str(member.__struct_config__.tag) for member in (*Delivery.__args__, *Emission.__args__, *Remark.__args__)
}


class Record(msgspec.Struct, frozen=True):
    """An entry where it stands: `seq` in the instance, `at` in microseconds since the epoch."""

    seq: int
    at: int
    entry: Entry
