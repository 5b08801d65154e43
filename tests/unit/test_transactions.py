"""`@transaction` steps: effect and journal entry in one commit, on the store's database or on one of the user's own."""

import asyncio
import sqlite3
import threading
from typing import Any

import pytest

from dalsegno import (
    DefinitionError,
    Event,
    InvalidValue,
    Limits,
    Retry,
    StepFailed,
    Unserialisable,
    UsageError,
    process,
    saga,
    step,
    step_key,
    transaction,
    wait_for,
)
from dalsegno.kernel import entries


class Go(Event):
    pass


def ledger(path: Any) -> list[Any]:
    connection = sqlite3.connect(path)
    try:
        return [row[0] for row in connection.execute("SELECT what FROM ledger ORDER BY rowid")]
    except sqlite3.OperationalError:
        return []
    finally:
        connection.close()


def _book(tx: sqlite3.Connection, what: str) -> int:
    tx.execute("CREATE TABLE IF NOT EXISTS ledger (what TEXT)")
    tx.execute("INSERT INTO ledger VALUES (?)", (what,))
    return int(tx.execute("SELECT count(*) FROM ledger").fetchone()[0])


@pytest.fixture(params=["store", "own"])
def database(request, open_app, tmp_path):
    """Where the business rows are: the store's own file, or one of the user's."""
    return open_app.path if request.param == "store" else tmp_path / "business.db"


@pytest.fixture
def on(database, open_app):
    """`transaction` for that database."""
    if database == open_app.path:
        return transaction
    return lambda function=None, **options: (
        transaction(on=f"sqlite:///{database}", **options)
        if function is None
        else transaction(on=f"sqlite:///{database}")(function)
    )


async def test_the_effect_and_the_result_are_there_together(open_app, on, database):
    @on
    def book(tx: sqlite3.Connection, what: str) -> int:
        return _book(tx, what)

    @process
    async def order() -> list[int]:
        return [await book("a"), await book(what="b")]

    async with open_app() as app:
        assert await (await app.start(order)).result() == [1, 2]
    assert ledger(database) == ["a", "b"]


async def test_an_error_undoes_the_effect_and_the_step_is_tried_again(open_app, on, database):
    attempts = []

    @on(retry=Retry(attempts=3, first="1ms"))
    def book(tx: sqlite3.Connection, what: str) -> int:
        count = _book(tx, what)
        attempts.append(step_key())
        if len(attempts) < 3:
            raise ConnectionError("half way")
        return count

    @process
    async def order() -> int:
        return await book("a")

    async with open_app() as app:
        run = await app.start(order, id="one")
        assert await run.result() == 1
        failed = [r.entry for r in await run.history() if isinstance(r.entry, entries.AttemptFailed)]
    assert ledger(database) == ["a"]
    assert attempts == ["default/one/book"] * 3
    assert [f.error.message for f in failed] == ["half way", "half way"]


async def test_an_error_leaves_nothing_behind_when_the_attempts_end(open_app, on, database):
    @on(retry=None)
    def book(tx: sqlite3.Connection, what: str) -> int:
        _book(tx, what)
        raise ValueError("no")

    @process
    async def order() -> None:
        await book("a")

    async with open_app() as app:
        with pytest.raises(ValueError, match="no"):
            await (await app.start(order)).result()
    assert ledger(database) == []


async def test_a_transaction_that_exits_fails_and_the_node_lives(open_app, on, database):
    @on(retry=None)
    def book(tx: sqlite3.Connection, what: str) -> int:
        _book(tx, what)
        raise SystemExit(3)

    @process
    async def order() -> None:
        await book("a")

    async with open_app() as app:
        for _ in range(2):
            with pytest.raises(StepFailed, match="SystemExit: 3"):
                await (await app.start(order)).result()
    assert ledger(database) == []


@pytest.mark.parametrize("kind", ["unserialisable", "another type"])
async def test_a_result_that_is_refused_undoes_the_effect(open_app, on, database, kind):
    @on(retry=Retry(attempts=3, first="1ms"))
    def book(tx: sqlite3.Connection, what: str) -> int:
        _book(tx, what)
        return object() if kind == "unserialisable" else "no number"  # type: ignore[return-value]

    @process
    async def order() -> None:
        await book("a")

    async with open_app() as app:
        with pytest.raises((Unserialisable, InvalidValue)):
            await (await app.start(order)).result()
    assert ledger(database) == []


