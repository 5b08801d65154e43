"""Events from the command line: by their class where the app's code is given, else by name and fields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dalsegno.cli.place import Place
from dalsegno.cli.values import json_value
from dalsegno.contracts import codec
from dalsegno.contracts.event import AnyEvent, Event, UntypedEvent
from dalsegno.errors import UsageError


def event_of(name: str, text: str, key: str | None, place: Place) -> AnyEvent:
    """The event that is meant. Raises `UsageError`, and `InvalidValue` where the fields don't fit its class."""
    fields = json_value(text, "the event")
    if not isinstance(fields, dict):
        raise UsageError(f"an event has fields: give {name} a JSON object, not {text}")
    if place.app is None:
        return UntypedEvent(name, fields, key)
    event: Event = codec.convert(fields, _declared(name, place.app), f"event {name}")
    return event


def _declared(name: str, app: str) -> type[Event]:
    known = {kind.event_type: kind for kind in _all(Event)}
    if name not in known:
        raise UsageError(f"{app} declares no event {name!r}; it has {', '.join(sorted(known)) or 'none'}")
    return known[name]


def _all(kind: Any) -> Iterator[type[Event]]:
    for found in kind.__subclasses__():
        yield found
        yield from _all(found)
