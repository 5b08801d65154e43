"""Two engines and one file, in real processes: refused, followed, fenced."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

PROGRAM = str(Path(__file__).parent / "engine_program.py")
PATIENCE_SECONDS = 30


class Engine:
    """An engine in a process of its own, heard line by line."""

    def __init__(self, path: Path, name: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, PROGRAM, str(path), "1", "--name", name, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.pid = self._process.pid
        self.said: list[str] = []

    def hear(self, beginning: str) -> str:
        """Wait for a line that begins like this."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said.append(line.strip())
            if line.startswith(beginning):
                return line.strip()
        raise AssertionError(f"it ended without {beginning!r}; it said {self.said}")

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def end(self) -> int:
        """Wait for its end."""
        return self._process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        for number in (signal.SIGKILL, signal.SIGCONT):
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
        self._process.wait(PATIENCE_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()


class Engines:
    """Starts engines on one file, and ends them all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._running: list[Engine] = []

    def start(self, name: str, *arguments: str) -> Engine:
        engine = Engine(self.path, name, *arguments)
        self._running.append(engine)
        return engine

    def close(self) -> None:
        for engine in self._running:
            engine.close()

    def stop_between_commits(self, engine: Engine) -> None:
        """Stop an engine that holds no lock of SQLite's: one that does keeps everybody out until it goes on."""
        while True:
            engine.signal(signal.SIGSTOP)
            os.waitid(os.P_PID, engine.pid, os.WSTOPPED)
            with closing(sqlite3.connect(self.path, isolation_level=None, timeout=0)) as connection:
                try:
                    connection.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    engine.signal(signal.SIGCONT)
                else:
                    connection.execute("ROLLBACK")
                    return

    def rows(self, query: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(query).fetchall()


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[Engines]:
    found = Engines(tmp_path / "orders.db")
    yield found
    found.close()


def test_a_second_engine_is_refused_while_the_first_lives(engines: Engines) -> None:
    first = engines.start("first", "--wait")
    first.hear("ack")
    second = engines.start("second")
    refusal = second.hear("stopped StoreOwned")

    assert second.end() == 3
    assert f"owned by node 'first' (process {first.pid} on " in refusal
    assert "Stop that process, or use app.client()" in refusal


def test_a_killed_engine_is_followed_at_once_though_its_lease_lasts(engines: Engines) -> None:
    first = engines.start("first", "--wait", "--lease", "600")
    first.hear("ack")
    first.signal(signal.SIGKILL)
    first.end()
    second = engines.start("second")
    second.hear("ack")

    assert second.end() == 0
    assert "refused" not in "".join(second.said)
    assert engines.rows("SELECT id, status FROM instances") == [("first-0", "completed"), ("second-0", "completed")]


def test_a_stopped_engine_is_followed_when_its_lease_ends_and_is_fenced_when_it_goes_on(engines: Engines) -> None:
    first = engines.start("first", "--settle", "--wait", "--lease", "0.6")
    first.hear("settled")
    engines.stop_between_commits(first)

    second = engines.start("second", "--wait", "--take-over", "--settle")
    refusal = second.hear("refused")
    second.hear("settled")
    before = engines.rows("SELECT * FROM journal")
    first.signal(signal.SIGCONT)
    stopped = first.hear("stopped")

    assert "owned by node 'first'" in refusal
    assert stopped.startswith("stopped Fenced")
    assert first.end() == 3
    assert engines.rows("SELECT * FROM journal") == before
    assert engines.rows("SELECT name FROM nodes WHERE ended_at IS NULL") == [("second",)]


def test_an_engine_that_closes_leaves_the_file_to_the_next(engines: Engines) -> None:
    for name in ("first", "second"):
        assert engines.start(name).end() == 0

    assert engines.rows("SELECT name, ended_at IS NULL FROM nodes") == [("first", 0), ("second", 0)]
