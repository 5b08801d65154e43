"""The reconciliation of the demo: it holds for books that agree, and each single defect is found."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest
from examples.order_to_cash.clients import Services, connected
from examples.order_to_cash.model import APPROVAL_LIMIT, Cancellation, Line, Order, Return
from examples.order_to_cash.orders import OrderBook
from examples.order_to_cash.reconciliation import Reconciliation, reconcile
from examples.order_to_cash.supervisor import World
from examples.order_to_cash.world.faults import Faults

AT = datetime(2010, 12, 1)


def order(order_id: str, price: str = "2.55") -> Order:
    lines = (Line("85123A", 2, Decimal(price)), Line("71053", 1, Decimal("3")))
    return Order(order_id, "17850", False, "France", AT, lines)


FULFILLED, RETURNED, CALLED_OFF = order("fulfilled"), order("returned"), order("called-off")
REFUSED = order("refused", price="9999")
PART = Return("C1", "returned", RETURNED.lines[:1], 510, whole=False)
WHOLE = Return("C2", "called-off", CALLED_OFF.lines, CALLED_OFF.total, whole=True)
BOOK = OrderBook(
    documents=(
        FULFILLED,
        RETURNED,
        CALLED_OFF,
        REFUSED,
        Cancellation("C1", "17850", AT, (PART,)),
        Cancellation("C2", "17850", AT, (WHOLE,)),
    ),
    bad_lines=(),
    lines=10,
)


async def fulfil(services: Services, order: Order) -> None:
    await begin(services, order)
    await services.erp.issue_invoice(order, key=f"{order.id}/invoice")
    await services.crm.close_deal(order.id, won=True, key=f"{order.id}/close")


async def begin(services: Services, order: Order) -> None:
    await services.crm.open_deal(order, key=f"{order.id}/open")
    await services.erp.hold_stock(order, key=f"{order.id}/hold")
    await services.payments.charge_card(order, key=f"{order.id}/charge")
    await services.shipping.ship_order(order, key=f"{order.id}/ship")


async def undo(services: Services, order: Order) -> None:
    await services.shipping.recall_order(order.id, key=f"{order.id}/recall")
    await services.payments.void_order(order.id, key=f"{order.id}/void")
    await services.erp.cancel_order(order.id, key=f"{order.id}/cancel")
    await services.crm.close_deal(order.id, won=False, key=f"{order.id}/lose")


async def business(world: World) -> None:
    """What the processes do, without an engine."""
    async with connected(world.endpoints) as services:
        await fulfil(services, FULFILLED)
        await fulfil(services, RETURNED)
        await services.payments.refund(PART, key="refund")
        await services.erp.issue_credit_note(PART, key="credit")
        await begin(services, CALLED_OFF)
        await undo(services, CALLED_OFF)
        await services.crm.open_deal(REFUSED, key="refused/open")
        await services.erp.hold_stock(REFUSED, key="refused/hold")
        await undo(services, REFUSED)


def is_delivered(directory: Path) -> bool:
    with closing(sqlite3.connect(directory / "shipping.db")) as connection:
        return not connection.execute("SELECT 1 FROM shipments WHERE status = 'booked'").fetchall()


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The databases of four services that agree with the order book."""
    directory = tmp_path_factory.mktemp("books")
    with World(directory, {"shipping": Faults(delivery_seconds=(0.0, 0.01))}) as world:
        asyncio.run(business(world))
        asyncio.run(until(lambda: is_delivered(directory)))
    return directory


