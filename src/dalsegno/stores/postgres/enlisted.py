"""Starts, events and messages within a transaction of the user's own on this database."""

from __future__ import annotations

from typing import Any

import psycopg

from dalsegno.errors import UsageError
from dalsegno.kernel.ports import Batch, Committed, InstanceRow
from dalsegno.stores.postgres import read
from dalsegno.stores.postgres.address import Address
from dalsegno.stores.postgres.commit import write_handed_in
from dalsegno.stores.postgres.connection import Connection, within
from dalsegno.stores.postgres.session import Session

_IDENTITY = "SELECT id::text FROM dalsegno.about"
_ACCEPTED = "give a psycopg.Connection, or a SQLAlchemy Session or Connection over psycopg"


class _Within:
    """The user's connection with cursors of our own: theirs may make other rows of what they read."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def cursor(self) -> psycopg.Cursor[Any]:
        return psycopg.RawCursor(self._connection, row_factory=psycopg.rows.tuple_row)

    def pipeline(self) -> Any:
        return self._connection.pipeline()

    def execute(self, text: str, values: Any = ()) -> psycopg.Cursor[Any]:
        return self.cursor().execute(text, values)


def identity(session: Session) -> str:
    """What tells this store from every other."""
    [(found,)] = session.select(within(_IDENTITY, session.schema))
    return str(found)


def enlist(tx: Any, batch: Batch, address: Address, identity: str) -> tuple[Committed, InstanceRow | None]:
    """Write a batch within the user's transaction; also the instance that has the id of its start, if that is taken."""
    connection = _connection(tx)
    if connection.autocommit and connection.pgconn.transaction_status != psycopg.pq.TransactionStatus.INTRANS:
        raise UsageError("tx is in autocommit mode and in no transaction: begin one, `with tx.transaction():`")
    guest: Any = _Within(connection)
    row = guest.execute("SELECT to_regclass($1)::text", (within("dalsegno.about", address.schema),)).fetchone()
    found = None if row[0] is None else guest.execute(within(_IDENTITY, address.schema)).fetchone()[0]
    if found != identity:
        raise UsageError(f"tx is a connection to database {connection.info.dbname!r}, the store is {address}")
    committed = write_handed_in(guest, address.schema, batch)
    taken = None
    if batch.starts and committed.start_keys[0] is None:
        taken = read.find_within(guest, address.schema, batch.starts[0].namespace, batch.starts[0].id)
    return committed, taken


def _connection(tx: Any) -> Connection:
    found = tx
    if not isinstance(found, psycopg.Connection) and callable(getattr(found, "connection", None)):
        found = found.connection()
    proxy = getattr(found, "connection", None)
    found = getattr(proxy, "driver_connection", found)
    if isinstance(found, psycopg.Connection):
        return found
    if isinstance(found, psycopg.AsyncConnection):
        raise UsageError(f"tx={tx!r} is asynchronous, which isn't supported yet: {_ACCEPTED}")
    raise UsageError(f"tx={tx!r}: {_ACCEPTED} on the store's database")
