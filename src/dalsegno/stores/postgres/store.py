"""The PostgreSQL store: one connection that writes, one that reads, one for the lease, one that listens."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Collection, Sequence
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
from dalsegno.stores.postgres import enlisted, guests, ownership, read, work
from dalsegno.stores.postgres.address import Address, parse
from dalsegno.stores.postgres.bell import Bell
from dalsegno.stores.postgres.commit import Committer, write_handed_in
from dalsegno.stores.postgres.connection import Connection, connect
from dalsegno.stores.postgres.fleet import Fleet
from dalsegno.stores.postgres.migrate import migrate, missing
from dalsegno.stores.postgres.session import Session
from dalsegno.stores.postgres.worker import Worker

Result = TypeVar("Result")

_CLIENT_SECONDS = 10.0
_CLOSE_SECONDS = 5.0
#: even where a lease has just ended, nobody may have noticed
_SHORTEST_SECONDS = 1.0


class PostgresStore:
    """A store in a schema of a PostgreSQL database, for many nodes at once.

    Parameters: `url`, `postgresql://user@host/database`. Of its options `schema` (default "dalsegno"), `pooled=true`
    (behind PgBouncer in transaction mode) and `listen` (a URL past the pool) are the store's, the rest the driver's.
    """

    shared = True

    def __init__(self, url: str) -> None:
        self._url = url
        self.address: Address = parse(url)
        self._epoch: int | None = None
        self._clock = ownership.Clock()
        self._codes: list[tuple[str, int]] | None = None
        self._lease_ends = 0.0
        self._fleet: Fleet | None = None
        self._committer: Committer | None = None
        self._identity = ""

    def __str__(self) -> str:
        return str(self.address)

    @property
    def epoch(self) -> int | None:
        return self._epoch

    def knows(self, processes: Collection[tuple[str, int]]) -> None:
        self._codes = sorted(processes)
        if self._fleet is not None:
            self._fleet.knows(self._codes)

    def beside(self) -> Store:
        return cast("Store", PostgresStore(self._url))

    def now(self) -> int:
        return self._clock.now()

    # -- opening and owning ------------------------------------------------------------------------

    async def open(self, *, owner: bool, name: str, lease_seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._lease_ends = time.monotonic() + max(lease_seconds, _CLIENT_SECONDS)
        self._writer = self._worker("writer", name, lease_seconds)
        self._reader = self._worker("reader", name, lease_seconds)
        self._keeper = self._worker("keeper", name, lease_seconds)
        self._ringer = self._worker("ringer", name, lease_seconds)
        self._guests = self._worker("guests", name, lease_seconds, _connect_guest)
        self._bell = Bell(self.address, self._ringer, self._loop)
        try:
            await self._writer.call(lambda session: self._enter(session, owner, name, lease_seconds))
        except BaseException:
            await self._close_workers()
            raise
        self._bell.open()

    def _worker(
        self, job: str, name: str, lease_seconds: float, make: Callable[[Address, str], Connection] = connect
    ) -> Worker:
        session = Session(self.address, f"{job} {name}", self._until, lease_seconds, make)
        return Worker(f"dalsegno-{job}", session, self._loop)

    def _until(self) -> float:
        """How long the database may be away: a node writes nothing after its lease, others wait for some seconds."""
        return self._lease_ends if self._epoch is not None else time.monotonic() + _CLIENT_SECONDS

    def _enter(self, session: Session, owner: bool, name: str, lease_seconds: float) -> None:
        if owner:
            migrate(session)
        elif missing(session):
            raise StoreError(f"{self} has an older schema, or none: run 'dalsegno db migrate', or start a node on it")
        self._identity = enlisted.identity(session)
        self._clock.measure(session, first=True)
        if owner:
            began = time.monotonic()
            epoch = ownership.acquire(session, name, lease_seconds, self._processes)
            self._lease_ends = began + lease_seconds
            self._committer = Committer(session, epoch)
            self._fleet = Fleet(self._reader.session, epoch)
            self._fleet.knows(self._codes)
            self._epoch = epoch

    @property
    def _processes(self) -> str:
        return json.dumps(self._codes or [])

    async def close(self) -> None:
        epoch = self._epoch
        if epoch is not None:
            try:
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._writer.call(lambda session: ownership.end(session, epoch))
                    await self._ringer.call(self._bell.ring_now)
            except (StoreError, TimeoutError):
                # Its lease ends by itself, and others take over as after a crash.
                pass
        self._bell.close()
        await self._close_workers()

    async def _close_workers(self) -> None:
        workers = (self._writer, self._reader, self._keeper, self._ringer, self._guests)
        await asyncio.gather(*(worker.close() for worker in workers))

    async def renew(self, lease_seconds: float, figures: bytes = b"{}") -> None:
        epoch = self._owned()

        def prolong(session: Session) -> None:
            began = time.monotonic()
            ownership.renew(session, epoch, lease_seconds, self._processes, figures.decode())
            self._lease_ends = began + lease_seconds
            self._clock.measure(session)

        # A server that takes the question and never answers: the lease is over all the same.
        try:
            async with asyncio.timeout(max(self._lease_ends - time.monotonic(), _SHORTEST_SECONDS)):
                await self._keeper.call(prolong)
        except TimeoutError:
            raise StoreError(
                f"{self} didn't answer before this node's lease was over: others may run its instances by now. Start "
                "the node again once the database answers."
            ) from None

    def _owned(self) -> int:
        if self._epoch is None:
            raise UsageError(f"{self} is open beside its nodes: only a node may do this")
        return self._epoch

    async def _of_fleet(self, ask: Callable[[Fleet], Result]) -> Result:
        self._owned()
        fleet = self._fleet
        assert fleet is not None
        return await self._reader.call(lambda _: ask(fleet))

    # -- writing -----------------------------------------------------------------------------------

    def commit(self, batch: Batch, done: Callable[[Committed | BaseException], None]) -> None:
        epoch = self._owned()
        committer = self._committer
        assert committer is not None
        if batch.transactions:
            self._commit_with_guests(batch, epoch, committer, done)
        else:
            self._writer.submit(lambda _: committer.commit(batch), lambda result: self._committed(result, done))

    def _committed(self, result: Any, done: Callable[[Any], None]) -> None:
        reach("commit.after")
        if isinstance(result, BaseException):
            done(result)
            return
        found, others = result
        done(found)
        if others:
            self._bell.ring()
        else:
            self._bell.ring_watchers()

    def _commit_with_guests(
        self, batch: Batch, epoch: int, committer: Committer, done: Callable[[Committed | BaseException], None]
    ) -> None:
        """The batch first, then its transaction steps, each for itself."""

        works = batch.transactions

        def written(result: Any) -> None:
            if isinstance(result, BaseException):
                self._committed(result, done)
            else:
                self._guests.submit(lambda session: guests.run_all(session, works, epoch), lambda r: ran(result, r))

        def ran(result: Any, outcomes: Any) -> None:
            if not isinstance(outcomes, BaseException):
                result[0].transactions = outcomes
                outcomes = result
            self._committed(outcomes, done)

        self._writer.submit(lambda _: committer.commit(batch), written)

    async def write(self, batch: Batch) -> Committed:
        batch.check_handed_in()
        schema = self.address.schema

        def write(session: Session) -> Committed:
            reach("commit.before")
            found = session.transact(lambda connection: write_handed_in(connection, schema, batch))
            reach("commit.executed")
            return found

        found = await self._writer.call(write)
        self._bell.ring()
        return found

    def enlist(self, tx: Any, batch: Batch) -> tuple[Committed, InstanceRow | None]:
        return enlisted.enlist(tx, batch, self.address, self._identity)

    async def release(self, keys: Sequence[int]) -> None:
        await self._of_fleet(lambda fleet: fleet.release(keys))
        self._bell.ring()

    async def forget_events(self, before: int, limit: int) -> int:
        return await self._of_fleet(lambda fleet: fleet.forget_events(before, limit))

    # -- finding work ------------------------------------------------------------------------------

    async def running(self, after_key: int, limit: int) -> list[int]:
        return await self._of_fleet(lambda fleet: fleet.running(after_key, limit))

    async def mark_recovered(self, crashes_before_parking: int, crashes_before_trial: int | None = None) -> list[int]:
        return await self._of_fleet(lambda fleet: fleet.mark_recovered(crashes_before_parking, crashes_before_trial))

    async def suspects(self, crashes: int) -> list[tuple[int, int]]:
        return await self._of_fleet(lambda fleet: fleet.suspects(crashes))

    async def put_on_trial(self, keys: Sequence[int]) -> None:
        await self._of_fleet(lambda fleet: fleet.put_on_trial(keys))

    async def due(self, until: int, after: tuple[int, int], limit: int) -> list[tuple[int, int]]:
        return await self._of_fleet(lambda fleet: fleet.due(until, after, limit))

    async def mismatched(self) -> list[int]:
        return await self._of_fleet(lambda fleet: fleet.mismatched())

    async def matches(self) -> list[Match]:
        return await self._of_fleet(lambda fleet: fleet.matches())

    async def messages(self, after: int) -> list[Message]:
        return await self._of_fleet(lambda fleet: fleet.messages(after))

    async def work_done(self, limit: int, known: Collection[int]) -> list[WorkRow]:
        return await self._of_fleet(lambda fleet: fleet.work_done(limit, known))

    # -- workers -----------------------------------------------------------------------------------

    async def set_queues(self, queues: Sequence[QueueRow]) -> None:
        await self._again(lambda c, schema: work.set_queues(c, schema, queues))

    async def claim_work(
        self,
        namespace: str,
        queue: str,
        limit: int,
        worker: str,
        lease_seconds: float,
        steps: Collection[str] | None = None,
    ) -> Claimed:
        place = (namespace, queue)
        claiming = work.Claiming(self.address.schema, place, limit, worker, lease_seconds, steps)
        # Most looks find nothing: they take no lock.
        if not await self._reader.call(lambda session: work.is_claimable(session, *place, self.now())):
            return Claimed([])
        return await self._writer.call(lambda session: session.transact(claiming.run))

    async def _again(self, job: Callable[[Connection, str], Result]) -> Result:
        """Do something in a transaction that does no harm when it is done twice."""
        schema = self.address.schema
        return await self._writer.call(lambda session: session.transact_again(lambda c: job(c, schema)))

    async def beat_work(self, namespace: str, beats: Sequence[WorkBeat], lease_seconds: float) -> list[Hold]:
        return await self._again(lambda c, schema: work.beat(c, schema, namespace, beats, lease_seconds))

    async def held_work(self, claims: Sequence[Claim]) -> list[Hold]:
        return await self._reader.call(lambda session: work.held(session, claims))

    async def complete_work(self, namespace: str, ends: Sequence[WorkEnd]) -> list[bool]:
        found = await self._again(lambda c, schema: work.complete(c, schema, namespace, ends))
        self._bell.ring()
        return found

    async def return_work(self, namespace: str, claims: Sequence[Claim]) -> None:
        await self._again(lambda c, schema: work.give_back(c, schema, namespace, claims))
        self._bell.ring()

    async def queue_depths(self, namespace: str | None) -> list[QueueDepth]:
        return work.depths(await self._rows("queue_depths", namespace))

    async def forget_work(self, before: int, limit: int) -> int:
        return await self._of_fleet(lambda fleet: fleet.forget_work(before, limit))

    # -- reading -----------------------------------------------------------------------------------

    async def load(self, keys: Sequence[int]) -> list[Loaded]:
        return await self._reader.call(lambda session: read.load(session, keys, self._epoch))

    async def message(self, position: int) -> Message | None:
        found = read.messages(await self._rows("message", position))
        return found[0] if found else None

    async def heartbeat(self, key: int, step: str) -> bytes | None:
        found = await self._rows("heartbeat", key, step)
        return found[0][0] if found else None

    async def find(self, namespace: str, id: str) -> InstanceRow | None:
        return await self._reader.call(lambda session: read.find(session, namespace, id))

    async def listing(self, filter: Filter, after_key: int | None, limit: int) -> list[InstanceRow]:
        return await self._reader.call(lambda session: read.list_instances(session, filter, after_key, limit))

    async def counts(self, namespace: str | None) -> dict[str, int]:
        return dict(await self._rows("counts", namespace))

    async def deployments(self, namespace: str | None) -> list[Deployment]:
        names = ("process", "version", "status", "instances")
        return [Deployment(**dict(zip(names, row, strict=True))) for row in await self._rows("deployments", namespace)]

    async def standing(self, overdue_before: int) -> list[Standing]:
        return read.standing(await self._rows("standing", overdue_before))

    async def history(self, key: int, after_seq: int, limit: int) -> list[tuple[int, int, bytes]]:
        return await self._rows("history", key, after_seq, limit)

    async def tasks(
        self, namespace: str | None, role: str | None, state: str | None, after_at: int, limit: int
    ) -> list[TaskRow]:
        return await self._reader.call(lambda session: read.tasks(session, namespace, role, state, after_at, limit))

    async def task(self, namespace: str, id: str) -> TaskRow | None:
        return await self._reader.call(lambda session: read.task(session, namespace, id))

    async def nodes(self) -> list[NodeInfo]:
        return [ownership.node_info(row) for row in await self._rows("nodes")]

    async def _rows(self, name: str, *values: Any) -> list[Any]:
        return await self._reader.call(lambda session: session.rows(name, *values))

    # -- neighbours --------------------------------------------------------------------------------

    def on_ring(self, callback: Callable[[], None]) -> None:
        self._bell.on_ring(callback)

    def ring(self) -> None:
        self._bell.ring()

    async def changed(self, timeout_seconds: float) -> None:
        self._bell.watch()
        await self._bell.heard(timeout_seconds)


def _connect_guest(address: Address, name: str) -> Connection:
    return connect(address, name, guests.GuestConnection, guests.GuestCursor)
