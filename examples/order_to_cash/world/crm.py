"""The CRM: who the customers are, and what became of each deal with them."""

from __future__ import annotations

from pathlib import Path

import msgspec
from examples.order_to_cash.model import Deal
from examples.order_to_cash.world.ledger import Refused
from examples.order_to_cash.world.serving import Service, serve
from starlette.routing import Route


class OpenDeal(msgspec.Struct):
    """A customer has ordered."""

    order_id: str
    customer: str
    country: str
    guest: bool
    amount: int


class CloseDeal(msgspec.Struct):
    """An order is done, for better or worse."""

    order_id: str
    won: bool


class AddNote(msgspec.Struct):
    """Something to remember about a deal."""

    order_id: str
    text: str


class Crm(Service):
    """Customers, deals, notes."""

    name = "crm"
    schema = Path(__file__).with_name("crm.sql").read_text()

    def routes(self) -> list[Route]:
        return [
            self.command(OpenDeal, self.open_deal),
            self.command(CloseDeal, self.close_deal),
            self.command(AddNote, self.add_note),
        ]

    def figures(self) -> dict[str, int]:
        return dict(self.db.execute("SELECT status, count(*) FROM deals GROUP BY status"))

    def open_deal(self, asked: OpenDeal) -> Deal:
        """Enter a deal and its customer; one that is already closed stays so."""
        self.db.execute(
            "INSERT INTO customers VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET country = excluded.country",
            (asked.customer, asked.country, asked.guest),
        )
        self.db.execute(
            "INSERT INTO deals VALUES (?, ?, ?, 'open')"
            " ON CONFLICT (order_id) DO UPDATE SET customer = excluded.customer, amount = excluded.amount",
            (asked.order_id, asked.customer, asked.amount),
        )
        return Deal(asked.order_id, asked.customer)

    def close_deal(self, asked: CloseDeal) -> None:
        """Close a deal, also one that was never opened: whoever closes may not know whether it was.

        Lost is final: what was won can be lost, and a request to win it may still be on its way to us then.
        """
        closed = self.db.execute(
            "INSERT INTO deals VALUES (?1, NULL, NULL, ?2) ON CONFLICT (order_id) DO UPDATE SET status = ?2"
            " WHERE status <> 'lost' OR ?2 = 'lost'",
            (asked.order_id, "won" if asked.won else "lost"),
        )
        if not closed.rowcount:
            raise Refused(409, "deal_lost", f"the deal on order {asked.order_id} is lost")

    def add_note(self, asked: AddNote) -> None:
        """Keep a note."""
        self.db.execute("INSERT INTO notes VALUES (?, ?)", (asked.order_id, asked.text))


if __name__ == "__main__":
    serve(Crm)
