"""The ERP: stock held back and issued, invoices, credit notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec
from examples.order_to_cash.model import CreditNote, Hold, Invoice
from examples.order_to_cash.world.ledger import Refused
from examples.order_to_cash.world.serving import Service, serve
from starlette.routing import Route

OPENING_STOCK = 1_000_000_000
"""Of an item nobody asked for before: this warehouse runs out only of what a test says it has little of."""


class Position(msgspec.Struct):
    """So much of an item."""

    stock_code: str
    quantity: int


class HoldStock(msgspec.Struct):
    """Keep items back for an order."""

    order_id: str
    positions: list[Position]


class CancelOrder(msgspec.Struct):
    """Undo whatever was done for an order."""

    order_id: str


class IssueInvoice(msgspec.Struct):
    """The goods of an order are with the customer: issue them and bill them."""

    order_id: str
    amount: int


class IssueCreditNote(msgspec.Struct):
    """Goods came back: put them on stock and credit them."""

    order_id: str
    reference: str
    amount: int
    positions: list[Position]


class Erp(Service):
    """Stock and invoices."""

    name = "erp"
    schema = Path(__file__).with_name("erp.sql").read_text()

    def routes(self) -> list[Route]:
        return [
            self.command(HoldStock, self.hold_stock),
            self.command(CancelOrder, self.cancel_order),
            self.command(IssueInvoice, self.issue_invoice),
            self.command(IssueCreditNote, self.issue_credit_note),
        ]

    def figures(self) -> dict[str, int]:
        return dict(self.db.execute("SELECT status, count(*) FROM holds GROUP BY status"))

    def hold_stock(self, asked: HoldStock) -> Hold:
        """Take items out of the free stock."""
        if self.db.execute("SELECT 1 FROM cancelled_orders WHERE order_id = ?", (asked.order_id,)).fetchone():
            raise Refused(409, "order_cancelled", f"order {asked.order_id} was cancelled")
        self._put(asked.positions, sign=-1)
        hold = self.db.execute("INSERT INTO holds (order_id, status) VALUES (?, 'held')", (asked.order_id,)).lastrowid
        self.db.executemany(
            "INSERT INTO hold_lines VALUES (?, ?, ?)",
            [(hold, each.stock_code, each.quantity) for each in asked.positions],
        )
        return Hold(f"hold-{hold}", asked.order_id)

    def cancel_order(self, asked: CancelOrder) -> None:
        """Free its stock and credit its invoice, for good: a request may still be on its way to us."""
        self.db.execute("INSERT OR IGNORE INTO cancelled_orders VALUES (?)", (asked.order_id,))
        for (hold,) in self.db.execute(
            "UPDATE holds SET status = 'released' WHERE order_id = ? AND status <> 'released' RETURNING id",
            (asked.order_id,),
        ).fetchall():
            lines = self.db.execute("SELECT stock_code, quantity FROM hold_lines WHERE hold_id = ?", (hold,))
            self._put([Position(*line) for line in lines], sign=1)
        self.db.execute(
            "INSERT INTO credit_notes (order_id, reference, amount)"
            " SELECT order_id, 'cancelled', amount FROM invoices WHERE order_id = ?1"
            " AND NOT EXISTS (SELECT 1 FROM credit_notes WHERE order_id = ?1)",
            (asked.order_id,),
        )

    def issue_invoice(self, asked: IssueInvoice) -> Invoice:
        """Let the goods go, and bill them."""
        issued = self.db.execute(
            "UPDATE holds SET status = 'issued'"
            " WHERE id = (SELECT min(id) FROM holds WHERE order_id = ? AND status = 'held')",
            (asked.order_id,),
        )
        if not issued.rowcount:
            raise Refused(409, "nothing_held", f"no stock is held for order {asked.order_id}")
        invoice = self.db.execute(
            "INSERT INTO invoices (order_id, amount) VALUES (?, ?)", (asked.order_id, asked.amount)
        ).lastrowid
        return Invoice(f"invoice-{invoice}", asked.order_id, asked.amount)

    def issue_credit_note(self, asked: IssueCreditNote) -> CreditNote:
        """Take goods back, and credit them."""
        self._put(asked.positions, sign=1)
        note = self.db.execute(
            "INSERT INTO credit_notes (order_id, reference, amount) VALUES (?, ?, ?)",
            (asked.order_id, asked.reference, asked.amount),
        ).lastrowid
        return CreditNote(f"credit-{note}", asked.order_id, asked.amount)

    def _put(self, positions: Iterable[Position], *, sign: int) -> None:
        change: Counter[str] = Counter()
        for position in positions:
            change[position.stock_code] += sign * position.quantity
        self.db.executemany(
            "INSERT OR IGNORE INTO items VALUES (?, ?)",
            [(stock_code, OPENING_STOCK) for stock_code in change],
        )
        for stock_code, quantity in change.items():
            moved = self.db.execute(
                "UPDATE items SET on_hand = on_hand + ?1 WHERE stock_code = ?2 AND on_hand + ?1 >= 0",
                (quantity, stock_code),
            )
            if not moved.rowcount:
                raise Refused(409, "out_of_stock", f"there is not enough of {stock_code}")


if __name__ == "__main__":
    serve(Erp)
