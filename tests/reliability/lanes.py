"""The lanes: each runs for a while, counts what it did, and tells every violation with the seed that replays it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import msgspec
from tests.reliability import programs, witness
from tests.reliability.kills import Round, Strike, Tally
from tests.reliability.planted import BUGS
from tests.reliability.power import PowerRound, PowerTally
from tests.reliability.simulation import Simulation

from dalsegno.kernel import points


class Result(msgspec.Struct):
    """What a lane came to. `runs` are what the bound is taken from."""

    lane: str
    runs: int = 0
    figures: dict[str, int | str] = {}
    violations: list[str] = []
    seconds: float = 0.0


@contextmanager
def a_witness() -> Iterator[str]:
    """A witness process and the socket it listens at."""
    with tempfile.TemporaryDirectory(prefix="dalsegno-witness-") as folder:
        path = str(Path(folder) / "socket")
        process = witness.start(path)
        try:
            yield path
        finally:
            process.kill()
            process.wait()


def _seeds(first: int, seconds: float, least: int) -> Iterator[int]:
    """Seeds from the first on until the time is up, at least so many."""
    ends = time.monotonic() + seconds
    seed = first
    while time.monotonic() < ends or seed < first + least:
        yield seed
        seed += 1


def simulation(first: int, seconds: float) -> Result:
    """Simulated worlds on the memory store: crashes, freezes and takeovers at named points."""
    result = Result("simulation")
    faults: Counter[str] = Counter()
    for seed in _seeds(first, seconds, 20):
        world = Simulation(seed)
        result.violations += [f"seed {seed}: {text}" for text in world.run()]
        result.runs += 1
        faults.update(world.faults)
        faults["points passed"] += sum(world.reached.values())
        faults["crashes"] += sum(world.crashed_at.values())
    result.figures = {"worlds": result.runs, **dict(faults)}
    return result


def kills(first: int, seconds: float) -> Result:
    """Real engine processes, killed or frozen at every named point; effects counted by the witness."""
    result, tally = Result("kills"), Tally()
    with a_witness() as path:
        for seed in _seeds(first, seconds, len(points.POINTS)):
            chance = Random(seed)
            strikes = [Strike(points.POINTS[(seed + k) % len(points.POINTS)], chance.randint(1, 12)) for k in range(3)]
            tally.add(Round(path, seed, strikes).run())
    struck = {name for name in points.POINTS if tally.struck.get(name)}
    passed = {name for name in points.POINTS if tally.passed.get(name)}
    result.runs = tally.kills + tally.freezes
    result.violations = list(tally.violations)
    result.figures = {
        "rounds": tally.rounds,
        "kills": tally.kills,
        "freezes past the lease": tally.freezes,
        "effects": tally.effects,
        "effects repeated under the same key": tally.repeated,
        "points declared": len(points.POINTS),
        "points reached": len(passed),
        "points killed at": len(struck),
    }
    missed = sorted(set(points.POINTS) - passed)
    if missed and seconds >= 20:
        result.violations.append(f"points never reached: {', '.join(missed)}")
    return result


def power(first: int, seconds: float) -> Result:
    """Power cuts on SQLite: writes that were not synced are dropped, kept in part, or torn."""
    tally = PowerTally()
    with a_witness() as path:
        for seed in _seeds(first, seconds, 2):
            tally.add(PowerRound(path, seed, images=40, resumed=2).run())
    return Result(
        "power",
        tally.images,
        {
            "runs": tally.runs,
            "writes": tally.writes,
            "syncs": tally.syncs,
            "images": tally.images,
            "acknowledged": tally.acknowledged,
            "resumed": tally.resumed,
        },
        tally.violations,
    )


def disk(first: int, seconds: float) -> Result:
    """The disk fails: the k-th sync returns an error, or no space is left; the node stops by itself."""
    tally = Tally()
    with a_witness() as path:
        for seed in _seeds(first, seconds, 3):
            chance = Random(seed)
            failing = Strike("", 0, fail_sync=1 + seed % 50)
            full = Strike("", 0, full_after=chance.randint(0, 400_000))
            tally.add(Round(path, seed, [failing, full]).run())
    figures: dict[str, int | str] = {"rounds": tally.rounds, "stopped by itself": tally.stopped}
    return Result("disk", tally.rounds, figures, tally.violations)


def random_programs(first: int, seconds: float) -> Result:
    """Random processes: live, crashed, replayed, and on both stores, they come to the same."""
    result = Result("programs")
    crashes = 0
    for seed in _seeds(first, seconds, 10):
        found = programs.differences(programs.tree_of(seed), [2 * seed, 2 * seed + 1])
        result.violations += [f"seed {seed}: {text}" for text in found]
        result.runs += 1
        crashes += 2
    result.figures = {"programs": result.runs, "runs with crashes": crashes}
    return result


def planted(first: int, seconds: float) -> Result:
    """Bugs planted on purpose: the lane that has to find each one does."""
    result = Result("planted")
    for name, (_, lane) in BUGS.items():
        command = [sys.executable, "-m", "tests.reliability", "--plant", name, "--lane", lane, "--seed", str(first)]
        done = subprocess.run([*command, "--seconds", str(_SECONDS_A_BUG)], capture_output=True, text=True)
        result.runs += 1
        if done.returncode != 1:
            result.violations.append(f"the planted bug {name} was not found by the lane {lane}\n{done.stderr[-2000:]}")
    result.figures = {"planted": len(BUGS), "found": len(BUGS) - len(result.violations)}
    return result


_SECONDS_A_BUG = 12
LANES: dict[str, Callable[[int, float], Result]] = {
    "simulation": simulation,
    "kills": kills,
    "power": power,
    "disk": disk,
    "programs": random_programs,
    "planted": planted,
}
