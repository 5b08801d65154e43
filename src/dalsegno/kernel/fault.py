"""Exceptions as data: type, message, attributes, cause, traceback text. No pickle, no imports by name."""

from __future__ import annotations

import sys
import traceback
from typing import Any

import msgspec

from dalsegno.contracts import codec
from dalsegno.contracts.codec import EMPTY
from dalsegno.errors import StepFailed, Unserialisable

_TRACEBACK_LINES = 60


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """An exception as it is journaled."""

    type: str
    message: str = ""
    args: msgspec.Raw = EMPTY
    attributes: msgspec.Raw = EMPTY
    cause: Fault | None = None
    members: list[Fault] | None = None
    traceback: str = ""


def capture(error: BaseException) -> Fault:
    """The data of an exception.

    >>> capture(ValueError("no")).type
    'builtins:ValueError'
    """
    kind = type(error)
    cause = error.__cause__
    return Fault(
        type=f"{kind.__module__}:{kind.__qualname__}",
        message=_text(error),
        args=_json(list(error.args)) if not isinstance(error, BaseExceptionGroup) else EMPTY,
        attributes=_json(error.__dict__) if error.__dict__ else EMPTY,
        cause=capture(cause) if cause is not None else None,
        members=[capture(e) for e in error.exceptions] if isinstance(error, BaseExceptionGroup) else None,
        traceback=_traceback_text(error),
    )


def _text(error: BaseException) -> str:
    """An error's message, as text that can be written whatever is in it."""
    try:
        text = str(error)
    except Exception as broken:
        text = f"(its message can't be shown: {type(broken).__name__})"
    return text.encode("utf-8", "backslashreplace").decode()


def _traceback_text(error: BaseException) -> str:
    if error.__traceback__ is None:
        return ""
    lines = "".join(traceback.format_tb(error.__traceback__)).splitlines()
    return "\n".join(lines[-_TRACEBACK_LINES:]).encode("utf-8", "backslashreplace").decode()


def _json(value: Any) -> msgspec.Raw:
    try:
        return msgspec.Raw(codec.encode(value))
    except Unserialisable:
        if isinstance(value, dict):
            return msgspec.Raw(codec.encode({str(k): _plain(v) for k, v in value.items()}))
        return msgspec.Raw(codec.encode([_plain(v) for v in value]))


def _plain(value: Any) -> Any:
    try:
        codec.encode(value)
    except Unserialisable:
        return repr(value)
    return value


def restore(fault: Fault) -> Exception:
    """The exception of a fault: its own type where that is loaded, `StepFailed` otherwise."""
    if fault.members is not None:
        error: Exception = ExceptionGroup(fault.message.rsplit(" (", 1)[0], [restore(m) for m in fault.members])
    else:
        error = _typed(fault) or StepFailed(
            f"{fault.type.split(':')[-1]}: {fault.message}", fault.type, _plain_attributes(fault)
        )
    if fault.cause is not None:
        error.__cause__ = restore(fault.cause)
    return error


def _typed(fault: Fault) -> Exception | None:
    kind = exception_type(fault.type)
    if kind is None:
        return None
    arguments = codec.decode(fault.args) if fault.args else [fault.message]
    try:
        # An exception's own __init__ may take other arguments than it leaves in `args`.
        error = kind.__new__(kind, *arguments)
        error.args = tuple(arguments)
        error.__dict__.update(_plain_attributes(fault))
    except (TypeError, AttributeError, ValueError):
        return None
    return error


def _plain_attributes(fault: Fault) -> dict[str, Any]:
    return codec.decode(fault.attributes) if fault.attributes else {}


def exception_type(name: str) -> type[Exception] | None:
    """The exception class of a journaled type name, if its module is already loaded."""
    module_name, _, path = name.partition(":")
    found: Any = sys.modules.get(module_name)
    for part in path.split("."):
        found = getattr(found, part, None)
    if isinstance(found, type) and issubclass(found, Exception):
        return found
    return None
