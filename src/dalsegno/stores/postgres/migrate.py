"""Numbered migrations with checksums, applied while nodes of the version before are at work."""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from typing import NamedTuple

import psycopg

from dalsegno.errors import MigrationError
from dalsegno.kernel.points import reach
from dalsegno.stores.postgres.address import quoted
from dalsegno.stores.postgres.connection import Connection, within
from dalsegno.stores.postgres.session import Session

_NAME = re.compile(r"(\d{4})_(\w+)\.sql")
_LOCK = 0x0DA1_5E90
#: a migration that can't have its locks lets the nodes go on, and tries again
_LOCK_MILLISECONDS = 3000


class Migration(NamedTuple):
    """One step of the schema's history."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """A digest of the text: an applied migration never changes."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def known() -> list[Migration]:
    """The migrations of this version, in order."""
    folder = resources.files(f"{__package__}.migrations")
    found = [(m, f) for f in folder.iterdir() if (m := _NAME.fullmatch(f.name))]
    return sorted(Migration(int(m[1]), m[2], f.read_text()) for m, f in found)


def applied(connection: Connection, schema: str) -> dict[int, tuple[str, str]]:
    """Number to (name, checksum) of what the schema has."""
    table = f"{quoted(schema)}.migrations"
    row = connection.execute("SELECT to_regclass($1) IS NOT NULL", (table,)).fetchone()
    if row is None or not row[0]:
        return {}
    rows = connection.execute(f"SELECT number, name, checksum FROM {table} ORDER BY number").fetchall()
    return {number: (name, checksum) for number, name, checksum in rows}


def check(connection: Connection, schema: str, place: object) -> list[Migration]:
    """The migrations still to be applied. Raises `MigrationError` where the schema isn't ours to use.

    One migration more than this version knows is all right: each leaves what the version before it needs.
    """
    done = applied(connection, schema)
    ours = {m.number: m for m in known()}
    unknown = [f"{number:04d}_{done[number][0]}" for number in done if number not in ours]
    if len(unknown) > 1:
        raise MigrationError(
            f"{place}: the schema has migrations {', '.join(unknown)}, which this version of Dalsegno doesn't know; "
            "it can work beside one newer migration, no more. Use the newer version that wrote them."
        )
    for number, (name, checksum) in done.items():
        if number in ours and ours[number].checksum != checksum:
            raise MigrationError(
                f"{place}: migration {number:04d}_{name} was applied with another text. An applied migration "
                "never changes: install the version of Dalsegno that wrote the database."
            )
    return [m for m in ours.values() if m.number not in done]


def missing(session: Session) -> list[Migration]:
    """The migrations still to be applied. Raises `MigrationError`."""
    return session.persistently(lambda connection: check(connection, session.schema, session.address))


def migrate(session: Session) -> list[Migration]:
    """Apply what is missing, each migration in one transaction; returns what was applied."""
    lacking = missing(session)
    if lacking and lacking[0].number == 1:
        session.transact_again(lambda connection: _found(connection, session.schema))
    done = []
    for migration in lacking:
        reach("migrate.before")
        if session.transact_again(lambda connection, m=migration: _apply(connection, session.schema, m)):  # type: ignore[misc]
            done.append(migration)
        reach("migrate.after")
    return done


def _lock(connection: Connection) -> None:
    # Waiting for another migration isn't waiting for a table: that has no limit but the caller's.
    connection.execute("SELECT pg_advisory_xact_lock($1)", (_LOCK,))
    connection.execute(f"SET LOCAL lock_timeout = {_LOCK_MILLISECONDS}")


def _found(connection: Connection, schema: str) -> None:
    _lock(connection)
    row = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = $1", (schema,)).fetchone()
    if row is None:
        connection.execute(f"CREATE SCHEMA {quoted(schema)}")
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {quoted(schema)}.migrations (number integer PRIMARY KEY, name text NOT NULL, "
        "checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
    )


def _apply(connection: Connection, schema: str, migration: Migration) -> bool:
    _lock(connection)
    if migration.number in applied(connection, schema):
        return False
    # One message of many statements: only the simple protocol takes that.
    result = connection.pgconn.exec_(within(migration.sql, schema).encode())
    if result.status not in (psycopg.pq.ExecStatus.COMMAND_OK, psycopg.pq.ExecStatus.TUPLES_OK):
        raise psycopg.errors.error_from_result(result, encoding="utf-8")
    connection.execute(
        f"INSERT INTO {quoted(schema)}.migrations (number, name, checksum) VALUES ($1, $2, $3)",
        (migration.number, migration.name, migration.checksum),
    )
    return True
