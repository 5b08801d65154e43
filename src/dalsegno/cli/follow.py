"""What happens to an instance, as it happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from dalsegno.app import App
from dalsegno.instance import Instance, Run
from dalsegno.kernel import entries as e
from dalsegno.kernel.ports import FINAL

_LOOK_SECONDS = 1.0
_AT_MOST_EVERY_SECONDS = 0.1


async def follow(app: App, run: Run[Any]) -> AsyncGenerator[tuple[Instance, Sequence[e.Record]], None]:
    """The instance and its new entries, whenever something was written, until it has ended."""
    last = -1
    async for _ in changes(app):
        # The instance first: once it has ended, the entries read after it are all there are.
        instance = await run.describe()
        fresh = await run.history(after=last)
        last = fresh[-1].seq if fresh else last
        yield instance, fresh
        if instance.status in FINAL:
            return


async def changes(app: App) -> AsyncGenerator[None, None]:
    """Now, and whenever something was written to the store or a second is over; ten times a second at most."""
    while True:
        changed = asyncio.ensure_future(app.changed(_LOOK_SECONDS))
        try:
            yield
            await changed
        finally:
            changed.cancel()
        await asyncio.sleep(_AT_MOST_EVERY_SECONDS)
