"""The lanes: each runs its worlds over seeds, adds up what they came to, and says what broke."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import count
from random import Random
from typing import Any

from tests.reliability.kills import Round, Strike, Tally
from tests.reliability.power import PowerRound, PowerTally
from tests.reliability.programs import differences, is_racy, tree_of
from tests.reliability.report import Result
from tests.reliability.simulation import Simulation
from tests.reliability.workers import CORES, preloaded, spread, with_witness

from dalsegno.kernel.points import POINTS

#: points that the memory store has not
_ONLY_ON_SQLITE = frozenset({"transaction.before", "transaction.after", "migrate.before", "migrate.after"})
_CRASHES_A_WORLD = 30
_PORTION = 10


# -- simulation ----------------------------------------------------------------------------------------


def simulate(seeds: range) -> dict[str, Any]:
    """Some simulated worlds."""
    reached, crashed, faults = Counter[str](), Counter[str](), Counter[str]()
    violations: list[str] = []
    seconds = effects = 0.0
    for seed in seeds:
        # A world without crashes now and then: a restart mends what was only forgotten in memory.
        world = Simulation(seed, _CRASHES_A_WORLD if seed % 4 else 0)
        violations += [f"seed {seed}: {text}" for text in world.run()]
        reached.update(world.reached)
        crashed.update(world.crashed_at)
        faults.update(world.faults)
        seconds += world.clock.elapsed_seconds
        effects += len(world.world.effects)
    return {
        "worlds": len(seeds), "reached": reached, "crashed": crashed, "faults": faults, "virtual": seconds,
        "effects": effects, "violations": violations,
    }  # fmt: skip


def simulation(seed: int, crashes: int) -> Result:
    """Worlds until so many crashes have happened."""
    began = time.monotonic()
    reached, crashed, faults = Counter[str](), Counter[str](), Counter[str]()
    total: Counter[str] = Counter()
    violations: list[str] = []

    def portions() -> Any:
        for number in count():
            if sum(crashed.values()) >= crashes:
                return
            yield range(seed + number * _PORTION, seed + (number + 1) * _PORTION)

    for found in spread(simulate, portions()):
        reached.update(found["reached"])
        crashed.update(found["crashed"])
        faults.update(found["faults"])
        total.update({name: found[name] for name in ("worlds", "virtual", "effects")})
        violations += found["violations"]
    declared = [point for point in POINTS if point not in _ONLY_ON_SQLITE]
    violations += [f"no crash ever happened at {point}" for point in declared if not crashed[point]]
    figures: dict[str, int | str] = {
        "worlds": int(total["worlds"]),
        "crashes": faults["crash"],
        "points with a crash": f"{sum(crashed[p] > 0 for p in declared)} of {len(declared)}",
        "frozen nodes": faults["freeze"],
        "of them fenced after a takeover": faults["fenced"],
        "effects": int(total["effects"]),
        "virtual hours": int(total["virtual"] / 3600),
    }
    return Result("simulation", time.monotonic() - began, faults["crash"] + faults["freeze"], figures, violations)


# -- kill -9 -------------------------------------------------------------------------------------------


def strikes_for(seed: int, point: str) -> list[Strike]:
    """What ends the lives of a round: the first at the given point, the others anywhere."""
    chance = Random(seed)
    passing = 1 + int(chance.expovariate(1 / 5)) if not point.startswith(("lease", "migrate", "recover")) else 1
    strikes = [Strike(point, passing)]
    for _ in range(chance.randint(2, 4)):
        kind = chance.random()
        if kind < 0.15:
            strikes.append(Strike("", 0, after_seconds=0.02 + chance.random() * 0.2))
        elif kind < 0.25:
            strikes.append(Strike(chance.choice(_FREEZING), 1 + int(chance.expovariate(1 / 5)), signal.SIGSTOP))
        else:
            strikes.append(Strike(chance.choice(POINTS), 1 + int(chance.expovariate(1 / 3))))
    return strikes


#: a node that has no lease yet, or is just reading what is there, can't be frozen out of anything
_FREEZING = [point for point in POINTS if not point.startswith(("migrate", "recover", "lease"))]


def kill(jobs: list[tuple[int, str]]) -> Tally:
    """Some rounds of kills, each with a point that the first kill is meant for."""

    def work(jobs: list[tuple[int, str]], socket_path: str) -> Tally:
        tally = Tally()
        for seed, point in jobs:
            tally.add(Round(socket_path, seed, strikes_for(seed, point)).run())
        return tally

    return with_witness(work, jobs)


def kills(seed: int, each: int) -> Result:
    """Kills until every point has had its share of rounds, and those never struck a few more."""
    began = time.monotonic()
    total = Tally()
    for jobs in _rounds(seed, each, total):
        # They wait more than they work.
        for tally in spread(kill, jobs, 2 * CORES):
            total.add(tally)
    never = [point for point in POINTS if not total.struck.get(point)]
    total.violations += [f"no kill ever happened at {point}" for point in never]
    figures: dict[str, int | str] = {
        "rounds": total.rounds,
        "kills": total.kills,
        "points with a kill": f"{len(POINTS) - len(never)} of {len(POINTS)}",
        "fewest kills at a point": min(total.struck.get(point, 0) for point in POINTS),
        "frozen nodes": total.freezes,
        "of them fenced after a takeover": total.fenced,
        "effects at the witness": total.effects,
        "of them repeated after a kill": total.repeated,
    }
    return Result("kills", time.monotonic() - began, total.kills + total.freezes, figures, total.violations)


def _rounds(seed: int, each: int, total: Tally) -> Any:
    order = [(seed + number, point) for number, point in enumerate(POINTS * each)]
    yield [order[i : i + 8] for i in range(0, len(order), 8)]
    for again in range(4):
        missed = [point for point in POINTS if not total.struck.get(point)]
        yield [[(seed + 100_000 * (again + 1) + n, point)] for n, point in enumerate(missed * 4)]


# -- power and disk ------------------------------------------------------------------------------------


def cut(job: tuple[int, int]) -> PowerTally:
    """One run and power cuts along it; every fifth has had a sync that failed before."""

    def work(job: tuple[int, int], socket_path: str) -> PowerTally:
        seed, images = job
        failing = Random(seed).randint(4, 20) if seed % 5 == 0 else 0
        return PowerRound(socket_path, seed, images, 2, failing).run()

    return with_witness(work, job)


def power(seed: int, runs: int, images: int) -> Result:
    """Power cuts."""
    began = time.monotonic()
    total = PowerTally()
    with preloaded():
        for tally in spread(cut, [(seed + number, images) for number in range(runs)]):
            total.add(tally)
    figures: dict[str, int | str] = {
        "runs": total.runs,
        "writes": total.writes,
        "syncs": total.syncs,
        "images": total.images,
        "acknowledgements looked up": total.acknowledged,
        "images on which the engine went on to the end": total.resumed,
    }
    return Result("power", time.monotonic() - began, total.images, figures, total.violations)


def fail_disk(jobs: list[tuple[int, Strike]]) -> Tally:
    """Some rounds on a disk that fails."""

    def work(jobs: list[tuple[int, Strike]], socket_path: str) -> Tally:
        tally = Tally()
        for seed, strike in jobs:
            one = Round(socket_path, seed, [strike])
            one.beside = []
            found = one.run()
            if strike.must and not found.stopped:
                found.violations.append(f"seed {seed}: the node did not stop at {strike}")
            tally.add(found)
        return tally

    return with_witness(work, jobs)


def disk(seed: int, syncs: int, sizes: int) -> Result:
    """Each of the first syncs fails once; the disk is full after so many bytes."""
    began = time.monotonic()
    total = Tally()
    jobs = [(seed + k, Strike("", 0, fail_sync=k, must=k <= 15)) for k in range(1, syncs + 1)]
    jobs += [(seed + k, Strike("", 0, full_after=k * 70_000)) for k in range(sizes)]
    with preloaded():
        for tally in spread(fail_disk, [jobs[i : i + 4] for i in range(0, len(jobs), 4)]):
            total.add(tally)
    figures: dict[str, int | str] = {
        "failed syncs": syncs,
        "full disks": sizes,
        "nodes that stopped": total.stopped,
        "effects at the witness": total.effects,
    }
    return Result("disk", time.monotonic() - began, total.stopped, figures, total.violations)


# -- programs ------------------------------------------------------------------------------------------


def run_programs(seeds: range) -> dict[str, Any]:
    """Some random programs."""
    violations: list[str] = []
    racy = 0
    for seed in seeds:
        tree = tree_of(seed)
        racy += is_racy(tree)
        violations += [f"seed {seed}: {text}" for text in differences(tree, [seed, seed + 1])]
    return {"programs": len(seeds), "racy": racy, "violations": violations}


def programs(seed: int, number: int) -> Result:
    """Random programs, run in every way."""
    began = time.monotonic()
    total: Counter[str] = Counter()
    violations: list[str] = []
    portions = [range(seed + i, seed + min(i + _PORTION, number)) for i in range(0, number, _PORTION)]
    for found in spread(run_programs, portions):
        total.update({"programs": found["programs"], "racy": found["racy"]})
        violations += found["violations"]
    figures: dict[str, int | str] = {
        "programs": total["programs"],
        "ways each is run": 4,
        "compared in full": total["programs"] - total["racy"],
    }
    return Result("programs", time.monotonic() - began, total["programs"], figures, violations)


LANES: dict[str, dict[str, Callable[[int], Result]]] = {
    "simulation": {
        "test": partial(simulation, crashes=3_000),
        "quick": partial(simulation, crashes=100_000),
        "deep": partial(simulation, crashes=2_000_000),
    },
    "kills": {"test": partial(kills, each=1), "quick": partial(kills, each=7), "deep": partial(kills, each=150)},
    "power": {
        "test": partial(power, runs=4, images=50),
        "quick": partial(power, runs=24, images=100),
        "deep": partial(power, runs=200, images=100),
    },
    "disk": {
        "test": partial(disk, syncs=8, sizes=4),
        "quick": partial(disk, syncs=32, sizes=12),
        "deep": partial(disk, syncs=60, sizes=60),
    },
    "programs": {
        "test": partial(programs, number=40),
        "quick": partial(programs, number=1_000),
        "deep": partial(programs, number=20_000),
    },
}
