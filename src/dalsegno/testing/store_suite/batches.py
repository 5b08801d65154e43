"""One batch is one transaction: all of it or nothing, in the order in which batches were handed in."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from dalsegno.errors import DalsegnoError, UsageError
from dalsegno.kernel.ports import Committed, Restart
from dalsegno.testing.store_suite import material as m
from dalsegno.testing.store_suite.place import Place, client, commit, in_loop, owner


class BatchTests:
    """Starts, journal rows, and what happens when a batch can't be written."""

    @in_loop
    async def test_an_empty_batch_is_written(self, place: Place) -> None:
        async with owner(place) as store:
            assert await m.write(store) == Committed()

    @in_loop
    async def test_a_start_writes_the_instance_and_its_first_entry(self, place: Place) -> None:
        async with owner(place) as store:
            [key] = await m.begin(store, "order-1", parent="batch-1", parent_operation="child:order")
            row = await store.find("default", "order-1")
            [loaded] = await store.load([key])

        assert row is not None
        assert (row.key, row.namespace, row.id, row.process, row.version) == (key, "default", "order-1", "order", 1)
        assert (row.status, row.run, row.base_seq, row.input_hash) == ("running", 1, 0, 7)
        assert (row.created_at, row.updated_at, row.ended_at, row.wake_at) == (m.BEGIN, m.BEGIN, None, None)
        assert (row.waiting_for, row.error, row.annotations, row.crashes) == (None, None, None, 0)
        assert (row.parent, row.parent_operation) == ("batch-1", "child:order")
        assert row.begun is True
        assert loaded.row == row
        assert loaded.journal == [(0, m.BEGIN, b'{"kind":"started"}')]

    @in_loop
    async def test_a_taken_id_gets_no_key_and_the_others_get_theirs(self, place: Place) -> None:
        async with owner(place) as store:
            [first] = await m.begin(store, "order-1")
            starts = [m.start("order-0"), m.start("order-1", entry=b"other"), m.start("order-2"), m.start("order-2")]
            keys = (await m.write(store, starts=starts)).start_keys

            assert keys[1] is None
            assert keys[3] is None
            assert len({first, keys[0], keys[2]} - {None}) == 3
            assert await store.history(first, -1, 10) == [(0, m.BEGIN, b'{"kind":"started"}')]
            for id, key in [("order-0", keys[0]), ("order-2", keys[2])]:
                row = await store.find("default", id)
                assert row is not None
                assert row.key == key

    @in_loop
    async def test_keys_grow_in_the_order_of_the_starts(self, place: Place) -> None:
        async with owner(place) as store:
            keys = await m.begin(store, *(f"order-{number}" for number in range(450)))
            later = await m.begin(store, "later")

        assert keys == sorted(keys)
        assert later[0] > keys[-1]

    @in_loop
    async def test_the_same_id_in_another_namespace_is_another_instance(self, place: Place) -> None:
        async with owner(place) as store:
            found = await m.write(store, starts=[m.start("order-1"), m.start("order-1", namespace="support")])
            other = await store.find("support", "order-1")

        assert None not in found.start_keys
        assert other is not None
        assert other.key == found.start_keys[1]

    @in_loop
    async def test_a_restarted_instance_has_its_new_process_and_nothing_of_the_old_run(self, place: Place) -> None:
        async with owner(place) as store:
            [key] = await m.begin(store, "order-1")
            await m.write(store, events=[m.event("event-1")], annotations=[(key, b'{"stage":"sent"}')])
            await m.write(store, restarts=[Restart(key=key, process="refund", version=3, input_hash=7)])
            row = await store.find("default", "order-1")

        assert row is not None
        assert (row.process, row.version, row.input_hash, row.annotations) == ("refund", 3, 7, None)
        assert row.events_from == 1

    @in_loop
    async def test_a_refused_start_leaves_its_message_and_an_accepted_one_none(self, place: Place) -> None:
        async with owner(place) as store:
            await m.begin(store, "order-1")
            starts = [m.start(f"order-{n}", refusal=m.message(f"parent-{n}", verb="child_refused")) for n in (1, 2)]
            await m.write(store, starts=starts)

            assert [message.instance for message in await store.messages(0)] == ["parent-1"]

    @in_loop
    async def test_journal_rows_come_back_in_order_whatever_they_hold(self, place: Place) -> None:
        entries = [b'{"kind":"step_completed"}', b"", b"\x00\xff binary", "größer".encode(), b"x" * 100_000]
        async with owner(place) as store:
            [key, other] = await m.begin(store, "order-1", "order-2")
            rows = [(key, seq, m.BEGIN + seq, "step_completed", entry) for seq, entry in enumerate(entries, 1)]
            await m.write(store, rows=[rows[0], (other, 1, m.BEGIN, "ended", b"end"), *rows[1:]])
            [loaded] = await store.load([key])

        assert [entry for _, _, entry in loaded.journal[1:]] == entries
        assert [(seq, at) for seq, at, _ in loaded.journal[1:]] == [(row[1], row[2]) for row in rows]

    @in_loop
    async def test_a_thousand_rows_of_many_instances_fit_into_one_batch(self, place: Place) -> None:
        async with owner(place) as store:
            keys = await m.begin(store, *(f"order-{number}" for number in range(250)))
            await m.write(
                store,
                rows=[(key, seq, m.BEGIN, "step_completed", b"%d" % seq) for seq in range(1, 5) for key in keys],
                changes=[m.change(key, "completed") for key in keys],
            )
            loaded = await store.load(keys)

        assert [item.row.key for item in loaded] == keys
        assert {tuple(entry for _, _, entry in item.journal[1:]) for item in loaded} == {(b"1", b"2", b"3", b"4")}
        assert {item.row.status for item in loaded} == {"completed"}

    @in_loop
    async def test_a_batch_that_fails_leaves_nothing_behind(self, place: Place) -> None:
        async with owner(place) as store:
            [key] = await m.begin(store, "order-1")
            taken = (key, 0, m.BEGIN, "step_completed", b"this number is taken")
            parts: dict[str, Any] = {
                "starts": [m.start("order-2")],
                "changes": [m.change(key, "waiting")],
                "annotations": [(key, b'{"stage":"packing"}')],
                "events": [m.event("event-1")],
                "waits": [m.wait(key)],
                "messages": [m.message()],
                "asks": [m.task("task-1")],
                "rows": [(key, 1, m.BEGIN, "step_completed", b"one"), taken],
            }
            with pytest.raises(DalsegnoError):
                await m.write(store, **parts)

            await self._nothing_of_it(store, key)

    async def _nothing_of_it(self, store: Any, key: int) -> None:
        assert await store.find("default", "order-2") is None
        row = await store.find("default", "order-1")
        assert (row.status, row.annotations) == ("running", None)
        assert len(await store.history(key, -1, 10)) == 1
        assert await store.messages(0) == []
        assert await store.task("default", "task-1") is None
        assert (await m.write(store, waits=[m.wait(key)])).matches == []

    @in_loop
    async def test_batches_are_written_in_the_order_they_were_handed_in(self, place: Place) -> None:
        async with owner(place) as store:
            [key] = await m.begin(store, "order-1")
            written = [m.batch(rows=[(key, seq, m.BEGIN, "step_completed", b"%d" % seq)]) for seq in range(1, 20)]
            await asyncio.gather(*(commit(store, batch) for batch in written))

            assert [seq for seq, _, _ in await store.history(key, -1, 100)] == list(range(20))

    @in_loop
    async def test_what_is_committed_is_there_for_the_next_owner(self, place: Place) -> None:
        store = place.store()
        await store.open(owner=True, name="north", lease_seconds=600)
        [key] = await m.begin(store, "order-1")
        await m.write(store, rows=[(key, 1, m.BEGIN, "step_completed", b"one")])
        await place.kill(store)

        async with owner(place, "south") as successor:
            assert [entry for _, _, entry in await successor.history(key, 0, 10)] == [b"one"]

    @in_loop
    async def test_a_copy_brings_its_journal_and_where_it_stands(self, place: Place) -> None:
        journal = [(0, m.BEGIN, "started", b"a"), (1, m.BEGIN + 1, "step_completed", b"b")]
        copied = m.start("copy", stands=m.change(0, "completed", ended_at=m.BEGIN), annotations=b'{"stage":"done"}')
        async with owner(place) as store:
            await m.begin(store, "order-1")
            found = await m.write(
                store, copies=[(m.start("fork"), journal), (m.start("order-1"), journal), (copied, journal)]
            )
            loaded = await store.load([key for key in found.copy_keys if key is not None])

        assert found.copy_keys[1] is None
        assert [item.row.id for item in loaded] == ["fork", "copy"]
        assert all(item.journal == [(0, m.BEGIN, b"a"), (1, m.BEGIN + 1, b"b")] for item in loaded)
        assert [item.row.status for item in loaded] == ["running", "completed"]
        assert loaded[1].row.ended_at == m.BEGIN
        assert json.loads(loaded[1].row.annotations or "") == {"stage": "done"}

    @in_loop
    async def test_a_client_hands_in_starts_events_and_messages_that_have_not_begun(self, place: Place) -> None:
        async with owner(place) as store, client(place) as beside:
            handed = m.batch(starts=[m.start("order-1")], events=[m.event("event-1")], messages=[m.message()])
            [key] = (await beside.write(handed)).start_keys
            row = await store.find("default", "order-1")

            assert row is not None
            assert (row.key, row.begun, row.status) == (key, False, "running")
            assert [message.verb for message in await store.messages(0)] == ["cancel"]
            assert handed.messages[0].position == (await store.messages(0))[0].position

    @in_loop
    async def test_a_client_may_not_write_what_is_the_owners(self, place: Place) -> None:
        async with owner(place) as store, client(place) as beside:
            [key] = await m.begin(store, "order-1")
            forbidden: list[dict[str, Any]] = [
                {"rows": [(key, 1, m.BEGIN, "step_completed", b"forged")]},
                {"changes": [m.change(key, "completed")]},
                {"annotations": [(key, b"{}")]},
                {"waits": [m.wait(key)]},
                {"replies": [(1, b"{}", m.BEGIN)]},
                {"closings": [m.closing("task-1")]},
            ]
            for parts in forbidden:
                with pytest.raises(UsageError):
                    await beside.write(m.batch(**parts))

            assert len(await store.history(key, -1, 10)) == 1

    @in_loop
    async def test_a_clients_start_has_begun_once_its_owner_changed_it(self, place: Place) -> None:
        async with owner(place) as store, client(place) as beside:
            [key] = (await beside.write(m.batch(starts=[m.start("order-1")]))).start_keys
            assert key is not None
            await m.write(store, changes=[m.change(key, "running")])
            [loaded] = await store.load([key])

        assert loaded.row.begun is True
