"""`dalsegno import`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from dalsegno import archive
from dalsegno.cli import screen
from dalsegno.cli.place import HERE, Place
from dalsegno.errors import Refused, UsageError


async def import_(
    file: Annotated[
        Path, Parameter(help="A file that `dalsegno export` wrote; - reads standard input.", allow_leading_hyphen=True)
    ],
    /,
    *,
    place: Place = HERE,
) -> int:
    """Take in exported instances: those that ended as they were, the others go on from where they stood."""
    if str(file).startswith("-") and str(file) != "-":
        raise UsageError(f"there is no option {file}")
    refused = 0
    async with place.beside() as app:
        for archived in archive.read(_lines(file), str(file)):
            try:
                run = await app.restore(archived)
            except Refused as error:
                refused = 1
                _tell(archived.header.id, error, place.json)
            else:
                _tell(run.id, None, place.json)
    return refused


def _lines(file: Path) -> Iterator[bytes]:
    if str(file) == "-":
        yield from sys.stdin.buffer
    else:
        with file.open("rb") as lines:
            yield from lines


def _tell(id: str, error: Refused | None, as_json: bool) -> None:
    if as_json:
        screen.emit({"id": id, "ok": error is None, **({} if error is None else {"error": screen.error_data(error)})})
    elif error is None:
        screen.say(f"{id} is taken in")
    else:
        screen.complain(error, as_json=False)
