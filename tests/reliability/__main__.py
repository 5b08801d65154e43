"""`make verify`: run the lanes, say what they came to, and fail if anything broke.

python -m tests.reliability                              every lane, quick
python -m tests.reliability --deep                       the same for an hour
python -m tests.reliability --lane kills --seed 7        one lane, elsewhere
python -m tests.reliability --lane simulation --seed 42 --one     one seed again
"""

from __future__ import annotations

import argparse
import sys

from tests.reliability.lanes import LANES
from tests.reliability.planting import planting
from tests.reliability.report import Result, show, write_page
from tests.reliability.seeds import again, keep, kept

_ALL = [*LANES, "planted"]


def main() -> int:
    """Run what was asked for; the exit code is 0 only if nothing broke."""
    options = _options()
    size = "deep" if options.deep else "test" if options.smoke else "quick"
    if options.one:
        return _one(options.lane[0], options.seed)
    results = []
    for lane in options.lane or _ALL:
        result = planting() if lane == "planted" else LANES[lane][size](options.seed)
        if lane != "planted":
            result.violations = [*again(lane, kept(lane)), *result.violations]
            keep(lane, result.violations)
        show(result)
        results.append(result)
    if not options.lane and not options.smoke:
        write_page(results, size, options.seed)
    return 1 if any(result.violations for result in results) else 0


def _one(lane: str, seed: int) -> int:
    violations = again(lane, [seed])
    show(Result(lane, 0.0, 1, {}, violations))
    return 1 if violations else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__.splitlines()[0])
    parser.add_argument("--lane", action="append", choices=_ALL, help="only this lane; may be given several times")
    parser.add_argument("--seed", type=int, default=1, help="the first seed (default 1)")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="about five minutes on two cores (the default)")
    size.add_argument("--deep", action="store_true", help="about an hour")
    size.add_argument("--smoke", action="store_true", help="a minute, to see that it runs; writes no page")
    parser.add_argument("--one", action="store_true", help="run only the given seed of the lane")
    options = parser.parse_args()
    if options.one and (not options.lane or options.lane[0] == "planted"):
        parser.error("--one needs --lane, and a lane with seeds")
    return options


if __name__ == "__main__":
    sys.exit(main())
