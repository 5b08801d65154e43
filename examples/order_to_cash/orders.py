"""Reads an order book: a CSV of the UCI "Online Retail" layout.

A line that is no sale and no cancellation of one is reported with its number and a reason, and reading
goes on. A line without a customer is the order of a guest. A cancellation (InvoiceNo `C…`) takes back what
the same customer bought under the same stock code, from the latest order before it that has some left,
then from the one before.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path

import msgspec
from examples.order_to_cash.model import Cancellation, Line, Order, Return, refundable

COLUMNS = [
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
]
DATE_FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%m/%d/%Y %H:%M", "%Y-%m-%dT%H:%M:%S")
ACCOUNTING_CODES = frozenset({"AMAZONFEE", "B", "BANK CHARGES", "CRUK", "S"})
DOCUMENT_NUMBER = re.compile(r"C?[0-9]{1,12}")
WHOLE_NUMBER = re.compile(r"-?[0-9]{1,9}(\.0+)?")
MAX_QUANTITY = 1_000_000
MAX_PRICE = Decimal(1_000_000)


class UnreadableOrders(Exception):
    """The file is no order book at all."""


class BadLine(msgspec.Struct, frozen=True, order=True):
    """A line of the file that is left out, and why."""

    number: int
    reason: str
    detail: str = ""


class OrderBook(msgspec.Struct, frozen=True):
    """The orders and cancellations of a file in order of time, and the lines that are neither."""

    documents: tuple[Order | Cancellation, ...]
    bad_lines: tuple[BadLine, ...]
    lines: int

    @property
    def orders(self) -> list[Order]:
        """The orders, oldest first."""
        return [document for document in self.documents if isinstance(document, Order)]

    @property
    def returns(self) -> list[Return]:
        """What the cancellations take back, oldest first."""
        found = (document for document in self.documents if isinstance(document, Cancellation))
        return [returned for cancellation in found for returned in cancellation.returns]

    def first(self, orders: int) -> OrderBook:
        """The book up to and including that many orders, and the cancellations among these."""
        kept: list[Order | Cancellation] = []
        for document in self.documents:
            if isinstance(document, Order):
                if orders == 0:
                    break
                orders -= 1
            kept.append(document)
        return OrderBook(tuple(kept), self.bad_lines, self.lines)


def read_orders(path: Path) -> OrderBook:
    """Read an order book."""
    records = _records(_text(path))
    header = next(records, (1, []))[1]
    if [name.strip() for name in header] != COLUMNS:
        found = ",".join(header)[:300]
        raise UnreadableOrders(
            f"{path}: the first line must be the header\n  {','.join(COLUMNS)}\nbut it is\n  {found}"
        )
    return _Reading().read(records)


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UnreadableOrders(f"{path}: there is no such file") from None
    except OSError as error:
        raise UnreadableOrders(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        # The data set also goes round as a spreadsheet export in Latin 1, where every byte is a character.
        return content.decode("latin-1")


def _records(text: str) -> Iterator[tuple[int, list[str]]]:
    """The records with the number of the line each begins on; an unreadable one has no fields."""
    reader = csv.reader(io.StringIO(text, newline=""))
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error:
            fields = []
        else:
            if not fields:
                continue  # an empty line says nothing
        yield number, fields


class _Rejected(Exception):
    """A line cannot be taken."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass
class _Document:
    """The lines of one invoice or cancellation, each with its number in the file."""

    id: str
    customer: str
    country: str
    placed_at: datetime
    lines: list[tuple[int, Line]] = field(default_factory=list)

    @property
    def is_cancellation(self) -> bool:
        return self.id.startswith("C")

    @property
    def order(self) -> Order:
        return Order(
            id=self.id,
            customer=self.customer or f"guest-{self.id}",
            guest=not self.customer,
            country=self.country,
            placed_at=self.placed_at,
            lines=tuple(line for _, line in self.lines),
        )


