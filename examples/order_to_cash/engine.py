"""The company's engine as a process of its own: runs the orders, feeds them, receives call-backs."""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
from pathlib import Path

import msgspec
import uvloop
from examples.order_to_cash.clients import Endpoints, connected
from examples.order_to_cash.feeder import Feeder
from examples.order_to_cash.lifeline import end_with_parent
from examples.order_to_cash.orders import read_orders
from examples.order_to_cash.process import order_to_cash, take_back
from examples.order_to_cash.webhook import receiving

from dalsegno import App

AT_ONCE = 1_500
"""Orders and cancellations under way: enough to keep everybody busy while one service is out."""


async def run(options: argparse.Namespace) -> None:
    """See an order book through to its end."""
    book = read_orders(options.orders).first(options.limit)
    app = App(options.store, processes=[order_to_cash, take_back])
    endpoints = msgspec.json.decode(options.endpoints, type=Endpoints)
    listening = socket.socket(fileno=options.socket)
    async with connected(endpoints), app, receiving(app, listening):
        await Feeder(app, options.at_once).feed(book)


async def until_told_to_stop(options: argparse.Namespace) -> None:
    """Run; SIGTERM ends it cleanly."""
    work = asyncio.create_task(run(options))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        return


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="engine")
    parser.add_argument("--store", required=True, help="URL of the engine's database")
    parser.add_argument("--orders", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=1_000_000_000)
    parser.add_argument("--at-once", type=int, default=AT_ONCE)
    parser.add_argument("--endpoints", required=True, help="URLs of the services, as JSON")
    parser.add_argument("--socket", type=int, required=True, help="file descriptor that call-backs arrive on")
    options = parser.parse_args()
    end_with_parent()
    uvloop.run(until_told_to_stop(options))


if __name__ == "__main__":
    main()
