"""The view as Prometheus reads it. The labels are bounded: nodes, namespaces, statuses, outcomes, queues."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from dalsegno.engine.figures import COMMIT_ENTRIES, COMMIT_SECONDS, Figures, Spread
from dalsegno.errors import UsageError
from dalsegno.observe.view import NodeView, View

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_LOOK_SECONDS = 5.0
Look = Callable[[], Awaitable[View]]

_NODE_COUNTERS: dict[str, tuple[str, Callable[[Figures], float]]] = {
    "instances_started": ("Instances started.", lambda figures: figures.started),
    "instances_parked": ("Times an instance was set aside.", lambda figures: figures.parked),
    "entries": ("Journal entries written.", lambda figures: figures.entries),
    "steps_completed": ("Steps that were done.", lambda figures: figures.steps_done),
    "steps_failed": ("Steps that failed for good.", lambda figures: figures.steps_failed),
    "step_attempts_failed": ("Attempts that failed and are tried again.", lambda figures: figures.steps_retried),
}
_NODE_GAUGES: dict[str, tuple[str, Callable[[Figures], float]]] = {
    "steps_running": ("Steps that run.", lambda figures: figures.steps_open - figures.steps_backlog),
    "steps_backlog": ("Steps that wait for room.", lambda figures: figures.steps_backlog),
    "resident_instances": ("Instances in memory.", lambda figures: figures.residents),
    "waking_instances": ("Instances that wait to be loaded.", lambda figures: figures.waking),
    "timer_lag_seconds": ("How late the latest timer rang.", lambda figures: figures.timer_lag_seconds),
    "loop_lag_seconds": ("How late the event loop was at most.", lambda figures: figures.loop_lag_seconds),
    "resident_memory_bytes": ("Memory the node holds.", lambda figures: figures.memory_bytes),
}


class Collector:
    """Gives Prometheus a view at each scrape. Of a node's own store it shows that node, beside nodes all of them."""

    def __init__(self, look: Callable[[], View]) -> None:
        self._look = look

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: registering needs no look."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metrics of this moment."""
        view = self._look()
        nodes = _nodes(view)
        yield from _of_the_store(view)
        yield _gauge(
            "node_up", "Whether a node holds its lease.", {(n.name,): n.state == "living" for n in nodes}, "node"
        )
        living = [node for node in nodes if node.state == "living"]
        yield _gauge(
            "node_lease_seconds", "How long a node's lease lasts.", {(n.name,): n.lease_seconds for n in living}, "node"
        )
        yield from _of_nodes(living)


def _nodes(view: View) -> list[NodeView]:
    """One node of each name, the newest."""
    found: dict[str, NodeView] = {}
    for node in view.nodes:
        if view.here is None or node.epoch == view.here:
            found.setdefault(node.name, node)
    return list(found.values())


def _of_the_store(view: View) -> Iterator[Metric]:
    instances = {(name, status): n for name, counts in view.instances.items() for status, n in counts.items()}
    yield _gauge("instances", "Instances that have not ended.", instances, "namespace", "status")
    parked = {(why,): count for why, count in view.stuck.parked.items()}
    yield _gauge("parked_instances", "Instances set aside, by what they wait for.", parked, "waiting_for")
    yield _gauge("overdue_instances", "Instances that nobody woke in time.", {(): view.stuck.overdue})
    yield _gauge("instances_without_code", "Instances no living node has code for.", {(): view.stuck.without_code})
    if view.queues is not None:
        depths = {(queue.queue,): queue.depth for queue in view.queues}
        yield _gauge("queue_depth", "Steps that wait in a queue.", depths, "queue")
        ages = {(queue.queue,): queue.age_seconds or 0.0 for queue in view.queues}
        yield _gauge("queue_age_seconds", "How long the first step of a queue waits.", ages, "queue")


def _of_nodes(nodes: Sequence[NodeView]) -> Iterator[Metric]:
    for name, (said, of) in _NODE_COUNTERS.items():
        yield _counter(name, said, {(node.name,): of(node.figures) for node in nodes}, "node")
    ended = {(node.name, outcome): n for node in nodes for outcome, n in node.figures.ended.items()}
    yield _counter("instances_ended", "Instances that ended, by outcome.", ended, "node", "outcome")
    for name, (said, of) in _NODE_GAUGES.items():
        yield _gauge(name, said, {(node.name,): of(node.figures) for node in nodes}, "node")
    times = {node.name: node.figures.commit_seconds for node in nodes}
    yield _histogram("commit_seconds", "How long commits took.", times, COMMIT_SECONDS)
    sizes = {node.name: node.figures.commit_entries for node in nodes}
    yield _histogram("commit_entries", "How many journal entries commits held.", sizes, COMMIT_ENTRIES)


_Samples = dict[tuple[str, ...], float] | dict[tuple[str, ...], int] | dict[Any, Any]


def _gauge(name: str, said: str, samples: _Samples, *labels: str) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(f"dalsegno_{name}", said, labels=labels)
    for values, number in samples.items():
        family.add_metric(values, number)
    return family


def _counter(name: str, said: str, samples: _Samples, *labels: str) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(f"dalsegno_{name}", said, labels=labels)
    for values, number in samples.items():
        family.add_metric(values, number)
    return family


def _histogram(name: str, said: str, spreads: dict[str, Spread], bounds: Sequence[float]) -> Metric:
    from prometheus_client.core import HistogramMetricFamily
    from prometheus_client.utils import floatToGoString

    family = HistogramMetricFamily(f"dalsegno_{name}", said, labels=["node"])
    limits = [*map(floatToGoString, bounds), "+Inf"]
    for node, spread in spreads.items():
        # Another release may count in other buckets; it shows no histogram then.
        if len(spread.buckets) == len(limits):
            counted = accumulate(spread.buckets)
            family.add_metric([node], [(limit, float(n)) for limit, n in zip(limits, counted, strict=True)], spread.sum)
    return family


def text_of(view: View) -> str:
    """A view in Prometheus's text format. Raises `UsageError` where the package for it is missing."""
    prometheus = _prometheus()
    registry = prometheus.CollectorRegistry()
    registry.register(Collector(lambda: view))
    return str(prometheus.generate_latest(registry).decode())


@asynccontextmanager
async def served(look: Look, host: str, port: int) -> AsyncIterator[str]:
    """Serve what a look sees over HTTP, at each scrape anew; gives the URL. Raises `UsageError`."""
    prometheus = _prometheus()
    loop = asyncio.get_running_loop()

    def seen() -> View:
        return asyncio.run_coroutine_threadsafe(_awaited(look), loop).result(_LOOK_SECONDS)

    registry = prometheus.CollectorRegistry()
    registry.register(Collector(seen))
    try:
        server, thread = prometheus.start_http_server(port, host, registry)
    except OSError as error:
        raise UsageError(f"metrics can't be served on {host}:{port} ({error}): choose another port or host") from error
    try:
        yield f"http://{host}:{server.server_port}/metrics"
    finally:
        # A scrape that is under way needs the loop: it isn't blocked meanwhile.
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        await asyncio.to_thread(thread.join)


async def _awaited(look: Look) -> View:
    return await look()


def _prometheus() -> Any:
    try:
        import prometheus_client
    except ImportError as error:
        raise UsageError(
            "metrics need the package prometheus-client: install it with pip install 'dalsegno[metrics]'"
        ) from error
    return prometheus_client
