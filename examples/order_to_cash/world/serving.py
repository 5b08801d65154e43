"""What the services share: commands over HTTP, and their life as operating-system processes."""

from __future__ import annotations

import argparse
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar, TypeVar

import msgspec
import uvicorn
from examples.order_to_cash.lifeline import end_with_parent
from examples.order_to_cash.world.faults import Faults, FaultyService, Outage
from examples.order_to_cash.world.ledger import Answer, Ledger
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

Body = TypeVar("Body", bound=msgspec.Struct)


class Service:
    """A service of the world: its commands, and what it does of its own accord."""

    name: ClassVar[str]
    schema: ClassVar[str]

    def __init__(self, ledger: Ledger, faults: Faults, outage: Outage, callbacks_to: str) -> None:
        self.ledger, self.faults, self.outage, self.callbacks_to = ledger, faults, outage, callbacks_to
        self.db = ledger.connection

    def routes(self) -> list[Route]:
        """The commands the service takes."""
        raise NotImplementedError

    def figures(self) -> dict[str, int]:
        """What the service counts in its own database."""
        return {}

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        """What the service does while it runs, besides answering."""
        yield

    def command(self, body: type[Body], act: Callable[[Body], object]) -> Route:
        """`POST /<name of the method>` with a JSON body, done once for each Idempotency-Key."""
        decoder = msgspec.json.Decoder(body)

        async def endpoint(request: Request) -> Response:
            try:
                content = await request.body()
            except ClientDisconnect:
                return Response(status_code=400)  # nobody is there to read it
            key = request.headers.get("idempotency-key")
            if not key:
                return _reply(_malformed("the header Idempotency-Key is missing"))
            try:
                asked = decoder.decode(content)
            except msgspec.DecodeError as error:
                return _reply(_malformed(str(error)))
            return _reply(self.ledger.once(key, request.url.path.encode() + content, lambda: act(asked)))

        return Route("/" + act.__name__.replace("_", "-"), endpoint, methods=["POST"])


def application(service: Service) -> FaultyService:
    """The service as an ASGI application, behind its faults."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with service.alive():
            yield

    starlette = Starlette(routes=service.routes(), lifespan=lifespan)
    return FaultyService(service.name, starlette, service.faults, service.outage, service.figures)


def serve(kind: type[Service]) -> None:
    """Run a service on the socket it inherited, until a signal or the end of its parent stops it."""
    options = _options(kind.name)
    end_with_parent()
    ledger = Ledger(options.database, kind.schema)
    service = kind(ledger, msgspec.json.decode(options.faults, type=Faults), Outage(), options.callbacks_to)
    config = uvicorn.Config(
        application(service),
        access_log=False,
        log_level="warning",
        timeout_keep_alive=120,
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=options.socket)])
    ledger.close()


def _options(name: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=name)
    parser.add_argument("--socket", type=int, required=True, help="file descriptor of a listening socket")
    parser.add_argument("--database", type=Path, required=True)
    parser.add_argument("--faults", default="{}", help="JSON")
    parser.add_argument("--callbacks-to", default="", help="URL that is told of deliveries")
    return parser.parse_args()


def _malformed(message: str) -> Answer:
    return Answer(400, msgspec.json.encode({"code": "malformed", "message": message}))


def _reply(answer: Answer) -> Response:
    return Response(answer.body, answer.status, media_type="application/json")
