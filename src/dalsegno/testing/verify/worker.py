"""A worker of the kit: runs undisturbed first, then one round for each seed it is given, and says what it came to."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import msgspec

from dalsegno.testing import witness
from dalsegno.testing.check import Dump
from dalsegno.testing.verify.place import Place
from dalsegno.testing.verify.plan import Plan, Strike, strikes_for
from dalsegno.testing.verify.replayer import Replayer
from dalsegno.testing.verify.round import Round
from dalsegno.testing.verify.target import Target
from dalsegno.testing.verify.verdict import End, Twice, Verdict


class Job(msgspec.Struct):
    """What a worker is told: a seed, and its faults where they are not to be drawn."""

    seed: int
    strikes: list[Strike] | None = None


class Found(msgspec.Struct):
    """What one round came to. `strikes`, all that were meant; `struck`, those that came."""

    seed: int
    strikes: list[Strike] = []
    struck: list[Strike] = []
    attempts: int = 0
    instances: int = 0
    twice: dict[str, Twice] = {}
    standing: set[str] = set()
    late: set[str] = set()
    violations: list[str] = []
    story: list[str] = []


class Reference(msgspec.Struct):
    """What undisturbed runs came to. `steady`: twice to the same; `refused`: why nothing can be verified."""

    ends: list[End] = []
    steady: bool = True
    passed: dict[str, int] = {}
    seconds: float = 0.0
    refused: str = ""
    violations: list[str] = []


def serve(target: Target, plan: Plan, orders: BinaryIO, answers: BinaryIO) -> None:
    """Do what comes in, line by line."""
    replayer = Replayer(plan.command, msgspec.json.encode(plan))
    with _witness() as path:
        kit = Kit(target, plan, path, replayer.replay)
        _say(answers, kit.undisturbed())
        for line in orders:
            _say(answers, kit.disturbed(msgspec.json.decode(line, type=Job)))
    replayer.close()


def _say(answers: BinaryIO, value: Any) -> None:
    answers.write(msgspec.json.encode(value) + b"\n")
    answers.flush()


@contextmanager
def _witness() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="dalsegno-witness-") as folder:
        process = witness.start(f"{folder}/socket")
        try:
            yield f"{folder}/socket"
        finally:
            process.kill()
            process.wait()


class Kit:
    """What a worker works with."""

    def __init__(self, target: Target, plan: Plan, witness_path: str, replay: Callable[[Dump], list[str]]) -> None:
        self._target = target
        self._plan = plan
        self._witness_path = witness_path
        self._replay = replay
        self._reference = Reference()

    @contextmanager
    def _round(self, seed: int) -> Iterator[Round]:
        place = Place()
        try:
            yield Round(self._target, self._plan, place, self._witness_path, seed)
        finally:
            place.clear()

    def undisturbed(self) -> Reference:
        """Run twice without a fault: what the others are compared with."""
        found = self._reference
        for seed in (-2, -1):
            with self._round(seed) as round:
                began = time.monotonic()
                round.live_all([])
                found.seconds = time.monotonic() - began
                if round.broken:
                    found.refused = round.broken[0]
                    return found
                verdict = Verdict(round, self._replay)
                found.violations += verdict.violations(None)
                ends = list(verdict.ends().values())
                found.steady = found.steady and found.ends in ([], ends)
                found.ends, found.passed = ends, round.passed
        return found

    def disturbed(self, job: Job) -> Found:
        """One round with faults."""
        known = self._reference
        strikes = job.strikes
        if strikes is None:
            strikes = strikes_for(job.seed, known.passed, self._plan.disk, known.seconds)
        with self._round(job.seed) as round:
            round.live_all(strikes)
            verdict = Verdict(round, self._replay)
            found = Found(job.seed, strikes, [strike for _, strike in round.struck])
            found.attempts, found.instances = len(verdict.seen), len(round.ids)
            found.twice, found.standing, found.late = verdict.twice(), verdict.standing(), verdict.late()
            found.violations = verdict.violations(dict(enumerate(known.ends)) if known.steady else None)
            found.story = verdict.story() if found.violations else []
            return found


def quiet_streams() -> BinaryIO:
    """Keep what the user's code prints out of the answers; returns where those go."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    return answers
