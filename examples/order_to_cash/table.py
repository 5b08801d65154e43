"""Shows the progress: a live table on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from examples.order_to_cash.progress import Snapshot
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

LINE_EVERY = 5.0
LONGEST_ETA = 600.0
STATUSES = ("running", "waiting", "completed", "cancelled", "failed", "parked")
SEEN = ("requests", "repeats", "errors", "lost_replies", "throttled", "outages")


class Display:
    """The progress, for whoever looks."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._next_line = 0.0

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Show the latest state."""
        if self._live:
            self._live.update(Group(headline(snapshot), statuses(snapshot), services(snapshot)), refresh=True)
        elif snapshot.seconds >= self._next_line:
            self._next_line = snapshot.seconds + LINE_EVERY
            self.tell(line(snapshot))

    def finish(self, snapshot: Snapshot) -> None:
        """Show the last state."""
        self._next_line = 0.0
        self.show(snapshot)

    def tell(self, text: str) -> None:
        """Say what happens now."""
        self._console.print(text, highlight=False, soft_wrap=True)


def line(snapshot: Snapshot) -> str:
    """The state as one line."""
    counted = "  ".join(f"{status} {count}" for status, count in sorted(snapshot.counts.items()) if count)
    return f"{_summary(snapshot)}  {counted}"


def headline(snapshot: Snapshot) -> Text:
    """The state in short."""
    return Text(_summary(snapshot), style="bold")


def _summary(snapshot: Snapshot) -> str:
    eta = "?" if snapshot.eta is None or snapshot.eta > LONGEST_ETA else f"{snapshot.eta:.0f} s"
    return (
        f"{snapshot.seconds:5.0f} s  {snapshot.closed}/{snapshot.orders} orders closed"
        f"  {snapshot.rate:.0f}/s  ETA {eta}  retries {snapshot.retries}"
    )


def statuses(snapshot: Snapshot) -> Table:
    """Processes by status."""
    table = Table("status", *STATUSES)
    table.add_row("processes", *(str(snapshot.counts.get(status, 0)) for status in STATUSES))
    return table


def services(snapshot: Snapshot) -> Table:
    """What each service had to do, and what it did badly."""
    table = Table("service", *(name.replace("_", " ") for name in SEEN))
    for name, figures in snapshot.stats.items():
        table.add_row(name, *(str(figures.get(seen, 0)) for seen in SEEN))
    return table
