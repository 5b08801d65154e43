"""Receives the call-backs of the shipping provider and tells the processes that wait for them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import msgspec
import uvicorn
from examples.order_to_cash.process import Delivered
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dalsegno import App

PATH = "/deliveries"


class DeliveryReport(msgspec.Struct, frozen=True):
    """What the shipping provider says; it may say it more than once."""

    shipment_id: str
    order_id: str
    delivered_at: str


class Receiver(uvicorn.Server):
    """An HTTP server that leaves the signals to the program around it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def receiving(app: App, listening: socket.socket) -> AsyncIterator[None]:
    """Receive call-backs on a listening socket."""
    server = Receiver(uvicorn.Config(endpoint(app), access_log=False, log_level="warning", lifespan="off"))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving


def endpoint(app: App) -> Starlette:
    """The ASGI application."""

    async def deliveries(request: Request) -> Response:
        report = msgspec.json.decode(await request.body(), type=DeliveryReport)
        # The answer goes out when the event is durable: until then the provider calls again.
        await app.publish(Delivered(order_id=report.order_id, at=report.delivered_at))
        return Response(status_code=204)

    return Starlette(routes=[Route(PATH, deliveries, methods=["POST"])])
