"""A crash at every point: the process is run once for each, the node dies there, and the next one goes on.

The points are those the engine names in its write path (`dalsegno.kernel.points`): before and after each commit,
each dispatch, each effect, each entry. A crash leaves what was committed, and nothing else.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dalsegno.authoring.process import Process
from dalsegno.engine import interpreter
from dalsegno.testing.life import Crash
from dalsegno.testing.run import LabRun

if TYPE_CHECKING:
    from dalsegno.testing.lab import Lab

_SHOWN_FAILURES = 5

Check = Callable[[LabRun[Any], "Lab"], Any]
Script = Callable[["Lab", LabRun[Any]], Any]
Setup = Callable[["Lab"], Any]


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
    setup: Setup | None
    check: Check | None
    points: Collection[str] | None

    def at_every_point(self) -> Report:
        """Crash once at each point that a calm run passes."""
        begun = time.perf_counter()
        calm = self._calm()
        with tuned():
            failures = [
                (f"crash point {number + 1} of {len(calm.names)} ({calm.place(number)})", error)
                for number in range(len(calm.names))
                if (error := self._crashed([number], calm)) is not None
            ]
        self._report(failures, len(calm.names))
        return Report(len(calm.names), time.perf_counter() - begun)

    def at_random(self, times: int, crashes: int) -> Report:
        """Crash several times in each run."""
        begun = time.perf_counter()
        calm = self._calm()
        chance = random.Random(self.lab.seed)
        failures = []
        with tuned():
            for _ in range(times):
                gaps = [chance.randrange(len(calm.names)) for _ in range(crashes)]
                error = self._crashed(gaps, calm)
                if error is not None:
                    failures.append((f"crashes {', '.join(str(gap) for gap in gaps)} points after each other", error))
        self._report(failures, times)
        return Report(times * crashes, time.perf_counter() - begun)

    def _play(self, lab: Lab, gaps: Sequence[int]) -> tuple[LabRun[Any], Fuse]:
        """Run once, with crashes after so many points."""
        if self.setup is not None:
            self.setup(lab)
        fuse = Fuse(gaps, self.points)
        lab.arm(fuse)
        run = lab.start(self.process, *self.args, **self.kwargs)
        if self.script is not None:
            self.script(lab, run)
        lab.until_idle()
        return run, fuse

    def _calm(self) -> Calm:
        with self.lab.fresh() as lab:
            run, fuse = self._play(lab, [])
            if self.check is not None:
                self.check(run, lab)
            return Calm(lab, run, fuse)

    def _crashed(self, gaps: Sequence[int], calm: Calm) -> Exception | None:
        """What a run with crashes does wrong."""
        lab = self.lab.fresh()
        try:
            with lab:
                run, fuse = self._play(lab, gaps)
                if not fuse.died_at:
                    raise AssertionError("this point wasn't reached again: something in the test isn't deterministic")
                if self.check is None:
                    calm.compare(run, lab)
                else:
                    self.check(run, lab)
        except Exception as error:
            error.add_note("\n".join(f"The journal of {id!r}:\n{lab.get(id).journal}" for id in lab.ids()[:3]))
            return error
        return None

    def _report(self, failures: list[tuple[str, Exception]], tried: int) -> None:
        if not failures:
            return
        shown = "\n".join(f"- {place}: {type(error).__name__}: {error}" for place, error in failures[:_SHOWN_FAILURES])
        more = f"\n(and {len(failures) - _SHOWN_FAILURES} more)" if len(failures) > _SHOWN_FAILURES else ""
        text = f"{self.process.name} doesn't survive {len(failures)} of {tried} crashes:\n{shown}{more}"
        raise AssertionError(text) from failures[0][1]


@contextlib.contextmanager
def tuned() -> Iterator[None]:
    """Keep the interpreter tuned from one node to the next: each change of the collector costs a look."""
    interpreter.tune()
    try:
        yield
    finally:
        interpreter.restore()


class Calm:
    """A run without crashes: what the others are compared with where the user says nothing."""

    def __init__(self, lab: Lab, run: LabRun[Any], fuse: Fuse) -> None:
        self.names = fuse.names
        self._end = _end(run)
        self._keys = _keys(lab)

    def place(self, number: int) -> str:
        """Where a point lies in the run."""
        name = self.names[number]
        times = self.names[: number + 1].count(name)
        commits = self.names[:number].count("commit.after")
        return f"{name}, passed for the {times}. time, after {commits} commits"

    def compare(self, run: LabRun[Any], lab: Lab) -> None:
        """The end is the same, and so are the idempotency keys that the world saw."""
        assert _end(run) == self._end, f"without a crash it ends with {self._end}, now with {_end(run)}"
        assert _keys(lab) == self._keys, f"keys seen without a crash: {self._keys}\nnow: {_keys(lab)}"


def _end(run: LabRun[Any]) -> tuple[str, str, list[str], list[str]]:
    journal = run.journal
    result = bytes(getattr(journal.entries[-1], "result", b"")).decode()
    return run.status, result, journal.steps, journal.undone


def _keys(lab: Lab) -> list[str]:
    return sorted({call.key for call in lab.calls()})
