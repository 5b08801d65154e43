"""Who may write: one owner at a time, or of a shared store many, each its own; proved at every write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from dalsegno.errors import Fenced, StoreOwned, UsageError
from dalsegno.testing.store_suite import material as m
from dalsegno.testing.store_suite.place import LONG_SECONDS, Place, client, commit, in_loop, owner, take_over


class OwnershipTests:
    """Lease, epoch, fence."""

    @in_loop
    async def test_a_second_owner_is_refused_and_told_who_has_it(self, place: Place) -> None:
        async with owner(place, "north") as first:
            if first.shared:
                return
            second = place.store()
            with pytest.raises(StoreOwned, match="north"):
                await second.open(owner=True, name="south", lease_seconds=LONG_SECONDS)

    @in_loop
    async def test_a_second_owner_of_a_shared_store_takes_nothing_from_the_first(self, place: Place) -> None:
        async with owner(place, "north") as first:
            if not first.shared:
                return
            [key] = await m.begin(first, "order-1")
            async with owner(place, "south") as second:
                await take_over(second)
                assert await second.running(0, 10) == []
                assert sorted(node.name for node in await second.nodes() if node.ended_at is None) == ["north", "south"]
                await first.load([key])

    @in_loop
    async def test_after_a_clean_close_the_next_owner_begins_a_new_epoch(self, place: Place) -> None:
        async with owner(place, "north"):
            pass
        async with owner(place, "south") as store:
            newest, oldest = await store.nodes()

        assert (newest.name, oldest.name) == ("south", "north")
        assert newest.epoch > oldest.epoch
        assert newest.ended_at is None
        assert oldest.ended_at is not None

    @in_loop
    async def test_an_owner_whose_process_died_is_followed_at_once(self, place: Place) -> None:
        store = place.store()
        await store.open(owner=True, name="north", lease_seconds=LONG_SECONDS)
        await place.kill(store)

        async with owner(place, "south") as successor:
            await take_over(successor)
            assert [node.name for node in await successor.nodes() if node.ended_at is None] == ["south"]

    @in_loop
    async def test_an_owner_whose_lease_ended_is_followed_and_can_write_nothing_more(self, place: Place) -> None:
        async with owner(place, "north", lease_seconds=0) as old, owner(place, "south") as new:
            await take_over(new)
            await fenced(lambda: commit(old, m.batch(starts=[m.start("order-1")])))
            await fenced(lambda: old.renew(LONG_SECONDS))

            assert await new.find("default", "order-1") is None
            assert [node.name for node in await new.nodes() if node.ended_at is None] == ["south"]

    @in_loop
    async def test_a_fenced_owner_loads_nothing_and_does_no_housekeeping(self, place: Place) -> None:
        async with owner(place, lease_seconds=0) as old:
            [key] = await m.begin(old, "order-1")
            await m.write(old, events=[m.event("event-1")])
            async with owner(place, "second") as new:
                await take_over(new)
                await fenced(lambda: old.load([key]))
                await fenced(lambda: old.mark_recovered(1))
                await fenced(lambda: old.put_on_trial([key]))
                await fenced(lambda: old.forget_events(m.BEGIN + m.SECOND, 10))

                assert [item.row.key for item in await new.load([key])] == [key]
                assert await new.forget_events(m.BEGIN + m.SECOND, 10) == 1

    @in_loop
    async def test_a_fenced_owner_runs_no_transaction(self, place: Place) -> None:
        ran: list[str] = []

        async with owner(place, lease_seconds=0) as old:
            [key] = await m.begin(old, "order-1")
            work = m.transaction(key, 1, lambda connection: ran.append("it ran"))
            async with owner(place, "second") as new:
                await take_over(new)
                await fenced(lambda: commit(old, m.batch(transactions=[work])))

                assert ran == []
                assert len(await new.history(key, -1, 10)) == 1

    @in_loop
    async def test_a_renewed_lease_keeps_others_out(self, place: Place) -> None:
        async with owner(place, "north", lease_seconds=0.05) as store:
            await store.renew(LONG_SECONDS)
            if store.shared:
                async with owner(place, "south") as second:
                    await take_over(second)
                    node = (await second.nodes())[1]
                assert node.ended_at is None
            else:
                with pytest.raises(StoreOwned, match="north"):
                    await place.store().open(owner=True, name="south", lease_seconds=LONG_SECONDS)
                [node] = await store.nodes()

            assert node.lease_until > store.now() + 60 * m.SECOND

    @in_loop
    async def test_a_fenced_owner_closes_without_disturbing_its_successor(self, place: Place) -> None:
        async with owner(place, "north", lease_seconds=0):
            new = place.store()
            await new.open(owner=True, name="south", lease_seconds=LONG_SECONDS)
            await take_over(new)

        await m.begin(new, "order-1")
        await new.close()

    @in_loop
    async def test_who_stands_beside_the_owner_may_not_commit(self, place: Place) -> None:
        async with owner(place), client(place) as beside:
            with pytest.raises(UsageError):
                await asyncio.wait_for(commit(beside, m.batch(starts=[m.start("order-1")])), 5)
            with pytest.raises(UsageError):
                await beside.renew(LONG_SECONDS)


async def fenced(write: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """The write is refused because another owner took over."""
    with pytest.raises(Fenced):
        await write()
