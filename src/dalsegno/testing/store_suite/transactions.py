"""Transaction steps: the effect and its entry in one commit, each for itself."""

from __future__ import annotations

from typing import Any

import pytest

from dalsegno.errors import DalsegnoError
from dalsegno.kernel.ports import Store
from dalsegno.testing.store_suite import material as m
from dalsegno.testing.store_suite.place import Place, in_loop, owner


async def bookings(store: Store, instance: int, seq: int) -> list[int]:
    """What is in the guests' table, read by a transaction of its own."""
    found: list[int] = []

    def read(connection: Any) -> None:
        found.extend(row[0] for row in connection.execute("SELECT amount FROM bookings ORDER BY amount").fetchall())

    await m.write(store, transactions=[m.transaction(instance, seq, read)])
    return found


async def prepared(store: Store) -> int:
    """An instance, and a table for its transactions."""
    [key] = await m.begin(store, "order-1")
    create = m.transaction(key, 1, lambda connection: connection.execute("CREATE TABLE bookings (amount INTEGER)"))
    found = await m.write(store, transactions=[create])
    assert found.transactions == [(b'{"kind":"step_completed"}', None)]
    return key


def book(amount: int, error: Exception | None = None) -> Any:
    """Work that books an amount, and may fail after that."""

    def work(connection: Any) -> None:
        connection.execute(f"INSERT INTO bookings VALUES ({amount})")
        if error is not None:
            raise error

    return work


class TransactionTests:
    """Effects on the store's own database."""

    @in_loop
    async def test_a_transaction_takes_effect_and_is_journaled(self, place: Place) -> None:
        async with owner(place) as store:
            key = await prepared(store)
            found = await m.write(store, transactions=[m.transaction(key, 2, book(10))])

            assert found.transactions == [(b'{"kind":"step_completed"}', None)]
            assert [seq for seq, _, _ in await store.history(key, -1, 10)] == [0, 1, 2]
            assert await bookings(store, key, 3) == [10]

    @in_loop
    async def test_what_a_transaction_raises_undoes_its_own_work_only(self, place: Place) -> None:
        failure = ValueError("no funds")
        async with owner(place) as store:
            key = await prepared(store)
            [other, third] = await m.begin(store, "order-2", "order-3")
            work = [
                m.transaction(key, 2, book(10)),
                m.transaction(other, 1, book(20, failure)),
                m.transaction(third, 1, book(30)),
            ]
            found = await m.write(store, transactions=work, changes=[m.change(other, "waiting")])

            assert [error for _, error in found.transactions] == [None, failure, None]
            assert [entry is None for entry, _ in found.transactions] == [False, True, False]
            assert len(await store.history(other, -1, 10)) == 1
            assert (await store.load([other]))[0].row.status == "waiting"
            assert await bookings(store, key, 3) == [10, 30]

    @in_loop
    async def test_a_transaction_is_undone_with_the_batch_it_is_in(self, place: Place) -> None:
        async with owner(place) as store:
            key = await prepared(store)
            taken = (key, 0, m.BEGIN, "step_completed", b"this number is taken")
            with pytest.raises(DalsegnoError):
                await m.write(store, transactions=[m.transaction(key, 2, book(10))], rows=[taken])

            assert await bookings(store, key, 2) == []

    @in_loop
    async def test_a_transaction_cant_end_the_commit_it_is_in(self, place: Place) -> None:
        async with owner(place) as store:
            key = await prepared(store)

            def commits(connection: Any) -> None:
                connection.execute("INSERT INTO bookings VALUES (10)")
                connection.execute("COMMIT")

            found = await m.write(store, transactions=[m.transaction(key, 2, commits)])

            assert found.transactions[0][1] is not None
            assert await bookings(store, key, 2) == []

    @in_loop
    async def test_what_a_transaction_did_survives_the_owner(self, place: Place) -> None:
        store = place.store()
        await store.open(owner=True, name="north", lease_seconds=600)
        key = await prepared(store)
        await m.write(store, transactions=[m.transaction(key, 2, book(10))])
        await place.kill(store)

        async with owner(place, "south") as successor:
            assert await bookings(successor, key, 3) == [10]
