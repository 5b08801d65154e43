"""What the witnesses of a run wrote down: a client's log, and journals read past the engine."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

from dalsegno.testing.check import Call, Dump


class FileLog:
    """The clients' log as lines in a file, which outlives every process."""

    def __init__(self, folder: str, name: str) -> None:
        self._folder = Path(folder)
        # Beside the store's files, so that what watches those sees what was acknowledged when.
        self._file = os.open(self._folder / f"x.db-calls-{name}", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self._number = os.getpid() * 100_000
        self._asked: dict[int, tuple[str, str, str]] = {}
        self._done = {(c.verb, c.target, c.detail): c.reply for c in calls_in(self._folder) if c.outcome == "ok"}

    def _write(self, *line: Any) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def _life(self) -> int:
        return int((self._folder / "life").read_text())

    def asked(self, verb: str, target: str, detail: str) -> int:
        """A call is made; returns its number."""
        self._number += 1
        self._asked[self._number] = (verb, target, detail)
        self._write(self._number, self._life(), verb, target, detail)
        return self._number

    def ended(self, number: int, outcome: str, reply: str) -> None:
        """Its answer came."""
        self._write(number, self._life(), outcome, reply)
        if outcome == "ok":
            self._done[self._asked[number]] = reply

    def done(self, verb: str, target: str, detail: str) -> str | None:
        """The reply of the acknowledged call, `None` where there is none."""
        return self._done.get((verb, target, detail))


def calls_in(folder: Path) -> list[Call]:
    """All calls that clients wrote down."""
    return [call for path in sorted(folder.glob("x.db-calls-*")) for call in calls_of(path.read_text())]


def calls_of(text: str) -> list[Call]:
    """The calls in one client's log."""
    calls: dict[int, Call] = {}
    for line in text.splitlines():
        if line:
            number, life, *rest = json.loads(line)
            if number not in calls:
                calls[number] = Call(life, *rest)
            else:
                # Durable at the latest when the life ended in which the answer came.
                calls[number].life = life
                calls[number].outcome, calls[number].reply = rest
    return list(calls.values())


def dump_of(path: Path) -> Dump:
    """What is in the file, read past the engine."""
    dump = Dump({}, {})
    if not path.exists():
        return dump
    connection = sqlite3.connect(path, timeout=20)
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "journal" not in tables:
            return dump
        connection.execute("BEGIN")
        ids = {key: (id, status) for key, id, status in connection.execute("SELECT key, id, status FROM instances")}
        dump.statuses = dict(ids.values())
        dump.journals = {id: [] for id, _ in ids.values()}
        for key, seq, at, entry in connection.execute(
            "SELECT instance, seq, at, entry FROM journal ORDER BY instance, seq"
        ):
            # Entries of no instance get a name, so that the checker can complain of them.
            dump.journals.setdefault(ids.get(key, (f"no instance {key}",))[0], []).append((seq, at, bytes(entry)))
        dump.events = frozenset(id for (id,) in connection.execute("SELECT id FROM events"))
        if "ledger" in tables:
            dump.ledger = dict(connection.execute("SELECT step_key, count(*) FROM ledger GROUP BY step_key"))
    finally:
        connection.close()
    return dump
