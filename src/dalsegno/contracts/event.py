"""Events: typed facts that one part of the business tells the others."""

from __future__ import annotations

from typing import Any, ClassVar, dataclass_transform

import msgspec

from dalsegno.contracts import codec
from dalsegno.errors import DefinitionError


class EventMeta(msgspec.StructMeta):
    """Takes the class parameters of an event; the rest are msgspec's own."""

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        topic: str | None = None,
        key: str | None = None,
        version: int = 1,
        reply: Any = None,
        **options: Any,
    ) -> Any:
        options.setdefault("frozen", True)
        cls: Any = super().__new__(mcls, name, bases, namespace, **options)
        if key is not None and key not in cls.__struct_fields__:
            raise DefinitionError(f"event {name} has key={key!r}, but no such field: declare it")
        cls.event_type = name
        cls.event_topic = topic or name
        cls.event_key = key
        cls.event_version = version
        cls.event_reply = reply
        return cls


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Event(msgspec.Struct, metaclass=EventMeta):
    """The base of every event: a frozen struct with typed fields.

    Class parameters: `topic`, where it is published (the class's name where none is given); `key`, the
    field that events are routed and ordered by; `version` of the contract; `reply`, the type of the answer
    where the event is sent as an update.

    >>> class Delivered(Event, key="order_id"):
    ...     order_id: str
    >>> Delivered("1").order_id
    '1'
    """

    event_type: ClassVar[str] = "Event"
    event_topic: ClassVar[str] = "Event"
    event_key: ClassVar[str | None] = None
    event_version: ClassVar[int] = 1
    event_reply: ClassVar[Any] = None


def key_of(event: Event) -> str | None:
    """The value of the event's key field as text, `None` where it has none."""
    field = event.event_key
    return None if field is None else key_text(getattr(event, field))


def key_text(value: Any) -> str:
    """A key's value as the text it is routed by."""
    return value if isinstance(value, str) else codec.encode(value, "event key").decode()


def check_fields(event_type: type[Event], fields: dict[str, Any]) -> None:
    """Raise `DefinitionError` where a filter names a field that the event doesn't have."""
    for field in fields:
        if field not in event_type.__struct_fields__:
            raise DefinitionError(
                f"{event_type.__name__} has no field {field!r}: it has "
                f"{', '.join(event_type.__struct_fields__) or 'none'}"
            )
