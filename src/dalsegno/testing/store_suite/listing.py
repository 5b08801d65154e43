"""Finding instances: counts, filters, pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dalsegno.kernel.ports import Filter, Standing, Store
from dalsegno.testing.store_suite import material as m
from dalsegno.testing.store_suite.place import Place, in_loop, owner

FILTERS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["ticket-1", "order-3", "refund-1", "order-2", "order-1"]),
    ({"namespace": "default"}, ["order-3", "refund-1", "order-2", "order-1"]),
    ({"namespace": "nowhere"}, []),
    ({"statuses": ("waiting",)}, ["order-2"]),
    ({"statuses": ("waiting", "failed")}, ["refund-1", "order-2"]),
    ({"process": "refund"}, ["refund-1"]),
    ({"id_prefix": "order-"}, ["order-3", "order-2", "order-1"]),
    ({"id_prefix": "order_"}, []),
    ({"id_prefix": "%"}, []),
    ({"started_before": m.BEGIN + 2}, ["order-2", "order-1"]),
    ({"started_after": m.BEGIN + 2}, ["ticket-1", "order-3", "refund-1"]),
    ({"parent": "order-1"}, ["refund-1"]),
    ({"where": (("stage", "packing"),)}, ["order-2", "order-1"]),
    ({"where": (("stage", "packing"), ("box", 1))}, ["order-1"]),
    ({"where": (("box", "1"),)}, ["order-2"]),
    ({"where": (("box", True),)}, []),
    ({"where": (("to", {"city": "Ulm", "zip": "89073"}),)}, ["order-1"]),
    ({"where": (("to", {"zip": "89073", "city": "Ulm"}),)}, ["order-1"]),
    ({"where": (("note", "für"),)}, ["order-2"]),
    ({"where": (("a.b", [1, 2]),)}, ["order-3"]),
    ({"where": (("missing", None),)}, []),
    ({"namespace": "default", "process": "order", "statuses": ("running",), "id_prefix": "order-3"}, ["order-3"]),
]


@asynccontextmanager
async def populated(place: Place) -> AsyncIterator[Store]:
    """Five instances of two namespaces, in different states."""
    async with owner(place) as store:
        starts = [
            m.start("order-1", at=m.BEGIN),
            m.start("order-2", at=m.BEGIN + 1),
            m.start("refund-1", process="refund", at=m.BEGIN + 2, parent="order-1", parent_operation="child:refund"),
            m.start("order-3", at=m.BEGIN + 3),
            m.start("ticket-1", namespace="support", process="ticket", at=m.BEGIN + 4),
        ]
        one, two, refund, three, _ = (await m.write(store, starts=starts)).start_keys
        assert one is not None
        assert two is not None
        assert refund is not None
        assert three is not None
        await m.write(
            store,
            changes=[m.change(two, "waiting"), m.change(refund, "failed")],
            annotations=[
                (one, b'{"stage":"packing","box":1,"to":{"city":"Ulm","zip":"89073"}}'),
                (two, '{"stage":"packing","box":"1","note":"für"}'.encode()),
                (three, b'{"a.b":[1,2],"a":{"b":[1,2]}}'),
            ],
        )
        yield store


class ListingTests:
    """Counts and lists."""

    @pytest.mark.parametrize(("wanted", "ids"), FILTERS, ids=[str(wanted) for wanted, _ in FILTERS])
    def test_a_list_shows_what_its_filter_says_newest_first(
        self, place: Place, wanted: dict[str, Any], ids: list[str]
    ) -> None:
        @in_loop
        async def check() -> None:
            async with populated(place) as store:
                rows = await store.listing(Filter(**wanted), None, 100)
                assert [row.id for row in rows] == ids

        check()

    @in_loop
    async def test_a_list_comes_in_pages(self, place: Place) -> None:
        async with populated(place) as store:
            pages, after = [], None
            while rows := await store.listing(Filter(namespace="default"), after, 3):
                pages.append([row.id for row in rows])
                after = rows[-1].key

        assert pages == [["order-3", "refund-1", "order-2"], ["order-1"]]

    @in_loop
    async def test_a_listed_row_is_the_row_that_is_found(self, place: Place) -> None:
        async with populated(place) as store:
            for row in await store.listing(Filter(), None, 100):
                assert await store.find(row.namespace, row.id) == row

    @in_loop
    async def test_counts_are_by_status_in_one_namespace_or_in_all(self, place: Place) -> None:
        async with populated(place) as store:
            assert await store.counts("default") == {"running": 2, "waiting": 1, "failed": 1}
            assert await store.counts("support") == {"running": 1}
            assert await store.counts("nowhere") == {}
            assert await store.counts(None) == {"running": 3, "waiting": 1, "failed": 1}

    @in_loop
    async def test_instances_that_have_not_ended_are_counted_by_where_they_stand(self, place: Place) -> None:
        async with populated(place) as store:
            rows = await store.listing(Filter(id_prefix="order-"), None, 100)
            three, two, one = (row.key for row in rows)
            code = "the code that its journal was written with"
            parked = m.change(one, "parked", waiting_for=code)
            waiting = [m.change(key, "waiting", wake_at=m.BEGIN + key, waiting_for="timer") for key in (two, three)]
            await m.write(store, changes=[parked, *waiting])

            found = await store.standing(m.BEGIN + two + 1)

        common: dict[str, Any] = {"namespace": "default", "process": "order", "version": 1}
        ticket: dict[str, Any] = {"namespace": "support", "process": "ticket", "version": 1, "oldest_at": m.BEGIN + 4}
        assert found == [
            Standing(**common, status="parked", why=code, instances=1, oldest_at=m.BEGIN),
            Standing(
                **common,
                status="waiting",
                why=None,
                instances=2,
                oldest_at=m.BEGIN + 1,
                overdue=1,
                overdue_since=m.BEGIN + two,
            ),
            Standing(**ticket, status="running", why=None, instances=1),
        ]
