"""`dalsegno replay`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from dalsegno import archive
from dalsegno.app import App
from dalsegno.cli import screen
from dalsegno.cli.place import HERE, Place
from dalsegno.cli.selection import ALL, Selection
from dalsegno.cli.target import app_of
from dalsegno.engine.shadow import replayed
from dalsegno.errors import DalsegnoError, JournalMismatch
from dalsegno.instance import Instance


async def replay(
    target: Annotated[str, Parameter(help="The code: module:app, file.py, module.")],
    ids: Annotated[Sequence[str], Parameter(help="The instances; all that are chosen if none is given.")] = (),
    /,
    *,
    journals: Annotated[list[Path] | None, Parameter(help="Replay exported journals instead of a store's.")] = None,
    selection: Selection = ALL,
    limit: Annotated[int | None, Parameter(help="At most so many.")] = None,
    place: Place = HERE,
) -> int:
    """Replay stored journals through the present code, for CI: 1 where one doesn't fit, with expected and found."""
    app = app_of(target, place)
    told = _Told(place.json)
    if journals:
        for path in journals:
            await _exported(app, path, told)
    else:
        async with app.client():
            async for instance in _chosen(app, ids, selection, limit):
                await told.of(instance, app.replay(instance.id))
    return told.summed_up()


async def _chosen(app: App, ids: Sequence[str], selection: Selection, limit: int | None) -> AsyncIterator[Instance]:
    for id in ids:
        yield await app.get(id).describe()
    if not ids:
        async for instance in selection.of(app, limit):
            yield instance


async def _exported(app: App, path: Path, told: _Told) -> None:
    with path.open("rb") as lines:
        for archived in archive.read(lines, str(path)):
            await told.of(archived.header, _replay_archived(app, archived))


async def _replay_archived(app: App, archived: archive.Archived) -> None:
    spec = app.process(archived.header.process, archived.header.version)
    await replayed(archive.loaded_of(archived), spec, app.limits)


class _Told:
    """How the replays went."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._fit = 0
        self._unfit = 0

    async def of(self, instance: Instance, work: Any) -> None:
        """Replay one and tell."""
        try:
            await work
        except DalsegnoError as error:
            self._unfit += 1
            self._tell_error(instance, error)
        else:
            self._fit += 1
            if self._as_json:
                screen.emit({"id": instance.id, "process": instance.process, "ok": True})

    def _tell_error(self, instance: Instance, error: DalsegnoError) -> None:
        expected, found = (error.expected, error.found) if isinstance(error, JournalMismatch) else (None, None)
        if self._as_json:
            data = {"id": instance.id, "process": instance.process, "ok": False, "error": screen.error_data(error)}
            screen.emit({**data, "expected": expected, "found": found})
        elif expected is not None:
            screen.say(f"{instance.id} ({instance.process})\n  expected {expected}\n  found    {found}")
        else:
            screen.say(f"{instance.id} ({instance.process})\n  {error}")

    def summed_up(self) -> int:
        """The last word, and the exit code."""
        if not self._as_json:
            screen.note(f"journals that fit the code: {self._fit}; that don't: {self._unfit}")
        return 1 if self._unfit else 0
