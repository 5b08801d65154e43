"""The lane that tests the others: each planted bug has to be found."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from tests.reliability.planted import BUGS
from tests.reliability.report import Result
from tests.reliability.workers import CORES, preloaded

_BOUND_SECONDS = 300.0
_ON_A_DISK = ("power", "disk")


def planting(names: Iterable[str] | None = None) -> Result:
    """Plant each bug in a process of its own."""
    began = time.monotonic()
    wanted = list(names or BUGS)
    with preloaded():
        library = os.environ["LD_PRELOAD"]
        with ThreadPoolExecutor(CORES) as pool:
            found = list(pool.map(lambda name: _plant(name, library), wanted))
    violations = [text for text in found if text is not None]
    figures: dict[str, int | str] = {"bugs": len(wanted), "found": len(wanted) - len(violations)}
    return Result("planted", time.monotonic() - began, 0, figures, violations)


def _plant(name: str, library: str) -> str | None:
    """What is wrong: the bug was not found, or fits the code no more."""
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    if BUGS[name][1] in _ON_A_DISK:
        environment["LD_PRELOAD"] = library
    command = [sys.executable, "-m", "tests.reliability.planted", name]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_BOUND_SECONDS)
    except subprocess.TimeoutExpired:
        return f"{name}: the hunt took longer than {_BOUND_SECONDS:.0f} s"
    if done.returncode == 0:
        return None
    reason = done.stderr.strip().splitlines()[-1:] or ["the lane did not notice it"]
    return f"{name}: not found by {BUGS[name][1]} ({reason[0]})"
