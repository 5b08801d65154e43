"""make verify: python -m tests.reliability [--lane NAME] [--seed N] [--seconds N] [--deep]"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.reliability.lanes import LANES, Result
from tests.reliability.planted import BUGS

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
_SECONDS = {"simulation": 60, "kills": 60, "power": 25, "disk": 15, "programs": 25, "planted": 0}


def bound(runs: int) -> str:
    """What so many clean runs say: the rule of three, at 95 %."""
    return f"< {100 * 3 / runs:.3g} %" if runs else "-"


def show(result: Result) -> None:
    """Print a lane's figures and violations."""
    figures = ", ".join(f"{name} {value}" for name, value in result.figures.items())
    print(f"{result.lane:11} {result.seconds:5.0f} s  {figures}", flush=True)
    for text in result.violations[:20]:
        print(f"  VIOLATED {text}", flush=True)


def write_page(results: list[Result], command: str) -> None:
    """The page that holds the last figures."""
    lines = [
        "# Reliability",
        "",
        f"Made by `{command}`. A violated invariant ends the command with 1; a planted bug that is not found does too.",
        "",
        "| lane | what it did | seconds | violations | a violation per run is, with 95 % confidence |",
        "|---|---|---|---|---|",
    ]
    for r in results:
        figures = "; ".join(f"{name}: {value}" for name, value in r.figures.items())
        honest = bound(r.runs) if not r.violations and r.lane != "planted" else "-"
        lines.append(f"| {r.lane} | {figures} | {r.seconds:.0f} | {len(r.violations)} | {honest} |")
    lines += ["", "What each lane does stands in `tests/reliability/lanes.py`, the invariants in"]
    lines += ["`dalsegno/testing/check.py`, the planted bugs in `tests/reliability/planted.py`.", ""]
    PAGE.write_text("\n".join(lines))


def main() -> int:
    """Run the lanes; 1 where anything is violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("--lane", choices=LANES, action="append")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, help="for each lane")
    parser.add_argument("--deep", action="store_true", help="ten times as long")
    parser.add_argument("--plant", choices=BUGS, help="plant a bug first")
    asked = parser.parse_args()
    if asked.plant:
        BUGS[asked.plant][0]()
    results = []
    for name in asked.lane or LANES:
        began = time.monotonic()
        seconds = asked.seconds if asked.seconds is not None else _SECONDS[name] * (10 if asked.deep else 1)
        result = LANES[name](asked.seed, seconds)
        result.seconds = time.monotonic() - began
        results.append(result)
        show(result)
        if asked.plant and result.violations:
            break
    if not asked.lane and not asked.plant:
        write_page(results, "make verify-deep" if asked.deep else "make verify")
    return int(any(result.violations for result in results))


if __name__ == "__main__":
    sys.exit(main())