@pytest.mark.parametrize("end", ["COMMIT", "commit()", "with", "ROLLBACK", "rollback()", "BEGIN", "executescript"])
async def test_a_transaction_that_ends_itself_is_refused_with_the_remedy(open_app, on, database, end):
    @on(retry=Retry(attempts=3, first="1ms"))
    def book(tx: sqlite3.Connection) -> None:
        _book(tx, "a")
        if end == "with":
            with tx:
                _book(tx, "b")
        elif end == "executescript":
            tx.executescript("INSERT INTO ledger VALUES ('b')")
        elif end.endswith("()"):
            getattr(tx, end.removesuffix("()"))()
        else:
            tx.execute(end)

    @process
    async def order() -> None:
        await book()

    async with open_app() as app:
        run = await app.start(order)
        with pytest.raises(UsageError, match="is committed for it"):
            await run.result()
        assert [type(r.entry).__name__ for r in await run.history()] == ["Started", "StepFailed", "Ended"]
        # The engine's own commits go on.
        other = await app.start(order, id="other")
        with pytest.raises(UsageError):
            await other.result()
    assert ledger(database) == []


async def test_a_transaction_may_use_savepoints_of_its_own(open_app, on, database):
    @on
    def book(tx: sqlite3.Connection) -> None:
        _book(tx, "a")
        tx.execute("SAVEPOINT inner")
        _book(tx, "b")
        tx.execute("ROLLBACK TO inner")
        tx.execute("RELEASE inner")

    @process
    async def order() -> None:
        await book()

    async with open_app() as app:
        await (await app.start(order)).result()
    assert ledger(database) == ["a"]


async def test_a_transaction_that_fails_leaves_the_rest_of_the_commit_alone(open_app):
    @transaction(retry=None)
    def book(tx: sqlite3.Connection, n: int) -> int:
        if n % 2:
            tx.execute("INSERT INTO no_such_table VALUES (1)")
        return _book(tx, str(n))

    @process
    async def order(n: int) -> bool:
        try:
            await book(n)
        except sqlite3.OperationalError:
            return False
        return True

    async with open_app() as app:
        runs = await asyncio.gather(*(app.start(order, n) for n in range(20)))
        assert [await run.result() for run in runs] == [True, False] * 10
    assert sorted(ledger(open_app.path)) == sorted(str(n) for n in range(0, 20, 2))


async def test_transactions_of_one_instance_side_by_side_take_place_one_after_the_other(open_app, on, database):
    @on
    def book(tx: sqlite3.Connection, what: str) -> int:
        return _book(tx, what)

    @step
    async def other(n: int) -> int:
        return n

    @process
    async def order() -> list[int]:
        return list(await asyncio.gather(*(book(str(n)) for n in range(5)), *(other(n) for n in range(5))))

    async with open_app() as app:
        result = await (await app.start(order)).result()
    assert sorted(result[:5]) == [1, 2, 3, 4, 5]
    assert result[5:] == [0, 1, 2, 3, 4]


async def test_a_transaction_that_ends_the_process_stops_those_that_have_not_begun(open_app):
    @transaction(retry=None)
    def book(tx: sqlite3.Connection, what: str) -> None:
        _book(tx, what)

    @process
    async def order() -> None:
        first = asyncio.create_task(book("first"))
        rest = [asyncio.create_task(book(f"rest {n}")) for n in range(3)]
        await first
        del rest
        raise ValueError("enough")

    async with open_app() as app:
        run = await app.start(order)
        with pytest.raises(ValueError, match="enough"):
            await run.result()
        ends = [type(r.entry).__name__ for r in await run.history()]
    assert ledger(open_app.path) == ["first"]
    assert ends[-1] == "Ended"


async def test_a_transaction_is_undone_in_a_saga_by_its_undo(open_app, on, database):
    @on
    def book(tx: sqlite3.Connection, what: str) -> int:
        return _book(tx, what)

    @on
    def unbook(tx: sqlite3.Connection, what: str) -> None:
        tx.execute("DELETE FROM ledger WHERE what = ?", (what,))

    @process
    async def order() -> None:
        try:
            async with saga():
                await book("a")
                raise KeyError("no")
        except KeyError:
            await unbook("a")
        await book("b")

    async with open_app() as app:
        await (await app.start(order)).result()
    assert ledger(database) == ["b"]


