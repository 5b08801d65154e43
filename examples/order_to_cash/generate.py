"""Writes an order book of the UCI "Online Retail" layout: the same seed, the same file.

python -m examples.order_to_cash.generate --seed 1 --orders 2500 > orders.csv
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from random import Random
from typing import TextIO

from examples.order_to_cash.orders import COLUMNS

COLOURS = ["RED", "BLUE", "GREEN", "IVORY", "PINK", "BLACK", "SILVER", "YELLOW"]
MATERIALS = ["GLASS", "TIN", "WOODEN", "PAPER", "CERAMIC", "COTTON", "WICKER"]
THINGS = [
    "LANTERN",
    "MUG",
    "BOWL",
    "CLOCK",
    "APRON",
    "BASKET",
    "CANDLE",
    "FRAME",
    "HOOK",
    "TRAY",
    "VASE",
    "BUNTING",
]
COUNTRIES = ["United Kingdom"] * 16 + ["Germany", "France", "EIRE", "Spain", "Norway", "Belgium"]
CUSTOMERS = 700
FIRST_INVOICE = 600001
FIRST_DAY = datetime(2011, 3, 1, 8, 0)

GUESTS = 0.10
LARGE_ORDERS = 0.05
CANCELLED_SOON = 0.05
"""Orders called off as a whole, a few documents later: their process still runs."""
RETURNED_IN_PART = 0.05
ODD_LINES = 0.015
RECENT = 12

Row = list[str]


class Product:
    """Something the catalogue has."""

    def __init__(self, number: int, chance: Random) -> None:
        self.code = f"{20000 + 7 * number}{chance.choice(['', '', '', 'A', 'B'])}"
        self.description = " ".join([chance.choice(COLOURS), chance.choice(MATERIALS), chance.choice(THINGS)])
        self.price = f"{chance.randrange(25, 1500) / 100:.2f}"


class Author:
    """Makes up the documents of an order book, one after the other."""

    def __init__(self, seed: int) -> None:
        self._chance = Random(seed)
        self._catalogue = [Product(number, self._chance) for number in range(300)]
        self._number = FIRST_INVOICE
        self._at = FIRST_DAY
        self._recent: list[list[Row]] = []
        self._old: list[list[Row]] = []

    def rows(self, orders: int) -> Iterator[Row]:
        """The rows of so many orders, with cancellations and odd lines among them."""
        for _ in range(orders):
            order = self._order()
            yield from order
            if self._chance.random() < ODD_LINES * len(order):
                yield self._odd_line(order[0])
            self._remember(order)
            yield from self._cancellations()

    def _order(self) -> list[Row]:
        head = self._head()
        customer = "" if self._chance.random() < GUESTS else str(12000 + self._chance.randrange(CUSTOMERS))
        country = self._chance.choice(COUNTRIES)
        large = self._chance.random() < LARGE_ORDERS
        rows = [self._row(head, customer, country, large) for _ in range(self._lines())]
        if country != "United Kingdom":
            rows.append([head, "POST", "POSTAGE", "1", self._when, "18.00", customer, country])
        return rows

    def _lines(self) -> int:
        lines = 1
        while lines < 12 and self._chance.random() < 0.5:
            lines += 1
        return lines

    def _row(self, head: str, customer: str, country: str, large: bool) -> Row:
        product = self._chance.choice(self._catalogue)
        quantity = self._chance.randrange(150, 400) if large else self._chance.randrange(1, 25)
        return [
            head,
            product.code,
            product.description,
            str(quantity),
            self._when,
            product.price,
            customer,
            country,
        ]

    def _head(self, prefix: str = "") -> str:
        self._at += timedelta(minutes=self._chance.randrange(1, 12))
        self._number += 1
        return f"{prefix}{self._number}"

    @property
    def _when(self) -> str:
        return self._at.strftime("%Y-%m-%d %H:%M:%S")

    def _remember(self, order: list[Row]) -> None:
        if order[0][6]:
            self._recent.append(order)
        if len(self._recent) > RECENT:
            self._old.append(self._recent.pop(0))

    def _cancellations(self) -> Iterator[Row]:
        if len(self._recent) > 3 and self._chance.random() < CANCELLED_SOON:
            order = self._recent.pop(self._chance.randrange(len(self._recent)))
            head = self._head("C")
            yield from ([head, *row[1:3], f"-{row[3]}", self._when, *row[5:]] for row in order)
        if self._old and self._chance.random() < RETURNED_IN_PART:
            row = self._chance.choice(self._old.pop(self._chance.randrange(len(self._old))))
            returned = self._chance.randrange(1, int(row[3]) + 1)
            yield [self._head("C"), *row[1:3], f"-{returned}", self._when, *row[5:]]

    def _odd_line(self, row: Row) -> Row:
        """A line such as real order books have: no sale, and no cancellation of one."""
        changes = self._chance.choice(
            [
                {0: self._head("A"), 1: "B", 2: "Adjust bad debt", 5: "-11.50", 6: ""},
                {0: self._head("C"), 1: "D", 2: "Discount", 3: "-1", 5: "27.50"},
                {0: self._head(), 1: "AMAZONFEE", 2: "AMAZON FEE", 3: "1", 5: "120.00", 6: ""},
                {0: self._head(), 2: "damaged", 3: "-14", 5: "0.0", 6: ""},
                {0: self._head(), 2: "", 3: "20", 5: "0.0", 6: ""},
                {3: "a dozen"},
                {4: "yesterday"},
                {1: ""},
            ]
        )
        return [changes.get(position, value) for position, value in enumerate(row)]


def write(to: TextIO, seed: int, orders: int) -> None:
    """Write an order book."""
    writer = csv.writer(to, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(Author(seed).rows(orders))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write an order book of the UCI Online Retail layout.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--orders", type=int, default=2500)
    options = parser.parse_args()
    write(sys.stdout, options.seed, options.orders)


if __name__ == "__main__":
    main()
