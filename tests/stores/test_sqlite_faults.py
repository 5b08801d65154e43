"""What a disk can do to a SQLite file: the node stops clearly, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from dalsegno import App, Run, StoreCorrupt, StoreError, StoreFull, StoreIO, StoreLocked, process, step
from dalsegno.kernel.ports import Store
from dalsegno.stores.sqlite import connection as connection_module
from dalsegno.stores.sqlite.store import SqliteStore
from dalsegno.testing import chaos

PROGRAM = str(Path(__file__).parent / "engine_program.py")


@step
async def keep(text: str) -> int:
    return len(text)


@process
async def keeping_text(text: str) -> int:
    return await keep(text)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "orders.db")


def start_until_stopped(
    *arguments: str, wrap: tuple[str, ...] = (), environment: dict[str, str] | None = None
) -> tuple[list[str], str]:
    """Run an engine that meets a fault: the acknowledged ids, and what stopped it."""
    command = [*wrap, sys.executable, PROGRAM, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    lines = ran.stdout.splitlines()
    assert ran.returncode == 3, ran.stdout + ran.stderr
    return [line.removeprefix("ack ") for line in lines if line.startswith("ack ")], lines[-1]


async def completed(path: str) -> set[str]:
    """What the next node on the file makes of it."""
    async with App(f"sqlite:///{path}", processes=[keeping_text]) as app:
        found = {i.id async for i in app.list()}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return found


@contextlib.asynccontextmanager
async def small_file(path: str) -> AsyncIterator[App]:
    """An app whose file can't grow beyond eighty pages."""
    store = SqliteStore(path)
    async with App(cast("Store", store), processes=[keeping_text]) as app:
        await store._writer.call(lambda c: c.execute("PRAGMA max_page_count = 80").fetchall())
        yield app


async def test_a_disk_that_is_full_stops_the_node_and_loses_nothing(path: str) -> None:
    started: list[str] = []

    async def fill() -> None:
        async with small_file(path) as app:
            for number in itertools.count():
                started.append((await app.start(keeping_text, "x" * 2000, id=f"run-{number}")).id)

    with pytest.raises(StoreFull, match="free some space"):
        await fill()
    assert len(started) > 3
    assert set(started) <= await completed(path)


async def test_everybody_who_waits_learns_what_stopped_the_node(path: str) -> None:
    async def start_many() -> None:
        async with small_file(path) as app, asyncio.timeout(30):
            starts = [app.start(keeping_text, "x" * 2000, id=f"run-{number}") for number in range(200)]
            outcomes = await asyncio.gather(*starts, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} <= {Run, StoreFull}
            await app.stopped()

    with pytest.raises(StoreFull):
        await start_many()


def can_mount() -> bool:
    """Whether this process may have mounts of its own."""
    tried = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return os.geteuid() == 0 and tried.returncode == 0


needs_mounts = pytest.mark.skipif(not can_mount(), reason="needs the right to mount a file system of its own")


