"""`dalsegno list`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from dalsegno.cli import screen
from dalsegno.cli.place import HERE, Place
from dalsegno.cli.selection import ALL, Selection
from dalsegno.cli.wording import brief, length, shortened
from dalsegno.instance import Instance

_SHOWN = 100


async def list_(
    *,
    selection: Selection = ALL,
    limit: Annotated[int | None, Parameter(help="At most so many; a table shows 100 if not given.")] = None,
    ids: Annotated[bool, Parameter(help="Only the ids, one a line, for other verbs to read.")] = False,
    place: Place = HERE,
) -> None:
    """List instances, newest first."""
    async with place.beside() as app:
        most = _SHOWN if limit is None and not (ids or place.json) else limit
        found = [instance async for instance in selection.of(app, most)]
        counts = await app.counts()
    if place.json:
        for instance in found:
            screen.emit(instance)
    elif ids:
        for instance in found:
            screen.say(instance.id)
    else:
        screen.console().print(table(found))
        totals = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        screen.note(f"{len(found)} shown; in all: {totals or 'none'}")


def table(found: list[Instance]) -> Table:
    """Instances as a table."""
    shown = screen.table("ID", "PROCESS", "STATUS", "STARTED", "TOOK", "WHY OR WHAT")
    now = datetime.now(UTC)
    for instance in found:
        process = instance.process if instance.version == 1 else f"{instance.process} v{instance.version}"
        took = length(max(0.0, ((instance.ended_at or now) - instance.started_at).total_seconds()))
        started = instance.started_at.astimezone().strftime("%m-%d %H:%M:%S")
        shown.add_row(instance.id, process, screen.status(instance.status), started, took, _why(instance))
    return shown


def _why(instance: Instance) -> str:
    annotations = brief(instance.annotations, 60) if instance.annotations else ""
    why = instance.error or (instance.waiting_for if instance.ended_at is None else None) or ""
    return "  ".join(part for part in (shortened(why, 80), annotations) if part)
