"""What type checkers infer of the vocabulary. Checked by test_typing.py, never run."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from random import Random
from sqlite3 import Connection
from typing import Any, assert_type
from uuid import UUID

from dalsegno import (
    App,
    Event,
    Instance,
    Retry,
    Run,
    Task,
    annotate,
    ask,
    changed,
    heartbeat,
    now,
    on,
    process,
    publish,
    random,
    saga,
    start,
    step,
    step_key,
    transaction,
    uuid,
    wait_for,
)


@dataclass
class Order:
    id: str


@dataclass
class Hold:
    id: str


@dataclass
class Receipt:
    order: str


class Delivered(Event, key="order_id"):
    order_id: str
    at: datetime | None = None


class ChangeAddress(Event, reply=bool):
    address: str


@step
async def reserve(order: Order, *, urgent: bool = False) -> Hold:
    return Hold(order.id)


@reserve.undo
async def release(order: Order, hold: Hold | None, *, urgent: bool = False) -> None: ...


@step(retry=Retry(attempts=3), timeout="10s")
async def charge(order: Order) -> int:
    assert_type(step_key(), str)
    heartbeat({"row": 1})
    return 1


@charge.undo(even_if_unknown=True)
async def refund(order: Order, charged: int | None) -> None: ...


@step
def in_a_thread(n: int) -> list[str]:
    return [str(n)]


@step(executor="process")
def in_a_process(n: int) -> float:
    return n / 2


@transaction
def book(tx: Connection, account: str, amount: int) -> int:
    return amount


@transaction(on="sqlite:///own.db", retry=3)
def book_elsewhere(tx: Connection, account: str) -> str:
    return account


@process
async def ship(order: Order) -> Receipt:
    return Receipt(order.id)


@process(version=2, name="order_to_cash")
async def order_to_cash(order: Order, limit: int = 3) -> Receipt:
    async with saga():
        assert_type(await reserve(order, urgent=True), Hold)
    assert_type(await charge(order), int)
    assert_type(await charge.using(timeout="1s")(order), int)
    assert_type(await in_a_thread(1), list[str])
    assert_type(await in_a_process(1), float)
    assert_type(await book("a", 3), int)
    assert_type(await book_elsewhere("a"), str)
    both = await asyncio.gather(reserve(order), charge(order))
    assert_type(both, tuple[Hold, int])
    assert_type(await ship(order), Receipt)
    child = await start(ship, order, id="x", parent_close="cancel")
    assert_type(await child.result(), Receipt)
    assert_type(child.id, str)
    event = await wait_for(Delivered, order_id="1")
    assert_type(event, Delivered)
    assert_type(event.order_id, str)
    assert_type(await ask("finance", bool, about=order), bool)
    assert_type(await publish(Delivered("1")), str)
    assert_type(now(), datetime)
    assert_type(uuid(), UUID)
    assert_type(random(), Random)
    assert_type(changed("x"), bool)
    annotate(stage="packing")

    @on(ChangeAddress)
    def change(request: ChangeAddress) -> bool:
        return bool(request.address)

    return Receipt(order.id)


async def use(app: App) -> None:
    async with app as opened:
        assert_type(opened, App)
        run = await app.start(order_to_cash, Order("1"), id="order-1")
        assert_type(run, Run[Receipt])
        assert_type(await run.result(), Receipt)
        fork = await run.fork(step="charge")
        assert_type(await fork.result(), Receipt)
        assert_type(await run.describe(), Instance)
        assert_type(await run.status(), str)
        assert_type(await app.publish(Delivered("1")), str)
        for task in await app.tasks():
            assert_type(task, Task)
        async for instance in app.list(status="failed"):
            assert_type(instance, Instance)
        assert_type(await app.counts(), dict[str, int])
        by_name = await app.start("order_to_cash", Order("1"))
        assert_type(by_name, Run[Any])
        assert_type(app.get("order-1", Receipt), Run[Receipt])
        assert_type(app.get("order-1"), Run[Any])
    async with app.client() as beside:
        assert_type(beside, App)
