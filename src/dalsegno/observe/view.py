"""What goes on in a store at one moment: nodes, instances, queues, and what is stuck."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec

from dalsegno.engine.figures import Figures, figures_of, total
from dalsegno.kernel.ports import NodeInfo, Standing, Store
from dalsegno.kernel.work import QueueDepth

_OVERDUE_AFTER_SECONDS = 2.0
_REMEMBERED_SECONDS = 60.0
OPEN = ("running", "waiting", "paused", "parked")

NodeState = Literal["living", "lost its lease", "ended"]


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """A node, as far as its neighbours can see it."""

    name: str
    epoch: int
    host: str
    pid: int
    state: NodeState
    #: seconds its lease still lasts; less than zero where it is over
    lease_seconds: float
    started_at: datetime
    #: how many processes, by name and version, it has code for
    versions: int
    figures: Figures


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """Steps that wait in a named queue."""

    queue: str
    depth: int
    #: how long the first of them has waited
    age_seconds: float | None = None
    running: int | None = None


class Stuck(msgspec.Struct, frozen=True, kw_only=True):
    """What doesn't go on by itself."""

    #: how many instances are parked, by what they wait for
    parked: dict[str, int]
    #: waiting instances that were due and that nobody woke, and since when
    overdue: int
    overdue_since: datetime | None
    #: instances whose process and version no living node has code for
    without_code: int


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A store at one moment."""

    at: datetime
    nodes: list[NodeView]
    #: the figures of all living nodes
    total: Figures
    #: instances that have not ended, by namespace and status
    instances: dict[str, dict[str, int]]
    #: `None` where the store has no queues
    queues: list[Queue] | None
    stuck: Stuck
    #: the epoch of the node that looks, `None` beside the nodes
    here: int | None


async def view_of(store: Store) -> View:
    """Look at a store; what it costs grows with the instances that have not ended."""
    now = store.now()
    nodes = await store.nodes()
    rows = await store.standing(now - int(_OVERDUE_AFTER_SECONDS * 1e6))
    views = [_node_view(node, now) for node in nodes if _is_remembered(node, now)]
    return View(
        at=moment(now),
        nodes=views,
        total=total(node.figures for node in views if node.state == "living"),
        instances=_by_namespace(rows),
        queues=await _queues(store),
        stuck=_stuck(rows, codes_of(nodes, now)),
        here=store.epoch,
    )


def moment(at: int) -> datetime:
    """A time of the store's."""
    return datetime.fromtimestamp(at / 1e6, UTC)


def is_living(node: NodeInfo, now: int) -> bool:
    """Whether a node holds its lease."""
    return node.ended_at is None and node.lease_until > now


def codes_of(nodes: Sequence[NodeInfo], now: int) -> dict[tuple[str, int], list[str]]:
    """The names of the living nodes that have code, by process and version."""
    found: dict[tuple[str, int], list[str]] = {}
    for node in nodes:
        if is_living(node, now):
            for process, version in msgspec.json.decode(node.processes, type=list[tuple[str, int]]):
                found.setdefault((process, version), []).append(node.name)
    return found


def _is_remembered(node: NodeInfo, now: int) -> bool:
    return node.ended_at is None or node.ended_at > now - _REMEMBERED_SECONDS * 1e6


def _node_view(node: NodeInfo, now: int) -> NodeView:
    state: NodeState = "living" if is_living(node, now) else "lost its lease" if node.ended_at is None else "ended"
    return NodeView(
        name=node.name,
        epoch=node.epoch,
        host=node.host,
        pid=node.pid,
        state=state,
        lease_seconds=round((node.lease_until - now) / 1e6, 3),
        started_at=moment(node.started_at),
        versions=len(msgspec.json.decode(node.processes)),
        figures=figures_of(node.figures),
    )


def _by_namespace(rows: Sequence[Standing]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        statuses = found.setdefault(row.namespace, dict.fromkeys(OPEN, 0))
        statuses[row.status] += row.instances
    return found


def _stuck(rows: Sequence[Standing], codes: dict[tuple[str, int], list[str]]) -> Stuck:
    parked: dict[str, int] = {}
    for row in rows:
        if row.status == "parked":
            why = row.why or "nothing it has named"
            parked[why] = parked.get(why, 0) + row.instances
    since = min((row.overdue_since for row in rows if row.overdue_since is not None), default=None)
    return Stuck(
        parked=parked,
        overdue=sum(row.overdue for row in rows),
        overdue_since=None if since is None else moment(since),
        without_code=sum(row.instances for row in rows if (row.process, row.version) not in codes),
    )


async def _queues(store: Store) -> list[Queue] | None:
    found = [_queue(depth, store.now()) for depth in await store.queue_depths(None)]
    return found or None


def _queue(depth: QueueDepth, moment: int) -> Queue:
    name = depth.name if depth.namespace == "default" else f"{depth.namespace}/{depth.name}"
    age = None if depth.oldest_at is None else max(0.0, (moment - depth.oldest_at) / 1e6)
    return Queue(queue=name, depth=depth.ready, age_seconds=age, running=depth.running)
