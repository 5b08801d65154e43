"""Which instances a verb means."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, TypeAlias, get_args

from cyclopts import Group, Parameter

from dalsegno.app import App
from dalsegno.cli.values import age, pairs
from dalsegno.errors import UsageError
from dalsegno.instance import Instance
from dalsegno.kernel.ports import Status

_GROUP = Group("Which", sort_key=80)
_Age: TypeAlias = str | None


@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True, kw_only=True)
class Selection:
    """The options that choose instances."""

    status: Annotated[list[str], Parameter(help="In this status; several times for several.")] = field(
        default_factory=list
    )
    process: Annotated[str | None, Parameter(help="Of this process.")] = None
    where: Annotated[
        list[str], Parameter(help="With this annotation, such as stage=packing; several times for all of them.")
    ] = field(default_factory=list)
    prefix: Annotated[str | None, Parameter(help="Whose id begins so.")] = None
    older_than: Annotated[_Age, Parameter(help="Started longer ago than this: 90s, 1h30m, 3d.")] = None
    newer_than: Annotated[_Age, Parameter(help="Started since: 90s, 1h30m, 3d.")] = None
    parent: Annotated[str | None, Parameter(help="Children of this instance.")] = None

    def of(self, app: App, limit: int | None = None) -> AsyncIterator[Instance]:
        """The instances of an app."""
        unknown = set(self.status) - set(get_args(Status))
        if unknown:
            raise UsageError(f"no status {', '.join(unknown)}: there are {', '.join(get_args(Status))}")
        return app.list(
            status=self.status,
            process=self.process,
            where=pairs(self.where, "--where"),
            id_prefix=self.prefix,
            older_than=age(self.older_than),
            newer_than=age(self.newer_than),
            parent=self.parent,
            limit=limit,
        )


ALL = Selection()
