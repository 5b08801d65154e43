"""`dalsegno start`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import Parameter

from dalsegno.app import App
from dalsegno.authoring.process import Process
from dalsegno.cli import screen
from dalsegno.cli.place import HERE, By, Place, who
from dalsegno.cli.target import load, process_of
from dalsegno.cli.values import arguments, bound
from dalsegno.errors import UsageError
from dalsegno.kernel.definition import ProcessSpec


async def start(
    process: Annotated[str, Parameter(help="The process's name, or file.py:process, module:process.")],
    /,
    *,
    input: Annotated[
        list[str] | None, Parameter(help="An argument as JSON, name=JSON or @file; several times for several.")
    ] = None,
    id: Annotated[str | None, Parameter(help="The instance's id: a second start with it changes nothing.")] = None,
    if_exists: Annotated[
        Literal["same", "return", "fail"],
        Parameter(help="Where the id is taken: only the same start, take it, or fail."),
    ] = "same",
    version: Annotated[
        int | None, Parameter(help="The process's version, where its code isn't given; that of its last instance.")
    ] = None,
    by: By = None,
    place: Place = HERE,
) -> None:
    """Start an instance and print its id; the node that runs on the store takes it up at once."""
    async with place.beside() as app:
        found = await _process(app, process, version, place)
        args = bound(found.function, *arguments(input or []))
        run = await app.start(found, *args, id=id, if_exists=if_exists, by=who(by))
        living = await app.nodes(living=True)
        if place.json:
            screen.emit({"id": run.id, "process": process.rpartition(":")[2], "node": bool(living)})
        else:
            screen.say(run.id)
            if not living:
                screen.note("It is written down. No node runs on this store: it begins once one does.")


async def _process(app: App, name: str, version: int | None, place: Place) -> Process[..., Any]:
    if ":" in name or name.endswith(".py"):
        module, found = load(name)
        if found is not None and not isinstance(found, Process):
            raise UsageError(f"{name} is {found!r}, which isn't a @process")
        return found if found is not None else process_of(module, None)
    if place.app is not None:
        return Process(app.process(name, version))
    known = [instance.version async for instance in app.list(process=name, limit=1)]
    if not known:
        screen.note(f"No {name} was ever started here: if the node has no such process, it waits for one that has.")
    return _stand_in(name, version or next(iter(known), 1))


def _stand_in(name: str, version: int) -> Process[..., Any]:
    """A process whose code only the node has: that checks the input."""

    async def elsewhere(*args: Any) -> Any:
        raise NotImplementedError

    elsewhere.__name__ = name

    return Process(ProcessSpec(name, version, elsewhere))
