"""`dalsegno worker`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from dalsegno.app import App
from dalsegno.cli import screen
from dalsegno.cli.loops import on_loop, stop_signal
from dalsegno.cli.place import HERE, Place
from dalsegno.cli.target import app_of


def worker(
    target: Annotated[str, Parameter(help="The app whose steps it runs: module:app or file.py:app.")],
    /,
    *,
    queue: Annotated[tuple[str, ...], Parameter(help="A queue to serve; give it again for a further one.")],
    concurrency: Annotated[int, Parameter(help="How many steps run at once.")] = 10,
    name: Annotated[str | None, Parameter(help="What journals call it; machine and process if not given.")] = None,
    place: Place = HERE,
) -> int:
    """Run steps of queues, beside nodes and other workers, until it is stopped (SIGTERM, Ctrl-C).

    It claims nothing more then and lets running steps end, for half a minute at most.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    on_loop(_serve(app_of(target, place), queue, concurrency, name, place.json))
    return 0


async def _serve(app: App, queues: Sequence[str], concurrency: int, name: str | None, as_json: bool) -> None:
    asked = stop_signal()
    async with app.worker(*queues, concurrency=concurrency, name=name) as served:
        _tell("running", app, queues, as_json)
        stopped = asyncio.ensure_future(served.stopped())
        told = asyncio.ensure_future(asked.wait())
        done, _ = await asyncio.wait([stopped, told], return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        stopped.cancel()
        _tell("stopping", app, queues, as_json)
        if stopped in done:
            stopped.result()
    _tell("stopped", app, queues, as_json)


def _tell(event: str, app: App, queues: Sequence[str], as_json: bool) -> None:
    if as_json:
        screen.emit({"event": event, "store": app.url, "queues": queues})
    else:
        hint = " (Ctrl-C stops it)" if event == "running" else ""
        screen.say(f"worker of {', '.join(queues)} {event} on {app.url}{hint}")
