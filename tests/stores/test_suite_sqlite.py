"""The SQLite store passes the suite."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from dalsegno.kernel.ports import Store
from dalsegno.stores.sqlite.store import SqliteStore
from dalsegno.testing.store_suite import Place, StoreSuite


class SqlitePlace:
    """A file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def store(self) -> Store:
        return cast("Store", SqliteStore(str(self._path), "process"))

    async def kill(self, store: Store) -> None:
        dying = cast("SqliteStore", store)
        # What the operating system does when a process dies: its threads are gone and its lock is free.
        dying._epoch = None
        await dying.close()


class TestSqliteStore(StoreSuite):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return SqlitePlace(tmp_path / "orders.db")
