"""What a node asks when it starts: what was running, what is due, what crashes whoever runs it."""

from __future__ import annotations

from dalsegno.kernel.ports import Store
from dalsegno.testing.store_suite import material as m
from dalsegno.testing.store_suite.place import LONG_SECONDS, Place, client, in_loop, owner, take_over

MISMATCH = "the code that its journal was written with"


async def opened(place: Place, name: str) -> Store:
    """A store that owns the place and isn't closed."""
    store = place.store()
    await store.open(owner=True, name=name, lease_seconds=LONG_SECONDS)
    return store


class RecoveryTests:
    """Reads of a starting node."""

    @in_loop
    async def test_running_instances_come_in_pages_of_growing_keys(self, place: Place) -> None:
        async with owner(place) as store:
            keys = await m.begin(store, *(f"order-{n}" for n in range(6)))
            await m.write(store, changes=[m.change(keys[1], "waiting"), m.change(keys[4], "completed")])
            expected = [keys[0], keys[2], keys[3], keys[5]]
            if store.shared:
                # It tells of those it takes over: these are its own already.
                assert await store.running(0, 3) == []
                await store.release(keys)

            assert await store.running(0, 3) == expected[:3]
            assert await store.running(expected[2], 3) == expected[3:]
            assert await store.running(expected[3], 3) == []

    @in_loop
    async def test_what_is_due_comes_in_order_and_in_pages(self, place: Place) -> None:
        async with owner(place) as store:
            keys = await m.begin(store, *(f"order-{n}" for n in range(6)))
            wake = [50, 20, 20, None, 40, 20]
            changes = [
                m.change(key, "waiting", wake_at=None if at is None else m.BEGIN + at)
                for key, at in zip(keys, wake, strict=True)
            ]
            await m.write(store, changes=changes)
            due = [(m.BEGIN + at, keys[n]) for at, n in [(20, 1), (20, 2), (20, 5), (40, 4)]]

            assert await store.due(m.BEGIN + 40, (0, -1), 100) == due
            assert await store.due(m.BEGIN + 40, (0, -1), 2) == due[:2]
            assert await store.due(m.BEGIN + 40, due[1], 2) == due[2:]
            assert await store.due(m.BEGIN + 40, due[3], 2) == []

    @in_loop
    async def test_what_has_ended_or_runs_again_is_not_due(self, place: Place) -> None:
        async with owner(place) as store:
            one, two = await m.begin(store, "order-1", "order-2")
            await m.write(store, changes=[m.change(key, "waiting", wake_at=m.BEGIN) for key in (one, two)])
            await m.write(store, changes=[m.change(one, "running"), m.change(two, "completed", ended_at=m.BEGIN)])

            assert await store.due(m.BEGIN + 40, (0, -1), 100) == []

    @in_loop
    async def test_parked_for_want_of_the_right_code_is_told_from_parked_otherwise(self, place: Place) -> None:
        async with owner(place) as store:
            one, two, three = await m.begin(store, "order-1", "order-2", "order-3")
            await m.write(
                store,
                changes=[
                    m.change(one, "parked", waiting_for=MISMATCH),
                    m.change(two, "parked", waiting_for="an operator"),
                    m.change(three, "waiting", waiting_for=MISMATCH),
                ],
            )

            assert await store.mismatched() == [one]

    @in_loop
    async def test_a_clean_close_is_not_counted_as_a_crash(self, place: Place) -> None:
        async with owner(place, "first") as store:
            [key] = await m.begin(store, "order-1")
        for _ in range(3):
            async with owner(place, "next") as store:
                assert await store.mark_recovered(1) == []
                assert (await store.load([key]))[0].row.crashes == 0

    @in_loop
    async def test_crashes_without_progress_are_counted_up_to_the_bound(self, place: Place) -> None:
        store = await opened(place, "first")
        stuck, waits = await m.begin(store, "order-1", "order-2")
        await m.write(store, changes=[m.change(waits, "waiting")])
        found = []
        for number in range(3):
            await place.kill(store)
            store = await opened(place, f"next-{number}")
            found.append(await take_over(store, 3))
        loaded = await store.load([stuck, waits])
        await store.close()

        assert found == [[], [], [stuck]]
        assert [item.row.crashes for item in loaded] == [3, 0]

    @in_loop
    async def test_progress_begins_the_count_anew(self, place: Place) -> None:
        store = await opened(place, "first")
        [key] = await m.begin(store, "order-1")
        for number in range(1, 5):
            await m.write(store, rows=[(key, number, m.BEGIN, "step_completed", b"progress")])
            await place.kill(store)
            store = await opened(place, f"next-{number}")

            assert await take_over(store, 2) == []
        assert (await store.load([key]))[0].row.crashes == 1
        await store.close()

    @in_loop
    async def test_suspects_are_told_by_their_crashes_the_fewest_first(self, place: Place) -> None:
        store = await opened(place, "first")
        old, young, waits = await m.begin(store, "order-1", "order-2", "order-3")
        await m.write(store, changes=[m.change(waits, "waiting")])
        for number in range(3):
            if number == 2:
                await m.write(store, rows=[(young, 1, m.BEGIN, "step_completed", b"progress")])
            store = await self._crash(place, store)
            await take_over(store)

        assert await store.suspects(1) == [(young, 1), (old, 3)]
        assert await store.suspects(2) == [(old, 3)]
        assert await store.suspects(4) == []
        await store.close()

    @staticmethod
    async def _crash(place: Place, store: Store) -> Store:
        await place.kill(store)
        return await opened(place, "next")

    @in_loop
    async def test_a_crash_is_held_against_those_on_trial_only(self, place: Place) -> None:
        store = await opened(place, "first")
        guilty, innocent = await m.begin(store, "order-1", "order-2")
        found = []
        for trial in ([], [], [guilty], [guilty]):
            await store.put_on_trial(trial)
            store = await self._crash(place, store)
            found.append(await take_over(store, 4, 2))
        crashes = [item.row.crashes for item in await store.load([guilty, innocent])]
        await store.close()

        assert found == [[], [], [], [guilty]]
        assert crashes == [4, 2]

    @in_loop
    async def test_only_who_was_on_trial_alone_is_over_the_bound(self, place: Place) -> None:
        store = await opened(place, "first")
        keys = await m.begin(store, "order-1", "order-2")
        found = []
        for trial in ([], keys, keys, [], keys[:1]):
            await store.put_on_trial(trial)
            store = await self._crash(place, store)
            found.append(await take_over(store, 3, 1))
        await store.close()

        assert found == [[], [], [], [], [keys[0]]]

    @in_loop
    async def test_what_has_not_begun_is_not_counted(self, place: Place) -> None:
        store = await opened(place, "first")
        async with client(place) as beside:
            await beside.write(m.batch(starts=[m.start("order-1")]))
        await place.kill(store)
        async with owner(place, "second") as successor:
            assert await successor.mark_recovered(1) == []
