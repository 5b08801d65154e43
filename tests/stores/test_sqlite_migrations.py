"""Migrations: numbered, checked, each whole or not at all."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from dalsegno import MigrationError, StoreError, StoreOwned
from dalsegno.stores.sqlite import migrate as migrations
from dalsegno.stores.sqlite import store as store_module
from dalsegno.stores.sqlite.migrate import Migration
from dalsegno.stores.sqlite.store import SqliteStore

NEXT = "CREATE TABLE later (number INTEGER);\nINSERT INTO later VALUES (1);\n"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "orders.db")


@pytest.fixture
def later_version(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A version of Dalsegno with one migration more: the text in the list, while there is one."""
    texts = [NEXT]
    ours = migrations.known()

    def known() -> list[Migration]:
        return [*ours, *(Migration(ours[-1].number + 1, "later", text) for text in texts)]

    for module in (migrations, store_module):
        monkeypatch.setattr(module, "known", known)
    return texts


async def open_and_close(path: str, owner: bool = True) -> None:
    store = SqliteStore(path)
    await store.open(owner=owner, name="node", lease_seconds=10)
    await store.close()


def rows(path: str, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def change(path: str, query: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(query)


async def test_a_new_file_gets_every_migration_once(path: str) -> None:
    await open_and_close(path)
    applied = rows(path, "SELECT number, name, checksum, applied_at FROM migrations")
    await open_and_close(path)

    assert [row[:3] for row in applied] == [(m.number, m.name, m.checksum) for m in migrations.known()]
    assert rows(path, "SELECT number, name, checksum, applied_at FROM migrations") == applied


async def test_an_older_file_is_migrated_by_its_next_owner(path: str, later_version: list[str]) -> None:
    text = later_version.pop()
    await open_and_close(path)
    later_version.append(text)
    await open_and_close(path)

    assert rows(path, "SELECT number FROM later") == [(1,)]


async def test_a_migration_that_changed_after_it_was_applied_is_refused(path: str) -> None:
    await open_and_close(path)
    change(path, "UPDATE migrations SET checksum = 'another' WHERE number = 1")

    with pytest.raises(MigrationError, match=r"applied with another text.*install the version"):
        await open_and_close(path)


async def test_a_file_of_a_newer_version_is_refused_by_owner_and_client(path: str) -> None:
    await open_and_close(path)
    change(path, "INSERT INTO migrations VALUES (9999, 'from_the_future', 'x', 0)")

    for owner in (True, False):
        with pytest.raises(MigrationError, match=r"9999_from_the_future.*newer version"):
            await open_and_close(path, owner)
    assert rows(path, "SELECT count(*) FROM nodes") == [(1,)]


async def test_a_client_leaves_an_older_file_alone(path: str, later_version: list[str]) -> None:
    text = later_version.pop()
    await open_and_close(path)
    later_version.append(text)

    with pytest.raises(StoreError, match="dalsegno db migrate"):
        await open_and_close(path, owner=False)
    assert rows(path, "SELECT name FROM sqlite_master WHERE name = 'later'") == []


async def test_a_migration_that_fails_in_the_middle_leaves_nothing(path: str, later_version: list[str]) -> None:
    later_version[0] = NEXT + "INSERT INTO nowhere VALUES (1);\n"
    with pytest.raises(StoreError, match="nowhere"):
        await open_and_close(path)

    assert rows(path, "SELECT name FROM sqlite_master WHERE name = 'later'") == []
    later_version[0] = NEXT
    await open_and_close(path)
    assert rows(path, "SELECT number FROM later") == [(1,)]


async def test_an_engine_at_work_keeps_the_schema_it_knows(path: str, later_version: list[str]) -> None:
    text = later_version.pop()
    at_work = SqliteStore(path)
    await at_work.open(owner=True, name="at work", lease_seconds=600)
    later_version.append(text)

    with pytest.raises(StoreOwned, match="at work"):
        await open_and_close(path)
    assert rows(path, "SELECT name FROM sqlite_master WHERE name = 'later'") == []

    await at_work.close()
    await open_and_close(path)
    assert rows(path, "SELECT number FROM later") == [(1,)]


_DIE = """
import asyncio, os, signal, sys
from dalsegno.kernel import points
from dalsegno.stores.sqlite import migrate
from dalsegno.stores.sqlite.store import SqliteStore

path, wanted = sys.argv[1:]
statements = migrate._statements

def die(point):
    if point == wanted:
        os.kill(os.getpid(), signal.SIGKILL)

def dying(sql):
    for number, statement in enumerate(statements(sql)):
        die(f"statement {number}")
        yield statement

points.armed = die
migrate._statements = dying
asyncio.run(SqliteStore(path).open(owner=True, name="dies", lease_seconds=10))
"""


@pytest.mark.parametrize("point", ["migrate.before", "statement 1", "statement 7", "migrate.after"])
def test_a_migration_that_is_killed_is_done_whole_by_the_next_owner(path: str, point: str) -> None:
    killed = subprocess.run([sys.executable, "-c", _DIE, path, point], check=False)
    assert killed.returncode == -signal.SIGKILL

    asyncio.run(open_and_close(path))
    assert len(rows(path, "SELECT number FROM migrations")) == len(migrations.known())
    assert rows(path, "SELECT name, ended_at IS NULL FROM nodes") == [("node", 0)]
