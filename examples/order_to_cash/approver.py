"""The finance department, scripted: looks for large orders, thinks about each for a while, and answers."""

from __future__ import annotations

import argparse
import asyncio
import time
from random import Random

from examples.order_to_cash.lifeline import end_with_parent
from examples.order_to_cash.process import Verdict

from dalsegno import App, NotFound, Refused, StoreError, Task

ROLE = "finance"
LOOKS_EVERY = 0.3
THINKS_FOR = (0.5, 2.5)
REFUSED_SHARE = 0.1


class Approver:
    """One person at a desk."""

    def __init__(self, client: App, seed: int) -> None:
        self._client, self._seed = client, seed
        self._ready_at: dict[str, float] = {}

    async def look(self) -> None:
        """Answer the tasks that were thought about for long enough."""
        tasks = await self._client.tasks(role=ROLE)
        await asyncio.gather(*(self._answer(task) for task in tasks if self._has_thought(task)))

    def _has_thought(self, task: Task) -> bool:
        pause = self._chance(task).uniform(*THINKS_FOR)
        return time.monotonic() >= self._ready_at.setdefault(task.id, time.monotonic() + pause)

    def _chance(self, task: Task) -> Random:
        return Random(f"{self._seed}/{task.instance}")

    async def _answer(self, task: Task) -> None:
        refused = self._chance(task).random() < REFUSED_SHARE
        verdict = Verdict(not refused, "the credit line is used up" if refused else "")
        try:
            await self._client.answer(task.id, verdict, by="maria")
        except (NotFound, Refused):
            return  # the order was called off meanwhile


async def work(store: str, seed: int) -> None:
    """Look again and again."""
    client = App(store)
    async with client.client():
        approver = Approver(client, seed)
        while True:
            try:
                await approver.look()
            except StoreError:
                pass  # the engine may be starting again: what was not answered is still there
            await asyncio.sleep(LOOKS_EVERY)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="approver")
    parser.add_argument("--store", required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    end_with_parent()
    asyncio.run(work(options.store, options.seed))


if __name__ == "__main__":
    main()
