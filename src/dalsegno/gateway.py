"""The two ways in: into the node of this process, or past it through the store of another's."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any, Protocol

import msgspec

from dalsegno.contracts import codec
from dalsegno.contracts.event import AnyEvent, key_of, payload_of
from dalsegno.engine.node import Node
from dalsegno.engine.reopening import annotated
from dalsegno.engine.requests import Reply, Request
from dalsegno.engine.residents import last_end, records
from dalsegno.engine.starts import IfExists, check_same
from dalsegno.engine.turns import input_hash
from dalsegno.errors import NotFound, Refused
from dalsegno.kernel import entries as e
from dalsegno.kernel.definition import Arguments, ProcessSpec
from dalsegno.kernel.limits import Limits
from dalsegno.kernel.ports import FINAL, Batch, EventRow, InstanceRow, Message, NodeInfo, Start, Store

_LOOK_AGAIN_SECONDS = 1.0
_PAGE = 10_000


class Gateway(Protocol):
    """What an `App` asks for, wherever the engine is."""

    store: Store

    async def start(
        self,
        spec: ProcessSpec,
        namespace: str,
        id: str,
        data: bytes,
        prepared: Arguments,
        if_exists: IfExists,
        by: str | None,
    ) -> int: ...
    async def request(self, verb: str, namespace: str, id: str, request: Request) -> Any: ...
    async def update(self, namespace: str, id: str, event: AnyEvent, by: str | None) -> Any: ...
    async def copy(self, start: Start, journal: list[e.Record]) -> None: ...
    async def publish(self, namespace: str, event: AnyEvent, to: str | None, id: str | None) -> str: ...
    async def ended(self, namespace: str, id: str, key: int | None) -> e.Ended: ...
    async def find(self, namespace: str, id: str) -> InstanceRow | None: ...
    async def history(self, key: int, after: int = -1) -> list[e.Record]: ...


def new_start(
    spec: ProcessSpec, namespace: str, id: str, data: bytes, at: int, by: str | None
) -> tuple[Start, e.Started]:
    """A start and its first entry."""
    started = e.Started(spec.name, spec.version, msgspec.Raw(data), by=by)
    start = Start(
        namespace=namespace,
        id=id,
        process=spec.name,
        version=spec.version,
        input_hash=input_hash(spec.name, data),
        entry=e.encode(started),
        at=at,
    )
    return start, started


def event_row(namespace: str, event: AnyEvent, to: str | None, at: int, id: str | None = None) -> EventRow:
    """An event as it is stored."""
    return EventRow(
        namespace=namespace,
        id=id or str(uuid.uuid4()),
        event_type=event.event_type,
        topic=event.event_topic,
        key=key_of(event),
        to=to,
        payload=payload_of(event),
        at=at,
    )


def bounded_event_row(
    limits: Limits, namespace: str, event: AnyEvent, to: str | None, at: int, id: str | None
) -> EventRow:
    """An event from outside as it is stored. Raises `LimitExceeded`."""
    row = event_row(namespace, event, to, at, id)
    codec.bounded(row.payload, limits.payload_bytes, f"event {row.event_type}")
    return row


def update_request(limits: Limits, event: AnyEvent, by: str | None, update: str | None = None) -> Request:
    """What an update asks of the engine. Raises `LimitExceeded`."""
    payload = codec.bounded(payload_of(event), limits.payload_bytes, f"update {event.event_type}")
    return Request(by, event_type=event.event_type, event=msgspec.Raw(payload), update=update)


async def whole_history(store: Store, key: int, after: int = -1) -> list[e.Record]:
    """All entries of an instance after a sequence number."""
    found: list[e.Record] = []
    while True:
        page = await store.history(key, found[-1].seq if found else after, _PAGE)
        found += records(page)
        if len(page) < _PAGE:
            return found


async def living_nodes(store: Store) -> list[NodeInfo]:
    """Nodes that hold their lease; one that was killed is among them until that ends."""
    moment = store.now()
    return [node for node in await store.nodes() if node.ended_at is None and node.lease_until > moment]


async def stored_end(store: Store, namespace: str, id: str) -> e.Ended | None:
    """How an instance ended, by the store; `None` while it hasn't."""
    row = await store.find(namespace, id)
    if row is None:
        raise NotFound(f"no instance {id!r} in namespace {namespace!r}")
    if row.status not in FINAL:
        return None
    return last_end(await store.load([row.key]))


