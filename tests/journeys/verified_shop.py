"""Processes to verify: a clean one, and some with the mistakes that people make."""

import itertools
import os
import uuid
from pathlib import Path

from dalsegno import Event, process, saga, step, step_key, wait_for

WORLD = Path(os.environ.get("SHOP_WORLD", "world"))


class Declined(Exception):
    pass


class Packed(Event, key="order"):
    order: str


def book(name: str, entry: str) -> None:
    (WORLD / f"{name}={entry}").touch()


def unbook(name: str, entry: str) -> None:
    (WORLD / f"{name}={entry}").unlink(missing_ok=True)


def held(id: str) -> int:
    """How much an instance left behind."""
    return len(list(WORLD.glob(f"hold-{id}=*")))


@step
async def reserve(order: str) -> str:
    key = step_key().replace("/", "-")
    # A node that was frozen may call after another one has called, and released it.
    if not (WORLD / f"released-{key}").exists():
        book(f"hold-{order}", key)
    return key


@reserve.undo
async def release(order: str, hold: str) -> None:
    (WORLD / f"released-{hold}").touch()
    unbook(f"hold-{order}", hold)


@step(retry=None)
def charge(order: str, total: int) -> str:
    if total > 100:
        raise Declined(step_key())
    return f"{total} paid"


@step
async def mail(order: str) -> str:
    book(f"mail-{order}", str(uuid.uuid4()))
    return "sent"


@step
async def call_the_bank(total: int) -> str:
    raise ConnectionError("there is no bank here")


@process
async def order(order: str, total: int) -> str:
    async with saga():
        await reserve(order)
        return await charge(order, total)


@process
async def newsletter(order: str) -> str:
    return await mail(order)


_numbers = itertools.count()


@process
async def fickle(order: str) -> str:
    return await mail(f"{order} number {next(_numbers)}")


@step
async def grab(order: str) -> str:
    """Another hold on each attempt, whatever the step key says."""
    hold = str(uuid.uuid4())
    book(f"hold-{order}", hold)
    return hold


@grab.undo
async def let_go(order: str, hold: str) -> None:
    unbook(f"hold-{order}", hold)


@process
async def forgetful(order: str, total: int) -> str:
    async with saga():
        await grab(order)
        return await charge(order, total)


@process
async def banking(total: int) -> str:
    return await call_the_bank(total)


@process
async def packing(order: str) -> str:
    await wait_for(Packed, order=order)
    return await reserve(order)


async def pack(app, run):
    await app.publish(Packed(run.id), id=f"packed-{run.id}")
