"""`dalsegno nodes`."""

from __future__ import annotations

from dalsegno.cli import screen
from dalsegno.cli.place import HERE, Here, Place, place_of
from dalsegno.cli.top import nodes_table


async def nodes(store: Here = None, /, *, place: Place = HERE) -> None:
    """List the nodes with their figures: those that live, lost their lease, or ended within a minute."""
    async with place_of(store, place).beside() as app:
        view = await app.view()
    if place.json:
        for node in view.nodes:
            screen.emit(node)
    elif view.nodes:
        screen.console().print(nodes_table(view))
    else:
        screen.note("No node runs on this store.")
