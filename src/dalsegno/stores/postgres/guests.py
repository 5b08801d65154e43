"""Transaction steps: the user's work, the proof of ownership and the journal entry in one transaction of their own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NoReturn

import psycopg
from psycopg import errors

from dalsegno.errors import UsageError
from dalsegno.kernel.points import reach
from dalsegno.kernel.ports import Transaction
from dalsegno.stores.postgres import read
from dalsegno.stores.postgres.connection import Connection, is_lost, query
from dalsegno.stores.postgres.session import Session

_AGAIN = (errors.SerializationFailure, errors.DeadlockDetected)

Outcome = tuple[bytes | None, BaseException | None]

_HIDDEN = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|\$(\w*)\$.*?\$\1\$|--[^\n]*|/\*.*?\*/", re.DOTALL)
_ENDS = re.compile(
    r"(?:^|;)\s*(?:BEGIN|START\s+TRANSACTION|COMMIT|END|ABORT|PREPARE\s+TRANSACTION|"
    r"ROLLBACK(?!\s+(?:(?:WORK|TRANSACTION)\s+)?TO\b))\b",
    re.IGNORECASE,
)
_ADVICE = (
    "a transaction step begins or ends a transaction itself: what it does is committed for it when it returns, and "
    "undone when it raises. Leave out BEGIN, COMMIT, ROLLBACK and `with tx:`; `with tx.transaction():` is a savepoint."
)


class GuestCursor(psycopg.Cursor[Any]):
    """A cursor that a step uses: it can't end the transaction it is in."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        self._look(query)
        return super().execute(query, params, **options)

    def executemany(self, query: Any, params_seq: Any, **options: Any) -> None:
        self._look(query)
        super().executemany(query, params_seq, **options)

    def _look(self, query: Any) -> None:
        text = query.decode(errors="replace") if isinstance(query, bytes) else query
        if not isinstance(text, str):
            text = text.as_string(self)
        if _ENDS.search(_HIDDEN.sub("''", text)):
            _refuse()


class GuestConnection(psycopg.Connection[Any]):
    """A connection that a step may borrow: it can't end the transaction it is in."""

    lent = False

    def commit(self) -> None:
        self._stay()
        super().commit()

    def rollback(self) -> None:
        self._stay()
        super().rollback()

    def close(self) -> None:
        self._stay()
        super().close()

    def _stay(self) -> None:
        if self.lent:
            _refuse()


def _refuse() -> NoReturn:
    raise UsageError(_ADVICE)


def run_all(session: Session, works: Sequence[Transaction], epoch: int) -> list[Outcome]:
    """Run transaction steps, each in a transaction of its own. Raises `Fenced`."""
    read.check_fence(session.rows("fence", epoch), epoch)
    return [_run(session, work, epoch) for work in works]


class _Failed(Exception):
    """What the user's work raised is the cause of this."""


def _run(session: Session, work: Transaction, epoch: int) -> Outcome:
    def job(connection: Connection) -> bytes:
        assert isinstance(connection, GuestConnection)
        entry = _called(connection, work)
        cursor = psycopg.RawCursor(connection)
        # Held from here only: however long the work takes, it keeps nobody from ending this node.
        read.check_fence(cursor.execute(query("fleet/hold_fence", session.schema), (epoch,)).fetchall(), epoch)
        values = (work.instance, work.seq, work.at, work.kind, entry)
        cursor.execute(query("insert_entries", session.schema), values)
        reach("transaction.after")
        return entry

    try:
        return session.transact(job), None
    except _Failed as failure:
        return None, failure.__cause__


def _called(connection: GuestConnection, work: Transaction) -> bytes:
    """Call the step. Where the connection breaks, or the database asks for it, it is undone and runs again."""
    reach("transaction.before")
    connection.lent = True
    try:
        entry = work.run(connection)
        _check_state(connection)
        # What the user's constraints put off to the commit is looked at here, where it is the step's error.
        psycopg.RawCursor(connection).execute("SET CONSTRAINTS ALL IMMEDIATE")
    except (Exception, SystemExit) as error:
        if is_lost(connection):
            raise psycopg.OperationalError(f"the connection was lost within a transaction step: {error}") from error
        if isinstance(error, _AGAIN) and _status(connection) == psycopg.pq.TransactionStatus.INERROR:
            raise
        raise _Failed from error
    finally:
        connection.lent = False
    return entry


def _check_state(connection: GuestConnection) -> None:
    if _status(connection) == psycopg.pq.TransactionStatus.INERROR:
        raise UsageError(
            "a transaction step caught an error of the database and went on: all of its work is undone by that. Put "
            "what may fail into `with tx.transaction():`, or let the error pass."
        )
    if _status(connection) != psycopg.pq.TransactionStatus.INTRANS:
        _refuse()


def _status(connection: Connection) -> int:
    return connection.pgconn.transaction_status
