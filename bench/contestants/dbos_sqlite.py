"""DBOS on its SQLite store, or with variant `postgres` on a PostgreSQL.

Called directly, a workflow answers without a poll, which is its fastest way to a result. Plain `def` measured
faster than `async def` (which hops to a thread for each database call), and a small pool faster than the
default 20, since SQLite admits one writer; five is the least its production checklist allows.
Variant `async` runs the same in coroutines; `wal` switches the file to write-ahead logging beforehand, which
DBOS neither does nor documents, but which an operator could.
"""

import contextlib
import os
import sqlite3

import uvloop
from dbos import DBOS, DBOSConfig

from bench.contestants import Round, asked, postgres_url, report
from bench.load import Outcome, Sample, drive, drive_threads


@DBOS.step()
def add(value: int) -> int:
    return value + 1


@DBOS.step()
def double(value: int) -> int:
    return value * 2


@DBOS.step()
def subtract(value: int) -> int:
    return value - 1


@DBOS.workflow()
def three_steps(value: int) -> int:
    return subtract(double(add(value)))


@DBOS.step()
async def add_async(value: int) -> int:
    return value + 1


@DBOS.step()
async def double_async(value: int) -> int:
    return value * 2


@DBOS.step()
async def subtract_async(value: int) -> int:
    return value - 1


@DBOS.workflow()
async def three_steps_async(value: int) -> int:
    return await subtract_async(await double_async(await add_async(value)))


def launch(round_: Round, url: str = "") -> None:
    database = f"{round_.folder}/dbos.sqlite"
    if round_.variant == "wal":
        with sqlite3.connect(database) as connection:
            connection.execute("PRAGMA journal_mode=WAL")  # kept in the file, so DBOS's connections follow
        connection.close()
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": url or f"sqlite:///{database}",
        "sys_db_pool_size": 20 if url else 5,
        "log_level": "ERROR",
    }
    DBOS(config=config)
    DBOS.launch()


def in_threads(round_: Round) -> list[Sample]:
    three_steps(20)
    return [drive_threads(lambda: three_steps(20), n, round_.seconds) for n in round_.concurrency]


async def in_coroutines(round_: Round) -> list[Sample]:
    await three_steps_async(20)
    return [await drive(lambda: three_steps_async(20), n, round_.seconds) for n in round_.concurrency]


def main() -> None:
    round_ = asked()
    with contextlib.ExitStack() as stack:
        launch(round_, stack.enter_context(postgres_url()) if round_.variant == "postgres" else "")
        report(Outcome(uvloop.run(in_coroutines(round_)) if round_.variant == "async" else in_threads(round_)))
    os._exit(0)  # its background threads outlive a polite end by seconds, and nothing is left to save


if __name__ == "__main__":
    main()
