"""What a simulated world is made of: effects in a list, a log in memory, a store that can freeze."""

from __future__ import annotations

import contextvars
import logging
import warnings
from collections.abc import Callable
from random import Random
from typing import Any

from tests.reliability import workload
from tests.reliability.client import Unexpected

from dalsegno import App
from dalsegno.engine.node import Node
from dalsegno.errors import StoreError
from dalsegno.gateway import InProcess
from dalsegno.kernel.limits import Limits
from dalsegno.kernel.ports import Batch, Committed
from dalsegno.stores.memory.disk import Disk
from dalsegno.stores.memory.store import MemoryStore
from dalsegno.testing.check import Call, Dump, Effect

current_life: contextvars.ContextVar[int] = contextvars.ContextVar("life", default=0)


class SimulatedWorld:
    """Effects in a list; what a dead life does no longer counts."""

    def __init__(self) -> None:
        self.effects: list[Effect] = []
        self.dead: set[int] = set()
        self._repaired: set[str] = set()

    def effect(self, key: str, attempt: int, saw: list[str]) -> str:
        life = current_life.get()
        token = f"t{life}.{len(self.effects)}"
        if life not in self.dead:
            self.effects.append(Effect(life, key, attempt, token, tuple(saw)))
        return token

    def repaired(self, name: str) -> bool:
        return name in self._repaired

    def repair(self, name: str) -> None:
        self._repaired.add(name)


class SimulatedLog:
    """The clients' log."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.life = 0
        self._done: dict[tuple[str, str, str], str] = {}

    def asked(self, verb: str, target: str, detail: str) -> int:
        self.calls.append(Call(current_life.get(), verb, target, detail))
        return len(self.calls) - 1

    def ended(self, number: int, outcome: str, reply: str) -> None:
        call = self.calls[number]
        # Who asked beside a node that froze may have its answer from the next one.
        call.life = max(call.life, self.life)
        call.outcome, call.reply = outcome, reply
        if outcome == "ok":
            self._done[call.verb, call.target, call.detail] = reply

    def done(self, verb: str, target: str, detail: str) -> str | None:
        return self._done.get((verb, target, detail))


class SimulatedStore(MemoryStore):
    """A memory store whose node can be frozen, as SIGSTOP or a long pause of the machine freezes it."""

    def __init__(self, disk: Disk, clock: Callable[[], int]) -> None:
        super().__init__(disk, clock)
        self._frozen = False
        self._kept: list[Callable[[], None]] = []

    def kill(self) -> None:
        """From here on the disk hears nothing."""
        self.broken = StoreError("dead")

    def freeze(self) -> None:
        """Keep back whatever is to be written."""
        self._frozen = True

    def thaw(self) -> None:
        """Write what was kept back, late."""
        self._frozen = False
        kept, self._kept = self._kept, []
        for write in kept:
            write()

    def _commit(self, batch: Batch, epoch: int, done: Callable[[Committed | BaseException], None]) -> None:
        if self._frozen:
            self._kept.append(lambda: super(SimulatedStore, self)._commit(batch, epoch, done))
        else:
            super()._commit(batch, epoch, done)

    async def renew(self, lease_seconds: float, figures: bytes = b"{}") -> None:
        if self._frozen:
            thawed = self._loop.create_future()
            self._kept.append(lambda: thawed.done() or thawed.set_result(None))
            await thawed
        await super().renew(lease_seconds, figures)


def open_app(store: Any, limits: Limits, chance: Random) -> tuple[App, Node]:
    """An app whose node is at hand, so that it can be buried whenever it dies."""
    app = App(store, limits=limits, processes=workload.PROCESSES)
    node = Node(store, [p.spec for p in workload.PROCESSES], limits, name="simulated", chance=chance)
    app._node, app._gateway = node, InProcess(node)
    return app, node


def dump_of(disk: Disk) -> Dump:
    """What is on disk."""
    ids = {key: row.id for key, row in disk.instances.items()}
    return Dump(
        {row.id: row.status for row in disk.instances.values()},
        {ids[key]: [(seq, at, entry) for seq, at, _, entry in rows] for key, rows in disk.journals.items()},
        ledger_of(disk),
        frozenset(event.id for event in disk.meetings.events.values()),
    )


def ledger_of(disk: Disk) -> dict[str, int]:
    """What the transaction steps booked, by step key."""
    if disk._guest is None:
        return {}
    guest = disk.guest.connection
    if not guest.execute("SELECT 1 FROM sqlite_master WHERE name = 'ledger'").fetchone():
        return {}
    return dict(guest.execute("SELECT step_key, count(*) FROM ledger GROUP BY step_key").fetchall())


def standing(disk: Disk) -> str:
    """What hasn't ended, and why."""
    return "; ".join(
        f"{row.id} {row.status} ({row.waiting_for}) {row.error or ''}"
        for row in disk.instances.values()
        if row.status not in ("completed", "failed", "cancelled", "terminated")
    )


def told(group: BaseExceptionGroup[Any]) -> str:
    """An exception group in one line."""
    return "; ".join(
        told(e) if isinstance(e, BaseExceptionGroup) else str(e) if isinstance(e, Unexpected) else repr(e)
        for e in group.exceptions
    )


def quiet() -> None:
    """Nobody reads what dying nodes say."""
    logging.getLogger("dalsegno").setLevel(logging.CRITICAL + 1)
    # Coroutines that die before they begin.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
