"""Where it is kept: one folder a store, SQL in files, numbered migrations.

A store knows batches and rows. It never knows processes, steps or what an entry means.
"""

from __future__ import annotations

from typing import cast

from dalsegno.errors import UsageError
from dalsegno.kernel.ports import Store


def open_store(store: str | Store) -> Store:
    """The store of a URL: "sqlite:///orders.db" (a path; four slashes for an absolute one), "memory://", "postgresql://…".

    An address of PostgreSQL may have the options `schema`, `pooled` and `listen`, and those of its driver.
    """
    if not isinstance(store, str):
        if not hasattr(store, "commit"):
            raise UsageError(f"{store!r} is no store: give a URL such as 'sqlite:///orders.db'")
        return store
    scheme, found, rest = store.partition("://")
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        from dalsegno.stores.sqlite.store import SqliteStore

        path, _, options = rest[1:].partition("?")
        if options not in ("", "durability=power", "durability=process"):
            raise UsageError(f"{store!r}: the only option is durability=power or durability=process")
        return cast("Store", SqliteStore(path, "process" if options.endswith("process") else "power"))
    if scheme in ("postgresql", "postgres") and rest:
        return _open_postgres(store)
    if scheme == "memory" and found:
        from dalsegno.stores.memory.store import MemoryStore

        return cast("Store", MemoryStore())
    raise UsageError(
        f"{store!r} isn't a store: write sqlite:///orders.db, postgresql://user@host/database, or memory:// for a test"
    )


def _open_postgres(url: str) -> Store:
    try:
        from dalsegno.stores.postgres.store import PostgresStore
    except ImportError as error:
        raise UsageError("PostgreSQL needs its driver: install dalsegno[postgres]") from error
    return cast("Store", PostgresStore(url))
