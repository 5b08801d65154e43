"""Which versions of the code are still needed, and which can go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from dalsegno.kernel.ports import Deployment, Standing, Store
from dalsegno.observe.view import OPEN, codes_of, moment


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a process: its instances, the nodes that have its code, and what follows from that."""

    process: str
    version: int
    #: whether there is no newer one
    newest: bool
    running: int
    waiting: int
    paused: int
    parked: int
    ended: int
    #: when the oldest instance that has not ended was started
    oldest: datetime | None
    #: names of the living nodes that have its code
    nodes: list[str]
    verdict: str

    @property
    def left(self) -> int:
        """Instances that have not ended."""
        return self.running + self.waiting + self.paused + self.parked


_Code = tuple[str, int]


async def versions_of(store: Store) -> list[Version]:
    """Every version that has instances in the store or code on a living node, in all namespaces."""
    now = store.now()
    codes = codes_of(await store.nodes(), now)
    counted = await store.deployments(None)
    oldest = _oldest(await store.standing(now))
    known = sorted({*codes, *((row.process, row.version) for row in counted)})
    newest = dict(known)
    counts = _counts(counted)
    return [
        _version(code, counts.get(code, {}), oldest.get(code), codes.get(code, []), newest[code[0]] == code[1])
        for code in known
    ]


def _counts(rows: Iterable[Deployment]) -> dict[_Code, dict[str, int]]:
    found: dict[_Code, dict[str, int]] = {}
    for row in rows:
        found.setdefault((row.process, row.version), {})[row.status] = row.instances
    return found


def _oldest(rows: Sequence[Standing]) -> dict[_Code, int]:
    found: dict[_Code, int] = {}
    for row in rows:
        code = (row.process, row.version)
        found[code] = min(row.oldest_at, found.get(code, row.oldest_at))
    return found


def _version(code: _Code, counts: dict[str, int], oldest: int | None, nodes: list[str], newest: bool) -> Version:
    left = {status: counts.get(status, 0) for status in OPEN}
    since = None if oldest is None else moment(oldest)
    return Version(
        process=code[0],
        version=code[1],
        newest=newest,
        **left,
        ended=sum(counts.values()) - sum(left.values()),
        oldest=since,
        nodes=sorted(nodes),
        verdict=_verdict(sum(left.values()), since, bool(nodes), newest),
    )


def _verdict(left: int, since: datetime | None, has_node: bool, newest: bool) -> str:
    if left and not has_node:
        return f"no node has its code: {left} instance{'s wait' if left > 1 else ' waits'}"
    if left and not newest:
        return f"still {left}: oldest since {'a moment ago' if since is None else f'{since:%Y-%m-%d %H:%M:%SZ}'}"
    if not newest:
        return "can go: nothing left"
    return f"newest: {left} under way" if left else "newest: nothing under way"
