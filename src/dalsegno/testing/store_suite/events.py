"""Events: known by their ids, kept for instances that will wait for them, forgotten in time."""

from __future__ import annotations

from dalsegno.testing.store_suite import material as m
from dalsegno.testing.store_suite.place import Place, client, in_loop, owner


class EventTests:
    """Which events an instance sees."""

    @in_loop
    async def test_an_event_that_is_published_twice_is_one_event(self, place: Place) -> None:
        async with owner(place) as store:
            [key] = await m.begin(store, "order-1")
            await m.write(store, waits=[m.wait(key)])
            first = await m.write(store, events=[m.event("event-1"), m.event("event-1")])
            await m.write(store, unwaits=[(key, "event:Delivered")])
            again = await m.write(
                store, events=[m.event("event-1")], waits=[m.wait(key, after=first.matches[0].position)]
            )

            assert len(first.matches) == 1
            assert again.matches == []

    @in_loop
    async def test_the_same_event_id_in_another_namespace_is_another_event(self, place: Place) -> None:
        async with owner(place) as store:
            found = await m.write(store, starts=[m.start("order-1", namespace="support")])
            key = found.start_keys[0]
            assert key is not None
            await m.write(store, waits=[m.wait(key, namespace="support")])
            events = [m.event("event-1"), m.event("event-1", namespace="support")]

            assert len((await m.write(store, events=events)).matches) == 1

    @in_loop
    async def test_an_instance_sees_no_event_from_before_its_start(self, place: Place) -> None:
        async with owner(place) as store:
            await m.write(store, events=[m.event("old")])
            [key] = await m.begin(store, "order-1")
            early = await m.write(store, waits=[m.wait(key)])
            late = await m.write(store, events=[m.event("new")])

        assert early.matches == []
        assert [match.event_id for match in late.matches] == ["new"]

    @in_loop
    async def test_an_event_addressed_to_an_instance_waits_for_its_start(self, place: Place) -> None:
        async with owner(place) as store:
            await m.write(store, events=[m.event("early", to="order-1"), m.event("other", to="order-2")])
            [key] = await m.begin(store, "order-1")
            found = await m.write(store, waits=[m.wait(key, instance_id="order-1")])

        assert [match.event_id for match in found.matches] == ["early"]

    @in_loop
    async def test_an_event_and_a_start_in_one_batch_belong_together(self, place: Place) -> None:
        async with owner(place) as store:
            found = await m.write(store, starts=[m.start("order-1")], events=[m.event("event-1")])
            key = found.start_keys[0]
            assert key is not None

            assert len((await m.write(store, waits=[m.wait(key)])).matches) == 1

    @in_loop
    async def test_a_copy_sees_the_events_after_the_position_it_brings(self, place: Place) -> None:
        async with owner(place) as store:
            [origin] = await m.begin(store, "order-1")
            await m.write(store, events=[m.event("event-1"), m.event("event-2")])
            [match] = (await m.write(store, waits=[m.wait(origin)])).matches
            copies = [(m.start(id, events_from=at), [(0, m.BEGIN, "started", b"")]) for id, at in
                      (("all", 0), ("later", match.position), ("none", None))]  # fmt: skip
            keys = [key for key in (await m.write(store, copies=copies)).copy_keys if key is not None]
            found = (await m.write(store, waits=[m.wait(key) for key in keys])).matches

        assert [(match.instance, match.event_id) for match in found] == [(keys[0], "event-1"), (keys[1], "event-2")]

    @in_loop
    async def test_a_clients_event_meets_the_wait_of_an_instance(self, place: Place) -> None:
        async with owner(place) as store, client(place) as beside:
            [key] = await m.begin(store, "order-1")
            await m.write(store, waits=[m.wait(key)])
            await beside.write(m.batch(events=[m.event("event-1")]))

            assert [(match.instance, match.event_id) for match in await store.matches()] == [(key, "event-1")]

    @in_loop
    async def test_old_events_are_forgotten_so_many_at_a_time(self, place: Place) -> None:
        async with owner(place) as store:
            [key] = await m.begin(store, "order-1")
            await m.write(store, events=[m.event(f"event-{n}", at=m.BEGIN + n) for n in range(6)])

            assert await store.forget_events(m.BEGIN + 5, 3) == 3
            assert await store.forget_events(m.BEGIN + 5, 3) == 2
            assert await store.forget_events(m.BEGIN + 5, 3) == 0
            [match] = (await m.write(store, waits=[m.wait(key)])).matches
            assert match.event_id == "event-5"

    @in_loop
    async def test_an_event_that_met_a_wait_is_kept_until_it_is_delivered(self, place: Place) -> None:
        async with owner(place) as store:
            [key] = await m.begin(store, "order-1")
            await m.write(store, waits=[m.wait(key)])
            matches = (await m.write(store, events=[m.event("event-1"), m.event("event-2")])).matches

            assert await store.forget_events(m.BEGIN + m.SECOND, 100) == 1
            assert await store.matches() == matches

    @in_loop
    async def test_positions_grow_although_the_last_events_were_forgotten(self, place: Place) -> None:
        async with owner(place) as store:
            [key] = await m.begin(store, "order-1")
            await m.write(store, waits=[m.wait(key)])
            [first] = (await m.write(store, events=[m.event("event-1")])).matches
            await m.write(store, unwaits=[(key, first.operation)])
            await store.forget_events(m.BEGIN + m.SECOND, 100)
            await m.write(store, waits=[m.wait(key, after=first.position)])
            [second] = (await m.write(store, events=[m.event("event-2")])).matches

        assert second.position > first.position
