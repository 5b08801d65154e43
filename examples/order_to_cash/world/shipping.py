"""The shipping provider: takes parcels, delivers them, and calls back, at times more than once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import httpx2
import msgspec
from examples.order_to_cash.model import Shipment
from examples.order_to_cash.world.ledger import Refused
from examples.order_to_cash.world.serving import Service, serve
from starlette.routing import Route

CALLBACK_TIMEOUT = 2.0
CALLBACKS_AT_ONCE = 48
LONGEST_PAUSE = 2.0


class ShipOrder(msgspec.Struct):
    """Take a parcel to a country."""

    order_id: str
    country: str


class RecallOrder(msgspec.Struct):
    """Bring back whatever is under way or delivered for an order."""

    order_id: str


class DeliveryReport(msgspec.Struct, frozen=True):
    """The call-back: a parcel has arrived."""

    shipment_id: str
    order_id: str
    delivered_at: str


class Shipping(Service):
    """Parcels."""

    name = "shipping"
    schema = Path(__file__).with_name("shipping.sql").read_text()

    def routes(self) -> list[Route]:
        return [self.command(ShipOrder, self.ship_order), self.command(RecallOrder, self.recall_order)]

    def figures(self) -> dict[str, int]:
        (calls, orders) = self.db.execute("SELECT count(*), count(DISTINCT order_id) FROM callbacks").fetchone()
        return {"callbacks": calls, "repeated_callbacks": calls - orders}

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        self._deliveries: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(CALLBACKS_AT_ONCE)
        async with httpx2.AsyncClient(timeout=CALLBACK_TIMEOUT, trust_env=False) as self._http:
            yield
            for delivery in self._deliveries:
                delivery.cancel()
            await asyncio.gather(*self._deliveries, return_exceptions=True)

    def ship_order(self, asked: ShipOrder) -> Shipment:
        """Take a parcel, and send a courier on the way."""
        if self.db.execute("SELECT 1 FROM recalled_orders WHERE order_id = ?", (asked.order_id,)).fetchone():
            raise Refused(409, "order_recalled", f"order {asked.order_id} was recalled")
        shipment = self.db.execute(
            "INSERT INTO shipments (order_id, country, status) VALUES (?, ?, 'booked') RETURNING id",
            (asked.order_id, asked.country),
        ).fetchone()[0]
        delivery = asyncio.create_task(self._deliver(shipment, asked.order_id))
        self._deliveries.add(delivery)
        delivery.add_done_callback(self._deliveries.discard)
        return Shipment(f"parcel-{shipment}", asked.order_id)

    def recall_order(self, asked: RecallOrder) -> None:
        """Bring its parcels back, and take none for that order again: a booking may be on its way to us."""
        self.db.execute("INSERT OR IGNORE INTO recalled_orders VALUES (?)", (asked.order_id,))
        self.db.execute(
            "UPDATE shipments SET status = CASE status WHEN 'booked' THEN 'cancelled' ELSE 'returned' END"
            " WHERE order_id = ? AND status IN ('booked', 'delivered')",
            (asked.order_id,),
        )

    async def _deliver(self, shipment: int, order_id: str) -> None:
        chance = Random(f"{self.faults.seed}/courier/{order_id}")
        await asyncio.sleep(chance.uniform(*self.faults.delivery_seconds))
        await asyncio.sleep(self.outage.seconds_left)
        arrived = self.db.execute(
            "UPDATE shipments SET status = 'delivered' WHERE id = ? AND status = 'booked'", (shipment,)
        )
        if arrived.rowcount and self.callbacks_to:
            report = DeliveryReport(f"parcel-{shipment}", order_id, datetime.now(UTC).isoformat())
            await self._report(report)
            while chance.random() < self.faults.repeated_callbacks:
                await self._report(report)

    async def _report(self, report: DeliveryReport) -> None:
        """Call until the receiver confirms: it may be down for a while."""
        pause = 0.1
        while not await self._call(report):
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _call(self, report: DeliveryReport) -> bool:
        async with self._places:
            try:
                answer = await self._http.post(self.callbacks_to, content=msgspec.json.encode(report))
                status = answer.status_code
            except httpx2.HTTPError:
                status = 0
        self.db.execute("INSERT INTO callbacks VALUES (?, ?)", (report.order_id, status))
        return 200 <= status < 300


if __name__ == "__main__":
    serve(Shipping)
