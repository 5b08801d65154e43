"""What is to be done: inputs, store, seed; and which faults a seed stands for."""

from __future__ import annotations

from random import Random
from typing import Any, Literal

import msgspec

from dalsegno.errors import UsageError
from dalsegno.kernel.points import POINTS

Kind = Literal["kill", "freeze", "kill-after", "fail-sync", "disk-full"]
KINDS: dict[str, str] = {
    "kill": "killed at a named point",
    "kill-after": "killed at a random moment",
    "freeze": "frozen past their lease, woken after a takeover",
    "fail-sync": "stopped by a disk whose sync failed",
    "disk-full": "stopped by a full disk",
}
_MOST_STRIKES = 3
_FULL_AFTER_BYTES = (50_000, 700_000)
_SYNCS = 24
#: there is no lease to lose yet, or the file is being read
_NEVER_FROZEN_AT = ("migrate", "recover", "lease")
#: a life that goes on from a crash passes these, a calm one doesn't
_AFTER_A_CRASH = {"recover.before": 1, "recover.loaded": 1}


class Strike(msgspec.Struct, frozen=True):
    """What ends a life of the engine.

    `place` is a point (kill, freeze), `number` its how manieth passing; the how manieth sync fails; how many bytes
    fit; after how many milliseconds the kill comes.
    """

    kind: Kind
    number: int
    place: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.place}#{self.number}" if self.place else f"{self.kind}:{self.number}"

    def told(self) -> str:
        """In plain words."""
        if self.kind == "kill-after":
            return f"killed after {self.number} ms"
        if self.kind == "fail-sync":
            return f"sync number {self.number} failed"
        if self.kind == "disk-full":
            return f"the disk was full after {self.number} bytes"
        times = "" if self.number == 1 else f", passed for the {self.number}. time"
        return f"{'killed' if self.kind == 'kill' else 'frozen'} at {self.place}{times}"

    @property
    def on_disk(self) -> bool:
        """Whether it is the disk that fails."""
        return self.kind in ("fail-sync", "disk-full")


def read_strikes(text: str) -> list[Strike]:
    """Strikes as `str` writes them, with commas between them. Raises `UsageError`."""
    return [_read(part.strip()) for part in text.split(",") if part.strip()]


def _read(text: str) -> Strike:
    kind, _, rest = text.partition(":")
    place, found, number = rest.rpartition("#")
    if kind not in KINDS or not number.isdecimal() or (kind in ("kill", "freeze")) != bool(found):
        known = "kill:POINT#2, freeze:POINT#1, kill-after:40, fail-sync:7, disk-full:90000"
        raise UsageError(f"--faults {text!r}: write {known}, with commas between them")
    if place and place not in POINTS:
        raise UsageError(f"--faults {text!r}: there is no point {place!r}; there are {', '.join(POINTS)}")
    return Strike(kind, int(number), place)  # type: ignore[arg-type]


class Plan(msgspec.Struct, kw_only=True):
    """What a run of the kit is to do; `target`, `script` and `leftovers` are names of the user's code."""

    target: str
    process: str | None = None
    inputs: list[list[Any]]
    script: str | None = None
    leftovers: str | None = None
    store: str | None = None
    doubles: dict[str, Any] = {}
    seed: int = 1
    lease_seconds: float = 0.3
    patience_seconds: float = 30.0
    #: a program that reads this and serves as a worker
    command: list[str] = []
    #: where the chaos library could be loaded
    disk: bool = False


def strikes_for(seed: int, passed: dict[str, int], disk: bool, calm_seconds: float) -> list[Strike]:
    """The faults of a seed. `passed`: how often a calm run passes each point; each is aimed at in turn."""
    chance = Random(seed)
    points = sorted(name for name in passed if name in POINTS)
    strikes = [_first(seed, chance, points, passed, disk, calm_seconds)]
    anywhere = {**passed, **_AFTER_A_CRASH}
    for _ in range(chance.randint(0, _MOST_STRIKES - 1)):
        point = chance.choice(sorted(anywhere))
        # Less is left to do after each crash.
        strikes.append(Strike("kill", 1 + int(chance.random() * anywhere[point] / 2), point))
    return strikes


def _first(
    seed: int, chance: Random, points: list[str], passed: dict[str, int], disk: bool, calm_seconds: float
) -> Strike:
    point = points[seed % len(points)]
    kind = chance.random()
    if kind < 0.1:
        return Strike("kill-after", 1 + int(chance.random() * calm_seconds * 1000))
    if kind < 0.2 and disk:
        if chance.random() < 0.5:
            return Strike("fail-sync", chance.randint(1, _SYNCS))
        return Strike("disk-full", chance.randint(*_FULL_AFTER_BYTES))
    freeze = kind > 0.88 and not point.startswith(_NEVER_FROZEN_AT)
    return Strike("freeze" if freeze else "kill", chance.randint(1, passed[point]), point)
