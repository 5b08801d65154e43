"""`dalsegno retry`."""

from __future__ import annotations

from dalsegno.cli.control import Ids, each
from dalsegno.cli.place import HERE, By, Place, Reason, who


async def retry(ids: Ids, /, *, reason: Reason = None, by: By = None, place: Place = HERE) -> int:
    """Go on with failed or stopped instances from their failure; what was undone is done anew."""
    return await each(ids, place, "retry", "goes on from its failure", lambda run: run.retry(reason, who(by)))
