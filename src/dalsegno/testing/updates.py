"""Updates that survive a crash between the request and its reply."""

from __future__ import annotations

import asyncio
from typing import Any

from dalsegno.engine.requests import Reply, Request
from dalsegno.errors import Refused
from dalsegno.kernel import entries as e
from dalsegno.testing.life import LabApp
from dalsegno.testing.run import LabRun

_LOOK_SECONDS = 1.0


async def ask(app: LabApp, run: LabRun[Any], request: Request) -> Any:
    """Send a request, unless an earlier node journaled it: then its reply is waited for."""
    if not any(isinstance(entry, e.UpdateReceived) and entry.update == request.update for entry in run.journal.entries):
        return await app._open().request("update", app.namespace, run.id, request)
    while (reply := _reply(run, request)) is None:
        if run.describe().ended_at is not None:
            raise Refused(f"instance {run.id!r} ended before it replied")
        await asyncio.sleep(_LOOK_SECONDS)
    return reply.read()


def _reply(run: LabRun[Any], request: Request) -> Reply | None:
    for entry in run.journal.entries:
        if isinstance(entry, e.UpdateReplied) and entry.update == request.update:
            return Reply(value=entry.reply, error=entry.error)
    return None