class _Reading:
    """One pass over a file."""

    def __init__(self) -> None:
        self._documents: dict[str, _Document] = {}
        self._bad: list[BadLine] = []
        self._purchases = _Purchases()

    def read(self, records: Iterator[tuple[int, list[str]]]) -> OrderBook:
        count = 0
        for number, fields in records:
            count += 1
            try:
                self._take(number, fields)
            except _Rejected as rejected:
                self._bad.append(BadLine(number, rejected.reason, rejected.detail))
        in_time = sorted(self._documents.values(), key=lambda each: (each.placed_at, each.lines[0][0]))
        documents = tuple(self._finish(document) for document in in_time)
        return OrderBook(documents, tuple(sorted(self._bad)), count)

    def _take(self, number: int, fields: list[str]) -> None:
        if len(fields) != len(COLUMNS):
            raise _Rejected(f"a line has {len(COLUMNS)} fields", f"this one has {len(fields)}")
        invoice, code, _, quantity, date, price, customer, country = (each.strip() for each in fields)
        parsed = _Document(_document_number(invoice), _customer(customer), country, _date(date))
        line = _line(code, quantity, price, parsed.is_cancellation)
        document = self._documents.get(parsed.id, parsed)
        if document.customer != parsed.customer:
            raise _Rejected("a document has one customer", f"{document.id} is of {document.customer or 'a guest'}")
        self._documents[document.id] = document
        document.lines.append((number, line))

    def _finish(self, document: _Document) -> Order | Cancellation:
        if document.is_cancellation:
            return self._cancel(document)
        order = document.order
        self._purchases.add(order)
        return order

    def _cancel(self, document: _Document) -> Cancellation:
        taken: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        for number, line in document.lines:
            left = line.quantity
            for order_id, position, quantity in self._purchases.take(document.customer, line):
                taken[order_id][position] += quantity
                left -= quantity
            if left:
                self._bad.append(_unmatched(number, line, left, document.customer))
        returns = tuple(self._purchases.taken_back(document.id, *each) for each in taken.items())
        return Cancellation(document.id, document.customer, document.placed_at, returns)


@dataclass
class _Purchase:
    """A position of an order, and how much of it was not yet taken back."""

    order_id: str
    position: int
    left: int


class _Purchases:
    """What each customer bought and has not yet brought back."""

    def __init__(self) -> None:
        self._orders: dict[str, Order] = {}
        self._of: dict[tuple[str, str], list[_Purchase]] = defaultdict(list)

    def add(self, order: Order) -> None:
        self._orders[order.id] = order
        if order.guest:
            return  # nobody can say later that it was he who bought it
        for position, line in enumerate(order.lines):
            self._of[order.customer, line.stock_code].append(_Purchase(order.id, position, line.quantity))

    def take(self, customer: str, line: Line) -> Iterator[tuple[str, int, int]]:
        """Take a quantity out of the latest purchases: order, position in it, and quantity of each."""
        wanted, purchases = line.quantity, self._of.get((customer, line.stock_code), [])
        while wanted and purchases:
            latest = purchases[-1]
            quantity = min(wanted, latest.left)
            wanted -= quantity
            latest.left -= quantity
            if not latest.left:
                purchases.pop()
            yield latest.order_id, latest.position, quantity

    def taken_back(self, cancellation: str, order_id: str, quantities: dict[int, int]) -> Return:
        order = self._orders[order_id]
        lines = tuple(order.lines[position].part(quantity) for position, quantity in sorted(quantities.items()))
        whole = lines == order.lines
        return Return(cancellation, order_id, lines, order.total if whole else refundable(lines), whole)


def _unmatched(number: int, line: Line, left: int, customer: str) -> BadLine:
    detail = f"{left} of {line.quantity} of {line.stock_code}"
    if not customer:
        return BadLine(number, "a cancellation without a customer matches no order", detail)
    return BadLine(number, "a cancellation of something the customer did not buy before in this file", detail)


def _document_number(text: str) -> str:
    number = text.upper()
    if number.startswith("A"):
        raise _Rejected("an adjustment of bad debt is no sale", text)
    if not DOCUMENT_NUMBER.fullmatch(number):
        raise _Rejected("InvoiceNo must be a number, or C and a number", repr(text))
    return number


def _customer(text: str) -> str:
    return text.removesuffix(".0")  # spreadsheets make decimals of ids where some are missing


def _date(text: str) -> datetime:
    for form in DATE_FORMATS:
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    raise _Rejected("InvoiceDate is no date with a time", repr(text))


def _line(code: str, quantity: str, price: str, is_cancellation: bool) -> Line:
    if not code:
        raise _Rejected("StockCode is missing")
    if code.upper() in ACCOUNTING_CODES:
        raise _Rejected("an accounting entry is no sale", code)
    return Line(code, _quantity(quantity, is_cancellation), _price(price))


def _quantity(text: str, is_cancellation: bool) -> int:
    if not WHOLE_NUMBER.fullmatch(text):
        raise _Rejected("Quantity is no whole number", repr(text))
    quantity = int(text.partition(".")[0])
    if quantity == 0 or abs(quantity) > MAX_QUANTITY:
        raise _Rejected("Quantity is zero or out of range", text)
    if quantity < 0 and not is_cancellation:
        raise _Rejected("a negative quantity outside a cancellation is an adjustment of stock", text)
    if quantity > 0 and is_cancellation:
        raise _Rejected("a cancellation has negative quantities", text)
    return abs(quantity)


def _price(text: str) -> Decimal:
    try:
        price = Decimal(text)
    except InvalidOperation:
        raise _Rejected("UnitPrice is no number", repr(text)) from None
    if not price.is_finite() or abs(price) > MAX_PRICE:
        raise _Rejected("UnitPrice is no number", repr(text))
    if price < 0:
        raise _Rejected("a negative price is an adjustment", text)
    if price == 0:
        raise _Rejected("a price of zero is an adjustment of stock, no sale", text)
    return price
