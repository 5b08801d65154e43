"""`dalsegno cancel`."""

from __future__ import annotations

from dalsegno.cli.control import Ids, each
from dalsegno.cli.place import HERE, By, Place, Reason, who


async def cancel(ids: Ids, /, *, reason: Reason = None, by: By = None, place: Place = HERE) -> int:
    """Ask instances to stop; what they did in sagas is undone."""
    return await each(ids, place, "cancel", "is told to stop", lambda run: run.cancel(reason, who(by)))
