"""The SQLite store: one thread that writes, one that reads."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from dalsegno.errors import StoreError, UsageError
from dalsegno.kernel.points import reach
from dalsegno.kernel.ports import (
    Batch,
    Committed,
    Deployment,
    Filter,
    InstanceRow,
    Loaded,
    Match,
    Message,
    NodeInfo,
    Standing,
    Store,
    TaskRow,
)
from dalsegno.kernel.work import Claim, Claimed, Hold, QueueDepth, QueueRow, WorkBeat, WorkEnd, WorkRow
from dalsegno.stores.sqlite import ownership, read, work
from dalsegno.stores.sqlite.commit import commit, fenced, now, write
from dalsegno.stores.sqlite.connection import Connection, Durability, connect, query, translate, unusable
from dalsegno.stores.sqlite.doorbell import Doorbell
from dalsegno.stores.sqlite.migrate import check, known, migrate

Result = TypeVar("Result")


class _Worker:
    """A thread with one connection; jobs run in order."""

    def __init__(self, name: str, path: str, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._path = path
        self._connection = connection
        self._loop = loop
        self._jobs: queue.SimpleQueue[tuple[Callable[[Connection], Any], Callable[[Any], None]] | None] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[Connection], Any], done: Callable[[Any], None]) -> None:
        """Run a job; `done` gets its result or exception, on the loop."""
        self._jobs.put((job, done))

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done = item
            try:
                result = job(self._connection)
            except sqlite3.Error as error:
                result = translate(error, self._path)
                result.__cause__ = error
            except BaseException as error:
                result = error
            try:
                self._loop.call_soon_threadsafe(done, result)
            except RuntimeError:
                # The loop is closed: nobody is left to hear it.
                return

    def call(self, job: Callable[[Connection], Result]) -> asyncio.Future[Result]:
        """Run a job and wait for it."""
        future: asyncio.Future[Result] = self._loop.create_future()

        def done(result: Any) -> None:
            if future.done():
                return
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

        self.submit(job, done)
        return future

    async def close(self) -> None:
        """Finish the jobs and close the connection."""
        await self.call(lambda connection: connection.close())
        self._jobs.put(None)


class SqliteStore:
    """A store in one SQLite file.

    Parameters: `path` of the file; `durability`, "power" (every commit is synced to disk) or "process"
    (survives a crash of the process, not of the machine).
    """

    shared = False

    def __init__(self, path: str, durability: Durability = "power") -> None:
        self.path = os.path.abspath(path)
        self._durability = durability
        self._epoch: int | None = None
        self._took_over = False
        self._processes = "[]"
        self._lock: ownership.OwnerLock | None = None
        self._writer: _Worker
        self._reader: _Worker
        self._doorbell: Doorbell

    def __str__(self) -> str:
        return f"sqlite:///{self.path}"

    @property
    def epoch(self) -> int | None:
        return self._epoch

    def knows(self, processes: Collection[tuple[str, int]]) -> None:
        self._processes = json.dumps(sorted(processes))

    # -- opening and owning ------------------------------------------------------------------------

    async def open(self, *, owner: bool, name: str, lease_seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._doorbell = Doorbell()
        try:
            writing, reading = await asyncio.to_thread(self._connect, owner, name, lease_seconds)
        except BaseException as error:
            self._doorbell.close()
            if isinstance(error, sqlite3.Error):
                raise translate(error, self.path) from error
            if isinstance(error, OSError):
                raise unusable(f"{self.path}: {error}", self.path) from error
            raise
        self._writer = _Worker("dalsegno-writer", self.path, writing, self._loop)
        self._reader = _Worker("dalsegno-reader", self.path, reading, self._loop)
        self._doorbell.open()

    def _connect(self, owner: bool, name: str, lease_seconds: float) -> tuple[Connection, Connection]:
        if owner:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        elif not os.path.exists(self.path):
            raise StoreError(f"{self.path} doesn't exist. Start a node on it first, or name another file.")
        writing = connect(self.path, self._durability)
        try:
            if owner:
                self._own(writing, name, lease_seconds)
            elif check(writing, self.path):
                raise StoreError(f"{self.path} has an older schema: run 'dalsegno db migrate {self.path}' first")
            return writing, connect(self.path, self._durability)
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            writing.close()
            raise

    def _own(self, writing: Connection, name: str, lease_seconds: float) -> None:
        if len(check(writing, self.path)) == len(known()):
            migrate(writing, self.path)
        self._lock = ownership.OwnerLock(self.path)
        self._epoch, self._took_over = ownership.acquire(
            writing, self.path, name, self._doorbell.port, lease_seconds, self._lock
        )
        # Not before: an engine that is at work keeps the schema it knows.
        migrate(writing, self.path)
        writing.execute(query("show_node"), (self._processes, "{}", self._epoch))

    async def close(self) -> None:
        epoch = self._epoch
        if epoch is not None:
            try:
                await self._writer.call(lambda c: c.execute(query("end_node"), (now(), epoch)).rowcount)
            except StoreError:
                # The next owner finds an epoch that never ended, and takes over as after a crash.
                pass
        await self._reader.close()
        await self._writer.close()
        self._doorbell.close()
        if self._lock is not None:
            self._lock.release()

    def beside(self) -> Store:
        return cast("Store", SqliteStore(self.path, self._durability))

    now = staticmethod(now)

    async def renew(self, lease_seconds: float, figures: bytes = b"{}") -> None:
        epoch = self._owned()
        shown = (self._processes, figures.decode(), epoch)
        await self._writer.call(lambda c: ownership.renew(c, epoch, lease_seconds, shown))

    async def release(self, keys: Sequence[int]) -> None:
        raise UsageError(f"{self.path} has one owner: there is nobody to release an instance to")

    def _owned(self) -> int:
        if self._epoch is None:
            raise UsageError(f"{self.path} is open beside its owner: only the owner may do this")
        return self._epoch

    # -- writing -----------------------------------------------------------------------------------

    def commit(self, batch: Batch, done: Callable[[Committed | BaseException], None]) -> None:
        epoch = self._owned()
        self._writer.submit(lambda connection: commit(connection, batch, epoch), lambda r: self._committed(r, done))

    def _committed(self, result: Any, done: Callable[[Any], None]) -> None:
        reach("commit.after")
        done(result)
        self._doorbell.ring_watchers()

    def _fenced(self, job: Callable[[Connection], Result]) -> asyncio.Future[Result]:
        """Run a job that only the owner may do, in a transaction that proves that this is still the owner."""
        epoch = self._owned()
        return self._writer.call(lambda connection: fenced(connection, epoch, job))

    async def write(self, batch: Batch) -> Committed:
        batch.check_handed_in()
        found = await self._writer.call(lambda connection: commit(connection, batch, None))
        await self._ring_owner()
        return found

    def enlist(self, tx: Any, batch: Batch) -> tuple[Committed, InstanceRow | None]:
        if not isinstance(tx, sqlite3.Connection):
            raise UsageError(f"tx={tx!r}: give a sqlite3.Connection to {self.path}")
        opened = {os.path.realpath(file) for _, _, file in tx.execute("PRAGMA database_list") if file}
        if os.path.realpath(self.path) not in opened:
            raise UsageError(f"tx is a connection to {', '.join(opened) or 'memory'}, the store is {self.path}")
        cursor = tx.cursor()
        cursor.row_factory = None
        if not tx.in_transaction:
            cursor.execute("BEGIN IMMEDIATE")
        found = write(cursor, batch, owned=False)
        taken = None
        if batch.starts and found.start_keys[0] is None:
            taken = read.find(cursor, batch.starts[0].namespace, batch.starts[0].id)
        return found, taken

    # -- reading -----------------------------------------------------------------------------------

    async def load(self, keys: Sequence[int]) -> list[Loaded]:
        return await self._reader.call(lambda c: read.load(c, keys, self._epoch))

    async def running(self, after_key: int, limit: int) -> list[int]:
        return await self._reader.call(lambda c: read.numbers(c, "running", after_key, limit))

    async def mark_recovered(self, crashes_before_parking: int, crashes_before_trial: int | None = None) -> list[int]:
        free = crashes_before_parking if crashes_before_trial is None else crashes_before_trial

        def mark(connection: Connection) -> list[int]:
            if not self._took_over:
                return []
            connection.execute(query("count_crash"), (free,))
            return read.numbers(connection, "poisoned", crashes_before_parking, free)

        return await self._fenced(mark)

    async def suspects(self, crashes: int) -> list[tuple[int, int]]:
        return await self._reader.call(lambda c: read.rows(c, "suspects", crashes))

    async def put_on_trial(self, keys: Sequence[int]) -> None:
        await self._fenced(lambda c: c.execute(query("put_on_trial"), (json.dumps(list(keys)),)).rowcount)

    async def due(self, until: int, after: tuple[int, int], limit: int) -> list[tuple[int, int]]:
        return await self._reader.call(lambda c: read.rows(c, "due", until, *after, limit))

    async def mismatched(self) -> list[int]:
        return await self._reader.call(lambda c: read.numbers(c, "mismatched"))

    async def matches(self) -> list[Match]:
        return await self._reader.call(read.matches)

    async def messages(self, after: int) -> list[Message]:
        return await self._reader.call(lambda c: read.messages(c, after))

    async def message(self, position: int) -> Message | None:
        return await self._reader.call(lambda c: read.message(c, position))

    async def heartbeat(self, key: int, step: str) -> bytes | None:
        found = await self._reader.call(lambda c: read.numbers(c, "heartbeat", key, step))
        return found[0] if found else None

    async def find(self, namespace: str, id: str) -> InstanceRow | None:
        return await self._reader.call(lambda c: read.find(c, namespace, id))

    async def listing(self, filter: Filter, after_key: int | None, limit: int) -> list[InstanceRow]:
        return await self._reader.call(lambda c: read.list_instances(c, filter, after_key, limit))

    async def counts(self, namespace: str | None) -> dict[str, int]:
        return dict(await self._reader.call(lambda c: read.rows(c, "counts", namespace)))

    async def deployments(self, namespace: str | None) -> list[Deployment]:
        found = await self._reader.call(lambda c: read.rows(c, "deployments", namespace, namespace))
        names = ("process", "version", "status", "instances")
        return [Deployment(**dict(zip(names, row, strict=True))) for row in found]

    async def standing(self, overdue_before: int) -> list[Standing]:
        return await self._reader.call(lambda c: read.standing(c, overdue_before))

    async def history(self, key: int, after_seq: int, limit: int) -> list[tuple[int, int, bytes]]:
        return await self._reader.call(lambda c: read.rows(c, "history", key, after_seq, limit))

    async def tasks(
        self, namespace: str | None, role: str | None, state: str | None, after_at: int, limit: int
    ) -> list[TaskRow]:
        return await self._reader.call(lambda c: read.tasks(c, namespace, role, state, after_at, limit))

    async def task(self, namespace: str, id: str) -> TaskRow | None:
        return await self._reader.call(lambda c: read.task(c, namespace, id))

    async def nodes(self) -> list[NodeInfo]:
        return await self._reader.call(read.nodes)

    async def forget_events(self, before: int, limit: int) -> int:
        return await self._fenced(lambda c: c.execute(query("forget_events"), (before, limit)).rowcount)

    # -- steps on queues ---------------------------------------------------------------------------

    def _transact(self, job: Callable[[Connection], Result]) -> asyncio.Future[Result]:
        """Run a job in a transaction that needs no epoch: a claim's token is its fence."""
        return self._writer.call(lambda connection: work.transact(connection, job))

    async def set_queues(self, queues: Sequence[QueueRow]) -> None:
        await self._transact(lambda c: work.set_queues(c, queues))

    async def claim_work(
        self,
        namespace: str,
        queue: str,
        limit: int,
        worker: str,
        lease_seconds: float,
        steps: Collection[str] | None = None,
    ) -> Claimed:
        claiming = work.Claiming(namespace, queue, limit, worker, lease_seconds, steps)
        # Most looks find nothing: they take no lock.
        if not await self._reader.call(lambda c: work.is_claimable(c, namespace, queue, now())):
            return Claimed([])
        return await self._transact(lambda c: claiming.run(c, now()))

    async def beat_work(self, namespace: str, beats: Sequence[WorkBeat], lease_seconds: float) -> list[Hold]:
        return await self._transact(lambda c: work.beat(c, namespace, beats, now(), lease_seconds))

    async def held_work(self, claims: Sequence[Claim]) -> list[Hold]:
        return await self._reader.call(lambda c: work.held(c, claims))

    async def complete_work(self, namespace: str, ends: Sequence[WorkEnd]) -> list[bool]:
        found = await self._transact(lambda c: work.complete(c, namespace, ends))
        await self._ring_owner()
        return found

    async def return_work(self, namespace: str, claims: Sequence[Claim]) -> None:
        await self._transact(lambda c: work.give_back(c, namespace, claims))
        await self._ring_owner()

    async def work_done(self, limit: int, known: Collection[int]) -> list[WorkRow]:
        moment = now()
        if await self._reader.call(lambda c: work.is_hopeless(c, moment)):
            await self._fenced(lambda c: c.execute(query("end_hopeless_work"), (moment,)).rowcount)
        return await self._reader.call(lambda c: work.done(c, limit, known))

    async def queue_depths(self, namespace: str | None) -> list[QueueDepth]:
        return await self._reader.call(lambda c: work.depths(c, namespace))

    async def forget_work(self, before: int, limit: int) -> int:
        return await self._fenced(lambda c: c.execute(query("forget_work"), (before, limit)).rowcount)

    # -- neighbours --------------------------------------------------------------------------------

    def on_ring(self, callback: Callable[[], None]) -> None:
        self._doorbell.on_ring(callback)

    def ring(self) -> None:
        self._doorbell.ring_watchers()

    async def changed(self, timeout_seconds: float) -> None:
        for port in await self._owner_ports():
            self._doorbell.watch(port)
        await self._doorbell.heard(timeout_seconds)

    async def _ring_owner(self) -> None:
        for port in await self._owner_ports():
            self._doorbell.ring(port)

    async def _owner_ports(self) -> list[int]:
        living = await self._reader.call(ownership.living_nodes)
        return [node.doorbell for node in living]
