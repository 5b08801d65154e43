"""`dalsegno publish`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from dalsegno.cli import screen
from dalsegno.cli.events import event_of
from dalsegno.cli.place import HERE, Place


async def publish(
    event: Annotated[str, Parameter(help="The event's type, such as Delivered.")],
    fields: Annotated[str, Parameter(help="Its fields as a JSON object; @file reads them from a file.")] = "{}",
    /,
    *,
    key: Annotated[
        str | None, Parameter(help="The field that the event is routed by; --app makes it known without this.")
    ] = None,
    to: Annotated[str | None, Parameter(help="The only instance that gets it.")] = None,
    place: Place = HERE,
) -> None:
    """Publish an event to the instances that wait for it now, or will soon."""
    async with place.beside() as app:
        id = await app.publish(event_of(event, fields, key, place), to=to)
        if place.json:
            screen.emit({"id": id, "event": event})
            return
        screen.say(f"{event} {id} is published")
        if key is None and place.app is None:
            screen.note("It has no key: where the event's class has one, name its field with --key, or give --app.")
        if not await app.nodes(living=True):
            screen.note("No node runs on this store: it is delivered once one does.")
