"""`dalsegno answer`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from dalsegno.cli import screen
from dalsegno.cli.place import HERE, By, Place, who
from dalsegno.cli.values import json_value


async def answer(
    task: Annotated[str, Parameter(help="The task, as `dalsegno tasks` lists it.")],
    value: Annotated[str, Parameter(help="The answer as JSON; @file reads it from a file.")],
    /,
    *,
    by: By = None,
    place: Place = HERE,
) -> None:
    """Answer a question; an answer that doesn't fit what was asked leaves it open."""
    async with place.beside() as app:
        await app.answer(task, json_value(value, "the answer"), who(by))
    if place.json:
        screen.emit({"task": task, "ok": True})
    else:
        screen.say(f"{task} is answered")