def start_within(
    store: Store,
    tx: Any,
    spec: ProcessSpec,
    namespace: str,
    id: str,
    data: bytes,
    if_exists: IfExists,
    by: str | None,
) -> None:
    """Start an instance with a transaction of the user's."""
    batch = Batch()
    start, _ = new_start(spec, namespace, id, data, store.now(), by)
    batch.starts.append(start)
    batch.messages.append(message_to(store, "start", namespace, id, Request(by)))
    _, taken = store.enlist(tx, batch)
    if taken is not None:
        check_same(taken, spec.name, data, if_exists)
        if if_exists == "restart":
            raise Refused(f"instance {id!r} can't be restarted within a transaction: leave out tx=")


def publish_within(
    store: Store, limits: Limits, tx: Any, namespace: str, event: AnyEvent, to: str | None, id: str | None
) -> str:
    """Publish an event with a transaction of the user's; returns its id."""
    batch = Batch()
    row = bounded_event_row(limits, namespace, event, to, store.now(), id)
    batch.events.append(row)
    store.enlist(tx, batch)
    return row.id


def message_to(store: Store, verb: str, namespace: str, id: str, request: Request) -> Message:
    """A message to an instance, as it is stored."""
    body = msgspec.json.encode(request)
    return Message(namespace=namespace, instance=id, verb=verb, body=body, at=store.now(), by=request.by)


