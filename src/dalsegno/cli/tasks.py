"""`dalsegno tasks`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from dalsegno.cli import screen
from dalsegno.cli.place import HERE, Place
from dalsegno.cli.wording import brief, clock
from dalsegno.instance import Task


async def tasks(
    *,
    role: Annotated[str | None, Parameter(help="Only those for this role.")] = None,
    all: Annotated[bool, Parameter(help="Those that are answered or withdrawn too.")] = False,
    limit: Annotated[int, Parameter(help="At most so many.")] = 1000,
    place: Place = HERE,
) -> None:
    """List what people are asked, oldest first."""
    async with place.beside() as app:
        found = await app.tasks(role, None if all else "open", limit)
    if place.json:
        for task in found:
            screen.emit(task)
    elif found:
        screen.console().print(_table(found))
    else:
        screen.note("Nobody is asked anything.")


def _table(found: Sequence[Task]) -> object:
    table = screen.table("TASK", "ROLE", "STATE", "ASKED", "ABOUT")
    for task in found:
        about = f"{task.title}: {brief(task.about)}" if task.title else brief(task.about)
        state = task.state if task.answered_by is None else f"{task.state} by {task.answered_by}"
        table.add_row(task.id, task.role, state, clock(task.asked_at), about)
    return table
