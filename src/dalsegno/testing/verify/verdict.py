"""What three witnesses say of a round, and whether it fits together and equals a run that nothing disturbed."""

from __future__ import annotations

import asyncio
import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from dalsegno.contracts import codec
from dalsegno.kernel import entries as e
from dalsegno.testing.check import Dump, Effect, History
from dalsegno.testing.check_journal import discarded_in, instance_of, outcomes_of
from dalsegno.testing.evidence import calls_in
from dalsegno.testing.verify.round import Round, lines_of


class Seen(msgspec.Struct, frozen=True):
    """An attempt as the witness saw it begin."""

    life: int
    key: str
    attempt: int
    token: str
    step: str
    executor: str
    undo: bool
    when: float


class Left(msgspec.Struct, frozen=True):
    """An attempt as the witness saw it end."""

    key: str
    attempt: int
    outcome: str
    asked: bool


class End(msgspec.Struct, frozen=True):
    """What an instance came to."""

    outcome: str
    result: str
    undone: tuple[str, ...]
    left: str

    def differences(self, other: End) -> Iterator[str]:
        """Where this end, after faults, differs from an undisturbed one."""
        if self.outcome != other.outcome:
            yield f"it ended as {self.outcome}; undisturbed: {other.outcome}"
            return
        if self.result != other.result:
            yield f"its result is {self.result}; undisturbed: {other.result}"
        if sorted(self.undone) != sorted(other.undone):
            yield f"undone were {_listed(self.undone)}; undisturbed: {_listed(other.undone)}"
        elif self.undone != other.undone:
            yield f"it was undone in the order {_listed(self.undone)}; undisturbed: {_listed(other.undone)}"
        if self.left != other.left:
            yield f"it left {self.left} behind; undisturbed: {other.left}"


class Twice(msgspec.Struct):
    """A step whose attempt ran more than once under the same key, each time after a recorded fault."""

    times: int = 0
    asked: bool = False


class _History(History):
    """The users' business rows are their own."""

    def booked(self) -> Iterator[str]:
        return iter(())


