"""A round: one store, a few instances, and lives of the engine that end in faults until the last one, which is calm."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from dalsegno.kernel.ports import FINAL
from dalsegno.testing.check import Dump
from dalsegno.testing.verify.life import BROKEN_CODE, FENCED_CODE, STUCK_CODE, Life, fork, noise_of
from dalsegno.testing.verify.place import Place
from dalsegno.testing.verify.plan import Plan, Strike
from dalsegno.testing.verify.target import Target

_TICK_SECONDS = 0.002
_NUDGE_SECONDS = 2.0
_GRACE_SECONDS = 10.0


class Round:
    """Lives through the strikes. `dumps`, one a life; `struck`, the strikes that came; `broken`, what went wrong."""

    def __init__(self, target: Target, plan: Plan, place: Place, witness_path: str, seed: int) -> None:
        self.target = target
        self.plan = plan
        self.place = place
        self.seed = seed
        names = [f"verify-{seed}-{number}" for number in range(1, len(plan.inputs) + 1)]
        self.ids = {id: filled(args, id) for id, args in zip(names, plan.inputs, strict=True)}
        self.dumps: list[Dump] = []
        self.struck: list[tuple[int, Strike]] = []
        self.broken: list[str] = []
        self._witness_path = witness_path
        self._chance = Random(seed)

    def live_all(self, strikes: list[Strike]) -> None:
        """Live through all lives; stops where something is broken."""
        zombie = 0
        for number, strike in enumerate([*strikes, None]):
            self.place.set_life(number)
            life = Life(self.target, self.plan, self.place, self.ids, number, strike)
            process = fork(life, self._witness_path)
            if zombie:
                self._wake(zombie, number)
            status = self._wait(process, strike)
            zombie = process if status is not None and os.WIFSTOPPED(status) else 0
            if not zombie:
                self.dumps.append(self.place.dump())
            if not self._goes_on(number, process, strike, status):
                return

    @property
    def passed(self) -> dict[str, int]:
        """How often a first life that nothing ended passed each point."""
        path = self.place.folder / "passed-0"
        found: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def _wait(self, process: int, strike: Strike | None) -> int | None:
        """Wait until a process ends or stops; `None` where it does neither in time."""
        began = time.monotonic()
        due = strike.number / 1000 if strike is not None and strike.kind == "kill-after" else None
        while (passed := time.monotonic() - began) < self.plan.patience_seconds + _GRACE_SECONDS:
            ended, status = os.waitpid(process, os.WUNTRACED | os.WNOHANG)
            if ended:
                return status
            if due is not None and passed >= due:
                os.kill(process, signal.SIGKILL)
                due = None
            select.select([], [], [], _TICK_SECONDS)
        return None

    def _goes_on(self, number: int, process: int, strike: Strike | None, status: int | None) -> bool:
        """Note how a life ended; false where no other follows."""
        if status is None:
            self.broken.append(f"life {number} of the engine did not end; {noise_of(self.place.folder)}")
            _kill(process)
            return False
        by_signal = os.WIFSTOPPED(status) or os.WIFSIGNALED(status)
        code = 0 if by_signal else os.WEXITSTATUS(status)
        if strike is not None and (by_signal or (code == BROKEN_CODE and strike.on_disk)):
            self.struck.append((number, strike))
            return True
        if by_signal:
            self.broken.append(f"life {number} of the engine died by signal {os.WTERMSIG(status)} that nobody sent")
        elif code == STUCK_CODE:
            self.broken.append(noise_of(self.place.folder))
        elif code:
            self.broken.append(f"the engine stopped in life {number}: {noise_of(self.place.folder)}")
        return False

    def _wake(self, zombie: int, number: int) -> None:
        """Wake a frozen node once another one has taken over: it has to stop, and may write nothing."""
        path = self.place.folder / f"began-{number}"
        deadline = time.monotonic() + self.plan.patience_seconds
        while not _appears(path, _NUDGE_SECONDS) and time.monotonic() < deadline:
            # Frozen in the middle of a write it holds the file's lock, which nobody can take from it.
            os.kill(zombie, signal.SIGCONT)
            select.select([], [], [], 0.02)
            os.kill(zombie, signal.SIGSTOP)
        if not path.exists():
            self.broken.append(f"no node could take over from a frozen one: {noise_of(self.place.folder)}")
            _kill(zombie)
            return
        self.dumps.append(msgspec.msgpack.decode(path.read_bytes(), type=Dump))
        select.select([], [], [], self._chance.random() * 0.03)
        os.kill(zombie, signal.SIGCONT)
        status = self._wait(zombie, None)
        if status is None:
            _kill(zombie)
            self.broken.append("a frozen node, once woken, did not stop although another one had taken over")
        elif not os.WIFEXITED(status) or os.WEXITSTATUS(status) not in self._good_ends():
            self.broken.append(f"a node that had lost its lease was not fenced: {noise_of(self.place.folder)}")

    def _good_ends(self) -> tuple[int, ...]:
        """How a woken node may end: fenced, or well where nothing was left to be written at the takeover."""
        statuses = self.dumps[-1].statuses
        is_done = all(statuses.get(id) in FINAL for id in self.ids)
        return (FENCED_CODE, 0) if is_done else (FENCED_CODE,)


def filled(value: Any, id: str) -> Any:
    """An input with the instance's id wherever it says "{id}"."""
    if isinstance(value, str):
        return value.replace("{id}", id)
    if isinstance(value, list):
        return [filled(one, id) for one in value]
    return {name: filled(one, id) for name, one in value.items()} if isinstance(value, dict) else value


def _kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def _appears(path: Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < deadline:
        select.select([], [], [], _TICK_SECONDS)
    return path.exists()


def lines_of(path: Path, type: Any) -> list[Any]:
    """What a witness wrote down."""
    return [msgspec.json.decode(line, type=type) for line in path.read_bytes().splitlines()] if path.exists() else []
