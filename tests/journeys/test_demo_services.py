"""The four services of the demo: what they promise, and how they fail."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from decimal import Decimal
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from examples.order_to_cash.clients import (
    Busy,
    CardDeclined,
    OutOfStock,
    Refused,
    Services,
    Unavailable,
    connected,
)
from examples.order_to_cash.model import Line, Order, Return
from examples.order_to_cash.supervisor import ROOT, World
from examples.order_to_cash.world.faults import Faults
from examples.order_to_cash.world.ledger import Ledger
from hypothesis import given, settings
from hypothesis import strategies as st

BOUND = 20.0


def order(order_id: str = "1", quantity: int = 2) -> Order:
    lines = (Line("85123A", quantity, Decimal("2.55")), Line("POST", 1, Decimal("18.00")))
    return Order(order_id, "17850", False, "France", datetime(2010, 12, 1), lines)


def eventually(found: Callable[[], bool]) -> None:
    """Look until it is so, within a bound."""
    deadline = time.monotonic() + BOUND
    while not found():
        assert time.monotonic() < deadline, "it did not come to be"
        threading.Event().wait(0.02)


def rows(world: World, name: str, query: str) -> list[Any]:
    with closing(sqlite3.connect(world.database(name))) as connection:
        return connection.execute(query).fetchall()


def use(world: World, work: Callable[[Services], Any], patience: float = 5.0) -> Any:
    """Run a coroutine function with clients of a world."""

    async def run() -> Any:
        async with connected(world.endpoints, patience) as services:
            return await work(services)

    return asyncio.run(run())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Services without faults; each test takes an order of its own."""
    with World(tmp_path_factory.mktemp("world"), {}) as running:
        yield running


# -- idempotency ---------------------------------------------------------------------------------------


def test_a_replayed_key_gets_the_first_answer_and_charges_once(world: World) -> None:
    async def work(services: Services) -> None:
        first = await services.payments.charge_card(order("k1"), key="k1/charge")
        again = await asyncio.gather(*(services.payments.charge_card(order("k1"), key="k1/charge") for _ in range(9)))
        assert set(again) == {first}

    use(world, work)
    assert rows(world, "payments", "SELECT count(*) FROM charges WHERE order_id = 'k1'") == [(1,)]


def test_a_key_that_was_used_for_something_else_is_refused(world: World) -> None:
    async def work(services: Services) -> None:
        await services.payments.charge_card(order("k2"), key="k2/charge")
        with pytest.raises(Refused, match="was used for another request"):
            await services.payments.charge_card(order("k2", quantity=3), key="k2/charge")

    use(world, work)


def test_the_gateway_counts_orders_that_were_charged_twice(world: World) -> None:
    async def work(services: Services) -> None:
        await services.payments.charge_card(order("k3"), key="k3/charge")
        await services.payments.charge_card(order("k3"), key="k3/another")

    before = world.stats()["payments"]["double_charges"]
    use(world, work)
    assert world.stats()["payments"]["double_charges"] == before + 1


@pytest.mark.parametrize(
    ("headers", "body", "message"),
    [({}, b"{}", "Idempotency-Key is missing"), ({"Idempotency-Key": "x"}, b"{}", "order_id")],
)
def test_a_malformed_command_is_refused(world: World, headers: dict[str, str], body: bytes, message: str) -> None:
    answer = httpx2.post(f"{world.endpoints.payments}/charge-card", content=body, headers=headers, trust_env=False)

    assert answer.status_code == 400
    assert message in answer.json()["message"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([b"1", b"2"]))))
def test_a_ledger_acts_once_for_a_key_whatever_comes_in_which_order(asked: list[tuple[str, bytes]]) -> None:
    ledger = Ledger(Path(":memory:"), "")
    acted: Counter[str] = Counter()
    first: dict[str, bytes] = {}

    def act(key: str) -> int:
        acted[key] += 1
        return acted[key]

    for key, request in asked:
        answer = ledger.once(key, request, partial(act, key))
        expected = 201 if first.setdefault(key, request) == request else 422
        assert answer.status == expected

    assert acted == Counter(first.keys())
    ledger.close()


