"""What `import dalsegno` costs: its time over a bare interpreter's, and the distributions it brings along.

Interpreters with and without the import take turns, in isolated mode, so that no start-up file of the
machine's is charged to us. The bytecode cache is warm, as it is from a program's second start on.
"""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from statistics import median
from time import perf_counter

from packaging.requirements import Requirement
from rich.table import Table

from bench.conditions import conditions
from bench.scoreboard import Bar, console, save, show_bars, show_conditions

SLOWEST = 12


def start_ms(program: str) -> float:
    began = perf_counter()
    subprocess.run([sys.executable, "-I", "-c", program], check=True)
    return (perf_counter() - began) * 1e3


def import_ms(rounds: int) -> tuple[float, float]:
    start_ms("import dalsegno")  # writes the bytecode
    pairs = [(start_ms("pass"), start_ms("import dalsegno")) for _ in range(rounds)]
    return median(bare for bare, _ in pairs), median(full for _, full in pairs)


def slowest_modules() -> list[tuple[str, float]]:
    """By their own time, children not counted, from `python -X importtime`."""
    command = [sys.executable, "-I", "-X", "importtime", "-c", "import dalsegno"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found = re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", lines)
    return sorted(((name, int(us) / 1e3) for us, name in found), key=lambda each: -each[1])[:SLOWEST]


def needed(distribution: str) -> set[str]:
    """Direct runtime dependencies on this machine, extras left out."""
    demands = [Requirement(text) for text in requires(distribution) or ()]
    return {each.name for each in demands if each.marker is None or each.marker.evaluate({"extra": ""})}


def with_their_own(distribution: str) -> set[str]:
    seen: set[str] = set()
    ahead = needed(distribution)
    while ahead:
        name = ahead.pop()
        seen.add(name.lower())
        try:
            ahead |= {each for each in needed(name) if each.lower() not in seen}
        except PackageNotFoundError:
            continue  # wanted only on other machines
    return seen


def imports(rounds: int) -> bool:
    bare, full = import_ms(rounds)
    direct, every = needed("dalsegno"), with_their_own("dalsegno")
    bars = [
        Bar("import dalsegno, over a bare interpreter", 150, full - bare, "ms", at_most=True),
        Bar("runtime dependencies, theirs included", 10, len(every), at_most=True),
    ]
    facts = conditions() | {"rounds": str(rounds)}
    facts |= {"bare interpreter": f"{bare:.1f} ms", "with import": f"{full:.1f} ms"}
    facts |= {"dependencies": " ".join(sorted(direct)), "with their own": " ".join(sorted(every))}
    slowest = slowest_modules()
    table = Table("module", "own ms", title="Slowest modules")
    for name, ms in slowest:
        table.add_row(name, f"{ms:.2f}")
    show_conditions(facts)
    console.print(table)
    show_bars(bars)
    save("imports", facts, bars, slowest=slowest)
    return all(bar.cleared for bar in bars)
