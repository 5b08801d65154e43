"""Opening a SQLite file, and telling its errors apart."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from dalsegno.errors import StoreCorrupt, StoreError, StoreFull, StoreIO, StoreLocked

Durability = Literal["power", "process"]

_BUSY_SECONDS = 10.0
_FULL = {sqlite3.SQLITE_FULL}
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DISK = {sqlite3.SQLITE_IOERR}
_UNUSABLE = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}


class Connection(sqlite3.Connection):
    """A connection that a `@transaction` step may borrow: it can't end the transaction it is in."""

    def lend(self) -> None:
        """Refuse every statement that begins or ends a transaction until it is taken back."""
        self.set_authorizer(_deny_transactions)

    def take_back(self) -> None:
        """Allow everything again."""
        self.set_authorizer(None)


def _deny_transactions(action: int, operation: str | None, savepoint: str | None, *_: str | None) -> int:
    ends_ours = action == sqlite3.SQLITE_SAVEPOINT and savepoint == "dalsegno_guest"
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_TRANSACTION or ends_ours else sqlite3.SQLITE_OK


def connect(path: str, durability: Durability = "power", *, read_only: bool = False) -> Connection:
    """A connection in autocommit mode. `durability` "power" survives power loss, "process" only a crash."""
    with translated(path):
        uri = Path(path).absolute().as_uri() + ("?mode=ro" if read_only else "")
        connection = sqlite3.connect(
            uri,
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=512,
            timeout=_BUSY_SECONDS,
            factory=Connection,
        )
        if not read_only:
            [mode] = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                # SQLite keeps the old mode without a word when a sync fails on the way.
                connection.close()
                raise StoreIO(f"{path} can't keep a write-ahead log (journal_mode is {mode!r}): is its disk sound?")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'power' else 'NORMAL'}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        connection.execute("PRAGMA cache_size = -65536")
        connection.execute("PRAGMA temp_store = MEMORY")
    return connection


@contextmanager
def translated(path: str) -> Iterator[None]:
    """SQLite's errors as ours, with the remedy."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, path) from error


def translate(error: sqlite3.Error, path: str) -> StoreError:
    """The store error for a SQLite error."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    text = f"{path}: {error}"
    if code in _FULL:
        return StoreFull(f"{text}. Nothing was lost; free some space and start the node again.")
    if code in _CORRUPT:
        return StoreCorrupt(f"{text}. Restore a backup, or run 'dalsegno db check' to see what is left.")
    if code in _LOCKED:
        return StoreLocked(f"{text} for {_BUSY_SECONDS:.0f} s. Another program holds a write lock: end it.")
    if code in _DISK:
        return StoreIO(f"{text}. The node stops: after a failed write or sync only a restart knows what is stored.")
    if code in _UNUSABLE:
        return unusable(text, path)
    return StoreError(text)


def unusable(text: str, path: str) -> StoreIO:
    """The error for a place where no database can be."""
    return StoreIO(f"{text}. This user must be able to create and write files in {Path(path).parent}.")


@cache
def query(name: str) -> str:
    """The statement of a query file."""
    return resources.files(f"{__package__}.queries").joinpath(f"{name}.sql").read_text().strip()


class MultiRow:
    """A statement with one `VALUES` row, run for many rows at a time.

    A statement is one call into SQLite, during which other Python threads run; each call more would wait for the
    interpreter's lock again. So rows are filled up to the next size with rows of NULLs, which the statement skips.
    """

    _SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)

    def __init__(self, name: str) -> None:
        head, found, tail = query(name).partition("VALUES (")
        row, tail = tail.split(")", 1)
        self.width = row.count("?")
        self._texts = {n: f"{head}{found}{'),('.join([row] * n)}){tail}" for n in self._SIZES}

    def run(self, connection: sqlite3.Connection | sqlite3.Cursor, flat: list[Any]) -> int:
        """Run for the rows in a flat list of values; returns how many rows changed."""
        width = self.width
        most = self._SIZES[-1] * width
        if len(flat) > most:
            return sum(self.run(connection, flat[start : start + most]) for start in range(0, len(flat), most))
        rows = len(flat) // width
        size = next(n for n in self._SIZES if n >= rows)
        if size > rows:
            flat = flat + [None] * ((size - rows) * width)
        return connection.execute(self._texts[size], flat).rowcount
