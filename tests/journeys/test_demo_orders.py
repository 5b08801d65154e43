"""The order book: what is an order, what a cancellation takes back, which lines are left out and why."""

from __future__ import annotations

import io
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from examples.order_to_cash import generate
from examples.order_to_cash.model import Line, Order
from examples.order_to_cash.orders import COLUMNS, OrderBook, UnreadableOrders, read_orders
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Read = Callable[..., OrderBook]

SHIPPED = Path(generate.__file__).with_name("orders.csv")
HEADER = ",".join(COLUMNS)
SALE = "536365,85123A,WHITE HOLDER,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom"


def row(
    invoice: str = "536365",
    code: str = "85123A",
    quantity: object = 6,
    at: str = "2010-12-01 08:26:00",
    price: object = "2.55",
    customer: str = "17850",
) -> str:
    return f"{invoice},{code},WHITE HOLDER,{quantity},{at},{price},{customer},United Kingdom"


@pytest.fixture
def book(tmp_path: Path) -> Read:
    def read(*rows: str, header: str = HEADER, encoding: str = "utf-8") -> OrderBook:
        path = tmp_path / "orders.csv"
        path.write_bytes("\n".join([header, *rows, ""]).encode(encoding))
        return read_orders(path)

    return read


def test_lines_of_one_invoice_become_one_order(book: Read) -> None:
    (order,) = book(SALE, row(code="71053", quantity=2, price="3.39"), row(invoice="536366")).first(1).orders

    assert order.id == "536365"
    assert order.customer == "17850"
    assert order.lines == (Line("85123A", 6, Decimal("2.55")), Line("71053", 2, Decimal("3.39")))
    assert order.total == 6 * 255 + 2 * 339


def test_a_line_without_a_customer_is_the_order_of_a_guest(book: Read) -> None:
    (order,) = book(row(customer="")).orders

    assert order.guest
    assert order.customer == "guest-536365"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row(invoice="A563185", price="-11062.06"), "an adjustment of bad debt"),
        (row(invoice=""), "InvoiceNo must be a number"),
        (row(code=""), "StockCode is missing"),
        (row(code="AMAZONFEE"), "an accounting entry"),
        (row(code="bank charges"), "an accounting entry"),
        (row(quantity="-10"), "a negative quantity outside a cancellation"),
        (row(quantity="0"), "Quantity is zero"),
        (row(quantity="six"), "Quantity is no whole number"),
        (row(quantity="1.5"), "Quantity is no whole number"),
        (row(quantity="99999999"), "Quantity is zero or out of range"),
        (row(price="0.0"), "a price of zero"),
        (row(price="-1"), "a negative price"),
        (row(price="NaN"), "UnitPrice is no number"),
        (row(price="cheap"), "UnitPrice is no number"),
        (row(at="yesterday"), "InvoiceDate is no date"),
        (row(at="2010-13-01 08:26:00"), "InvoiceDate is no date"),
        (row(invoice="C536365", quantity="6"), "a cancellation has negative quantities"),
        ("536365,85123A,WHITE HOLDER", "a line has 8 fields"),
        (row(customer="12000"), "a document has one customer"),
    ],
)
def test_a_line_that_is_no_sale_is_reported_by_number_and_the_rest_is_read(book: Read, bad: str, reason: str) -> None:
    read = book(SALE, bad, row(code="71053"))

    (left_out,) = read.bad_lines
    assert left_out.number == 3
    assert reason in left_out.reason
    assert [len(order.lines) for order in read.orders] == [2]


def test_line_numbers_count_the_lines_of_the_file_not_the_records(book: Read) -> None:
    quoted = '536365,85123A,"WHITE\nHOLDER",6,2010-12-01 08:26:00,2.55,17850,United Kingdom'

    (left_out,) = book(quoted, "", row(quantity="six")).bad_lines

    assert left_out.number == 5


def test_spreadsheet_exports_are_read_too(book: Read) -> None:
    (order,) = book(row(at="12/1/2010 8:26").replace("WHITE", "£1"), encoding="latin-1").orders

    assert order.placed_at.isoformat() == "2010-12-01T08:26:00"


def test_a_cancellation_of_everything_calls_the_whole_order_off(book: Read) -> None:
    read = book(
        SALE,
        row(code="71053", quantity=2, price="3.39"),
        row("C536379", quantity=-6, at="2010-12-01 09:41:00"),
        row("C536379", "71053", -2, "2010-12-01 09:41:00", "3.39"),
    )

    (returned,) = read.returns
    assert returned.whole
    assert returned.id == "C536379-536365"
    assert returned.amount == read.orders[0].total


def test_a_cancellation_takes_from_the_latest_earlier_order_first_and_at_the_price_paid(book: Read) -> None:
    read = book(
        row("536001", quantity=5, at="2010-12-01 08:00:00", price="2.00"),
        row("536002", quantity=3, at="2010-12-02 08:00:00", price="3.00"),
        row("C536003", quantity=-4, at="2010-12-03 08:00:00", price="9.99"),
        row("536004", quantity=9, at="2010-12-04 08:00:00", price="4.00"),
    )

    assert [(each.order_id, each.amount, each.whole) for each in read.returns] == [
        ("536002", 900, True),
        ("536001", 200, False),
    ]


