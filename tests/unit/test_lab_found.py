"""Faults of the engine that the lab brought to light; each test failed before its fix."""

from __future__ import annotations

from collections.abc import Callable

from dalsegno import Limits, ask, process, saga, step
from dalsegno.testing import Lab


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
