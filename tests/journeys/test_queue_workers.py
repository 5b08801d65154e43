"""Workers as programs of their own: killed, frozen, stopped, and a node that dies while they work."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_world import Here, eventually, in_this_process, program, running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(Path(__file__).with_name("queue_shop.py"), tmp_path / "queue_shop.py")
    return tmp_path


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    found = in_this_process(monkeypatch, capsys)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DALSEGNO_STORE", "shop.db")
    return found


@contextmanager
def node(folder: Path) -> Iterator[subprocess.Popen[str]]:
    with running(folder, "node", "queue_shop.py:app", until="running") as process:
        yield process


@contextmanager
def worker(folder: Path, name: str = "worker") -> Iterator[subprocess.Popen[str]]:
    with running(folder, "worker", "queue_shop.py:app", "--queue", "gpu", "--name", name, until="running") as process:
        yield process


def marks(folder: Path, what: str = "") -> list[str]:
    """What steps said, without the process that said it."""
    path = folder / "marks"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.rpartition(" ")[0] for line in lines if line.startswith(what)]


def start(here: Here, process: str, name: str) -> None:
    here("start", process, "--input", json.dumps(name), "--id", name)


def result(here: Here, id: str) -> object:
    return here.json("result", id, "--timeout", "20s")["result"]


def completed_by(here: Here, id: str) -> list[str]:
    """Who did the steps of an instance."""
    entries = [json.loads(line) for line in here("export", id).splitlines()]
    return [found["by"] for found in _objects(entries) if found.get("kind") == "step_completed"]


def _objects(value: object) -> Iterator[dict[str, str]]:
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _objects(part)


def test_a_step_whose_worker_is_killed_is_done_by_another_under_the_same_key(folder: Path, here: Here) -> None:
    with node(folder), worker(folder, "first") as first:
        start(here, "film", "nosferatu")
        eventually(lambda: marks(folder, "begins"))
        first.kill()
        first.wait(20)
        with worker(folder, "second"):
            eventually(lambda: len(marks(folder, "begins")) == 2)
            (folder / "nosferatu").touch()
            assert result(here, "nosferatu") == "nosferatu rendered"

    assert marks(folder) == ["begins default/nosferatu/render"] * 2 + ["ends default/nosferatu/render"]
    assert completed_by(here, "nosferatu") == ["second"]


def test_a_worker_that_was_frozen_past_its_lease_has_no_say_any_more(folder: Path, here: Here) -> None:
    with node(folder), worker(folder, "frozen") as frozen:
        start(here, "film", "vampyr")
        eventually(lambda: marks(folder, "begins"))
        frozen.send_signal(signal.SIGSTOP)
        with worker(folder, "spare"):
            eventually(lambda: len(marks(folder, "begins")) == 2)
            frozen.send_signal(signal.SIGCONT)
            # It learns that its lease is over, and stops what it did.
            eventually(lambda: marks(folder, "stops"))
            (folder / "vampyr").touch()
            assert result(here, "vampyr") == "vampyr rendered"

    assert len(marks(folder, "ends")) == 1
    assert completed_by(here, "vampyr") == ["spare"]


def test_what_a_worker_does_while_no_node_runs_is_journaled_by_the_next_one(folder: Path, here: Here) -> None:
    with worker_beside_a_node_that_dies(folder, here, "metropolis"):
        (folder / "metropolis").touch()
        eventually(lambda: marks(folder, "ends"))
        with node(folder):
            assert result(here, "metropolis") == "metropolis rendered"

    assert Counter(marks(folder)) == {"begins default/metropolis/render": 1, "ends default/metropolis/render": 1}


@contextmanager
def worker_beside_a_node_that_dies(folder: Path, here: Here, name: str) -> Iterator[None]:
    with node(folder) as dying, worker(folder):
        start(here, "film", name)
        eventually(lambda: marks(folder, "begins"))
        dying.kill()
        dying.wait(20)
        yield


def test_a_step_that_ends_every_worker_fails_in_the_end(folder: Path, here: Here) -> None:
    with node(folder):
        start(here, "lethal", "the-ring")
        for number in range(5):
            with worker(folder, f"victim-{number}") as victim:
                assert victim.wait(20) == 9
        eventually(lambda: here.status("the-ring") == "failed")
        error = here.json("show", "the-ring")["instance"]["error"]

    assert "5 workers of queue 'gpu' ended while they ran it, the last one was 'victim-4'" in error
    assert len(marks(folder, "poison")) == 5


def test_a_cancelled_film_is_stopped_at_its_worker_before_it_is_undone(folder: Path, here: Here) -> None:
    with node(folder), worker(folder):
        start(here, "film", "m")
        eventually(lambda: marks(folder, "begins"))
        here("cancel", "m")
        eventually(lambda: here.status("m") == "cancelled")

    assert marks(folder) == [
        "begins default/m/render",
        "stops default/m/render",
        "undoes default/m/undo:render",
    ]


def test_a_worker_that_is_told_to_stop_lets_its_step_end(folder: Path, here: Here) -> None:
    with node(folder), worker(folder) as stopping:
        start(here, "film", "faust")
        eventually(lambda: marks(folder, "begins"))
        stopping.send_signal(signal.SIGTERM)
        assert stopping.stdout is not None
        assert "stopping" in stopping.stdout.readline()
        start(here, "film", "golem")
        (folder / "faust").touch()
        assert stopping.wait(20) == 0
        assert result(here, "faust") == "faust rendered"
        [depth] = here.lines("queues")
        assert (depth["name"], depth["ready"], depth["running"]) == ("gpu", 1, 0)

    assert marks(folder, "begins") == ["begins default/faust/render"]


def test_several_workers_share_a_thousand_steps_and_do_each_once(folder: Path, here: Here) -> None:
    with node(folder), worker(folder, "one"), worker(folder, "two"):
        here("start", "many", "--input", "1000", "--id", "many")
        assert result(here, "many") == 1000 * 1001 // 2
        by = Counter(completed_by(here, "many"))

    assert sum(by.values()) == 1000
    assert set(by) == {"one", "two"}


def test_a_worker_says_what_it_lacks(folder: Path) -> None:
    without = program(folder, "worker", "queue_shop.py:app", "--queue", "gpu")
    assert without.returncode == 1
    assert "shop.db doesn't exist" in without.stderr
    assert program(folder, "worker", "queue_shop.py:app").returncode == 2
    assert program(folder, "worker", "queue_shop.py:app", "--queue", "g p u").returncode == 2
