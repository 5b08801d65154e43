"""The four services as the company's own programs see them: typed calls over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import httpx2
import msgspec
from examples.order_to_cash.model import (
    Charge,
    CreditNote,
    Deal,
    Hold,
    Invoice,
    Line,
    Order,
    Refund,
    Return,
    Shipment,
)

from dalsegno.errors import OutcomeUnknown

CONNECTIONS = 48
PATIENCE = 2.0
"""Seconds after which a reply no longer counts."""

Reply = TypeVar("Reply")


class Endpoints(msgspec.Struct, frozen=True):
    """Where the services are."""

    crm: str
    erp: str
    payments: str
    shipping: str


class Busy(Exception):
    """A service has too much to do; it did nothing."""


class Unavailable(OutcomeUnknown):
    """A service did not answer, or only that it failed: whether it did what was asked is unknown."""


class Refused(Exception):
    """A service will not do it, however often it is asked."""


class CardDeclined(Refused):
    """The bank does not pay."""


class OutOfStock(Refused):
    """There is not enough of an item."""


REFUSALS: dict[str, type[Refused]] = {"card_declined": CardDeclined, "out_of_stock": OutOfStock}


class _Refusal(msgspec.Struct):
    code: str
    message: str


class Client:
    """One service over HTTP: a bounded number of requests at once, and none while it asked for peace."""

    def __init__(self, name: str, url: str, patience: float = PATIENCE) -> None:
        self._name = name
        self._places = asyncio.Semaphore(CONNECTIONS)
        self._not_before = 0.0
        self._http = httpx2.AsyncClient(
            base_url=url,
            timeout=patience,
            limits=httpx2.Limits(
                max_connections=CONNECTIONS,
                max_keepalive_connections=CONNECTIONS,
                keepalive_expiry=60,
            ),
            trust_env=False,
        )

    async def send(self, path: str, body: dict[str, Any], key: str, reply: type[Reply]) -> Reply:
        """Send a command under an idempotency key."""
        async with self._places:
            await self._pause()
            try:
                answer = await self._http.post(
                    path, content=msgspec.json.encode(body), headers={"Idempotency-Key": key}
                )
            except httpx2.HTTPError as error:
                raise Unavailable(f"{self._name} {path}: {type(error).__name__}") from error
        return self._read(path, answer, reply)

    async def _pause(self) -> None:
        seconds = self._not_before - time.monotonic()
        if seconds > 0:
            await asyncio.sleep(seconds)

    def _read(self, path: str, answer: httpx2.Response, reply: type[Reply]) -> Reply:
        if answer.status_code == 201:
            return msgspec.json.decode(answer.content, type=reply)
        if answer.status_code == 429:
            self._not_before = time.monotonic() + float(answer.headers.get("Retry-After", "1"))
            raise Busy(f"{self._name} {path}: too many requests")
        if answer.status_code >= 500:
            raise Unavailable(f"{self._name} {path}: answered {answer.status_code}")
        refusal = msgspec.json.decode(answer.content, type=_Refusal)
        raise REFUSALS.get(refusal.code, Refused)(f"{self._name} {path}: {refusal.message}")

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()


class Crm(Client):
    """Customers and deals."""

    async def open_deal(self, order: Order, key: str) -> Deal:
        """Enter an order."""
        body = {
            "order_id": order.id,
            "customer": order.customer,
            "country": order.country,
            "guest": order.guest,
            "amount": order.total,
        }
        return await self.send("/open-deal", body, key, Deal)

    async def close_deal(self, order_id: str, won: bool, key: str) -> None:
        """Say how an order ended."""
        await self.send("/close-deal", {"order_id": order_id, "won": won}, key, type(None))

    async def add_note(self, order_id: str, text: str, key: str) -> None:
        """Keep something to remember."""
        await self.send("/add-note", {"order_id": order_id, "text": text}, key, type(None))


class Erp(Client):
    """Stock and invoices."""

    async def hold_stock(self, order: Order, key: str) -> Hold:
        """Keep the goods of an order back."""
        return await self.send("/hold-stock", {"order_id": order.id, "positions": _positions(order.lines)}, key, Hold)

    async def issue_invoice(self, order: Order, key: str) -> Invoice:
        """Issue the goods of an order and bill them."""
        return await self.send("/issue-invoice", {"order_id": order.id, "amount": order.total}, key, Invoice)

    async def cancel_order(self, order_id: str, key: str) -> None:
        """Undo whatever was done for an order."""
        await self.send("/cancel-order", {"order_id": order_id}, key, type(None))

    async def issue_credit_note(self, returned: Return, key: str) -> CreditNote:
        """Take goods back and credit them."""
        body = {
            "order_id": returned.order_id,
            "reference": returned.cancellation,
            "amount": returned.amount,
            "positions": _positions(returned.lines),
        }
        return await self.send("/issue-credit-note", body, key, CreditNote)


class Payments(Client):
    """Charges and refunds."""

    async def charge_card(self, order: Order, key: str) -> Charge:
        """Take what an order costs."""
        body = {"order_id": order.id, "card": f"card-{order.customer}", "amount": order.total}
        return await self.send("/charge-card", body, key, Charge)

    async def refund(self, returned: Return, key: str) -> Refund:
        """Give back what was paid for returned goods."""
        body = {"order_id": returned.order_id, "reference": returned.cancellation, "amount": returned.amount}
        return await self.send("/refund-order", body, key, Refund)

    async def void_order(self, order_id: str, key: str) -> Refund:
        """Give back whatever was taken for an order."""
        return await self.send("/void-order", {"order_id": order_id}, key, Refund)


class Shipping(Client):
    """Parcels."""

    async def ship_order(self, order: Order, key: str) -> Shipment:
        """Send an order on its way."""
        return await self.send("/ship-order", {"order_id": order.id, "country": order.country}, key, Shipment)

    async def recall_order(self, order_id: str, key: str) -> None:
        """Bring back what is under way."""
        await self.send("/recall-order", {"order_id": order_id}, key, type(None))


def _positions(lines: Iterable[Line]) -> list[dict[str, Any]]:
    return [{"stock_code": line.stock_code, "quantity": line.quantity} for line in lines if line.is_stocked]


class Services:
    """The four services, connected."""

    def __init__(self, endpoints: Endpoints, patience: float = PATIENCE) -> None:
        self.crm = Crm("CRM", endpoints.crm, patience)
        self.erp = Erp("ERP", endpoints.erp, patience)
        self.payments = Payments("payments", endpoints.payments, patience)
        self.shipping = Shipping("shipping", endpoints.shipping, patience)


_connected: Services | None = None


@asynccontextmanager
async def connected(endpoints: Endpoints, patience: float = PATIENCE) -> AsyncIterator[Services]:
    """Connect the steps of this program to the services."""
    global _connected
    _connected = services = Services(endpoints, patience)
    try:
        async with AsyncExitStack() as stack:
            for client in (services.crm, services.erp, services.payments, services.shipping):
                stack.push_async_callback(client.close)
            yield services
    finally:
        _connected = None


def services() -> Services:
    """The services this program is connected to."""
    if _connected is None:
        raise RuntimeError("not connected to the services: run this inside `async with connected(endpoints)`")
    return _connected
