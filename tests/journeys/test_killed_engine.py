"""A real engine is killed while it works, started again, and goes on: nothing is lost, nothing is done twice unseen."""

import asyncio
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from killed_engine import PROCESSES

from dalsegno import App


class Engine:
    """The engine as a program on a database of its own."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "engine.db"
        self.marks_file = folder / "marks.txt"
        self.log = (folder / "engine.log").open("ab")
        self.kills = 0

    def start(self, name: str, count: int) -> subprocess.Popen[bytes]:
        program = Path(__file__).with_name("killed_engine.py")
        return subprocess.Popen(
            [sys.executable, str(program), str(self.database), name, str(count)],
            env={**os.environ, "MARKS": str(self.marks_file), "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=self.log,
        )

    def run(self, name: str, count: int) -> None:
        """To the end."""
        code = self.start(name, count).wait(60)
        assert code == 0, Path(self.log.name).read_text()[-3000:]

    def run_and_kill(self, name: str, count: int, after: int) -> bool:
        """Kill it once it has left so many further marks; false where it ended before."""
        before = len(self.marks())
        engine = self.start(name, count)
        until = time.monotonic() + 60
        try:
            while engine.poll() is None and len(self.marks()) < before + after:
                assert time.monotonic() < until, "the engine hangs"
                time.sleep(0.001)
        finally:
            if engine.poll() is None:
                engine.send_signal(signal.SIGKILL)
                self.kills += 1
        return engine.wait() != 0

    def marks(self, kind: str = "") -> list[str]:
        if not self.marks_file.exists():
            return []
        lines = self.marks_file.read_text().splitlines()
        return [line for line in lines if line.startswith(kind)]

    def rows(self, query: str) -> list[Any]:
        connection = sqlite3.connect(self.database)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path)
    yield engine
    engine.log.close()


def repeats(keys: list[str]) -> int:
    return sum(count - 1 for count in Counter(keys).values())


def test_a_thousand_in_flight_when_the_engine_is_killed_are_all_brought_to_their_end(engine):
    for after in (50, 1500, 700):
        engine.run_and_kill("chain", 1000, after)
    began = time.monotonic()
    engine.run("chain", 1000)
    assert time.monotonic() - began < 40
    assert engine.rows("SELECT status, count(*) FROM instances GROUP BY status") == [("completed", 2000)]
    assert engine.rows("SELECT count(*) FROM journal WHERE kind = 'ended'") == [(2000,)]
    keys = engine.marks("work")
    assert len(set(keys)) == 3000, "every step took place"
    # Only what was in flight at a kill was done again, under the same key.
    assert repeats(keys) <= 3 * 1000
    assert engine.kills == 3


def test_a_transaction_takes_place_exactly_once_however_often_the_engine_is_killed(engine):
    chance = random.Random(7)
    for _ in range(8):
        engine.run_and_kill("ledger", 100, chance.randint(2, 40))
    engine.run("ledger", 100)
    assert engine.kills >= 4
    assert engine.rows("SELECT count(*), count(DISTINCT instance) FROM ledger") == [(200, 200)]
    assert engine.rows("SELECT status, count(*) FROM instances GROUP BY status") == [("completed", 100)]


def test_an_undo_goes_on_where_a_kill_interrupted_it(engine):
    chance = random.Random(8)
    for _ in range(8):
        engine.run_and_kill("regret", 20, chance.randint(2, 50))
    engine.run("regret", 20)
    assert engine.rows("SELECT status, count(*) FROM instances GROUP BY status") == [("failed", 20)]
    for n in range(20):
        name = f"default/regret-{n}"
        done = list(dict.fromkeys(line.split()[1] for line in engine.marks(f"work {name}/")))
        undone = list(dict.fromkeys(line.split()[1] for line in engine.marks(f"undo {name}/")))
        assert [key.removeprefix(f"{name}/") for key in done] == ["work", *(f"work#{k}" for k in range(2, 6))]
        assert [key.replace("undo:", "") for key in undone] == done[::-1], "in reverse order, each once"


def test_a_killed_attempt_is_resumed_from_its_last_heartbeat_under_its_key(engine):
    engine.run_and_kill("resumes", 1, 3)
    # The details are written within the pace of a heartbeat; until then the attempt begins from the start.
    for _ in range(5):
        if engine.rows("SELECT count(*) FROM heartbeats") == [(1,)]:
            break
        engine.run_and_kill("resumes", 1, 2)
    engine.run("resumes", 1)
    assert engine.marks("resumed") == ["resumed from 0"]
    assert set(engine.marks("slow")) == {"slow default/resumes-0/slow"}
    assert engine.rows("SELECT status FROM instances") == [("completed",)]


def test_an_instance_that_crashes_the_engine_is_parked_in_the_end_and_the_others_go_on(engine):
    engine.run_and_kill("chain", 6, 8)
    for _ in range(40):
        crashed = engine.start("poison", 1).wait(60)
        if crashed == 0:
            break
    assert crashed == 0, "the engine still crashes"
    assert dict(engine.rows("SELECT id, status FROM instances WHERE process = 'poison'")) == {"poison-0": "parked"}
    statuses = dict(engine.rows("SELECT status, count(*) FROM instances WHERE process != 'poison' GROUP BY status"))
    assert set(statuses) == {"completed"}
    (reason,) = engine.rows("SELECT error FROM instances WHERE id = 'poison-0'")[0]
    assert re.search(r"crash", reason)
    assert 2 <= len(engine.marks("crash")) <= 20


async def test_a_parked_poison_can_be_mended_and_goes_on(engine, until):
    for _ in range(40):
        if await asyncio.to_thread(lambda: engine.start("poison", 1).wait(60)) == 0:
            break
    from dalsegno import process

    @process(name="poison")
    async def mended(n: int) -> int:
        return n

    others = [item for item in PROCESSES if item.name != "poison"]
    async with App(f"sqlite:///{engine.database}", processes=[*others, mended]) as app:
        run = app.get("poison-0")
        assert await run.status() == "parked"
        await run.resume()
        assert await run.result() == 0


def test_events_between_instances_survive_kills(engine):
    chance = random.Random(9)
    for _ in range(6):
        engine.run_and_kill("tells", 12, chance.randint(2, 60))
    engine.run("tells", 12)
    assert engine.rows("SELECT status, count(*) FROM instances GROUP BY status") == [("completed", 24)]
    keys = engine.marks("work")
    assert len(set(keys)) == sum(range(12))
