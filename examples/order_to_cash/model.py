"""What the demo speaks about: orders, cancellations, and what the services answer. Money is in pence."""

from __future__ import annotations

from datetime import datetime
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal

import msgspec

CHARGES = frozenset({"POST", "DOT", "C2", "M"})
"""Stock codes of things that are sold but lie in no warehouse: postage, carriage, manual entries."""


APPROVAL_LIMIT = 1_000_00
"""Above this a person is asked."""


class Line(msgspec.Struct, frozen=True):
    """A position of an order."""

    stock_code: str
    quantity: int
    unit_price: Decimal

    @property
    def amount(self) -> int:
        """The price of the position in pence."""
        return int((self.quantity * self.unit_price * 100).to_integral_value(ROUND_HALF_UP))

    @property
    def is_stocked(self) -> bool:
        """Whether the position takes something out of the warehouse."""
        return self.stock_code.upper() not in CHARGES

    def part(self, quantity: int) -> Line:
        """The same position for a part of its quantity."""
        return Line(self.stock_code, quantity, self.unit_price)


class Order(msgspec.Struct, frozen=True):
    """An order as it stands in the order book."""

    id: str
    customer: str
    guest: bool
    country: str
    placed_at: datetime
    lines: tuple[Line, ...]

    @property
    def total(self) -> int:
        """What the order costs in pence."""
        return sum(line.amount for line in self.lines)


class Return(msgspec.Struct, frozen=True):
    """What one cancellation takes back of one order."""

    cancellation: str
    order_id: str
    lines: tuple[Line, ...]
    amount: int
    whole: bool

    @property
    def id(self) -> str:
        """The cancellation and the order it takes back from."""
        return f"{self.cancellation}-{self.order_id}"


class Cancellation(msgspec.Struct, frozen=True):
    """A cancellation document, with what it takes back of each order."""

    id: str
    customer: str
    placed_at: datetime
    returns: tuple[Return, ...]


def refundable(lines: tuple[Line, ...]) -> int:
    """What is paid back for lines: rounded down, so that parts never add up to more than the whole."""
    return sum(int((line.quantity * line.unit_price * 100).to_integral_value(ROUND_DOWN)) for line in lines)


class Deal(msgspec.Struct, frozen=True):
    """The CRM's record of an order."""

    order_id: str
    customer: str


class Hold(msgspec.Struct, frozen=True):
    """Stock the ERP keeps back for an order."""

    id: str
    order_id: str


class Charge(msgspec.Struct, frozen=True):
    """Money the gateway took."""

    id: str
    order_id: str
    amount: int


class Refund(msgspec.Struct, frozen=True):
    """Money the gateway gave back."""

    order_id: str
    amount: int


class Shipment(msgspec.Struct, frozen=True):
    """A parcel the shipping provider took on."""

    id: str
    order_id: str


class Invoice(msgspec.Struct, frozen=True):
    """An invoice of the ERP."""

    id: str
    order_id: str
    amount: int


class CreditNote(msgspec.Struct, frozen=True):
    """A credit note of the ERP."""

    id: str
    order_id: str
    amount: int
