"""Questions to people: asked, answered once and by type, withdrawn when nobody needs the answer any more."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from dalsegno import Event, InvalidValue, Limits, NotFound, Refused, ask, process, step, wait_for
from dalsegno.kernel import entries


@dataclass
class Verdict:
    approved: bool
    reason: str = ""


class Stop(Event):
    pass


@process
async def loan(amount: int) -> str:
    verdict = await ask("finance", Verdict, about={"amount": amount}, title="A loan", due="2d")
    return f"{verdict.approved} {verdict.reason}"


async def one_task(app: Any, **filters: Any) -> Any:
    tasks = await app.tasks(**filters)
    return tasks[0] if tasks else None


async def test_a_question_stands_in_the_inbox_until_it_is_answered(open_app, until):
    async with open_app() as app:
        run = await app.start(loan, 500, id="loan-1")
        task = await until(lambda: one_task(app, role="finance"))
        assert (task.id, task.instance, task.role, task.title) == ("loan-1/finance", "loan-1", "finance", "A loan")
        assert task.about == {"amount": 500}
        assert (task.due_at - task.asked_at).total_seconds() == 2 * 86400
        assert task.answer_schema["$defs"]["Verdict"]["properties"]["approved"] == {"type": "boolean"}
        assert (await run.describe()).waiting_for == "answer from finance"
        await app.answer(task.id, Verdict(True, "good customer"), by="maria")
        assert await run.result() == "True good customer"
        assert await app.tasks() == []
        (answered,) = await app.tasks(state="answered")
        assert (answered.answered_by, answered.answer) == ("maria", {"approved": True, "reason": "good customer"})
        (entry,) = [r.entry for r in await run.history() if isinstance(r.entry, entries.Answered)]
        assert entry.by == "maria"


async def test_an_answer_of_the_wrong_type_leaves_the_question_open(open_app, until):
    async with open_app() as app:
        run = await app.start(loan, 500)
        task = await until(lambda: one_task(app))
        with pytest.raises(InvalidValue, match=r"answer to .* isn't a Verdict"):
            await app.answer(task.id, {"approved": "perhaps"})
        assert (await one_task(app)).id == task.id
        await app.answer(task.id, {"approved": False})
        assert await run.result() == "False "


async def test_a_question_is_answered_once(open_app, until):
    @process
    async def asks_and_waits() -> str:
        first = await ask("finance", str)
        await wait_for(Stop)
        return first

    async with open_app() as app:
        run = await app.start(asks_and_waits)
        task = await until(lambda: one_task(app))
        answers = await asyncio.gather(*(app.answer(task.id, str(n)) for n in range(50)), return_exceptions=True)
        assert [isinstance(answer, Refused) for answer in answers].count(False) == 1
        with pytest.raises(Refused, match="is closed: it was answered or withdrawn"):
            await app.answer(task.id, "late")
        await run.publish(Stop())
        assert await run.result() == str([isinstance(a, Refused) for a in answers].index(False))
        with pytest.raises(Refused, match="is completed"):
            await app.answer(task.id, "later")


async def test_a_question_that_does_not_exist_cannot_be_answered(open_app):
    async with open_app() as app:
        with pytest.raises(NotFound, match="no task 'x/y' in namespace 'default'"):
            await app.answer("x/y", 1)


@pytest.mark.parametrize("why", ["time-out", "cancelled", "terminated", "ended", "failed"])
async def test_a_question_nobody_needs_any_more_is_withdrawn(open_app, until, why):
    @process
    async def asks() -> None:
        if why == "time-out":
            try:
                async with asyncio.timeout(0.02):
                    await ask("finance", str)
            except TimeoutError:
                await wait_for(Stop)
        else:
            task = asyncio.create_task(ask("finance", str))
            await wait_for(Stop)
            assert why != "failed"
            del task

    async def withdrawn() -> Any:
        return await app.tasks(state="withdrawn")

    async with open_app() as app:
        run = await app.start(asks, id="one")
        if why != "time-out":
            task = await until(lambda: one_task(app))
        if why == "cancelled":
            await run.cancel()
        elif why == "terminated":
            await run.terminate()
        elif why in ("ended", "failed"):
            await run.publish(Stop())
        (task,) = await until(withdrawn)
        assert await app.tasks() == []
        with pytest.raises(Refused, match="is closed"):
            await app.answer(task.id, "late")
        if why == "time-out":
            await run.terminate()


async def test_terminating_an_instance_that_is_not_in_memory_withdraws_its_questions(open_app, until):
    async with open_app() as app:
        await app.start(loan, 500, id="one")
        await until(lambda: one_task(app))
        await app.get("one").pause()
    async with open_app() as app:
        await app.get("one").terminate()
        assert await app.tasks() == []


async def test_several_questions_of_one_instance(open_app, until):
    @process
    async def asks() -> list[int]:
        return list(await asyncio.gather(ask("a", int), ask("b", int), ask("a", int)))

    async def three() -> bool:
        return len(await app.tasks()) == 3

    async with open_app() as app:
        run = await app.start(asks, id="one")
        await until(three)
        assert [task.id for task in await app.tasks(role="a")] == ["one/a", "one/a#2"]
        for task_id, answer in (("one/a#2", 3), ("one/b", 2), ("one/a", 1)):
            await app.answer(task_id, answer)
        assert await run.result() == [1, 2, 3]


@pytest.mark.parametrize("how", ["evicted", "restarted"])
async def test_an_answer_wakes_an_instance_that_is_not_in_memory(open_app, until, how):
    limits = Limits(resident_instances=0)
    async with open_app(limits=limits) as app:
        run = await app.start(loan, 500, id="one")
        await until(lambda: one_task(app))
        if how == "evicted":
            await app.start(loan, 1)
            await app.answer("one/finance", Verdict(True))
            assert await run.result() == "True "
    if how == "restarted":
        async with open_app(limits=limits) as app:
            await app.answer("one/finance", Verdict(True))
            assert await app.get("one").result() == "True "


async def test_a_paused_instance_takes_no_answers(open_app, until):
    async with open_app() as app:
        run = await app.start(loan, 500, id="one")
        await until(lambda: one_task(app))
        await run.pause()
        with pytest.raises(Refused, match="is paused: resume it, then answer"):
            await app.answer("one/finance", Verdict(True))
        await run.resume()
        await app.answer("one/finance", Verdict(True))
        assert await run.result() == "True "


async def test_an_answer_may_be_any_type_that_has_a_json_form(open_app, until):
    @process
    async def asks() -> list[Any]:
        return [await ask("a", int | None), await ask("a", list[Verdict]), await ask("a", dict[str, float])]

    async with open_app() as app:
        run = await app.start(asks, id="one")
        for task_id, answer in (("one/a", None), ("one/a#2", [Verdict(True)]), ("one/a#3", {"x": 1.5})):
            await until(lambda task_id=task_id: _open(app, task_id))
            await app.answer(task_id, answer)
        assert await run.result() == [None, [{"approved": True, "reason": ""}], {"x": 1.5}]


async def _open(app: Any, task_id: str) -> bool:
    return any(task.id == task_id for task in await app.tasks())


async def test_an_answer_and_a_time_out_race_and_one_of_them_wins(open_app, until):
    @step
    async def decide(by: str) -> str:
        return by

    @process
    async def asks() -> str:
        try:
            async with asyncio.timeout(0.01):
                await ask("finance", str)
                return await decide("person")
        except TimeoutError:
            return await decide("time")

    async with open_app() as app:
        runs = [await app.start(asks, id=f"r{n}") for n in range(20)]
        answers = 0
        for n in range(20):
            try:
                await app.answer(f"r{n}/finance", "yes")
                answers += 1
            except (Refused, NotFound):
                pass
        results = [await run.result() for run in runs]
        assert set(results) <= {"person", "time"}
        assert results.count("person") <= answers
