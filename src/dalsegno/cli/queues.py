"""`dalsegno queues`."""

from __future__ import annotations

from datetime import UTC, datetime

from dalsegno.cli import screen
from dalsegno.cli.place import HERE, Here, Place, place_of


async def queues(store: Here = None, /, *, place: Place = HERE) -> None:
    """List the queues that have steps in them: how many are ready, since when, and how many run."""
    async with place_of(store, place).beside() as app:
        found = await app.queues()
    if place.json:
        for depth in found:
            screen.emit(depth)
    elif found:
        table = screen.table("QUEUE", "READY", "RUNNING", "OLDEST SINCE")
        for depth in found:
            table.add_row(depth.name, f"{depth.ready:,}", f"{depth.running:,}", _clock(depth.oldest_at))
        screen.console().print(table)
    else:
        screen.note("No step stands in a queue.")


def _clock(at: int | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
