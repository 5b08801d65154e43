"""Starting and publishing within a transaction of the user's own."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from dalsegno import App, Event, NotFound, StartConflict, UsageError, process, wait_for


class Paid(Event, key="order_id"):
    order_id: str


@process
async def greet(name: str) -> str:
    return f"hello {name}"


@process
async def await_payment(order_id: str) -> str:
    return (await wait_for(Paid, order_id=order_id)).order_id


def connection_to(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    connection.execute("CREATE TABLE IF NOT EXISTS orders (id TEXT)")
    connection.commit()
    return connection


def test_a_start_counts_when_the_users_transaction_is_committed(tmp_path: Path) -> None:
    async def main() -> None:
        async with App(f"sqlite:///{tmp_path}/s.db") as app:
            tx = connection_to(tmp_path / "s.db")
            tx.execute("INSERT INTO orders VALUES ('1')")
            run = await app.start(greet, "ann", id="order-1", tx=tx)
            with pytest.raises(NotFound):
                await run.describe()
            tx.commit()
            assert await run.result(timeout_seconds=10) == "hello ann"

    asyncio.run(main())


def test_a_start_that_is_rolled_back_never_was(tmp_path: Path) -> None:
    async def main() -> None:
        async with App(f"sqlite:///{tmp_path}/s.db") as app:
            tx = connection_to(tmp_path / "s.db")
            run = await app.start(greet, "ann", id="order-1", tx=tx)
            tx.rollback()
            with pytest.raises(NotFound):
                await run.describe()
            assert await app.counts() == {}

    asyncio.run(main())


def test_a_start_within_a_transaction_is_idempotent_by_id(tmp_path: Path) -> None:
    async def main() -> None:
        async with App(f"sqlite:///{tmp_path}/s.db") as app:
            await (await app.start(greet, "ann", id="order-1")).result()
            tx = connection_to(tmp_path / "s.db")
            run = await app.start(greet, "ann", id="order-1", tx=tx)
            with pytest.raises(StartConflict, match="order-1"):
                await app.start(greet, "bob", id="order-1", tx=tx)
            tx.commit()
            assert await run.result(timeout_seconds=10) == "hello ann"

    asyncio.run(main())


def test_an_event_published_within_a_transaction_arrives_when_that_is_committed(tmp_path: Path) -> None:
    async def main() -> None:
        async with App(f"sqlite:///{tmp_path}/s.db") as app:
            run = await app.start(await_payment, "7", id="p")
            tx = connection_to(tmp_path / "s.db")
            await app.publish(Paid("7"), tx=tx)
            tx.commit()
            assert await run.result(timeout_seconds=10) == "7"

    asyncio.run(main())


def test_a_connection_to_another_database_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with App(f"sqlite:///{tmp_path}/s.db") as app:
            with pytest.raises(UsageError, match="the store is"):
                await app.start(greet, "ann", tx=connection_to(tmp_path / "other.db"))
            with pytest.raises(UsageError, match=r"sqlite3\.Connection"):
                await app.start(greet, "ann", tx="nonsense")

    asyncio.run(main())


def test_the_process_given_is_the_one_that_runs_whatever_else_has_its_name(tmp_path: Path) -> None:
    @process(name="greet")
    async def namesake(name: str) -> str:
        return f"no greeting for {name}"

    async def main() -> None:
        async with App(f"sqlite:///{tmp_path}/s.db") as app:
            tx = connection_to(tmp_path / "s.db")
            run = await app.start(greet, "ann", tx=tx)
            tx.commit()
            assert await run.result(timeout_seconds=10) == "hello ann"

    asyncio.run(main())
