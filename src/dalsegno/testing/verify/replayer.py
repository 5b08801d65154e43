"""Replays journals in a process that ran none of them, under another seed of hashes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import msgspec

from dalsegno.engine.shadow import check_records
from dalsegno.errors import DalsegnoError, JournalMismatch
from dalsegno.kernel import entries as e
from dalsegno.testing.check import Dump
from dalsegno.testing.journal import Journal
from dalsegno.testing.verify.target import Target

REPLAY = "--replay"
# Code that counts its own runs says the same once.
_TIMES = 2


class Replayer:
    """The process, seen from outside."""

    def __init__(self, command: Sequence[str], plan: bytes) -> None:
        environment = {**os.environ, "PYTHONHASHSEED": "2"}
        self._process = subprocess.Popen(
            [*command, REPLAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        self._ask(plan)

    def _ask(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()

    def replay(self, dump: Dump) -> list[str]:
        """What the replays of the journals say otherwise."""
        self._ask(msgspec.json.encode(dump))
        assert self._process.stdout is not None
        found: list[str] = msgspec.json.decode(self._process.stdout.readline() or b'["the replaying process died"]')
        return found

    def close(self) -> None:
        """Let it go."""
        self._process.communicate()


def serve_replays(target: Target, orders: BinaryIO, answers: BinaryIO) -> None:
    """Be that process."""
    for line in orders:
        dump = msgspec.json.decode(line, type=Dump)
        found = [text for id, rows in dump.journals.items() for text in _replayed(target, id, rows)]
        answers.write(msgspec.json.encode(found) + b"\n")
        answers.flush()


def _replayed(target: Target, id: str, rows: list[tuple[int, int, bytes]]) -> Iterator[str]:
    records = [e.Record(seq, at, e.decode(data)) for seq, at, data in rows]
    for run in Journal(records, id).runs():
        started = run[0].entry
        if isinstance(started, e.Started) and len(run) > 1:
            yield from _told(target, id, run, started)


def _told(target: Target, id: str, run: list[e.Record], started: e.Started) -> Iterator[str]:
    try:
        for _ in range(_TIMES):
            spec = target.app.process(started.process, started.version)
            check_records(run, spec, "default", id, target.app.limits)
    except JournalMismatch as error:
        yield (
            f"the replay of {id!r} takes another way: expected {error.expected}, found {error.found}. Process code "
            "must not depend on clock, chance, state of its own or the order of a set: put that into a step"
        )
    except DalsegnoError as error:
        yield f"the replay of {id!r} fails: {error}"
