"""Faults of the engine that the lab brought to light; each test failed before its fix."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

from dalsegno import App, Limits, ask, process, saga, step
from dalsegno.authoring.process import Process
from dalsegno.kernel.ports import Store
from dalsegno.stores.memory.disk import Disk
from dalsegno.stores.memory.store import MemoryStore
from dalsegno.testing import Lab
from dalsegno.testing.clock import Clock
from dalsegno.testing.loop import VirtualLoop


def test_an_instance_that_waits_inside_a_saga_can_leave_memory() -> None:
    @process
    async def asks_within_a_saga(number: int) -> bool:
        async with saga():
            return await ask("finance", bool, about=number)

    with Lab(limits=Limits(resident_instances=1)) as lab:
        runs = [lab.start(asks_within_a_saga, number) for number in range(3)]
        for _ in runs:
            lab.answer("finance", True)

        assert [run.result() for run in runs] == [True, True, True]


def test_code_that_fails_while_it_is_closed_disturbs_nobody() -> None:
    @process
    async def fails_in_finally(number: int) -> bool:
        try:
            return await ask("finance", bool, about=number)
        finally:
            assert number is None, "closing"

    with Lab(limits=Limits(resident_instances=1)) as lab:
        for number in range(3):
            lab.start(fails_in_finally, number)

        assert [task.about for task in lab.tasks()] == [0, 1, 2]


def test_a_step_that_takes_a_day_is_not_looked_at_all_day() -> None:
    @step
    async def load() -> str:
        return "loaded"

    @process
    async def loads() -> str:
        return await load()

    with Lab() as lab:
        lab.double(load).delays("1d")
        looks = []
        lab.app.node.slow._sweep = count(lab.app.node.slow._sweep, looks)  # type: ignore[method-assign]

        assert lab.run(loads) == "loaded"
        assert len(looks) < 5


def count(function: Callable[[], None], calls: list[None]) -> Callable[[], None]:
    def counted() -> None:
        calls.append(None)
        function()

    return counted


def test_a_node_that_closes_while_it_recovers_does_not_wait_for_what_it_never_began() -> None:
    @step
    async def endless() -> None:
        await asyncio.sleep(1e9)

    @process
    async def runs_endless() -> None:
        await endless()

    class SlowStore(MemoryStore):
        async def heartbeat(self, key: int, step: str) -> bytes | None:
            await asyncio.sleep(0.2)
            return None

    disk, clock = Disk(), Clock("2026-01-01")

    def app() -> App:
        return App(cast("Store", SlowStore(disk, clock.now)), processes=[runs_endless])

    async def begin() -> None:
        await dying.__aenter__()
        await dying.start(runs_endless)

    async def open_and_close() -> None:
        async with app():
            await asyncio.sleep(0.1)

    dying = app()
    drive(clock, begin())
    disk.stores[0].crash()
    assert dying._node is not None
    for resident in dying._node.residents:
        resident.execution.drop()
    begun = clock.elapsed
    drive(clock, open_and_close())

    assert clock.elapsed - begun < 1_000_000


def test_an_undo_gets_all_arguments_of_its_step_however_they_were_given(lab: Lab) -> None:
    @step
    async def charge(order: str, amount: int = 5, *, currency: str = "EUR") -> str:
        return "charged"

    @charge.undo
    async def refund(order: str, amount: int, charge: str, *, currency: str) -> None: ...

    @process
    async def fails() -> None:
        async with saga():
            await charge("1")
            await charge("2", amount=6)
            await charge(order="3", amount=7, currency="USD")
            raise ValueError("all in vain")

    run = lab.start(fails)

    run.assert_undone(charge, charge, charge)
    assert [(call.args, call.kwargs) for call in lab.calls(refund)] == [
        (("3", 7, "charged"), {"currency": "USD"}),
        (("2", 6, "charged"), {"currency": "EUR"}),
        (("1", 5, "charged"), {"currency": "EUR"}),
    ]


def drive(clock: Clock, work: Coroutine[Any, Any, None]) -> None:
    """Run something on virtual time, and forget what it leaves open."""
    loop = VirtualLoop(clock)  # type: ignore[abstract]
    task = loop.create_task(work)
    loop.settle()
    while not task.done() and loop.jump(clock.elapsed + 60_000_000):
        loop.settle()
    task.result()
    loop.abandon()


def test_a_process_goes_on_with_its_own_code_though_another_module_declared_one_of_its_name(lab: Lab) -> None:
    def declare(result: str) -> Process[..., Any]:
        @process(name="named_alike")
        async def code() -> str:
            await asyncio.sleep(1)
            return result

        return code

    mine = declare("mine")
    mine.spec.function.__module__ = "mine"
    run = lab.start(mine)
    declare("theirs")
    lab.crash()
    assert run.result() == "mine"
