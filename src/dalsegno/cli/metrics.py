"""`dalsegno metrics`."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from dalsegno.cli import screen
from dalsegno.cli.loops import stop_signal
from dalsegno.cli.place import HERE, Here, Place, place_of
from dalsegno.observe.metrics import served, text_of

PORT = 9464


async def metrics(
    store: Here = None,
    /,
    *,
    port: Annotated[int, Parameter(help="The port to serve them on.")] = PORT,
    host: Annotated[str, Parameter(help="The address to serve them on; only this machine can ask if not given.")] = (
        "127.0.0.1"
    ),
    once: Annotated[bool, Parameter(help="Print them once, instead of serving them.")] = False,
    place: Place = HERE,
) -> None:
    """Serve the figures of a store and its nodes to Prometheus until it is stopped (SIGTERM, Ctrl-C)."""
    async with place_of(store, place).beside() as app:
        if once:
            sys.stdout.write(text_of(await app.view()))
            return
        asked = stop_signal()
        async with served(app.view, host, port) as url:
            if place.json:
                screen.emit({"event": "serving", "url": url})
            else:
                screen.say(f"metrics of {app.url} on {url} (Ctrl-C stops it)")
            await asked.wait()
