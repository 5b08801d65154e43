"""The words of process code beside steps: saga, waits, questions, events, time and chance."""

from __future__ import annotations

import random as random_module
import uuid as uuid_module
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar, cast

from dalsegno.authoring.declared import execution, running
from dalsegno.contracts.duration import Duration, seconds
from dalsegno.contracts.event import Event, check_fields
from dalsegno.errors import DefinitionError
from dalsegno.kernel.context import current_step
from dalsegno.kernel.saga import Saga

E = TypeVar("E", bound=Event)
A = TypeVar("A")
H = TypeVar("H", bound=Callable[..., Any])


def saga() -> Saga:
    """A scope whose steps are undone, in reverse order, when it fails or is cancelled.

    `async with saga(): ...`; each step with an `undo` that completed in it, also in inner sagas that succeeded.
    Undoing is journaled and goes on after a crash; a cancellation waits until it is through.
    """
    return Saga(execution("saga()"))


async def wait_for(event_type: type[E], /, **match: Any) -> E:
    """Wait for an event whose fields have the given values; one that came since the instance began counts.

    Parameters: `event_type`, the event's class; `match`, field values. Raises `DefinitionError` for a field the
    event doesn't have. For a time limit: `async with asyncio.timeout(seconds)`.
    """
    found = execution("wait_for()")
    _check_event(event_type)
    check_fields(event_type, match)
    return cast("E", await found.wait_for(event_type, match))


async def ask(
    role: str, answer: type[A], /, *, about: Any = None, title: str | None = None, due: Duration | None = None
) -> A:
    """Ask a person and wait for the answer, for days if need be.

    Parameters: `role` whose inbox it goes to; `answer`, the type of the answer; `about`, what it is about; `title`
    for the inbox; `due`, after which it counts as overdue there.
    """
    found = execution("ask()")
    return cast("A", await found.ask(role, answer, about, title, None if due is None else seconds(due)))


async def publish(event: Event, /, *, to: str | None = None) -> str:
    """Publish an event with the commit that journals it; returns the event's id.

    Parameters: `event`; `to`, the id of the only instance that is to get it.
    """
    found = execution("publish()")
    _check_event(type(event))
    return found.publish(event, to)


def on(event_type: type[Event], /) -> Callable[[H], H]:
    """Inside a process: answer updates of this type from now on.

    The decorated function gets the event and returns the reply, checked against the event's `reply` type; what it
    raises is the caller's to see and leaves the process alone. Updates that came earlier are answered at once.
    """
    found = execution("on()")
    _check_event(event_type)

    def register(handler: H) -> H:
        found.on_update(event_type, handler)
        return handler

    return register


def now() -> datetime:
    """The time in process code, in UTC: that of the last journaled entry, the same on replay."""
    return execution("now()").now()


def random() -> random_module.Random:
    """A random generator for process code that yields the same numbers on replay."""
    return execution("random()").random()


def uuid() -> uuid_module.UUID:
    """A random UUID for process code, the same on replay."""
    return execution("uuid()").uuid()


def annotate(**values: Any) -> None:
    """Describe the instance's state: searchable, readable from outside at any time. `None` removes a name."""
    execution("annotate()").annotate(values)


def changed(change: str, /) -> bool:
    """Whether this run goes through a change of the code with the new code; runs that passed before it get false."""
    return execution("changed()").changed(change)


def step_key() -> str:
    """The idempotency key of the running step: the same on every attempt and on every node.

    Outside a process, where a step is a plain function, it is a new one each time.
    """
    context = current_step.get()
    return f"plain/{uuid_module.uuid4()}" if context is None else context.key


def heartbeat(details: Any = None) -> Any:
    """Say from within a step that it is alive, with details that a later attempt can resume from.

    Returns what was recorded last, also by an earlier attempt; `None` at first.
    """
    context = current_step.get()
    return None if context is None else context.heartbeat(details)


def _check_event(event_type: Any) -> None:
    if not (isinstance(event_type, type) and issubclass(event_type, Event)):
        raise DefinitionError(
            f"{event_type!r} isn't an Event: declare `class {getattr(event_type, '__name__', 'X')}(Event)`"
        )


__all__ = [
    "annotate", "ask", "changed", "heartbeat", "now", "on", "publish", "random", "running", "saga", "step_key", "uuid",
    "wait_for",
]  # fmt: skip
