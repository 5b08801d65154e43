"""What people type for values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from dalsegno.contracts.duration import seconds
from dalsegno.errors import UsageError


def json_value(text: str, option: str) -> Any:
    """A JSON value, or that of a file where the text is `@file`. Raises `UsageError`."""
    if text.startswith("@"):
        return _of_file(text[1:], option)
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise UsageError(
            f"{option} {text} isn't JSON ({error}): a text needs its quotes, "
            f"as in {option} '\"{text}\"'; @file reads a file"
        ) from error


def _of_file(name: str, option: str) -> Any:
    try:
        return msgspec.json.decode(Path(name).read_bytes())
    except OSError as error:
        raise UsageError(f"{option} @{name}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise UsageError(f"{option} @{name}: the file isn't JSON: {error}") from error


def arguments(inputs: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a process: JSON for each, or `name=JSON`."""
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for text in inputs:
        name, found, value = text.partition("=")
        # No JSON begins with a name and an equals sign.
        if found and name.isidentifier():
            named[name] = json_value(value, f"--input {name}=")
        else:
            positional.append(json_value(text, "--input"))
    return positional, named


def bound(function: Callable[..., Any], args: list[Any], named: dict[str, Any]) -> list[Any]:
    """The arguments in the order of a function's parameters, with its defaults between them. Raises `UsageError`."""
    signature = inspect.signature(function)
    try:
        found = signature.bind(*args, **named)
    except TypeError as error:
        raise UsageError(f"{function.__name__}{signature}: {error}. Give each argument with --input") from error
    found.apply_defaults()
    if found.kwargs:
        names = ", ".join(found.kwargs)
        raise UsageError(
            f"{function.__name__}{signature}: {names} can't be given here, only arguments that have a place"
        )
    return list(found.args)


def pairs(texts: Sequence[str], option: str) -> dict[str, Any]:
    """`name=value` pairs; a value that isn't JSON is a text."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"{option} {text}: write {option} name=value")
        try:
            found[name] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            found[name] = value
    return found


def age(text: str | None) -> timedelta | None:
    """A length of time such as 90s, 1h30m or 3d."""
    return None if text is None else timedelta(seconds=seconds(text))
