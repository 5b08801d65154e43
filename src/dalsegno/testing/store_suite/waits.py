"""Waits: an instance waits, an event comes; which one meets which."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dalsegno.kernel.ports import Store
from dalsegno.testing.store_suite import material as m
from dalsegno.testing.store_suite.place import Place, in_loop, owner, take_over

MEETINGS: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = [
    ("no filter", {}, {}, True),
    ("the key", {"key": "1", "match": {"order_id": "1"}}, {"key": "1", "order_id": "1"}, True),
    ("another key", {"key": "1", "match": {"order_id": "1"}}, {"key": "2", "order_id": "2"}, False),
    ("any key", {}, {"key": "2", "order_id": "2"}, True),
    ("a key where the event has none", {"key": "1"}, {}, False),
    ("a field", {"match": {"city": "Ulm"}}, {"city": "Ulm", "zip": "89073"}, True),
    ("another value of a field", {"match": {"city": "Ulm"}}, {"city": "Bonn"}, False),
    ("a field that is missing", {"match": {"city": None}}, {"zip": "89073"}, False),
    ("a field that is null", {"match": {"city": None}}, {"city": None}, True),
    ("all fields", {"match": {"city": "Ulm", "zip": "1"}}, {"city": "Ulm", "zip": "2"}, False),
    ("a nested value", {"match": {"box": {"a": 1, "b": 2}}}, {"box": {"b": 2, "a": 1}}, True),
    ("another type", {}, {"event_type": "Returned"}, False),
    ("another namespace", {}, {"namespace": "support"}, False),
    ("addressed to it", {}, {"to": "order-1"}, True),
    ("addressed to another", {}, {"to": "order-2"}, False),
]


async def waiting(store: Store, **fields: Any) -> int:
    """An instance that waits."""
    [key] = await m.begin(store, "order-1")
    await m.write(store, waits=[m.wait(key, instance_id="order-1", **fields)])
    return key


class WaitTests:
    """Waits and events, in both orders."""

    @pytest.mark.parametrize(
        ("wait", "event", "meets"), [case[1:] for case in MEETINGS], ids=[case[0] for case in MEETINGS]
    )
    @pytest.mark.parametrize("early", [False, True], ids=["wait first", "event first"])
    def test_a_wait_meets_an_event_by_type_key_fields_and_address(
        self, place: Place, wait: dict[str, Any], event: dict[str, Any], meets: bool, early: bool
    ) -> None:
        @in_loop
        async def check() -> None:
            async with owner(place) as store:
                [key] = await m.begin(store, "order-1")
                waits, events = [m.wait(key, instance_id="order-1", **wait)], [m.event("event-1", **event)]
                first = await m.write(store, **({"events": events} if early else {"waits": waits}))
                second = await m.write(store, **({"waits": waits} if early else {"events": events}))

                assert first.matches == []
                assert [match.instance for match in second.matches] == ([key] if meets else [])
                assert second.matches == await store.matches()

        check()

    @in_loop
    async def test_a_match_says_which_wait_which_event_and_its_payload(self, place: Place) -> None:
        async with owner(place) as store:
            key = await waiting(store, operation="event:Delivered#2")
            [match] = (await m.write(store, events=[m.event("event-1", order_id="1")])).matches

        assert (match.instance, match.operation, match.event_id) == (key, "event:Delivered#2", "event-1")
        assert match.position > 0
        assert json.loads(match.payload) == {"order_id": "1"}

    @in_loop
    async def test_a_wait_takes_the_first_event_that_meets_it(self, place: Place) -> None:
        async with owner(place) as store:
            [key] = await m.begin(store, "order-1")
            await m.write(store, events=[m.event(f"event-{n}", n=n) for n in range(4)])
            [match] = (await m.write(store, waits=[m.wait(key)])).matches

            assert match.event_id == "event-0"

    @in_loop
    async def test_a_wait_that_has_its_event_takes_no_other(self, place: Place) -> None:
        async with owner(place) as store:
            await waiting(store)
            await m.write(store, events=[m.event("event-1")])
            later = await m.write(store, events=[m.event("event-2")])

            assert later.matches == []
            assert [match.event_id for match in await store.matches()] == ["event-1"]

    @in_loop
    async def test_one_event_meets_every_wait_that_is_open_for_it(self, place: Place) -> None:
        async with owner(place) as store:
            keys = await m.begin(store, "order-1", "order-2", "order-3")
            waits = [m.wait(key) for key in keys] + [m.wait(keys[0], "event:Delivered#2")]
            await m.write(store, waits=waits)
            found = (await m.write(store, events=[m.event("event-1")])).matches

        assert sorted((match.instance, match.operation) for match in found) == sorted(
            (wait.instance, wait.operation) for wait in waits
        )
        assert len({match.position for match in found}) == 1

    @in_loop
    async def test_a_wait_looks_only_after_the_position_it_names(self, place: Place) -> None:
        async with owner(place) as store:
            key = await waiting(store)
            [first] = (await m.write(store, events=[m.event("event-1"), m.event("event-2")])).matches
            again = m.wait(key, "event:Delivered#2", after=first.position)
            [second] = (await m.write(store, unwaits=[(key, first.operation)], waits=[again])).matches
            third = m.wait(key, "event:Delivered#3", after=second.position)
            last = await m.write(store, unwaits=[(key, second.operation)], waits=[third])

        assert (first.event_id, second.event_id) == ("event-1", "event-2")
        assert last.matches == []

    @in_loop
    async def test_a_wait_and_its_event_in_one_batch_meet(self, place: Place) -> None:
        async with owner(place) as store:
            [key] = await m.begin(store, "order-1")
            found = await m.write(store, events=[m.event("event-1")], waits=[m.wait(key)])

            assert [match.event_id for match in found.matches] == ["event-1"]

    @in_loop
    async def test_a_closed_wait_meets_nothing_and_its_match_is_forgotten(self, place: Place) -> None:
        async with owner(place) as store:
            key = await waiting(store)
            await m.write(store, events=[m.event("event-1")])
            await m.write(store, unwaits=[(key, "event:Delivered"), (key, "event:Unknown")])
            later = await m.write(store, events=[m.event("event-2")])

            assert later.matches == []
            assert await store.matches() == []

    @in_loop
    async def test_a_wait_that_is_opened_again_looks_again(self, place: Place) -> None:
        async with owner(place) as store:
            key = await waiting(store, match={"city": "Ulm"})
            await m.write(store, events=[m.event("event-1", city="Ulm"), m.event("event-2", city="Bonn")])
            found = await m.write(store, waits=[m.wait(key, match={"city": "Bonn"})])
            await m.write(store, waits=[m.wait(key, match={"city": "Rom"})])
            later = await m.write(store, events=[m.event("event-3", city="Rom")])

        assert [match.event_id for match in found.matches] == ["event-2"]
        assert [match.event_id for match in later.matches] == ["event-3"]

    @in_loop
    async def test_matches_are_there_until_their_wait_is_closed_and_for_the_next_owner_too(self, place: Place) -> None:
        store = place.store()
        await store.open(owner=True, name="north", lease_seconds=600)
        key = await waiting(store)
        matches = (await m.write(store, events=[m.event("event-1", order_id="1")])).matches
        await place.kill(store)

        async with owner(place, "south") as successor:
            await take_over(successor)
            assert await successor.matches() == matches
            await m.write(successor, unwaits=[(key, "event:Delivered")])
            assert await successor.matches() == []
