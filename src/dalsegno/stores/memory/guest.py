"""The database that transaction steps see: SQLite in memory, changed only together with the batch."""

from __future__ import annotations

import sqlite3

from dalsegno.kernel.ports import Transaction
from dalsegno.stores.sqlite.connection import Connection

Outcome = tuple[bytes | None, BaseException | None]


class Guest:
    """A database beside the tables of a disk."""

    def __init__(self) -> None:
        self.connection: Connection = sqlite3.connect(
            ":memory:", isolation_level=None, check_same_thread=False, factory=Connection
        )

    def transact(self, works: list[Transaction]) -> list[Outcome]:
        """Do the work of a batch's transaction steps; what one raises undoes its own work only."""
        self.connection.execute("BEGIN")
        try:
            outcomes = [self._one(work) for work in works]
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")
        return outcomes

    def _one(self, work: Transaction) -> Outcome:
        connection = self.connection
        connection.execute("SAVEPOINT dalsegno_guest")
        connection.lend()
        try:
            entry = work.run(connection)
        except (Exception, SystemExit) as error:
            connection.take_back()
            connection.execute("ROLLBACK TO dalsegno_guest")
            connection.execute("RELEASE dalsegno_guest")
            return None, error
        finally:
            connection.take_back()
        connection.execute("RELEASE dalsegno_guest")
        return entry, None
