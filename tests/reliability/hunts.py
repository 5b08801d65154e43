"""How long each lane looks for a planted bug, and where: in the first worlds of the quick run."""

from __future__ import annotations

import signal
from collections.abc import Callable
from random import Random

from tests.reliability.kills import Round, Strike
from tests.reliability.lanes import cut, fail_disk, simulate, strikes_for
from tests.reliability.programs import differences, tree_of
from tests.reliability.simulated import quiet
from tests.reliability.workers import with_witness

FIRST_SEED = 1


def _in_simulation() -> str | None:
    quiet()
    for seed in range(FIRST_SEED, FIRST_SEED + 3_000):
        if found := simulate(range(seed, seed + 1))["violations"]:
            return str(found[0])
    return None


def _in_programs() -> str | None:
    quiet()
    for seed in range(FIRST_SEED, FIRST_SEED + 300):
        if found := differences(tree_of(seed), [seed, seed + 1]):
            return f"seed {seed}: {found[0]}"
    return None


def _in_kills() -> str | None:
    def work(_: None, socket_path: str) -> str | None:
        for seed in range(FIRST_SEED, FIRST_SEED + 40):
            strikes = strikes_for(seed, "commit.executed")
            strikes.insert(1, Strike("result.appended", 1 + Random(seed).randrange(5), signal.SIGSTOP))
            if found := Round(socket_path, seed, strikes).run().violations:
                return found[0]
        return None

    found: str | None = with_witness(work, None)
    return found


def _in_power() -> str | None:
    for seed in range(FIRST_SEED, FIRST_SEED + 8):
        if found := cut((seed, 60)).violations:
            return found[0]
    return None


def _in_disk() -> str | None:
    for k in range(4, 16):
        if found := fail_disk([(FIRST_SEED, Strike("", 0, fail_sync=k, must=True))]).violations:
            return found[0]
    return None


HUNTS: dict[str, Callable[[], str | None]] = {
    "simulation": _in_simulation,
    "programs": _in_programs,
    "kills": _in_kills,
    "power": _in_power,
    "disk": _in_disk,
}
