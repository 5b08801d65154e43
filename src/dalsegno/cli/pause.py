"""`dalsegno pause`."""

from __future__ import annotations

from dalsegno.cli.control import Ids, each
from dalsegno.cli.place import HERE, By, Place, Reason, who


async def pause(ids: Ids, /, *, reason: Reason = None, by: By = None, place: Place = HERE) -> int:
    """Let instances begin no further step until they are resumed."""
    return await each(ids, place, "pause", "is paused", lambda run: run.pause(reason, who(by)))
