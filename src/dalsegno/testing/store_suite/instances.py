"""Rows of instances: states, annotations, journals of several runs."""

from __future__ import annotations

import json

from dalsegno.kernel.ports import InstanceRow, Restart, Store
from dalsegno.testing.store_suite import material as m
from dalsegno.testing.store_suite.place import Place, in_loop, owner


class InstanceTests:
    """What is kept of an instance."""

    @in_loop
    async def test_a_change_replaces_the_state_and_keeps_the_rest(self, place: Place) -> None:
        async with owner(place) as store:
            [key] = await m.begin(store, "order-1")
            before = await self._row(store)
            waiting = m.change(key, "waiting", wake_at=m.BEGIN + 9, waiting_for="a timer", error="none yet")
            await m.write(store, changes=[waiting])
            row = await self._row(store)
            await m.write(store, changes=[m.change(key, "completed", ended_at=m.BEGIN + 10)])
            ended = await self._row(store)

        assert (row.status, row.wake_at, row.waiting_for, row.error) == ("waiting", m.BEGIN + 9, "a timer", "none yet")
        assert (row.updated_at, row.created_at, row.input_hash) == (m.BEGIN + m.SECOND, before.created_at, 7)
        assert (ended.status, ended.wake_at, ended.waiting_for, ended.error) == ("completed", None, None, None)
        assert ended.ended_at == m.BEGIN + 10

    @staticmethod
    async def _row(store: Store) -> InstanceRow:
        row = await store.find("default", "order-1")
        assert row is not None
        return row

    @in_loop
    async def test_an_unknown_instance_is_not_found(self, place: Place) -> None:
        async with owner(place) as store:
            await m.begin(store, "order-1")

            assert await store.find("default", "order-2") is None
            assert await store.find("support", "order-1") is None

    @in_loop
    async def test_instances_load_in_the_order_asked_for_and_missing_ones_are_left_out(self, place: Place) -> None:
        async with owner(place) as store:
            one, two, three = await m.begin(store, "order-1", "order-2", "order-3")
            loaded = await store.load([three, 9999, one, two])

            assert [item.row.key for item in loaded] == [three, one, two]
            assert await store.load([]) == []

    @in_loop
    async def test_loading_brings_the_present_run_and_history_all_runs(self, place: Place) -> None:
        async with owner(place) as store:
            [key] = await m.begin(store, "order-1")
            rows = [(key, seq, m.BEGIN + seq, "step_completed", b"%d" % seq) for seq in range(1, 6)]
            await m.write(store, rows=rows, changes=[m.change(key, "running", run=2, base_seq=3)])
            [loaded] = await store.load([key])
            history = await store.history(key, -1, 100)

        assert (loaded.row.run, loaded.row.base_seq) == (2, 3)
        assert [seq for seq, _, _ in loaded.journal] == [3, 4, 5]
        assert [seq for seq, _, _ in history] == [0, 1, 2, 3, 4, 5]

    @in_loop
    async def test_history_comes_in_pages(self, place: Place) -> None:
        async with owner(place) as store:
            [key, other] = await m.begin(store, "order-1", "order-2")
            rows = [(k, seq, m.BEGIN, "step_completed", b"%d" % seq) for seq in range(1, 6) for k in (key, other)]
            await m.write(store, rows=rows)
            pages = [await store.history(key, after, 2) for after in (-1, 1, 3, 5)]

        assert [[seq for seq, _, _ in page] for page in pages] == [[0, 1], [2, 3], [4, 5], []]
        assert pages[1] == [(2, m.BEGIN, b"2"), (3, m.BEGIN, b"3")]

    @in_loop
    async def test_a_restart_is_another_instance_of_the_same_id(self, place: Place) -> None:
        async with owner(place) as store:
            [key] = await m.begin(store, "order-1")
            await m.write(store, annotations=[(key, b'{"stage":"done"}')], changes=[m.change(key, "completed")])
            await m.write(store, events=[m.event("between")])
            await m.write(
                store,
                restarts=[Restart(key=key, process="order", version=2, input_hash=9)],
                rows=[(key, 1, m.BEGIN, "started", b"again")],
                changes=[m.change(key, "running", run=2, base_seq=1)],
            )
            [loaded] = await store.load([key])
            waits = await m.write(store, waits=[m.wait(key)])

        assert (loaded.row.version, loaded.row.input_hash, loaded.row.annotations) == (2, 9, None)
        assert loaded.journal == [(1, m.BEGIN, b"again")]
        assert waits.matches == []

    @in_loop
    async def test_annotations_are_merged_by_name_and_null_removes_one(self, place: Place) -> None:
        async with owner(place) as store:
            [key] = await m.begin(store, "order-1")
            await m.write(store, annotations=[(key, b'{"stage":"packing","box":2}'), (key, b'{"box":3}')])
            await m.write(store, annotations=[(key, b'{"stage":null,"missing":null,"note":"f\xc3\xbcr"}')])

            assert json.loads((await self._row(store)).annotations or "") == {"box": 3, "note": "für"}

    @in_loop
    async def test_an_annotation_replaces_the_whole_value_of_its_name(self, place: Place) -> None:
        async with owner(place) as store:
            [key] = await m.begin(store, "order-1")
            await m.write(store, annotations=[(key, b'{"address":{"city":"Ulm","zip":"89073"}}')])
            await m.write(store, annotations=[(key, b'{"address":{"city":"Bonn","floor":null}}')])

            annotations = (await self._row(store)).annotations
            assert json.loads(annotations or "") == {"address": {"city": "Bonn", "floor": None}}

    @in_loop
    async def test_annotations_stay_through_changes(self, place: Place) -> None:
        async with owner(place) as store:
            [key] = await m.begin(store, "order-1")
            await m.write(store, annotations=[(key, b'{"stage":"packing"}')], changes=[m.change(key, "waiting")])
            await m.write(store, changes=[m.change(key, "completed")])

            assert json.loads((await self._row(store)).annotations or "") == {"stage": "packing"}