# -- what each service promises ------------------------------------------------------------------------


def test_stock_is_held_and_comes_back_when_the_order_is_cancelled(world: World) -> None:
    on_hand = "SELECT on_hand FROM items WHERE stock_code = '85123A'"

    async def hold(services: Services) -> None:
        await services.erp.hold_stock(order("e1"), key="e1/hold")

    async def cancel(services: Services) -> None:
        await services.erp.cancel_order("e1", key="e1/cancel")

    use(world, hold)
    ((held,),) = rows(world, "erp", on_hand)
    assert rows(world, "erp", "SELECT status FROM holds WHERE order_id = 'e1'") == [("held",)]
    use(world, cancel)
    assert rows(world, "erp", on_hand) == [(held + 2,)]
    assert rows(world, "erp", "SELECT status FROM holds WHERE order_id = 'e1'") == [("released",)]


def test_an_invoice_issues_the_stock_and_a_cancelled_order_credits_it(world: World) -> None:
    async def work(services: Services) -> None:
        with pytest.raises(Refused, match="no stock is held"):
            await services.erp.issue_invoice(order("e2"), key="e2/early")
        await services.erp.hold_stock(order("e2"), key="e2/hold")
        await services.erp.issue_invoice(order("e2"), key="e2/invoice")
        await services.erp.cancel_order("e2", key="e2/cancel")
        await services.erp.cancel_order("e2", key="e2/again")

    use(world, work)
    assert rows(world, "erp", "SELECT status FROM holds WHERE order_id = 'e2'") == [("released",)]
    assert rows(world, "erp", "SELECT amount FROM credit_notes WHERE order_id = 'e2'") == [(order().total,)]


def test_an_item_can_run_out(world: World) -> None:
    async def work(services: Services) -> None:
        scarce = msgspec.structs.replace(order("e3"), lines=(Line("RARE", 2_000_000_000, Decimal(1)),))
        with pytest.raises(OutOfStock, match="not enough of RARE"):
            await services.erp.hold_stock(scarce, key="e3/hold")

    use(world, work)
    assert rows(world, "erp", "SELECT count(*) FROM holds WHERE order_id = 'e3'") == [(0,)]


def test_goods_that_come_back_are_credited_and_refunded_up_to_what_was_paid(world: World) -> None:
    bought = order("e4")
    returned = Return("C9", bought.id, bought.lines[:1], 510, whole=False)

    async def work(services: Services) -> None:
        await services.payments.charge_card(bought, key="e4/charge")
        await services.erp.issue_credit_note(returned, key="e4/credit")
        await services.payments.refund(returned, key="e4/refund")
        too_much = msgspec.structs.replace(returned, amount=bought.total)
        with pytest.raises(Refused, match="was not charged that much"):
            await services.payments.refund(too_much, key="e4/too-much")

    use(world, work)
    assert rows(world, "payments", "SELECT reference, amount FROM refunds WHERE order_id = 'e4'") == [("C9", 510)]


@pytest.mark.parametrize("service", ["crm", "erp", "payments", "shipping"])
def test_what_arrives_after_an_order_was_undone_changes_nothing(world: World, service: str) -> None:
    """A request whose sender gave up may still be under way when the undo is done."""
    late = order(f"late-{service}")

    async def work(services: Services) -> None:
        crm, erp, payments, shipping = services.crm, services.erp, services.payments, services.shipping
        undo: dict[str, Callable[[], Awaitable[object]]] = {
            "crm": lambda: crm.close_deal(late.id, won=False, key="late-crm/undo"),
            "erp": lambda: erp.cancel_order(late.id, key="late-erp/undo"),
            "payments": lambda: payments.void_order(late.id, key="late-payments/undo"),
            "shipping": lambda: shipping.recall_order(late.id, key="late-shipping/undo"),
        }
        do: dict[str, Callable[[], Awaitable[object]]] = {
            "crm": lambda: crm.close_deal(late.id, won=True, key="late-crm/do"),
            "erp": lambda: erp.hold_stock(late, key="late-erp/do"),
            "payments": lambda: payments.charge_card(late, key="late-payments/do"),
            "shipping": lambda: shipping.ship_order(late, key="late-shipping/do"),
        }
        await undo[service]()
        with pytest.raises(Refused):
            await do[service]()

    use(world, work)


