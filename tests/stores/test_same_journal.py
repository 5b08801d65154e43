"""The same process, on SQLite with threads and the wall clock and in the lab: the same journal, also after crashes."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dalsegno import App, Event, annotate, changed, process, publish, random, saga, start, step, uuid, wait_for
from dalsegno.kernel import entries as e
from dalsegno.testing import Lab

if TYPE_CHECKING:
    from dalsegno.testing.servers import PostgresServer

TIMELESS = ("started_at", "next_at", "traceback", "event_id")


class Done(Event, key="number"):
    number: int


class Failed(Exception):
    pass


@step(retry=1)
async def act(name: str, fails: bool = False) -> str:
    if fails:
        raise Failed(name)
    return f"did {name}"


@act.undo
async def undo_act(name: str, fails: bool, done: str) -> None: ...


@step(retry=1)
def act_in_thread(name: str) -> str:
    return f"did {name} in a thread"


@process
async def program(parts: list[Any]) -> list[Any]:
    return [await run(part) for part in parts]


async def run(part: list[Any]) -> Any:
    """Do one part of a program; what fails in it is noted and gone past."""
    kind, *values = part
    try:
        return await PARTS[kind](*values)
    except Failed as error:
        return f"failed: {error}"


async def run_saga(parts: list[Any], fails: bool) -> list[Any]:
    async with saga():
        done = [await run(part) for part in parts]
        await act("before the end", fails)
        return done


async def run_gather(parts: list[Any]) -> list[Any]:
    return list(await asyncio.gather(*(run(part) for part in parts)))


async def run_child(parts: list[Any]) -> list[Any]:
    child = await start(program, parts)
    return await child.result()


async def run_event(number: int) -> int:
    await publish(Done(number=number))
    return (await wait_for(Done, number=number)).number


async def run_words(name: str) -> list[Any]:
    annotate(stage=name)
    return [uuid().hex, random().random()]


async def run_changed(name: str) -> bool:
    return changed(name)


async def run_time_limit(name: str) -> str:
    async with asyncio.timeout(3600):
        return await act(name)


PARTS: dict[str, Any] = {
    "act": act,
    "thread": act_in_thread,
    "saga": run_saga,
    "gather": run_gather,
    "child": run_child,
    "event": run_event,
    "words": run_words,
    "changed": run_changed,
    "limit": run_time_limit,
}

NAMES = st.sampled_from("abc")
ONE_STEP = st.tuples(st.just("act"), NAMES)
LEAVES = st.one_of(
    st.tuples(st.just("act"), NAMES, st.booleans()),
    st.tuples(st.just("thread"), NAMES),
    st.tuples(st.just("event"), st.integers(0, 3)),
    st.tuples(st.just("words"), NAMES),
    st.tuples(st.just("limit"), NAMES),
    # Branches of equal length: which of two unequal ones is ahead is a matter of the disk's speed.
    st.tuples(st.just("gather"), st.lists(ONE_STEP, min_size=1, max_size=4)),
)
CHANGED = st.tuples(st.just("changed"), NAMES)


def programs(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Programs of these parts, in sagas and children."""

    def nested(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        sagas = st.tuples(st.just("saga"), st.lists(parts, max_size=3), st.booleans())
        return sagas | st.tuples(st.just("child"), st.lists(parts, max_size=3))

    return st.lists(st.recursive(leaves, nested, max_leaves=6), max_size=4)


FEW = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


async def on_sqlite(parts: list[Any]) -> dict[str, list[Any]]:
    """The journals of all instances."""
    with tempfile.TemporaryDirectory() as folder:
        return await journals(f"sqlite:///{Path(folder)}/orders.db?durability=process", parts)


async def journals(url: str, parts: list[Any]) -> dict[str, list[Any]]:
    async with App(url, processes=[program], shadow_replay=True) as app:
        await (await app.start(program, parts, id="program")).result(timeout_seconds=10)
        found = {one.id: timeless(await app.get(one.id).history()) async for one in app.list()}
        assert list(app.shadow_failures) == []
    return found


def in_the_lab(parts: list[Any]) -> dict[str, list[Any]]:
    with Lab(processes=[program]) as lab:
        lab.run(program, parts, id="program")
        return {id: timeless(list(lab.get(id).journal)) for id in lab.ids()}


def timeless(journal: list[e.Record]) -> list[Any]:
    """A journal without what the clock and the lines of the code put into it."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: strip(one) for name, one in value.items() if name not in TIMELESS}
        return [strip(one) for one in value] if isinstance(value, list) else value

    return [(record.seq, strip(json.loads(e.encode(record.entry)))) for record in journal]


@FEW
@given(programs(LEAVES | CHANGED))
def test_the_journal_is_the_same_on_sqlite_and_in_the_lab(parts: list[Any]) -> None:
    expected = asyncio.run(on_sqlite(parts))

    assert in_the_lab(parts) == expected


@pytest.fixture(scope="module")
def schemas(postgres: PostgresServer) -> Iterator[str]:
    """URLs of stores, each in a schema of its own, of one database."""
    url = postgres.create_database()
    return (f"{url}?schema=store_{number}" for number in count())


@FEW
@given(parts=programs(LEAVES | CHANGED))
def test_the_journal_is_the_same_on_postgresql_and_in_the_lab(schemas: Iterator[str], parts: list[Any]) -> None:
    expected = asyncio.run(journals(next(schemas), parts))

    assert in_the_lab(parts) == expected


@FEW
# Without `changed`: a run that died before its first wait takes the old way, which is always safe.
@given(programs(LEAVES))
def test_a_program_ends_the_same_whatever_crashes(parts: list[Any]) -> None:
    Lab(processes=[program]).crash_at_random(program, parts, times=6, crashes=2)
