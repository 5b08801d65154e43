"""A node's figures: what they say, when they are shown, and what several nodes' come to together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from dalsegno import App, ask, process, step
from dalsegno.engine.figures import Figures, Rates, Spread, figures_of, total
from dalsegno.engine.meter import Meter, Tally
from dalsegno.kernel.limits import Limits
from dalsegno.kernel.ports import Batch, Change, Committed


class Stage:
    """A node whose clock moves when its meter sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lease_seconds: float = 30.0) -> None:
        self.now = 0.0
        self.late = 0.0
        self.tally = Tally()
        node = SimpleNamespace(
            loop=SimpleNamespace(time=lambda: self.now),
            limits=Limits(lease_seconds=lease_seconds),
            committer=SimpleNamespace(tally=self.tally),
            timers=SimpleNamespace(lag_seconds=lambda: self.late),
            residents=[],
            steps=SimpleNamespace(backlog=0),
            waking=SimpleNamespace(backlog=0),
            store=SimpleNamespace(now=lambda: int(self.now * 1e6)),
        )
        self.overslept = 0.0
        monkeypatch.setattr("dalsegno.engine.meter.asyncio", SimpleNamespace(sleep=self._sleep))
        self.meter = Meter(cast("Any", node))

    async def _sleep(self, seconds: float) -> None:
        self.now += seconds + self.overslept

    def commit(self, *kinds: str, ended: str | None = None) -> None:
        batch = Batch()
        for kind in kinds:
            batch.add(1, 1, 0, kind, b"{}")
        if ended is not None:
            batch.changes[1] = Change(key=1, status=ended, at=0)
        self.tally.add(batch, Committed(start_keys=[7, None]), 0.002, self.now)

    def waited(self) -> float:
        """How long the meter waits until it wants to be shown, which it then is."""
        began = self.now
        asyncio.run(self.meter.pause())
        self.meter.shown()
        return self.now - began


def test_a_node_at_work_is_shown_each_second_and_one_that_rests_only_with_its_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch)
    assert stage.waited() == 1, "the first figures there are"
    assert stage.waited() == 10, "a third of the lease"
    stage.commit("step_completed")
    assert stage.waited() == 1
    settling = [stage.waited() for _ in range(12)]
    assert settling[:9] == [1] * 9, "its rates sink"
    assert settling[-1] == 10
    assert stage.meter.figures().rates == Rates()


def test_a_lease_is_renewed_by_its_third_also_where_that_is_sooner_than_the_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Stage(monkeypatch, lease_seconds=0.3).waited() == pytest.approx(0.1)


def test_figures_count_what_commits_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    stage.commit("step_completed", "step_completed", "attempt_failed")
    stage.commit("step_failed", "ended", ended="failed")
    stage.waited()
    shown = figures_of(stage.meter.shown())

    assert (shown.commits, shown.entries, shown.started) == (2, 7, 2)
    assert (shown.steps_done, shown.steps_failed, shown.steps_retried) == (2, 1, 1)
    assert shown.ended == {"completed": 0, "failed": 1, "cancelled": 0, "terminated": 0}
    assert shown.rates == Rates(commits=2, entries=7, steps=2, started=2, ended=1)
    assert (shown.commit_entries.p50, shown.commit_entries.max, shown.commit_entries.sum) == (4, 4, 7)
    assert shown.commit_seconds.p99 == 0.002
    assert sum(shown.commit_seconds.buckets) == 2


def test_lags_are_the_worst_of_the_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    stage.overslept, stage.late = 0.5, 2.0
    stage.waited()
    stage.overslept, stage.late = 0.0, 0.0
    stage.waited()
    shown = stage.meter.figures()

    assert shown.loop_lag_seconds == pytest.approx(0.5)
    assert shown.timer_lag_seconds == 2.0
    stage.waited()
    stage.waited()
    assert stage.meter.figures().loop_lag_seconds == 0.0


def test_figures_of_another_release_are_read_as_far_as_they_go() -> None:
    assert figures_of(b'{"commits":3,"unheard_of":[1]}').commits == 3
    assert figures_of(b'{"commits":"many"}') == Figures()
    assert figures_of(b"{}").at == 0


def test_nodes_together_have_the_sum_of_what_adds_up_and_the_worst_of_the_rest() -> None:
    one = Figures(at=1, started=2, ended={"completed": 2}, loop_lag_seconds=0.5, rates=Rates(steps=1.5))
    one.commit_seconds = Spread(p50=0.1, p99=0.2, max=0.3, sum=1.0, buckets=[1, 2])
    two = Figures(at=5, started=3, ended={"completed": 1, "failed": 1}, loop_lag_seconds=0.1, rates=Rates(steps=2.0))
    two.commit_seconds = Spread(sum=2.0, buckets=[0, 1])
    whole = total([one, two])

    assert (whole.at, whole.started, whole.loop_lag_seconds, whole.rates.steps) == (5, 5, 0.5, 3.5)
    assert whole.ended == {"completed": 3, "failed": 1, "cancelled": 0, "terminated": 0}
    assert whole.commit_seconds == Spread(p50=0.1, p99=0.2, max=0.3, sum=3.0, buckets=[1, 3])
    assert total([]).commits == 0


@step
async def weighed() -> int:
    return 1


@process
async def measured() -> int:
    number = await weighed()
    await ask("meter", bool)
    return number


async def test_a_nodes_own_view_shows_it_with_what_it_did(
    open_app: Callable[..., Any], until: Callable[..., Any]
) -> None:
    async with open_app(limits=Limits(figures_seconds=0.01)) as app:
        assert isinstance(app, App)
        run = await app.start(measured, id="m")

        async def shown() -> bool:
            return (await app.view()).total.steps_done == 1

        await until(shown)
        view = await app.view()
        (node,) = view.nodes
        assert (node.state, node.epoch, node.figures.started, node.figures.residents) == ("living", view.here, 1, 1)
        assert node.figures.memory_bytes > 10_000_000
        assert view.instances == {"default": {"running": 0, "waiting": 1, "paused": 0, "parked": 0}}
        assert (view.stuck.parked, view.stuck.overdue, view.stuck.without_code) == ({}, 0, 0)
        assert msgspec.json.decode(msgspec.json.encode(view), type=type(view)).nodes == view.nodes
        await run.terminate()
