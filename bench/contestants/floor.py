"""The floor: what the driver and the disk cost before any process code runs.

The same rows as the product writes, by the store's own statements into the schema of its own migrations,
through the same driver with the same durability: five journal rows and one instance row a process (inserted,
and updated to completed by the next commit), five thousand journal rows a commit. Rows are made ready outside
the clock. Then the bare commit, the unit in which latency is judged: BEGIN IMMEDIATE, one journal row, COMMIT.
"""

from collections.abc import Iterable
from itertools import chain, count
from time import perf_counter, time_ns
from typing import Any

import msgspec

from bench.contestants import asked, report
from bench.load import Outcome, percentile
from dalsegno.kernel import entries
from dalsegno.stores.sqlite.connection import Connection, MultiRow, connect, query
from dalsegno.stores.sqlite.migrate import migrate

PROCESSES_A_COMMIT = 1_000


class Statement(MultiRow):
    """One of the store's statements, filled by column name: it may reorder its columns without a word to us."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        named = query(name).partition("(")[2].partition(")")[0]
        self._columns = [column.strip() for column in named.split(",")][: self.width]

    def values(self, row: dict[str, Any]) -> list[Any]:
        return [row[column] for column in self._columns]


insert_instances = Statement("insert_instances")
insert_entries = Statement("insert_entries")
update_instances = Statement("update_instances")
NOTHING = dict.fromkeys(("wake_at", "waiting_for", "error", "parent", "parent_operation"))


def open_database(path: str) -> Connection:
    connection = connect(path)
    migrate(connection, path)
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
    """The rows of the processes that one commit writes, flat, as the store's statements take them."""

    def __init__(self, first: int) -> None:
        at = time_ns() // 1_000
        keys = range(first, first + PROCESSES_A_COMMIT)
        times = {"at": at, "created_at": at, "updated_at": at, "ended_at": at}
        common = NOTHING | times | {"namespace": "default", "process": "three_steps", "version": 1, "begun": 1}
        common |= {"run": 1, "base_seq": 0, "input_hash": 0x5EED5EED, "events_from": 0}
        born, over = common | {"status": "running"}, common | {"status": "completed"}
        said = [
            common | {"seq": seq, "kind": kind, "entry": entry}
            for seq, (kind, entry) in enumerate(journal_of_a_process(at))
        ]
        self.instances = flat(insert_instances.values(born | {"key": key, "id": f"p-{key:012d}"}) for key in keys)
        self.entries = flat(insert_entries.values(row | {"instance": key}) for key in keys for row in said)
        self.completed = flat(update_instances.values(over | {"key": key}) for key in keys)


def flat(rows: Iterable[list[Any]]) -> list[Any]:
    return list(chain.from_iterable(rows))


def write(connection: Connection, cohort: Cohort, completed: list[Any]) -> float:
    began = perf_counter()
    connection.execute("BEGIN IMMEDIATE")
    insert_instances.run(connection, cohort.instances)
    insert_entries.run(connection, cohort.entries)
    update_instances.run(connection, completed)
    connection.execute("COMMIT")
    return perf_counter() - began


def processes_per_second(connection: Connection, seconds: float) -> float:
    spent, written = 0.0, 0
    completed: list[Any] = []
    for number in count():
        cohort = Cohort(1 + number * PROCESSES_A_COMMIT)
        spent += write(connection, cohort, completed)
        written += PROCESSES_A_COMMIT
        completed = cohort.completed
        if spent >= seconds:
            break
    return written / spent


def bare_commits(connection: Connection, seconds: float) -> list[float]:
    insert_entry = query("insert_entries")
    latencies: list[float] = []
    ends = perf_counter() + seconds
    while (began := perf_counter()) < ends:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(insert_entry, (0, len(latencies), 0, "step_completed", b'{"step":"add","result":21}'))
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