def test_voiding_an_order_gives_everything_back_once(world: World) -> None:
    async def work(services: Services) -> None:
        await services.payments.charge_card(order("p1"), key="p1/charge")
        assert (await services.payments.void_order("p1", key="p1/void")).amount == order().total
        assert (await services.payments.void_order("p1", key="p1/again")).amount == 0

    use(world, work)


# -- faults --------------------------------------------------------------------------------------------


@contextmanager
def faulty(directory: Path, name: str, callbacks_to: str = "", **settings_of_faults: Any) -> Iterator[World]:
    with World(directory, {name: Faults(**settings_of_faults)}, callbacks_to) as running:
        yield running


def test_a_lost_reply_leaves_the_effect_and_a_retry_does_not_repeat_it(tmp_path: Path) -> None:
    async def work(services: Services) -> None:
        for _ in range(2):
            with pytest.raises(Unavailable, match="ReadTimeout"):
                await services.payments.charge_card(order(), key="charge")

    with faulty(tmp_path, "payments", lost_replies=1.0, withhold_seconds=1.0) as world:
        use(world, work, patience=0.3)
        assert rows(world, "payments", "SELECT order_id FROM charges") == [("1",)]
        eventually(lambda: world.stats()["payments"].get("lost_replies") == 2)


def test_an_error_leaves_no_effect(tmp_path: Path) -> None:
    async def work(services: Services) -> None:
        with pytest.raises(Unavailable, match="answered 50"):
            await services.payments.charge_card(order(), key="charge")

    with faulty(tmp_path, "payments", errors=1.0) as world:
        use(world, work)
        assert rows(world, "payments", "SELECT order_id FROM charges") == []


def test_too_many_requests_are_sent_away_until_later(tmp_path: Path) -> None:
    def send(world: World, number: int) -> httpx2.Response:
        return httpx2.post(
            f"{world.endpoints.payments}/void-order",
            content=b'{"order_id": "1"}',
            headers={"Idempotency-Key": str(number)},
            trust_env=False,
        )

    with faulty(tmp_path, "payments", requests_per_second=2.0) as world:
        answers = [send(world, number) for number in range(8)]
        throttled = [answer for answer in answers if answer.status_code == 429]
        assert len(throttled) >= 4
        assert throttled[0].headers["Retry-After"] == "1"
        assert world.stats()["payments"]["throttled"] == len(throttled)


def test_the_client_leaves_a_throttling_service_alone_for_as_long_as_it_asks(tmp_path: Path) -> None:
    async def hurry(services: Services) -> None:
        while True:
            await services.payments.void_order("1", key="void")

    async def work(services: Services) -> float:
        with pytest.raises(Busy):
            await hurry(services)
        began = time.monotonic()
        await services.payments.void_order("1", key="void")
        return time.monotonic() - began

    with faulty(tmp_path, "payments", requests_per_second=2.0) as world:
        assert use(world, work) >= 0.9


def test_an_outage_lasts_as_long_as_it_was_told_to(tmp_path: Path) -> None:
    async def ship(services: Services) -> bool:
        try:
            await services.shipping.ship_order(order(), key="ship")
        except Unavailable:
            return False
        return True

    with World(tmp_path, {}) as world:
        began = time.monotonic()
        world.outage("shipping", 1.0)
        assert not use(world, ship)
        assert rows(world, "shipping", "SELECT * FROM shipments") == []
        eventually(lambda: use(world, ship))
        assert time.monotonic() - began >= 1.0


def test_a_declined_card_is_no_fault_and_is_not_asked_again(tmp_path: Path) -> None:
    async def work(services: Services) -> None:
        for _ in range(2):
            with pytest.raises(CardDeclined, match="the bank declined card"):
                await services.payments.charge_card(order(), key="charge")

    with faulty(tmp_path, "payments", declined=1.0) as world:
        use(world, work)
        assert rows(world, "payments", "SELECT order_id FROM declined_charges") == [("1",)]


