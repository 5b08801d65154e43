"""Seeds that ever failed: they run first, for ever."""

from __future__ import annotations

import re
from pathlib import Path

from tests.reliability.kills import Round
from tests.reliability.lanes import cut, simulate, strikes_for
from tests.reliability.programs import differences, tree_of
from tests.reliability.workers import preloaded, spread, with_witness

_FILE = Path(__file__).with_name("seeds.txt")
_SEED = re.compile(r"seed (\d+)")


def kept(lane: str) -> list[int]:
    """The seeds of a lane that failed once."""
    lines = _FILE.read_text().splitlines() if _FILE.exists() else []
    pairs = [line.split()[:2] for line in lines if line and not line.startswith("#")]
    return [int(seed) for name, seed in pairs if name == lane]


def keep(lane: str, violations: list[str]) -> None:
    """Write down the seeds that failed now."""
    known = set(kept(lane))
    new = sorted({int(m[1]) for text in violations if (m := _SEED.search(text))} - known)
    if new:
        with _FILE.open("a") as file:
            file.writelines(f"{lane} {seed}\n" for seed in new)


def again(lane: str, seeds: list[int]) -> list[str]:
    """What some seeds of a lane come to."""
    if not seeds or lane == "disk":
        # The disk lane runs all its cases every time.
        return []
    if lane == "power":
        with preloaded():
            return [text for found in spread(_once, [(lane, seed) for seed in seeds]) for text in found]
    return [text for found in spread(_once, [(lane, seed) for seed in seeds]) for text in found]


def _once(job: tuple[str, int]) -> list[str]:
    lane, seed = job
    if lane == "simulation":
        violations: list[str] = simulate(range(seed, seed + 1))["violations"]
        return violations
    if lane == "programs":
        return [f"seed {seed}: {text}" for text in differences(tree_of(seed), [seed, seed + 1])]
    if lane == "power":
        return cut((seed, 100)).violations
    found: list[str] = with_witness(_kill, seed)
    return found


def _kill(seed: int, socket_path: str) -> list[str]:
    violations: list[str] = []
    for point in ("commit.executed", "result.appended", "advance.appended"):
        violations += Round(socket_path, seed, strikes_for(seed, point)).run().violations
    return violations
