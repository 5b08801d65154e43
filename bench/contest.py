"""Side by side in one run: the contestants take turns, round by round, and medians are compared.

Taking turns spreads whatever else the machine does over all of them.
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec
from rich.table import Table

from bench.conditions import conditions, load
from bench.contestants import Round
from bench.load import Outcome, Sample
from bench.scoreboard import Bar, console, number, save, show_bars, show_conditions
from bench.setup import RESTATE_VERSION, VAR, fetch_restate, has_restate


@dataclass(frozen=True)
class Contestant:
    name: str
    module: str
    durability: str
    variant: str = ""


CONTESTANTS = [
    Contestant("dalsegno", "ours", "SQLite WAL, synchronous=FULL: fsync before a result is seen"),
    Contestant("dalsegno-pg", "ours", "PostgreSQL on the same machine, fsync and synchronous_commit on", "postgres"),
    Contestant("dbos-pg", "dbos_sqlite", "as dalsegno-pg, a pool of 20 connections", "postgres"),
    Contestant("floor", "floor", "SQLite WAL, synchronous=FULL, 5,000 journal rows a commit"),
    Contestant("dbos", "dbos_sqlite", "SQLite rollback journal, synchronous=FULL, as shipped"),
    Contestant("dbos-wal", "dbos_sqlite", "SQLite WAL switched on by us, synchronous=FULL", "wal"),
    Contestant("dbos-async", "dbos_sqlite", "as dbos, in coroutines instead of threads", "async"),
    Contestant("restate", "restate_server", "RocksDB log with WAL fsync, one node, 24 partitions, as shipped"),
    Contestant("restate-1p", "restate_server", "as restate, one partition", "one-partition"),
]
NAMES = [each.name for each in CONTESTANTS]
BY_DEFAULT = [name for name in NAMES if name != "dbos-async"]  # slower than dbos at every concurrency
PACKAGES = ("dalsegno", "uvloop", "msgspec", "dbos", "sqlalchemy", "restate-sdk", "hypercorn")

Outcomes = dict[str, list[Outcome]]


def contest(names: list[str], concurrency: list[int], seconds: float, rounds: int) -> bool:
    VAR.mkdir(parents=True, exist_ok=True)
    chosen = [each for each in CONTESTANTS if each.name in names]
    if any(each.module == "restate_server" for each in chosen):
        if has_restate():
            fetch_restate()
        else:
            console.print("npm is not installed: Restate stays out", style="yellow")
            chosen = [each for each in chosen if each.module != "restate_server"]
    facts = conditions(PACKAGES) | {"restate-server": RESTATE_VERSION, "rounds": f"{rounds} of {seconds:g} s"}
    facts |= {f"durability of {each.name}": each.durability for each in chosen}
    outcomes: Outcomes = {each.name: [] for each in chosen}
    for turn in range(rounds):
        for each in chosen:
            console.print(f"round {turn + 1} of {rounds}: {each.name}", style="dim")
            outcomes[each.name].append(take_turn(each, concurrency, seconds))
    facts["load_after"] = load()
    bars = judge(outcomes, max(concurrency))
    show_conditions(facts)
    show_samples(outcomes)
    show_bars(bars)
    save("contest", facts, bars, outcomes=outcomes)
    return all(bar.cleared for bar in bars)


def take_turn(contestant: Contestant, concurrency: list[int], seconds: float) -> Outcome:
    with tempfile.TemporaryDirectory(dir=VAR, prefix=f"{contestant.name}-") as folder:
        task = msgspec.json.encode(Round(folder, concurrency, seconds, contestant.variant)).decode()
        command = [sys.executable, "-m", f"bench.contestants.{contestant.module}", task]
        answer = subprocess.run(command, capture_output=True, cwd=Path(__file__).parent.parent)
    if answer.returncode:
        raise SystemExit(f"{contestant.name} failed:\n{answer.stderr.decode()[-4000:]}")
    return msgspec.json.decode(answer.stdout.splitlines()[-1], type=Outcome)


def of(outcomes: Outcomes, name: str, concurrency: int) -> list[Sample]:
    rounds = outcomes.get(name, [])
    return [each for outcome in rounds for each in outcome.samples if each.concurrency == concurrency]


def rate(outcomes: Outcomes, name: str, concurrency: int) -> float | None:
    samples = of(outcomes, name, concurrency)
    return median(each.per_second for each in samples) if samples else None


def figure(outcomes: Outcomes, name: str) -> float | None:
    values = [outcome.figures[name] for outcome in outcomes.get("floor", [])]
    return median(values) if values else None


def ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours and theirs else None


def judge(outcomes: Outcomes, most: int) -> list[Bar]:
    ours = rate(outcomes, "dalsegno", most)
    alone = of(outcomes, "dalsegno", 1)
    latency = median(each.p50_ms for each in alone) if alone else None
    commit = figure(outcomes, "bare_commit_p50_ms")
    four_commits = 4 * commit if commit else None
    floor = figure(outcomes, "floor_processes_per_second")
    bars = [
        Bar(f"times {peer} at concurrency {most}", bar, ratio(ours, rate(outcomes, peer, most)), "x")
        for peer, bar in {"dbos": 150, "dbos-wal": 150, "restate": 50, "restate-1p": 50}.items()
        if peer in outcomes
    ]
    on_postgres = ratio(rate(outcomes, "dalsegno-pg", most), rate(outcomes, "dbos-pg", most))
    bars.append(Bar(f"times dbos-pg on the same PostgreSQL at concurrency {most}", 100, on_postgres, "x"))
    bars.append(Bar(f"share of the floor at concurrency {most}", 0.25, ratio(ours, floor)))
    bars.append(Bar("p50 at concurrency 1 over four bare commits", 1.5, ratio(latency, four_commits), "x", True))
    return bars


def show_samples(outcomes: Outcomes) -> None:
    title = "Three-step process, medians over the rounds"
    table = Table("contestant", "in flight", "processes/s", "worst-best", "p50 ms", "p99 ms", title=title)
    for name, rounds in outcomes.items():
        for concurrency in [each.concurrency for each in rounds[0].samples]:
            samples = of(outcomes, name, concurrency)
            rates = sorted(each.per_second for each in samples)
            p50, p99 = median(each.p50_ms for each in samples), median(each.p99_ms for each in samples)
            spread = f"{number(rates[0])}-{number(rates[-1])}"
            table.add_row(name, str(concurrency), number(median(rates)), spread, number(p50), number(p99))
        table.add_section()
    console.print(table)
    for name in outcomes["floor"][0].figures if "floor" in outcomes else ():
        console.print(f"{name.replace('_', ' ')}: {number(figure(outcomes, name) or 0)}")
