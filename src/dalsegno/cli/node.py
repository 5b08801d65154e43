"""`dalsegno node`."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Annotated

from cyclopts import Parameter

from dalsegno.app import App
from dalsegno.cli import screen
from dalsegno.cli.loops import on_loop
from dalsegno.cli.place import HERE, Place
from dalsegno.cli.target import app_of


def node(
    target: Annotated[
        str, Parameter(help="The app: module:app or file.py:app; of a module without one, its processes.")
    ],
    /,
    *,
    shadow_replay: Annotated[
        bool, Parameter(help="Replay every finished instance and compare: for development and tests.")
    ] = False,
    place: Place = HERE,
) -> int:
    """Run a node: it goes on with what was under way and runs new instances until it is stopped (SIGTERM, Ctrl-C)."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    app = app_of(target, place)
    on_loop(_serve(app.but(shadow_replay=True) if shadow_replay else app, place.json))
    return 0


async def _serve(app: App, as_json: bool) -> None:
    asked = _stop_signal()
    async with app:
        _tell("running", app, as_json)
        stopped = asyncio.ensure_future(app.stopped())
        told = asyncio.ensure_future(asked.wait())
        await asyncio.wait([stopped, told], return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        stopped.cancel()
        _tell("stopping", app, as_json)
    _tell("stopped", app, as_json)


def _stop_signal() -> asyncio.Event:
    """Set by the first signal; the second one ends the program at once."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def stop() -> None:
        asked.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    return asked


def _tell(event: str, app: App, as_json: bool) -> None:
    if as_json:
        screen.emit({"event": event, "store": app.url})
    else:
        screen.say(f"node {event} on {app.url}" + (" (Ctrl-C stops it)" if event == "running" else ""))
