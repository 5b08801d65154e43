"""`dalsegno resume`."""

from __future__ import annotations

from dalsegno.cli.control import Ids, each
from dalsegno.cli.place import HERE, By, Place, Reason, who


async def resume(ids: Ids, /, *, reason: Reason = None, by: By = None, place: Place = HERE) -> int:
    """Let paused or parked instances go on."""
    return await each(ids, place, "resume", "goes on", lambda run: run.resume(reason, who(by)))
