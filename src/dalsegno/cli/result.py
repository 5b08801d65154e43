"""`dalsegno result`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from dalsegno.cli import screen
from dalsegno.cli.outcome import print_outcome
from dalsegno.cli.place import HERE, Place
from dalsegno.cli.values import age
from dalsegno.kernel.ports import FINAL


async def result(
    id: Annotated[str, Parameter(help="The instance.")],
    /,
    *,
    limit: Annotated[str | None, Parameter(name="--timeout", help="Wait no longer than this: 30s, 5m.")] = None,
    place: Place = HERE,
) -> int:
    """Wait for an instance's end and print its result; 1 where it didn't complete."""
    longest = age(limit)
    async with place.beside() as app:
        run = app.get(id)
        if await run.status() not in FINAL and not await app.nodes(living=True):
            screen.note("No node runs on this store: the instance goes on once one does.")
        return await print_outcome(run, None if longest is None else longest.total_seconds(), place.json)