class InProcess:
    """Straight into the node."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.store = node.store
        self.limits = node.limits
        self._beside = Beside(node.store, node.limits)

    async def start(
        self,
        spec: ProcessSpec,
        namespace: str,
        id: str,
        data: bytes,
        prepared: Arguments,
        if_exists: IfExists,
        by: str | None,
    ) -> int:
        node = self.node
        self._check_alive()
        node.definitions.add(spec)
        start, started = new_start(spec, namespace, id, data, node.store.now(), by)
        done: asyncio.Future[int | None] = node.loop.create_future()
        node.starts.submit(start, started, spec, done, prepared)
        key = await done
        if key is None:
            row = await node.store.find(namespace, id)
            assert row is not None
            check_same(row, spec.name, data, if_exists)
            if if_exists == "restart":
                if not node.owns(row):
                    raise Refused(f"instance {id!r} belongs to another node: restart it there")
                await node.stored.restart(row, spec, data, by)
            return row.key
        return key

    async def _elsewhere(self, namespace: str, id: str) -> bool:
        """Whether an instance belongs to another node, or to nobody yet."""
        if not self.store.shared or self.node.residents.by_id(namespace, id) is not None:
            return False
        row = await self.find(namespace, id)
        return row is not None and not self.node.owns(row)

    def _check_alive(self) -> None:
        if self.node.failure is not None:
            raise self.node.failure

    async def request(self, verb: str, namespace: str, id: str, request: Request) -> Any:
        self._check_alive()
        if await self._elsewhere(namespace, id):
            return await self._beside.request(verb, namespace, id, request)
        return await self.node.operations.request(verb, namespace, id, request)

    async def copy(self, start: Start, journal: list[e.Record]) -> None:
        self._check_alive()
        copied: asyncio.Future[Reply] = self.node.loop.create_future()
        self.node.stored.copy(start, journal, copied.set_result)
        (await copied).read()

    async def update(self, namespace: str, id: str, event: AnyEvent, by: str | None) -> Any:
        self._check_alive()
        if await self._elsewhere(namespace, id):
            return await self._beside.update(namespace, id, event, by)
        request = update_request(self.limits, event, by, str(uuid.uuid4()))
        return await self.node.operations.request("update", namespace, id, request)

    async def publish(self, namespace: str, event: AnyEvent, to: str | None, id: str | None) -> str:
        self._check_alive()
        row = bounded_event_row(self.limits, namespace, event, to, self.store.now(), id)
        self.node.committer.batch.events.append(row)
        await self.node.settled()
        return row.id

    async def ended(self, namespace: str, id: str, key: int | None) -> e.Ended:
        node = self.node
        self._check_alive()
        resident = node.residents.by_id(namespace, id)
        if resident is not None:
            return await node.results.wait(resident.key)
        if await self._elsewhere(namespace, id):
            return await self._beside.ended(namespace, id, key)
        if key is None:
            row = await self.find(namespace, id)
            if row is None:
                raise NotFound(f"no instance {id!r} in namespace {namespace!r}")
            key = row.key
        future = node.results.wait(key)
        try:
            await node.settled()
            ended = await stored_end(self.store, namespace, id)
            return ended if ended is not None else await future
        finally:
            node.results.forget(key, future)

    async def find(self, namespace: str, id: str) -> InstanceRow | None:
        await self.node.settled()
        return await self.store.find(namespace, id)

    async def history(self, key: int, after: int = -1) -> list[e.Record]:
        await self.node.settled()
        return await whole_history(self.store, key, after)


class Beside:
    """Beside a running engine: writes what is wanted into the store and rings."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self.store = store
        self.limits = limits

    async def start(
        self,
        spec: ProcessSpec,
        namespace: str,
        id: str,
        data: bytes,
        prepared: Arguments,
        if_exists: IfExists,
        by: str | None,
    ) -> int:
        start, _ = new_start(spec, namespace, id, data, self.store.now(), by)
        batch = Batch()
        batch.starts.append(start)
        batch.messages.append(message_to(self.store, "start", namespace, id, Request(by)))
        key = (await self.store.write(batch)).start_keys[0]
        if key is None:
            row = await self.store.find(namespace, id)
            assert row is not None
            check_same(row, spec.name, data, if_exists)
            if if_exists == "restart":
                raise Refused(f"instance {id!r} can only be restarted by the node itself")
            return row.key
        return key

    async def request(self, verb: str, namespace: str, id: str, request: Request) -> Any:
        if await self.store.find(namespace, id) is None:
            raise NotFound(f"no instance {id!r} in namespace {namespace!r}")
        batch = Batch()
        message = message_to(self.store, verb, namespace, id, request)
        batch.messages.append(message)
        await self.store.write(batch)
        while True:
            # Watch first: a reply that comes between the look and the wait rings too.
            changed = asyncio.ensure_future(self.store.changed(_LOOK_AGAIN_SECONDS))
            found = await self.store.message(message.position)
            if found is not None and found.reply is not None:
                changed.cancel()
                return msgspec.json.decode(found.reply, type=Reply).read()
            if not await living_nodes(self.store):
                changed.cancel()
                raise Refused(
                    f"{verb} of {id!r} is written down and will be done once a node runs on this store; none does now"
                )
            await changed

    async def copy(self, start: Start, journal: list[e.Record]) -> None:
        start.annotations = annotated(journal)
        batch = Batch()
        batch.copies.append((start, [(r.seq, r.at, e.kind(r.entry), e.encode(r.entry)) for r in journal]))
        batch.messages.append(message_to(self.store, "start", start.namespace, start.id, Request()))
        if (await self.store.write(batch)).copy_keys[0] is None:
            raise Refused(f"instance {start.id!r} exists already in namespace {start.namespace!r}")

    async def update(self, namespace: str, id: str, event: AnyEvent, by: str | None) -> Any:
        request = update_request(self.limits, event, by)
        return await self.request("update", namespace, id, request)

    async def publish(self, namespace: str, event: AnyEvent, to: str | None, id: str | None) -> str:
        batch = Batch()
        row = bounded_event_row(self.limits, namespace, event, to, self.store.now(), id)
        batch.events.append(row)
        await self.store.write(batch)
        return row.id

    async def ended(self, namespace: str, id: str, key: int | None) -> e.Ended:
        while True:
            changed = asyncio.ensure_future(self.store.changed(_LOOK_AGAIN_SECONDS))
            try:
                ended = await stored_end(self.store, namespace, id)
                if ended is not None:
                    return ended
                await changed
            finally:
                changed.cancel()

    async def find(self, namespace: str, id: str) -> InstanceRow | None:
        return await self.store.find(namespace, id)

    async def history(self, key: int, after: int = -1) -> list[e.Record]:
        return await whole_history(self.store, key, after)
