"""What a run of the lanes came to, as lines on the screen and as docs/reliability.md."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import msgspec

_PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
_ABOUT = {
    "simulation": "The real node on the memory store and on virtual time: it dies at a named point, or freezes until "
    "another node has taken over, again and again, while clients go on asking, some of them from beside the node.",
    "kills": "A real engine process on a real file: `kill -9` at every named point of the write path and at random "
    "moments, and `SIGSTOP` until another process has taken over. Effects are counted by a witness, a process of its "
    "own with a file of its own.",
    "power": "The file as power cuts may have left it: what was synced is there, and of what was not, any part, torn "
    "at 512 bytes. Each image must be sound and hold what was acknowledged; on some the engine goes on to the end.",
    "disk": "A sync that fails, for each of the first syncs in turn, and a disk that is full: the node stops, and "
    "after a restart nothing is lost.",
    "programs": "Random processes (nested gathers, groups, sagas, time-outs, events, children, failures) run without "
    "a crash, with crashes, on both stores, and replayed: the same result, effects, undone steps and journal.",
    "planted": "Bugs planted on purpose in the engine, the kernel and the stores; each lane must find its own.",
}


class Result(msgspec.Struct):
    """What one lane came to. `runs` counts the independent chances at which an invariant could have broken."""

    lane: str
    seconds: float
    runs: int
    figures: dict[str, int | str]
    violations: list[str] = []

    @property
    def bound(self) -> str:
        """With no violation in n runs, the chance of one in a run is below 3/n (95 %)."""
        return "none" if self.violations or not self.runs else f"< {3 / self.runs:.2g}"

    def lines(self) -> list[str]:
        """For the screen."""
        figures = ", ".join(f"{value} {name}" for name, value in self.figures.items())
        head = f"{self.lane:<11} {self.seconds:6.1f} s  {len(self.violations)} violations  {figures}"
        return [head, f"{'':<19} chance of a violation in one run {self.bound} (95 %)", *self.violations[:20]]


def show(result: Result) -> None:
    """Print a lane's lines."""
    sys.stdout.write("\n".join(result.lines()) + "\n")
    sys.stdout.flush()


def write_page(results: list[Result], size: str, seed: int) -> None:
    """Write the last figures down for readers."""
    parts = [
        "# Reliability",
        "",
        "<!-- Written by `make verify`: don't edit. -->",
        "",
        f"The figures of the last run (`make verify`, size {size}, seed {seed}, Python "
        f"{platform.python_version()}). A lane fails on any violation of the invariants below; *bound* is what n clean "
        "runs allow to be said: the chance of a violation in one run is below 3/n, with 95 % confidence.",
        "",
        "| lane | seconds | violations | runs | bound |",
        "|---|---:|---:|---:|---:|",
    ]
    parts += [f"| {r.lane} | {r.seconds:.0f} | {len(r.violations)} | {r.runs:,} | {r.bound} |" for r in results]
    for result in results:
        parts += ["", f"## {result.lane.capitalize()}", "", _ABOUT[result.lane], ""]
        parts += [f"- {name}: {_number(value)}" for name, value in result.figures.items()]
        parts += [f"- violated: {text}" for text in result.violations]
    parts += ["", *_INVARIANTS.splitlines(), ""]
    _PAGE.write_text("\n".join(parts))


def _number(value: int | str) -> str:
    return f"{value:,}" if isinstance(value, int) else value


_INVARIANTS = """## Invariants

Three witnesses that share neither code nor storage: the clients' log, the world where effects take place, and the
journals as they lay on disk at the end of each life of the engine.

| | |
|---|---|
| I1 | What was acknowledged to a client is durable, after any crash. |
| I2 | Journals only grow: each one extends the one before, byte for byte. |
| I4 | One id, one instance: of many starts at once with different inputs one wins. |
| I5 | A transaction's business row and its journal entry are both there, once, or neither. |
| I6 | A journaled step took effect. Effects repeat only under the same key and if they were in flight at a crash. |
| | What an effect was built on was durable before it took place. |
| I7 | A node that lost its lease writes nothing, and stops. |
| I8 | A saga undoes what it completed, in reverse order, each once; nothing where it succeeds. |
| I9 | Nothing follows an instance's end. |
| I10 | An event is received once by each wait, and never lost for being early. |
| I11 | No timer fires before its time, and none is lost. |
| I13 | A replayed journal says nothing new; both stores hold the same journal. |
| I16 | Once nothing fails any more, everything asked for ends. |
| I18 | The same program comes to the same result, effects and undone steps, with crashes and without. |

A seed that ever failed is kept in `tests/reliability/seeds.txt` and runs first, for ever. One seed again:
`python -m tests.reliability --lane simulation --seed 42 --one`."""
