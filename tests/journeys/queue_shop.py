"""A shop whose films are rendered by workers: run as programs that tests kill, freeze and stop.

Steps leave their marks in a file, past every buffer, and wait for files to appear: nothing here depends on time.
"""

import asyncio
import os
from pathlib import Path

from dalsegno import App, Limits, Retry, process, saga, step, step_key

HERE = Path(__file__).parent
LEASE_SECONDS = float(os.environ.get("SHOP_LEASE", "1.0"))


def mark(text: str) -> None:
    file = os.open(HERE / "marks", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{text} {os.getpid()}\n".encode())
    os.close(file)


@step(queue="gpu", retry=Retry(attempts=3, first="1ms"))
async def render(film: str) -> str:
    """Ends once there is a file of the film's name."""
    mark(f"begins {step_key()}")
    try:
        while not (HERE / film).exists():
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        mark(f"stops {step_key()}")
        raise
    mark(f"ends {step_key()}")
    return f"{film} rendered"


@render.undo(even_if_unknown=True)
async def unrender(film: str, result: str | None) -> None:
    mark(f"undoes {step_key()}")


@step(queue="gpu")
def poison(film: str) -> None:
    """Ends its worker."""
    mark(f"poison {step_key()}")
    os._exit(9)


@step(queue="gpu")
def count(n: int) -> int:
    return n + 1


@process
async def film(name: str) -> str:
    async with saga():
        return await render(name)


@process
async def lethal(name: str) -> None:
    await poison(name)


@process
async def many(n: int) -> int:
    return sum(await asyncio.gather(*(count(k) for k in range(n))))


app = App("sqlite:///shop.db", limits=Limits(lease_seconds=LEASE_SECONDS, poll_seconds=0.1))
