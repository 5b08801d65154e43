"""`dalsegno db`: care of the store's file."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from cyclopts import App, Parameter

from dalsegno.cli import screen
from dalsegno.cli.place import HERE, Place, store_url
from dalsegno.errors import UsageError
from dalsegno.stores.sqlite import upkeep

db = App(name="db", help="Check, migrate or back up a store's file.", default_parameter=Parameter(negative=""))

Store: TypeAlias = Annotated[str | None, Parameter(help="The store, by file or URL; that of the options if not given.")]


@db.command
def check(store: Store = None, /, *, place: Place = HERE) -> int:
    """Look whether a store is sound: the file, the schema, every journal; 1 where it isn't."""
    path = _path(store, place)
    found = upkeep.check(path)
    if place.json:
        screen.emit({"file": path, "ok": not found, "findings": found})
    else:
        for line in found:
            screen.say(line)
        screen.note(f"{path}: {len(found)} findings" if found else f"{path} is sound")
    return 1 if found else 0


@db.command
def migrate(store: Store = None, /, *, place: Place = HERE) -> None:
    """Bring a store's schema up to this version; no node may run on it."""
    path = _path(store, place)
    applied = upkeep.migrate(path)
    if place.json:
        screen.emit({"file": path, "applied": applied})
    else:
        screen.say(f"{path}: applied {', '.join(applied)}" if applied else f"{path} is up to date")


@db.command
def backup(
    to: Annotated[str, Parameter(help="The file to write.")], store: Store = None, /, *, place: Place = HERE
) -> None:
    """Copy a store as it stands at one moment, also beside a running node."""
    path = _path(store, place)
    size = upkeep.backup(path, to)
    if place.json:
        screen.emit({"file": path, "backup": to, "bytes": size})
    else:
        screen.say(f"{path} is copied to {to}, {size / 1e6:.1f} MB")


def _path(store: str | None, place: Place) -> str:
    url = place.open().url if store is None else store_url(store)
    if not url.startswith("sqlite:///"):
        raise UsageError(f"{url} is no SQLite file: `dalsegno db` takes care of those")
    return url.removeprefix("sqlite:///").partition("?")[0]
