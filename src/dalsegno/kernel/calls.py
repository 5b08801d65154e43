"""What an instance has open: steps, waits, children, questions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from dalsegno.kernel.definition import ProcessSpec, StepSpec
from dalsegno.kernel.entries import ParentClose

if TYPE_CHECKING:
    from dalsegno.kernel.saga import Scope


class StepCall:
    """A step that the process called and whose outcome isn't journaled yet."""

    __slots__ = (
        "args",
        "arguments",
        "attempt",
        "cancelled",
        "encoded",
        "future",
        "key",
        "kwargs",
        "next_at",
        "outcome",
        "result",
        "scope",
        "spec",
        "undoes",
        "unknown",
    )

    def __init__(
        self,
        key: str,
        spec: StepSpec,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        future: asyncio.Future[Any],
    ) -> None:
        self.key = key
        self.spec = spec
        self.args = args
        self.kwargs = kwargs
        self.future = future
        self.arguments = 0
        self.encoded = b""
        self.attempt = 1
        self.next_at = 0
        self.cancelled = False
        self.scope: Scope | None = None
        self.outcome: str | None = None
        self.result: Any = None
        #: an earlier attempt may have taken effect
        self.unknown = False
        #: it undoes another step
        self.undoes = False


class CancelStep:
    """The process no longer waits for a step."""

    __slots__ = ("call",)

    def __init__(self, call: StepCall) -> None:
        self.call = call


class WaitCall:
    """An open wait for an event. `after` is the position of the last one consumed by the same wait."""

    __slots__ = ("after", "event_type", "future", "key", "key_value", "match")

    def __init__(
        self,
        key: str,
        event_type: Any,
        match: dict[str, Any],
        key_value: str | None,
        after: int,
        future: asyncio.Future[Any],
    ) -> None:
        self.key = key
        self.event_type = event_type
        self.match = match
        self.key_value = key_value
        self.after = after
        self.future = future


class DropWait:
    """A wait is over without its event."""

    __slots__ = ("key",)

    def __init__(self, key: str) -> None:
        self.key = key


class ChildCall:
    """A child instance that hasn't ended."""

    __slots__ = ("future", "id", "key", "parent_close", "spec")

    def __init__(
        self, key: str, id: str, spec: ProcessSpec, parent_close: ParentClose, future: asyncio.Future[Any]
    ) -> None:
        self.key = key
        self.id = id
        self.spec = spec
        self.parent_close = parent_close
        self.future = future


class CancelChild:
    """The process wants a child to stop."""

    __slots__ = ("child", "reason")

    def __init__(self, child: str, reason: str | None) -> None:
        self.child = child
        self.reason = reason


class AskCall:
    """An open question to a person."""

    __slots__ = ("answer_type", "future", "key", "role")

    def __init__(self, key: str, role: str, answer_type: Any, future: asyncio.Future[Any]) -> None:
        self.key = key
        self.role = role
        self.answer_type = answer_type
        self.future = future


class WithdrawAsk:
    """A question that needs no answer any more."""

    __slots__ = ("key",)

    def __init__(self, key: str) -> None:
        self.key = key
