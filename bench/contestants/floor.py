"""The floor: what the driver and the disk cost before any process code runs.

The same rows as the product writes, by its own statements into the schema its own migrations make, through
the same driver with the same durability: five journal rows and one instance row a process (inserted, and
updated to completed by the next commit), five thousand journal rows a commit. Rows are made ready outside the
clock. Then the bare commit, the unit in which latency is judged: BEGIN IMMEDIATE, one journal row, COMMIT.
"""

import sqlite3
from importlib.resources import files
from itertools import count
from time import perf_counter, time_ns
from typing import Any

import msgspec

from bench.contestants import asked, report
from bench.load import Outcome, percentile
from dalsegno.kernel import entries

PROCESSES_A_COMMIT = 1_000
STORE = files("dalsegno.stores.sqlite")
INSERT_INSTANCE = STORE.joinpath("queries/insert_instances.sql").read_text()
INSERT_ENTRY = STORE.joinpath("queries/insert_entries.sql").read_text()
UPDATE_INSTANCE = STORE.joinpath("queries/update_instances.sql").read_text()

Rows = list[tuple[Any, ...]]


def open_database(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    for migration in sorted(STORE.joinpath("migrations").iterdir(), key=lambda each: each.name):
        connection.executescript(migration.read_text())
    return connection


def journal_of_a_process(at: int) -> list[tuple[str, bytes]]:
    def done(name: str, result: bytes) -> entries.StepCompleted:
        return entries.StepCompleted(name, 0x5EED5EED, msgspec.Raw(result), started_at=at)

    journal: list[entries.Entry] = [
        entries.Started("three_steps", 1, msgspec.Raw(b"[20,{}]")),
        done("add", b"21"),
        done("double", b"42"),
        done("subtract", b"41"),
        entries.Ended("completed", msgspec.Raw(b"41")),
    ]
    return [(entries.kind(entry), entries.encode(entry)) for entry in journal]


class Cohort:
    """The rows of the processes that one commit writes."""

    def __init__(self, first: int) -> None:
        at = time_ns() // 1_000
        keys = range(first, first + PROCESSES_A_COMMIT)
        journal = journal_of_a_process(at)
        self.instances: Rows = [
            (
                key,
                "default",
                f"p-{key:012d}",
                "three_steps",
                1,
                "running",
                1,
                0,
                0x5EED5EED,
                1,
                at,
                at,
                None,
                None,
                0,
            )
            for key in keys
        ]
        self.entries: Rows = [
            (key, seq, at, kind, entry) for key in keys for seq, (kind, entry) in enumerate(journal)
        ]
        self.completed: Rows = [(key, "completed", at, None, None, None, at, 1, 0) for key in keys]


def write(connection: sqlite3.Connection, cohort: Cohort, completed: Rows) -> float:
    began = perf_counter()
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(INSERT_INSTANCE, cohort.instances)
    connection.executemany(INSERT_ENTRY, cohort.entries)
    connection.executemany(UPDATE_INSTANCE, completed)
    connection.execute("COMMIT")
    return perf_counter() - began


def processes_per_second(connection: sqlite3.Connection, seconds: float) -> float:
    spent, written = 0.0, 0
    completed: Rows = []
    for number in count():
        cohort = Cohort(1 + number * PROCESSES_A_COMMIT)
        spent += write(connection, cohort, completed)
        written += PROCESSES_A_COMMIT
        completed = cohort.completed
        if spent >= seconds:
            break
    return written / spent


def bare_commits(connection: sqlite3.Connection, seconds: float) -> list[float]:
    latencies: list[float] = []
    ends = perf_counter() + seconds
    while (began := perf_counter()) < ends:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            INSERT_ENTRY, (0, len(latencies), 0, "step_completed", b'{"step":"add","result":21}')
        )
        connection.execute("COMMIT")
        latencies.append(perf_counter() - began)
    return latencies


def main() -> None:
    round_ = asked()
    connection = open_database(f"{round_.folder}/floor.db")
    commits = bare_commits(connection, min(round_.seconds, 1.0))
    rate = processes_per_second(connection, round_.seconds)
    figures = {
        "floor_processes_per_second": rate,
        "bare_commit_p50_ms": percentile(commits, 0.5) * 1e3,
        "bare_commit_p99_ms": percentile(commits, 0.99) * 1e3,
    }
    report(Outcome(figures=figures))


if __name__ == "__main__":
    main()
