"""What the rounds came to, in plain words."""

from __future__ import annotations

import html
import shlex
from collections import Counter

import msgspec

from dalsegno.testing.verify.plan import KINDS, Plan
from dalsegno.testing.verify.verdict import Twice
from dalsegno.testing.verify.worker import Found, Reference


class Report(msgspec.Struct, kw_only=True):
    """All figures; `violated` is the first round in which something broke."""

    plan: Plan
    reference: Reference = msgspec.field(default_factory=Reference)
    seconds: float = 0.0
    rounds: int = 0
    disturbed: int = 0
    instances: int = 0
    attempts: int = 0
    faults: Counter[str] = msgspec.field(default_factory=Counter)
    points: Counter[str] = msgspec.field(default_factory=Counter)
    twice: dict[str, Twice] = msgspec.field(default_factory=dict)
    standing: set[str] = msgspec.field(default_factory=set)
    late: set[str] = msgspec.field(default_factory=set)
    violated: Found | None = None

    def began(self) -> None:
        """Look at the undisturbed runs."""
        if self.reference.violations:
            self.violated = Found(self.plan.seed, violations=self.reference.violations)

    def add(self, found: Found) -> None:
        """Count a round in."""
        self.rounds += 1
        self.disturbed += bool(found.struck)
        self.instances += found.instances
        self.attempts += found.attempts
        self.faults.update(strike.kind for strike in found.struck)
        self.points.update(strike.place for strike in found.struck if strike.place)
        self.standing |= found.standing
        self.late |= found.late
        for step, twice in found.twice.items():
            known = self.twice.setdefault(step, Twice())
            known.times += twice.times
            known.asked |= twice.asked
        if found.violations and self.violated is None:
            self.violated = found

    @property
    def is_clean(self) -> bool:
        """Whether nothing broke."""
        return self.violated is None

    @property
    def bound(self) -> float | None:
        """With no violation in n disturbed runs the chance of one is below this, with 95 % confidence."""
        return 3 / self.disturbed if self.is_clean and self.disturbed else None

    # -- words -------------------------------------------------------------------------------------

    def lines(self, again: str) -> list[str]:
        """The report, with the command that is to be repeated where something broke."""
        return [*self._figures(), *self._remarks(), "", *self._outcome(again)]

    def _figures(self) -> list[str]:
        total = self.faults.total()
        rate = f", {total / self.seconds * 60:.0f} a minute" if self.seconds else ""
        lines = [f"{total} faults in {self.rounds} runs of {self.instances} instances, in {self.seconds:.0f} s{rate}:"]
        lines += [f"  {self.faults[kind]:>6} engines {words}" for kind, words in KINDS.items() if self.faults[kind]]
        passed = set(self.reference.passed)
        lines.append(
            f"  struck at {len(set(self.points) & passed)} of the {len(passed)} points of the write path that this "
            "process passes undisturbed"
        )
        lines.append(f"{self.attempts} attempts of steps at the witness")
        if not self.plan.disk:
            lines.append("no disk faults: they need a C compiler called cc")
        return lines

    def _remarks(self) -> list[str]:
        lines = []
        for step, twice in sorted(self.twice.items()):
            asked = "it asks for its step_key()" if twice.asked else "make it idempotent by step_key()"
            lines.append(f"{_named(step)} ran twice with the same key after a kill: {asked} ({twice.times} times)")
        if not self.twice:
            lines.append("no step ran twice")
        for step in sorted(self.late):
            lines.append(
                f"{_named(step)} ran on a node that woke up after another one had taken over: such a call may come "
                "even after its undo, which can leave a mark by which the same step_key() is refused"
            )
        for text in sorted(self.standing):
            lines.append(f"where the process did not complete, this stood: {text}")
        if not self.reference.steady:
            lines.append("ends were not compared: two undisturbed runs came to different ends")
        return lines

    def _outcome(self, again: str) -> list[str]:
        if self.violated is None:
            told = "no fault came in time" if self.bound is None else f"below {self.bound:.2g} (95 %)"
            compared = ", every end is that of an undisturbed run" if self.reference.steady else ""
            return [
                f"No violation: what was acknowledged stayed, every journal replays{compared}.",
                f"{self.disturbed} clean runs with faults: the chance of a violation in one is {told}.",
            ]
        found = self.violated
        where = f"in the run with seed {found.seed}" if found.story else "even without a fault"
        lines = [f"VIOLATION {where}: {found.violations[0]}", *found.story]
        lines += [f"and: {text}" for text in found.violations[1:6]]
        faults = ",".join(str(strike) for strike in found.strikes)
        command = f"{again} --seed {found.seed} --runs 1" + (f" --faults {shlex.quote(faults)}" if faults else "")
        return [*lines, f"this run again: {command}"]

    def page(self, again: str) -> str:
        """The report as a page for a browser."""
        state = "clean" if self.is_clean else "violated"
        body = "\n".join(html.escape(line) for line in self.lines(again))
        points = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{times}</td><td>{self.points[name]}</td></tr>"
            for name, times in sorted(self.reference.passed.items())
        )
        return _PAGE.format(title=html.escape(self.plan.target), state=state, body=body, points=points)

    def data(self, again: str) -> dict[str, object]:
        """The report for programs."""
        return {
            "ok": self.is_clean,
            "runs": self.rounds,
            "seconds": round(self.seconds, 3),
            "instances": self.instances,
            "attempts": self.attempts,
            "faults": dict(self.faults),
            "points": {name: self.points[name] for name in sorted(self.reference.passed)},
            "twice": self.twice,
            "standing": sorted(self.standing),
            "late": sorted(self.late),
            "compared": self.reference.steady,
            "bound": self.bound,
            "violation": self.violated,
            "told": self.lines(again),
        }


def _named(step: str) -> str:
    return f"the undo of {step.removeprefix('undo:')}" if step.startswith("undo:") else step


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>verify {title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }}
pre {{ white-space: pre-wrap; border-left: 4px solid; padding: 0 1rem }}
.clean {{ border-color: #2a7 }} .violated {{ border-color: #c33 }}
td, th {{ padding: 0 1rem 0 0; text-align: left }}
</style>
<h1>{title}</h1>
<pre class="{state}">{body}</pre>
<h2>Points of the write path</h2>
<table><tr><th>point</th><th>passed undisturbed</th><th>struck</th></tr>{points}</table>
</html>
"""
