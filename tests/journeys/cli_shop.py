"""A small shop whose processes the tests of the command line run; each test copies it to a folder of its own."""

import os
import time
from pathlib import Path

from dalsegno import App, Event, Limits, Refused, Retry, annotate, ask, on, process, saga, start, step, wait_for


class Delivered(Event, key="order_id"):
    order_id: str
    at: str = ""


class ChangeAddress(Event, reply=str):
    street: str


class NoFunds(Exception):
    pass


@step
def hold(order: str) -> str:
    with Path("effects").open("a") as effects:
        effects.write(f"hold {order}\n")
    return f"hold-{order}"


@hold.undo
def release(order: str, held: str) -> None:
    with Path("effects").open("a") as effects:
        effects.write(f"release {order}\n")


@step(retry=Retry(attempts=2, first="10ms"))
def charge(order: str, amount: int) -> str:
    if amount > 100 and not Path("credit").exists():
        raise NoFunds(f"{amount} is too much for {order}")
    return f"charge-{amount}"


@process
async def order(id: str, amount: int = 5) -> dict[str, object]:
    streets: list[str] = []

    @on(ChangeAddress)
    def change(request: ChangeAddress) -> str:
        if not request.street:
            raise Refused("a street is needed")
        streets.append(request.street)
        return f"to {request.street}"

    async with saga():
        await hold(id)
        annotate(stage="charging", amount=amount)
        paid = await charge(id, amount)
        annotate(stage="packing")
        ok = await ask("finance", bool, about={"order": id}, title="May we?")
        delivered = await wait_for(Delivered, order_id=id)
    return {"paid": paid, "ok": ok, "at": delivered.at, "streets": streets}


@step(timeout="20s")
def nap() -> str:
    Path("napping").touch()
    while not Path("wake").exists():
        time.sleep(0.01)
    return "rested"


@process
async def sleeper() -> str:
    return await nap()


@step(executor="process")
def square(number: int) -> int:
    return number * number


@process
async def greet(name: str, number: int = 3) -> str:
    return f"hello {name}, {await square(number)}"


@process
async def parent(name: str) -> str:
    child = await start(greet, name)
    return await child.result()


# Short, so that a node that was killed isn't taken for alive for long.
app = App(os.environ.get("SHOP", "sqlite:///shop.db"), limits=Limits(lease_seconds=1.5))