def outcomes(directory: Path, seed: int) -> list[str]:
    async def work(services: Services) -> list[str]:
        async def one(number: int) -> str:
            try:
                await services.crm.close_deal(str(number), won=False, key=f"{number}/close")
            except Unavailable as error:
                return str(error)
            return "done"

        return list(await asyncio.gather(*(one(number) for number in range(40))))

    directory.mkdir()
    with faulty(directory, "crm", seed=seed, errors=0.5) as world:
        found: list[str] = use(world, work)
        return found


def test_the_same_seed_gives_each_request_the_same_fate(tmp_path: Path) -> None:
    first = outcomes(tmp_path / "a", seed=7)

    assert first == outcomes(tmp_path / "b", seed=7)
    assert first != outcomes(tmp_path / "c", seed=8)
    assert 5 < first.count("done") < 35


# -- call-backs ----------------------------------------------------------------------------------------


class Receiver(BaseHTTPRequestHandler):
    """Keeps what arrives; the first call is answered with an error."""

    calls: list[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.calls.append(msgspec.json.decode(body)["order_id"])
        self.send_response(500 if len(self.calls) == 1 else 204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[str]]]:
    calls: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Kept", (Receiver,), {"calls": calls}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/deliveries", calls
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_delivery_is_called_back_until_confirmed_and_some_more_than_once(
    tmp_path: Path, receiver: tuple[str, list[str]]
) -> None:
    url, calls = receiver
    orders = [str(number) for number in range(30)]

    async def work(services: Services) -> None:
        await asyncio.gather(*(services.shipping.ship_order(order(each), key=each) for each in orders))

    with faulty(tmp_path, "shipping", callbacks_to=url, repeated_callbacks=0.5) as world:
        use(world, work)
        eventually(lambda: set(calls) == set(orders) and len(calls) > len(orders) + 5)
        eventually(lambda: rows(world, "shipping", "SELECT status FROM callbacks WHERE status = 500") == [(500,)])
        assert set(rows(world, "shipping", "SELECT status FROM shipments")) == {("delivered",)}


def test_a_recalled_parcel_is_not_delivered(tmp_path: Path, receiver: tuple[str, list[str]]) -> None:
    url, calls = receiver

    async def work(services: Services) -> None:
        await services.shipping.ship_order(order("1"), key="1")
        await services.shipping.recall_order("1", key="2")
        await services.shipping.ship_order(order("3"), key="3")

    with faulty(tmp_path, "shipping", callbacks_to=url, delivery_seconds=(0.3, 0.3)) as world:
        use(world, work)
        eventually(lambda: "3" in calls)
        assert rows(world, "shipping", "SELECT order_id, status FROM shipments ORDER BY 1") == [
            ("1", "cancelled"),
            ("3", "delivered"),
        ]
    assert "1" not in calls


# -- life and death ------------------------------------------------------------------------------------

PARENT = """
import sys
from pathlib import Path
from examples.order_to_cash.supervisor import World
with World(Path(sys.argv[1]), {}) as world:
    print(world.endpoints.crm, flush=True)
    sys.stdin.read()
"""


def test_the_services_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    url = parent.stdout.readline().strip()
    assert httpx2.get(f"{url}/health", trust_env=False).status_code == 200

    parent.kill()
    parent.wait()

    eventually(lambda: not answers(url))
    parent.stdin.close()
    parent.stdout.close()


def answers(url: str) -> bool:
    try:
        httpx2.get(f"{url}/health", timeout=1.0, trust_env=False)
    except httpx2.TransportError:
        return False
    return True


def test_a_stopped_world_keeps_its_books_and_starts_again(tmp_path: Path) -> None:
    async def charge(services: Services) -> None:
        await services.payments.charge_card(order(), key="charge")

    for _ in range(2):
        with World(tmp_path, {}) as world:
            use(world, charge)

    assert rows(world, "payments", "SELECT count(*) FROM charges") == [(1,)]
