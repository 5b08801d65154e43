"""What the demo says before and after: bad lines, the reconciliation, the slowest steps."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from examples.order_to_cash.orders import BadLine, OrderBook
from examples.order_to_cash.reconciliation import Reconciliation
from examples.order_to_cash.slowest import StepTimes
from rich.console import Console
from rich.table import Table

SHOWN = 12
"""So many line numbers or order ids are shown of a kind; the rest is in the files."""


def show_book(console: Console, book: OrderBook, path: Path) -> None:
    """Say what was read, and which lines were left out and why."""
    returns = book.returns
    console.print(
        f"{path.name}: {book.lines} lines, {len(book.orders)} orders, {len(returns)} returns by cancellation"
        f" ({sum(each.whole for each in returns)} of a whole order), {len(book.bad_lines)} lines left out",
        highlight=False,
    )
    for reason, numbers in _by_reason(book.bad_lines).items():
        console.print(f"  {len(numbers):5}  {reason}: lines {_some(numbers)}", highlight=False, soft_wrap=True)


def _by_reason(bad_lines: Iterable[BadLine]) -> dict[str, list[str]]:
    numbers: dict[str, list[str]] = defaultdict(list)
    for bad in bad_lines:
        numbers[bad.reason].append(str(bad.number))
    return numbers


def _some(values: list[str]) -> str:
    more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    return ", ".join(values[:SHOWN]) + more


def write_bad_lines(book: OrderBook, path: Path) -> None:
    """Write down every line that was left out."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["line", "reason", "detail"])
        writer.writerows((bad.number, bad.reason, bad.detail) for bad in book.bad_lines)


def show_reconciliation(console: Console, reconciliation: Reconciliation) -> None:
    """Say what the services' own databases hold, and whether it is what the order book asks for."""
    table = Table("from the databases of the four services", "", title="Reconciliation")
    table.columns[1].justify = "right"
    for name, figure in reconciliation.figures.items():
        table.add_row(name, f"{figure:,}")
    console.print(table)
    for text in _verdict(reconciliation):
        console.print(text, highlight=False, soft_wrap=True)


def _verdict(reconciliation: Reconciliation) -> Iterator[str]:
    if reconciliation.holds:
        yield "[green]The reconciliation holds.[/green]"
        return
    yield "[red]The reconciliation does not hold.[/red]"
    for rule, orders in reconciliation.mismatches.items():
        yield f"  not {rule}: {len(orders)} orders: {', '.join(orders)}"


def show_slowest(console: Console, slowest: list[StepTimes]) -> None:
    """Say where the time went."""
    table = Table("step", "times", "attempts", "median", "p95", "longest", title="Slowest steps")
    for each in slowest:
        seconds = (f"{value:.2f} s" for value in (each.median, each.p95, each.longest))
        table.add_row(each.step, str(each.times), str(each.attempts), *seconds)
    console.print(table)
