"""What goes wrong in a service: settings, and the ASGI layer that makes it happen."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NEVER_FAULTY = frozenset({"/health", "/stats", "/outage"})


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """How a service misbehaves. Rates are shares of requests; the same seed gives the same faults."""

    seed: int = 0
    latency: tuple[float, float] = (0.0, 0.0)
    """Seconds a request takes at least and at most."""
    errors: float = 0.0
    """Answered with a 5xx before anything happened."""
    lost_replies: float = 0.0
    """Done, but the reply is withheld until the client has given up."""
    withhold_seconds: float = 3.0
    requests_per_second: float = 0.0
    """Above this rate a request is answered with 429; 0 means no limit."""
    declined: float = 0.0
    """Cards the gateway declines."""
    delivery_seconds: tuple[float, float] = (0.0, 0.0)
    """How long the shipping provider takes to deliver."""
    repeated_callbacks: float = 0.0
    """Call-backs the shipping provider delivers more than once."""


class Outage:
    """A span of time in which a service does nothing at all."""

    def __init__(self) -> None:
        self._until = 0.0

    def begin(self, seconds: float) -> None:
        """Let the service fail from now on for so long."""
        self._until = time.monotonic() + seconds

    @property
    def seconds_left(self) -> float:
        """How long it still lasts; 0 when there is none."""
        return max(0.0, self._until - time.monotonic())


class RateLimit:
    """A token bucket that holds the requests of one second."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._tokens = per_second
        self._at = time.monotonic()

    def admits(self) -> bool:
        """Whether one more request may pass now."""
        if not self._per_second:
            return True
        now = time.monotonic()
        self._tokens = min(self._per_second, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class FaultyService:
    """A service behind its faults."""

    def __init__(
        self,
        name: str,
        service: ASGIApp,
        faults: Faults,
        outage: Outage,
        figures: Callable[[], dict[str, int]],
    ) -> None:
        self._name, self._service, self._faults, self._outage = name, service, faults, outage
        self._figures = figures
        self._limit = RateLimit(faults.requests_per_second)
        self._arrivals: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._service(scope, receive, send)
        elif scope["path"] in NEVER_FAULTY:
            await self._control(scope, receive)(scope, receive, send)
        else:
            await self._serve(scope, receive, send)

    def _control(self, scope: Scope, receive: Receive) -> ASGIApp:
        if scope["path"] == "/outage":
            self._outage.begin(float(Request(scope).query_params["seconds"]))
        return _answer(200, {**self._counts, **self._figures()})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        chance = self._chance(scope)
        if self._outage.seconds_left:
            await self._refuse("outages", 503, scope, receive, send)
        elif not self._limit.admits():
            await self._refuse("throttled", 429, scope, receive, send, {"Retry-After": "1"})
        else:
            await asyncio.sleep(chance.uniform(*self._faults.latency))
            if chance.random() < self._faults.errors:
                await self._refuse("errors", chance.choice([500, 502, 503]), scope, receive, send)
            elif chance.random() < self._faults.lost_replies:
                await self._lose_reply(scope, receive, send)
            else:
                await self._service(scope, receive, send)

    async def _lose_reply(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._service(scope, receive, _nowhere)
        await asyncio.sleep(self._faults.withhold_seconds)
        await self._refuse("lost_replies", 504, scope, receive, send)

    async def _refuse(
        self,
        why: str,
        status: int,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: dict[str, str] | None = None,
    ) -> None:
        self._counts[why] += 1
        await _answer(status, {"code": why, "message": f"{self._name}: {why}"}, headers)(scope, receive, send)

    def _chance(self, scope: Scope) -> Random:
        # Drawn from the request and how often it came, not from one sequence: what befalls a request does not
        # depend on the order in which others arrive.
        key = dict(scope["headers"]).get(b"idempotency-key", b"").decode() or scope["path"]
        nth = self._arrivals[key]
        self._arrivals[key] += 1
        self._counts["requests"] += 1
        self._counts["repeats"] += nth > 0
        return Random(f"{self._faults.seed}/{self._name}/{key}/{nth}")


def _answer(status: int, content: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")


async def _nowhere(message: Message) -> None:
    """Swallow a reply."""