class Verdict:
    """The verdict on one round. `replay` says what a replay of journals, in another process, does otherwise."""

    def __init__(self, round: Round, replay: Callable[[Dump], list[str]]) -> None:
        self._replay = replay
        self._round = round
        folder = round.place.folder
        self.seen: list[Seen] = lines_of(folder / "effects.jsonl", Seen)
        self._ended: list[Left] = lines_of(folder / "endings.jsonl", Left)
        # A transaction takes effect with its commit, not when its function runs.
        booked = {one.key: 1 for one in self.seen if one.executor == "transaction"}
        if round.dumps:
            round.dumps[-1].ledger = booked
        self._acts = [one for one in self.seen if one.executor != "transaction"]
        effects = [Effect(one.life, one.key, one.attempt, one.token) for one in self._acts]
        self.history = _History(round.dumps, effects, calls_in(folder), {}, set())

    def violations(self, reference: dict[int, End] | None) -> list[str]:
        """What is broken; `reference`, the undisturbed ends by the number of the input, where they can be compared."""
        if self._round.broken:
            return self._round.broken
        found = [*self._replay(self._round.dumps[-1]), *self.history.violations()]
        for number, (id, end) in enumerate(self.ends().items()):
            if end.outcome.startswith("not at its end"):
                found.append(f"{id!r} is {end.outcome}")
            elif reference is not None:
                found += [f"{id!r}: {text}" for text in end.differences(reference[number])]
        return found

    def ends(self) -> dict[str, End]:
        """What each instance came to."""
        return {id: self._end(id, self.history.journals.get(id, [])) for id in self._round.ids}

    def _end(self, id: str, journal: list[e.Record]) -> End:
        ended = next((r.entry for r in reversed(journal) if isinstance(r.entry, e.Ended)), None)
        left = self._left(id)
        if ended is None:
            return End(f"not at its end: {self._round.dumps[-1].statuses.get(id, 'unknown')}", "", (), left)
        failure = f" ({ended.error.type})" if ended.error is not None else ""
        result = bytes(ended.result).decode().replace(id, "ID")
        return End(ended.outcome + failure, result, tuple(undone_in(id, journal)), left)

    def _left(self, id: str) -> str:
        leftovers = self._round.target.leftovers
        if leftovers is None:
            return ""
        found = leftovers(id)
        if inspect.isawaitable(found):
            found = asyncio.run(_awaited(found))
        return codec.encode(found, "leftovers").decode().replace(id, "ID")

    # -- what is told without being a violation ----------------------------------------------------

    def twice(self) -> dict[str, Twice]:
        """Steps that ran again under the same key."""
        by_attempt: dict[tuple[str, int], list[Seen]] = defaultdict(list)
        for one in self._acts:
            by_attempt[one.key, one.attempt].append(one)
        found: dict[str, Twice] = defaultdict(Twice)
        for seen in by_attempt.values():
            if len(seen) > 1:
                found[seen[0].step].times += len(seen) - 1
        asking = {one.key for one in self._ended if one.asked}
        for one in self._acts:
            if one.step in found and one.key in asking:
                found[one.step].asked = True
        return dict(found)

    def late(self) -> set[str]:
        """Steps that a woken node ran although another one had taken over: it can't know before it asks."""
        folder = self._round.place.folder
        over = {
            life: (folder / f"began-{life + 1}").stat().st_mtime
            for life, strike in self._round.struck
            if strike.kind == "freeze" and (folder / f"began-{life + 1}").exists()
        }
        return {one.step for one in self._acts if one.life in over and one.when > over[one.life]}

    def standing(self) -> set[str]:
        """Steps that took effect and were not undone although their instance did not complete."""
        by_key = {one.key: one for one in self._acts}
        found = set()
        for id, journal in self.history.journals.items():
            ended = next((r.entry for r in reversed(journal) if isinstance(r.entry, e.Ended)), None)
            if ended is None or ended.outcome == "completed":
                continue
            undone = set(undone_in(id, journal))
            for outcome in outcomes_of(id, journal):
                seen = by_key.get(outcome.key)
                if seen is None or outcome.entry.step in undone or seen.step.startswith("undo:"):
                    continue
                if isinstance(outcome.entry, e.StepCompleted):
                    found.add(f"{seen.step} ({'its undo did not run' if seen.undo else 'it has no undo'})")
                elif not isinstance(outcome.entry, e.AttemptFailed) and outcome.entry.unknown:
                    found.add(f"{seen.step}, which may have taken effect ({_remedy(seen)})")
        return found

    def story(self) -> list[str]:
        """The round in order: faults, and what the witness saw in each life."""
        lines = []
        strikes = dict(self._round.struck)
        for life in range(len(self._round.dumps)):
            ran = [f"{instance_of(one.key)}: {one.step}" for one in self.seen if one.life == life]
            shown = ", ".join(ran[:12]) + (f" and {len(ran) - 12} more" if len(ran) > 12 else "")
            how = strikes[life].told() if life in strikes else "it was left alone"
            lines.append(f"life {life + 1} of the engine ran {shown or 'nothing'}; then {how}")
        return lines


def _remedy(seen: Seen) -> str:
    return f"@{seen.step}.undo(even_if_unknown=True) would undo it" if seen.undo else "it has no undo"


async def _awaited(work: Any) -> Any:
    return await work


def undone_in(id: str, journal: list[e.Record]) -> list[str]:
    """What was undone, in order."""
    discarded = discarded_in(journal)
    return [
        outcome.entry.step.removeprefix("undo:")
        for outcome in outcomes_of(id, journal)
        if outcome.entry.step.startswith("undo:")
        and outcome.seq not in discarded
        and isinstance(outcome.entry, e.StepCompleted)
    ]


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "nothing"
