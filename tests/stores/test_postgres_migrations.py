"""The schema's history: numbered migrations, applied once, beside nodes that are at work; and who may do what."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import psycopg
import pytest
from postgres_nodes import client, node, sql

import dalsegno.stores.postgres
import dalsegno.stores.sqlite
from dalsegno.errors import MigrationError, StoreError
from dalsegno.stores.postgres import migrate as migrations
from dalsegno.stores.postgres import roles, upkeep
from dalsegno.stores.postgres.migrate import Migration
from dalsegno.testing.store_suite import material as m

if TYPE_CHECKING:
    from dalsegno.testing.servers import PostgresServer

SECOND = Migration(9001, "colours", "ALTER TABLE dalsegno.instances ADD COLUMN colour text")
THIRD = Migration(9002, "shapes", "ALTER TABLE dalsegno.instances ADD COLUMN shape text")
OURS = migrations.known()


def knowing(*more: Migration) -> object:
    return patch.object(migrations, "known", lambda: [*OURS, *more])


async def test_the_first_node_makes_the_schema_and_the_next_ones_find_it(postgres_url: str) -> None:
    for _ in range(2):
        async with node(postgres_url):
            pass
    assert sql(postgres_url, "SELECT number, name FROM dalsegno.migrations") == [(m.number, m.name) for m in OURS]


async def test_nodes_that_start_at_once_make_the_schema_once(postgres_url: str) -> None:
    async def start(name: str) -> None:
        async with node(postgres_url, name) as store:
            await m.begin(store, name)

    await asyncio.gather(*(start(f"node-{n}") for n in range(6)))

    assert sql(postgres_url, "SELECT count(*) FROM dalsegno.instances") == [(6,)]


async def test_a_client_makes_nothing(postgres_url: str) -> None:
    with pytest.raises(StoreError, match="dalsegno db migrate"):
        async with client(postgres_url):
            pass
    assert sql(postgres_url, "SELECT to_regnamespace('dalsegno')") == [(None,)]


async def test_a_new_version_migrates_beside_a_node_that_is_at_work(postgres_url: str) -> None:
    async with node(postgres_url, "old") as old:
        [key] = await m.begin(old, "order-1")
        with knowing(SECOND):  # type: ignore[attr-defined]
            async with node(postgres_url, "new") as new:
                await m.write(old, rows=[(key, 1, m.BEGIN, "step_completed", b"{}")])
                await m.begin(new, "order-2")
        async with node(postgres_url, "old again") as again:
            await m.begin(again, "order-3")
        async with client(postgres_url) as beside:
            assert await beside.counts(None) == {"running": 3}


async def test_two_migrations_more_than_known_are_too_many(postgres_url: str) -> None:
    with knowing(SECOND, THIRD):  # type: ignore[attr-defined]
        async with node(postgres_url):
            pass
    with pytest.raises(MigrationError, match="9001_colours, 9002_shapes"):
        async with node(postgres_url):
            pass


async def test_a_client_that_is_newer_than_the_schema_says_so(postgres_url: str) -> None:
    async with node(postgres_url):
        with knowing(SECOND), pytest.raises(StoreError, match="older schema"):  # type: ignore[attr-defined]
            async with client(postgres_url):
                pass


async def test_a_migration_that_was_changed_is_refused(postgres_url: str) -> None:
    async with node(postgres_url):
        pass
    sql(postgres_url, "UPDATE dalsegno.migrations SET checksum = 'other'")
    with pytest.raises(MigrationError, match="another text"):
        async with node(postgres_url):
            pass


async def test_a_migration_that_fails_leaves_nothing_of_itself(postgres_url: str) -> None:
    broken = Migration(9001, "broken", "CREATE TABLE dalsegno.half (a int); SELECT 1 / 0")
    with knowing(broken), pytest.raises(StoreError, match="division by zero"):  # type: ignore[attr-defined]
        await opened(postgres_url)
    assert sql(postgres_url, "SELECT to_regclass('dalsegno.half'), count(*) FROM dalsegno.migrations") == [
        (None, len(OURS))
    ]
    async with node(postgres_url) as store:
        await m.begin(store, "order-1")


async def test_a_migration_that_gets_no_lock_lets_the_nodes_go_on(postgres_url: str) -> None:
    async with node(postgres_url, "old") as old:
        with psycopg.connect(postgres_url) as reader, knowing(SECOND):  # type: ignore[attr-defined]
            reader.execute("SELECT count(*) FROM dalsegno.instances")
            with patch.object(migrations, "_LOCK_MILLISECONDS", 50):
                new = asyncio.create_task(opened(postgres_url))
                for number in range(5):
                    await m.begin(old, f"order-{number}")
                    await asyncio.sleep(0.05)
                assert not new.done()
                reader.rollback()
                await new


async def opened(url: str) -> None:
    async with node(url, "new"):
        pass


async def test_the_roles_script_gives_no_more_than_is_needed(postgres: PostgresServer, postgres_url: str) -> None:
    migrator, app = "store_migrator", "store app"
    async with node(postgres_url):
        pass
    text = roles.script("dalsegno", app, migrator)
    for _ in range(2):
        postgres.query(text, postgres_url.rpartition("/")[2])
    postgres.query(f'ALTER ROLE "{app}" LOGIN; ALTER ROLE {migrator} LOGIN')
    as_app = postgres_url.replace("postgres@", "store%20app@")

    async with node(as_app, "app") as store, client(as_app) as beside:
        [key] = await m.begin(store, "order-1")
        await m.write(store, waits=[m.wait(key)], messages=[m.message()])
        await beside.write(m.batch(starts=[m.start("order-2")], events=[m.event("event-1")]))
        assert len(await store.matches()) == 1
    for forbidden in ("DROP TABLE dalsegno.journal", "TRUNCATE dalsegno.journal", "CREATE TABLE dalsegno.mine (a int)"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            sql(as_app, forbidden)
    with knowing(SECOND):  # type: ignore[attr-defined]
        with pytest.raises(StoreError, match="dalsegno db roles"):
            await opened(as_app)
        await opened(postgres_url.replace("postgres@", f"{migrator}@"))
        await opened(as_app)


async def test_upkeep_migrates_and_finds_what_is_broken(postgres_url: str) -> None:
    assert "0001_foundation" in upkeep.check(postgres_url)[0]
    assert upkeep.migrate(postgres_url) == [f"{m.number:04d}_{m.name}" for m in OURS]
    assert upkeep.migrate(postgres_url) == []
    async with node(postgres_url) as store:
        [key] = await m.begin(store, "order-1")
        assert upkeep.check(postgres_url) == []
        await m.write(store, rows=[(key, 2, m.BEGIN, "step_completed", b"no kind")], waits=[m.wait(key + 1)])
        found = upkeep.check(postgres_url)
    sql(postgres_url, "UPDATE dalsegno.nodes SET ended_at = NULL")

    assert [line.partition(":")[0] for line in found[:1]] == ["instance order-1"]
    assert len(found) == 3
    assert "may write nothing" in upkeep.check(postgres_url)[-1]


def test_the_stores_have_the_same_statements() -> None:
    def names(package: object) -> set[str]:
        return {file.name for file in (Path(package.__path__[0]) / "queries").glob("*.sql")}  # type: ignore[attr-defined]

    assert names(dalsegno.stores.postgres) == names(dalsegno.stores.sqlite)
