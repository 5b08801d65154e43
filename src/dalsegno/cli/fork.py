"""`dalsegno fork`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from dalsegno.cli.control import each
from dalsegno.cli.place import HERE, By, Place, who
from dalsegno.instance import Run


async def fork(
    id: Annotated[str, Parameter(help="The instance to copy.")],
    /,
    *,
    step: Annotated[str | None, Parameter(help="The copy stands before this step ended: charge, or charge#2.")] = None,
    new_id: Annotated[str | None, Parameter(help="The id of the copy.")] = None,
    by: By = None,
    place: Place = HERE,
) -> int:
    """Start a copy of an instance that goes on from a step of it."""

    async def act(run: Run[object]) -> str:
        return (await run.fork(step=step, id=new_id, by=who(by))).id

    return await each([id], place, "fork", "goes on in a copy:", act)
