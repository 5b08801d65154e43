"""Care of a database: is it sound, is its schema ours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dalsegno.errors import MigrationError
from dalsegno.stores.postgres import migrate as migrations
from dalsegno.stores.postgres.address import parse
from dalsegno.stores.postgres.connection import Connection, query
from dalsegno.stores.postgres.session import Session

_INVARIANTS = (
    "check_gaps",
    "check_orphans",
    "check_beginnings",
    "check_endings",
    "check_entries",
    "check_waits",
    "check_nodes",
    "check_work",
)
_MOST = 20
_PATIENCE_SECONDS = 10.0


def check(url: str) -> list[str]:
    """What is wrong with a store: nothing, where the list is empty. It may be in use meanwhile."""
    with _opened(url) as session:
        try:
            missing = migrations.missing(session)
        except MigrationError as error:
            return [str(error)]
        if missing:
            names = ", ".join(f"{m.number:04d}_{m.name}" for m in missing)
            return [f"the schema is older than this version, it lacks {names}: run 'dalsegno db migrate'"]
        # All of them look at one moment, whatever nodes write meanwhile.
        return session.snapshot(lambda connection: _broken(connection, session.schema))


def _broken(connection: Connection, schema: str) -> list[str]:
    found: list[str] = []
    for name in _INVARIANTS:
        rows: list[Any] = connection.execute(f"{query(name, schema)} LIMIT {_MOST + 1}").fetchall()
        found += [str(row[0]) for row in rows[:_MOST]]
        if len(rows) > _MOST:
            found.append(f"… and more of this sort ({name})")
    return found


def migrate(url: str) -> list[str]:
    """Bring a store's schema up to this version, also beside nodes at work; the names of what was applied."""
    with _opened(url) as session:
        return [f"{m.number:04d}_{m.name}" for m in migrations.migrate(session)]


@contextmanager
def _opened(url: str) -> Iterator[Session]:
    session = Session(parse(url), "upkeep", lambda: time.monotonic() + _PATIENCE_SECONDS)
    try:
        yield session
    finally:
        session.drop()
