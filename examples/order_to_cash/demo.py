"""Order to cash, from an order book to the books of four services, through faults and a killed engine.

    python -m examples.order_to_cash.demo [--orders FILE] [--limit N] [--no-kill] [--outage-seconds S] [--keep DIR]

The exit code is 0 if the services' own databases agree with the order book, 1 if they do not, 2 if the
order book cannot be read, 3 if the demo itself broke down.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from examples.order_to_cash.company import Company
from examples.order_to_cash.orders import OrderBook, UnreadableOrders, read_orders
from examples.order_to_cash.progress import Progress, Snapshot
from examples.order_to_cash.reconciliation import Reconciliation, reconcile
from examples.order_to_cash.report import show_book, show_reconciliation, show_slowest, write_bad_lines
from examples.order_to_cash.slowest import slowest_steps
from examples.order_to_cash.supervisor import ProcessDied, World
from examples.order_to_cash.table import Display
from examples.order_to_cash.world.profile import faults_of_the_demo
from rich.console import Console

from dalsegno import App, StoreError

SHIPPED = Path(__file__).with_name("orders.csv")
OUTAGE_AT, KILL_AT = 0.15, 0.5
"""The share of closed orders at which the shipping provider fails, and at which the engine is killed."""
LOOKS_EVERY = 0.4
READY_WITHIN = 30.0
STALLED_AFTER = 120.0

AGREES, DISAGREES, BAD_INPUT, BROKE_DOWN = 0, 1, 2, 3


class Stalled(Exception):
    """Nothing moves any more."""


class Course:
    """What happens in the demo, one thing after the other, while somebody watches."""

    def __init__(self, options: argparse.Namespace, orders: int, world: World, company: Company, client: App) -> None:
        self._world, self._company, self._client = world, company, client
        self._outage_seconds: float = options.outage_seconds
        self._progress = Progress(orders)
        self._began = self._moved = time.monotonic()
        self._last: Snapshot | None = None
        self._acts: list[tuple[float, Callable[[Snapshot], str]]] = []
        if self._outage_seconds:
            self._acts.append((OUTAGE_AT, self._fail_shipping))
        if not options.no_kill:
            self._acts.append((KILL_AT, self._kill_engine))
        self._killed: tuple[float, int] | None = None

    async def run(self, display: Display) -> None:
        """Watch until the engine has seen every document through."""
        while self._company.engine.exit_code is None:
            snapshot = await self._look()
            display.show(snapshot)
            for text in self._act(snapshot):
                display.tell(text)
            await asyncio.sleep(LOOKS_EVERY)
        self._company.check()
        display.finish(await self._look())

    def _act(self, snapshot: Snapshot) -> Iterator[str]:
        if self._killed and snapshot.closed > self._killed[1]:
            yield f"orders are closed again {time.monotonic() - self._killed[0]:.1f} s after the engine was killed"
            self._killed = None
        while self._acts and snapshot.share >= self._acts[0][0]:
            yield self._acts.pop(0)[1](snapshot)

    async def _look(self) -> Snapshot:
        self._world.check()
        self._company.check()
        try:
            counts = await self._client.counts()
        except StoreError:
            counts = self._last.counts if self._last else {}  # the engine may just be starting
        stats = await asyncio.to_thread(self._world.stats)
        snapshot = self._progress.at(time.monotonic() - self._began, counts, stats)
        if self._last is None or (snapshot.counts, snapshot.closed) != (self._last.counts, self._last.closed):
            self._moved = time.monotonic()
        elif time.monotonic() - self._moved > STALLED_AFTER + self._outage_seconds:
            raise Stalled(f"nothing moves any more: {snapshot.counts}{await self._parked()}")
        self._last = snapshot
        return snapshot

    async def _parked(self) -> str:
        """The first instances that wait for an operator, and why."""
        found = [f"\n  {each.id}: {each.error}" async for each in self._client.list(status="parked", limit=5)]
        return "".join(found)

    def _fail_shipping(self, _: Snapshot) -> str:
        self._world.outage("shipping", self._outage_seconds)
        return f"the shipping provider is out for {self._outage_seconds:g} s"

    def _kill_engine(self, snapshot: Snapshot) -> str:
        self._company.engine.kill()
        closed = self._progress.closed(self._world.stats())
        self._killed = (time.monotonic(), closed)
        self._company.start_engine(self._world.endpoints)
        return f"the engine was killed (SIGKILL) and started again; {snapshot.in_flight} processes were under way"


async def play(options: argparse.Namespace, book: OrderBook, directory: Path, console: Console) -> Reconciliation:
    """Run the demo in a directory."""
    with (
        Company(directory, options.orders, options.limit, options.seed) as company,
        World(directory, faults_of_the_demo(options.seed), company.callbacks_to) as world,
    ):
        company.start_engine(world.endpoints)
        async with looking_at(company) as client:
            company.start_approver()
            with Display(console) as display:
                await Course(options, len(book.orders), world, company, client).run(display)
            show_slowest(console, await slowest_steps(client, "order_to_cash"))
    return reconcile(book, directory)


@asynccontextmanager
async def looking_at(company: Company) -> AsyncIterator[App]:
    """The store of a company, seen from another process, as soon as its engine has made it."""
    deadline = time.monotonic() + READY_WITHIN
    while True:
        company.check()
        app = App(company.store)
        try:
            async with app.client():
                await app.counts()
        except StoreError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)
        else:
            break
    async with app.client():
        yield app


@contextmanager
def place_for(keep: Path | None) -> Iterator[Path]:
    """The directory of the databases and logs: the one asked for, or one that is gone afterwards."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="order-to-cash-") as directory:
            yield Path(directory)
        return
    keep.mkdir(parents=True, exist_ok=True)
    if any(keep.iterdir()):
        raise UnreadableOrders(f"--keep {keep}: the directory is not empty; name a new one")
    yield keep.resolve()


def run(options: argparse.Namespace, console: Console) -> int:
    """Run the demo and say how it went."""
    began = time.monotonic()
    book = read_orders(options.orders).first(options.limit)
    with place_for(options.keep) as directory:
        show_book(console, book, options.orders)
        write_bad_lines(book, directory / "bad_lines.csv")
        reconciliation = asyncio.run(play(options, book, directory, console))
    show_reconciliation(console, reconciliation)
    console.print(f"{time.monotonic() - began:.0f} s in all", highlight=False)
    return AGREES if reconciliation.holds else DISAGREES


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="order_to_cash", description="Run an order book from order to cash.")
    parser.add_argument("--orders", type=Path, default=SHIPPED, help="a CSV of the UCI Online Retail layout")
    parser.add_argument("--seed", type=int, default=1, help="of the faults and of finance's moods")
    parser.add_argument("--limit", type=int, default=1_000_000_000, help="take only so many orders")
    parser.add_argument("--keep", type=Path, help="a directory for the databases and logs; otherwise they go")
    parser.add_argument("--no-kill", action="store_true", help="leave the engine alive")
    parser.add_argument("--outage-seconds", type=float, default=30.0, help="how long the shipping provider fails")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the demo; the exit code says how it went."""
    console = Console()
    try:
        return run(arguments(argv), console)
    except UnreadableOrders as error:
        console.print(str(error), style="red", highlight=False, soft_wrap=True)
        return BAD_INPUT
    except (ProcessDied, Stalled, StoreError) as error:
        console.print(str(error), style="red", highlight=False, soft_wrap=True, markup=False)
        return BROKE_DOWN


if __name__ == "__main__":
    sys.exit(main())
