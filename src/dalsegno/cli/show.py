"""`dalsegno show`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from dalsegno import archive
from dalsegno.app import App
from dalsegno.cli import screen
from dalsegno.cli.gantt import gantt
from dalsegno.cli.place import HERE, Place
from dalsegno.cli.standing import standing
from dalsegno.cli.timeline import timeline
from dalsegno.cli.wording import brief
from dalsegno.history import grouped, present_run, spans, standing_open
from dalsegno.instance import Instance
from dalsegno.kernel import entries as e

_ONE_BY_ONE = 40
_LINES = 200
_WIDEST = 120


async def show(
    id: str,
    /,
    *,
    all_runs: Annotated[bool, Parameter(help="The runs before the present one too.")] = False,
    full: Annotated[bool, Parameter(help="Every entry, and its data uncut.")] = False,
    place: Place = HERE,
) -> int:
    """Show an instance: where it stands and why, its steps along time, its history."""
    async with place.beside() as app:
        run = app.get(id)
        instance = await run.describe()
        journal = await run.history()
        shown = journal if all_runs else present_run(journal)
        if place.json:
            screen.emit(as_data(instance, shown))
            return 0
        for line in [*await picture(app, instance, shown), Text(), *_history(shown, full)]:
            screen.say(line)
    return 0


def as_data(instance: Instance, journal: Sequence[e.Record]) -> dict[str, Any]:
    """What is shown, as data."""
    return {
        "instance": instance,
        "spans": standing_open(spans(journal), instance.waiting_for),
        "history": [archive.line_of(record) for record in journal],
    }


async def picture(app: App, instance: Instance, journal: Sequence[e.Record]) -> list[Text]:
    """Where it stands, and the bars."""
    found = standing_open(spans(journal), instance.waiting_for)
    lines = await standing(app, instance, journal, found)
    if instance.annotations:
        lines.insert(1, Text(f"annotations {brief(instance.annotations)}"))
    width = min(screen.console().width, _WIDEST)
    many = len(found) > _ONE_BY_ONE
    bars = gantt(grouped(found) if many else found, instance.ended_at or datetime.now(UTC), width)
    return [*lines, Text(), *bars] if bars else lines


def _history(journal: Sequence[e.Record], full: bool) -> list[Text]:
    if full or len(journal) <= _LINES:
        return timeline(journal, None if full else 100)
    left_out = Text(f"       … {len(journal) - _LINES} entries left out; --full shows them", "dim")
    half = _LINES // 2
    return [*timeline(journal[:half]), left_out, *timeline(journal[-half:])]
