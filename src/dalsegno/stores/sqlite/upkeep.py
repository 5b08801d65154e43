"""Care of the file: is it sound, is its schema ours, a copy of it beside a running engine."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from dalsegno.errors import MigrationError, StoreError, StoreOwned
from dalsegno.stores.sqlite import migrate as migrations
from dalsegno.stores.sqlite.commit import now
from dalsegno.stores.sqlite.connection import Connection, connect, query, translated
from dalsegno.stores.sqlite.ownership import OwnerLock

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


def check(path: str) -> list[str]:
    """What is wrong with a file: nothing, where the list is empty. It may be in use meanwhile."""
    with _opened(path) as connection:
        found = [f"SQLite: {row[0]}" for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
        try:
            missing = migrations.check(connection, path)
        except MigrationError as error:
            return [*found, str(error)]
        if missing:
            names = ", ".join(f"{m.number:04d}_{m.name}" for m in missing)
            return [*found, f"the schema is older than this version, it lacks {names}: run 'dalsegno db migrate'"]
        return found + _broken_invariants(connection)


def _broken_invariants(connection: Connection) -> list[str]:
    found: list[str] = []
    # All of them look at one moment, whatever an engine writes meanwhile.
    connection.execute("BEGIN")
    try:
        for name in _INVARIANTS:
            rows = connection.execute(query(name)).fetchmany(_MOST + 1)
            found += [str(row[0]) for row in rows[:_MOST]]
            if len(rows) > _MOST:
                found.append(f"… and more of this sort ({name})")
    finally:
        connection.execute("COMMIT")
    return found


def migrate(path: str) -> list[str]:
    """Bring a file's schema up to this version; the names of what was applied. Raises `StoreOwned`."""
    with _opened(path) as connection:
        if not migrations.check(connection, path):
            return []
        lock = OwnerLock(path)
        try:
            if not lock.take():
                raise StoreOwned(f"{path} is in use by a node: stop it, then migrate")
            return [f"{m.number:04d}_{m.name}" for m in migrations.migrate(connection, path)]
        finally:
            lock.release()


def backup(path: str, target: str) -> int:
    """Copy a file as it stands at one moment, also while an engine writes; returns the copy's size in bytes."""
    if os.path.exists(target):
        raise StoreError(f"{target} exists already: a backup replaces nothing, name another file")
    partial = f"{target}.partial"
    Path(partial).unlink(missing_ok=True)
    try:
        with _opened(path) as source, translated(target), closing(sqlite3.connect(partial)) as copy:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
            # The node that holds the original holds no copy: who opens this one need not wait for its lease to end.
            copy.execute(query("end_nodes"), (now(),))
            copy.commit()
        os.replace(partial, target)
    finally:
        Path(partial).unlink(missing_ok=True)
    return os.path.getsize(target)


@contextmanager
def _opened(path: str) -> Iterator[Connection]:
    if not os.path.exists(path):
        raise StoreError(f"{path} doesn't exist: name another file")
    with translated(path), closing(connect(path)) as connection:
        yield connection
