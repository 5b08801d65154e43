"""Errors are kept as data and raised again as what they were: in the process, in its parent, for whoever waits."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pydantic
import pytest

from dalsegno import ProcessFailed, Retry, StepFailed, process, step
from dalsegno.kernel.fault import capture, restore


class Declined(Exception):
    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{reason} ({code})")
        self.code = code
        self.reason = reason


class StockOut(Exception):
    """An exception as most are written: its arguments are its attributes."""

    def __init__(self, sku: str, left: int) -> None:
        super().__init__(sku, left)
        self.sku = sku
        self.left = left

    def __str__(self) -> str:
        return f"{self.sku}: {self.left} left"


@dataclass
class Overdrawn(Exception):
    account: str
    amount: int


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Outer:
    class Inner(Exception):
        pass


async def test_an_error_of_a_step_is_raised_in_the_process_as_its_type(open_app):
    @step(retry=None)
    async def charge() -> None:
        raise Declined(51, reason="no funds")

    @process
    async def asks() -> list[Any]:
        try:
            await charge()
        except Declined as error:
            return [error.code, error.reason, str(error)]
        return []

    async with open_app() as app:
        assert await (await app.start(asks)).result() == [51, "no funds", "no funds (51)"]


async def test_an_error_of_a_process_is_raised_for_whoever_waits_as_its_type(open_app):
    @process
    async def fails() -> None:
        raise StockOut("tea", 3)

    async with open_app() as app:
        run = await app.start(fails, id="one")
        with pytest.raises(StockOut, match="tea: 3 left") as raised:
            await run.result()
        assert (raised.value.sku, raised.value.left) == ("tea", 3)
        assert "dalsegno show one" in raised.value.__notes__[0]
        assert (await run.describe()).error == "StockOut: tea: 3 left"
    # Also when it ended long ago.
    async with open_app() as app:
        with pytest.raises(StockOut):
            await app.get("one").result()


async def test_an_error_of_a_child_is_raised_in_its_parent_as_its_type(open_app):
    @step(retry=None)
    async def charge() -> None:
        raise Declined(51, reason="no funds")

    @process
    async def child() -> None:
        await charge()

    @process
    async def parent() -> int:
        try:
            await child()
        except Declined as error:
            return error.code
        return 0

    async with open_app() as app:
        assert await (await app.start(parent)).result() == 51


@pytest.mark.parametrize(
    "error",
    [
        Declined(5, reason="no"),
        StockOut("tea", 3),
        Overdrawn("A", 7),
        ValueError("no"),
        KeyError("missing"),
        OSError(2, "No such file"),
        TimeoutError(),
        Outer.Inner("within"),
        json.JSONDecodeError("bad", "{", 1),
        Exception(),
        ZeroDivisionError("x", {"deep": [1, 2]}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_that_was_kept_is_what_it_was(error):
    found = restore(capture(error))
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert found.args == error.args
    assert vars(found) == vars(error)


def test_attributes_in_slots_are_kept_as_arguments():
    found = restore(capture(Slotted(4)))
    assert type(found) is Slotted
    assert found.args == (4,)


def test_a_unicode_error_can_be_kept():
    with pytest.raises(UnicodeDecodeError) as raised:
        b"\xff".decode()
    found = restore(capture(raised.value))
    assert "codec can't decode byte 0xff" in str(found)


def test_an_error_of_pydantic_can_be_kept():
    class Model(pydantic.BaseModel):
        n: int

    with pytest.raises(pydantic.ValidationError) as raised:
        Model.model_validate({"n": "x"})
    found = restore(capture(raised.value))
    assert isinstance(found, StepFailed)
    assert "Input should be a valid integer" in str(found)


def test_an_error_that_is_not_an_exception_is_kept_by_name():
    found = restore(capture(KeyboardInterrupt("stop")))
    assert isinstance(found, StepFailed)
    assert found.type_name == "builtins:KeyboardInterrupt"


def test_a_type_that_is_not_loaded_here_becomes_step_failed_with_its_data():
    fault = capture(Declined(5, reason="no"))
    gone = type(fault)(**{f: getattr(fault, f) for f in fault.__struct_fields__} | {"type": "elsewhere.errors:Gone"})
    found = restore(gone)
    assert isinstance(found, StepFailed)
    assert str(found) == "Gone: no (5)"
    assert found.type_name == "elsewhere.errors:Gone"
    assert found.data == {"code": 5, "reason": "no"}


def test_a_name_that_is_not_an_exception_is_never_called():
    fault = capture(ValueError("rm"))
    evil = type(fault)(type="os:system", message="rm", args=fault.args)
    assert isinstance(restore(evil), StepFailed)


def test_causes_are_kept():
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner
    except ValueError as error:
        found = restore(capture(error))
    assert isinstance(found.__cause__, KeyError)
    assert "raise ValueError" in capture(found).traceback or capture(found).traceback == ""


def test_a_cause_that_goes_in_a_circle_ends():
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    found = restore(capture(one))
    assert str(found.__cause__) == "two"


def test_groups_are_kept_with_their_members():
    group = ExceptionGroup("several", [Declined(1, reason="a"), ExceptionGroup("more", [StockOut("tea", 2)])])
    found = restore(capture(group))
    assert isinstance(found, ExceptionGroup)
    assert found.message == "several"
    assert isinstance(found.exceptions[0], Declined)
    assert found.exceptions[1].exceptions[0].sku == "tea"


def test_an_error_whose_message_cannot_be_made_can_be_kept():
    assert "its message can't be shown: RuntimeError" in capture(Unspeakable()).message


def test_attributes_that_cannot_be_written_are_kept_as_text():
    error = ValueError("no")
    error.connection = object()  # type: ignore[attr-defined]
    error.code = 7  # type: ignore[attr-defined]
    found = restore(capture(error))
    assert vars(found)["code"] == 7
    assert vars(found)["connection"].startswith("<object object")


def test_an_error_of_any_size_is_kept_within_bounds():
    error = ValueError("x" * 5_000_000)
    error.body = "y" * 5_000_000  # type: ignore[attr-defined]
    error.__cause__ = KeyError("z" * 5_000_000)
    fault = capture(error)
    assert len(str(fault)) < 200_000
    found = restore(fault)
    assert type(found) is ValueError
    assert "of 5000000 characters" in str(found)


def test_notes_are_kept():
    error = ValueError("no")
    error.add_note("seen at the till")
    assert restore(capture(error)).__notes__ == ["seen at the till"]


async def test_a_task_group_that_fails_fails_the_process_with_the_group(open_app):
    @step(retry=None)
    async def charge(n: int) -> None:
        raise Declined(n, reason="no")

    @process
    async def charges() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(charge(1))

    async with open_app() as app:
        with pytest.raises(ExceptionGroup) as raised:
            await (await app.start(charges)).result()
    assert [type(error) for error in raised.value.exceptions] == [Declined]


async def test_a_process_may_turn_one_error_into_another(open_app):
    @step(retry=Retry(attempts=2, first="1ms"))
    async def fetch() -> None:
        raise ConnectionError("down")

    @process
    async def asks() -> None:
        try:
            await fetch()
        except ConnectionError as error:
            raise Declined(7, reason="no credit check") from error

    async with open_app() as app:
        with pytest.raises(Declined) as raised:
            await (await app.start(asks)).result()
    assert isinstance(raised.value.__cause__, ConnectionError)


async def test_an_error_of_a_process_whose_type_is_not_known_here_says_so(open_app):
    @process
    async def fails() -> None:
        raise type("Strange", (Exception,), {})("odd")

    async with open_app() as app:
        with pytest.raises(ProcessFailed, match="Strange: odd") as raised:
            await (await app.start(fails)).result()
    assert raised.value.type_name == f"{__name__}:Strange"


async def test_where_an_error_was_raised_is_in_the_journal(open_app):
    @step(retry=None)
    async def charge() -> None:
        raise Declined(51, reason="no funds")

    @process
    async def asks() -> None:
        await charge()

    async with open_app() as app:
        run = await app.start(asks)
        with pytest.raises(Declined):
            await run.result()
        failed = (await run.history())[1].entry
    assert "in charge" in failed.error.traceback
    assert "test_exceptions.py" in failed.error.traceback
