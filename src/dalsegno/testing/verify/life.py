"""One life of the engine, in a process of its own: it runs the user's process until all is done or it is struck."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import threading
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from dalsegno.app import App
from dalsegno.errors import Fenced, NotFound, Refused, StoreError, StoreLocked, StoreOwned
from dalsegno.instance import Run
from dalsegno.kernel import points
from dalsegno.testing import chaos
from dalsegno.testing.evidence import FileLog
from dalsegno.testing.verify.place import Place
from dalsegno.testing.verify.plan import Plan, Strike
from dalsegno.testing.verify.target import Target
from dalsegno.testing.verify.watched import Watch, WatchedApp
from dalsegno.testing.witness import Asking

FENCED_CODE = 7
BROKEN_CODE = 3
STUCK_CODE = 4
_SIGNALS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}
_WRITING = {"commit.before": True, "commit.executed": False}
_LOOK_SECONDS = 0.25
_AGAIN_SECONDS = 0.01


class Stuck(Exception):
    """An instance will not end by itself."""


class Life:
    """What one life is to do. `folder` is what the witnesses share with nobody but the verdict."""

    def __init__(
        self, target: Target, plan: Plan, place: Place, ids: dict[str, list[Any]], number: int, strike: Strike | None
    ) -> None:
        self.target = target
        self.plan = plan
        self.place = place
        self.ids = ids
        self.number = number
        self.strike = strike

    def live(self, witness_path: str) -> int:
        """Be the engine; returns the exit code."""
        logging.disable(logging.CRITICAL)
        fuse = points.armed = Fuse(self.strike, self._taken_over)
        self._arm_disk()
        watch = Watch(Asking(witness_path, str(self.place.folder), self.number), self.plan.doubles)
        app = WatchedApp(self.target.app_on(self.place.url, self.plan.lease_seconds), watch)
        try:
            asyncio.run(self._run(app))
        except BaseException as error:
            return self._note(error)
        (self.place.folder / f"passed-{self.number}").write_text(json.dumps(fuse.passed))
        return 0

    def _arm_disk(self) -> None:
        if self.strike is not None and self.strike.on_disk:
            failing = self.strike.number if self.strike.kind == "fail-sync" else 0
            full = self.strike.number if self.strike.kind == "disk-full" else -1
            chaos.arm(str(self.place.database), fail_sync=failing, full_after=full)

    def _taken_over(self) -> None:
        """Keep what lay in the store when this life began, which is where the one before ended."""
        part = self.place.folder / f"part-{self.number}"
        part.write_bytes(msgspec.msgpack.encode(self.place.dump()))
        part.rename(self.place.folder / f"began-{self.number}")

    def _note(self, error: BaseException) -> int:
        broken = error.exceptions if isinstance(error, BaseExceptionGroup) else (error,)
        text = "".join(traceback.format_exception_only(error)).strip()
        stuck = next((one for one in broken if isinstance(one, (Stuck, TimeoutError))), None)
        with (self.place.folder / "errors").open("a") as file:
            file.write(f"{stuck}\n" if isinstance(stuck, Stuck) else f"life {self.number}: {text}\n")
        if any(isinstance(one, Fenced) for one in broken):
            return FENCED_CODE
        return STUCK_CODE if stuck is not None else BROKEN_CODE

    async def _run(self, app: App) -> None:
        log = FileLog(str(self.place.folder), f"inside-{self.number}")
        await _opened(app, self.plan.patience_seconds)
        try:
            stopped = asyncio.ensure_future(app.stopped())
            work = asyncio.ensure_future(self._all(app, log))
            await asyncio.wait([stopped, work], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
            stopped.cancel()
            await asyncio.gather(work, return_exceptions=True)
        finally:
            # Raises what stopped the node.
            await app.__aexit__(None, None, None)
        if not work.cancelled():
            work.result()

    async def _all(self, app: App, log: FileLog) -> None:
        try:
            async with asyncio.timeout(self.plan.patience_seconds):
                await asyncio.gather(*(self._pursue(app, log, id, args) for id, args in self.ids.items()))
        except TimeoutError:
            raise Stuck(await self._standing(app)) from None

    async def _standing(self, app: App) -> str:
        found = [await app.get(id).describe() for id in self.ids]
        open_ones = [f"{i.id} is {i.status}: {i.waiting_for or i.error or ''}" for i in found if i.ended_at is None]
        return f"not at its end after {self.plan.patience_seconds:g} s: " + "; ".join(open_ones)

    async def _pursue(self, app: App, log: FileLog, id: str, args: list[Any]) -> None:
        """Be a careful client: start, again after a crash, play the script, and wait for the result."""
        number = log.asked("start", id, json.dumps(args))
        run = await app.start(self.target.process, *args, id=id)
        log.ended(number, "ok", "")
        playing = asyncio.ensure_future(self._play(app, run))
        try:
            number = log.asked("result", id, "")
            log.ended(number, "ok", await _result(run, playing))
        finally:
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)

    async def _play(self, app: App, run: Run[Any]) -> None:
        if self.target.script is not None:
            try:
                await self.target.script(app, run)
            except (Refused, NotFound):
                # It was done before the crash.
                pass


async def _opened(app: App, patience_seconds: float) -> None:
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            await app.__aenter__()
            return
        except (StoreOwned, StoreLocked):
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_AGAIN_SECONDS)


async def _result(run: Run[Any], playing: asyncio.Future[None]) -> str:
    """The result as JSON, nothing where the process fails. Raises `Stuck` where it is parked."""
    waiting: asyncio.Future[Any] = asyncio.ensure_future(run.result())
    while not waiting.done():
        await asyncio.wait([waiting], timeout=_LOOK_SECONDS)
        if playing.done() and not playing.cancelled() and playing.exception() is not None:
            waiting.cancel()
            raise Stuck(f"the script failed: {playing.exception()!r}")
        if not waiting.done() and (instance := await run.describe()).status == "parked":
            waiting.cancel()
            raise Stuck(f"{run.id} is parked: {instance.error}")
    try:
        return msgspec.json.encode(waiting.result()).decode()
    except (StoreError, asyncio.CancelledError):
        raise
    except Exception:
        return ""


class Fuse:
    """Counts points, and has this process struck at the one that is meant."""

    def __init__(self, strike: Strike | None, taken_over: Any) -> None:
        self._strike = strike
        self._signal = _SIGNALS.get(strike.kind) if strike is not None else None
        self._taken_over = taken_over
        self._lock = threading.Lock()
        self._writing = False
        self._due = False
        self.passed: Counter[str] = Counter()

    def __call__(self, name: str) -> None:
        """Pass a point."""
        with self._lock:
            self.passed[name] += 1
            self._writing = _WRITING.get(name, self._writing)
            strike = self._strike
            self._due |= strike is not None and name == strike.place and self.passed[name] == strike.number
            # A process that is frozen in a write holds the lock of the file: freeze it right after.
            here = self._due and not (self._writing and self._signal == signal.SIGSTOP)
            self._due &= not here
        if name == "lease.acquired":
            self._taken_over()
        if here and self._signal is not None:
            os.kill(os.getpid(), self._signal)


def fork(life: Life, witness_path: str) -> int:
    """Begin a life in a process of its own; returns its process id. What it prints goes to a file."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            noise = os.open(life.place.folder / "noise", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(noise, 1)
            os.dup2(noise, 2)
            code = life.live(witness_path)
        finally:
            os._exit(code)
    return process


def noise_of(folder: Path) -> str:
    """The last of what went wrong in a life."""
    path = folder / "errors"
    return path.read_text()[-1500:].strip() if path.exists() else "nothing was written down"
