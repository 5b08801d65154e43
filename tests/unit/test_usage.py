"""Wrong usage is refused at once, with a message that names the remedy."""

import asyncio
import inspect
from datetime import timedelta
from typing import Any

import pytest

import dalsegno
from dalsegno import (
    App,
    DalsegnoError,
    DefinitionError,
    Event,
    OutsideProcess,
    UsageError,
    annotate,
    ask,
    changed,
    continue_as_new,
    on,
    process,
    publish,
    saga,
    start,
    step,
    transaction,
    wait_for,
)
from dalsegno.contracts.duration import seconds


class Told(Event):
    n: int


@step
async def work() -> None: ...


@process
async def job() -> None: ...


# -- declarations --------------------------------------------------------------------------------------


def plain() -> None: ...


def generator() -> Any:
    yield 1


async def async_generator() -> Any:
    yield 1


async def coroutine() -> None: ...


class SomeClass:
    pass


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: process(plain), "@process decorates an async def function, not <function plain"),
        (lambda: process(async_generator), "@process decorates an async def function"),
        (lambda: process(SomeClass), "@process decorates an async def function"),
        (lambda: process(job), "<process job version 1> is a process already"),
        (lambda: step(generator), "'generator' is a generator: a step returns one value; return a list instead"),
        (lambda: step(async_generator), "'async_generator' is a generator"),
        (lambda: step(SomeClass), "@step decorates a function, not <class"),
        (lambda: step(7), "@step decorates a function, not 7"),
        (lambda: step(work), "<step work> is a step already"),
        (lambda: step(executor="thread")(coroutine), "'coroutine' is async and runs on the node's loop"),
        (lambda: step(executor="process")(coroutine), "executor='process' is for def steps"),
        (lambda: step(executor="cloud")(plain), "executor='cloud': choose 'thread', 'process' or 'inline'"),
        (lambda: work.using(executor="thread"), "is async and runs on the node's loop"),
        (lambda: process(version=0)(coroutine), "must be a number from 1"),
        (lambda: transaction(on="postgres://x")(lambda tx: None), "give sqlite:///path"),
    ],
)
def test_a_wrong_declaration_is_refused(declare, message):
    with pytest.raises(DefinitionError) as refused:
        declare()
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: step(timeout="soon")(coroutine), "'soon' isn't a duration: write seconds, a timedelta"),
        (lambda: step(timeout=0)(coroutine), "timeout=0"),
        (lambda: step(timeout=-1)(coroutine), "timeout=-1"),
        (lambda: step(heartbeat_timeout=-1)(coroutine), "heartbeat_timeout=-1"),
        (lambda: step(retry=0)(coroutine), "at least 1"),
        (lambda: step(retry="often")(coroutine), "retry='often': give a Retry, a number of attempts, or None"),
        (lambda: step(retry=True)(coroutine), "retry=True"),
        (lambda: seconds("1h 5"), "isn't a duration"),
        (lambda: seconds(""), "isn't a duration"),
    ],
)
def test_a_wrong_option_is_refused(declare, message):
    with pytest.raises(UsageError) as refused:
        declare()
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", 90), ("1h30m", 5400), ("3d", 259200), ("2w", 1209600), ("250ms", 0.25), ("1.5h", 5400), ("1us", 1e-6),
        (" 5 s ", 5), (7, 7), (0.5, 0.5), (timedelta(minutes=2), 120),
    ],
)  # fmt: skip
def test_durations_are_written_as_people_write_them(text, expected):
    assert seconds(text) == pytest.approx(expected)


# -- words outside a process ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda: saga(),
        lambda: annotate(a=1),
        lambda: changed("x"),
        lambda: continue_as_new(1),
        lambda: on(Told),
        lambda: wait_for(Told),
        lambda: ask("x", int),
        lambda: publish(Told(1)),
        lambda: start(job),
    ],
    ids=["saga", "annotate", "changed", "continue_as_new", "on", "wait_for", "ask", "publish", "start"],
)
async def test_a_word_of_process_code_outside_a_process_says_where_it_belongs(call):
    async def use() -> None:
        found = call()
        if inspect.isawaitable(found):
            await found

    with pytest.raises(OutsideProcess, match=r"is a word of process code: call it in a @process function that an App"):
        await use()


async def test_a_word_of_process_code_in_a_step_says_where_it_belongs(open_app):
    @step(retry=None)
    async def wrong() -> None:
        annotate(a=1)

    @process
    async def asks() -> None:
        await wrong()

    async with open_app() as app:
        with pytest.raises(OutsideProcess, match=r"annotate\(\) is a word of process code"):
            await (await app.start(asks)).result()


