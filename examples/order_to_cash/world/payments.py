"""The payment gateway: charges, refunds, voids.

Two charges for one order under one idempotency key are one charge; under two keys they are two, as with
any gateway.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import msgspec
from examples.order_to_cash.model import Charge, Refund
from examples.order_to_cash.world.ledger import Refused
from examples.order_to_cash.world.serving import Service, serve
from starlette.routing import Route


class ChargeCard(msgspec.Struct):
    """Take money."""

    order_id: str
    card: str
    amount: int


class RefundOrder(msgspec.Struct):
    """Give a part of the money back."""

    order_id: str
    reference: str
    amount: int


class VoidOrder(msgspec.Struct):
    """Give back whatever was taken for an order, and take nothing for it again."""

    order_id: str


class Payments(Service):
    """Charges and refunds."""

    name = "payments"
    schema = Path(__file__).with_name("payments.sql").read_text()

    def routes(self) -> list[Route]:
        return [
            self.command(ChargeCard, self.charge_card),
            self.command(RefundOrder, self.refund_order),
            self.command(VoidOrder, self.void_order),
        ]

    def figures(self) -> dict[str, int]:
        (twice,) = self.db.execute(
            "SELECT count(*) FROM (SELECT 1 FROM charges GROUP BY order_id HAVING count(*) > 1)"
        ).fetchone()
        return {"double_charges": twice}

    def charge_card(self, asked: ChargeCard) -> Charge | Refused:
        """Take money from a card, unless its bank declines."""
        if self.db.execute("SELECT 1 FROM voided_orders WHERE order_id = ?", (asked.order_id,)).fetchone():
            raise Refused(409, "order_voided", f"order {asked.order_id} was voided")
        if Random(f"{self.faults.seed}/{asked.card}").random() < self.faults.declined:
            self.db.execute("INSERT INTO declined_charges VALUES (?)", (asked.order_id,))
            return Refused(402, "card_declined", f"the bank declined card {asked.card}")
        charge = self.db.execute(
            "INSERT INTO charges (order_id, card, amount) VALUES (?, ?, ?)",
            (asked.order_id, asked.card, asked.amount),
        ).lastrowid
        return Charge(f"charge-{charge}", asked.order_id, asked.amount)

    def refund_order(self, asked: RefundOrder) -> Refund:
        """Give a part back, up to what is left of the charges."""
        if asked.amount > self._left(asked.order_id):
            raise Refused(409, "too_much", f"order {asked.order_id} was not charged that much")
        return self._refund(asked.order_id, asked.reference, asked.amount)

    def void_order(self, asked: VoidOrder) -> Refund:
        """Give everything back, and refuse what comes later: a charge may still be on its way to us."""
        self.db.execute("INSERT OR IGNORE INTO voided_orders VALUES (?)", (asked.order_id,))
        left = self._left(asked.order_id)
        if not left:
            return Refund(asked.order_id, 0)
        return self._refund(asked.order_id, "void", left)

    def _left(self, order_id: str) -> int:
        (left,) = self.db.execute(
            "SELECT (SELECT ifnull(sum(amount), 0) FROM charges WHERE order_id = ?1)"
            " - (SELECT ifnull(sum(amount), 0) FROM refunds WHERE order_id = ?1)",
            (order_id,),
        ).fetchone()
        return int(left)

    def _refund(self, order_id: str, reference: str, amount: int) -> Refund:
        self.db.execute(
            "INSERT INTO refunds (order_id, reference, amount) VALUES (?, ?, ?)",
            (order_id, reference, amount),
        )
        return Refund(order_id, amount)


if __name__ == "__main__":
    serve(Payments)
