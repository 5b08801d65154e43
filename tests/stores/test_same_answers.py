"""The memory, the SQLite and the PostgreSQL store give the same answers to any program of batches."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dalsegno.kernel.ports import Batch, Committed, Filter, InstanceRow, Match, Store
from dalsegno.stores.memory.store import MemoryStore
from dalsegno.stores.postgres.store import PostgresStore
from dalsegno.stores.sqlite.store import SqliteStore
from dalsegno.testing.store_suite import material as m
from dalsegno.testing.store_suite.place import commit

if TYPE_CHECKING:
    from dalsegno.testing.servers import PostgresServer

IDS = st.sampled_from(["a", "b", "c", "d"])
FIELDS = st.dictionaries(st.sampled_from(["city", "zip", "n"]), st.sampled_from([None, 1, 1.5, True, "Ulm", [1]]))
NAMESPACES = st.sampled_from(["default", "support"])
STATUSES = st.sampled_from(["running", "waiting", "paused", "parked", "completed", "failed"])
TIMES = st.integers(0, 50).map(lambda n: m.BEGIN + n)
WHICH = st.integers(0, 5)
KEYS = st.sampled_from([None, "1", "2"])

ACTIONS = st.one_of(
    st.tuples(st.just("start"), IDS, NAMESPACES),
    st.tuples(st.just("entry"), WHICH, st.binary(max_size=5)),
    st.tuples(st.just("change"), WHICH, STATUSES, st.none() | TIMES),
    st.tuples(st.just("annotate"), WHICH, FIELDS),
    st.tuples(st.just("wait"), WHICH, st.sampled_from(["w1", "w2"]), KEYS, FIELDS, st.integers(0, 3)),
    st.tuples(st.just("unwait"), WHICH, st.sampled_from(["w1", "w2"])),
    st.tuples(st.just("publish"), st.integers(0, 8), KEYS, st.none() | IDS, FIELDS, NAMESPACES, TIMES),
    st.tuples(st.just("send"), IDS),
    st.tuples(st.just("reply"), WHICH, st.binary(max_size=3)),
    st.tuples(st.just("ask"), IDS, TIMES),
    st.tuples(st.just("close"), IDS, st.sampled_from(["answered", "withdrawn"])),
    st.tuples(st.just("beat"), WHICH, st.binary(max_size=3)),
    st.tuples(st.just("unbeat"), WHICH),
    st.tuples(st.just("transact"), WHICH, st.booleans()),
    st.tuples(st.just("copy"), IDS, st.integers(1, 3)),
)
PROGRAMS = st.lists(st.lists(ACTIONS, min_size=1, max_size=6), min_size=1, max_size=8)
FILTERS = st.builds(
    Filter,
    namespace=st.none() | NAMESPACES,
    statuses=st.lists(STATUSES, max_size=2).map(tuple),
    id_prefix=st.none() | IDS,
    where=FIELDS.map(lambda fields: tuple(fields.items())),
    started_before=st.none() | TIMES,
    started_after=st.none() | TIMES,
)


class Writer:
    """Turns actions into batches that an engine could write: entries in order, nothing about unknown instances."""

    def __init__(self) -> None:
        self.known: list[tuple[int, str, str]] = []
        self.lengths: dict[int, int] = {}
        self.messages = 0
        self.positions = [0]

    def batch(self, actions: list[tuple[Any, ...]]) -> Batch:
        batch = Batch()
        self._transacted: set[int] = set()
        for name, *values in actions:
            getattr(self, f"_{name}")(batch, *values)
        return batch

    def learn(self, batch: Batch, found: Committed) -> None:
        """Note what the commit made known."""
        made = [*zip(batch.starts, found.start_keys, strict=True)]
        made += [(start, key) for (start, _), key in zip(batch.copies, found.copy_keys, strict=True)]
        lengths = [1] * len(batch.starts) + [len(journal) for _, journal in batch.copies]
        for (start, key), length in zip(made, lengths, strict=True):
            if key is not None:
                self.known.append((key, start.namespace, start.id))
                self.lengths[key] = length
        for work, (entry, _) in zip(batch.transactions, found.transactions, strict=True):
            self.lengths[work.instance] += entry is not None
        self.messages += len(batch.messages)
        self.positions = sorted({*self.positions, *(match.position for match in found.matches)})

    def _pick(self, which: int) -> tuple[int, str, str] | None:
        return self.known[which % len(self.known)] if self.known else None

    def _start(self, batch: Batch, id: str, namespace: str) -> None:
        batch.starts.append(m.start(id, namespace=namespace))

    def _copy(self, batch: Batch, id: str, length: int) -> None:
        journal = [(seq, m.BEGIN + seq, "step_completed", b"%d" % seq) for seq in range(length)]
        batch.copies.append((m.start(f"copy of {id}", annotations=b'{"copied":true,"n":null}'), journal))

    def _entry(self, batch: Batch, which: int, data: bytes) -> None:
        if (found := self._pick(which)) and found[0] not in self._transacted:
            key = found[0]
            batch.add(key, self.lengths[key], m.BEGIN, "step_completed", data)
            self.lengths[key] += 1

    def _change(self, batch: Batch, which: int, status: str, wake_at: int | None) -> None:
        if found := self._pick(which):
            batch.changes[found[0]] = m.change(found[0], status, wake_at=wake_at, waiting_for="x" if wake_at else None)

    def _annotate(self, batch: Batch, which: int, fields: dict[str, Any]) -> None:
        if found := self._pick(which):
            batch.annotations.append((found[0], msgspec.json.encode(fields)))

    def _wait(
        self, batch: Batch, which: int, operation: str, key: str | None, match: dict[str, Any], after: int
    ) -> None:
        if found := self._pick(which):
            number, namespace, id = found
            position = self.positions[after % len(self.positions)]
            batch.waits.append(
                m.wait(number, operation, namespace=namespace, instance_id=id, key=key, match=match, after=position)
            )

    def _unwait(self, batch: Batch, which: int, operation: str) -> None:
        if found := self._pick(which):
            batch.unwaits.append((found[0], operation))

    def _publish(
        self,
        batch: Batch,
        number: int,
        key: str | None,
        to: str | None,
        fields: dict[str, Any],
        namespace: str,
        at: int,
    ) -> None:
        batch.events.append(m.event(f"event-{number}", key=key, to=to, namespace=namespace, at=at, **fields))

    def _send(self, batch: Batch, id: str) -> None:
        batch.messages.append(m.message(id))

    def _reply(self, batch: Batch, which: int, data: bytes) -> None:
        if self.messages:
            batch.replies.append((which % self.messages + 1, data, m.BEGIN))

    def _ask(self, batch: Batch, id: str, at: int) -> None:
        batch.asks.append(m.task(id, at=at, about=msgspec.json.encode(at)))

    def _close(self, batch: Batch, id: str, state: str) -> None:
        batch.closings.append(m.closing(id, state))

    def _beat(self, batch: Batch, which: int, details: bytes) -> None:
        if found := self._pick(which):
            batch.heartbeats.append(m.beat(found[0], details=details))

    def _unbeat(self, batch: Batch, which: int) -> None:
        if found := self._pick(which):
            batch.unbeats.append((found[0],))

    def _transact(self, batch: Batch, which: int, fails: bool) -> None:
        if (found := self._pick(which)) and found[0] not in self._transacted:
            self._transacted.add(found[0])
            batch.transactions.append(m.transaction(found[0], self.lengths[found[0]], counting(fails)))


def counting(fails: bool) -> Any:
    """A transaction that counts in a table of its own, and may fail after that."""

    def work(connection: Any) -> None:
        connection.execute("CREATE TABLE IF NOT EXISTS counted (n INTEGER)")
        connection.execute("INSERT INTO counted SELECT count(*) FROM counted")
        if fails:
            raise ValueError("fails")

    return work


async def answers(store: Store, program: list[list[tuple[Any, ...]]], filters: list[Filter]) -> list[Any]:
    """Everything a store says of a program, with keys as if they were given out one by one."""
    await store.open(owner=True, name="node", lease_seconds=600)
    writer = Writer()
    said = Said(writer)
    try:
        for actions in program:
            batch = writer.batch(actions)
            found = await commit(store, batch)
            writer.learn(batch, found)
            outcomes = [(entry, repr(error)) for entry, error in found.transactions]
            said.add((said.keys(found.start_keys), said.keys(found.copy_keys), said.matches(found.matches), outcomes))
            said.add(said.matches(await store.matches()))
        said.answers += await everything(store, writer, said)
        for wanted in filters:
            said.add([said.row(row) for row in await store.listing(wanted, None, 3)])
            said.add(await store.forget_events(wanted.started_before or 0, 2))
        said.add(said.matches(await store.matches()))
    finally:
        await store.close()
    return said.answers


class Said:
    """Answers without the numbers that a store is free to choose."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.answers: list[Any] = []
        self.add = self.answers.append

    def key(self, key: int) -> int:
        """Which instance it is: the first, the second, …"""
        return [known for known, _, _ in self._writer.known].index(key)

    def keys(self, keys: list[int | None]) -> list[int | None]:
        return [None if key is None else self.key(key) for key in keys]

    def matches(self, matches: list[Match]) -> list[str]:
        replace = msgspec.structs.replace
        return sorted(repr(replace(match, position=0, instance=self.key(match.instance))) for match in matches)

    def row(self, row: InstanceRow | None) -> InstanceRow | None:
        if row is None:
            return None
        return msgspec.structs.replace(row, key=self.key(row.key), events_from=0, owner=0)


