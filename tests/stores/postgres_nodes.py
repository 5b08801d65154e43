"""Stores of PostgreSQL for tests: several nodes on one database, and time that passes at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import psycopg

from dalsegno.kernel.ports import Store
from dalsegno.stores.postgres.store import PostgresStore

LONG_SECONDS = 600.0


@asynccontextmanager
async def node(url: str, name: str = "north", lease_seconds: float = LONG_SECONDS) -> AsyncIterator[Store]:
    """An owning store, closed at the end."""
    store = PostgresStore(url)
    await store.open(owner=True, name=name, lease_seconds=lease_seconds)
    try:
        yield cast("Store", store)
    finally:
        await store.close()


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Store]:
    """A store beside the nodes, closed at the end."""
    store = PostgresStore(url)
    await store.open(owner=False, name="client", lease_seconds=0)
    try:
        yield cast("Store", store)
    finally:
        await store.close()


def sql(url: str, text: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run a statement past the stores."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(text, values)
        return cursor.fetchall() if cursor.description else []


def lease_ends(url: str, store: Store) -> None:
    """Let the time of a node's lease pass."""
    sql(url, "UPDATE dalsegno.nodes SET lease_until = 0 WHERE epoch = %s", store.epoch)
