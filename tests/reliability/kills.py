"""Rounds of lives: a real engine is killed or frozen at named points until it may at last finish everything."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import msgspec
from tests.reliability import workload
from tests.reliability.client import Goals, choose
from tests.reliability.engine import (
    BROKEN_CODE,
    FENCED_CODE,
    Order,
    effects_in,
    run_beside,
    run_engine,
)
from tests.reliability.replays import replayed

from dalsegno.kernel.limits import Limits
from dalsegno.kernel.ports import FINAL
from dalsegno.testing.check import Dump, History
from dalsegno.testing.evidence import calls_in, dump_of

_LIFE_SECONDS = 40.0
_NUDGE_SECONDS = 2.0
_ALWAYS = ("orders", "ledgers", "sleepers", "listeners", "parents", "renewals")


class Strike(msgspec.Struct):
    """What ends a life: a signal at the n-th passing of a point, or at a moment where no point is named."""

    point: str
    passing: int
    signal: int = signal.SIGKILL
    after_seconds: float = 0.0
    fail_sync: int = 0
    full_after: int = -1
    disk_log: str = ""
    checkpoint_pages: int = 0
    #: every run is long enough for it
    must: bool = False

    @property
    def on_disk(self) -> bool:
        """Whether the disk fails, at which the node has to stop by itself."""
        return self.fail_sync > 0 or self.full_after >= 0


class Tally(msgspec.Struct):
    """What rounds came to."""

    rounds: int = 0
    kills: int = 0
    freezes: int = 0
    stopped: int = 0
    fenced: int = 0
    effects: int = 0
    repeated: int = 0
    passed: dict[str, int] = {}
    struck: dict[str, int] = {}
    violations: list[str] = []

    def add(self, other: Tally) -> None:
        """Count another one's figures in."""
        for name in ("rounds", "kills", "freezes", "stopped", "fenced", "effects", "repeated"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.passed = dict(Counter(self.passed) + Counter(other.passed))
        self.struck = dict(Counter(self.struck) + Counter(other.struck))
        self.violations = [*self.violations, *other.violations]


class Round:
    """One file, one set of goals, several lives.

    Parameters: `socket_path` of the witness; `strikes`, one a life until the last one, which nothing ends.
    """

    def __init__(self, socket_path: str, seed: int, strikes: list[Strike], goals: Goals | None = None) -> None:
        self.seed = seed
        self.chance = Random(seed)
        self.strikes = strikes
        self.folder = Path(tempfile.mkdtemp(prefix="dalsegno-kills-"))
        self.socket_path = socket_path
        some = list(choose(self.chance, 3)) + [(name, f"{name}-base") for name in _ALWAYS]
        self.goals = goals or some
        self.beside: Goals = [] if goals else list(choose(self.chance, self.chance.choice([0, 1, 2])))
        self.beside = [(name, f"{id}-beside") for name, id in self.beside]
        self.limits = {
            "resident_instances": self.chance.choice([2, 1000]),
            "timer_window_seconds": self.chance.choice([0.05, 60.0]),
            "lease_seconds": 0.2,
            "crashes_before_trial": 10**6,
            "crashes_before_parking": 10**6,
        }
        self.tally = Tally(rounds=1)
        self.dumps: list[Dump] = []

    def run(self) -> Tally:
        """Live through all lives; the tally holds the violations."""
        try:
            self.live_all()
            if not self.tally.violations:
                self._check()
        finally:
            self.clear()
        return self.tally

    def clear(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- lives -------------------------------------------------------------------------------------

    def live_all(self) -> None:
        """Live through all lives, after those whose dumps are there already."""
        first = len(self.dumps)
        self._set_life(first)
        beside = self._fork(run_beside, self._order(0, self.beside)) if self.beside else 0
        if not beside:
            (self.folder / "beside-done").touch()
        zombie = 0
        for life, strike in enumerate([*self.strikes, None], first):
            self._set_life(life)
            process = self._fork(run_engine, self._order(life, self.goals, strike))
            if zombie:
                self._wake(zombie, life)
            status = self._wait(process, strike)
            zombie = process if status is not None and os.WIFSTOPPED(status) else 0
            if not zombie:
                # What clients beside are told from here on may not be in the dump.
                self._set_life(life + 1)
                self.dumps.append(dump_of(self.folder / "x.db"))
            if not self._goes_on(life, process, strike, status):
                break
        if beside:
            self._reap(beside, {0}, "the clients beside")

    def _set_life(self, life: int) -> None:
        part = self.folder / "life.part"
        part.write_text(str(life))
        part.rename(self.folder / "life")

    def _order(self, life: int, goals: Goals, strike: Strike | None = None) -> Order:
        order = Order(str(self.folder), self.socket_path, life, self.seed, goals, self.limits)
        if strike is not None:
            order.point, order.passing, order.signal = strike.point, strike.passing, strike.signal
            order.fail_sync, order.full_after = strike.fail_sync, strike.full_after
            order.disk_log, order.checkpoint_pages = strike.disk_log, strike.checkpoint_pages
        return order

    def _fork(self, work: Callable[[Order], None], order: Order) -> int:
        process = os.fork()
        if process == 0:
            code = 1
            try:
                os.dup2(os.open(self.folder / "noise", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
                work(order)
                code = 0
            except SystemExit as leaving:
                code = int(leaving.code or 0)
            finally:
                os._exit(code)
        return process

    def _wait(self, process: int, strike: Strike | None, seconds: float = _LIFE_SECONDS) -> int | None:
        """Wait until a process ends or stops; `None` where it does neither in time."""
        handle = os.pidfd_open(process)
        try:
            if strike is not None and strike.after_seconds:
                if not select.select([handle], [], [], strike.after_seconds)[0]:
                    os.kill(process, signal.SIGKILL)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                # Its end makes the handle readable, a stop does not.
                select.select([handle], [], [], 0.005)
                ended, status = os.waitpid(process, os.WUNTRACED | os.WNOHANG)
                if ended:
                    return status
            return None
        finally:
            os.close(handle)

    def _goes_on(self, life: int, process: int, strike: Strike | None, status: int | None) -> bool:
        """Count how a life ended; false where no other follows."""
        if status is None:
            self._violate(f"I16 life {life} did not end; {self._standing()}")
            self._kill(process)
            return False
        if os.WIFSTOPPED(status):
            self.tally.freezes += 1
        elif os.WIFSIGNALED(status):
            self.tally.kills += 1
        elif os.WEXITSTATUS(status) == BROKEN_CODE and strike is not None and strike.on_disk:
            self.tally.stopped += 1
            return True
        else:
            if os.WEXITSTATUS(status):
                self._violate(f"life {life} ended with code {os.WEXITSTATUS(status)}: {self._errors()}")
            self._count_passed(life)
            return False
        if strike is not None and strike.point:
            self.tally.struck[strike.point] = self.tally.struck.get(strike.point, 0) + 1
        return True

    def _count_passed(self, life: int) -> None:
        path = self.folder / f"passed-{life}"
        if path.exists():
            self.tally.passed = dict(Counter(self.tally.passed) + Counter(json.loads(path.read_text())))

    # -- frozen nodes ------------------------------------------------------------------------------

    def _wake(self, zombie: int, life: int) -> None:
        """Wake a frozen node once another one has taken over: it has to stop, and may write nothing."""
        path = self.folder / f"began-{life}"
        deadline = time.monotonic() + _LIFE_SECONDS
        while not _appears(path, _NUDGE_SECONDS) and time.monotonic() < deadline:
            # Frozen in the middle of a write it holds the file's lock, which nobody can take from it.
            os.kill(zombie, signal.SIGCONT)
            select.select([], [], [], 0.02)
            os.kill(zombie, signal.SIGSTOP)
        if not path.exists():
            self._violate(f"I16 nobody could take over from a frozen node in life {life}: {self._errors()}")
            self._kill(zombie)
            return
        self.dumps.append(msgspec.msgpack.decode(path.read_bytes(), type=Dump))
        select.select([], [], [], self.chance.random() * 0.03)
        os.kill(zombie, signal.SIGCONT)
        # With nothing left to be written at the takeover it may also end well.
        done = all(status in FINAL for status in self.dumps[-1].statuses.values())
        self._reap(zombie, {FENCED_CODE, 0} if done else {FENCED_CODE}, f"the node that was frozen in life {life - 1}")
        self.tally.fenced += 1

    def _reap(self, process: int, codes: set[int], name: str) -> None:
        status = self._wait(process, None)
        if status is None:
            self._violate(f"I16 {name} did not end")
            self._kill(process)
        elif not os.WIFEXITED(status) or os.WEXITSTATUS(status) not in codes:
            self._violate(f"I7 {name} ended with status {status}, not with code {sorted(codes)}: {self._errors()}")

    def _kill(self, process: int) -> None:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)

    # -- verdict -----------------------------------------------------------------------------------

    def _violate(self, text: str) -> None:
        self.tally.violations.append(f"seed {self.seed}: {text}")

    def _errors(self) -> str:
        path = self.folder / "errors"
        return path.read_text()[-700:] if path.exists() else "nothing written down"

    def _standing(self) -> str:
        return ", ".join(f"{id} {status}" for id, status in dump_of(self.folder / "x.db").statuses.items())

    def _check(self) -> None:
        effects = effects_in(self.folder)
        self.tally.effects = len(effects)
        self.tally.repeated = len(effects) - len({(effect.key, effect.attempt) for effect in effects})
        history = History(self.dumps, effects, calls_in(self.folder), workload.UNDOABLE, workload.FLAT)
        for text in history.violations():
            self._violate(text)
        for id, journal in history.journals.items():
            for text in replayed(id, journal, Limits()):
                self._violate(text)


def _appears(path: Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < deadline:
        select.select([], [], [], 0.005)
    return path.exists()