def test_what_was_taken_back_once_cannot_be_taken_back_again(book: Read) -> None:
    read = book(
        SALE,
        row("C536379", quantity=-6, at="2010-12-01 09:00:00"),
        row("C536380", quantity=-6, at="2010-12-01 10:00:00"),
    )

    assert [each.cancellation for each in read.returns] == ["C536379"]
    assert [(bad.number, bad.detail) for bad in read.bad_lines] == [(4, "6 of 6 of 85123A")]


@pytest.mark.parametrize(
    "cancellation",
    [
        row("C536379", quantity=-6, at="2010-12-01 09:00:00", customer="12000"),
        row("C536379", quantity=-6, at="2010-12-01 09:00:00", customer=""),
        row("C536379", "71053", -6, "2010-12-01 09:00:00"),
        row("C536379", quantity=-6, at="2010-11-30 09:00:00"),
    ],
    ids=["another customer", "no customer", "another item", "before the purchase"],
)
def test_a_cancellation_without_its_purchase_is_reported(book: Read, cancellation: str) -> None:
    read = book(SALE, cancellation)

    assert read.returns == []
    assert [bad.number for bad in read.bad_lines] == [3]
    assert "a cancellation" in read.bad_lines[0].reason


def test_a_part_of_the_book_has_only_the_cancellations_before_its_end(book: Read) -> None:
    read = book(
        SALE,
        row("C536379", quantity=-6, at="2010-12-01 09:00:00"),
        row("536380", at="2010-12-01 10:00:00"),
        row("C536381", quantity=-6, at="2010-12-01 11:00:00"),
    )

    assert [document.id for document in read.first(1).documents] == ["536365", "C536379"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file"),
        ("", "the first line must be the header"),
        ("Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country\n", "but it is\n  Invoice,"),
    ],
)
def test_what_is_no_order_book_is_refused_with_the_reason(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "orders.csv"
    if content is not None:
        path.write_text(content)

    with pytest.raises(UnreadableOrders, match=message):
        read_orders(path)


def test_the_shipped_file_is_what_the_generator_writes() -> None:
    written = io.StringIO()
    generate.write(written, seed=1, orders=2500)

    assert SHIPPED.read_text() == written.getvalue()
    assert SHIPPED.stat().st_size < 500_000


def test_the_shipped_file_holds_several_thousand_lines_and_every_kind_of_document() -> None:
    read = read_orders(SHIPPED)

    assert read.lines > 5_000
    assert len(read.orders) == 2_500
    assert sum(each.whole for each in read.returns) > 50
    assert sum(not each.whole for each in read.returns) > 50
    assert sum(order.guest for order in read.orders) > 100
    assert len({bad.reason for bad in read.bad_lines}) >= 8


fields = st.one_of(
    st.text(st.characters(exclude_characters="Cc", exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(["536365", "536366", "A5", "85123A", "6", "-6", "0", "2010-12-01 08:26:00", "2.55", "17850", ""]),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(fields, min_size=6, max_size=9), max_size=8))
def test_no_content_stops_the_reading_and_no_line_is_lost(tmp_path: Path, rows: list[list[str]]) -> None:
    path = tmp_path / "orders.csv"
    path.write_text("\n".join([HEADER, *(",".join(each) for each in rows)]), encoding="utf-8", newline="")

    read = read_orders(path)

    assert sum(len(order.lines) for order in read.orders) + len(read.bad_lines) == read.lines


customers = st.sampled_from(["12000", "12001", ""])
sales = st.tuples(st.just(""), customers, st.sampled_from("PQR"), st.integers(1, 20))
cancellations = st.tuples(st.just("C"), customers, st.sampled_from("PQR"), st.integers(-20, -1))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(sales, cancellations), max_size=30))
def test_nothing_is_taken_back_that_was_not_bought(tmp_path: Path, documents: list[tuple[str, str, str, int]]) -> None:
    rows = [
        row(f"{prefix}{100 + number}", code, quantity, f"2010-12-01 08:{number:02}:00", "1.50", customer)
        for number, (prefix, customer, code, quantity) in enumerate(documents)
    ]
    path = tmp_path / "orders.csv"
    path.write_text("\n".join([HEADER, *rows]))

    read = read_orders(path)

    orders: dict[str, Order] = {order.id: order for order in read.orders}
    taken: dict[str, int] = {}
    for returned in read.returns:
        taken[returned.order_id] = taken.get(returned.order_id, 0) + returned.amount
        assert int(returned.cancellation[1:]) > int(returned.order_id)
        assert not orders[returned.order_id].guest
    assert all(amount <= orders[order_id].total for order_id, amount in taken.items())
    unmatched = sum(int(bad.detail.split()[0]) for bad in read.bad_lines)
    returned_quantity = sum(line.quantity for each in read.returns for line in each.lines)
    assert unmatched + returned_quantity == -sum(quantity for prefix, _, _, quantity in documents if prefix)
