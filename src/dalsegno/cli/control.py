"""One operation on several instances, each by itself: what one refuses leaves the others alone."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeAlias

from cyclopts import Parameter

from dalsegno.cli import screen
from dalsegno.cli.place import Place
from dalsegno.errors import DalsegnoError, UsageError
from dalsegno.instance import Run

Ids: TypeAlias = Annotated[
    list[str],
    Parameter(help="The instances; - reads ids from standard input, one a line.", allow_leading_hyphen=True),
]


async def each(
    ids: Sequence[str], place: Place, verb: str, done: str, act: Callable[[Run[Any]], Awaitable[Any]]
) -> int:
    """Act on each instance; 1 where one refused."""
    refused = 0
    async with place.beside() as app:
        for id in expanded(ids):
            try:
                value = await act(app.get(id))
            except DalsegnoError as error:
                refused = 1
                _refused(id, verb, error, place.json)
            else:
                _done(id, verb, done, value, place.json)
    return refused


def expanded(ids: Sequence[str]) -> list[str]:
    """The ids, those of standard input among them. Raises `UsageError` for what was meant to be an option."""
    found: list[str] = []
    for id in ids:
        if id.startswith("-") and id != "-":
            raise UsageError(f"there is no option {id}")
        found += [line.strip() for line in sys.stdin if line.strip()] if id == "-" else [id]
    return found


def _refused(id: str, verb: str, error: DalsegnoError, as_json: bool) -> None:
    if as_json:
        screen.emit({"id": id, "verb": verb, "ok": False, "error": screen.error_data(error)})
    else:
        screen.complain(error, as_json=False)


def _done(id: str, verb: str, done: str, value: Any, as_json: bool) -> None:
    if as_json:
        screen.emit({"id": id, "verb": verb, "ok": True, **({} if value is None else {"value": value})})
    else:
        screen.say(f"{id} {done}" if value is None else f"{id} {done} {value}")
