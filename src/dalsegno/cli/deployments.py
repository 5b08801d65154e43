"""`dalsegno deployments`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from dalsegno.cli import screen
from dalsegno.cli.place import HERE, Here, Place, place_of
from dalsegno.observe.deployments import Version


async def deployments(store: Here = None, /, *, place: Place = HERE) -> None:
    """Show each version of each process: what is under way, which nodes have its code, and whether it can go."""
    async with place_of(store, place).beside() as app:
        found = await app.deployments()
    if place.json:
        for version in found:
            screen.emit(version)
    elif found:
        screen.console().print(_table(found))
    else:
        screen.note("No instance was started here, and no node runs.")


def _table(found: Sequence[Version]) -> Table:
    table = screen.table(
        "PROCESS", "VERSION", "RUNNING", "WAITING", "PAUSED", "PARKED", "ENDED", "NODES WITH ITS CODE", "VERDICT"
    )
    for version in found:
        counts = (version.running, version.waiting, version.paused, version.parked, version.ended)
        nodes = ", ".join(version.nodes[:3]) + (f" and {len(version.nodes) - 3} more" if len(version.nodes) > 3 else "")
        table.add_row(version.process, str(version.version), *map(str, counts), nodes or "none", version.verdict)
    return table
