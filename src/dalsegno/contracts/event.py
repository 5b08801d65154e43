"""Events: typed facts that one part of the business tells the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import msgspec

from dalsegno.contracts import codec
from dalsegno.errors import DefinitionError, InvalidValue


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

    if TYPE_CHECKING:

        def __init_subclass__(
            cls,
            *,
            topic: str | None = None,
            key: str | None = None,
            version: int = 1,
            reply: Any = None,
            **options: Any,
        ) -> None: ...

    event_type: ClassVar[str] = "Event"
    event_topic: ClassVar[str] = "Event"
    event_key: ClassVar[str | None] = None
    event_version: ClassVar[int] = 1
    event_reply: ClassVar[Any] = None


class UntypedEvent(msgspec.Struct, frozen=True):
    """An event whose class isn't loaded here: the name of its type, its fields, and which of them is the key."""

    event_type: str
    fields: dict[str, Any]
    event_key: str | None = None
    event_reply: ClassVar[Any] = None

    def __post_init__(self) -> None:
        if self.event_key is not None and self.event_key not in self.fields:
            names = ", ".join(self.fields) or "none"
            raise InvalidValue(f"event {self.event_type} has no field {self.event_key!r} to be its key; it has {names}")

    @property
    def event_topic(self) -> str:
        """Where it is published."""
        return self.event_type


AnyEvent: TypeAlias = Event | UntypedEvent


def key_of(event: AnyEvent) -> str | None:
    """The value of the event's key field as text, `None` where it has none."""
    field = event.event_key
    if field is None:
        return None
    return key_text(event.fields[field] if isinstance(event, UntypedEvent) else getattr(event, field))


def payload_of(event: AnyEvent) -> bytes:
    """The event's fields as JSON."""
    return codec.encode(event.fields if isinstance(event, UntypedEvent) else event, f"event {event.event_type}")


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
