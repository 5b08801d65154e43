"""Where the suite's stores are: what is written through one store is there for the next one of the place."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol

from dalsegno.kernel.ports import Batch, Committed, Store

LONG_SECONDS = 600.0
"""A lease that doesn't end within a test."""


class Place(Protocol):
    """What the suite needs in order to try a kind of store."""

    def store(self) -> Store:
        """A new store object on the place's data, not open yet."""

    async def kill(self, store: Store) -> None:
        """End an open store as the death of its process would: its lease is not given back."""


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make an `async def` test a plain one, which runs it on a loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@asynccontextmanager
async def owner(place: Place, name: str = "first", lease_seconds: float = LONG_SECONDS) -> AsyncIterator[Store]:
    """A store that owns the place, closed at the end."""
    store = place.store()
    await store.open(owner=True, name=name, lease_seconds=lease_seconds)
    try:
        yield store
    finally:
        await store.close()


async def take_over(store: Store, parking: int = 9, trial: int | None = None) -> list[int]:
    """Go on with what died, as an engine that starts: where a store is shared, an owner takes over when it looks."""
    poisoned = await store.mark_recovered(parking, trial)
    if store.shared:
        await store.running(0, 1_000)
        await store.suspects(trial or parking)
    return poisoned


@asynccontextmanager
async def client(place: Place) -> AsyncIterator[Store]:
    """A store beside the owner, closed at the end."""
    store = place.store()
    await store.open(owner=False, name="client", lease_seconds=0)
    try:
        yield store
    finally:
        await store.close()


async def commit(store: Store, batch: Batch) -> Committed:
    """Commit a batch and wait for it. Raises what the store reports."""
    done: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()

    def report(result: Committed | BaseException) -> None:
        if isinstance(result, BaseException):
            done.set_exception(result)
        else:
            done.set_result(result)

    store.commit(batch, report)
    return await done
