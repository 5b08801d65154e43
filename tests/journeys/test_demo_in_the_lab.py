"""The demo's process in the lab: no services, no waiting, every crash."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from examples.order_to_cash import process as p
from examples.order_to_cash.model import Charge, Deal, Hold, Invoice, Line, Order, Shipment

from dalsegno.testing import Lab, LabRun

ORDER = Order(
    "536365", "17850", False, "UK", datetime(2010, 12, 1, tzinfo=UTC), (Line("85123A", 600, Decimal("2.55")),)
)
DELIVERED = p.Delivered(order_id=ORDER.id, at="2010-12-03")


@pytest.fixture(autouse=True)
def services(lab: Lab) -> None:
    """The four services, as far as a process sees them."""
    lab.double(p.open_deal).returns(Deal(ORDER.id, ORDER.customer)).undo.returns(None)
    lab.double(p.reserve_stock).returns(Hold("hold-1", ORDER.id)).undo.returns(None)
    lab.double(p.charge_card).returns(Charge("charge-1", ORDER.id, ORDER.total)).undo.returns(None)
    lab.double(p.ship).returns(Shipment("parcel-1", ORDER.id)).undo.returns(None)
    lab.double(p.issue_invoice).returns(Invoice("invoice-1", ORDER.id, ORDER.total)).undo.returns(None)
    lab.double(p.win_deal).returns(None)


def test_a_large_order_is_approved_delivered_and_billed(lab: Lab) -> None:
    run = lab.start(p.order_to_cash, ORDER)
    lab.answer("finance", p.Verdict(approved=True), by="maria")
    lab.advance("2d")
    lab.publish(DELIVERED)

    assert run.result().outcome == "fulfilled"
    run.assert_steps(p.open_deal, p.reserve_stock, p.charge_card, p.ship, p.issue_invoice, p.win_deal)


def test_what_finance_refuses_is_put_back(lab: Lab) -> None:
    run = lab.start(p.order_to_cash, ORDER)
    lab.answer("finance", p.Verdict(approved=False, reason="too much"))

    assert run.result() == p.Receipt(ORDER.id, "declined", "too much")
    run.assert_undone(p.reserve_stock, p.open_deal)


def test_what_does_not_arrive_in_time_is_undone_in_reverse(lab: Lab) -> None:
    run = lab.start(p.order_to_cash, ORDER)
    lab.answer("finance", p.Verdict(approved=True))
    lab.until_idle()

    assert isinstance(run.error, TimeoutError)
    run.assert_undone(p.ship, p.charge_card, p.reserve_stock, p.open_deal)


def test_an_order_survives_a_crash_at_every_point(lab: Lab) -> None:
    def script(lab: Lab, run: LabRun[Any]) -> None:
        lab.answer("finance", p.Verdict(approved=True))
        lab.publish(DELIVERED)

    def check(run: LabRun[Any], lab: Lab) -> None:
        assert run.result().outcome == "fulfilled"
        assert {call.key for call in lab.calls(p.charge_card)} == {f"default/{run.id}/charge_card"}

    assert lab.crash_at_every_entry(p.order_to_cash, ORDER, script=script, check=check).points > 100
