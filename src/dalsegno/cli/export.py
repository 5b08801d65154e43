"""`dalsegno export`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, BinaryIO

from cyclopts import Parameter

from dalsegno import archive
from dalsegno.app import App
from dalsegno.cli import screen
from dalsegno.cli.place import HERE, Place
from dalsegno.cli.selection import ALL, Selection
from dalsegno.errors import UsageError
from dalsegno.instance import Instance


async def export(
    ids: Annotated[
        Sequence[str], Parameter(help="The instances, with their children; or choose them by options.")
    ] = (),
    /,
    *,
    to: Annotated[Path | None, Parameter(help="The file to write; standard output if not given.")] = None,
    selection: Selection = ALL,
    place: Place = HERE,
) -> None:
    """Write instances' journals as lines of JSON, to be read, kept, replayed or imported."""
    if not ids and selection == ALL:
        raise UsageError("nothing is chosen: name instances, or choose some with --status, --process, --where …")
    async with place.beside() as app:
        with nullcontext(sys.stdout.buffer) if to is None else to.open("wb") as out:
            count = await _write(app, ids, selection, out)
    if to is not None:
        screen.note(f"instances in {to}: {count}")


async def _write(app: App, ids: Sequence[str], selection: Selection, out: BinaryIO) -> int:
    count = 0
    async for instance in _chosen(app, ids, selection):
        count += 1
        for line in archive.lines(instance, await app.get(instance.id).history()):
            out.write(line + b"\n")
    out.flush()
    return count


async def _chosen(app: App, ids: Sequence[str], selection: Selection) -> AsyncIterator[Instance]:
    for id in ids:
        yield await app.get(id).describe()
        async for child in _descendants(app, id):
            yield child
    if not ids:
        async for instance in selection.of(app):
            yield instance


async def _descendants(app: App, id: str) -> AsyncIterator[Instance]:
    async for child in app.list(parent=id):
        yield child
        async for grandchild in _descendants(app, child.id):
            yield grandchild
