"""Values to JSON and back, by their declared types."""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from dalsegno.errors import DefinitionError, InvalidValue, LimitExceeded, Unserialisable

NULL = b"null"
#: a field without a value; false where a value is expected
EMPTY = msgspec.Raw()


def _to_builtins(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json")
    raise NotImplementedError(f"{type(value).__module__}.{type(value).__qualname__} has no JSON form")


def _from_builtins(wanted: Any, value: Any) -> Any:
    validate = getattr(wanted, "model_validate", None)
    if validate is not None:
        return validate(value)
    if isinstance(wanted, type) and isinstance(value, wanted):
        return value
    raise NotImplementedError(f"{wanted!r} can't be read from JSON")


# Sets and dicts are written in one order whatever the hash seed: the same value has the same bytes after
# a restart, which the argument hashes in journals rely on.
_encoder = msgspec.json.Encoder(enc_hook=_to_builtins, order="deterministic")
#: the bare encoder, for callers that name the value only when something is wrong
dump = _encoder.encode


def encode(value: Any, what: str = "value") -> bytes:
    """JSON of a value, as UTF-8.

    Parameters: `value`, any msgspec, dataclass, TypedDict, pydantic or builtin value; `what` names it
    in the error. Raises `Unserialisable`.

    >>> encode({"b": 1, "a": {3, 1}})
    b'{"a":[1,3],"b":1}'
    """
    try:
        return _encoder.encode(value)
    except Exception:
        pass
    try:
        # Numbers and such as keys of an object: written as text, which is read back by the declared type.
        return _encoder.encode(msgspec.to_builtins(value, str_keys=True, enc_hook=_to_builtins, order="deterministic"))
    except Exception as error:
        raise Unserialisable(
            f"{what} can't be written as JSON: {error}. Return builtins, dataclasses, TypedDicts, "
            "msgspec structs or pydantic models."
        ) from error


def bounded(data: bytes, limit: int, what: str) -> bytes:
    """The data, unless it is larger than `Limits.payload_bytes`. Raises `LimitExceeded`."""
    if len(data) > limit:
        raise LimitExceeded(
            f"{what} has {len(data)} bytes, the limit is {limit} (Limits.payload_bytes). Keep the data elsewhere and "
            "pass a reference."
        )
    return data


@functools.lru_cache(maxsize=4096)
def _decoder(wanted: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(wanted, dec_hook=_from_builtins)


def decoder(wanted: Any) -> Callable[[bytes], Any]:
    """The function that reads JSON as a type; raises `DefinitionError` where the type can't be read."""
    try:
        return _decoder(wanted).decode
    except TypeError as error:
        raise DefinitionError(f"{wanted!r} can't be read from JSON: {error}") from error


def decode(data: bytes | msgspec.Raw, wanted: Any = Any, what: str = "value") -> Any:
    """A value of the wanted type from JSON. Raises `InvalidValue` with the path of what doesn't fit.

    >>> decode(b"[1, 2]", list[int])
    [1, 2]
    """
    try:
        return decoder(wanted)(data)
    except (msgspec.DecodeError, NotImplementedError, ValueError) as error:
        raise InvalidValue(f"{what} isn't a {type_name(wanted)}: {error}") from error


def convert(value: Any, wanted: Any, what: str = "value") -> Any:
    """A JSON-like value as the wanted type, through its JSON form."""
    return decode(encode(value, what), wanted, what)


def type_name(wanted: Any) -> str:
    """How a type is called in a message."""
    return wanted.__name__ if isinstance(wanted, type) else str(wanted)


def schema(wanted: Any) -> dict[str, Any]:
    """The JSON Schema of a type (2020-12)."""
    model_schema = getattr(wanted, "model_json_schema", None)
    if model_schema is not None:
        return typing.cast("dict[str, Any]", model_schema())
    try:
        return msgspec.json.schema(wanted)
    except TypeError:
        return {}


def return_type(function: Callable[..., Any]) -> Any:
    """The annotated return type of a function, `Any` where there is none."""
    found = hints(function).get("return", Any)
    return Any if found in (typing.NoReturn, typing.Never) else found


def hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The resolved annotations of a function; a name that can't be resolved counts as `Any`."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return _hints_one_by_one(function)


def _hints_one_by_one(function: Callable[..., Any]) -> dict[str, Any]:
    scope = getattr(function, "__globals__", {})
    free = getattr(getattr(function, "__code__", None), "co_freevars", ())
    local = {}
    for name, cell in zip(free, getattr(function, "__closure__", None) or (), strict=True):
        with contextlib.suppress(ValueError):
            local[name] = cell.cell_contents
    found: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        one = types.SimpleNamespace(__annotations__={name: annotation})
        with contextlib.suppress(NameError, TypeError, AttributeError):
            found |= typing.get_type_hints(one, scope, local, include_extras=True)
    return found


def check_readable(wanted: Any, what: str) -> None:
    """Raise `DefinitionError` for a type whose values can't be read from JSON."""
    if wanted in (Any, None, typing.NoReturn, typing.Never) or isinstance(wanted, str | typing.ForwardRef):
        return
    try:
        unreadable = next(_unreadable(msgspec.inspect.type_info(wanted), set()), None)
    except NameError:
        # A name within it is not known yet.
        return
    except TypeError as error:
        raise DefinitionError(f"{what} is {wanted!r}, which can't be read from JSON: {error}") from error
    if unreadable is not None:
        raise DefinitionError(
            f"{what} is {type_name(wanted)}, but a {unreadable.__qualname__} can't be read from JSON: use builtins, "
            "dataclasses, TypedDicts, msgspec structs or pydantic models"
        )


def _unreadable(info: Any, seen: set[int]) -> Iterator[type]:
    """The classes within a type that neither msgspec nor pydantic knows."""
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, msgspec.inspect.CustomType):
        plain = any(issubclass(kind, info.cls) for kind in (dict, list, str, int, float))
        if not plain and not hasattr(info.cls, "model_validate"):
            yield info.cls
    for name in getattr(info, "__struct_fields__", ()):
        value = getattr(info, name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, msgspec.inspect.Type | msgspec.inspect.Field):
                yield from _unreadable(part, seen)


def parameter_types(function: Callable[..., Any], skip: int = 0) -> list[Any]:
    """The annotated types of the positional parameters, `Any` where there is none."""
    known = hints(function)
    names = [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return [known.get(name, Any) for name in names[skip:]]
