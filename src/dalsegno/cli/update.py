"""`dalsegno update`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from dalsegno.cli import screen
from dalsegno.cli.events import event_of
from dalsegno.cli.place import HERE, By, Place, who


async def update(
    id: Annotated[str, Parameter(help="The instance.")],
    event: Annotated[str, Parameter(help="The request's type, such as ChangeAddress.")],
    fields: Annotated[str, Parameter(help="Its fields as a JSON object; @file reads them from a file.")] = "{}",
    /,
    *,
    by: By = None,
    place: Place = HERE,
) -> None:
    """Send an instance a request that its process answers, and print the reply."""
    async with place.beside() as app:
        reply = await app.get(id).update(event_of(event, fields, None, place), by=who(by))
    if place.json:
        screen.emit({"id": id, "reply": reply})
    else:
        screen.emit_pretty(reply)