async def test_a_step_that_calls_a_step_calls_the_plain_function(open_app):
    calls = []

    @step
    async def inner() -> int:
        calls.append(1)
        return 7

    @step
    async def outer() -> int:
        return await inner()

    @process
    async def asks() -> int:
        return await outer()

    async with open_app() as app:
        run = await app.start(asks)
        assert await run.result() == 7
        assert len(await run.history()) == 3
    assert calls == [1]


async def test_outside_a_process_a_process_is_the_plain_function(open_app):
    @process
    async def adds(a: int, b: int) -> int:
        return a + b

    assert await adds(1, 2) == 3


async def test_a_step_that_nobody_awaits_warns_like_any_coroutine(open_app):
    @process
    async def forgets() -> str:
        with pytest.warns(RuntimeWarning, match="never awaited"):
            work()
        return "done"

    async with open_app(deterministic=False) as app:
        assert await (await app.start(forgets)).result() == "done"


# -- the app -------------------------------------------------------------------------------------------


async def test_an_app_that_is_not_open_says_how_to_open_it(tmp_path):
    app = App(f"sqlite:///{tmp_path}/x.db")
    for call in (
        lambda: app.start(job),
        lambda: app.publish(Told(1)),
        lambda: app.tasks(),
        lambda: app.counts(),
        lambda: app.get("x").result(),
        lambda: app.answer("x", 1),
    ):
        with pytest.raises(
            UsageError, match=r"isn't open: write `async with app:` around it, or `async with app\.client"
        ):
            await call()
    with pytest.raises(UsageError, match="isn't open"):
        _ = [instance async for instance in app.list()]
    with pytest.raises(UsageError, match="runs no node here"):
        await app.stopped()


async def test_an_app_is_opened_once_at_a_time_and_again_after_it_was_closed(open_app, tmp_path):
    app = App(f"sqlite:///{tmp_path}/x.db")
    for _ in range(2):
        async with app:
            with pytest.raises(UsageError, match="is open already"):
                await app.__aenter__()
            with pytest.raises(UsageError, match="is open already"):
                async with app.client():
                    pass
            await (await app.start(job)).result()


@pytest.mark.parametrize(
    "store", ["oracle://x", "sqlite:orders.db", "sqlite://", "sqlite:///", "orders.db", "", 7, None]
)
async def test_an_unknown_store_is_refused(store):
    with pytest.raises(UsageError, match="sqlite:///"):
        async with App(store):
            pass


@pytest.mark.parametrize("namespace", ["", " ", 7, "a/b", "x" * 300])
def test_an_odd_namespace_is_refused(namespace):
    with pytest.raises(UsageError, match="namespace="):
        App("sqlite:///x.db", namespace=namespace)


def test_limits_that_make_no_sense_are_refused():
    for options in ({"payload_bytes": 0}, {"running_steps": 0}, {"lease_seconds": -1}, {"journal_entries": 1}):
        with pytest.raises(UsageError, match=next(iter(options))):
            dalsegno.Limits(**options)


def test_the_vocabulary_is_what_the_package_exports():
    words = {
        "App", "process", "step", "transaction", "Event", "on", "saga", "wait_for", "ask", "publish", "start", "now",
        "uuid", "random", "step_key", "annotate", "changed", "continue_as_new", "heartbeat", "Retry",
    }  # fmt: skip
    assert words <= set(dalsegno.__all__)
    assert all(hasattr(dalsegno, name) for name in dalsegno.__all__)
    exported = {getattr(dalsegno, name) for name in dalsegno.__all__}
    errors = {
        value
        for value in vars(dalsegno.errors).values()
        if isinstance(value, type) and issubclass(value, DalsegnoError)
    }
    assert errors <= exported


def test_the_tree_of_errors_is_what_its_module_says():
    said = inspect.getdoc(dalsegno.errors) or ""
    for value in vars(dalsegno.errors).values():
        if isinstance(value, type) and issubclass(value, DalsegnoError):
            assert value.__name__ in said


def test_things_show_themselves():
    assert repr(job) == "<process job version 1>"
    assert repr(work) == "<step work>"
    assert repr(App("sqlite:///x.db")) == "<App sqlite:///x.db>"


async def test_a_process_that_waits_for_something_foreign_is_told_so(open_app):
    foreign = asyncio.get_running_loop().create_future()

    @process
    async def waits_for_it() -> None:
        await foreign

    async with open_app(deterministic=False) as app:
        with pytest.raises((RuntimeError, DalsegnoError)):
            await (await app.start(waits_for_it)).result()
    foreign.cancel()
