"""The processes of the demo on a real engine and real services: each way an order can end."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
from examples.order_to_cash.approver import Approver
from examples.order_to_cash.clients import connected
from examples.order_to_cash.feeder import Feeder
from examples.order_to_cash.model import Cancellation, Line, Order, Return
from examples.order_to_cash.orders import OrderBook
from examples.order_to_cash.process import Delivered, Verdict, order_to_cash
from examples.order_to_cash.reconciliation import reconcile
from examples.order_to_cash.supervisor import World, listening_socket, url_of
from examples.order_to_cash.webhook import PATH, receiving
from examples.order_to_cash.world.faults import Faults

from dalsegno import App, ProcessCancelled, Task

AT = datetime(2010, 12, 1)


def order(order_id: str = "1", price: str = "2.55") -> Order:
    return Order(order_id, "17850", False, "France", AT, (Line("85123A", 2, Decimal(price)),))


def book_of(*documents: Order | Cancellation) -> OrderBook:
    return OrderBook(documents, (), len(documents))


def calling_off(called_off: Order, after: timedelta = timedelta(0)) -> Cancellation:
    whole = Return("C9", called_off.id, called_off.lines, called_off.total, whole=True)
    return Cancellation("C9", called_off.customer, AT + after, (whole,))


class Office:
    """An engine beside a world, in one test."""

    def __init__(self, app: App, world: World, callbacks_to: str) -> None:
        self.app, self.world, self.callbacks_to = app, world, callbacks_to

    def rows(self, name: str, query: str) -> list[Any]:
        with closing(sqlite3.connect(self.world.database(name))) as connection:
            return connection.execute(query).fetchall()

    async def until(self, found: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not found():
                await asyncio.sleep(0.02)


@asynccontextmanager
async def office(directory: Path, **faults: Faults) -> AsyncIterator[Office]:
    listening = listening_socket()
    callbacks_to = url_of(listening) + PATH
    with listening, World(directory, faults, callbacks_to) as world:
        app = App(f"sqlite:///{directory / 'dalsegno.db'}", shadow_replay=True)
        async with connected(world.endpoints, patience=1.0), app, receiving(app, listening):
            yield Office(app, world, callbacks_to)
        assert list(app.shadow_failures) == []


async def task_of(app: App) -> Sequence[Task]:
    async with asyncio.timeout(20):
        while not (tasks := await app.tasks(role="finance")):
            await asyncio.sleep(0.02)
    return tasks


SLOW_DELIVERY = Faults(delivery_seconds=(3600, 3600))


async def test_an_order_is_fulfilled_and_the_books_agree(tmp_path: Path) -> None:
    async with office(tmp_path) as here:
        receipt = await (await here.app.start(order_to_cash, order(), id="order-1")).result()

    assert receipt.outcome == "fulfilled"
    assert reconcile(book_of(order()), tmp_path).holds


async def test_a_declined_card_undoes_what_was_done(tmp_path: Path) -> None:
    async with office(tmp_path, payments=Faults(declined=1.0)) as here:
        receipt = await (await here.app.start(order_to_cash, order(), id="order-1")).result()

        assert receipt.outcome == "declined"
        assert here.rows("erp", "SELECT status FROM holds") == [("released",)]
        assert here.rows("crm", "SELECT status FROM deals") == [("lost",)]
    assert reconcile(book_of(order()), tmp_path).holds


@pytest.mark.parametrize(("approved", "outcome"), [(True, "fulfilled"), (False, "declined")])
async def test_a_large_order_waits_for_finance(tmp_path: Path, approved: bool, outcome: str) -> None:
    async with office(tmp_path) as here:
        run = await here.app.start(order_to_cash, order(price="9999"), id="order-1")
        tasks = await task_of(here.app)
        assert here.rows("payments", "SELECT * FROM charges") == []
        await here.app.answer(tasks[0].id, Verdict(approved, "too much"), by="maria")

        assert (await run.result()).outcome == outcome
    assert reconcile(book_of(order(price="9999")), tmp_path).holds


async def test_the_scripted_approver_answers_every_task(tmp_path: Path) -> None:
    large = [order(str(number), price="9999") for number in range(12)]
    async with office(tmp_path) as here:
        runs = [await here.app.start(order_to_cash, each, id=f"order-{each.id}") for each in large]
        approver = Approver(here.app, seed=3)  # one that refuses some of these
        ended = asyncio.gather(*(run.result() for run in runs))
        async with asyncio.timeout(30):
            while not ended.done():
                await approver.look()
                await asyncio.sleep(0.05)

        assert {receipt.outcome for receipt in await ended} == {"fulfilled", "declined"}
    assert reconcile(book_of(*large), tmp_path).holds


async def test_an_order_called_off_under_way_is_undone_at_every_service(tmp_path: Path) -> None:
    async with office(tmp_path, shipping=SLOW_DELIVERY) as here:
        run = await here.app.start(order_to_cash, order(), id="order-1")
        await here.until(lambda: here.rows("shipping", "SELECT status FROM shipments") == [("booked",)])
        await run.cancel(reason="called off")
        with pytest.raises(ProcessCancelled):
            await run.result()

        assert here.rows("shipping", "SELECT status FROM shipments") == [("cancelled",)]
        assert here.rows("payments", "SELECT amount FROM refunds") == [(order().total,)]
    assert reconcile(book_of(order(), calling_off(order())), tmp_path).holds


async def test_a_step_of_unknown_outcome_is_undone_too(tmp_path: Path) -> None:
    """The gateway takes the money and never answers; the order is called off meanwhile."""
    silent = Faults(lost_replies=1.0, withhold_seconds=5.0)
    async with office(tmp_path, payments=silent) as here:
        run = await here.app.start(order_to_cash, order(), id="order-1")
        await here.until(lambda: here.rows("payments", "SELECT order_id FROM charges") == [("1",)])
        await run.cancel(reason="called off")
        await here.until(lambda: here.rows("payments", "SELECT amount FROM refunds") == [(order().total,)])
        await run.terminate(reason="the void's reply is never heard either")


async def test_the_same_call_back_twice_changes_nothing(tmp_path: Path) -> None:
    async with office(tmp_path) as here:
        run = await here.app.start(order_to_cash, order(), id="order-1")
        report = b'{"shipment_id": "parcel-1", "order_id": "1", "delivered_at": "now"}'
        async with httpx2.AsyncClient(trust_env=False) as client:
            for _ in range(3):
                assert (await client.post(here.callbacks_to, content=report)).status_code == 204
        assert (await run.result()).outcome == "fulfilled"
        await here.app.publish(Delivered(order_id="1", at="later"))
        await here.until(lambda: here.rows("shipping", "SELECT status FROM shipments") == [("delivered",)])
    assert reconcile(book_of(order()), tmp_path).holds


async def test_feeding_a_book_twice_does_everything_once(tmp_path: Path) -> None:
    documents: list[Order | Cancellation] = [order(str(number)) for number in range(10)]
    documents.append(calling_off(order("3")))
    documents.append(calling_off(order("5"), after=timedelta(minutes=20)))
    book = book_of(*documents)
    async with office(tmp_path, payments=Faults(lost_replies=0.2, withhold_seconds=1.5)) as here:
        for _ in range(2):
            await Feeder(here.app, at_once=4).feed(book)

    found = reconcile(book, tmp_path)
    assert found.holds, found.mismatches
    assert found.figures["orders"] == 10


async def test_what_was_fulfilled_before_it_was_called_off_comes_back_as_a_return(tmp_path: Path) -> None:
    book = book_of(order(), calling_off(order()))
    async with office(tmp_path) as here:
        await (await here.app.start(order_to_cash, order(), id="order-1")).result()
        await Feeder(here.app, at_once=4).feed(book)

        assert here.rows("payments", "SELECT reference, amount FROM refunds") == [("C9", order().total)]
        assert here.rows("crm", "SELECT text FROM notes") == [("returned with C9",)]
    assert reconcile(book, tmp_path).holds