async def test_commands_that_come_while_a_transaction_runs_wait_for_it(open_app, until):
    begun, release = threading.Event(), threading.Event()

    @transaction
    def book(tx: sqlite3.Connection, what: str) -> int:
        begun.set()
        release.wait(10)
        return _book(tx, what)

    @process
    async def order() -> None:
        await book("a")
        await wait_for(Go)

    async with open_app() as app:
        for verb in ("cancel", "terminate", "pause"):
            begun.clear()
            release.clear()
            run = await app.start(order, id=verb)
            await until(begun.is_set)
            asked = asyncio.ensure_future(getattr(run, verb)())
            await asyncio.sleep(0.01)
            assert not asked.done()
            release.set()
            await asked
            status = {"cancel": "cancelled", "terminate": "terminated", "pause": "paused"}[verb]

            async def stands(run: Any = run, status: str = status) -> bool:
                return await run.status() == status

            await until(stands)
            history = [type(r.entry).__name__ for r in await run.history()]
            assert "StepCompleted" in history, "the transaction was committed, so the journal says so"
            await (run.terminate() if verb == "pause" else asyncio.sleep(0))
    assert ledger(open_app.path) == ["a", "a", "a"]


async def test_an_own_database_that_was_committed_is_not_written_again_after_a_crash(open_app, tmp_path):
    # What a crash between the user's commit and ours leaves: the completion row, and no entry in the journal.
    path = tmp_path / "business.db"
    calls = []

    @transaction(on=f"sqlite:///{path}")
    def book(tx: sqlite3.Connection, what: str) -> int:
        calls.append(what)
        return _book(tx, what)

    @process
    async def order() -> int:
        return await book("a")

    connection = sqlite3.connect(path)
    connection.executescript(
        "CREATE TABLE dalsegno_completions (step_key TEXT PRIMARY KEY, result BLOB NOT NULL, at INTEGER NOT NULL)"
        " WITHOUT ROWID; INSERT INTO dalsegno_completions VALUES ('default/one/book', '41', 0)"
    )
    connection.close()
    async with open_app() as app:
        assert await (await app.start(order, id="one")).result() == 41
    assert calls == []


async def test_a_locked_own_database_is_an_attempt_that_failed(open_app, tmp_path):
    path = tmp_path / "business.db"

    @transaction(on=f"sqlite:///{path}", retry=Retry(attempts=50, first="5ms", factor=1))
    def book(tx: sqlite3.Connection, what: str) -> int:
        if not released.is_set():
            released.set()
            raise sqlite3.OperationalError("database is locked")
        return _book(tx, what)

    released = threading.Event()

    @process
    async def order() -> int:
        return await book("a")

    async with open_app() as app:
        assert await (await app.start(order)).result() == 1


def test_wrong_declarations_are_refused():
    with pytest.raises(DefinitionError, match="is async: SQLite's driver isn't; write def"):

        @transaction
        async def book(tx: Any) -> None: ...

    with pytest.raises(DefinitionError, match="give sqlite:///path"):
        transaction(on="mysql://x")(lambda tx: None)

    with pytest.raises(DefinitionError, match="takes no connection"):

        @transaction
        def takes_nothing() -> None: ...


def test_outside_a_process_a_transaction_is_the_plain_function_without_its_connection(tmp_path):
    @transaction
    def book(tx: sqlite3.Connection, what: str) -> int:
        return _book(tx, what)

    with sqlite3.connect(":memory:") as connection:
        assert book.function(connection, "a") == 1


async def test_starting_and_publishing_with_a_transaction_of_the_users_own(open_app, until):
    class Paid(Event):
        order: str

    @process
    async def ship(order: str) -> str:
        await wait_for(Paid, order=order)
        return f"shipped {order}"

    async with open_app(limits=Limits(poll_seconds=0.05)) as app:
        connection = sqlite3.connect(open_app.path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        _book(connection, "undone")
        await app.start(ship, "1", id="one", tx=connection)
        connection.execute("ROLLBACK")
        connection.execute("BEGIN IMMEDIATE")
        _book(connection, "done")
        await app.start(ship, "2", id="two", tx=connection)
        connection.execute("COMMIT")
        connection.execute("BEGIN IMMEDIATE")
        await app.publish(Paid("2"), tx=connection)
        connection.execute("COMMIT")
        connection.close()
        run = app.get("two", str)
        assert await run.result() == "shipped 2"
        assert await app.counts() == {"completed": 1}
    assert ledger(open_app.path) == ["done"]
