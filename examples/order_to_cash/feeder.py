"""Feeds an order book to the engine, and follows each document to its end.

All of it is repeated after a restart: starting is idempotent by id, and what has ended cannot be cancelled.
A cancellation comes as long after its order as the book says, on a clock that runs faster.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

from examples.order_to_cash.model import Cancellation, Order, Return
from examples.order_to_cash.orders import OrderBook
from examples.order_to_cash.process import Receipt, order_to_cash, take_back

from dalsegno import App, ProcessCancelled, Refused, Run, StoreError

CLOCK = timedelta(minutes=1) / 0.15
"""So much time of the book passes in a second."""
LONGEST_PAUSE = 8.0


class Feeder:
    """Keeps a bounded number of documents going."""

    def __init__(self, app: App, at_once: int) -> None:
        self._app = app
        self._places = asyncio.Semaphore(at_once)
        self._runs: dict[str, asyncio.Task[Run[Receipt]]] = {}
        self._orders: dict[str, Order] = {}

    async def feed(self, book: OrderBook) -> None:
        """Start every order, carry out every cancellation; return when all of them have ended."""
        async with asyncio.TaskGroup() as following:
            for document in book.documents:
                await self._places.acquire()
                if isinstance(document, Order):
                    self._orders[document.id] = document
                    start = self._app.start(order_to_cash, document, id=f"order-{document.id}")
                    self._runs[document.id] = following.create_task(start)
                    followed = following.create_task(self._outcome(document.id))
                else:
                    followed = following.create_task(self._carry_out(document))
                followed.add_done_callback(lambda _: self._places.release())

    async def _outcome(self, order_id: str) -> Receipt | None:
        """How an order ended; None if everything was undone."""
        run = await self._runs[order_id]
        try:
            return await run.result()
        except ProcessCancelled:
            return None
        except StoreError:
            raise
        except Exception as error:
            # One order's failure is not the end of the others: the operator sees it, the reconciliation too.
            print(f"order {order_id} failed: {error!r}", file=sys.stderr, flush=True)
            return None

    async def _carry_out(self, cancellation: Cancellation) -> None:
        for returned in cancellation.returns:
            after = cancellation.placed_at - self._orders[returned.order_id].placed_at
            await self._take_back(returned, min(after / CLOCK, LONGEST_PAUSE))

    async def _take_back(self, returned: Return, pause: float) -> None:
        """Cancel an order called off as a whole; what was fulfilled already comes back as a return."""
        if returned.whole:
            await asyncio.sleep(pause)
            await self._cancel(await self._runs[returned.order_id], returned.cancellation)
        receipt = await self._outcome(returned.order_id)
        if receipt is not None and receipt.outcome == "fulfilled":
            run = await self._app.start(take_back, returned, id=f"return-{returned.id}")
            await run.result()

    async def _cancel(self, run: Run[Receipt], cancellation: str) -> None:
        try:
            await run.cancel(reason=f"called off with {cancellation}")
        except Refused:
            return  # it has ended
