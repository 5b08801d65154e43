"""`dalsegno watch`."""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime
from typing import Annotated

from cyclopts import Parameter
from rich.console import Group
from rich.live import Live
from rich.text import Text

from dalsegno import archive
from dalsegno.app import App
from dalsegno.cli import screen
from dalsegno.cli.follow import changes, follow
from dalsegno.cli.list import table
from dalsegno.cli.place import HERE, Place
from dalsegno.cli.selection import ALL, Selection
from dalsegno.cli.show import picture
from dalsegno.cli.timeline import line
from dalsegno.history import moment, present_run
from dalsegno.kernel import entries as e


async def watch(
    id: Annotated[str | None, Parameter(help="The instance; all of them if not given.")] = None,
    /,
    *,
    selection: Selection = ALL,
    limit: Annotated[int, Parameter(help="Of all instances, show the newest so many.")] = 20,
    place: Place = HERE,
) -> None:
    """Watch an instance until it ends, or all of them until Ctrl-C."""
    async with place.beside() as app:
        live = screen.console().is_terminal and not place.json
        if id is None:
            await (_watch_all(app, selection, limit) if live else _changed_rows(app, selection, limit, place.json))
        else:
            await (_watch_one(app, id) if live else _entries(app, id, place.json))


async def _watch_one(app: App, id: str) -> None:
    journal: list[e.Record] = []
    with Live(console=screen.console(), auto_refresh=False) as live:
        async with aclosing(follow(app, app.get(id))) as steps:
            async for instance, fresh in steps:
                journal = [*present_run([*journal, *fresh])]
                live.update(Group(*await picture(app, instance, journal)), refresh=True)


async def _entries(app: App, id: str, as_json: bool) -> None:
    before: datetime | None = None
    async with aclosing(follow(app, app.get(id))) as steps:
        async for _, fresh in steps:
            for record in fresh:
                if as_json:
                    screen.emit(archive.line_of(record))
                else:
                    screen.say(line(record, before, 100))
                before = moment(record.at)


async def _watch_all(app: App, selection: Selection, limit: int) -> None:
    with Live(console=screen.console(), auto_refresh=False, vertical_overflow="crop") as live:
        async for _ in changes(app):
            counts = await app.counts()
            totals = "  ".join(f"{status} {count}" for status, count in sorted(counts.items()))
            found = [instance async for instance in selection.of(app, limit)]
            live.update(Group(Text(totals, "bold"), Text(), table(found)), refresh=True)


async def _changed_rows(app: App, selection: Selection, limit: int, as_json: bool) -> None:
    seen: dict[str, datetime] = {}
    async for _ in changes(app):
        found = [instance async for instance in selection.of(app, limit)]
        for instance in reversed(found):
            if seen.get(instance.id) != instance.updated_at:
                seen[instance.id] = instance.updated_at
                if as_json:
                    screen.emit(instance)
                else:
                    screen.say(f"{instance.id}  {instance.process}  {instance.status}  {instance.waiting_for or ''}")
