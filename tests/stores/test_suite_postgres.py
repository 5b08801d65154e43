"""The PostgreSQL store passes the suite."""

from __future__ import annotations

from typing import cast

import psycopg
import pytest

from dalsegno.kernel.ports import Store
from dalsegno.stores.postgres.store import PostgresStore
from dalsegno.testing.store_suite import Place, StoreSuite


class PostgresPlace:
    """A database."""

    def __init__(self, url: str) -> None:
        self.url = url

    def store(self) -> Store:
        return cast("Store", PostgresStore(self.url))

    async def kill(self, store: Store) -> None:
        dying = cast("PostgresStore", store)
        # What time does when a process dies: its lease isn't renewed, and ends. Nobody has to wait for that here.
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("UPDATE dalsegno.nodes SET lease_until = 0 WHERE epoch = %s", (dying.epoch,))
        dying._epoch = None
        await dying.close()


class TestPostgresStore(StoreSuite):
    @pytest.fixture
    def place(self, postgres_url: str) -> Place:
        return PostgresPlace(postgres_url)
