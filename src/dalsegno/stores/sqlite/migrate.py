"""Numbered migrations with checksums."""

from __future__ import annotations

import hashlib
import re
import sqlite3
import time
from importlib import resources
from typing import NamedTuple

from dalsegno.errors import MigrationError
from dalsegno.kernel.points import reach

_NAME = re.compile(r"(\d{4})_(\w+)\.sql")


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


def applied(connection: sqlite3.Connection) -> dict[int, tuple[str, str]]:
    """Number to (name, checksum) of what the database has."""
    try:
        rows = connection.execute("SELECT number, name, checksum FROM migrations ORDER BY number").fetchall()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return {}
        raise
    return {number: (name, checksum) for number, name, checksum in rows}


def check(connection: sqlite3.Connection, path: str) -> list[Migration]:
    """The migrations still to be applied. Raises `MigrationError` where the database isn't ours to use."""
    done = applied(connection)
    ours = {m.number: m for m in known()}
    for number, (name, checksum) in done.items():
        if number not in ours:
            raise MigrationError(
                f"{path}: the schema has migration {number:04d}_{name}, which this version of Dalsegno doesn't know. "
                "Use the newer version that wrote it."
            )
        if ours[number].checksum != checksum:
            raise MigrationError(
                f"{path}: migration {number:04d}_{name} was applied with another text. An applied migration "
                "never changes: install the version of Dalsegno that wrote the database."
            )
    return [m for m in ours.values() if m.number not in done]


def migrate(connection: sqlite3.Connection, path: str) -> list[Migration]:
    """Apply what is missing, each migration in one transaction; returns what was applied."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, name TEXT NOT NULL, "
        "checksum TEXT NOT NULL, applied_at INTEGER NOT NULL)"
    )
    missing = check(connection, path)
    for migration in missing:
        reach("migrate.before")
        connection.execute("BEGIN IMMEDIATE")
        try:
            if migration.number not in applied(connection):
                for statement in _statements(migration.sql):
                    connection.execute(statement)
                connection.execute(
                    "INSERT INTO migrations VALUES (?, ?, ?, ?)",
                    (migration.number, migration.name, migration.checksum, time.time_ns() // 1000),
                )
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        reach("migrate.after")
    return missing


def _statements(sql: str) -> list[str]:
    statements, part = [], ""
    for line in sql.splitlines(keepends=True):
        part += line
        if sqlite3.complete_statement(part):
            statements.append(part)
            part = ""
    return statements
