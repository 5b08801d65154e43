"""What an outcome means to whoever waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from dalsegno.contracts import codec
from dalsegno.errors import InvalidValue, ProcessCancelled, ProcessFailed, ProcessTerminated
from dalsegno.kernel import entries as e
from dalsegno.kernel.calls import StepCall
from dalsegno.kernel.definition import ProcessSpec
from dalsegno.kernel.fault import restore

Raw = msgspec.Raw


def child_result(spec: ProcessSpec, child: str, entry: e.ChildEnded) -> Any:
    """A child's result, or its error raised."""
    if entry.outcome == "completed":
        return codec.decode(entry.result or Raw(codec.NULL), spec.result_type, f"result of {child}")
    if entry.outcome == "cancelled":
        raise ProcessCancelled(f"child {child!r} ({spec.name}) was cancelled")
    if entry.outcome == "terminated":
        raise ProcessTerminated(f"child {child!r} ({spec.name}) was terminated")
    assert entry.error is not None
    raise restore(entry.error, ProcessFailed)


def note_attempt(call: StepCall, entry: e.AttemptFailed) -> None:
    """A step's next attempt is a later one."""
    call.attempt = entry.attempt + 1
    call.next_at = entry.next_at
    call.unknown = call.unknown or entry.unknown


def resolve(future: asyncio.Future[Any], read: Callable[[], Any]) -> None:
    """Give whoever waits what was read, or the error of reading it."""
    if future.done():
        return
    try:
        future.set_result(read())
    except Exception as error:
        future.set_exception(error)
        # Nobody may be waiting, as for a detached child: that is no fault of the process.
        future.exception()


def invalid_result(call: StepCall, error: Exception) -> Exception:
    """The error for a result that isn't of the declared type."""
    return InvalidValue(
        f"result of step {call.key!r} isn't a {codec.type_name(call.spec.result_type)}: {error}. The step took effect; "
        "its journaled result stays as it is."
    )
