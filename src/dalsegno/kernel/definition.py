"""What a process and a step are, once declared."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from dalsegno.contracts import codec
from dalsegno.errors import InvalidValue, UsageError
from dalsegno.kernel.retry import Retry

Executor = Literal["async", "thread", "process", "inline", "transaction"]


@dataclass(slots=True, eq=False)
class StepSpec:
    """A declared step: what runs, how often it is tried, how its result is read."""

    name: str
    function: Callable[..., Any]
    executor: Executor
    retry: Retry
    timeout_seconds: float | None = None
    heartbeat_timeout_seconds: float | None = None
    undo: StepSpec | None = None
    even_if_unknown: bool = False
    database: str | None = None
    #: of a step that workers elsewhere run: where they take it from, before what, and by turns with what
    queue: str | None = None
    priority: int = 0
    queue_key: Callable[..., Any] | None = None
    _decode: Callable[[Any], Any] | None = field(default=None, repr=False)

    def decode(self, data: Any) -> Any:
        """A journaled result as the annotated return type."""
        if self._decode is None:
            self._decode = codec.decoder(codec.return_type(self.function))
        return self._decode(data)

    @property
    def result_type(self) -> Any:
        """The annotated return type."""
        return codec.return_type(self.function)

    def read_arguments(self, data: bytes) -> Arguments:
        """The arguments that a node encoded, as their annotated types."""
        parts = codec.decode(data, list[msgspec.Raw], f"arguments of step {self.name!r}")
        types = codec.parameter_types(self.function)
        known = codec.hints(self.function)
        args = [
            codec.decode(part, types[i] if i < len(types) else Any, f"argument {i + 1} of step {self.name!r}")
            for i, part in enumerate(parts[:-1])
        ]
        named = codec.decode(parts[-1], dict[str, msgspec.Raw], f"arguments of step {self.name!r}")
        return args, {
            name: codec.decode(part, known.get(name, Any), f"argument {name!r} of step {self.name!r}")
            for name, part in named.items()
        }

    def undo_arguments(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the undo is called with: all arguments of the step, however they were given, and then its result."""
        # The connection of a transaction step is none of them.
        lent: tuple[Any, ...] = (None,) if self.executor == "transaction" else ()
        bound = inspect.signature(self.function).bind(*lent, *args, **kwargs)
        bound.apply_defaults()
        return (*bound.args[len(lent) :], result), bound.kwargs


_LONGEST_ID = 500

Arguments = tuple[list[Any], dict[str, Any]]
_read_parts = codec.decoder(list[msgspec.Raw])


@dataclass(slots=True, eq=False)
class ProcessSpec:
    """A declared process: its name, version and code."""

    name: str
    version: int
    function: Callable[..., Any]
    _types: list[Any] | None = field(default=None, repr=False)
    _result_type: Any = field(default=None, repr=False)
    _least: int = field(default=0, repr=False)

    @property
    def result_type(self) -> Any:
        """The annotated return type."""
        if self._result_type is None:
            self._result_type = codec.return_type(self.function)
        return self._result_type

    def read_input(self, data: Any) -> Arguments:
        """The arguments of a journaled input, as their annotated types."""
        parts = _read_parts(data)
        if self._types is None:
            self._types = codec.parameter_types(self.function)
            self._least = _required(self.function)
        types = self._types
        plain = bytes(parts[-1]) == b"{}"
        if not (plain and self._least <= len(parts) - 1 <= len(types)):
            self._check_fits(parts)
        arguments = [
            codec.decode(part, types[i] if i < len(types) else Any, f"argument {i + 1} of {self.name}")
            for i, part in enumerate(parts[:-1])
        ]
        if plain:
            return arguments, {}
        named = codec.decode(parts[-1], dict[str, msgspec.Raw], f"input of {self.name}")
        known = codec.hints(self.function)
        keywords = {
            name: codec.decode(part, known.get(name, Any), f"argument {name!r} of {self.name}")
            for name, part in named.items()
        }
        return arguments, keywords

    def _check_fits(self, parts: list[msgspec.Raw]) -> None:
        named = codec.decode(parts[-1], dict[str, msgspec.Raw], f"input of {self.name}")
        try:
            inspect.signature(self.function).bind(*parts[:-1], **named)
        except TypeError as error:
            raise InvalidValue(f"input of {self.name} doesn't fit its parameters: {error}") from error


def check_id(id: Any) -> str:
    """An instance's id as it was given. Raises `UsageError` for one that nobody could find again."""
    if not isinstance(id, str) or not id.strip() or len(id) > _LONGEST_ID or not id.isprintable():
        raise UsageError(f"id={str(id)[:80]!r}: give a text of 1 to {_LONGEST_ID} printable characters")
    return id


def _required(function: Callable[..., Any]) -> int:
    """How many positional arguments a function needs at least; all of them where it needs named ones too."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
        return len(parameters) + 1
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty for p in parameters)


def encode_arguments(args: tuple[Any, ...], kwargs: dict[str, Any], what: str) -> bytes:
    """Arguments as JSON: the positional ones, then an object of the named ones."""
    return codec.encode((*args, kwargs), what)
