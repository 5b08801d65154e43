"""A service's own database, with the answer it gave to each idempotency key."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec

ANSWERS = """
CREATE TABLE IF NOT EXISTS answers (
  key     TEXT PRIMARY KEY,
  request BLOB NOT NULL,
  status  INTEGER NOT NULL,
  body    BLOB NOT NULL
) WITHOUT ROWID
"""


class Refused(Exception):
    """The service understood the request and will not do it.

    Raised, it leaves no trace; returned, what was written before is kept.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Answer(msgspec.Struct, frozen=True):
    """What a service replied."""

    status: int
    body: bytes


class Ledger:
    """The database of one service."""

    def __init__(self, path: Path, schema: str) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        # The world is not what the demo proves: it gives up on power loss for speed.
        self.connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;" + ANSWERS + ";" + schema)

    def once(self, key: str, request: bytes, act: Callable[[], object]) -> Answer:
        """Act once for a key; the same request again gets the first answer, another one a refusal."""
        fingerprint = hashlib.blake2b(request, digest_size=16).digest()
        known = self.connection.execute("SELECT request, status, body FROM answers WHERE key = ?", (key,)).fetchone()
        if known is None:
            return self._act(key, fingerprint, act)
        if known[0] != fingerprint:
            return _refusal(Refused(422, "key_reused", f"the key {key} was used for another request"))
        return Answer(known[1], known[2])

    def _act(self, key: str, fingerprint: bytes, act: Callable[[], object]) -> Answer:
        with self.connection:  # commits, or undoes everything if something unforeseen is raised
            self.connection.execute("BEGIN IMMEDIATE")
            answer = self._answer(act)
            self.connection.execute(
                "INSERT INTO answers VALUES (?, ?, ?, ?)", (key, fingerprint, answer.status, answer.body)
            )
        return answer

    def _answer(self, act: Callable[[], object]) -> Answer:
        self.connection.execute("SAVEPOINT act")
        try:
            reply = act()
        except Refused as refused:
            self.connection.execute("ROLLBACK TO act")
            reply = refused
        self.connection.execute("RELEASE act")
        return _refusal(reply) if isinstance(reply, Refused) else Answer(201, msgspec.json.encode(reply))

    def close(self) -> None:
        """Close the database."""
        self.connection.close()


def _refusal(refused: Refused) -> Answer:
    return Answer(refused.status, msgspec.json.encode({"code": refused.code, "message": refused.message}))