async def until(found: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not found():
            await asyncio.sleep(0.02)


def with_defect(books: Path, directory: Path, database: str, statement: str) -> Reconciliation:
    for file in books.glob("*.db*"):
        shutil.copy(file, directory)
    with closing(sqlite3.connect(directory / f"{database}.db")) as connection:
        assert connection.execute(statement).rowcount > 0
        connection.commit()
    return reconcile(BOOK, directory)


def test_books_that_agree_reconcile(books: Path) -> None:
    found = reconcile(BOOK, books)

    assert found.mismatches == {}
    assert found.holds
    assert REFUSED.total > APPROVAL_LIMIT
    assert found.figures == {
        "orders": 4,
        "fulfilled": 2,
        "called off and compensated": 1,
        "declined and compensated": 1,
        "charged once": 3,
        "charged twice": 0,
        "stock held for nothing": 0,
        "invoices": 2,
        "credit notes": 1,
        "parcels delivered": 2,
        "cancelled after fulfilment (pence)": 510,
        "refunded against it (pence)": 510,
        "charged on lost orders (pence)": CALLED_OFF.total,
        "refunded on them (pence)": CALLED_OFF.total,
    }


CHARGE = "INSERT INTO charges (order_id, card, amount) VALUES ('{}', 'card', {})"


@pytest.mark.parametrize(
    ("database", "statement", "rule", "order_id"),
    [
        ("payments", CHARGE.format("fulfilled", FULFILLED.total), "not charged twice", "fulfilled"),
        ("payments", "DELETE FROM charges WHERE order_id = 'fulfilled'", "charged once, in full", "fulfilled"),
        ("payments", "UPDATE charges SET amount = 1 WHERE order_id = 'fulfilled'", "charged once", "fulfilled"),
        ("payments", "DELETE FROM refunds WHERE order_id = 'returned'", "refunded what was cancelled", "returned"),
        ("payments", "INSERT INTO refunds (order_id, reference, amount) VALUES ('returned', 'C1', 510)",
         "refunded what was cancelled", "returned"),
        ("payments", "DELETE FROM refunds WHERE order_id = 'called-off'", "refunded in full", "called-off"),
        ("payments", CHARGE.format("refused", 5), "refunded in full", "refused"),
        ("payments", CHARGE.format("nobody", 5), "in the order book", "nobody"),
        ("erp", "INSERT INTO holds (order_id, status) VALUES ('fulfilled', 'held')", "no stock held", "fulfilled"),
        ("erp", "UPDATE holds SET status = 'held' WHERE order_id = 'called-off'", "no stock held", "called-off"),
        ("erp", "UPDATE holds SET status = 'released' WHERE order_id = 'fulfilled'", "its stock issued", "fulfilled"),
        ("erp", "UPDATE holds SET status = 'issued' WHERE order_id = 'refused'", "its stock not issued", "refused"),
        ("erp", "DELETE FROM invoices WHERE order_id = 'fulfilled'", "invoiced once, in full", "fulfilled"),
        ("erp", f"INSERT INTO invoices (order_id, amount) VALUES ('fulfilled', {FULFILLED.total})",
         "invoiced once, in full", "fulfilled"),
        ("erp", "DELETE FROM credit_notes WHERE order_id = 'returned'", "credited what was cancelled", "returned"),
        ("shipping", "UPDATE shipments SET status = 'booked' WHERE order_id = 'returned'", "delivered", "returned"),
        ("shipping", "UPDATE shipments SET status = 'booked' WHERE order_id = 'called-off'", "its parc", "called-off"),
        ("crm", "UPDATE deals SET status = 'open' WHERE order_id = 'fulfilled'", "has ended in the CRM", "fulfilled"),
        ("crm", "DELETE FROM deals WHERE order_id = 'returned'", "has ended in the CRM", "returned"),
        ("crm", "UPDATE deals SET status = 'lost' WHERE order_id = 'fulfilled'", "lost for a reason", "fulfilled"),
    ],
)  # fmt: skip
def test_a_single_defect_is_found_with_its_order(
    books: Path, tmp_path: Path, database: str, statement: str, rule: str, order_id: str
) -> None:
    found = with_defect(books, tmp_path, database, statement)

    assert not found.holds
    (broken,) = [name for name in found.mismatches if name.startswith(rule)]
    assert found.mismatches[broken] == [order_id]


def test_a_double_charge_is_counted(books: Path, tmp_path: Path) -> None:
    found = with_defect(books, tmp_path, "payments", CHARGE.format("fulfilled", FULFILLED.total))

    assert found.figures["charged twice"] == 1
