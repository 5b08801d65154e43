"""`dalsegno terminate`."""

from __future__ import annotations

from dalsegno.cli.control import Ids, each
from dalsegno.cli.place import HERE, By, Place, Reason, who


async def terminate(ids: Ids, /, *, reason: Reason = None, by: By = None, place: Place = HERE) -> int:
    """End instances at once; nothing is undone."""
    return await each(ids, place, "terminate", "is terminated", lambda run: run.terminate(reason, who(by)))
