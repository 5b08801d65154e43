"""Exceptions as data: type, message, attributes, cause, traceback text. No pickle, no imports by name."""

from __future__ import annotations

import sys
import traceback
from typing import Any

import msgspec

from dalsegno.contracts import codec
from dalsegno.contracts.codec import EMPTY
from dalsegno.errors import ProcessFailed, StepFailed, Unserialisable

# An error is for people to read and for code to tell apart: whatever size it has, its journal entry is small.
_TRACEBACK_LINES = 60
_MOST_CHARACTERS = 10_000
_MOST_DATA_BYTES = 32_768
_MOST_CAUSES = 10
_MOST_MEMBERS = 100


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """An exception as it is journaled."""

    type: str
    message: str = ""
    args: msgspec.Raw = EMPTY
    attributes: msgspec.Raw = EMPTY
    cause: Fault | None = None
    members: list[Fault] | None = None
    traceback: str = ""


def capture(error: BaseException, causes: int = _MOST_CAUSES) -> Fault:
    """The data of an exception, with so many causes behind it at most.

    >>> capture(ValueError("no")).type
    'builtins:ValueError'
    """
    kind = type(error)
    # An error raised while another was being handled came of that one, said or not.
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    within = error.exceptions[:_MOST_MEMBERS] if isinstance(error, BaseExceptionGroup) and causes else None
    return Fault(
        type=f"{kind.__module__}:{kind.__qualname__}",
        message=_text(error),
        args=_json(list(error.args)) if within is None else EMPTY,
        attributes=_json(error.__dict__) if error.__dict__ else EMPTY,
        cause=capture(cause, causes - 1) if cause is not None and causes else None,
        members=[capture(member, causes - 1) for member in within] if within is not None else None,
        traceback=_traceback_text(error),
    )


def _text(error: BaseException) -> str:
    """An error's message, as text that can be written whatever is in it."""
    try:
        text = str(error)
    except Exception as broken:
        text = f"(its message can't be shown: {type(broken).__name__})"
    return _short(text).encode("utf-8", "backslashreplace").decode()


def _short(text: str) -> str:
    if len(text) <= _MOST_CHARACTERS:
        return text
    return f"{text[:_MOST_CHARACTERS]}… (the first {_MOST_CHARACTERS} of {len(text)} characters)"


def _traceback_text(error: BaseException) -> str:
    if error.__traceback__ is None:
        return ""
    lines = "".join(traceback.format_tb(error.__traceback__)).splitlines()
    return _short("\n".join(lines[-_TRACEBACK_LINES:])).encode("utf-8", "backslashreplace").decode()


def _json(value: Any) -> msgspec.Raw:
    try:
        data = codec.encode(value)
        if len(data) <= _MOST_DATA_BYTES:
            return msgspec.Raw(data)
    except Unserialisable:
        pass
    plain: Any
    if isinstance(value, dict):
        plain = {_short(str(k)): _plain(v) for k, v in value.items()}
    else:
        plain = [_plain(v) for v in value]
    data = codec.encode(plain)
    return msgspec.Raw(data) if len(data) <= 4 * _MOST_DATA_BYTES else EMPTY


def _plain(value: Any) -> Any:
    try:
        if len(codec.encode(value)) <= _MOST_DATA_BYTES:
            return value
    except Unserialisable:
        pass
    try:
        return _short(value if isinstance(value, str) else repr(value))
    except Exception:
        return f"({type(value).__name__})"


def restore(fault: Fault, unknown: type[StepFailed] | type[ProcessFailed] = StepFailed) -> Exception:
    """The exception of a fault: its own type where that is loaded, `unknown` otherwise."""
    if fault.members:
        error: Exception = ExceptionGroup(
            fault.message.rsplit(" (", 1)[0], [restore(m, unknown) for m in fault.members]
        )
    else:
        error = _typed(fault) or unknown(
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
        if kind.__module__ == "builtins":
            # Some of Python's own keep what they say outside `args`.
            return _with_attributes(kind(*arguments), fault)
        # An exception's own __init__ may take other arguments than it leaves in `args`.
        error = kind.__new__(kind, *arguments)
        error.args = tuple(arguments)
        return _with_attributes(error, fault)
    except (TypeError, AttributeError, ValueError):
        return None


def _with_attributes(error: Exception, fault: Fault) -> Exception:
    error.__dict__.update(_plain_attributes(fault))
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
