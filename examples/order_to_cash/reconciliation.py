"""Compares the order book with the databases of the four services; the engine is not asked."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from examples.order_to_cash.model import APPROVAL_LIMIT, Order, Return
from examples.order_to_cash.orders import OrderBook


@dataclass
class Facts:
    """What the services know of one order."""

    deal: str = ""
    charges: list[int] = field(default_factory=list)
    declined: bool = False
    refunds: Counter[tuple[str, int]] = field(default_factory=Counter)
    holds: Counter[str] = field(default_factory=Counter)
    invoices: list[int] = field(default_factory=list)
    credits: Counter[tuple[str, int]] = field(default_factory=Counter)
    shipments: Counter[str] = field(default_factory=Counter)


@dataclass
class Case:
    """An order as it should be, beside what the services know of it."""

    order: Order
    facts: Facts
    returns: list[Return]

    @property
    def expected_back(self) -> Counter[tuple[str, int]]:
        """What the cancellations take back, as reference and amount."""
        return Counter((each.cancellation, each.amount) for each in self.returns)

    @property
    def may_be_lost(self) -> bool:
        """Whether somebody had a reason not to go through with the order."""
        called_off = any(each.whole for each in self.returns)
        return called_off or self.facts.declined or self.order.total > APPROVAL_LIMIT


Check: TypeAlias = "tuple[str, Callable[[Case], bool]]"

ALWAYS: list[Check] = [
    ("has ended in the CRM", lambda case: case.facts.deal in ("won", "lost")),
    ("not charged twice", lambda case: len(case.facts.charges) <= 1),
    ("no stock held for nothing", lambda case: not case.facts.holds["held"]),
]
WON: list[Check] = [
    ("charged once, in full", lambda case: case.facts.charges == [case.order.total]),
    ("refunded what was cancelled, no more, no less", lambda case: case.facts.refunds == case.expected_back),
    ("invoiced once, in full", lambda case: case.facts.invoices == [case.order.total]),
    ("credited what was cancelled, no more, no less", lambda case: case.facts.credits == case.expected_back),
    ("its stock issued once", lambda case: case.facts.holds["issued"] == 1),
    ("delivered once", lambda case: case.facts.shipments == Counter(delivered=1)),
]
LOST: list[Check] = [
    ("lost for a reason", lambda case: case.may_be_lost),
    ("refunded in full", lambda case: sum(case.facts.charges) == _sum(case.facts.refunds)),
    ("its invoice credited in full", lambda case: sum(case.facts.invoices) == _sum(case.facts.credits)),
    ("its stock not issued", lambda case: not case.facts.holds["issued"]),
    ("its parcel called back", lambda case: not {"booked", "delivered"} & case.facts.shipments.keys()),
]
CHECKS = {"won": ALWAYS + WON, "lost": ALWAYS + LOST}


@dataclass
class Reconciliation:
    """The figures, and the orders that break a rule."""

    figures: dict[str, int]
    mismatches: dict[str, list[str]]

    @property
    def holds(self) -> bool:
        """Whether every rule is kept."""
        return not self.mismatches


def reconcile(book: OrderBook, directory: Path) -> Reconciliation:
    """Compare an order book with the databases in a directory."""
    facts = _facts(directory)
    returns: dict[str, list[Return]] = defaultdict(list)
    for returned in book.returns:
        returns[returned.order_id].append(returned)
    cases = [Case(order, facts.pop(order.id, Facts()), returns[order.id]) for order in book.orders]
    mismatches: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        for rule, kept in CHECKS.get(case.facts.deal, ALWAYS):
            if not kept(case):
                mismatches[rule].append(case.order.id)
    if facts:
        mismatches["in the order book"] = sorted(facts)
    return Reconciliation(_figures(cases), dict(mismatches))


def _figures(cases: list[Case]) -> dict[str, int]:
    won = [case for case in cases if case.facts.deal == "won"]
    lost = [case for case in cases if case.facts.deal == "lost"]
    called_off = [case for case in lost if any(each.whole for each in case.returns)]
    return {
        "orders": len(cases),
        "fulfilled": len(won),
        "called off and compensated": len(called_off),
        "declined and compensated": len(lost) - len(called_off),
        "charged once": sum(len(case.facts.charges) == 1 for case in cases),
        "charged twice": sum(len(case.facts.charges) > 1 for case in cases),
        "stock held for nothing": sum(case.facts.holds["held"] for case in cases),
        "invoices": sum(len(case.facts.invoices) for case in cases),
        "credit notes": sum(case.facts.credits.total() for case in cases),
        "parcels delivered": sum(case.facts.shipments["delivered"] for case in cases),
        "cancelled after fulfilment (pence)": sum(_sum(case.expected_back) for case in won),
        "refunded against it (pence)": sum(_sum(case.facts.refunds) for case in won),
        "charged on lost orders (pence)": sum(sum(case.facts.charges) for case in lost),
        "refunded on them (pence)": sum(_sum(case.facts.refunds) for case in lost),
    }


def _facts(directory: Path) -> dict[str, Facts]:
    facts: dict[str, Facts] = defaultdict(Facts)
    for order_id, status in _rows(directory / "crm.db", "SELECT order_id, status FROM deals"):
        facts[order_id].deal = status
    _read_payments(directory / "payments.db", facts)
    _read_erp(directory / "erp.db", facts)
    for order_id, status in _rows(directory / "shipping.db", "SELECT order_id, status FROM shipments"):
        facts[order_id].shipments[status] += 1
    return facts


def _read_payments(database: Path, facts: dict[str, Facts]) -> None:
    for order_id, amount in _rows(database, "SELECT order_id, amount FROM charges"):
        facts[order_id].charges.append(amount)
    for order_id, reference, amount in _rows(database, "SELECT order_id, reference, amount FROM refunds"):
        facts[order_id].refunds[reference, amount] += 1
    for (order_id,) in _rows(database, "SELECT order_id FROM declined_charges"):
        facts[order_id].declined = True


def _read_erp(database: Path, facts: dict[str, Facts]) -> None:
    for order_id, status in _rows(database, "SELECT order_id, status FROM holds"):
        facts[order_id].holds[status] += 1
    for order_id, amount in _rows(database, "SELECT order_id, amount FROM invoices"):
        facts[order_id].invoices.append(amount)
    for order_id, reference, amount in _rows(database, "SELECT order_id, reference, amount FROM credit_notes"):
        facts[order_id].credits[reference, amount] += 1


def _rows(database: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def _sum(entries: Iterable[tuple[str, int]]) -> int:
    return sum(amount for _, amount in (entries.elements() if isinstance(entries, Counter) else entries))
