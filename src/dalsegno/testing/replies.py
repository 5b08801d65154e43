"""Reads along in a PostgreSQL connection: which of the server's messages says that something is committed."""

from __future__ import annotations

import struct
from enum import Enum

_HEADER = struct.Struct("!cI")
_STARTUP = struct.Struct("!II")
_VERSION_3 = 3
_ENCRYPTION_REQUESTS = (80877103, 80877104)
_ENCRYPTION_DECLINED = b"N"

_COMMITS = (b"COMMIT", b"PREPARE TRANSACTION")
_WRITE_NOTHING = frozenset(
    b"ANALYZE BEGIN CHECKPOINT CLOSE DEALLOCATE DECLARE DISCARD EXPLAIN FETCH LISTEN LOCK MOVE PREPARE RELEASE RESET"
    b" ROLLBACK SAVEPOINT SELECT SET SHOW START UNLISTEN VACUUM".split()
)


class Wish(Enum):
    """Which commits are looked for."""

    NONE = 0
    OF_WRITES = 1
    ANY = 2


class Replies:
    """One connection, from its beginning. What isn't PostgreSQL's protocol, or is encrypted, passes as it is."""

    def __init__(self) -> None:
        self._readable: bool | None = None
        self._answer_awaited = False
        self._rest = b""
        self._held = b""
        self._wrote = False
        self._failed = False

    def client_sent(self, data: bytes) -> None:
        """Note how the client begins; what it says later doesn't matter."""
        if self._readable is not None:
            return
        length, code = _STARTUP.unpack_from(data) if len(data) >= _STARTUP.size else (0, 0)
        if code in _ENCRYPTION_REQUESTS:
            self._answer_awaited = True
        else:
            self._readable = code >> 16 == _VERSION_3 and 0 < length <= len(data)

    def server_sent(self, data: bytes, wish: Wish) -> tuple[bytes, bool]:
        """What to pass on of it, and whether the next message, which isn't passed on, says that a commit is done."""
        if self._answer_awaited:
            self._answer_awaited = False
            if data != _ENCRYPTION_DECLINED:
                self._readable = False
        if not self._readable:
            return data, False
        data = self._rest + data
        passed = bytearray()
        place = 0
        while place + _HEADER.size <= len(data):
            kind, length = _HEADER.unpack_from(data, place)
            end = place + 1 + length
            if end > len(data):
                break
            if self._says_committed(kind, data, place + _HEADER.size, end, wish):
                return bytes(passed), True
            # A statement is complete, and whether it is committed shows only now: the client would go on too early.
            if kind == b"C" and wish is not Wish.NONE:
                passed += self._held
                self._held = data[place:end]
            elif self._held and kind in b"NSA":
                self._held += data[place:end]
            else:
                passed += self._held
                passed += data[place:end]
                self._held = b""
            place = end
        self._rest = data[place:]
        return bytes(passed), False

    def rest(self) -> bytes:
        """What was kept back, for the end of the connection."""
        kept, self._held, self._rest = self._held + self._rest, b"", b""
        return kept

    def _says_committed(self, kind: bytes, data: bytes, start: int, end: int, wish: Wish) -> bool:
        if kind == b"E":
            self._failed = True
        elif kind == b"C":
            tag = data[start : end - 1]
            if tag.startswith(_COMMITS):
                return self._wanted(wish)
            if tag == b"ROLLBACK":
                # To a savepoint too: a transaction that goes on afterwards may be missed, one that is undone never met.
                self._wrote = False
                self._failed = True
            elif tag.split()[0] not in _WRITE_NOTHING and not tag.endswith(b" 0"):
                self._wrote = True
        elif kind == b"Z":
            outside = data[start:end] == b"I"
            committed = outside and bool(self._held) and not self._failed and self._wanted(wish)
            self._failed = False
            if outside:
                self._wrote = False
            return committed
        return False

    def _wanted(self, wish: Wish) -> bool:
        return wish is Wish.ANY or (wish is Wish.OF_WRITES and self._wrote)
