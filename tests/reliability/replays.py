"""Replaying journals: they say nothing new, and no timer fired before its time."""

from __future__ import annotations

from typing import Any

from tests.reliability import workload

from dalsegno.errors import DalsegnoError
from dalsegno.kernel import entries as e
from dalsegno.kernel.execution import Execution
from dalsegno.kernel.limits import Limits

_ROUNDING_SECONDS = 2e-6


class _Watched(Execution):
    """A run that looks at each timer as it fires."""

    __slots__ = ("early",)

    def deliver(self, entry: Any, at: int) -> None:
        if isinstance(entry, e.TimerFired):
            handle = self.loop._by_timer.get(entry.timer)
            if handle is not None and handle.when_seconds - at / 1e6 > _ROUNDING_SECONDS:
                self.early.append(f"timer {entry.timer} fired {handle.when_seconds - at / 1e6:.6f} s early")
        super().deliver(entry, at)


def runs_of(journal: list[e.Record]) -> list[list[e.Record]]:
    """A journal cut into its runs."""
    runs: list[list[e.Record]] = []
    for record in journal:
        if isinstance(record.entry, e.Started):
            runs.append([])
        runs[-1].append(record)
    return runs


def replayed(id: str, journal: list[e.Record], limits: Limits) -> list[str]:
    """What a replay of an instance says that its journal doesn't."""
    found: list[str] = []
    for run in runs_of(journal):
        found += _replayed(id, run, limits)
    return found


def _replayed(id: str, run: list[e.Record], limits: Limits) -> list[str]:
    started = run[0].entry
    assert isinstance(started, e.Started)
    if len(run) == 1:
        # Written down beside the node, and not begun.
        return []
    specs = {p.spec.name: p.spec for p in workload.PROCESSES}
    spec = specs.get(started.process)
    if spec is None:
        return []
    execution = _Watched(spec, "default", id, limits)
    execution.early = []
    ending = run[-1].entry
    forced = isinstance(ending, e.Ended) and ending.outcome == "terminated"
    try:
        # An end by force is not the process's own word.
        execution.replay(run[:-1] if forced else run)
    except DalsegnoError as error:
        return [f"I13 {id!r} replays differently: {error}"]
    finally:
        said = [item for item in execution.out if isinstance(item, e._Entry)]
        execution.drop()
    found = [f"I11 {id!r}: {text}" for text in execution.early]
    if not forced and (said or (isinstance(ending, e.ENDINGS) and execution.ended is None)):
        found.append(f"I13 {id!r}: replay says {said!r} after {e.kind(ending)}")
    return found
