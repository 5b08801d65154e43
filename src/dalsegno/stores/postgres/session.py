"""One connection and what it takes to keep one: it is made anew when it breaks, and nothing is done twice.

A statement whose reply is lost may have been carried out. What only reads is asked again. What writes is a transaction
that stores its number: where the reply to COMMIT is lost, it is looked up before anything else.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

import psycopg
from psycopg.pq.abc import PGresult

from dalsegno.stores.postgres.address import Address
from dalsegno.stores.postgres.connection import TRANSIENT, Connection, connect, is_away, query, translate

Result = TypeVar("Result")

_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5
_LOCK_MILLISECONDS = 1000


class _Attempt(NamedTuple):
    """A transaction of this session, and where on the server it is."""

    number: int
    backend: int
    transaction: str


class Session:
    """A connection for one thread. `until` says how long, on the monotonic clock, the server may be away."""

    def __init__(
        self,
        address: Address,
        name: str,
        until: Callable[[], float],
        idle_seconds: float = 10.0,
        make: Callable[[Address, str], Connection] = connect,
    ) -> None:
        self.address = address
        self.schema = address.schema
        self._name = name
        self._until = until
        self._make = make
        self._connection: Connection | None = None
        self._abandoned = False
        self._id = str(uuid4())
        self._attempts = 0
        # A node that is frozen within a transaction holds nobody up for longer than its lease.
        self._begin = f"BEGIN; SET LOCAL idle_in_transaction_session_timeout = {max(1000, int(idle_seconds * 1000))}"

    # -- connecting --------------------------------------------------------------------------------

    def connection(self) -> Connection:
        """The connection, made if there is none. Raises psycopg's error where it can't be made."""
        if self._connection is None or self._connection.closed:
            self._connection = self._make(self.address, self._name)
        return self._connection

    def drop(self) -> None:
        """Close the connection; the next one is a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except psycopg.Error:
                pass

    def abandon(self) -> None:
        """From another thread: give up what this session waits for."""
        self._abandoned = True
        connection = self._connection
        if connection is not None and not connection.closed:
            try:
                with socket.socket(fileno=os.dup(connection.fileno())) as wire:
                    wire.shutdown(socket.SHUT_RDWR)
            except (OSError, psycopg.Error):
                # It is closed already.
                pass

    def persistently(self, attempt: Callable[[Connection], Result]) -> Result:
        """Try until the server answers, or the time is up. `attempt` must be safe to be made again."""
        deadline = self._until()
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return attempt(self.connection())
            except psycopg.Error as error:
                away = is_away(error, self._connection)
                if away:
                    self.drop()
                late = self._abandoned or time.monotonic() + pause > deadline
                if late or not (away or isinstance(error, TRANSIENT)):
                    raise translate(error, self.address) from error
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    # -- reading -----------------------------------------------------------------------------------

    def rows(self, name: str, *values: Any) -> list[Any]:
        """All rows of a query that only reads."""
        return self.select(query(name, self.schema), values)

    def select(self, text: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a statement that only reads."""
        return self.persistently(lambda connection: psycopg.RawCursor(connection).execute(text, values).fetchall())

    def snapshot(self, read: Callable[[Connection], Result]) -> Result:
        """Read several times from one moment."""

        def attempt(connection: Connection) -> Result:
            connection.pgconn.exec_(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                return read(connection)
            finally:
                if not connection.closed:
                    connection.pgconn.exec_(b"COMMIT")

        return self.persistently(attempt)

    def locked(self, connection: Connection, name: str, key: Any) -> list[Any]:
        """Rows that a query locks, and lets go of; waits for them no longer than a moment."""
        run(connection, f"BEGIN; SET LOCAL lock_timeout = {_LOCK_MILLISECONDS}".encode())
        try:
            return psycopg.RawCursor(connection).execute(query(name, self.schema), (key,)).fetchall()
        finally:
            self._roll_back(connection)

    # -- writing -----------------------------------------------------------------------------------

    def transact(self, job: Callable[[Connection], Result]) -> Result:
        """Do something in a transaction, once, whatever becomes of the connection. `job` may be called again."""
        begun: list[_Attempt] = []
        results: list[Result] = []

        def attempt(connection: Connection) -> Result:
            if begun and self._took_place(connection, begun[0]):
                return results[0]
            begun.clear()
            this = self._started(connection)
            results[:] = [self._in_transaction(connection, job)]
            begun.append(this)
            run(connection, b"COMMIT")
            return results[0]

        return self.persistently(attempt)

    def transact_again(self, job: Callable[[Connection], Result]) -> Result:
        """Do something in a transaction that does no harm when it is done twice."""

        def attempt(connection: Connection) -> Result:
            run(connection, self._begin.encode())
            result = self._in_transaction(connection, job)
            run(connection, b"COMMIT")
            return result

        return self.persistently(attempt)

    def _in_transaction(self, connection: Connection, job: Callable[[Connection], Result]) -> Result:
        try:
            return job(connection)
        except BaseException:
            self._roll_back(connection)
            raise

    def _started(self, connection: Connection) -> _Attempt:
        self._attempts += 1
        noted = query("fleet/attempt", self.schema).format(session=self._id, number=self._attempts)
        where = "SELECT pg_backend_pid(), pg_current_xact_id()::xid"
        found = run(connection, f"{self._begin}; {noted}; {where}".encode())
        backend, transaction = found.get_value(0, 0), found.get_value(0, 1)
        assert backend is not None
        assert transaction is not None
        return _Attempt(self._attempts, int(backend), transaction.decode())

    @staticmethod
    def _roll_back(connection: Connection) -> None:
        if not connection.closed:
            connection.pgconn.exec_(b"ROLLBACK")

    def _took_place(self, connection: Connection, attempt: _Attempt) -> bool:
        """Whether a transaction was committed whose COMMIT got no reply; waits until that is decided."""
        # Its back end may wait for a COMMIT that is lost, with the row locked.
        values = (attempt.backend, attempt.transaction)
        psycopg.RawCursor(connection).execute(query("fleet/end_attempt", self.schema), values)
        rows = self.locked(connection, "fleet/settle_attempt", self._id)
        return bool(rows) and bool(rows[0][0] == attempt.number)


def run(connection: Connection, text: bytes) -> PGresult:
    """Run SQL of ours without parameters. Raises psycopg's error."""
    result = connection.pgconn.exec_(text)
    if result.status not in (psycopg.pq.ExecStatus.COMMAND_OK, psycopg.pq.ExecStatus.TUPLES_OK):
        raise psycopg.errors.error_from_result(result, encoding="utf-8")
    return result
