"""The floor: what the driver and the disk cost before any process code runs.

The same rows, into the schema the product's own migrations make, through the same driver with the same
durability: five journal rows and one instance row a process (inserted, later updated to completed), five
thousand journal rows a commit. Rows are made ready outside the clock. Then the bare commit, the unit in which
latency is judged: BEGIN IMMEDIATE, one journal row, COMMIT.
"""

import sqlite3
from collections.abc import Iterator
from time import perf_counter

from bench.contestants import asked, report
from bench.load import Outcome, percentile

PLACEHOLDER = """
CREATE TABLE instance (
  namespace TEXT NOT NULL, id TEXT NOT NULL, process TEXT NOT NULL, status TEXT NOT NULL,
  input BLOB, result BLOB, started_at INTEGER NOT NULL, ended_at INTEGER,
  PRIMARY KEY (namespace, id)
) WITHOUT ROWID;
CREATE TABLE journal (
  namespace TEXT NOT NULL, instance TEXT NOT NULL, seq INTEGER NOT NULL,
  kind TEXT NOT NULL, at INTEGER NOT NULL, body BLOB,
  PRIMARY KEY (namespace, instance, seq)
) WITHOUT ROWID;
"""
INSERT_INSTANCE = "INSERT INTO instance VALUES ('default', ?, 'three_steps', 'running', ?, NULL, ?, NULL)"
INSERT_JOURNAL = "INSERT INTO journal VALUES ('default', ?, ?, ?, ?, ?)"
COMPLETE = "UPDATE instance SET status = 'completed', result = ?, ended_at = ? WHERE (namespace, id) = ('default', ?)"
KINDS = ("started", "step", "step", "step", "ended")
PROCESSES_A_COMMIT = 1_000


def open_database(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.executescript(PLACEHOLDER)
    return connection


def cohorts() -> Iterator[list[str]]:
    first = 0
    while True:
        yield [f"p-{n:012d}" for n in range(first, first + PROCESSES_A_COMMIT)]
        first += PROCESSES_A_COMMIT


def write(connection: sqlite3.Connection, ids: list[str], at: int) -> float:
    instances = [(id_, b"20", at) for id_ in ids]
    journal = [(id_, seq, kind, at, b'{"value":20}') for id_ in ids for seq, kind in enumerate(KINDS)]
    completed = [(b"41", at, id_) for id_ in ids]
    began = perf_counter()
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(INSERT_INSTANCE, instances)
    connection.executemany(INSERT_JOURNAL, journal)
    connection.executemany(COMPLETE, completed)
    connection.execute("COMMIT")
    return perf_counter() - began


def processes_per_second(connection: sqlite3.Connection, seconds: float) -> float:
    spent, written = 0.0, 0
    for ids in cohorts():
        spent += write(connection, ids, at=written)
        written += len(ids)
        if spent >= seconds:
            return written / spent
    raise AssertionError("cohorts never end")


def bare_commits(connection: sqlite3.Connection, seconds: float) -> list[float]:
    latencies: list[float] = []
    ends = perf_counter() + seconds
    while (began := perf_counter()) < ends:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(INSERT_JOURNAL, ("bare", len(latencies), "step", 0, b'{"value":20}'))
        connection.execute("COMMIT")
        latencies.append(perf_counter() - began)
    return latencies


def main() -> None:
    round_ = asked()
    connection = open_database(f"{round_.folder}/floor.db")
    rate = processes_per_second(connection, round_.seconds)
    commits = bare_commits(connection, min(round_.seconds, 1.0))
    report(
        Outcome(
            figures={
                "floor_processes_per_second": rate,
                "bare_commit_p50_ms": percentile(commits, 0.5) * 1e3,
                "bare_commit_p99_ms": percentile(commits, 0.99) * 1e3,
            }
        )
    )


if __name__ == "__main__":
    main()
