"""`dalsegno top`."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

from cyclopts import Parameter
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dalsegno.app import App
from dalsegno.cli import screen
from dalsegno.cli.place import HERE, Here, Place, place_of
from dalsegno.cli.wording import length
from dalsegno.engine.figures import Figures, Spread
from dalsegno.observe.view import OPEN, NodeView, Queue, Stuck, View

_EVERY_SECONDS = 1.0
#: looking takes at most this part of the time, however large the store is
_SHARE = 0.1
_STATES = {"living": "green", "lost its lease": "bold red", "ended": "dim"}


async def top(
    store: Here = None,
    /,
    *,
    once: Annotated[bool, Parameter(help="Print it once, instead of again each second.")] = False,
    place: Place = HERE,
) -> None:
    """Watch nodes, instances and queues, and what is stuck, until Ctrl-C."""
    async with place_of(store, place).beside() as app:
        if once:
            _show(await app.view(), place.json)
        elif place.json or not screen.console().is_terminal:
            await _line_by_line(app, place.json)
        else:
            await _live(app)


def _show(view: View, as_json: bool) -> None:
    if as_json:
        screen.emit(view)
    else:
        screen.console().print(picture(view))


async def _line_by_line(app: App, as_json: bool) -> None:
    while True:
        began_at = time.monotonic()
        _show(await app.view(), as_json)
        await _breath(time.monotonic() - began_at)


async def _live(app: App) -> None:
    with Live(console=screen.console(), auto_refresh=False, screen=True, vertical_overflow="crop") as live:
        while True:
            began_at = time.monotonic()
            live.update(picture(await app.view()), refresh=True)
            await _breath(time.monotonic() - began_at)


async def _breath(took_seconds: float) -> None:
    await asyncio.sleep(max(_EVERY_SECONDS, took_seconds / _SHARE))


def picture(view: View) -> RenderableType:
    """All of it, for people."""
    parts: list[RenderableType] = [nodes_table(view), Text(), _work_table(view), Text(), _instances_table(view)]
    if view.queues:
        parts += [Text(), _queues_table(view.queues)]
    return Group(*parts, Text(), *_stuck_lines(view.stuck, view))


def nodes_table(view: View) -> Table:
    """The nodes, and what they hold."""
    table = screen.table(
        "NODE", "HOST", "PID", "STATE", "LEASE", "CODE", "RESIDENT", "STEPS", "BACKLOG", "MEMORY", "LOOP LAG",
        "TIMER LAG", "SEEN",
    )  # fmt: skip
    for node in view.nodes:
        table.add_row(node.name, node.host, str(node.pid), *_standing(node), *_held(node.figures), _seen(node, view))
    if len(view.nodes) > 1:
        table.add_row("all that live", *[""] * 5, *_held(view.total), "", style="bold")
    return table


def _standing(node: NodeView) -> tuple[Text, str, str]:
    lease = "" if node.state == "ended" else f"{node.lease_seconds:.0f} s"
    return Text(node.state, _STATES[node.state]), lease, f"{node.versions} versions"


def _held(figures: Figures) -> tuple[str, ...]:
    steps = str(figures.steps_open - figures.steps_backlog)
    waiting = f"{figures.steps_backlog} steps, {figures.waking} to load"
    memory = f"{figures.memory_bytes / 1e6:.0f} MB"
    lags = length(figures.loop_lag_seconds), length(figures.timer_lag_seconds)
    return str(figures.residents), steps, waiting, memory, *lags


def _seen(node: NodeView, view: View) -> str:
    if not node.figures.at:
        return "shows no figures yet"
    return f"{length(max(0.0, view.at.timestamp() - node.figures.at / 1e6))} ago"


def _work_table(view: View) -> Table:
    table = screen.table(
        "WORK", "STARTED/S", "ENDED/S", "STEPS/S", "COMMITS/S", "COMMIT P50", "P99", "ENTRIES P50", "P99", "STARTED",
        "COMPLETED", "FAILED", "STOPPED", "STEP FAILURES",
    )  # fmt: skip
    for node in view.nodes:
        table.add_row(node.name, *_work(node.figures, at_rest=node.state != "living"))
    if len(view.nodes) > 1:
        table.add_row("all that live", *_work(view.total), style="bold")
    return table


def _work(figures: Figures, *, at_rest: bool = False) -> tuple[str, ...]:
    rates, ended = figures.rates, figures.ended
    per_second = [rates.started, rates.ended, rates.steps, rates.commits]
    stopped = ended.get("cancelled", 0) + ended.get("terminated", 0)
    failed = figures.steps_failed + figures.steps_retried
    counts = [figures.started, ended.get("completed", 0), ended.get("failed", 0), stopped, failed]
    return (
        *("" if at_rest else f"{rate:,.1f}" for rate in per_second),
        *(_quantiles(figures.commit_seconds, in_time=True) if not at_rest else ("", "")),
        *(_quantiles(figures.commit_entries, in_time=False) if not at_rest else ("", "")),
        *(f"{count:,}" for count in counts),
    )


def _quantiles(spread: Spread, *, in_time: bool) -> tuple[str, str]:
    def told(value: float | None) -> str:
        return "" if value is None else length(value) if in_time else f"{value:,.0f}"

    return told(spread.p50), told(spread.p99)


def _instances_table(view: View) -> Table:
    table = screen.table("INSTANCES", *(status.upper() for status in OPEN), "")
    for namespace, counts in sorted(view.instances.items()):
        table.add_row(namespace, *(f"{counts[status]:,}" for status in OPEN), "")
    if not view.instances:
        table.add_row("none under way", *[""] * (len(OPEN) + 1))
    return table


def _queues_table(queues: list[Queue]) -> Table:
    table = screen.table("QUEUE", "DEPTH", "RUNNING", "OLDEST")
    for queue in queues:
        running = "" if queue.running is None else str(queue.running)
        age = "" if queue.age_seconds is None else f"waits for {length(queue.age_seconds)}"
        table.add_row(queue.queue, f"{queue.depth:,}", running, age)
    return table


def _stuck_lines(stuck: Stuck, view: View) -> list[Text]:
    lines = [Text(f"parked: {count} wait for {why}", "bold magenta") for why, count in sorted(stuck.parked.items())]
    if stuck.overdue_since is not None:
        late = length((view.at - stuck.overdue_since).total_seconds())
        lines.append(Text(f"overdue: {stuck.overdue} that should have been woken, the first {late} ago", "bold red"))
    if stuck.without_code:
        lines.append(Text(f"without code: {stuck.without_code} (dalsegno deployments says which)", "bold red"))
    if not any(node.state == "living" for node in view.nodes):
        lines.append(Text("no node runs on this store: nothing goes on until one does (dalsegno node)", "yellow"))
    return lines or [Text("nothing is stuck", "dim")]