@needs_mounts
async def test_a_full_file_system_stops_the_node_and_loses_nothing(path: str, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    script = f'mount -t tmpfs -o size=1m none {small}; "$@"; code=$?; cp {small}/* {tmp_path}; exit $code'
    wrap = ("unshare", "-m", "sh", "-c", script, "sh")
    acknowledged, stopped = start_until_stopped(str(small / "orders.db"), "100000", wrap=wrap)

    assert stopped.startswith("stopped StoreFull")
    assert len(acknowledged) > 3
    assert set(acknowledged) <= await completed(path)


@needs_mounts
def test_a_read_only_place_is_refused_with_the_remedy(path: str, tmp_path: Path) -> None:
    script = f'mount --bind {tmp_path} {tmp_path}; mount -o remount,ro,bind {tmp_path}; "$@"'
    wrap = ("unshare", "-m", "sh", "-c", script, "sh")
    _, stopped = start_until_stopped(path, "1", wrap=wrap)

    assert stopped.startswith("stopped StoreIO")
    assert f"This user must be able to create and write files in {tmp_path}" in stopped


async def test_a_write_that_fails_stops_the_node_and_loses_nothing(path: str) -> None:
    # The file-size limit makes the kernel refuse the write, as a broken disk does.
    acknowledged, stopped = start_until_stopped(path, "100000", "--file-limit", "400000")

    assert stopped.startswith("stopped StoreIO")
    assert "only a restart knows what is stored" in stopped
    assert len(acknowledged) > 3
    assert set(acknowledged) <= await completed(path)


async def open_and_start(path: str) -> None:
    async with App(f"sqlite:///{path}", processes=[keeping_text]) as app:
        await (await app.start(keeping_text, "more")).result()


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
async def test_a_sync_that_fails_stops_the_node_although_sqlite_would_go_on(path: str, tmp_path: Path) -> None:
    environment = {**os.environ, "LD_PRELOAD": chaos.build(tmp_path)}
    acknowledged, stopped = start_until_stopped(path, "100000", "--fail-sync", "40", environment=environment)

    assert stopped.startswith("stopped StoreIO")
    assert 0 < len(acknowledged) <= 40
    assert set(acknowledged) <= await completed(path)


async def test_a_file_that_is_no_database_is_named(path: str) -> None:
    overwrite(path, 0, b"this is not a database, whatever its name says" * 100)

    with pytest.raises(StoreCorrupt, match="Restore a backup"):
        await open_and_start(path)


async def test_a_damaged_file_stops_the_node_when_it_is_met(path: str) -> None:
    async with App(f"sqlite:///{path}", processes=[keeping_text]) as app:
        for number in range(50):
            await app.start(keeping_text, "x" * 2000, id=f"run-{number}")
    overwrite(path, 4096, bytes(200_000))

    with pytest.raises(StoreCorrupt, match="dalsegno db check"):
        await open_and_start(path)


def overwrite(path: str, offset: int, data: bytes) -> None:
    with open(path, "r+b" if os.path.exists(path) else "wb") as file:
        file.seek(offset)
        file.write(data)


async def test_a_file_that_another_program_locks_stops_the_node_in_time(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "_BUSY_SECONDS", 0.1)

    async def start_beside_a_lock() -> None:
        async with App(f"sqlite:///{path}", processes=[keeping_text]) as app:
            await app.start(keeping_text, "one", id="before")
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                await app.start(keeping_text, "two", id="refused")

    with pytest.raises(StoreLocked, match="Another program holds a write lock"):
        await start_beside_a_lock()
    assert await completed(path) == {"before"}


async def test_a_lock_that_passes_is_waited_for(path: str) -> None:
    async with App(f"sqlite:///{path}", processes=[keeping_text]) as app:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            starting = asyncio.ensure_future(app.start(keeping_text, "one"))
            await asyncio.sleep(0)
            other.execute("COMMIT")
        assert await (await starting).result() == 3


def a_folder(folder: Path) -> Path:
    (folder / "orders.db").mkdir()
    return folder / "orders.db"


def a_file_for_a_folder(folder: Path) -> Path:
    (folder / "orders").write_text("")
    return folder / "orders" / "orders.db"


def a_folder_for_the_owners_lock(folder: Path) -> Path:
    (folder / "orders.db-owner").mkdir()
    return folder / "orders.db"


@pytest.mark.parametrize("hindrance", [a_folder, a_file_for_a_folder, a_folder_for_the_owners_lock])
async def test_a_path_that_cant_be_a_database_is_refused_with_the_remedy(
    tmp_path: Path, hindrance: Callable[[Path], Path]
) -> None:
    with pytest.raises(StoreIO, match="This user must be able to create and write files"):
        await open_and_start(str(hindrance(tmp_path)))


async def test_a_client_beside_nothing_is_told_to_start_a_node(path: str) -> None:
    with pytest.raises(StoreError, match="Start a node on it first"):
        async with App(f"sqlite:///{path}").client():
            pass
