"""One connection and what it takes to keep one: it is made anew when it breaks, and nothing is done twice.

A statement whose reply is lost may have been carried out. What only reads is asked again. What writes is a transaction
that knows its number: where the reply to COMMIT is lost, the server is asked what became of that number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg.pq.abc import PGresult

from dalsegno.errors import StoreError
from dalsegno.stores.postgres.address import Address
from dalsegno.stores.postgres.connection import TRANSIENT, Connection, connect, is_away, query, translate

Result = TypeVar("Result")

_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5


class _Attempt(NamedTuple):
    """A transaction as the server knows it, and the back end that is in it."""

    number: str
    backend: int


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
        self._begin = (
            # A node that is frozen within a transaction holds nobody up for longer than its lease.
            f"BEGIN; SET LOCAL idle_in_transaction_session_timeout = {max(1000, int(idle_seconds * 1000))}; "
            "SELECT pg_current_xact_id()::text, pg_backend_pid()"
        ).encode()

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
                if not (away or isinstance(error, TRANSIENT)) or time.monotonic() + pause > deadline:
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

    # -- writing -----------------------------------------------------------------------------------

    def transact(self, job: Callable[[Connection], Result]) -> Result:
        """Do something in a transaction, once, whatever becomes of the connection. `job` may be called again."""
        begun: list[_Attempt] = []
        results: list[Result] = []

        def attempt(connection: Connection) -> Result:
            if begun and self._took_place(connection, begun[0]):
                return results[0]
            begun.clear()
            results.clear()
            this = self._started(connection)
            try:
                results.append(job(connection))
            except BaseException:
                self._roll_back(connection)
                raise
            begun.append(this)
            try:
                run(connection, b"COMMIT")
            except psycopg.Error as error:
                if not is_away(error, connection):
                    begun.clear()
                raise
            return results[0]

        return self.persistently(attempt)

    def _started(self, connection: Connection) -> _Attempt:
        found = run(connection, self._begin)
        number, backend = found.get_value(0, 0), found.get_value(0, 1)
        assert number is not None
        assert backend is not None
        return _Attempt(number.decode(), int(backend))

    @staticmethod
    def _roll_back(connection: Connection) -> None:
        if not connection.closed:
            connection.pgconn.exec_(b"ROLLBACK")

    def _took_place(self, connection: Connection, attempt: _Attempt) -> bool:
        """Whether a transaction was committed whose COMMIT got no reply; waits until that is decided."""
        deadline = self._until()
        while True:
            cursor = psycopg.RawCursor(connection)
            row = cursor.execute("SELECT pg_xact_status($1::text::xid8)", (attempt.number,)).fetchone()
            assert row is not None
            if row[0] != "in progress":
                return bool(row[0] == "committed")
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{self.address}: a commit got no reply, and the server still doesn't say what became of it. "
                    "Start the node again: what is stored counts."
                )
            # Its back end may wait for a COMMIT that is lost.
            cursor.execute("SELECT pg_terminate_backend($1)", (attempt.backend,))
            time.sleep(_FIRST_PAUSE_SECONDS)


def run(connection: Connection, text: bytes) -> PGresult:
    """Run SQL of ours without parameters. Raises psycopg's error."""
    result = connection.pgconn.exec_(text)
    if result.status not in (psycopg.pq.ExecStatus.COMMAND_OK, psycopg.pq.ExecStatus.TUPLES_OK):
        raise psycopg.errors.error_from_result(result, encoding="utf-8")
    return result
