"""A real engine in a process of its own, which dies at a named point; and clients beside it in another."""

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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from tests.reliability import workload
from tests.reliability.client import Client, Goals, pursue

from dalsegno import App
from dalsegno.errors import Fenced, StoreError, StoreLocked, StoreOwned
from dalsegno.kernel import points
from dalsegno.kernel.limits import Limits
from dalsegno.stores.sqlite import store
from dalsegno.testing import chaos
from dalsegno.testing.check import Effect
from dalsegno.testing.evidence import FileLog, dump_of
from dalsegno.testing.witness import Asking

FENCED_CODE = 7
BROKEN_CODE = 3
_PATIENCE_SECONDS = 25.0


class Order(msgspec.Struct):
    """What one life is to do: its goals, and the point at whose n-th passing a signal comes."""

    folder: str
    socket_path: str
    life: int
    seed: int
    goals: Goals
    limits: dict[str, Any]
    point: str = ""
    passing: int = 0
    signal: int = signal.SIGKILL
    #: with the chaos library preloaded: where to write down writes, which sync fails, how many bytes fit
    disk_log: str = ""
    fail_sync: int = 0
    full_after: int = -1
    #: how long the write-ahead log grows before it is copied into the file; 0 leaves it to the store
    checkpoint_pages: int = 0

    @property
    def database(self) -> str:
        """The path of the store."""
        return f"{self.folder}/x.db"


def effects_in(folder: Path) -> list[Effect]:
    """All effects that the witness saw."""
    path = folder / "effects.jsonl"
    return [msgspec.json.decode(line, type=Effect) for line in path.read_bytes().splitlines()] if path.exists() else []


# -- the processes -------------------------------------------------------------------------------------


_WRITING = {"commit.before": True, "commit.executed": False}


class _Fuse:
    """Counts points, and sends this process a signal at the one ordered."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._lock = threading.Lock()
        self._writing = False
        self._due = False
        self.passed: Counter[str] = Counter()

    def __call__(self, name: str) -> None:
        with self._lock:
            self.passed[name] += 1
            self._writing = _WRITING.get(name, self._writing)
            self._due |= name == self._order.point and self.passed[name] == self._order.passing
            # A process that is frozen in a write holds the lock of the file: freeze it right after.
            here = self._due and not (self._writing and self._order.signal == signal.SIGSTOP)
            self._due &= not here
        if name == "lease.acquired":
            write_dump(self._order)
        if here:
            (Path(self._order.folder) / f"struck-{self._order.life}").touch()
            os.kill(os.getpid(), self._order.signal)


def write_dump(order: Order) -> None:
    """Keep what lay on disk when this life began, which is where the one before ended."""
    folder = Path(order.folder)
    dump = dump_of(Path(order.database))
    part = folder / f"part-{order.life}"
    part.write_bytes(msgspec.msgpack.encode(dump))
    part.rename(folder / f"began-{order.life}")


def run_engine(order: Order) -> None:
    """Be an engine until the goals are reached or the signal comes."""
    fuse = _Fuse(order)
    points.armed = fuse
    if order.disk_log or order.fail_sync or order.full_after >= 0:
        chaos.arm(order.database, log=order.disk_log, fail_sync=order.fail_sync, full_after=order.full_after)
    if order.checkpoint_pages:
        _checkpoint_often(order.checkpoint_pages)
    workload.holder.world = world = Asking(order.socket_path, order.folder, order.life)

    async def main() -> None:
        log = FileLog(order.folder, f"inside-{order.life}")
        async with _Opening(order) as app, asyncio.timeout(_PATIENCE_SECONDS):
            await pursue(Client(app, log, world.repair), order.goals, order.seed)
            await _others_done(order)

    _run(order, main)
    Path(order.folder, f"passed-{order.life}").write_text(json.dumps(fuse.passed))


def _checkpoint_often(pages: int) -> None:
    """The store's own bound is never reached in a short run."""
    original = store.connect

    def connect(*args: Any, **kwargs: Any) -> Any:
        connection = original(*args, **kwargs)
        connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
        return connection

    store.connect = connect


async def _others_done(order: Order) -> None:
    """The clients beside need a node for as long as they want something."""
    mark = Path(order.folder, "beside-done")
    there = mark.exists
    while True:
        if there():
            return
        await asyncio.sleep(0.005)


class _Opening:
    """Opens an app as soon as nobody else owns the file."""

    def __init__(self, order: Order) -> None:
        self._order = order

    async def __aenter__(self) -> App:
        self._app = App(
            f"sqlite:///{self._order.database}", limits=Limits(**self._order.limits), processes=workload.PROCESSES
        )
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return await self._app.__aenter__()
            except (StoreOwned, StoreLocked):
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.01)

    async def __aexit__(self, *error: Any) -> None:
        await self._app.__aexit__(*error)


def run_beside(order: Order) -> None:
    """Be clients in a process of their own, across all lives of the engine."""
    world = Asking(order.socket_path, order.folder, order.life)

    async def main() -> None:
        log = FileLog(order.folder, "beside")
        app = App(f"sqlite:///{order.database}", processes=workload.PROCESSES)
        while True:
            try:
                async with app.client():
                    await pursue(Client(app, log, world.repair), order.goals, order.seed)
                return
            except StoreError:
                # No file yet, or none with tables in it.
                await asyncio.sleep(0.01)

    try:
        _run(order, main)
    finally:
        Path(order.folder, "beside-done").touch()


def _run(order: Order, main: Callable[[], Any]) -> None:
    code = 0
    try:
        logging.getLogger("dalsegno").setLevel(logging.CRITICAL + 1)
        asyncio.run(main())
    except BaseException as error:
        fenced = isinstance(error, Fenced) or (isinstance(error, BaseExceptionGroup) and error.subgroup(Fenced))
        code = FENCED_CODE if fenced else BROKEN_CODE
        text = "".join(traceback.format_exception(error))
        with Path(order.folder, "errors").open("a") as file:
            file.write(f"life {order.life}, code {code}: {text}\n")
    if code:
        raise SystemExit(code)