async def everything(store: Store, writer: Writer, said: Said) -> list[Any]:
    keys = [key for key, _, _ in writer.known]
    found = [
        [(said.row(item.row), item.journal) for item in await store.load(keys)],
        [await store.history(key, 0, 2) for key in keys],
        [await store.heartbeat(key, "load") for key in keys],
        [said.row(await store.find("support", id)) for id in "abcd"],
    ]
    if store.shared:
        # It tells of those running instances that it takes over.
        await store.release(keys)
    after = keys[1] if len(keys) > 1 else 1
    return [
        *found,
        said.keys(list(await store.running(0, 3))),
        [(at, said.key(key)) for at, key in await store.due(m.BEGIN + 40, (m.BEGIN + 5, after), 3)],
        said.keys(list(await store.mismatched())),
        await store.messages(0),
        await store.messages(1),
        [await store.message(position) for position in range(1, writer.messages + 1)],
        await store.tasks("default", None, "open", m.BEGIN + 3, 2),
        [await store.task("default", id) for id in "abcd"],
        await store.counts(None),
        await store.counts("support"),
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(program=PROGRAMS, filters=st.lists(FILTERS, max_size=3))
def test_any_program_of_batches_gets_the_same_answers(
    program: list[list[tuple[Any, ...]]], filters: list[Filter]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sqlite = SqliteStore(str(Path(folder) / "orders.db"), "process")
        expected = asyncio.run(answers(cast("Store", sqlite), program, filters))
    found = asyncio.run(answers(cast("Store", MemoryStore()), program, filters))

    for one, other in zip(found, expected, strict=True):
        assert one == other


@pytest.fixture(scope="module")
def schemas(postgres: PostgresServer) -> Iterator[str]:
    """URLs of stores, each in a schema of its own, of one database."""
    url = postgres.create_database()
    return (f"{url}?schema=store_{number}" for number in count())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(program=PROGRAMS, filters=st.lists(FILTERS, max_size=3))
def test_postgresql_gives_the_same_answers_too(
    schemas: Iterator[str], program: list[list[tuple[Any, ...]]], filters: list[Filter]
) -> None:
    expected = asyncio.run(answers(cast("Store", MemoryStore()), program, filters))
    found = asyncio.run(answers(cast("Store", PostgresStore(next(schemas))), program, filters))

    for one, other in zip(found, expected, strict=True):
        assert one == other
