"""`dalsegno node`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Annotated

from cyclopts import Parameter

from dalsegno.app import App
from dalsegno.cli import screen
from dalsegno.cli.loops import on_loop, stop_signal
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
    metrics_port: Annotated[int | None, Parameter(help="Serve the node's figures to Prometheus on this port.")] = None,
    metrics_host: Annotated[
        str, Parameter(help="The address to serve them on; only this machine can ask if not given.")
    ] = "127.0.0.1",
    place: Place = HERE,
) -> int:
    """Run a node: it goes on with what was under way and runs new instances until it is stopped (SIGTERM, Ctrl-C)."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    app = app_of(target, place)
    app = app.but(shadow_replay=True) if shadow_replay else app
    on_loop(_serve(app, place.json, metrics_host, metrics_port))
    return 0


async def _serve(app: App, as_json: bool, metrics_host: str, metrics_port: int | None) -> None:
    asked = stop_signal()
    async with app, _metrics(app, metrics_host, metrics_port) as url:
        _tell("running", app, as_json, url)
        stopped = asyncio.ensure_future(app.stopped())
        told = asyncio.ensure_future(asked.wait())
        await asyncio.wait([stopped, told], return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        stopped.cancel()
        _tell("stopping", app, as_json)
    _tell("stopped", app, as_json)


def _metrics(app: App, host: str, port: int | None) -> contextlib.AbstractAsyncContextManager[str | None]:
    if port is None:
        return contextlib.nullcontext()
    from dalsegno.observe.metrics import served

    return served(app.view, host, port)


def _tell(event: str, app: App, as_json: bool, metrics: str | None = None) -> None:
    if as_json:
        screen.emit({"event": event, "store": app.url} | ({} if metrics is None else {"metrics": metrics}))
        return
    shown = "" if metrics is None else f", metrics on {metrics}"
    screen.say(f"node {event} on {app.url}{shown}" + (" (Ctrl-C stops it)" if event == "running" else ""))
