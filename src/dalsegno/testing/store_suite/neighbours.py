"""Those who work beside the owner: they are heard, and hear."""

from __future__ import annotations

import asyncio

from dalsegno.testing.store_suite import material as m
from dalsegno.testing.store_suite.place import Place, client, in_loop, owner

PATIENCE_SECONDS = 10.0


class NeighbourTests:
    """The bell between a client and the owner."""

    @in_loop
    async def test_what_a_client_writes_rings_the_owner(self, place: Place) -> None:
        async with owner(place) as store, client(place) as beside:
            rung = asyncio.Event()
            store.on_ring(rung.set)
            await beside.write(m.batch(messages=[m.message()]))
            async with asyncio.timeout(PATIENCE_SECONDS):
                await rung.wait()

    @in_loop
    async def test_what_the_owner_commits_rings_a_client_that_waits(self, place: Place) -> None:
        async with owner(place) as store, client(place) as beside:
            heard = asyncio.create_task(beside.changed(60))
            async with asyncio.timeout(PATIENCE_SECONDS):
                number = 0
                # A ring promises nothing: the first commits may come before the client listens.
                while not heard.done():
                    number += 1
                    await m.begin(store, f"order-{number}")
                await heard

    @in_loop
    async def test_whoever_hears_nothing_stops_waiting_in_time(self, place: Place) -> None:
        async with owner(place), client(place) as beside:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await beside.changed(0.01)

    @in_loop
    async def test_a_client_reads_what_the_owner_wrote(self, place: Place) -> None:
        async with owner(place, "north") as store, client(place) as beside:
            [key] = await m.begin(store, "order-1")

            assert await beside.find("default", "order-1") == await store.find("default", "order-1")
            assert await beside.history(key, -1, 10) == await store.history(key, -1, 10)
            assert [node.name for node in await beside.nodes()] == ["north"]
