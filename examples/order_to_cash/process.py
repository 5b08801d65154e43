"""Order to cash as a durable process, and the process that takes goods back."""

from __future__ import annotations

import asyncio
from typing import Literal

import msgspec
from examples.order_to_cash.clients import CardDeclined, OutOfStock, Refused, services
from examples.order_to_cash.model import (
    APPROVAL_LIMIT,
    Charge,
    CreditNote,
    Deal,
    Hold,
    Invoice,
    Order,
    Refund,
    Return,
    Shipment,
)

from dalsegno import Event, Retry, annotate, ask, process, publish, saga, step, step_key, wait_for

DELIVERY_WITHIN = 3 * 86400.0

PATIENT = Retry(attempts=60, first="200ms", factor=2, limit="3s", never_on=(Refused,))
"""Outlasts an outage of some minutes; what a service refuses is not asked twice."""


class Delivered(Event, key="order_id"):
    """A parcel has arrived."""

    order_id: str
    at: str


class OrderPaid(Event, key="order_id"):
    """An order is delivered, billed and paid."""

    order_id: str
    amount: int


class Verdict(msgspec.Struct, frozen=True):
    """What finance says of a large order."""

    approved: bool
    reason: str = ""


class NotApproved(Exception):
    """Finance refused the order."""


class Receipt(msgspec.Struct, frozen=True):
    """How an order ended."""

    order_id: str
    outcome: Literal["fulfilled", "declined"]
    detail: str = ""


@step(retry=PATIENT, timeout="30s")
async def open_deal(order: Order) -> Deal:
    """Enter the order in the CRM."""
    return await services().crm.open_deal(order, key=step_key())


@open_deal.undo(even_if_unknown=True, retry=PATIENT)
async def lose_deal(order: Order, deal: Deal | None) -> None:
    """Close the deal as lost."""
    await services().crm.close_deal(order.id, won=False, key=step_key())


@step(retry=PATIENT, timeout="30s")
async def reserve_stock(order: Order) -> Hold:
    """Keep the goods back in the ERP."""
    return await services().erp.hold_stock(order, key=step_key())


@reserve_stock.undo(even_if_unknown=True, retry=PATIENT)
async def release_stock(order: Order, hold: Hold | None) -> None:
    """Give the goods free, whether or not we know of the hold."""
    await services().erp.cancel_order(order.id, key=step_key())


@step(retry=PATIENT, timeout="30s")
async def charge_card(order: Order) -> Charge:
    """Take the money."""
    return await services().payments.charge_card(order, key=step_key())


@charge_card.undo(even_if_unknown=True, retry=PATIENT)
async def refund_charge(order: Order, charge: Charge | None) -> None:
    """Give the money back, whether or not we know of the charge."""
    await services().payments.void_order(order.id, key=step_key())


@step(retry=PATIENT, timeout="30s")
async def ship(order: Order) -> Shipment:
    """Hand the parcel to the shipping provider."""
    return await services().shipping.ship_order(order, key=step_key())


@ship.undo(even_if_unknown=True, retry=PATIENT)
async def recall(order: Order, shipment: Shipment | None) -> None:
    """Bring the parcel back."""
    await services().shipping.recall_order(order.id, key=step_key())


@step(retry=PATIENT, timeout="30s")
async def issue_invoice(order: Order) -> Invoice:
    """Issue the goods and bill them."""
    return await services().erp.issue_invoice(order, key=step_key())


@issue_invoice.undo(even_if_unknown=True, retry=PATIENT)
async def credit_invoice(order: Order, invoice: Invoice | None) -> None:
    """Credit the invoice and put the goods back."""
    await services().erp.cancel_order(order.id, key=step_key())


@step(retry=PATIENT, timeout="30s")
async def win_deal(order: Order) -> None:
    """Close the deal as won; losing it later needs no undo of its own, `lose_deal` does that."""
    await services().crm.close_deal(order.id, won=True, key=step_key())


@process
async def order_to_cash(order: Order) -> Receipt:
    """Reserve, approve, charge, ship, wait for the delivery, bill; or undo all of it."""
    try:
        async with saga():
            await open_deal(order)
            await reserve_stock(order)
            await approve(order)
            await charge_card(order)
            await ship(order)
            annotate(stage="under way")
            async with asyncio.timeout(DELIVERY_WITHIN):
                await wait_for(Delivered, order_id=order.id)
            await issue_invoice(order)
            await win_deal(order)
            await publish(OrderPaid(order_id=order.id, amount=order.total))
    except (CardDeclined, OutOfStock, NotApproved) as refusal:
        # An end that business knows, not a failure: the saga has put everything back.
        return Receipt(order.id, "declined", str(refusal))
    return Receipt(order.id, "fulfilled")


async def approve(order: Order) -> None:
    """Ask a person about a large order."""
    if order.total <= APPROVAL_LIMIT:
        return
    annotate(stage="approval")
    verdict = await ask("finance", Verdict, about=order)
    if not verdict.approved:
        raise NotApproved(verdict.reason)


@step(retry=PATIENT, timeout="30s")
async def refund_return(returned: Return) -> Refund:
    """Give back what was paid for the goods."""
    return await services().payments.refund(returned, key=step_key())


@step(retry=PATIENT, timeout="30s")
async def credit_return(returned: Return) -> CreditNote:
    """Credit the goods and put them back on stock."""
    return await services().erp.issue_credit_note(returned, key=step_key())


@step(retry=PATIENT, timeout="30s")
async def note_return(returned: Return) -> None:
    """Tell the CRM."""
    await services().crm.add_note(returned.order_id, f"returned with {returned.cancellation}", key=step_key())


@process
async def take_back(returned: Return) -> Refund:
    """Take goods of a fulfilled order back: only forward, each step is tried until it is done."""
    refund = await refund_return(returned)
    await credit_return(returned)
    await note_return(returned)
    return refund
