"""What the nodes of the fleet's tests run: a real engine each, in a process of its own."""

import asyncio
import os
from pathlib import Path

from dalsegno import App, Event, Limits, process, step, step_key, wait_for


class Go(Event, key="order"):
    order: str


def note(word: str) -> None:
    """Tell the witness, which is a file that each process appends to."""
    with Path(os.environ["WITNESS"]).open("a") as witness:
        witness.write(f"{os.getpid()} {word}\n")


@step
async def work(number: int) -> int:
    note(step_key())
    await asyncio.sleep(0.02)
    return number


@process
async def three_steps(number: int) -> int:
    return await work(number) + await work(number) + await work(number)


@process
async def sleeps_a_while(seconds: float) -> str:
    await work(0)
    await asyncio.sleep(seconds)
    await work(1)
    return "slept"


@process
async def waits_for_go(order: str) -> str:
    await work(0)
    return (await wait_for(Go, order=order)).order


@process
async def child(number: int) -> int:
    return await work(number)


@process
async def many_steps(count: int) -> int:
    for number in range(count):
        await work(number)
    return count


@process
async def parent(count: int) -> int:
    return sum(await asyncio.gather(*(child(n) for n in range(count))))


app = App(os.environ.get("STORE", "memory://"), limits=Limits(lease_seconds=2.0, poll_seconds=0.5))
