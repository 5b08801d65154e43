"""A crash at every point: the process is run once for each, the node dies there, and the next one goes on.

The points are those the engine names in its write path (`dalsegno.kernel.points`): before and after each commit,
each dispatch, each effect, each entry. A crash leaves what was committed, and nothing else.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dalsegno.authoring.process import Process
from dalsegno.testing.life import Crash
from dalsegno.testing.run import LabRun

if TYPE_CHECKING:
    from dalsegno.testing.lab import Lab

_SHOWN_FAILURES = 5

Check = Callable[[LabRun[Any], "Lab"], None]
Script = Callable[["Lab", LabRun[Any]], None]


@dataclass(frozen=True)
class Report:
    """How many crash points were tried, and how long it took."""

    points: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.points} crash points in {self.seconds:.2f} s ({self.points / self.seconds:,.0f}/s)"


class Fuse:
    """Counts the points that a node passes, and ends it at the chosen ones.

    `gaps` are numbers of points to pass before each crash, counted from the crash before.
    """

    def __init__(self, gaps: Sequence[int], wanted: Collection[str] | None = None) -> None:
        self._gaps = list(gaps)
        self._wanted = wanted
        self._passed = 0
        self.names: list[str] = []
        self.died_at: list[str] = []

    def __call__(self, name: str) -> None:
        """Pass a point."""
        if self._wanted is not None and name not in self._wanted:
            return
        if not self._gaps:
            self.names.append(name)
            return
        if self._passed == self._gaps[0]:
            del self._gaps[0]
            self._passed = 0
            self.died_at.append(name)
            raise Crash(name)
        self._passed += 1


@dataclass
class Trial:
    """A process, what happens to it meanwhile, and what must hold in the end."""

    lab: Lab
    process: Process[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    script: Script | None
    setup: Callable[[Lab], None] | None
    check: Check | None
    points: Collection[str] | None

    def play(self, gaps: Sequence[int]) -> tuple[Lab, LabRun[Any], Fuse]:
        """Run once, with crashes after so many points."""
        lab = self.lab.fresh()
        if self.setup is not None:
            self.setup(lab)
        lab.app  # noqa: B018 - the node is up before the first point counts
        fuse = Fuse(gaps, self.points)
        lab.arm(fuse)
        run = lab.start(self.process, *self.args, **self.kwargs)
        if self.script is not None:
            self.script(lab, run)
        lab.until_idle()
        return lab, run, fuse

    def trial(self, gaps: Sequence[int], calm: Calm) -> Exception | None:
        """What a run with crashes does wrong."""
        lab, run, fuse = None, None, None
        try:
            lab, run, fuse = self.play(gaps)
            if not fuse.died_at:
                raise AssertionError("the lab didn't reach this point again: something in the test isn't deterministic")
            calm.compare(run, lab) if self.check is None else self.check(run, lab)
            lab.close()
        except Exception as error:
            if run is not None:
                error.add_note(f"The journal after the crash:\n{run.journal}")
            return error
        finally:
            if lab is not None:
                lab.close(check=False)
        return None


class Calm:
    """A run without crashes: what the others are compared with where the user says nothing."""

    def __init__(self, lab: Lab, run: LabRun[Any], fuse: Fuse) -> None:
        self.names = fuse.names
        self._end = _end(run)
        self._keys = _keys(lab)

    def compare(self, run: LabRun[Any], lab: Lab) -> None:
        """The end is the same, and so are the idempotency keys that the world saw."""
        assert _end(run) == self._end, f"without a crash it ends with {self._end}, now with {_end(run)}"
        assert _keys(lab) == self._keys, f"keys seen without a crash: {self._keys}\nnow: {_keys(lab)}"


def _end(run: LabRun[Any]) -> tuple[str, str, list[str], list[str]]:
    last = run.journal.entries[-1]
    result = bytes(getattr(last, "result", b"")).decode()
    return run.status, result, run.journal.steps, run.journal.undone


def _keys(lab: Lab) -> list[str]:
    return sorted({call.key for call in lab.calls()})


def at_every_entry(
    lab: Lab,
    process: Process[..., Any],
    args: tuple[Any, ...],
    *,
    check: Check | None = None,
    script: Script | None = None,
    setup: Callable[[Lab], None] | None = None,
    points: Collection[str] | None = None,
    **kwargs: Any,
) -> Report:
    """Run a process once for each point at which a node can die; see `Lab.crash_at_every_entry`."""
    trial = Trial(lab, process, args, kwargs, script, setup, check, points)
    begun = time.perf_counter()
    calm = _calm(trial)
    failures = []
    for number in range(len(calm.names)):
        error = trial.trial([number], calm)
        if error is not None:
            failures.append((f"crash point {number + 1} of {len(calm.names)} ({_place(calm.names, number)})", error))
    _report(process, failures, len(calm.names))
    return Report(len(calm.names), time.perf_counter() - begun)


def at_random(
    lab: Lab,
    process: Process[..., Any],
    args: tuple[Any, ...],
    *,
    times: int = 100,
    crashes: int = 3,
    check: Check | None = None,
    script: Script | None = None,
    setup: Callable[[Lab], None] | None = None,
    points: Collection[str] | None = None,
    **kwargs: Any,
) -> Report:
    """Run a process so many times with several crashes each; see `Lab.crash_at_random`."""
    trial = Trial(lab, process, args, kwargs, script, setup, check, points)
    begun = time.perf_counter()
    calm = _calm(trial)
    chance = random.Random(lab.seed)
    failures = []
    for _ in range(times):
        gaps = [chance.randrange(len(calm.names)) for _ in range(crashes)]
        error = trial.trial(gaps, calm)
        if error is not None:
            failures.append((f"crashes after {gaps} points", error))
    _report(process, failures, times)
    return Report(times * crashes, time.perf_counter() - begun)


def _calm(trial: Trial) -> Calm:
    lab, run, fuse = trial.play([])
    try:
        calm = Calm(lab, run, fuse)
        if trial.check is not None:
            trial.check(run, lab)
        lab.close()
    finally:
        lab.close(check=False)
    return calm


def _place(names: list[str], number: int) -> str:
    name = names[number]
    times = names[: number + 1].count(name)
    commits = names[:number].count("commit.after")
    return f"{name}, passed for time {times}, after {commits} commits"


def _report(process: Process[..., Any], failures: list[tuple[str, Exception]], tried: int) -> None:
    if not failures:
        return
    shown = "\n".join(f"- {place}: {type(error).__name__}: {error}" for place, error in failures[:_SHOWN_FAILURES])
    more = f"\n(and {len(failures) - _SHOWN_FAILURES} more)" if len(failures) > _SHOWN_FAILURES else ""
    raise AssertionError(
        f"{process.name} doesn't survive {len(failures)} of {tried} crashes:\n{shown}{more}"
    ) from failures[0][1]
