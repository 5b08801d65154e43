"""`dalsegno run`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from typing import Annotated, Any

from cyclopts import Parameter

from dalsegno.app import App
from dalsegno.authoring.process import Process
from dalsegno.cli import screen
from dalsegno.cli.loops import on_loop
from dalsegno.cli.outcome import print_outcome
from dalsegno.cli.place import HERE, By, Place, who
from dalsegno.cli.target import app_and_process
from dalsegno.cli.values import arguments, bound
from dalsegno.instance import Run

_LOOK_SECONDS = 0.5


def run(
    target: Annotated[str, Parameter(help="file.py:process, module:process, or an app and the process's name.")],
    process: Annotated[str | None, Parameter(help="The process, where the target is an app.")] = None,
    /,
    *,
    input: Annotated[
        list[str] | None, Parameter(help="An argument as JSON, name=JSON or @file; several times for several.")
    ] = None,
    id: Annotated[str | None, Parameter(help="The instance's id: run again with it, it goes on.")] = None,
    by: By = None,
    place: Place = HERE,
) -> int:
    """Run a process to its end and print its result; the journal stays in the store."""
    app, found = app_and_process(target, process, place)
    args = bound(found.function, *arguments(input or []))
    return on_loop(_run(app, found, args, id, who(by), place.json))


async def _run(
    app: App,
    process: Process[..., Any],
    args: list[Any],
    id: str | None,
    by: str | None,
    as_json: bool,
) -> int:
    # Being terminated is as being interrupted: the store is given back, the instance goes on another time.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, signal.raise_signal, signal.SIGINT)
    async with app:
        started: Run[Any] = await app.start(process, *args, id=id, by=by)
        try:
            async with _telling_waits(started):
                return await print_outcome(started, None, as_json)
        except asyncio.CancelledError:
            screen.note(f"{started.id} stands in {app.url}; go on: dalsegno run … --id {started.id}, or dalsegno node")
            raise


@contextlib.asynccontextmanager
async def _telling_waits(started: Run[Any]) -> AsyncIterator[None]:
    """Say what the instance waits for, so that nobody takes it for stuck."""
    telling = asyncio.ensure_future(_tell_waits(started))
    try:
        yield
    finally:
        telling.cancel()


async def _tell_waits(started: Run[Any]) -> None:
    told: str | None = None
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        instance = await started.describe()
        why = instance.waiting_for if instance.status == "waiting" else instance.error
        if instance.ended_at is None and why is not None and why != told:
            told = why
            screen.note(f"{started.id} is {instance.status}: {why}")
