"""A claimed attempt as executors run it, and its outcome as the node reads it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec

from dalsegno.contracts import codec
from dalsegno.engine.jobs import Job
from dalsegno.engine.queued import Outcome
from dalsegno.engine.transactions import encoded_result
from dalsegno.errors import ContractError
from dalsegno.kernel.calls import StepCall
from dalsegno.kernel.definition import StepSpec
from dalsegno.kernel.fault import capture
from dalsegno.kernel.work import Claim, WorkRow

_encode = msgspec.json.Encoder().encode


class _Instance:
    """Whose step it is; a worker knows no more of an instance."""

    __slots__ = ("id",)

    def __init__(self, id: str) -> None:
        self.id = id


class Attempt(Job):
    """One claim of one attempt; what the step can ask of itself."""

    __slots__ = ("claim", "over", "row", "unsaid")

    def __init__(self, row: WorkRow, call: StepCall, record: Callable[[Any, Any], None]) -> None:
        super().__init__(_Instance(row.instance_id), call, row.began_at or 0, record)  # type: ignore[arg-type]
        self.row = row
        self.claim = Claim(row.id, row.token)
        #: its outcome is on its way, or nobody wants it
        self.over = False
        #: details that the store hasn't got yet
        self.unsaid: bytes | None = None
        if row.details is not None:
            self.details = codec.decode(row.details)

    @property
    def key(self) -> str:
        """The idempotency key: the same on every attempt, and for every worker that makes it."""
        return self.row.step_key

    def note(self, details: Any) -> bool:
        """Keep details for the next sign of life; whether there were none."""
        was_said = self.unsaid is None
        self.unsaid = codec.encode(details, "heartbeat details")
        return was_said

    def taken(self) -> bytes | None:
        """The details to be stored, once."""
        unsaid, self.unsaid = self.unsaid, None
        return unsaid


def attempt_of(row: WorkRow, spec: StepSpec, record: Callable[[Any, Any], None]) -> Attempt:
    """A claimed row as an attempt. Raises `ContractError` for arguments that aren't of the declared types."""
    limits = (row.timeout_seconds, row.heartbeat_timeout_seconds)
    if limits != (spec.timeout_seconds, spec.heartbeat_timeout_seconds):
        # The process may call it with other limits than it was declared with.
        spec = dataclasses.replace(spec, timeout_seconds=limits[0], heartbeat_timeout_seconds=limits[1])
    args, kwargs = spec.read_arguments(row.arguments)
    call = StepCall(row.operation, spec, tuple(args), kwargs, None)  # type: ignore[arg-type]
    call.attempt = row.attempt
    call.encoded = row.arguments
    return Attempt(row, call, record)


def outcome_of(attempt: Attempt, value: Any, error: BaseException | None, payload_bytes: int) -> bytes:
    """What an attempt came to, for the node."""
    if isinstance(error, asyncio.CancelledError) and attempt.cancelled:
        return _encode(Outcome(cancelled=True, unknown=True))
    if error is not None:
        return written(error)
    try:
        return _encode(Outcome(result=msgspec.Raw(encoded_result(attempt, value, payload_bytes))))
    except ContractError as refused:
        # The effect took place, but its result can't be kept.
        return _encode(Outcome(error=capture(refused), unknown=True, final=True))


def written(error: BaseException) -> bytes:
    """An attempt that failed."""
    return _encode(Outcome(error=capture(error)))
