"""Types survive every call: into a process, through a step, out of a child, back to whoever waits."""

import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar

import msgspec
import pydantic
import pytest

from dalsegno import DefinitionError, InvalidValue, process, step


class Line(msgspec.Struct):
    sku: str
    count: int = 1


class Tagged(msgspec.Struct, tag=True):
    n: int


class OtherTagged(msgspec.Struct, tag=True):
    text: str


@dataclass
class Order:
    id: str
    lines: list[Line] = field(default_factory=list)
    note: str | None = None


@dataclass(frozen=True)
class Money:
    amount: decimal.Decimal
    currency: Literal["EUR", "USD"]


class Address(TypedDict, total=False):
    street: str
    zip: int


class Home(pydantic.BaseModel):
    street: str


class Customer(pydantic.BaseModel):
    name: str
    born: dt.date
    home: Home | None = None
    score: int = pydantic.Field(default=0, ge=0)


class Point(NamedTuple):
    x: int
    y: int


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


T = TypeVar("T")


class Page(msgspec.Struct, Generic[T]):
    items: list[T]


VALUES: list[tuple[Any, Any]] = [
    (int, 7),
    (int, 2**60),
    (float, 1.5),
    (str, "größer\n\x00'\"☃"),
    (bool, True),
    (bytes, b"\x00\xff"),
    (type(None), None),
    (list[int], [1, 2]),
    (tuple[int, str], (1, "a")),
    (set[str], {"a", "b"}),
    (frozenset[int], frozenset({1})),
    (dict[str, list[int]], {"a": [1]}),
    (dict[int, str], {1: "a"}),
    (Sequence[int], [1]),
    (Mapping[str, int], {"a": 1}),
    (dt.datetime, dt.datetime(2024, 5, 1, 12, 30, 1, 250, tzinfo=dt.UTC)),
    (dt.datetime, dt.datetime(2024, 5, 1, 12, 30)),
    (dt.date, dt.date(2024, 5, 1)),
    (dt.time, dt.time(12, 30)),
    (dt.timedelta, dt.timedelta(days=2, seconds=3)),
    (uuid.UUID, uuid.UUID(int=7)),
    (decimal.Decimal, decimal.Decimal("1.10")),
    (Color, Color.RED),
    (Level, Level.HIGH),
    (Literal["a", "b"], "a"),
    (int | None, None),
    (int | str, "x"),
    (Line, Line("tea", 3)),
    (Order, Order("1", [Line("tea")], "fast")),
    (Money, Money(decimal.Decimal("9.99"), "EUR")),
    (Address, {"street": "Hauptstr.", "zip": 12345}),
    (Customer, Customer(name="Maria", born=dt.date(1990, 1, 1), home=Home(street="x"))),
    (list[Customer], [Customer(name="Maria", born=dt.date(1990, 1, 1))]),
    (Point, Point(1, 2)),
    (Page[Line], Page([Line("tea")])),
    (Tagged | OtherTagged, OtherTagged("x")),
    (list[Tagged | OtherTagged], [Tagged(1), OtherTagged("x")]),
    (Annotated[int, msgspec.Meta(ge=0)], 3),
    (Any, {"a": [1, None, True]}),
]


@pytest.mark.parametrize(
    ("kind", "value"), VALUES, ids=[f"{i}-{str(kind)[-40:]}" for i, (kind, _) in enumerate(VALUES)]
)
async def test_a_value_comes_back_as_what_it_was(open_app, kind, value):
    @step
    async def echo(it: kind) -> kind:  # type: ignore[valid-type]
        assert it == value
        assert type(it) is type(value)
        return it

    @process
    async def child(it: kind) -> kind:  # type: ignore[valid-type]
        assert it == value
        return await echo(it)

    @process
    async def parent(it: kind, *, named: kind) -> kind:  # type: ignore[valid-type]
        assert it == named == value
        assert type(it) is type(value)
        assert type(named) is type(value)
        found = await child(it)
        assert type(found) is type(value)
        return await echo(found)

    async with open_app() as app:
        found = await (await app.start(parent, value, named=value)).result()
    assert found == value
    assert type(found) is type(value)


async def test_values_of_processes_that_ran_elsewhere_are_read_by_the_type_one_names(open_app):
    @process
    async def orders(id: str) -> Order:
        return Order(id, [Line("tea", 2)])

    async with open_app() as app:
        await (await app.start(orders, "1", id="o")).result()
    async with open_app() as app:
        assert await app.get("o", Order).result() == Order("1", [Line("tea", 2)])
        assert (await app.get("o").result())["lines"] == [{"sku": "tea", "count": 2}]


async def test_defaults_and_missing_annotations(open_app):
    @step
    def plain(a, b=2, *rest, c=3, **others):
        return [a, b, list(rest), c, others]

    @process
    async def loose(a, b: int = 5):
        return await plain(a, b, 7, 8, c=9, d=10)

    async with open_app() as app:
        assert await (await app.start(loose, {"x": 1})).result() == [{"x": 1}, 5, [7, 8], 9, {"d": 10}]


async def test_a_name_that_cannot_be_resolved_leaves_the_other_annotations_alone(open_app):
    @step
    async def fetch(n: int, missing: "NoSuchName" = None) -> Order:  # type: ignore[name-defined]  # noqa: F821
        return Order(str(n))

    @process
    async def asks(n: int, missing: "NoSuchName" = None) -> Order:  # type: ignore[name-defined]  # noqa: F821
        order = await fetch(n)
        assert isinstance(order, Order)
        return order

    async with open_app() as app:
        assert await (await app.start(asks, 1)).result() == Order("1")


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (int, "7", "Expected `int`, got `str`"),
        (Order, {"id": 7}, r"Expected `str`, got `int` - at `\$\.id`"),
        (Money, {"amount": "1", "currency": "GBP"}, "Invalid enum value 'GBP'"),
        (Annotated[int, msgspec.Meta(ge=0)], -1, "Expected `int` >= 0"),
        (Customer, {"name": "M", "born": "1990-01-01", "score": -1}, "greater than or equal to 0"),
        (list[Line], [{"sku": "a"}, {}], r"at `\$\[1\]`"),
    ],
)
async def test_a_value_that_does_not_fit_is_refused_where_it_comes_in(open_app, kind, value, message):
    @process
    async def takes(it: kind) -> None: ...  # type: ignore[valid-type]

    async with open_app() as app:
        with pytest.raises(InvalidValue, match=message):
            await app.start(takes, value)


class Unreadable:
    pass


async def test_a_type_that_cannot_be_read_is_refused_when_it_is_declared():
    with pytest.raises(DefinitionError, match="Unreadable"):

        @step
        async def fetch() -> Unreadable: ...

    with pytest.raises(DefinitionError, match="Unreadable"):

        @process
        async def takes(it: Unreadable) -> None: ...


async def test_numbers_that_json_does_not_have_are_refused_or_kept(open_app):
    @step
    async def echo(value: float) -> float:
        return value

    @process
    async def asks() -> str:
        found = await echo(float("nan"))
        return str(found)

    async with open_app() as app:
        # JSON has no NaN: what comes back is what the journal holds, and it isn't a number.
        with pytest.raises(InvalidValue):
            await (await app.start(asks)).result()
